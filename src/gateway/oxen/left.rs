//! Checkpoints and served models as Oxen shows them. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::create::DeploymentType;
use super::envelope::{Checkpoints, Deployed, Message, Success};
use super::run::FineTune as Shown;
use crate::api::{Checkpoint, FineTune, ModelDeployment};
use crate::gateway::service::parameters;
use crate::gateway::service::runs::Surroundings;
use crate::gateway::service::{checkpoints as usable, deployments, ids, standing};
use crate::plan::names;

/// A checkpoint of a fine-tune.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::Checkpoint)]
pub struct SavedCheckpoint {
    /// When its last file was written.
    pub created_at: Option<Timestamp>,
    /// How far what serves it is; null where nothing does.
    pub deployment_status: Option<deployments::Word>,
    /// What the model said at this step. A sample that is no object is shown as `{"text": …}`.
    pub inference_samples: Vec<BTreeMap<String, Value>>,
    /// What the trainer measured at this step.
    pub metrics: Metrics,
    /// Id of what serves it; null where nothing does.
    pub model_id: Option<String>,
    /// The name it answers to, or would.
    pub model_name: String,
    /// Where it lies.
    pub path: String,
    /// How large it is.
    pub size_bytes: i64,
    /// The step at which it was saved.
    pub step: i64,
}

/// What the trainer measured: null where it said nothing; what it said beside these is there under its own names.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::Metrics)]
pub struct Metrics {
    /// Passes over the data so far.
    #[schema(value_type = Option<f64>)]
    pub epoch: Value,
    /// Norm of the gradient.
    #[schema(value_type = Option<f64>)]
    pub grad_norm: Value,
    /// Learning rate.
    #[schema(value_type = Option<f64>)]
    pub learning_rate: Value,
    /// Loss over the training data.
    #[schema(value_type = Option<f64>)]
    pub loss: Value,
    /// Share of tokens that were right.
    #[schema(value_type = Option<f64>)]
    pub mean_token_accuracy: Value,
    /// What else the trainer said, under its own names.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// A model that is served, or is to be.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::Model)]
pub struct Model {
    /// Id of the deployment.
    pub id: Option<String>,
    /// The name it answers to.
    pub name: String,
    /// Name of the Deployment.
    pub deployment: String,
    /// Name of the Checkpoint.
    pub checkpoint: String,
    /// How it is served.
    pub deployment_type: DeploymentType,
    /// How far it is.
    pub status: deployments::Word,
    /// Where it answers, within the cluster.
    pub url: Option<String>,
    /// Why it cannot be served, if it cannot.
    pub error: Option<String>,
}

/// The checkpoints of a run, by step ascending.
#[must_use]
pub fn checkpoints(run: &FineTune, all: &[Checkpoint], around: &Surroundings) -> Checkpoints {
    Checkpoints {
        branch: format!("lineage-{}", standing::lineage(run)),
        checkpoints: all.iter().map(|one| checkpoint(one, around)).collect(),
        fine_tune_id: ids::run_id(&run.name_any()),
        status: Success::Success,
        status_message: Message::Found,
        total_checkpoints: all.len(),
    }
}

fn checkpoint(checkpoint: &Checkpoint, around: &Surroundings) -> SavedCheckpoint {
    let status = checkpoint.status.clone().unwrap_or_default();
    let deployment = around.deployment_of(checkpoint);
    SavedCheckpoint {
        created_at: usable::saved_at(checkpoint),
        deployment_status: deployment.map(deployments::word),
        inference_samples: status.samples.iter().map(|line| sample(line)).collect(),
        metrics: metrics(status.metrics),
        model_id: deployment.and_then(ResourceExt::uid),
        model_name: deployment.map_or_else(|| checkpoint.name_any(), standing::model_name),
        path: names::place(&checkpoint.spec),
        size_bytes: status.size_bytes,
        step: checkpoint.spec.step,
    }
}

/// A sample is an object; a line that is none is shown as its text.
fn sample(line: &str) -> BTreeMap<String, Value> {
    serde_json::from_str(line).unwrap_or_else(|_| [("text".to_owned(), json!(line))].into())
}

fn metrics(mut said: BTreeMap<String, String>) -> Metrics {
    let mut number = |name: &str| said.remove(name).map_or(Value::Null, |text| parameters::number(&text));
    Metrics {
        epoch: number("epoch"),
        grad_norm: number("grad_norm"),
        learning_rate: number("learning_rate"),
        loss: number("loss"),
        mean_token_accuracy: number("mean_token_accuracy"),
        others: said.iter().map(|(name, text)| (name.clone(), parameters::number(text))).collect(),
    }
}

/// A served model.
#[must_use]
pub fn model(deployment: &ModelDeployment) -> Model {
    let status = deployment.status.as_ref();
    Model {
        id: deployment.uid(),
        name: standing::model_name(deployment),
        deployment: deployment.name_any(),
        checkpoint: deployment.spec.checkpoint.name.clone(),
        deployment_type: deployment.spec.type_.into(),
        status: deployments::word(deployment),
        url: status.and_then(|status| status.url.clone()),
        error: status.and_then(|status| status.failure.as_ref()).map(|failure| failure.message.clone()),
    }
}

/// The answer to a deploy. Its status is that of the request; how far the model is, the model says.
#[must_use]
pub fn deployed(fine_tune: Shown, deployment: &ModelDeployment) -> Deployed {
    Deployed {
        deployment_id: deployment.uid(),
        fine_tune,
        model: model(deployment),
        status: Success::Success,
        status_message: deployments::word(deployment),
    }
}
