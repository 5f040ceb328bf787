//! Pods that train together: one that fails ends them all. Which of them that was, whether it counts, and what follows. Pure.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};

use super::{
    ObservedFineTune,
    attempt::{AttemptFacts, is_live},
    containers::TRAINER,
    outcome::{INTERRUPTED, condition, guessed, last_words, told},
    stage::Stage,
};
use crate::{
    api::{Attempt, DesiredState, Failure},
    protocol::exit,
};

/// Pause before all nodes begin again after a first counted failure; it doubles with each.
const FIRST_PAUSE_SECONDS: i64 = 10;
/// Longest such pause.
const LONGEST_PAUSE_SECONDS: i64 = 360;

/// How a group fell.
#[derive(Clone, Debug, PartialEq)]
pub struct Fall {
    /// Why.
    pub failure: Failure,
    /// Whether it counts against `spec.retries`.
    pub counted: bool,
    /// How long to wait before all begin again.
    pub pause: Duration,
}

/// Nodes a Job is spread over.
pub fn nodes(job: &batch::Job) -> i32 {
    job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or(1)
}

/// Whether the pods of a Job train together.
pub fn is_group(job: &batch::Job) -> bool {
    nodes(job) > 1
}

/// Whether a group is about to fall: its Job has failed and the other pods end, or one of its pods is being taken away.
pub fn is_falling(job: &batch::Job, pods: &[Arc<corev1::Pod>]) -> bool {
    let failing = condition(job, "FailureTarget").or_else(|| condition(job, "Failed")).is_some();
    is_group(job) && (failing || is_disrupted(pods))
}

/// Whether Kubernetes takes one of the pods away.
pub fn is_disrupted(pods: &[Arc<corev1::Pod>]) -> bool {
    pods.iter().any(|pod| disrupted(pod))
}

fn disrupted(pod: &corev1::Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")
}

/// What follows when a group has fallen and all its pods have ended; nothing when the run has failed for good, or is not one of a group.
///
/// The end of the attempt is put on record first, and with it what is counted. Only then the next one begins.
pub fn after_fall(observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> Option<Stage> {
    let job = facts.job.as_ref().filter(|job| is_group(job))?;
    condition(job, "Failed")?;
    let status = observed.status();
    let rests = match observed.fine_tune.spec.desired_state {
        DesiredState::Stopped => Some(Stage::Stopped),
        DesiredState::Paused => Some(Stage::Paused),
        DesiredState::Running => None,
    };
    let Some(attempt) = status.attempts.iter().find(|attempt| attempt.number == facts.number) else { return rests };
    let fall = fall(job, &facts.pods, attempt);
    let Some(ended) = &attempt.end_time else {
        let again = fall.failure.exit_code != Some(exit::USER_ERROR)
            && (!fall.counted || status.failures < observed.fine_tune.spec.retries);
        return again.then(|| Stage::Fallen(Fall { pause: Duration::from_secs(1), ..fall }));
    };
    let pause = if fall.counted { pause_seconds(status.failures) } else { 0 };
    let left = pause - (now.as_second() - ended.0.as_second());
    let waits = u64::try_from(left).ok().filter(|left| *left > 0);
    let waits = waits.map(|left| Stage::Fallen(Fall { pause: Duration::from_secs(left), ..fall }));
    Some(rests.or(waits).unwrap_or(Stage::Launch))
}

fn pause_seconds(failures: i32) -> i64 {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or_default().min(10);
    (FIRST_PAUSE_SECONDS << doublings).min(LONGEST_PAUSE_SECONDS)
}

/// Why a group fell, and whether that counts. Pods that were ended because of the others say nothing of it; those that end by themselves stay
/// until the Job goes.
pub fn fall(job: &batch::Job, pods: &[Arc<corev1::Pod>], attempt: &Attempt) -> Fall {
    let counts = |failure: Failure| Fall { failure, counted: true, pause: Duration::ZERO };
    let interrupted = || Fall { failure: interruption(), counted: false, pause: Duration::ZERO };
    let said = || pods.iter().filter_map(|pod| Some((pod, last_words(pod)?)));
    let user_error = said().find(|(_, (_, terminated))| terminated.exit_code == exit::USER_ERROR);
    if let Some((_, (container, terminated))) = user_error {
        return counts(told(terminated).unwrap_or_else(|| guessed(container, terminated)));
    }
    if is_disrupted(pods) || attempt.reason.as_deref() == Some(INTERRUPTED) {
        return interrupted();
    }
    let by_itself = |pod: &&Arc<corev1::Pod>| pod.metadata.deletion_timestamp.is_none();
    let culprit = said()
        .filter(|(pod, (_, terminated))| by_itself(pod) && terminated.exit_code != exit::INTERRUPTED)
        .min_by_key(|(_, (_, terminated))| terminated.finished_at.as_ref().map(|time| time.0));
    if let Some((_, (container, terminated))) = culprit {
        return counts(told(terminated).unwrap_or_else(|| guessed(container, terminated)));
    }
    let rejected = pods.iter().filter(by_itself).find(|pod| !is_live(pod) && last_words(pod).is_none() && has_failed(pod));
    let message = condition(job, "Failed").and_then(|failed| failed.message.clone()).unwrap_or_default();
    match (rejected, exit_code_in(&message)) {
        (Some(pod), _) => counts(rejection(pod)),
        (None, Some(code)) if code != exit::INTERRUPTED => {
            let ended = corev1::ContainerStateTerminated { exit_code: code, message: Some(message), ..Default::default() };
            counts(guessed(TRAINER, &ended))
        }
        (None, _) => interrupted(),
    }
}

fn has_failed(pod: &corev1::Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Failed")
}

fn interruption() -> Failure {
    Failure {
        reason: INTERRUPTED.into(),
        message: "a pod was ended from outside".into(),
        hint: "it resumes by itself".into(),
        ..Failure::default()
    }
}

/// A pod that failed before any of its containers ran.
fn rejection(pod: &corev1::Pod) -> Failure {
    let status = pod.status.clone().unwrap_or_default();
    Failure {
        reason: status.reason.unwrap_or_else(|| "PodRejected".into()),
        message: status.message.unwrap_or_else(|| "a pod failed before its containers ran".into()),
        ..Failure::default()
    }
}

/// The exit code the Job controller names as the reason a Job failed: the last word on a pod that is gone.
fn exit_code_in(message: &str) -> Option<i32> {
    let (_, rest) = message.split_once("failed with exit code ")?;
    rest.split(' ').next()?.parse().ok()
}
