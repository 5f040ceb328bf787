//! The command line of `finetune-operator`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{agent, check, controllers, gateway, generate};

/// The Kubernetes operator for fine-tuning language models
///
/// One image, several processes: `controller` runs in a Deployment of its own, `agent` inside the pods it makes.
#[derive(Parser, Debug)]
#[command(name = "finetune-operator", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Reconcile FineTunes and Checkpoints, and take the reports of agents
    Controller(Box<controllers::Arguments>),
    /// Serve the REST APIs, with the rights of whoever calls
    Gateway(Box<gateway::Arguments>),
    /// Work inside a pod: prepare a run, watch it, remove or verify files
    Agent {
        #[command(subcommand)]
        command: agent::Command,
    },
    /// Check that an installation works: its processes are ready, and the API server takes a FineTune
    Check(check::Arguments),
    /// Write the generated files of this repository: crds/, RBAC and the files of the chart
    Generate {
        /// Root of the repository
        #[arg(default_value = ".")]
        root: PathBuf,
        /// Write nothing; list what differs and exit 1 if anything does
        #[arg(long)]
        check: bool,
    },
}

/// Runs what the command line asks for.
pub async fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Controller(arguments) => report(controllers::run(*arguments).await),
        Command::Gateway(arguments) => report(gateway::run(*arguments).await),
        Command::Check(arguments) => report(check::run(arguments).await),
        Command::Agent { command } => agent::run(command).await,
        Command::Generate { root, check: false } => report(generate::write(&root)),
        Command::Generate { root, check: true } => match generate::check(&root) {
            Ok(drift) if drift.is_empty() => ExitCode::SUCCESS,
            Ok(drift) => {
                for difference in &drift {
                    eprintln!("{difference}");
                }
                eprintln!("run `finetune-operator generate` and commit what it writes");
                ExitCode::FAILURE
            }
            Err(error) => report(Err::<(), _>(error)),
        },
    }
}

/// Says what went wrong, and what caused it.
fn report<T, E: std::error::Error>(result: Result<T, E>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("finetune-operator: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        eprintln!("  because {inner}");
        cause = inner.source();
    }
    ExitCode::FAILURE
}
