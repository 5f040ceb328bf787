//! The life of `watch` beside one trainer: takes what it says and saves, and reports it, until the pod
//! ends. Effects; every decision is made by the pure parts it calls.

use std::future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::callback::Post;
use super::disk;
use super::diverge::Divergence;
use super::ended::Ended;
use super::given_up::GivenUp;
use super::log::{self, Follow};
use super::part::Part;
use super::places::Places;
use super::posted::Posted;
use super::progress::Tracker;
use super::reporter::{Burden, Reporter, Turn};
use super::scan::{News, Order};
use super::series::History;
use super::stall::Stall;
use crate::agent::store::Bucket;
use crate::protocol::{End, Prepared, Report, ReportedCheckpoint, RunConfig};

/// Points of a series, and bytes of all of them, in a report.
const SERIES: (usize, usize) = (400, 40 << 10);
/// How long the end is awaited once the pod is being ended.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// How often things are looked at, how long they may take, and for which part of the run.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two scans for checkpoints.
    pub scan: Duration,
    /// Between two looks at logs and small files.
    pub poll: Duration,
    /// For the last report, before the trainer's container is let go.
    pub grace: Duration,
    /// What part of the run this pod has.
    pub part: Part,
}

/// Where the session hears from.
pub struct Sources {
    /// The trainer's progress posts.
    pub posts: mpsc::Receiver<Post>,
    /// What the scans show.
    pub news: mpsc::Receiver<News>,
    /// Orders to the scanner.
    pub orders: mpsc::Sender<Order>,
    /// Becomes true when the pod is being ended.
    pub stop: watch::Receiver<bool>,
}

/// Everything `watch` knows.
pub struct Session {
    pub(super) config: Arc<RunConfig>,
    pub(super) places: Places,
    pub(super) pace: Pace,
    pub(super) bucket: Option<Bucket>,
    pub(super) resumed_from: Option<i64>,
    pub(super) tracker: Tracker,
    pub(super) history: History,
    pub(super) checkpoints: Vec<ReportedCheckpoint>,
    pub(super) posted: Posted,
    pub(super) divergence: Divergence,
    pub(super) given_up: Option<GivenUp>,
    concluded: Option<Concluded>,
    start: Instant,
    stall: Stall,
    pub(super) log: Follow,
    pub(super) records: Follow,
    reporter: Reporter,
    news: bool,
    pub(super) alive: bool,
    pub(super) unwritten: bool,
}

/// How the attempt has ended, and who knows.
struct Concluded {
    end: End,
    at: Instant,
    /// Whether the controller knows.
    delivered: bool,
    /// Whether the wrapper knows.
    drained: bool,
}

impl Session {
    /// Begins beside a trainer that `prepare` has readied.
    #[must_use]
    pub fn new(
        config: Arc<RunConfig>,
        (places, pace): (Places, Pace),
        prepared: &Prepared,
        reporter: Reporter,
        bucket: Option<Bucket>,
    ) -> Self {
        let dir = places.lineage(&config);
        let mut history = disk::read_text(&dir.join(HISTORY), MAX_HISTORY).map(|text| History::parse(&text)).unwrap_or_default();
        // At once, so that nobody finds there what is trained again.
        let unwritten = history.resume_from(prepared.resumed_from.unwrap_or_default()) && pace.part.leads();
        // Only the first node knows of steps.
        let limit = config.stall_seconds.filter(|_| pace.part.leads()).map(|seconds| Duration::from_secs(seconds.into()));
        Self {
            resumed_from: prepared.resumed_from,
            tracker: Tracker::new(prepared.resumed_from),
            history,
            checkpoints: Vec::new(),
            posted: Posted::new(&config.parameters),
            divergence: Divergence::new(config.divergence_points),
            given_up: disk::read_text(&places.terminate(), 4096).map(|text| GivenUp::parse(&text)),
            concluded: None,
            start: Instant::now(),
            stall: Stall::new(limit),
            log: Follow::new(places.log()),
            records: Follow::from_end(dir.join("trainer_log.jsonl")),
            reporter,
            news: true,
            alive: false,
            unwritten,
            config,
            places,
            pace,
            bucket,
        }
    }

    /// Watches until the pod ends.
    pub async fn run(mut self, mut sources: Sources) {
        let mut ticks = interval(self.pace.poll);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop_at = None;
        loop {
            let untold = self.concluded.as_ref().is_none_or(|it| !it.delivered);
            tokio::select! {
                Some(post) = sources.posts.recv() => self.on_post(&post),
                Some(news) = sources.news.recv() => self.on_news(news),
                turn = self.reporter.turn(untold || self.news) => self.on_turn(turn, &sources.orders),
                _ = ticks.tick() => self.on_tick(&mut sources).await,
                () = asked(&mut sources.stop), if stop_at.is_none() => stop_at = Some(Instant::now() + LAST_WAIT),
                () = until(stop_at) => return,
            }
            if stop_at.is_some() && self.concluded.is_some() {
                self.drain();
                return;
            }
        }
    }

    pub(super) fn hasten(&mut self) {
        self.news = true;
        self.reporter.hasten();
    }

    /// Looks at logs and small files.
    async fn on_tick(&mut self, sources: &mut Sources) {
        if let Some(concluded) = &self.concluded {
            let waited = concluded.at.elapsed() >= self.pace.grace;
            if concluded.delivered || waited || !self.reporter.is_connected() {
                self.drain();
            }
            return;
        }
        self.read_logs();
        self.write_history().await;
        let found = disk::read_text(&self.places.ended(), 4096).and_then(|text| Ended::parse(&text));
        if let Some(ended) = found {
            self.conclude(ended, sources).await;
            return;
        }
        self.check_health();
    }

    /// Brings everything on record, and decides; given up where the pod ends before.
    async fn conclude(&mut self, ended: Ended, sources: &mut Sources) {
        tracing::info!(exit = ended.exit, asked = ended.asked, "the trainer has ended");
        let mut stop = sources.stop.clone();
        let end = tokio::select! {
            end = self.finish(ended, sources) => end,
            () = overdue(&mut stop) => return,
        };
        tracing::info!(exit = end.exit_code, reason = end.failure.as_ref().map(|it| it.reason.as_str()), "decided");
        self.concluded = Some(Concluded { end, at: Instant::now(), delivered: false, drained: false });
        self.hasten();
    }

    /// Has the trainer ended, once it does not get on or its loss has ceased to be a number.
    fn check_health(&mut self) {
        let now = self.start.elapsed();
        let (step, alive) = (self.tracker.step(), std::mem::take(&mut self.alive));
        // The wrapper makes the log before it starts the trainer, and forgets orders of before.
        if self.places.log().exists() {
            self.stall.begin(now);
        }
        let stalled = self.stall.observe(step, alive, now).then(|| GivenUp::Stalled {
            seconds: self.config.stall_seconds.unwrap_or_default(),
            step,
            at: Timestamp::now().checked_sub(self.stall.quiet(now)).ok(),
        });
        let why = self.divergence.row().map(GivenUp::Diverged).or(stalled).filter(|_| self.given_up.is_none());
        let Some(why) = why else { return };
        tracing::warn!(?why, "the attempt is given up: the trainer is ended");
        match disk::write_whole(&self.places.terminate(), why.to_text().as_bytes()) {
            Ok(()) => self.given_up = Some(why),
            Err(error) => tracing::warn!(%error, "the trainer cannot be ended"),
        }
    }

    /// Sends the whole current truth.
    fn send(&mut self) {
        let mut report = Report {
            sequence: 0,
            resumed_from: self.resumed_from,
            progress: self.tracker.reported(),
            checkpoints: self.checkpoints.clone(),
            end: self.concluded.as_ref().map(|it| it.end.clone()),
            ..Report::default()
        };
        if self.news {
            report.series = self.history.downsampled(SERIES.0, SERIES.1);
            report.log = log::tail(&self.places.log());
        }
        let burden = Burden { news: self.news, end: report.end.is_some() };
        self.news = false;
        self.reporter.send(report, burden);
    }

    fn on_turn(&mut self, turn: Turn, orders: &mpsc::Sender<Order>) {
        match turn {
            Turn::Due => self.send(),
            Turn::Lost(burden) => self.news |= burden.news,
            Turn::Arrived(burden, answer) => {
                if let Some(concluded) = &mut self.concluded {
                    concluded.delivered |= burden.end;
                }
                // A full queue loses nothing: what is not done is ordered again.
                if !answer.delete.is_empty() && orders.try_send(Order::Remove(answer.delete)).is_err() {
                    tracing::debug!("an order to remove checkpoints was put off");
                }
            }
        }
    }

    /// Lets the trainer's container go.
    fn drain(&mut self) {
        let Some(concluded) = self.concluded.as_mut().filter(|it| !it.drained) else { return };
        let (lineage, delivered) = (self.config.lineage, concluded.delivered);
        let text = super::ended::answer(&concluded.end, &self.checkpoints, lineage, delivered);
        match disk::write_whole(&self.places.drained(), text.as_bytes()) {
            Ok(()) => concluded.drained = true,
            Err(error) => tracing::warn!(%error, "the trainer's container cannot be let go, trying again"),
        }
    }
}

/// Name of the metric history beside the checkpoints, and the most that is read of it.
pub(super) const HISTORY: &str = "history.jsonl";
const MAX_HISTORY: u64 = 64 << 20;

/// Waits until the pod is being ended.
pub(super) async fn asked(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        future::pending::<()>().await;
    }
}

/// Waits until the pod has been ending for so long that there is no use in going on.
async fn overdue(stop: &mut watch::Receiver<bool>) {
    asked(stop).await;
    sleep_until(Instant::now() + LAST_WAIT).await;
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => future::pending().await,
    }
}
