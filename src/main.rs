//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use finetune_operator::cli;

#[tokio::main]
async fn main() -> ExitCode {
    // One provider of cryptography for the whole process; a second installation can only fail because there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    cli::run(cli::Cli::parse()).await
}
