//! `agent look`: says whether paths on volumes are there, before anything is mounted that would be made where it is missing. Reads only.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::inputs;
use super::prepare::PrepareError;
use super::prepare::failure::{self, Role};
use crate::protocol::{Input, exit, paths};

/// What `agent look` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// A file or folder that has to be there and hold something.
    #[arg(long = "path", required = true)]
    pub paths: Vec<PathBuf>,
    /// Where claims are mounted, by name.
    #[arg(long, default_value = paths::VOLUMES, hide = true)]
    pub volumes: PathBuf,
    /// Where the reason of a failure is written for Kubernetes.
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// Runs `agent look`.
pub async fn run(arguments: &Arguments) -> ExitCode {
    for path in &arguments.paths {
        let input = on_volume(path, &arguments.volumes);
        let Err(source) = inputs::make_usable_below(&input, &arguments.volumes, Role::Weights.name()).await else { continue };
        let failure = failure::of(&PrepareError::Input { role: Role::Weights, source });
        tracing::error!(reason = failure.reason, message = failure.message, "the checkpoint cannot be handed out");
        if let Err(error) = tokio::fs::write(&arguments.termination_log, failure::termination_message(&failure)).await {
            tracing::warn!(path = %arguments.termination_log.display(), %error, "reason not recorded");
        }
        return ExitCode::from(if failure.user_error { u8::try_from(exit::USER_ERROR).unwrap_or(1) } else { 1 });
    }
    ExitCode::SUCCESS
}

/// A path as its owner calls it.
fn on_volume(path: &Path, volumes: &Path) -> Input {
    let within = path.strip_prefix(volumes).unwrap_or(path).display();
    Input::Path { path: path.display().to_string(), label: format!("volume://{within}"), field: "spec.storage".into() }
}
