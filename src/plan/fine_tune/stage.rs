//! Where a run stands. Pure: one question, asked in order of precedence.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};

use super::{
    ObservedFineTune,
    attempt::AttemptFacts,
    budget::{self, Exceeded},
    ends,
    group::{self, Fall},
    outcome::{self, Outcome},
    resolution,
    waiting::{UNSCHEDULABLE_AFTER, Waiting, stuck, unschedulable},
};
use crate::{
    api::{DesiredState, Failure, FineTunePhase, condition, names::rank},
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
    /// Pods are to end because the budget is spent.
    Exceeding(Exceeded),
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
            Self::Launch | Self::Blocked(_) => Some(outcome::INTERRUPTED.into()),
            _ => None,
        }
    }
}

/// Reason of what waits in a queue, as opposed to what waits for a node.
pub const QUEUED: &str = "Queued";

/// Seconds between the end of a Job and the conclusion that its last report never came.
const GRACE_OF_LAST_REPORT: u64 = 5;

/// Seconds between two tries of a name that somebody else has taken.
const NAME_TRIED_EVERY: u64 = 30;

/// Seconds the watch of Jobs may lag behind the status that tells of a Job.
const GRACE_OF_NEW_JOB: i64 = 10;

/// Where the run stands.
pub fn stage(observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> Stage {
    let status = observed.status();
    let (restarted, unrecorded) = (facts.is_restarted(observed), facts.is_unrecorded(observed));
    if condition::is_true(&status.conditions, condition::FINISHED) && !restarted && !unrecorded {
        return Stage::Over;
    }
    if unrecorded {
        // Put on record first even where it is to end: its number would be given away again otherwise.
        return Stage::Launch;
    }
    if facts.job.is_none() && is_on_its_way(observed, facts, now) {
        return Stage::Starting(Waiting::for_pod());
    }
    match &facts.job {
        Some(job) if !restarted => with_job(job, observed, facts, now),
        Some(job) if outcome::outcome(job, &facts.pods).is_none() => Stage::Ending,
        _ if facts.live_pods > 0 && restarted => Stage::Ending,
        _ if facts.live_pods > 0 => exceeding(observed, facts, now).unwrap_or(Stage::Ending),
        _ => at_rest(observed, facts, now),
    }
}

/// Where the current attempt stands by its Job.
fn with_job(job: &batch::Job, observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> Stage {
    let is_leaving = job.metadata.deletion_timestamp.is_some();
    let is_done = has_succeeded(job, &facts.pods);
    let ended = outcome::outcome(job, &facts.pods).or_else(|| (is_leaving && is_done).then_some(Outcome::Succeeded));
    let quiet = facts.live_pods == 0;
    let asked = ends(observed.fine_tune.spec.desired_state).then_some(Stage::Ending);
    let ending = asked.or_else(|| exceeding(observed, facts, now));
    match (ended, ending) {
        (Some(Outcome::Succeeded), _) if quiet => on_record(observed, facts, now).unwrap_or(Stage::Succeeded),
        // A Job that is deleted fails of the signal its pods were ended with.
        (Some(Outcome::Failed(_)), Some(ending)) if is_leaving => ending,
        (Some(Outcome::Failed(failure)), _) if quiet => match group::after_fall(observed, facts, now) {
            Some(Stage::Launch) => {
                budget::exceeded(observed, facts, now).map_or(Stage::Launch, |exceeded| Stage::Failed(exceeded.failure()))
            }
            Some(stage) => stage,
            None => failed(observed, facts, failure, now),
        },
        (Some(Outcome::Failed(_)), _) if group::is_group(job) => Stage::Falling,
        (Some(_), _) => Stage::Training,
        (None, Some(ending)) if !is_done => ending,
        (None, None) if is_leaving => Stage::Ending,
        (None, None) if group::is_falling(job, &facts.pods) => Stage::Falling,
        (None, _) => at_work(job, &facts.pods, now),
    }
}

/// Whether every pod the Job wants has succeeded: its own word for that follows.
fn has_succeeded(job: &batch::Job, pods: &[std::sync::Arc<corev1::Pod>]) -> bool {
    let wanted = job.spec.as_ref().and_then(|spec| spec.completions).and_then(|wanted| usize::try_from(wanted).ok());
    let phase = |pod: &corev1::Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    wanted.is_some_and(|wanted| {
        wanted > 0 && pods.iter().filter(|pod| phase(pod).as_deref() == Some("Succeeded")).count() >= wanted
    })
}

/// Pods are to end for the budget, unless the user wants them to end anyway.
fn exceeding(observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> Option<Stage> {
    let wanted = !ends(observed.fine_tune.spec.desired_state);
    budget::exceeded(observed, facts, now).filter(|_| wanted).map(Stage::Exceeding)
}

/// No Job is at work and no pod is left.
fn at_rest(observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> Stage {
    let spec = &observed.fine_tune.spec;
    match spec.desired_state {
        DesiredState::Stopped => return Stage::Stopped,
        DesiredState::Paused => return Stage::Paused,
        DesiredState::Running => {}
    }
    let malformed = budget::malformed(spec.budget.as_ref());
    match budget::exceeded(observed, facts, now) {
        Some(exceeded) if facts.is_open(observed) && !facts.is_restarted(observed) => Stage::Failed(exceeded.failure()),
        Some(exceeded) => Stage::Blocked(vec![exceeded.problem()]),
        None if !malformed.is_empty() => Stage::Blocked(malformed),
        None => Stage::Launch,
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
fn at_work(job: &batch::Job, pods: &[std::sync::Arc<corev1::Pod>], now: Timestamp) -> Stage {
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
        Stage::Exceeding(_) => FineTunePhase::Stopping,
        Stage::Paused => FineTunePhase::Paused,
        Stage::Stopped => FineTunePhase::Stopped,
        Stage::Succeeded => FineTunePhase::Succeeded,
        Stage::Failed(_) => FineTunePhase::Failed,
    }
}
