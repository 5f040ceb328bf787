//! `agent watch`: the sidecar of a training pod. It takes the trainer's progress, proves its checkpoints,
//! reports both, and decides what an exit of the trainer means. It alone speaks to the controller.

pub mod book;
pub mod callback;
pub mod classify;
pub mod disk;
pub mod diverge;
pub mod ended;
mod finish;
pub mod given_up;
mod hear;
pub mod known;
pub mod lines;
pub mod log;
pub mod lookout;
pub mod metric;
pub mod part;
pub mod places;
pub mod posted;
pub mod progress;
pub mod reporter;
pub mod scan;
pub mod schedule;
pub mod series;
pub mod session;
pub mod stall;
pub mod verdict;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

pub use places::Places;

use self::lookout::Lookout;
use self::part::Part;
use self::reporter::Reporter;
use self::scan::Scanner;
use self::session::{Pace, Session, Sources};
use super::report_client::{ReportClient, ReportError};
use super::store::{Bucket, StoreError};
use crate::protocol::{Prepared, RunConfig, env};

/// Posts, news and orders that wait at most; a sender waits or drops beyond it.
const QUEUE: usize = 64;

/// What `agent watch` is told beside the run's configuration.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
    /// Milliseconds between two scans for checkpoints.
    #[arg(long, default_value_t = 2000)]
    pub scan_interval: u64,
    /// Milliseconds between two looks at logs and small files.
    #[arg(long, default_value_t = 500)]
    pub poll_interval: u64,
    /// Seconds for the last report, before the trainer's container is let go.
    #[arg(long, default_value_t = 30)]
    pub grace: u64,
    /// Rank of this pod among the nodes of the run.
    #[arg(long, env = env::NODE, default_value_t = 0)]
    pub node: u32,
    /// Reports nothing, for runs without a controller.
    #[arg(long)]
    pub no_reports: bool,
}

/// Why a trainer cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The controller's configuration is missing or cannot be read.
    #[error("the configuration in {} cannot be read: {problem}", env::CONFIG)]
    Config {
        /// What is wrong.
        problem: String,
    },
    /// Reports cannot be sent.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The output's store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local endpoint cannot be opened, or signals cannot be taken.
    #[error("the local endpoint or the signals cannot be used: {0}")]
    System(#[from] std::io::Error),
    /// A part of the work ended abnormally.
    #[error("the output was not read: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Runs `agent watch`: 0 once the pod ends, whatever became of the trainer.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let setup = setup(arguments);
    let ended = match setup {
        Ok((config, client)) => {
            let (stop, stopped) = watch::channel(false);
            tokio::select! {
                ended = watch_trainer(config, arguments, client, stopped) => ended,
                Err(error) = pass_signals(stop) => Err(error.into()),
            }
        }
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the trainer cannot be watched");
            ExitCode::FAILURE
        }
    }
}

fn setup(arguments: &Arguments) -> Result<(RunConfig, Option<ReportClient>), WatchError> {
    let unreadable = |problem: String| WatchError::Config { problem };
    let config = std::env::var(env::CONFIG).map_err(|error| unreadable(error.to_string()))?;
    let config = serde_json::from_str(&config).map_err(|error| unreadable(error.to_string()))?;
    if arguments.no_reports {
        return Ok((config, None));
    }
    let variable =
        |variable| std::env::var(variable).map_err(|error| ReportError::Environment { variable, problem: error.to_string() });
    let (url, ca) = (variable(env::REPORT_URL)?, variable(env::REPORT_CA)?);
    Ok((config, Some(ReportClient::new(&url, &ca, &arguments.places.token)?)))
}

/// Passes on that the pod is being ended; ends only with an error.
async fn pass_signals(stop: watch::Sender<bool>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    }
}

/// Watches one trainer, from before it is readied until the pod ends.
///
/// # Errors
/// When the endpoint or the object store cannot be used.
pub async fn watch_trainer(
    config: RunConfig,
    arguments: &Arguments,
    client: Option<ReportClient>,
    stop: watch::Receiver<bool>,
) -> Result<(), WatchError> {
    let (config, places) = (Arc::new(config), arguments.places.clone());
    let bucket = config.upload.as_ref().map(Bucket::open).transpose()?;
    let listener = TcpListener::bind(places.callback_address).await?;
    watch_with(config, arguments, (client, bucket, listener), stop).await
}

/// The same with what it needs opened already.
async fn watch_with(
    config: Arc<RunConfig>,
    arguments: &Arguments,
    (client, bucket, listener): (Option<ReportClient>, Option<Bucket>, TcpListener),
    mut stop: watch::Receiver<bool>,
) -> Result<(), WatchError> {
    let places = arguments.places.clone();
    let pace = pace(arguments, Part::of(config.nodes, arguments.node));
    let mut tasks = JoinSet::new();
    let (posted, posts) = mpsc::channel(QUEUE);
    tasks.spawn(callback::serve(listener, posted));
    let prepared = tokio::select! {
        prepared = prepared(&places, pace.poll) => prepared,
        // The trainer was never started: there is nothing to save.
        () = session::asked(&mut stop) => return Ok(()),
    };
    let (heard, news) = mpsc::channel(QUEUE);
    let (orders, ordered) = mpsc::channel(QUEUE);
    let dir = places.lineage(&config);
    let since = disk::modified(&places.prepared()).unwrap_or_default();
    if pace.part.leads() {
        let (known, output, folder) = (Arc::clone(&config), places.output.clone(), dir.clone());
        let refused = prepared.refused.clone();
        let lookout = spawn_blocking(move || Lookout::new(known, &output, folder, since).refusing(refused)).await?;
        let means = (bucket.clone(), prepared.resumed_from);
        let scanner = Scanner::new(Arc::clone(&config), (places.output.clone(), dir), means, lookout, heard);
        tasks.spawn(scanner.run(pace.scan, ordered));
    } else {
        drop((heard, ordered));
    }
    let reporter = Reporter::new(client.filter(|_| pace.part.leads()));
    let session = Session::new(config, (places, pace), &prepared, reporter, bucket);
    session.run(Sources { posts, news, orders, stop }).await;
    Ok(())
}

const fn pace(arguments: &Arguments, part: Part) -> Pace {
    const fn at_least(milliseconds: u64) -> Duration {
        Duration::from_millis(if milliseconds == 0 { 1 } else { milliseconds })
    }
    Pace {
        scan: at_least(arguments.scan_interval),
        poll: at_least(arguments.poll_interval),
        grace: Duration::from_secs(arguments.grace),
        part,
    }
}

/// Waits until `prepare` has readied the pod.
async fn prepared(places: &Places, poll: Duration) -> Prepared {
    loop {
        let text = disk::read_text(&places.prepared(), 1 << 20);
        if let Some(prepared) = text.and_then(|text| serde_json::from_str(&text).ok()) {
            return prepared;
        }
        sleep(poll).await;
    }
}

#[cfg(test)]
mod tests;
