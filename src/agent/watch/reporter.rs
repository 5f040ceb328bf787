//! Sends reports: one at a time, when the schedule says so, each larger than the last number. Effects only.

use std::time::Duration;

use futures::future;
use jiff::Timestamp;
use rand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::schedule::Schedule;
use crate::agent::report_client::{ReportClient, ReportError};
use crate::protocol::{Answer, MAX_REPORT_BYTES, Report};

/// What a report was about, so that it is known once it has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burden {
    /// It carried series and log.
    pub news: bool,
    /// It told the end.
    pub end: bool,
}

/// What there is to do next about reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Send one.
    Due,
    /// Heed the answer.
    Arrived(Burden, Answer),
    /// Say it again.
    Lost(Burden),
}

/// The way of reports out of the pod.
#[derive(Debug)]
pub struct Reporter {
    client: Option<ReportClient>,
    schedule: Schedule,
    sequence: u64,
    start: Instant,
    sending: JoinSet<(Burden, Result<Answer, ReportError>)>,
    refusal_told: bool,
    loss_told: bool,
}

impl Reporter {
    /// Reports with `client`; without one nothing is reported. Numbers begin with the time, so that they
    /// go on growing when the container is started again.
    #[must_use]
    pub fn new(client: Option<ReportClient>) -> Self {
        Self {
            client,
            schedule: Schedule::new(Duration::ZERO),
            sequence: u64::try_from(Timestamp::now().as_second()).unwrap_or_default(),
            start: Instant::now(),
            sending: JoinSet::new(),
            refusal_told: false,
            loss_told: false,
        }
    }

    /// Whether there is anybody to report to.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.client.is_some()
    }

    /// There is news.
    pub fn hasten(&mut self) {
        self.schedule.hasten(self.start.elapsed());
    }

    /// Sends a report.
    pub fn send(&mut self, mut report: Report, burden: Burden) {
        let Some(client) = self.client.clone() else { return };
        self.sequence += 1;
        report.sequence = self.sequence;
        fit(&mut report);
        self.schedule.sent();
        self.sending.spawn(async move { (burden, client.post(&report).await) });
    }

    /// Waits for the report on its way to arrive or be lost; where none is, until the next one is due, or
    /// for ever where none is wanted.
    pub async fn turn(&mut self, wanted: bool) -> Turn {
        let Some(joined) = self.sending.join_next().await else {
            if self.client.is_none() || !wanted {
                future::pending::<()>().await;
            }
            sleep_until(self.start + self.schedule.due()).await;
            return Turn::Due;
        };
        let now = self.start.elapsed();
        match joined {
            Ok((burden, Ok(answer))) => {
                self.schedule.arrived(answer.interval_seconds, now);
                (self.refusal_told, self.loss_told) = (false, false);
                Turn::Arrived(burden, answer)
            }
            Ok((burden, Err(error))) => {
                self.failed(&error, now);
                Turn::Lost(burden)
            }
            Err(error) => {
                tracing::warn!(%error, "report not sent");
                self.schedule.lost(rand::rng().random(), now);
                Turn::Lost(Burden { news: true, end: false })
            }
        }
    }

    fn failed(&mut self, error: &ReportError, now: Duration) {
        if error.is_transient() {
            if !self.loss_told {
                tracing::warn!(%error, "report not delivered, trying again");
                self.loss_told = true;
            }
            self.schedule.lost(rand::rng().random(), now);
            return;
        }
        if !self.refusal_told {
            tracing::warn!(%error, "report refused");
            self.refusal_told = true;
        }
        self.schedule.refused(now);
    }
}

/// Makes a report fit: what is only for showing goes first, of the oldest checkpoints first. Pure.
fn fit(report: &mut Report) {
    /// Newest checkpoints that keep everything.
    const WHOLE: usize = 20;
    let too_large = |report: &Report| serde_json::to_vec(report).map_or(usize::MAX, |json| json.len()) > MAX_REPORT_BYTES;
    let older = report.checkpoints.len().saturating_sub(WHOLE);
    for part in ["samples", "metrics", "adapter", "message"] {
        if !too_large(report) {
            return;
        }
        for checkpoint in report.checkpoints.iter_mut().take(older) {
            match part {
                "samples" => checkpoint.samples.clear(),
                "metrics" => checkpoint.metrics.retain(|name, _| super::metric::rank(name) == 0),
                "adapter" => checkpoint.adapter.iter_mut().for_each(|adapter| {
                    adapter.target_modules.clear();
                    adapter.modules_to_save.clear();
                }),
                _ => checkpoint.message.clear(),
            }
        }
    }
    while too_large(report) && !report.checkpoints.is_empty() {
        let half = report.checkpoints.len().div_ceil(2);
        report.checkpoints.drain(..half);
    }
}
