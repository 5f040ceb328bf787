//! What is to be done about a FineTune. Pure: `plan` sees facts and answers with writes and a status.

mod agent_job;
mod attempt;
mod auto_deploy;
mod budget;
mod cleanup;
pub(super) mod containers;
mod distributed;
mod group;
mod job;
mod lost;
mod observed;
mod outcome;
pub(super) mod pod;
mod resolution;
mod stage;
mod status;
mod turn;
mod visibility;
pub(super) mod volumes;
mod waiting;

pub(super) use agent_job::store_flags;
pub use agent_job::{Place, Removal, checkpoint_identity, delete_job, import_job};
pub use observed::ObservedFineTune;
pub use outcome::{Outcome, outcome};
pub use turn::Held;

use jiff::Timestamp;

use super::{Change, Child, ChildKind, ChildReference, DEPLOYMENT, Next, Notice, PERMISSION, Plan, ranking, retention};
use crate::{
    api::{DesiredState, FineTunePhase, FineTuneStatus, condition, names},
    settings::Settings,
};
use attempt::AttemptFacts;
use resolution::Resolution;
use stage::Stage;

/// What is to be done about a FineTune, given what is known of the world.
#[must_use]
pub fn plan(observed: &ObservedFineTune, settings: &Settings, now: Timestamp) -> Plan<FineTuneStatus> {
    if observed.fine_tune.metadata.deletion_timestamp.is_some() {
        return cleanup::plan(observed, settings, now);
    }
    if observed.namespace_terminating {
        // Nothing can be made any more, and the run itself is deleted next.
        return Plan::nothing();
    }
    let facts = AttemptFacts::of(observed);
    let (stage, launch) = match stage::stage(observed, &facts, now) {
        Stage::Launch => match resolution::resolve(observed, settings) {
            Ok(resolution) => (Stage::Launch, Some(resolution)),
            // A Job that was made but never put on record, and what it was made of is gone: it ends, and the next look says why.
            Err(_) if facts.is_unrecorded(observed) => (Stage::Ending, None),
            Err(problems) => (Stage::Blocked(problems), None),
        },
        stage => (stage, None),
    };
    let mut changes = Vec::new();
    if !observed.has_finalizer() {
        changes.push(Change::AddFinalizer(names::FINE_TUNE_FINALIZER));
    }
    let mut status = status::status(observed, &facts, (&stage, launch.as_ref()), now);
    let (deploys, deployed) = auto_deploy::plan(observed, status.phase, now);
    status.conditions.retain(|condition| condition.type_ != condition::DEPLOYED);
    status.conditions.extend(deployed);
    if !is_to_be_booked_first(observed, &stage, &status) {
        changes.extend(writes(observed, &facts, &stage, launch.as_ref(), settings));
    }
    let notices = status::notices(observed, &status);
    let (status, next) = pace(observed, status, stage.look_again(), settings, now);
    let next = next.or_sooner(lost::deadline(observed, now));
    let next = match stage {
        Stage::Starting(_) | Stage::Training => next.or_sooner(budget::deadline(observed, &facts, now)),
        _ => next,
    };
    changes.extend(marks(observed, &status));
    let visibility = visibility::writes(observed);
    // What is surplus depends on who uses it, and who may: that is settled first.
    let settles = |write: &Option<Change>, what| write.is_none() || observed.refused.contains_key(what);
    if settles(&visibility, PERMISSION) && settles(&deploys, DEPLOYMENT) {
        changes.extend(surplus(observed, deploys.as_ref()));
    }
    changes.extend(deploys.into_iter().chain(visibility));
    Plan { changes, status: Some(status), notices, next }
}

/// Whether something that pods held is to be put on record before they go: a process that dies between the two would forget it, and a run
/// whose budget it has spent would begin again.
fn is_to_be_booked_first(observed: &ObservedFineTune, stage: &Stage, status: &FineTuneStatus) -> bool {
    let before = observed.status();
    matches!(stage, Stage::Ending | Stage::Exceeding(_)) && (status.attempts != before.attempts || status.cost != before.cost)
}

/// The writes a stage asks for.
fn writes(
    observed: &ObservedFineTune,
    facts: &AttemptFacts,
    stage: &Stage,
    launch: Option<&Resolution>,
    settings: &Settings,
) -> Vec<Change> {
    match (stage, launch) {
        (Stage::Launch, Some(_)) if facts.is_unrecorded(observed) => Vec::new(),
        (Stage::Launch, Some(resolution)) => {
            let claim = resolution.template_claim().filter(|claim| !observed.has_claim(claim.metadata.name.as_deref()));
            let service = distributed::service(resolution);
            let job = job::training_job(resolution, facts.next_attempt(observed), settings);
            let before = claim.map(|claim| Child::Claim(Box::new(claim))).into_iter();
            let before = before.chain(service.map(|service| Child::Service(Box::new(service))));
            before.chain([Child::Job(Box::new(job))]).map(Change::CreateOnce).collect()
        }
        (Stage::Ending | Stage::Exceeding(_), _) => facts
            .job
            .iter()
            .filter(|job| job.metadata.deletion_timestamp.is_none())
            .map(|job| Change::Delete(ChildReference::of(ChildKind::Job, &job.metadata)))
            .collect(),
        (Stage::Collecting, _) => facts
            .job
            .as_ref()
            .filter(|_| facts.collect.is_none())
            .and_then(|job| agent_job::collect_job(observed, job, facts.number))
            .map(|job| Change::CreateOnce(Child::Job(Box::new(job))))
            .into_iter()
            .collect(),
        _ => Vec::new(),
    }
}

/// News that can wait are held back for a while: of checkpoints while a run trains, since the Checkpoints themselves are the live truth, and of
/// its place while it waits.
fn pace(
    observed: &ObservedFineTune,
    status: FineTuneStatus,
    next: Next,
    settings: &Settings,
    now: Timestamp,
) -> (FineTuneStatus, Next) {
    const CHECKPOINT_SECONDS: i64 = 600;
    let before = observed.status();
    let mut quiet = status.clone();
    let seconds = match status.phase {
        FineTunePhase::Running => {
            quiet.checkpoint_count = before.checkpoint_count;
            quiet.latest_checkpoint.clone_from(&before.latest_checkpoint);
            quiet.best_checkpoint.clone_from(&before.best_checkpoint);
            CHECKPOINT_SECONDS
        }
        FineTunePhase::Queued if !is_first_place(&before, &status) => {
            quiet.queue.clone_from(&before.queue);
            if ready_reason(&before) == ready_reason(&status) {
                quiet.conditions.clone_from(&before.conditions);
            }
            2 * i64::from(settings.queue_seconds)
        }
        _ => return (status, next),
    };
    let can_wait = quiet == before && status != before;
    let Some(last) = observed.last_status_write.filter(|_| can_wait) else { return (status, next) };
    let left = last.as_second() + seconds - now.as_second();
    if left <= 0 {
        return (status, next);
    }
    (quiet, next.or_sooner(Next::After(std::time::Duration::from_secs(left.unsigned_abs()))))
}

/// Whether a run that waits gets to know its place, or why it waits, for the first time.
fn is_first_place(before: &FineTuneStatus, after: &FineTuneStatus) -> bool {
    let position = |status: &FineTuneStatus| status.queue.as_ref().and_then(|queue| queue.position);
    before.queue.is_none() || position(before).is_none() && position(after).is_some()
}

fn ready_reason(status: &FineTuneStatus) -> Option<&str> {
    condition::find(&status.conditions, condition::READY).map(|condition| condition.reason.as_str())
}

/// Sets and clears the `best` marks so that they agree with the status.
fn marks(observed: &ObservedFineTune, status: &FineTuneStatus) -> Vec<Change> {
    if !matches!(status.phase, FineTunePhase::Succeeded | FineTunePhase::Failed | FineTunePhase::Stopped | FineTunePhase::Paused)
    {
        return Vec::new();
    }
    ranking::usable(&observed.checkpoints)
        .filter_map(|checkpoint| {
            let best = checkpoint.metadata.name == status.best_checkpoint;
            let marked = checkpoint.status.as_ref().is_some_and(|status| status.best);
            (best != marked).then(|| Change::MarkBest {
                name: checkpoint.metadata.name.clone().unwrap_or_default(),
                uid: checkpoint.metadata.uid.clone().unwrap_or_default(),
                best,
            })
        })
        .collect()
}

/// Deletes the checkpoints the policy no longer keeps, but for one that is to be deployed.
fn surplus(observed: &ObservedFineTune, deploys: Option<&Change>) -> Vec<Change> {
    let policy = &observed.fine_tune.spec.checkpoints;
    let mut used = observed.used_checkpoints.clone();
    used.extend(match deploys {
        Some(Change::CreateOnce(Child::Served(wanted))) => Some(wanted.spec.checkpoint.name.clone()),
        Some(Change::Redeploy(wanted)) => Some(wanted.checkpoint.clone()),
        _ => None,
    });
    retention::surplus(&observed.checkpoints, policy, &used)
        .into_iter()
        .map(|checkpoint| Change::Delete(ChildReference::of(ChildKind::Checkpoint, &checkpoint.metadata)))
        .collect()
}

/// What the desired state asks of pods that still run.
#[must_use]
const fn ends(desired: DesiredState) -> bool {
    !matches!(desired, DesiredState::Running)
}

/// A notice that something went as it should.
fn news(reason: &'static str, message: impl Into<String>) -> Notice {
    Notice { warning: false, reason, message: message.into() }
}

#[cfg(test)]
mod tests;
