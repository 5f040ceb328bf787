//! A create as OpenAI writes it, as a run of ours. Pure.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::{AutoDeploy, DeployWhich, ServingType, Visibility};
use crate::gateway::errors::Refusal;
use crate::gateway::service::create::{Data, Fields, NewRun, Script};
use crate::gateway::service::parameters::{self, Values};

const FIELDS: Fields = Fields {
    base_model: "model",
    script: "method.type",
    training: "training_file",
    validation: "validation_file",
    parameters: "hyperparameters",
};

/// A job to be made.
#[derive(Deserialize, Debug, ToSchema)]
#[schema(as = openai::CreateJob)]
pub struct CreateJob {
    /// Name or alias of the base model.
    model: String,
    /// What to train on: the name of a Dataset, or `s3://…`, `hf://org/name[@revision]`, `volume://claim/path`.
    training_file: String,
    /// What to evaluate on: `s3://…`, `hf://…` or `volume://…`.
    #[serde(default)]
    validation_file: Option<String>,
    /// What to train with. Those of the method come first.
    #[serde(default)]
    #[schema(value_type = Option<AskedHyperparameters>)]
    hyperparameters: Option<Values>,
    /// How to train; as the default script does when absent.
    #[serde(default)]
    method: Option<Method>,
    /// What the name of the model ends with.
    #[serde(default)]
    #[schema(max_length = 64)]
    suffix: Option<String>,
    /// The seed to draw from; drawn once when absent.
    #[serde(default)]
    seed: Option<i64>,
    /// None are supported.
    #[serde(default)]
    #[schema(max_items = 0)]
    integrations: Option<Vec<Value>>,
    /// Up to 16 pairs, keys of up to 64 and values of up to 512 characters.
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

/// How to train.
#[derive(Deserialize, Debug, ToSchema)]
#[schema(as = openai::AskedMethod)]
struct Method {
    /// `supervised`, `dpo`, `reinforcement`, or any type that a script answers to.
    #[serde(rename = "type")]
    type_: String,
    /// Under the name of the type: an object with its `hyperparameters`.
    #[serde(flatten)]
    settings: BTreeMap<String, Value>,
}

/// What to train with: each a number, or `auto` for what the script does by itself. The parameters of the script go by their own names.
#[derive(ToSchema)]
#[schema(as = openai::AskedHyperparameters)]
#[expect(dead_code, reason = "the schema of the script, which the cluster has, decides")]
struct AskedHyperparameters {
    /// Passes over the data, 1 to 50.
    n_epochs: Option<Value>,
    /// Examples a device takes at once, 1 to 256.
    batch_size: Option<Value>,
    /// What the default learning rate of the script is multiplied by, more than 0.
    learning_rate_multiplier: Option<Value>,
    /// Weight of the reference model, more than 0 and at most 2.
    beta: Option<Value>,
    /// Parameters of the script.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// The projects that may use a checkpoint.
#[derive(Deserialize, Debug, ToSchema)]
#[schema(as = openai::CreatePermissions)]
#[serde(deny_unknown_fields)]
pub struct CreatePermissions {
    /// Namespaces, at least one and at most 100; `*` is all of them.
    #[schema(min_items = 1, max_items = 100, value_type = Vec<ProjectId>)]
    pub project_ids: Vec<String>,
}

/// A namespace, or `*`.
#[derive(ToSchema)]
#[schema(as = openai::ProjectId, value_type = String, max_length = 63, pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$")]
#[expect(dead_code, reason = "ids are checked where they are used")]
struct ProjectId(String);

/// The run a create asks for.
///
/// # Errors
/// What lies outside the documented bounds.
pub fn new_run(said: CreateJob, idempotency_key: Option<String>, request: String) -> Result<NewRun, Refusal> {
    check_texts(&said)?;
    let mut given = hyperparameters(&said)?;
    check_numbers(&given)?;
    let learning_rate_multiplier = given.remove("learning_rate_multiplier").filter(|value| *value != "auto" && !value.is_null());
    if let Some(seed) = said.seed {
        given.insert("seed".into(), seed.into());
    }
    let script = match said.method.map(|method| method.type_) {
        None => Script::Default,
        // What OpenAI calls supervised is what a default script does.
        Some(type_) if type_ == "supervised" => Script::Preferred(type_),
        Some(type_) => Script::Named(type_),
    };
    Ok(NewRun {
        fields: FIELDS,
        called: said.suffix.clone().unwrap_or_else(|| said.model.clone()),
        display_name: None,
        description: None,
        suffix: said.suffix,
        metadata: said.metadata.unwrap_or_default(),
        base_model: said.model,
        script,
        training: Data::Named(said.training_file),
        validation: said.validation_file,
        parameters: given,
        defaults: Values::new(),
        learning_rate_multiplier,
        output: None,
        auto_deploy: Some(AutoDeploy { checkpoint: DeployWhich::Best, type_: ServingType::Normal, replicas: 1 }),
        visibility: Visibility::Private,
        labels: BTreeMap::new(),
        idempotency_key,
        request,
    })
}

fn check_texts(said: &CreateJob) -> Result<(), Refusal> {
    if said.integrations.as_ref().is_some_and(|integrations| !integrations.is_empty()) {
        return Err(Refusal::bad("integrations", "integrations are not supported: leave them out"));
    }
    if said.suffix.as_ref().is_some_and(|suffix| suffix.chars().count() > 64) {
        return Err(Refusal::bad("suffix", "suffix has at most 64 characters"));
    }
    let metadata = said.metadata.iter().flatten();
    let too_long = |(key, value): (&String, &String)| key.chars().count() > 64 || value.chars().count() > 512;
    if said.metadata.as_ref().is_some_and(|metadata| metadata.len() > 16) || metadata.into_iter().any(too_long) {
        return Err(Refusal::bad(
            "metadata",
            "metadata has at most 16 pairs, keys of at most 64 and values of at most 512 characters",
        ));
    }
    Ok(())
}

/// The hyperparameters of the method, over the older ones at the top.
fn hyperparameters(said: &CreateJob) -> Result<Values, Refusal> {
    let mut given = said.hyperparameters.clone().unwrap_or_default();
    let Some(method) = &said.method else { return Ok(given) };
    let of_method = method.settings.get(&method.type_).and_then(|settings| settings.get("hyperparameters"));
    match of_method {
        Some(Value::Object(inner)) => given.extend(inner.clone()),
        None | Some(Value::Null) => {}
        Some(_) => return Err(Refusal::bad(&format!("method.{}.hyperparameters", method.type_), "hyperparameters is an object")),
    }
    Ok(given)
}

fn check_numbers(given: &Values) -> Result<(), Refusal> {
    let within = |name: &str, holds: fn(Decimal) -> bool, how: &str| match given.get(name) {
        None | Some(Value::Null) => Ok(()),
        Some(value) if value == "auto" => Ok(()),
        Some(value) if value.is_number() && parameters::decimal(value).is_some_and(holds) => Ok(()),
        Some(_) => Err(Refusal::bad(&format!("hyperparameters.{name}"), format!("{name} is \"auto\" or {how}"))),
    };
    within("batch_size", |n| n.is_integer() && n >= Decimal::ONE && n <= Decimal::from(256), "a whole number from 1 to 256")?;
    within("n_epochs", |n| n.is_integer() && n >= Decimal::ONE && n <= Decimal::from(50), "a whole number from 1 to 50")?;
    within("learning_rate_multiplier", |n| n > Decimal::ZERO, "a number greater than 0")?;
    within("beta", |n| n > Decimal::ZERO && n <= Decimal::TWO, "a number greater than 0 and at most 2")
}
