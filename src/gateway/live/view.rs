//! Runs, objects and lines of a log as streams show them. Pure.

use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::FineTune;
use crate::gateway::service::{logs::Line, standing};

/// Where `kubectl apply` keeps what it was given: a second copy of the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object as `kubectl get -o json` shows it, without the bookkeeping of who wrote what.
#[must_use]
pub fn object<K: Resource + Serialize>(mut object: K) -> Value {
    object.meta_mut().managed_fields = None;
    object.annotations_mut().remove(LAST_APPLIED);
    serde_json::to_value(object).unwrap_or_default()
}

/// A run in one line of a list. Numbers are decimals as texts, as in its status.
#[must_use]
pub fn summary(run: &FineTune) -> Value {
    let status = run.status.clone().unwrap_or_default();
    let progress = status.progress.unwrap_or_default();
    json!({
        "name": run.name_any(),
        "displayName": run.spec.display_name,
        "baseModel": run.spec.base_model.name,
        "phase": standing::phase(run),
        "created": standing::created(run),
        "started": standing::started(run),
        "finished": standing::finished(run),
        "estimatedFinish": standing::estimated_finish(run),
        "step": progress.step,
        "totalSteps": progress.total_steps,
        "percent": progress.percent,
        "loss": progress.metrics.get("loss"),
        "evalLoss": progress.metrics.get("eval_loss"),
        "queuePosition": status.queue.and_then(|queue| queue.position),
        "checkpoints": status.checkpoint_count,
        "bestCheckpoint": status.best_checkpoint,
        "failure": standing::failure(run).map(|failure| &failure.reason),
    })
}

/// A line of a log.
#[must_use]
pub fn line(line: &Line) -> Value {
    json!({"time": line.time, "level": line.level, "text": line.message})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixtures::{keys, run};

    #[test]
    fn an_object_is_shown_whole_but_for_its_bookkeeping() {
        let mut made = run(json!({}));
        made.managed_fields_mut().push(k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry::default());
        made.annotations_mut().insert(LAST_APPLIED.into(), "{}".into());
        let shown = object(made.clone());
        assert_eq!(shown["kind"], "FineTune");
        assert_eq!(shown["spec"], serde_json::to_value(&made.spec).unwrap());
        assert!(shown["metadata"].get("managedFields").is_none() && shown["metadata"]["annotations"].get(LAST_APPLIED).is_none());
    }

    #[test]
    fn a_summary_says_how_far_a_run_is_and_has_every_key_before_it_begins() {
        let whole = summary(&run(json!({"status": {"phase": "Running"}})));
        assert_eq!((&whole["phase"], &whole["name"]), (&json!("Running"), &json!("bot")));
        assert!(whole["loss"].is_string(), "{whole}");
        let mut fresh = run(json!({}));
        fresh.status = None;
        assert_eq!(keys(&summary(&fresh)), keys(&whole));
        assert_eq!(summary(&fresh)["phase"], "Pending");
    }
}
