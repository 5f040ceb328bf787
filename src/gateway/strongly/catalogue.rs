//! Base models, hardware and estimates as Strongly shows them. Pure.

use kube::ResourceExt;
use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Value, json};

use crate::api::{BaseModel, HardwareProfile};
use crate::gateway::service::parameters;
use crate::plan::{cost, estimate::Estimate};

/// A base model.
#[must_use]
pub fn base_model(model: &BaseModel) -> Value {
    let (name, spec) = (model.name_any(), &model.spec);
    json!({
        "id": name,
        "name": spec.display_name.clone().unwrap_or_else(|| name.clone()),
        "provider": spec.provider,
        "parameterCount": spec.parameter_count,
        "supportedTasks": spec.supported_tasks,
        "maxSequenceLength": spec.max_sequence_length,
    })
}

/// A hardware profile.
#[must_use]
pub fn hardware(profile: &HardwareProfile) -> Value {
    let (name, spec) = (profile.name_any(), &profile.spec);
    json!({
        "id": name,
        "name": spec.display_name.clone().unwrap_or_else(|| name.clone()),
        "gpuMemory": spec.gpu.memory.as_deref().map(gigabytes),
        "gpuCount": spec.gpu.count,
        "costPerHour": spec.cost_per_hour.as_deref().map(|price| parameters::of_decimal(cost::decimal(price))),
        "currency": spec.currency,
    })
}

/// Memory as people say it: `80Gi` is `80GB`.
fn gigabytes(quantity: &str) -> String {
    let number = quantity.strip_suffix("Gi").or_else(|| quantity.strip_suffix('G'));
    number.map_or_else(|| quantity.to_owned(), |number| format!("{number}GB"))
}

/// What a training would take.
#[must_use]
pub fn estimated(asked_for: &str, examples: u64, estimate: &Estimate) -> Value {
    let minutes = estimate.seconds.saturating_add(59) / 60;
    let cents = |cost: Decimal| cost.round_dp_with_strategy(2, RoundingStrategy::AwayFromZero);
    json!({
        "baseModel": asked_for,
        "datasetSize": examples,
        "estimatedCost": estimate.cost.map(cents).map(parameters::of_decimal),
        "estimatedTimeMinutes": minutes,
        "currency": estimate.currency,
        "explanation": estimate.explanation,
    })
}
