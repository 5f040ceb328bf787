//! The script of a run and its parameters, as Oxen shows them. Pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::api::{FineTune, TrainingRuntime};
use crate::gateway::service::parameters;

/// A script that trains.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::FineTuneScript)]
pub struct Script {
    /// Name of the TrainingRuntime.
    pub id: String,
    /// The same name.
    pub name: String,
    /// What people call it.
    pub display_name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// Image of its container.
    pub docker_image_name: String,
    /// The type it answers to in a create.
    pub script_type: String,
    /// Its parameters.
    pub fine_tune_schema: Schema,
}

/// The parameters of a script.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::FineTuneSchema)]
pub struct Schema {
    /// Name of the TrainingRuntime.
    pub id: String,
    /// The same name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// Its JSON Schema.
    pub schema: JsonSchema,
}

/// A JSON Schema of parameters.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::ParameterSchema)]
pub struct JsonSchema {
    /// `object`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub type_: Value,
    /// Schemas by name.
    #[schema(value_type = Object)]
    pub properties: Value,
    /// The names that must be there.
    #[schema(value_type = Vec<String>)]
    pub required: Value,
    /// Whether there may be others, or the schema they have.
    #[serde(rename = "additionalProperties")]
    pub additional_properties: Value,
    /// The names a short form shows first.
    pub basic: Vec<String>,
}

/// What a fine-tune trains with, the script's defaults included: null where nobody says. Other parameters are there under their own names.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::TrainingParams)]
pub struct TrainingParams {
    /// Column of the answers.
    pub answer_column: Value,
    /// Examples a device takes at once.
    pub batch_size: Value,
    /// Whether the model thinks aloud.
    pub enable_thinking: Value,
    /// Passes over the data.
    pub epochs: Value,
    /// Steps whose gradients are taken together.
    pub grad_accum: Value,
    /// Learning rate.
    pub learning_rate: Value,
    /// Steps between two reports.
    pub logging_steps: Value,
    /// Scale of the adapter.
    pub lora_alpha: Value,
    /// Rank of the adapter.
    pub lora_rank: Value,
    /// Noise on the embeddings.
    pub neftune_noise_alpha: Value,
    /// Column of the questions.
    pub question_column: Value,
    /// Share of all steps between two checkpoints; null where steps are counted.
    pub save_steps_ratio: Value,
    /// When checkpoints are saved.
    pub save_strategy: Value,
    /// Most tokens of an example.
    pub seq_length: Value,
    /// Whether only an adapter is trained.
    pub use_lora: Value,
    /// Other parameters, under their own names.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// A script, and the schema of its parameters.
#[must_use]
pub fn script(runtime: &TrainingRuntime) -> Script {
    let (name, spec) = (runtime.name_any(), &runtime.spec);
    let schema = &spec.parameters.schema;
    let or = |key: &str, default: Value| schema.get(key).cloned().unwrap_or(default);
    Script {
        id: name.clone(),
        name: name.clone(),
        display_name: spec.display_name.clone(),
        description: spec.description.clone(),
        docker_image_name: spec.image.clone(),
        script_type: spec.script_types.first().unwrap_or(&name).clone(),
        fine_tune_schema: Schema {
            id: name.clone(),
            name,
            description: spec.description.clone(),
            schema: JsonSchema {
                type_: or("type", "object".into()),
                properties: or("properties", json!({})),
                required: or("required", json!([])),
                additional_properties: or("additionalProperties", true.into()),
                basic: spec.parameters.basic.clone(),
            },
        },
    }
}

/// What a run trains with.
#[must_use]
pub fn training_params(run: &FineTune, runtime: Option<&TrainingRuntime>) -> TrainingParams {
    let mut others = run.spec.parameters.clone();
    others.remove("save_steps_ratio");
    let mut value = |name: &str| {
        let said = parameters::value(&run.spec.parameters, runtime, name).cloned();
        others.remove(name);
        said.unwrap_or_default()
    };
    TrainingParams {
        answer_column: value("answer_column"),
        batch_size: value("batch_size"),
        enable_thinking: value("enable_thinking"),
        epochs: value("epochs"),
        grad_accum: value("grad_accum"),
        learning_rate: value("learning_rate"),
        logging_steps: value("logging_steps"),
        lora_alpha: value("lora_alpha"),
        lora_rank: value("lora_rank"),
        neftune_noise_alpha: value("neftune_noise_alpha"),
        question_column: value("question_column"),
        save_strategy: value("save_strategy"),
        seq_length: value("seq_length"),
        use_lora: value("use_lora"),
        save_steps_ratio: ratio(parameters::value(&run.spec.parameters, runtime, "save_steps")),
        others,
    }
}

/// Steps between saves, where they are a share of all.
fn ratio(steps: Option<&Value>) -> Value {
    let share = |value: &&Value| parameters::decimal(value).is_some_and(|number| number > Decimal::ZERO && number < Decimal::ONE);
    steps.filter(share).cloned().unwrap_or_default()
}
