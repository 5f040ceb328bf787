//! Where a run stands for its caller: what its status says, and what its spec has asked for since. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use rust_decimal::Decimal;

use super::{TRAINING_FILE, VALIDATION_FILE, sources};
use crate::api::{DesiredState, Failure, FineTune, FineTunePhase, ModelDeployment, Progress};
use crate::plan::cost;

/// The phase, not behind what has just been asked for.
#[must_use]
pub fn phase(run: &FineTune) -> FineTunePhase {
    use FineTunePhase::{Failed, Paused, Pausing, Pending, Preparing, Queued, Running, Stopped, Stopping, Succeeded};
    let status = run.status.as_ref();
    let said = status.map(|status| status.phase).unwrap_or_default();
    let heard = status.and_then(|status| status.observed_generation) >= run.metadata.generation;
    if heard || run.metadata.generation.is_none() {
        return said;
    }
    let restarted = run.spec.restarts > status.map_or(0, |status| status.restarts);
    match (run.spec.desired_state, said) {
        (DesiredState::Running, Failed | Stopped | Succeeded) if restarted => Queued,
        (DesiredState::Stopped, Failed | Stopped | Succeeded) if restarted => Stopping,
        (DesiredState::Running, Paused | Pausing) => Queued,
        (DesiredState::Paused, Queued | Preparing | Running) => Pausing,
        (DesiredState::Paused, Pending) => Paused,
        (DesiredState::Stopped, Pending | Queued | Preparing | Running | Pausing | Paused) => Stopping,
        (_, said) => said,
    }
}

/// Whether the run has not ended.
#[must_use]
pub const fn is_open(phase: FineTunePhase) -> bool {
    !matches!(phase, FineTunePhase::Succeeded | FineTunePhase::Failed | FineTunePhase::Stopped)
}

/// Whether pods of the run may be at work.
#[must_use]
pub const fn is_at_work(phase: FineTunePhase) -> bool {
    matches!(phase, FineTunePhase::Preparing | FineTunePhase::Running | FineTunePhase::Pausing | FineTunePhase::Stopping)
}

/// Why it failed, while it is failed.
#[must_use]
pub fn failure(run: &FineTune) -> Option<&Failure> {
    run.status.as_ref()?.failure.as_ref().filter(|_| phase(run) == FineTunePhase::Failed)
}

/// What happened, and what helps, in one text.
#[must_use]
pub fn told(failure: &Failure) -> String {
    let Failure { message, hint, .. } = failure;
    if hint.is_empty() { message.clone() } else { format!("{message} ({hint})") }
}

/// What the create called the training data.
#[must_use]
pub fn training_file(run: &FineTune) -> String {
    let said = run.annotations().get(TRAINING_FILE).cloned();
    let named = || run.spec.dataset.name.clone();
    said.or_else(named).or_else(|| run.spec.dataset.training.as_ref().map(sources::text)).unwrap_or_default()
}

/// What the create called the rows for evaluation.
#[must_use]
pub fn validation_file(run: &FineTune) -> Option<String> {
    let said = run.annotations().get(VALIDATION_FILE).cloned();
    said.or_else(|| run.spec.dataset.validation.as_ref().map(sources::text))
}

/// What its trainer last said.
#[must_use]
pub fn progress(run: &FineTune) -> Option<&Progress> {
    run.status.as_ref()?.progress.as_ref()
}

/// When it was made.
#[must_use]
pub fn created(run: &FineTune) -> Option<Timestamp> {
    run.creation_timestamp().map(|time| time.0)
}

/// When its first attempt began.
#[must_use]
pub fn started(run: &FineTune) -> Option<Timestamp> {
    run.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

/// When it ended, if it has.
#[must_use]
pub fn finished(run: &FineTune) -> Option<Timestamp> {
    let over = !is_open(phase(run));
    run.status.as_ref()?.completion_time.as_ref().filter(|_| over).map(|time| time.0)
}

/// When anything about it last changed.
#[must_use]
pub fn updated(run: &FineTune) -> Option<Timestamp> {
    let newest = run.managed_fields().iter().filter_map(|entry| entry.time.as_ref()).map(|time| time.0).max();
    newest.max(created(run))
}

/// When it should be done, as its trainer last reckoned.
#[must_use]
pub fn estimated_finish(run: &FineTune) -> Option<Timestamp> {
    let progress = progress(run).filter(|_| phase(run) == FineTunePhase::Running)?;
    let from = progress.last_report_time.as_ref()?.0;
    let left = jiff::SignedDuration::from_secs(progress.estimated_remaining_seconds?);
    from.checked_add(left).ok()
}

/// What it has cost until `now`: what is on record, and what the attempt at work has held since.
#[must_use]
pub fn accrued(run: &FineTune, now: Timestamp) -> Option<Decimal> {
    let status = run.status.as_ref()?;
    let cost = status.cost.as_ref()?;
    let held = status.attempts.iter().filter_map(|attempt| attempt.turn_start.as_ref()).next_back();
    let since = held.map_or(0, |start| now.as_second().saturating_sub(start.0.as_second()).max(0));
    Some(cost::decimal(&cost.accrued).saturating_add(cost::amount(cost::decimal(&cost.per_hour), since, 1)).normalize())
}

/// The checkpoint that speaks for the run: the best, or the last where none is called best.
#[must_use]
pub fn result(run: &FineTune) -> Option<&str> {
    let status = run.status.as_ref()?;
    status.best_checkpoint.as_deref().or(status.latest_checkpoint.as_deref())
}

/// The lineage callers see: older ones stay until retention removes them.
#[must_use]
pub fn lineage(run: &FineTune) -> i64 {
    run.status.as_ref().map_or(1, |status| status.lineage).max(1)
}

/// The name a Deployment answers to.
#[must_use]
pub fn model_name(deployment: &ModelDeployment) -> String {
    let said = deployment.status.as_ref().and_then(|status| status.model_name.clone());
    said.or_else(|| deployment.spec.model_name.clone()).unwrap_or_else(|| deployment.spec.checkpoint.name.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(said: &str, heard: i64, spec: &serde_json::Value) -> FineTune {
        let mut whole = json!({"baseModel": {"name": "m"}, "dataset": {"name": "d"}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": "a", "generation": 2}, "spec": whole,
            "status": {"phase": said, "observedGeneration": heard, "restarts": 0},
        }))
        .unwrap()
    }

    #[test]
    fn what_was_just_asked_for_shows_at_once_and_the_status_speaks_when_it_has_heard() {
        let cases = [
            ("Running", json!({"desiredState": "Stopped"}), "Stopping"),
            ("Running", json!({"desiredState": "Paused"}), "Pausing"),
            ("Pending", json!({"desiredState": "Paused"}), "Paused"),
            ("Paused", json!({}), "Queued"),
            ("Failed", json!({"restarts": 1}), "Queued"),
            ("Stopped", json!({"restarts": 1, "desiredState": "Stopped"}), "Stopping"),
            ("Stopped", json!({"desiredState": "Stopped"}), "Stopped"),
            ("Failed", json!({}), "Failed"),
            ("Running", json!({"description": "x"}), "Running"),
        ];
        for (said, spec, expected) in cases {
            let shown = |heard| format!("{:?}", phase(&run(said, heard, &spec)));
            assert_eq!((shown(1), shown(2)), (expected.to_owned(), said.to_owned()), "{said} {spec}");
        }
    }

    #[test]
    fn what_an_attempt_holds_now_is_added_to_what_is_on_record() {
        let mut run = run("Running", 2, &json!({}));
        let status = json!({
            "phase": "Running", "cost": {"perHour": "3.60", "gpuSeconds": 0, "accrued": "1", "currency": "USD"},
            "attempts": [{"number": 1, "lineage": 1, "turnStart": "2027-01-15T07:00:00Z"}],
        });
        run.status = Some(serde_json::from_value(status).unwrap());
        let at = |text: &str| accrued(&run, text.parse().unwrap()).unwrap().to_string();
        assert_eq!(at("2027-01-15T07:10:00Z"), "1.6");
        assert_eq!(at("2027-01-15T06:00:00Z"), "1", "a clock that is behind takes nothing back");
    }
}
