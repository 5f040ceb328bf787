//! `agent prepare`: readies a training pod. Makes the inputs usable, picks and proves the checkpoint to
//! resume from, and writes what trainer and `watch` read. Whatever only the user can mend ends it with a
//! code of its own, so that it is not tried again.

pub(super) mod failure;
mod files;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::files::{FileError, PodFiles};
use super::inputs::{self, InputError};
use super::resume::{self, Picked, ResumeError};
use super::store::{Bucket, StoreError};
use super::{check::folder, parameters};
use crate::protocol::{Input, Prepared, RunConfig, env, exit, paths};

pub use failure::Role;

/// What `agent prepare` is told beside the run's configuration.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The wrapper to put before the trainer; `finetune-run` beside this program when not given.
    #[arg(long)]
    pub wrapper: Option<PathBuf>,
    /// Where the reason of a failure is written for Kubernetes.
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
    /// Directory that stands for `/`, for tests.
    #[arg(long, default_value = "/", hide = true)]
    pub root: PathBuf,
}

/// Why a pod could not be readied.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The controller's configuration is missing or cannot be read.
    #[error("the configuration in {} cannot be read: {problem}", env::CONFIG)]
    Config {
        /// What is wrong.
        problem: String,
    },
    /// An input cannot be used.
    #[error("{source}")]
    Input {
        /// Which one.
        role: Role,
        /// Why.
        source: InputError,
    },
    /// The output's store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No checkpoint could be decided on.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// A file of the pod could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Runs `agent prepare`.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let config = std::env::var(env::CONFIG).map_err(|error| error.to_string());
    let config = config.and_then(|text| read(&text).map_err(|error| error.to_string()));
    let ended = match config {
        Ok(config) => prepare(&config, arguments).await,
        Err(problem) => Err(PrepareError::Config { problem }),
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    let failure = failure::of(&error);
    tracing::error!(reason = failure.reason, %error, "the run cannot start");
    let message = failure::termination_message(&failure);
    if let Err(error) = tokio::fs::write(&arguments.termination_log, message).await {
        tracing::warn!(path = %arguments.termination_log.display(), %error, "reason not recorded");
    }
    let code = if failure.user_error { u8::try_from(exit::USER_ERROR).unwrap_or(1) } else { 1 };
    ExitCode::from(code)
}

fn read(text: &str) -> serde_json::Result<RunConfig> {
    serde_json::from_str(text)
}

/// Readies the pod of one attempt. Safe to repeat: an init container may run again.
async fn prepare(config: &RunConfig, arguments: &Arguments) -> Result<(), PrepareError> {
    let pod = PodFiles::new(&arguments.root);
    pod.make_directories(config)?;
    pod.forget_earlier_run()?;
    pod.install_wrapper(arguments.wrapper.as_deref())?;
    let bucket = config.upload.as_ref().map(Bucket::open).transpose()?;
    for (role, input) in inputs_of(config) {
        let usable = inputs::make_usable(input, role.name()).await;
        usable.map_err(|source| PrepareError::Input { role, source })?;
    }
    let output = pod.at(&config.output_dir());
    let picked = resume::pick(config, &output, bucket.as_ref()).await?;
    let Picked { choice, refused } = picked;
    let resumed_from = choice.as_ref().map(|choice| choice.step);
    // The trainer sees the pod's own paths.
    let target = choice.map(|choice| {
        if choice.path.starts_with(&output) {
            format!("{}/{}", config.output_dir(), folder(choice.step))
        } else {
            choice.path.to_string_lossy().into_owned()
        }
    });
    pod.link_resume(target.as_deref())?;
    pod.write_json(paths::PARAMETERS, &parameters::file(config, target.as_deref()))?;
    pod.write_json(paths::PREPARED, &Prepared { resumed_from, refused })?;
    tracing::info!(resumed_from, "ready to train");
    Ok(())
}

/// The inputs, those first that only have to be looked at: a long download is not begun for a run that
/// cannot start anyway.
fn inputs_of(config: &RunConfig) -> Vec<(Role, &Input)> {
    let mut inputs = vec![(Role::BaseModel, &config.base_model), (Role::Dataset, &config.dataset)];
    inputs.extend(config.validation_dataset.as_ref().map(|input| (Role::ValidationDataset, input)));
    inputs.sort_by_key(|(_, input)| matches!(input, Input::Download { .. }));
    inputs
}

#[cfg(test)]
mod tests;
