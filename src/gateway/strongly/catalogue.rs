//! Base models, hardware and estimates as Strongly shows them. Pure.

use kube::ResourceExt;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::{BaseModel, HardwareProfile};
use crate::gateway::service::parameters;
use crate::plan::{cost, estimate::Estimate};

/// The base models there are.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::Models)]
pub struct Models {
    /// By name.
    pub models: Vec<Model>,
}

/// A base model.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::Model)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Name of the BaseModel.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Who made it.
    pub provider: Option<String>,
    /// How many parameters it has, such as `8B`.
    pub parameter_count: Option<String>,
    /// What it is good for.
    pub supported_tasks: Vec<String>,
    /// Most tokens it takes at once.
    pub max_sequence_length: Option<i64>,
}

/// The hardware there is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::HardwareList)]
pub struct HardwareList {
    /// By name.
    pub hardware: Vec<Hardware>,
}

/// What a job can run on.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::Hardware)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    /// Name of the HardwareProfile.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Memory of one accelerator, such as `80GB`.
    pub gpu_memory: Option<String>,
    /// How many accelerators it has.
    pub gpu_count: i32,
    /// What an hour costs; null where nobody says.
    #[schema(value_type = Option<f64>)]
    pub cost_per_hour: Value,
    /// Of the price.
    pub currency: String,
}

/// What a training would take.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::Estimate)]
#[serde(rename_all = "camelCase")]
pub struct Estimated {
    /// The base model, as it was asked for.
    pub base_model: String,
    /// Examples of the training data, as asked for.
    pub dataset_size: u64,
    /// What it would cost; null where the hardware has no price.
    #[schema(value_type = Option<f64>)]
    pub estimated_cost: Value,
    /// How long it would take.
    pub estimated_time_minutes: i64,
    /// Of the cost.
    pub currency: String,
    /// How this was reckoned.
    pub explanation: String,
}

/// A base model.
#[must_use]
pub fn base_model(model: &BaseModel) -> Model {
    let (name, spec) = (model.name_any(), &model.spec);
    Model {
        name: spec.display_name.clone().unwrap_or_else(|| name.clone()),
        id: name,
        provider: spec.provider.clone(),
        parameter_count: spec.parameter_count.clone(),
        supported_tasks: spec.supported_tasks.clone(),
        max_sequence_length: spec.max_sequence_length,
    }
}

/// A hardware profile.
#[must_use]
pub fn hardware(profile: &HardwareProfile) -> Hardware {
    let (name, spec) = (profile.name_any(), &profile.spec);
    let price = spec.cost_per_hour.as_deref().map(|price| parameters::of_decimal(cost::decimal(price)));
    Hardware {
        name: spec.display_name.clone().unwrap_or_else(|| name.clone()),
        id: name,
        gpu_memory: spec.gpu.memory.as_deref().map(gigabytes),
        gpu_count: spec.gpu.count,
        cost_per_hour: price.unwrap_or_default(),
        currency: spec.currency.clone(),
    }
}

/// Memory as people say it: `80Gi` is `80GB`.
fn gigabytes(quantity: &str) -> String {
    let number = quantity.strip_suffix("Gi").or_else(|| quantity.strip_suffix('G'));
    number.map_or_else(|| quantity.to_owned(), |number| format!("{number}GB"))
}

/// What a training would take.
#[must_use]
pub fn estimated(asked_for: &str, examples: u64, estimate: &Estimate) -> Estimated {
    let cents = |cost: Decimal| cost.round_dp_with_strategy(2, RoundingStrategy::AwayFromZero);
    Estimated {
        base_model: asked_for.to_owned(),
        dataset_size: examples,
        estimated_cost: estimate.cost.map(cents).map(parameters::of_decimal).unwrap_or_default(),
        estimated_time_minutes: estimate.seconds.saturating_add(59) / 60,
        currency: estimate.currency.clone(),
        explanation: estimate.explanation.clone(),
    }
}
