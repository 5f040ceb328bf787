//! A run as Oxen shows it: every documented key is there, null where there is nothing. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::left::model;
use crate::api::{FineTune, FineTunePhase as Phase, TrainingRuntime, names};
use crate::gateway::errors::Refusal;
use crate::gateway::service::runs::{Surroundings, is_ready};
use crate::gateway::service::{REPOSITORY, ids, parameters, sources, standing};
use crate::plan::cost;

/// Training parameters that are always shown.
const TRAINING_PARAMS: &[&str] = &[
    "answer_column",
    "batch_size",
    "enable_thinking",
    "epochs",
    "grad_accum",
    "learning_rate",
    "logging_steps",
    "lora_alpha",
    "lora_rank",
    "neftune_noise_alpha",
    "question_column",
    "save_steps_ratio",
    "save_strategy",
    "seq_length",
    "use_lora",
];

/// The envelope around one run.
#[must_use]
pub fn enveloped(fine_tune: &Value, message: &str) -> Value {
    json!({"fine_tune": fine_tune, "status": "success", "status_message": message})
}

/// The status of a run.
#[must_use]
pub fn status(run: &FineTune, around: &Surroundings) -> &'static str {
    let begun = run.status.as_ref().is_some_and(|status| status.attempt > 0);
    match standing::phase(run) {
        Phase::Pending => "created",
        Phase::Paused if !begun => "created",
        Phase::Preparing => "tokenizing",
        Phase::Queued => "enqueued",
        Phase::Running | Phase::Pausing | Phase::Stopping => "running",
        Phase::Paused | Phase::Stopped => "stopped",
        Phase::Succeeded if around.deployment(run).is_some_and(is_ready) => "deployed",
        Phase::Succeeded => "completed",
        Phase::Failed => "errored",
    }
}

/// The phases a status may stand for.
///
/// # Errors
/// There is no such status.
pub fn phases(status: &str) -> Result<Vec<Phase>, Refusal> {
    Ok(match status {
        "created" => vec![Phase::Pending, Phase::Paused],
        "tokenizing" => vec![Phase::Preparing],
        "enqueued" => vec![Phase::Queued],
        "running" => vec![Phase::Running, Phase::Pausing, Phase::Stopping],
        "stopped" => vec![Phase::Paused, Phase::Stopped],
        "completed" | "deployed" => vec![Phase::Succeeded],
        "errored" => vec![Phase::Failed],
        _ => {
            let known = "created, tokenizing, enqueued, running, completed, stopped, errored, deployed";
            return Err(Refusal::bad("status", format!("status is one of {known}")));
        }
    })
}

/// A moment as Oxen writes it.
#[must_use]
pub fn iso(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |time| time.to_string().into())
}

/// A run.
#[must_use]
pub fn fine_tune(run: &FineTune, around: &Surroundings) -> Value {
    let (spec, status_of) = (&run.spec, run.status.as_ref());
    let (name, runtime) = (run.name_any(), around.runtime(run));
    let mut shown = json!({
        "id": ids::run_id(&name),
        "name": name,
        "display_name": spec.display_name,
        "description": spec.description,
        "base_model": spec.base_model.name,
        "status": status(run, around),
        "error": standing::failure(run).map(standing::told),
        "created_by": created_by(run),
        "created_at": iso(standing::created(run)),
        "inserted_at": iso(standing::created(run)),
        "updated_at": iso(standing::updated(run)),
        "started_at": iso(standing::started(run)),
        "finished_at": iso(standing::finished(run)),
        "queue_position": status_of.and_then(|status| status.queue.as_ref()).and_then(|queue| queue.position),
        "repository_id": run.labels().get(REPOSITORY),
        "resource": resource(run),
        "output_resource": output(run),
        "source_model": source_model(run),
        "deployed_model": around.deployment(run).map_or(Value::Null, model),
        "fine_tune_script": runtime.map_or(Value::Null, script),
        "training_params": training_params(run, runtime),
        "use_lora": parameters::value(&spec.parameters, runtime, "use_lora"),
        "total_token_count": standing::progress(run).and_then(|progress| progress.trained_tokens).unwrap_or(0),
        "is_public": spec.visibility == crate::api::Visibility::Public,
    });
    if let (Some(shown), Value::Object(money)) = (shown.as_object_mut(), money(run, around)) {
        shown.extend(money);
    }
    shown
}

/// What it trains on and what that costs; amounts are strings.
fn money(run: &FineTune, around: &Surroundings) -> Value {
    let (status, profile) = (run.status.as_ref(), around.profile(run));
    let cost = status.and_then(|status| status.cost.as_ref());
    let nodes = Decimal::from(run.spec.hardware.nodes.max(1));
    let of_profile = || {
        profile.and_then(|profile| profile.spec.cost_per_hour.as_deref()).map(|price| cost::decimal(price).saturating_mul(nodes))
    };
    let per_hour = cost.map(|cost| cost::decimal(&cost.per_hour)).or_else(of_profile);
    let gpus = status.and_then(|status| status.resolved.as_ref()).map(|resolved| resolved.gpus);
    json!({
        "credits_used": standing::accrued(run, around.now).unwrap_or_default().to_string(),
        "rate_per_second": per_hour.map(|price| (price / Decimal::from(3600)).round_dp(10).normalize().to_string()),
        "last_credit_check": iso(cost.and_then(|cost| cost.as_of.as_ref()).map(|time| time.0)),
        "gpu_count": gpus.or_else(|| profile.map(|profile| profile.spec.gpu.count.saturating_mul(run.spec.hardware.nodes.max(1)))),
        "gpu_model": profile.and_then(|profile| profile.spec.gpu.product.clone().or_else(|| profile.spec.display_name.clone())),
    })
}

fn created_by(run: &FineTune) -> Value {
    let creator = run.annotations().get(names::CREATED_BY);
    creator.map_or(Value::Null, |user| json!({"id": user, "image": null, "name": user, "username": user}))
}

fn resource(run: &FineTune) -> Value {
    let dataset = &run.spec.dataset;
    let in_repository = |source: &crate::api::Source| {
        let volume = source.volume.as_ref().filter(|volume| Some(&volume.claim_name) == run.labels().get(REPOSITORY));
        volume.map_or_else(|| sources::text(source), |volume| volume.path.clone())
    };
    let path = dataset.name.clone().or_else(|| dataset.training.as_ref().map(in_repository));
    json!({"path": path, "version": null})
}

fn output(run: &FineTune) -> Value {
    let resolved = run.status.as_ref().and_then(|status| status.resolved.as_ref());
    json!({"path": resolved.map(|resolved| resolved.output.clone()), "version": null})
}

fn source_model(run: &FineTune) -> Value {
    match &run.spec.start_from.checkpoint {
        Some(checkpoint) => json!({"id": ids::checkpoint_id(&checkpoint.name), "name": checkpoint.name}),
        None => json!({"id": run.spec.base_model.name, "name": run.spec.base_model.name}),
    }
}

/// A script, and the schema of its parameters.
fn script(runtime: &TrainingRuntime) -> Value {
    let (name, spec) = (runtime.name_any(), &runtime.spec);
    let schema = &spec.parameters.schema;
    let or = |key: &str, default: Value| schema.get(key).cloned().unwrap_or(default);
    json!({
        "id": name,
        "name": name,
        "display_name": spec.display_name,
        "description": spec.description,
        "docker_image_name": spec.image,
        "script_type": spec.script_types.first().unwrap_or(&name),
        "fine_tune_schema": {
            "id": name,
            "name": name,
            "description": spec.description,
            "schema": {
                "type": or("type", "object".into()),
                "properties": or("properties", json!({})),
                "required": or("required", json!([])),
                "additionalProperties": or("additionalProperties", true.into()),
                "basic": spec.parameters.basic,
            },
        },
    })
}

fn training_params(run: &FineTune, runtime: Option<&TrainingRuntime>) -> Value {
    let given = &run.spec.parameters;
    let mut all: Map<String, Value> = given.clone().into_iter().collect();
    for name in TRAINING_PARAMS {
        let value = match *name {
            "save_steps_ratio" => ratio(parameters::value(given, runtime, "save_steps")),
            name => parameters::value(given, runtime, name).cloned().unwrap_or(Value::Null),
        };
        all.insert((*name).to_owned(), value);
    }
    Value::Object(all)
}

/// Steps between saves, where they are a share of all.
fn ratio(steps: Option<&Value>) -> Value {
    let share = |value: &&Value| parameters::decimal(value).is_some_and(|number| number > Decimal::ZERO && number < Decimal::ONE);
    steps.filter(share).cloned().unwrap_or(Value::Null)
}
