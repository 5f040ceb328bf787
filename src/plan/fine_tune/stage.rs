//! Where a run stands. Pure: one question, asked in order of precedence.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as corev1;

use super::{
    ObservedFineTune,
    attempt::{AttemptFacts, rank},
    ends,
    group::{self, Fall},
    outcome::{self, Outcome},
    resolution,
};
use crate::{
    api::{DesiredState, Failure, FineTunePhase, condition},
    plan::{Next, Problem},
};

/// Where a run stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// It is over and stays over.
    Over,
    /// A new attempt is to begin.
    Launch,
    /// A new attempt cannot begin.
    Blocked(Vec<Problem>),
    /// The Job waits for its turn or for a node.
    Queued(Waiting),
    /// The pod starts, downloads, checks.
    Starting(Waiting),
    /// The trainer trains.
    Training,
    /// Pods are to end because the user wants a pause or a stop, or because their Job is on its way out.
    Ending,
    /// One of several nodes failed, or is taken away: the pods of the others end.
    Falling,
    /// All pods of several nodes have ended because of one; all are to begin again.
    Fallen(Fall),
    /// Everything is quiet because the user wants a pause.
    Paused,
    /// Everything is quiet because the user wants a stop.
    Stopped,
    /// The Job has just ended; its last report may still be on its way.
    Ended,
    /// Trained to the end; what the last report should have said is read from the output.
    Collecting,
    /// Trained to the end, and everything is on record.
    Succeeded,
    /// Failed for good.
    Failed(Failure),
}

/// What a Job or pod waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Reason in CamelCase.
    pub reason: String,
    /// The same for people.
    pub message: String,
}

impl Waiting {
    /// A pod that starts as it should.
    fn for_pod() -> Self {
        Self { reason: "Starting".into(), message: "the pod starts, loads its data and checks what it can resume from".into() }
    }
}

impl Stage {
    /// When to look again though nothing changed.
    pub fn look_again(&self) -> Next {
        match self {
            Self::Fallen(fall) => Next::After(fall.pause),
            // A last report and the end of its Job come by different watches: give the first a moment.
            Self::Ended => Next::After(Duration::from_secs(GRACE_OF_LAST_REPORT)),
            Self::Starting(_) => Next::After(Duration::from_secs(UNSCHEDULABLE_AFTER)),
            // What is not ours is not watched: nothing tells when it goes.
            Self::Blocked(problems) if is_name_taken(problems) => Next::After(Duration::from_secs(NAME_TRIED_EVERY)),
            _ => Next::OnChange,
        }
    }

    /// Why the current attempt is over, if it is.
    pub fn end_of_attempt(&self) -> Option<String> {
        match self {
            Self::Succeeded => Some("Succeeded".into()),
            Self::Failed(failure) => Some(failure.reason.clone()),
            Self::Fallen(fall) => Some(fall.failure.reason.clone()),
            Self::Paused => Some("Paused".into()),
            Self::Stopped => Some("Stopped".into()),
            Self::Launch | Self::Blocked(_) => Some("Interrupted".into()),
            _ => None,
        }
    }
}

/// Reason of what waits in a queue, as opposed to what waits for a node.
pub const QUEUED: &str = "Queued";

/// Seconds between the end of a Job and the conclusion that its last report never came.
const GRACE_OF_LAST_REPORT: u64 = 5;

/// Seconds a pod may be unschedulable before it is said.
const UNSCHEDULABLE_AFTER: u64 = 15;

/// Seconds between two tries of a name that somebody else has taken.
const NAME_TRIED_EVERY: u64 = 30;

/// Seconds the watch of Jobs may lag behind the status that tells of a Job.
const GRACE_OF_NEW_JOB: i64 = 10;

/// Where the run stands.
pub fn stage(observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> Stage {
    let status = observed.status();
    let spec = &observed.fine_tune.spec;
    let (restarted, unrecorded) = (facts.is_restarted(observed), facts.is_unrecorded(observed));
    if condition::is_true(&status.conditions, condition::FINISHED) && !restarted && !unrecorded {
        return Stage::Over;
    }
    if unrecorded && !ends(spec.desired_state) {
        return Stage::Launch;
    }
    if facts.job.is_none() && is_on_its_way(observed, facts, now) {
        return Stage::Starting(Waiting::for_pod());
    }
    let quiet = facts.live_pods == 0;
    match &facts.job {
        Some(job) if !restarted => match outcome::outcome(job, &facts.pods) {
            Some(Outcome::Succeeded) if quiet => on_record(observed, facts, now).unwrap_or(Stage::Succeeded),
            Some(Outcome::Failed(failure)) if quiet => {
                group::after_fall(observed, facts, now).unwrap_or_else(|| failed(observed, facts, failure, now))
            }
            Some(Outcome::Failed(_)) if group::is_group(job) => Stage::Falling,
            Some(_) => Stage::Training,
            None if ends(spec.desired_state) || job.metadata.deletion_timestamp.is_some() => Stage::Ending,
            None if group::is_falling(job, &facts.pods) => Stage::Falling,
            None => at_work(job, &facts.pods, now),
        },
        Some(job) if outcome::outcome(job, &facts.pods).is_none() => Stage::Ending,
        _ if !quiet => Stage::Ending,
        _ => match spec.desired_state {
            DesiredState::Stopped => Stage::Stopped,
            DesiredState::Paused => Stage::Paused,
            DesiredState::Running => Stage::Launch,
        },
    }
}

fn is_name_taken(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.reason == resolution::NAME_TAKEN)
}

/// Whether the Job was put on record a moment ago, so that it exists though its watch does not show it yet. Nothing may be concluded from
/// its absence then: not that it is to be made, and not that nothing runs.
fn is_on_its_way(observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> bool {
    let status = observed.status();
    let unseen = status
        .attempts
        .iter()
        .any(|attempt| attempt.number == facts.number && attempt.start_time.is_none() && attempt.end_time.is_none());
    let fresh = observed.last_status_write.is_some_and(|last| now.as_second() - last.as_second() < GRACE_OF_NEW_JOB);
    status.phase == FineTunePhase::Preparing && unseen && fresh
}

/// The Job has failed for good.
fn failed(observed: &ObservedFineTune, facts: &AttemptFacts, failure: Failure, now: Timestamp) -> Stage {
    let left = if trainer_ran(&facts.pods) { on_record(observed, facts, now) } else { None };
    left.unwrap_or(Stage::Failed(failure))
}

/// The Job is over: what is left to do until everything it left is on record.
fn on_record(observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> Option<Stage> {
    let last_pod = facts
        .pods
        .iter()
        .filter(|pod| rank(pod) == 0)
        .max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let progress = observed.status().progress.filter(|progress| progress.attempt == facts.number);
    let ended_by = progress.and_then(|progress| progress.ended_by);
    // Of several nodes only the first speaks for the run; of several of its pods only the last counts: an earlier one may have said its end,
    // and that one have died before its first word.
    let ended = ended_by.is_some_and(|ended| last_pod.is_none_or(|pod| pod.metadata.uid.as_deref() == Some(&ended)));
    let collected = facts.collect.as_ref().is_some_and(|job| outcome::finished_at(job).is_some());
    if ended || collected {
        return None;
    }
    let end = facts.job.as_ref().and_then(|job| outcome::finished_at(job));
    let fresh = end.is_some_and(|end| now.as_second() - end.as_second() < GRACE_OF_LAST_REPORT.cast_signed());
    Some(if fresh && facts.collect.is_none() { Stage::Ended } else { Stage::Collecting })
}

/// Whether a trainer may have left something: not where every pod ended before its trainer began.
fn trainer_ran(pods: &[std::sync::Arc<corev1::Pod>]) -> bool {
    let began = |pod: &std::sync::Arc<corev1::Pod>| {
        let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        containers
            .filter(|container| container.name == super::containers::TRAINER)
            .filter_map(|container| container.state.as_ref()?.terminated.as_ref())
            .any(|terminated| terminated.started_at.is_some())
    };
    pods.is_empty() || pods.iter().any(began)
}

/// The Job is neither complete nor failed.
fn at_work(job: &k8s_openapi::api::batch::v1::Job, pods: &[std::sync::Arc<corev1::Pod>], now: Timestamp) -> Stage {
    if job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) {
        return Stage::Queued(Waiting { reason: QUEUED.into(), message: "waits for its turn; see status.queue".into() });
    }
    let started = pods.iter().filter(|pod| trainer_started(pod)).count();
    if i32::try_from(started).is_ok_and(|started| started >= group::nodes(job)) {
        return Stage::Training;
    }
    pods.iter()
        .find_map(|pod| unschedulable(pod, now))
        .map(Stage::Queued)
        .or_else(|| pods.iter().find_map(|pod| stuck(pod)).map(Stage::Starting))
        .unwrap_or_else(|| Stage::Starting(Waiting::for_pod()))
}

fn trainer_started(pod: &corev1::Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers
        .filter(|container| container.name == super::containers::TRAINER)
        .any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some()))
}

fn unschedulable(pod: &corev1::Pod, now: Timestamp) -> Option<Waiting> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let since = scheduled.last_transition_time.as_ref().map_or(now, |time| time.0);
    let long = now.as_second() - since.as_second() >= UNSCHEDULABLE_AFTER.cast_signed();
    (long && scheduled.reason.as_deref() == Some("Unschedulable")).then(|| Waiting {
        reason: "Unschedulable".into(),
        message: format!("no node takes the pod: {}", scheduled.message.as_deref().unwrap_or_default()),
    })
}

/// A container that cannot start, and why.
fn stuck(pod: &corev1::Pod) -> Option<Waiting> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    containers.filter_map(|container| Some((container, container.state.as_ref()?.waiting.as_ref()?))).find_map(
        |(container, waiting)| {
            let words = waiting.message.as_deref().unwrap_or_default();
            let (reason, message) = match waiting.reason.as_deref()? {
                "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" => {
                    ("ImagePullFailed", format!("image {:?} cannot be pulled: {words}", container.image))
                }
                "CreateContainerConfigError" => {
                    ("ContainerConfigInvalid", format!("container {} cannot be created: {words}", container.name))
                }
                _ => return None,
            };
            Some(Waiting { reason: reason.into(), message })
        },
    )
}

/// The phase people see.
pub const fn phase(stage: &Stage, desired: DesiredState, before: FineTunePhase) -> FineTunePhase {
    match stage {
        Stage::Over => before,
        Stage::Blocked(_) => FineTunePhase::Pending,
        Stage::Launch | Stage::Starting(_) => FineTunePhase::Preparing,
        Stage::Queued(_) => FineTunePhase::Queued,
        Stage::Training | Stage::Ended | Stage::Collecting => FineTunePhase::Running,
        Stage::Ending | Stage::Falling | Stage::Fallen(_) => match desired {
            DesiredState::Paused => FineTunePhase::Pausing,
            DesiredState::Stopped => FineTunePhase::Stopping,
            DesiredState::Running => FineTunePhase::Preparing,
        },
        Stage::Paused => FineTunePhase::Paused,
        Stage::Stopped => FineTunePhase::Stopped,
        Stage::Succeeded => FineTunePhase::Succeeded,
        Stage::Failed(_) => FineTunePhase::Failed,
    }
}
