//! What runs inside pods: it readies a training pod, watches it, and reads, checks and removes the
//! files of runs. It knows no Kubernetes API; `watch`, `collect`, `import`, `export` and `fetch` speak to the report server.

mod causes;
pub mod check;
pub mod collect;
mod drain;
pub mod export;
pub mod fetch;
pub mod import;
pub mod inputs;
pub mod look;
pub mod parameters;
pub mod prepare;
pub mod remove;
pub mod report_client;
pub mod resume;
pub mod serve;
pub mod store;
pub mod verify;
pub mod watch;

#[cfg(test)]
mod fixture;

use std::process::ExitCode;

use clap::Subcommand;

use crate::telemetry;

/// What an agent can be told to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Init container of a training pod: get the inputs, pick what to resume from, write the parameters file
    Prepare(prepare::Arguments),
    /// Sidecar of a training pod: prove checkpoints as they appear, and report
    Watch(watch::Arguments),
    /// Report what a run left on its output, when its own last report never came
    Collect(collect::Arguments),
    /// Verify the files of a hand-written Checkpoint and report what they are
    Import(import::Arguments),
    /// Init container of a serving pod: get weights and base model, and compare them with what was recorded
    Fetch(fetch::Arguments),
    /// Init container of the pod that hands a checkpoint out: say whether its files are there
    Look(look::Arguments),
    /// Hand one checkpoint out to who has a capability for it
    Export(export::Arguments),
    /// Sidecar of a serving pod: say whether the server serves the model
    Serve(serve::Arguments),
    /// Remove files of a run
    Delete(remove::Arguments),
    /// Say whether a folder holds a complete checkpoint, and why not
    Verify(verify::Arguments),
}

/// Does what an agent is told to do.
pub async fn run(command: Command) -> ExitCode {
    if !matches!(command, Command::Verify(_)) {
        telemetry::init(telemetry::Format::Text, &std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()));
    }
    match command {
        Command::Prepare(arguments) => prepare::run(&arguments).await,
        Command::Watch(arguments) => watch::run(&arguments).await,
        Command::Collect(arguments) => collect::run(&arguments).await,
        Command::Import(arguments) => import::run(&arguments).await,
        Command::Fetch(arguments) => fetch::run(&arguments).await,
        Command::Look(arguments) => look::run(&arguments).await,
        Command::Export(arguments) => export::run(&arguments).await,
        Command::Serve(arguments) => serve::run(&arguments).await,
        Command::Delete(arguments) => remove::run(&arguments).await,
        Command::Verify(arguments) => verify::run(&arguments).await,
    }
}
