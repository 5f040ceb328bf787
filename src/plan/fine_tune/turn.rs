//! How long the pods of an attempt held their nodes: a queue may take the nodes back and give them again, so in turns. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1 as corev1, apimachinery::pkg::apis::meta::v1::Time};

use super::{
    attempt::{AttemptFacts, is_live},
    outcome,
    stage::{QUEUED, Stage},
};
use crate::{api::Attempt, plan::cost};

/// Begins a turn where pods have got their nodes. The seconds, of all nodes together, of a turn that has just ended, by itself or with its
/// attempt.
pub fn seconds(facts: &AttemptFacts, stage: &Stage, attempt: &mut Attempt, nodes: i32, now: Timestamp) -> Option<i64> {
    if attempt.end_time.is_some() {
        return None;
    }
    let evicted = matches!(stage, Stage::Queued(waiting) if waiting.reason == QUEUED);
    if attempt.turn_start.is_none() && (*stage == Stage::Training || evicted) {
        attempt.turn_start = facts.pods.iter().filter(|pod| !has_left(pod)).filter_map(|pod| start(pod)).min().map(Time);
    }
    let ends = if evicted { attempt.turn_start.is_some() && facts.live_pods == 0 } else { stage.end_of_attempt().is_some() };
    if !ends {
        return None;
    }
    let begin = attempt.turn_start.take().map(|time| time.0);
    Some(held(facts, begin, nodes, now))
}

/// Seconds held since `begin`. Of pods that are gone only the beginning is on record: they are taken to have held their nodes until the Job
/// ended, or until now, since it is their going that makes us look.
fn held(facts: &AttemptFacts, begin: Option<Timestamp>, nodes: i32, now: Timestamp) -> i64 {
    let of_turn = |pod: &&Arc<corev1::Pod>| begin.map_or_else(|| !has_left(pod), |begin| start(pod) >= Some(begin));
    let pods: Vec<_> = facts.pods.iter().filter(of_turn).map(AsRef::as_ref).collect();
    let gone = i64::from(nodes).saturating_sub(i64::try_from(pods.len()).unwrap_or(i64::MAX)).max(0);
    let end = facts.job.as_ref().and_then(|job| outcome::finished_at(job)).unwrap_or(now);
    let whole = begin.map_or(0, |begin| end.as_second().saturating_sub(begin.as_second()).max(0));
    cost::pod_seconds(pods.into_iter(), now) + gone * whole
}

fn start(pod: &corev1::Pod) -> Option<Timestamp> {
    pod.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

/// Whether a pod has ended and is about to vanish: what it held was counted when it ended.
fn has_left(pod: &corev1::Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && !is_live(pod)
}
