//! How long the pods of an attempt held their nodes: a queue or a disruption may take nodes back and give others later, so in turns. Pure.
//!
//! What was held is put on record when a turn ends, never because time passes. Of pods that vanish unseen only the beginning of their turn
//! is on record: they are taken to have held their nodes until those that replace them were made, or their Job ended, or until now, since
//! it is their going that makes us look.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as corev1;

use super::{
    attempt::{AttemptFacts, is_live},
    outcome,
    stage::Stage,
};
use crate::{
    api::{FineTuneStatus, names::rank},
    plan::cost,
};

/// How long nodes were held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Seconds in which at least one node was held.
    pub seconds: i64,
    /// Seconds each node was held, added up.
    pub node_seconds: i64,
}

/// What happens to the turn of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its pods have got their nodes.
    Begins(Timestamp),
    /// Its pods have lost them.
    Ends(Timestamp),
    /// Other pods have got theirs.
    Changes(Timestamp),
}

impl Turn {
    /// The moment of the change.
    pub const fn at(self) -> Timestamp {
        match self {
            Self::Begins(at) | Self::Ends(at) | Self::Changes(at) => at,
        }
    }

    /// When the turn that goes on from here began.
    pub const fn start(self) -> Option<Timestamp> {
        match self {
            Self::Begins(at) | Self::Changes(at) => Some(at),
            Self::Ends(_) => None,
        }
    }
}

/// What is on record of an attempt that is not over, and what there is to see of it.
pub struct Books<'a> {
    facts: &'a AttemptFacts,
    nodes: i32,
    turn_start: Option<Timestamp>,
    settled: Option<Timestamp>,
}

impl<'a> Books<'a> {
    /// The books of the current attempt; `None` once they are closed.
    pub fn of(status: &FineTuneStatus, facts: &'a AttemptFacts) -> Option<Self> {
        let attempt = status.attempts.iter().find(|attempt| attempt.number == facts.number);
        if attempt.is_some_and(|attempt| attempt.end_time.is_some()) {
            return None;
        }
        Some(Self {
            facts,
            nodes: nodes(status),
            turn_start: attempt.and_then(|attempt| attempt.turn_start.as_ref()).map(|time| time.0),
            settled: status.cost.as_ref().and_then(|cost| cost.as_of.as_ref()).map(|time| time.0),
        })
    }

    /// What was held until then and is not on record yet.
    pub fn held(&self, until: Timestamp) -> Held {
        let unseen = (0..self.nodes).filter_map(|index| self.unseen(index, until));
        let mut spans: Vec<_> = unseen.chain(self.facts.pods.iter().filter_map(|pod| self.seen(pod, until))).collect();
        spans.sort_unstable();
        let mut held = Held::default();
        let mut covered = i64::MIN;
        for (begin, end) in spans.into_iter().filter(|(begin, end)| begin < end) {
            held.node_seconds = held.node_seconds.saturating_add(end - begin);
            held.seconds = held.seconds.saturating_add((end - covered.max(begin)).max(0));
            covered = covered.max(end);
        }
        held
    }

    /// How many nodes are held now.
    pub fn holding(&self) -> usize {
        self.holders().count()
    }

    /// What is to be put on record now, while the attempt goes on.
    pub fn turn(&self, stage: &Stage, now: Timestamp) -> Option<Turn> {
        let Some(begin) = self.turn_start else { return self.begin(stage, now) };
        let newer = self.holders().filter(|(pod, _)| !was_made_by(pod, begin));
        let newest = newer.filter_map(|(pod, start)| Some(start.max(created(pod)?))).max();
        if let Some(start) = newest.filter(|_| *stage == Stage::Training) {
            return Some(Turn::Changes(start));
        }
        let goes_on = self.facts.pods.iter().any(|pod| is_live(pod) && was_made_by(pod, begin));
        let unseen: Vec<_> = (0..self.nodes).filter_map(|index| self.unseen(index, now)).collect();
        if goes_on || unseen.is_empty() && !takes_pods_away(stage) {
            return None;
        }
        let last = self.last_end(now).into_iter().chain(unseen.into_iter().map(|(_, end)| end)).max();
        Some(Turn::Ends(last.and_then(|end| Timestamp::from_second(end).ok()).map_or(begin, |end| end.max(begin))))
    }

    /// That pods have got their nodes is worth a write only together with other news, or when they are about to go, and so is what those held
    /// that came and went before.
    fn begin(&self, stage: &Stage, now: Timestamp) -> Option<Turn> {
        let is_end = takes_pods_away(stage);
        let leaves = self.facts.pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
        if !is_end && !leaves && *stage != Stage::Training {
            return None;
        }
        let start = self.holders().map(|(_, start)| start).min();
        let change =
            start.map(|start| if self.held(start) == Held::default() { Turn::Begins(start) } else { Turn::Changes(start) });
        change.or_else(|| {
            let end = self.last_end(now).filter(|_| is_end && self.held(now) != Held::default())?;
            Timestamp::from_second(end).ok().map(Turn::Ends)
        })
    }

    /// When the last of the pods that have ended did so, in seconds of the epoch.
    fn last_end(&self, now: Timestamp) -> Option<i64> {
        let ended = self.facts.pods.iter().filter(|pod| !is_live(pod)).filter_map(|pod| self.seen(pod, now));
        ended.map(|(_, end)| end).max()
    }

    /// The pods that hold their nodes, and since when.
    fn holders(&self) -> impl Iterator<Item = (&corev1::Pod, Timestamp)> {
        self.facts.pods.iter().filter(|pod| is_live(pod)).filter_map(|pod| Some((pod.as_ref(), started(pod)?)))
    }

    /// What a pod held, in seconds of the epoch.
    fn seen(&self, pod: &corev1::Pod, until: Timestamp) -> Option<(i64, i64)> {
        let start = started(pod)?;
        let end = if is_live(pod) { until } else { cost::ended_at(pod).unwrap_or(start) };
        Some((self.settled.map_or(start, |settled| start.max(settled)).as_second(), end.min(until).as_second()))
    }

    /// What a pod held that was there when the turn began and has vanished since.
    fn unseen(&self, index: i32, until: Timestamp) -> Option<(i64, i64)> {
        let begin = self.turn_start?;
        let of_index: Vec<_> = self.facts.pods.iter().filter(|pod| i64::from(rank(pod)) == i64::from(index)).collect();
        if of_index.iter().any(|pod| was_made_by(pod, begin)) {
            return None;
        }
        let replaced = of_index.iter().filter_map(|pod| created(pod)).min();
        let ended = replaced.or_else(|| self.facts.job.as_ref().and_then(|job| outcome::finished_at(job)));
        Some((begin.as_second(), ended.map_or(until, |end| end.min(until)).as_second()))
    }
}

/// Whether pods that have ended are about to vanish.
const fn takes_pods_away(stage: &Stage) -> bool {
    matches!(stage, Stage::Ending | Stage::Exceeding(_) | Stage::Falling | Stage::Queued(_))
}

/// Nodes of the newest attempt.
pub fn nodes(status: &FineTuneStatus) -> i32 {
    status.resolved.as_ref().map_or(1, |resolved| resolved.nodes).max(1)
}

fn created(pod: &corev1::Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn was_made_by(pod: &corev1::Pod, moment: Timestamp) -> bool {
    created(pod).is_none_or(|created| created <= moment)
}

fn started(pod: &corev1::Pod) -> Option<Timestamp> {
    pod.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}
