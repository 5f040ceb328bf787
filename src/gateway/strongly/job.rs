//! A run as Strongly shows it. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use crate::api::{FineTune, FineTunePhase as Phase, names};
use crate::gateway::errors::Refusal;
use crate::gateway::service::history::Point;
use crate::gateway::service::query::Counts;
use crate::gateway::service::runs::Surroundings;
use crate::gateway::service::{ids, parameters, standing};

/// Hyperparameters that are always shown: ours, and Strongly's name.
const HYPERPARAMETERS: &[(&str, &str)] =
    &[("epochs", "epochs"), ("learning_rate", "learningRate"), ("batch_size", "batchSize"), ("warmup_steps", "warmupSteps")];

/// The status of a phase.
#[must_use]
pub const fn status(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending | Phase::Preparing | Phase::Queued => "queued",
        Phase::Running | Phase::Pausing | Phase::Stopping => "running",
        Phase::Paused | Phase::Stopped => "stopped",
        Phase::Succeeded => "completed",
        Phase::Failed => "failed",
    }
}

/// The phases a status stands for.
///
/// # Errors
/// There is no such status.
pub fn phases(status: &str) -> Result<Vec<Phase>, Refusal> {
    Ok(match status {
        "queued" => vec![Phase::Pending, Phase::Preparing, Phase::Queued],
        "running" => vec![Phase::Running, Phase::Pausing, Phase::Stopping],
        "stopped" => vec![Phase::Paused, Phase::Stopped],
        "completed" => vec![Phase::Succeeded],
        "failed" => vec![Phase::Failed],
        _ => return Err(Refusal::bad("status", "status is one of queued, running, completed, failed, stopped")),
    })
}

fn iso(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |time| time.to_string().into())
}

fn called(run: &FineTune) -> String {
    run.spec.display_name.clone().unwrap_or_else(|| run.name_any())
}

/// A job in a list.
#[must_use]
pub fn summary(run: &FineTune) -> Value {
    json!({
        "id": ids::run_id(&run.name_any()),
        "name": called(run),
        "baseModel": run.spec.base_model.name,
        "status": status(standing::phase(run)),
        "description": run.spec.description,
        "owner": run.annotations().get(names::CREATED_BY),
        "organizationId": run.namespace(),
        "trainedTokens": standing::progress(run).and_then(|progress| progress.trained_tokens),
        "startedAt": iso(standing::started(run)),
        "finishedAt": iso(standing::finished(run)),
        "createdAt": iso(standing::created(run)),
        "updatedAt": iso(standing::updated(run)),
    })
}

/// A whole job.
#[must_use]
pub fn job(run: &FineTune, around: &Surroundings) -> Value {
    let mut whole = summary(run);
    let progress = standing::progress(run);
    let metric = |name: &str| progress.and_then(|progress| progress.metrics.get(name)).map(|text| parameters::number(text));
    let error = standing::failure(run)
        .map(|failure| json!({"code": failure.reason, "message": standing::told(failure), "field": failure.field}));
    let more = json!({
        "trainingDataset": standing::training_file(run),
        "trainingFile": standing::training_file(run),
        "validationFile": standing::validation_file(run),
        "hyperparameters": hyperparameters(run, around),
        "suffix": run.spec.suffix,
        "resultModel": around.model(run).map(|model| around.deployment(run).map_or_else(|| suffixed(run).unwrap_or(model), standing::model_name)),
        "error": error,
        "metrics": {
            "trainingLoss": metric("loss"),
            "validationLoss": metric("eval_loss"),
            "epoch": progress.and_then(|progress| progress.epoch.as_deref()).map(parameters::number),
        },
    });
    if let (Some(whole), Value::Object(more)) = (whole.as_object_mut(), more) {
        whole.extend(more);
    }
    whole
}

/// The name the result is to have: that of the base model and the suffix, where there is one.
#[must_use]
pub fn suffixed(run: &FineTune) -> Option<String> {
    let suffix = run.spec.suffix.as_ref().filter(|suffix| !suffix.is_empty())?;
    let allowed = |letter: char| if letter.is_ascii_alphanumeric() || "._:/-".contains(letter) { letter } else { '-' };
    let name: String = format!("{}-{suffix}", run.spec.base_model.name).chars().map(allowed).take(128).collect();
    Some(name)
}

fn hyperparameters(run: &FineTune, around: &Surroundings) -> Value {
    let (given, runtime) = (&run.spec.parameters, around.runtime(run));
    let mut all: Map<String, Value> = Map::new();
    for (ours, theirs) in HYPERPARAMETERS {
        all.insert((*theirs).to_owned(), parameters::value(given, runtime, ours).cloned().unwrap_or(Value::Null));
    }
    let others = given.iter().filter(|(name, _)| !HYPERPARAMETERS.iter().any(|(ours, _)| ours == name));
    all.extend(others.map(|(name, value)| (name.clone(), value.clone())));
    Value::Object(all)
}

/// A job that was just made.
#[must_use]
pub fn created(run: &FineTune) -> Value {
    json!({
        "id": ids::run_id(&run.name_any()),
        "name": called(run),
        "baseModel": run.spec.base_model.name,
        "status": status(standing::phase(run)),
        "createdAt": iso(standing::created(run)),
    })
}

/// A job that was just changed.
#[must_use]
pub fn changed(run: &FineTune, message: &str) -> Value {
    json!({"id": ids::run_id(&run.name_any()), "status": status(standing::phase(run)), "message": message})
}

/// The metrics of a job, and its curves.
#[must_use]
pub fn metrics(run: &FineTune, points: &[Point]) -> Value {
    let progress = standing::progress(run);
    let newest = |name: &str| {
        let said = progress.and_then(|progress| progress.metrics.get(name)).map(|text| parameters::number(text));
        said.or_else(|| points.iter().rev().find_map(|point| point.metrics.get(name).cloned()))
    };
    let number = |text: Option<&String>| text.map(|text| parameters::number(text));
    let steps: Vec<Value> = points.iter().map(step).collect();
    json!({
        "jobId": ids::run_id(&run.name_any()),
        "metrics": {
            "trainingLoss": newest("loss"),
            "validationLoss": newest("eval_loss"),
            "currentEpoch": number(progress.and_then(|progress| progress.epoch.as_ref())),
            "totalEpochs": number(progress.and_then(|progress| progress.total_epochs.as_ref())),
            "trainedTokens": progress.and_then(|progress| progress.trained_tokens),
            "steps": steps,
        },
    })
}

fn step(point: &Point) -> Value {
    let metric = |name: &str| point.metrics.get(name).cloned().unwrap_or(Value::Null);
    json!({
        "step": point.step,
        "trainingLoss": metric("loss"),
        "validationLoss": metric("eval_loss"),
        "learningRate": metric("learning_rate"),
    })
}

/// How many jobs there are; `total` counts the stopped ones as well.
#[must_use]
pub fn stats(counts: &Counts) -> Value {
    let of = |status: &str| phases(status).map_or(0, |phases| counts.of(&phases));
    json!({
        "total": counts.total(),
        "running": of("running"),
        "completed": of("completed"),
        "failed": of("failed"),
        "queued": of("queued"),
        "stopped": of("stopped"),
    })
}
