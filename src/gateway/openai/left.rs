//! Checkpoints, events and permissions as OpenAI shows them. Pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::job::seconds;
use super::object::{CheckpointObject, EventObject, Listed, PermissionObject};
use crate::api::{Checkpoint, CheckpointPermission};
use crate::gateway::service::parameters;
use crate::gateway::service::{checkpoints, history, ids, permissions};

/// The trainer's names for the metrics that have a name of OpenAI.
const NAMED: [&str; 4] = ["loss", "mean_token_accuracy", "eval_loss", "eval_mean_token_accuracy"];

/// A checkpoint of a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Checkpoint)]
pub struct JobCheckpoint {
    /// Always `fine_tuning.job.checkpoint`.
    pub object: CheckpointObject,
    /// `ftckpt-` and the name of the Checkpoint.
    pub id: String,
    /// When its last file was written, in seconds since 1970.
    pub created_at: i64,
    /// Name by which it is shared and deployed.
    pub fine_tuned_model_checkpoint: String,
    /// The job it is of.
    pub fine_tuning_job_id: String,
    /// How good it is.
    pub metrics: Metrics,
    /// The step at which it was saved.
    pub step_number: i64,
}

/// How good a checkpoint is: null where the trainer said nothing; what it said beside these is there under the trainer's own names.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Metrics)]
pub struct Metrics {
    /// The step.
    pub step: i64,
    /// Loss over the training data.
    #[schema(value_type = Option<f64>)]
    pub train_loss: Value,
    /// Share of tokens of the training data that were right.
    #[schema(value_type = Option<f64>)]
    pub train_mean_token_accuracy: Value,
    /// Loss over the validation data.
    #[schema(value_type = Option<f64>)]
    pub valid_loss: Value,
    /// Share of tokens of the validation data that were right.
    #[schema(value_type = Option<f64>)]
    pub valid_mean_token_accuracy: Value,
    /// The same as `valid_loss`: all of the validation data is evaluated.
    #[schema(value_type = Option<f64>)]
    pub full_valid_loss: Value,
    /// The same as `valid_mean_token_accuracy`.
    #[schema(value_type = Option<f64>)]
    pub full_valid_mean_token_accuracy: Value,
    /// What else the trainer said, under its own names.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// Something that happened to a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Event)]
pub struct Event {
    /// Always `fine_tuning.job.event`.
    pub object: EventObject,
    /// `ftevent-` and what tells it from others.
    pub id: String,
    /// When it happened, in seconds since 1970.
    pub created_at: i64,
    /// How bad it is.
    pub level: Level,
    /// What happened.
    pub message: String,
    /// Always `message`.
    #[serde(rename = "type")]
    pub type_: EventType,
    /// What machines read.
    pub data: EventData,
}

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = openai::Level)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = openai::EventType)]
#[serde(rename_all = "lowercase")]
pub enum EventType {
    /// Words.
    Message,
}

/// What machines read of an event.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::EventData)]
pub struct EventData {
    /// A word for what happened, such as `Succeeded`.
    pub reason: String,
}

/// That a project may use a checkpoint.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Permission)]
pub struct Permission {
    /// Always `checkpoint.permission`.
    pub object: PermissionObject,
    /// `cp_` and the name of the CheckpointPermission.
    pub id: String,
    /// When it was given, in seconds since 1970.
    pub created_at: i64,
    /// The namespace that may use the checkpoint; `*` is all of them.
    pub project_id: String,
}

/// A permission that was taken away.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::DeletedPermission)]
pub struct Revoked {
    /// Its id.
    pub id: String,
    /// Always `checkpoint.permission`.
    pub object: PermissionObject,
    /// Always true.
    pub deleted: bool,
}

impl Listed for JobCheckpoint {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Listed for Event {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Listed for Permission {
    fn id(&self) -> &str {
        &self.id
    }
}

/// A checkpoint of a run.
#[must_use]
pub fn checkpoint(checkpoint: &Checkpoint, run: &str) -> JobCheckpoint {
    let name = checkpoint.name_any();
    JobCheckpoint {
        object: CheckpointObject::Checkpoint,
        id: ids::checkpoint_id(&name),
        created_at: seconds(checkpoints::saved_at(checkpoint)).unwrap_or_default(),
        fine_tuned_model_checkpoint: name,
        fine_tuning_job_id: ids::run_id(run),
        metrics: metrics(checkpoint),
        step_number: checkpoint.spec.step,
    }
}

/// Every documented metric is there, null where the trainer gave none; others keep their names.
fn metrics(checkpoint: &Checkpoint) -> Metrics {
    let said = checkpoint.status.as_ref().map(|status| status.metrics.clone()).unwrap_or_default();
    let [train_loss, train_accuracy, loss, accuracy] =
        NAMED.map(|name| said.get(name).map_or(Value::Null, |text| parameters::number(text)));
    let mut metrics = Metrics {
        step: checkpoint.spec.step,
        train_loss,
        train_mean_token_accuracy: train_accuracy,
        valid_loss: loss.clone(),
        valid_mean_token_accuracy: accuracy.clone(),
        full_valid_loss: loss,
        full_valid_mean_token_accuracy: accuracy,
        others: BTreeMap::new(),
    };
    let named = serde_json::to_value(&metrics).unwrap_or_default();
    let others = said.iter().filter(|(name, _)| !NAMED.contains(&name.as_str()) && named.get(name.as_str()).is_none());
    metrics.others = others.map(|(name, text)| (name.clone(), parameters::number(text))).collect();
    metrics
}

/// Something that happened to a run.
#[must_use]
pub fn event(event: &history::Event) -> Event {
    let level = match event.level.as_str() {
        "error" => Level::Error,
        "warn" | "warning" => Level::Warn,
        _ => Level::Info,
    };
    Event {
        object: EventObject::Event,
        id: event.id.clone(),
        created_at: seconds(event.time).unwrap_or_default(),
        level,
        message: event.message.clone(),
        type_: EventType::Message,
        data: EventData { reason: event.reason.clone() },
    }
}

/// A project that may use a checkpoint.
#[must_use]
pub fn permission(permission: &CheckpointPermission) -> Permission {
    Permission {
        object: PermissionObject::Permission,
        id: ids::permission_id(&permission.name_any()),
        created_at: seconds(permissions::created(permission)).unwrap_or_default(),
        project_id: permission.spec.project.clone(),
    }
}

/// A permission that is taken away.
#[must_use]
pub fn revoked(permission: &CheckpointPermission) -> Revoked {
    Revoked { id: ids::permission_id(&permission.name_any()), object: PermissionObject::Permission, deleted: true }
}
