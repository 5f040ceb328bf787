//! `agent collect`: says what a run left behind when its own pod could not: reads the output once, proves
//! what nobody proved yet, and sends one report. How the attempt ended is told only where `watch` wrote
//! it down, in `logs/attempt-<n>.end.json` of the lineage's folder.

mod disk;
mod stored;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tracing::{error, info};

use super::check::signed;
use super::report_client::ReportClient;
use super::store::{Bucket, StoreError};
use super::watch::series::History;
use crate::checkpoint_files::{FsError, TrainerState, cut, decimal};
use crate::protocol::redact::redact;
use crate::protocol::{
    End, FilesState, MAX_REPORTED_CHECKPOINTS, Report, ReportedCheckpoint, ReportedProgress, RunConfig, env, paths,
};

/// Lines of the log that are reported.
const LOG_LINES: usize = 200;
/// Bytes at the end of the log in which they are looked for.
const LOG_BYTES: u64 = 64 << 10;
/// Bytes of a line that are reported.
const LINE: usize = 1024;
/// Most that is read of a small record of `watch`.
const RECORD_BYTES: u64 = 64 << 10;
/// Most that is read of the metric history.
const HISTORY_BYTES: u64 = 64 << 20;
/// Points a series keeps, and bytes all of them take.
const SERIES: (usize, usize) = (200, 40 << 10);

/// What `agent collect` is told beside the run's configuration.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The folder of the run, where its output is a volume.
    #[arg(long, default_value = paths::OUTPUT)]
    pub output: PathBuf,
    /// A directory for what has to be downloaded to be proven.
    #[arg(long, default_value = "/finetune/sources/collect")]
    pub work_dir: PathBuf,
    /// Seconds for which the report is tried again.
    #[arg(long, default_value_t = 120)]
    pub grace: u64,
}

/// Why the output could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The volume cannot be read.
    #[error("the output {} cannot be read: {problem}", path.display())]
    Output {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        problem: FsError,
    },
    /// The object store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of the work ended abnormally.
    #[error("the output was not read to the end: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// What was found in an output.
#[derive(Debug, Default)]
struct Found {
    checkpoints: Vec<ReportedCheckpoint>,
    state: Option<TrainerState>,
    history: String,
    log: Vec<u8>,
    end: Option<End>,
}

impl Found {
    /// The newest step of a lineage whose checkpoint is good.
    fn newest_ready(&self, lineage: i64) -> Option<i64> {
        let ready = self.checkpoints.iter().filter(|it| it.lineage == lineage && it.state == FilesState::Ready);
        ready.map(|it| it.step).max()
    }
}

/// Runs `agent collect`: 0 when the report was taken.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let config = std::env::var(env::CONFIG).map_err(|error| error.to_string());
    let config = config.and_then(|text| serde_json::from_str::<RunConfig>(&text).map_err(|error| error.to_string()));
    let config = match config {
        Ok(config) => config,
        Err(problem) => {
            error!(variable = env::CONFIG, problem, "the configuration cannot be read");
            return ExitCode::FAILURE;
        }
    };
    let report = match collect(&config, arguments).await {
        Ok(found) => report(found),
        Err(error) => {
            error!(%error, "nothing collected");
            return ExitCode::FAILURE;
        }
    };
    deliver(&report, Duration::from_secs(arguments.grace)).await
}

/// Sends a report that will not be sent again.
pub(super) async fn deliver(report: &Report, grace: Duration) -> ExitCode {
    let posted = match ReportClient::from_env() {
        Ok(client) => client.post_within(report, grace).await,
        Err(error) => Err(error),
    };
    match posted {
        Ok(_) => {
            info!(checkpoints = report.checkpoints.len(), ended = report.end.is_some(), "reported");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(%error, "report not delivered");
            ExitCode::FAILURE
        }
    }
}

async fn collect(config: &RunConfig, arguments: &Arguments) -> Result<Found, CollectError> {
    if let Some(store) = &config.upload {
        let bucket = Bucket::open(store)?;
        return stored::collect(config, &bucket, &arguments.work_dir).await;
    }
    let (config, output) = (config.clone(), arguments.output.clone());
    tokio::task::spawn_blocking(move || disk::collect(&config, &output)).await?
}

/// The report of what was found. Pure.
fn report(mut found: Found) -> Report {
    found.checkpoints.sort_by_key(|checkpoint| (checkpoint.lineage, checkpoint.step));
    let surplus = found.checkpoints.len().saturating_sub(MAX_REPORTED_CHECKPOINTS);
    found.checkpoints.drain(..surplus);
    let mut history = History::parse(&found.history);
    if let Some(state) = &found.state {
        history.record(state);
    }
    Report {
        sequence: 1,
        resumed_from: None,
        progress: found.state.as_ref().map(progress),
        checkpoints: found.checkpoints,
        series: history.downsampled(SERIES.0, SERIES.1),
        log: last_lines(&found.log),
        end: found.end,
    }
}

/// How far a saved state says the trainer was. Pure.
fn progress(state: &TrainerState) -> ReportedProgress {
    ReportedProgress {
        step: signed(state.global_step),
        total_steps: state.max_steps.map(signed),
        epoch: state.epoch.map(decimal),
        total_epochs: state.num_train_epochs.map(decimal),
        trained_tokens: state.num_input_tokens_seen.filter(|tokens| *tokens > 0).map(signed),
        estimated_remaining_seconds: None,
        metrics: state.metrics_at(state.global_step),
        time: None,
    }
}

/// The last lines of a log whose beginning may be cut off. Pure.
fn last_lines(log: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(log);
    let whole = log.len() < usize::try_from(LOG_BYTES).unwrap_or(usize::MAX);
    let lines: Vec<_> = text.lines().skip(usize::from(!whole)).collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines.iter().skip(from).map(|line| cut(&redact(line), LINE).to_owned()).collect()
}

/// Names of what `watch` leaves in the folder of a lineage.
fn log_name(attempt: i64) -> String {
    format!("logs/attempt-{attempt}.log")
}

fn end_name(attempt: i64) -> String {
    format!("logs/attempt-{attempt}.end.json")
}

const HISTORY: &str = "history.jsonl";
const STATE: &str = "trainer_state.json";

#[cfg(test)]
mod tests;
