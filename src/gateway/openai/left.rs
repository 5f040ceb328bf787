//! Checkpoints, events and permissions as OpenAI shows them, and pages of them. Pure.

use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::job::seconds;
use crate::api::{Checkpoint, CheckpointPermission};
use crate::gateway::errors::Refusal;
use crate::gateway::extract::Asked;
use crate::gateway::service::{checkpoints, history, ids, parameters, permissions};

/// The trainer's names for metrics, and OpenAI's.
const METRICS: &[(&str, &[&str])] = &[
    ("loss", &["train_loss"]),
    ("mean_token_accuracy", &["train_mean_token_accuracy"]),
    ("eval_loss", &["valid_loss", "full_valid_loss"]),
    ("eval_mean_token_accuracy", &["valid_mean_token_accuracy", "full_valid_mean_token_accuracy"]),
];

/// A checkpoint of a run.
#[must_use]
pub fn checkpoint(checkpoint: &Checkpoint, run: &str) -> Value {
    let (name, step) = (checkpoint.name_any(), checkpoint.spec.step);
    json!({
        "object": "fine_tuning.job.checkpoint",
        "id": ids::checkpoint_id(&name),
        "created_at": seconds(checkpoints::saved_at(checkpoint)).unwrap_or_default(),
        "fine_tuned_model_checkpoint": name,
        "fine_tuning_job_id": ids::run_id(run),
        "metrics": metrics(checkpoint),
        "step_number": step,
    })
}

/// Every documented metric is there, null where the trainer gave none; others keep their names.
fn metrics(checkpoint: &Checkpoint) -> Value {
    let said = checkpoint.status.as_ref().map(|status| status.metrics.clone()).unwrap_or_default();
    let mut all = Map::from_iter([("step".to_owned(), checkpoint.spec.step.into())]);
    for (ours, theirs) in METRICS {
        let value = said.get(*ours).map_or(Value::Null, |text| parameters::number(text));
        theirs.iter().for_each(|name| drop(all.insert((*name).to_owned(), value.clone())));
    }
    let others = said.iter().filter(|(name, _)| !METRICS.iter().any(|(ours, _)| ours == name));
    for (name, text) in others {
        all.entry(name.clone()).or_insert_with(|| parameters::number(text));
    }
    Value::Object(all)
}

/// Something that happened to a run.
#[must_use]
pub fn event(event: &history::Event) -> Value {
    let level = match event.level.as_str() {
        "error" => "error",
        "warn" | "warning" => "warn",
        _ => "info",
    };
    json!({
        "object": "fine_tuning.job.event",
        "id": event.id,
        "created_at": seconds(event.time).unwrap_or_default(),
        "level": level,
        "message": event.message,
        "type": "message",
        "data": {"reason": event.reason},
    })
}

/// A project that may use a checkpoint.
#[must_use]
pub fn permission(permission: &CheckpointPermission) -> Value {
    json!({
        "object": "checkpoint.permission",
        "id": ids::permission_id(&permission.name_any()),
        "created_at": seconds(permissions::created(permission)).unwrap_or_default(),
        "project_id": permission.spec.project,
    })
}

/// A permission that is taken away.
#[must_use]
pub fn revoked(permission: &CheckpointPermission) -> Value {
    json!({"id": ids::permission_id(&permission.name_any()), "object": "checkpoint.permission", "deleted": true})
}

/// One page of a list that names its ends.
///
/// # Errors
/// The cursor is not there.
pub fn list(all: Vec<Value>, asked: &Asked) -> Result<Value, Refusal> {
    let (data, has_more) = page(all, asked.text("after"), asked.limit("limit", 10)?)?;
    Ok(listed(&data, has_more))
}

/// A list that names its ends.
#[must_use]
pub fn listed(data: &[Value], has_more: bool) -> Value {
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    json!({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more})
}

/// What follows a cursor, and whether there is more.
///
/// # Errors
/// The cursor is not there.
pub fn page(all: Vec<Value>, after: Option<&str>, limit: usize) -> Result<(Vec<Value>, bool), Refusal> {
    let start = match after {
        None => 0,
        Some(after) => {
            let at = all.iter().position(|item| item["id"] == after);
            at.ok_or_else(|| Refusal::bad("after", Refusal::not_found("the item to go on after", after).message))? + 1
        }
    };
    let has_more = all.len().saturating_sub(start) > limit;
    Ok((all.into_iter().skip(start).take(limit).collect(), has_more))
}
