//! Checkpoints and served models as Oxen shows them. Pure.

use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::run::iso;
use crate::api::{Checkpoint, FineTune, ModelDeployment};
use crate::gateway::service::runs::Surroundings;
use crate::gateway::service::{checkpoints as usable, deployments, ids, parameters, standing};
use crate::plan::names;

/// Metrics that are always shown.
const METRICS: &[&str] = &["epoch", "grad_norm", "learning_rate", "loss", "mean_token_accuracy"];

/// The checkpoints of a run, by step ascending.
#[must_use]
pub fn checkpoints(run: &FineTune, all: &[Checkpoint], around: &Surroundings) -> Value {
    json!({
        "branch": format!("lineage-{}", standing::lineage(run)),
        "checkpoints": all.iter().map(|one| checkpoint(one, around)).collect::<Vec<_>>(),
        "fine_tune_id": ids::run_id(&run.name_any()),
        "status": "success",
        "status_message": "resource_found",
        "total_checkpoints": all.len(),
    })
}

fn checkpoint(checkpoint: &Checkpoint, around: &Surroundings) -> Value {
    let status = checkpoint.status.clone().unwrap_or_default();
    let deployment = around.deployment_of(checkpoint);
    let samples: Vec<Value> = status.samples.iter().map(|line| sample(line)).collect();
    json!({
        "created_at": iso(usable::saved_at(checkpoint)),
        "deployment_status": deployment.map(deployments::word),
        "inference_samples": samples,
        "metrics": metrics(&status.metrics),
        "model_id": deployment.and_then(ResourceExt::uid),
        "model_name": deployment.map_or_else(|| checkpoint.name_any(), standing::model_name),
        "path": names::place(&checkpoint.spec),
        "size_bytes": status.size_bytes,
        "step": checkpoint.spec.step,
    })
}

/// A sample is an object; a line that is none is shown as its text.
fn sample(line: &str) -> Value {
    serde_json::from_str::<Map<String, Value>>(line).map_or_else(|_| json!({"text": line}), Value::Object)
}

fn metrics(said: &std::collections::BTreeMap<String, String>) -> Value {
    let mut all: Map<String, Value> = METRICS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    all.extend(said.iter().map(|(name, text)| (name.clone(), parameters::number(text))));
    Value::Object(all)
}

/// A served model.
#[must_use]
pub fn model(deployment: &ModelDeployment) -> Value {
    let status = deployment.status.as_ref();
    json!({
        "id": deployment.uid(),
        "name": standing::model_name(deployment),
        "deployment": deployment.name_any(),
        "checkpoint": deployment.spec.checkpoint.name,
        "deployment_type": deployment.spec.type_,
        "status": deployments::word(deployment),
        "url": status.and_then(|status| status.url.clone()),
        "error": status.and_then(|status| status.failure.as_ref()).map(|failure| failure.message.clone()),
    })
}

/// The answer to a deploy. Its status is that of the request; how far the model is, the model says.
#[must_use]
pub fn deployed(fine_tune: &Value, deployment: &ModelDeployment) -> Value {
    json!({
        "deployment_id": deployment.uid(),
        "fine_tune": fine_tune,
        "model": model(deployment),
        "status": "success",
        "status_message": deployments::word(deployment),
    })
}
