//! What callers send, as Strongly documents it, in our words.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::api::Visibility;
use crate::gateway::asked::{Flag, Wait};
use crate::gateway::errors::Refusal;
use crate::gateway::service::create::{Data, Fields, NewRun, Script};
use crate::gateway::service::parameters::{self, Values};
use crate::gateway::service::transitions::Action;
use crate::gateway::service::{Session, checkpoints, estimate::Question, runs};

const FIELDS: Fields = Fields {
    base_model: "baseModel",
    script: "script",
    training: "trainingDataset",
    validation: "validationFile",
    parameters: "hyperparameters",
};

/// A job to be made.
#[derive(Deserialize, Debug, ToSchema)]
#[schema(as = strongly::CreateJob)]
#[serde(rename_all = "camelCase")]
pub struct CreateJob {
    /// What people call it.
    #[schema(min_length = 1)]
    name: String,
    /// Name or alias of the base model.
    base_model: String,
    /// What to train on: the name of a Dataset, or `s3://…`, `hf://org/name[@revision]`, `volume://claim/path`.
    training_dataset: String,
    /// What it is for.
    #[serde(default)]
    description: Option<String>,
    /// What to evaluate on: `s3://…`, `hf://…`, `volume://…`, or the name of a Dataset.
    #[serde(default)]
    validation_file: Option<String>,
    /// What to train with.
    #[serde(default)]
    #[schema(value_type = Option<AskedHyperparameters>)]
    hyperparameters: Option<Values>,
    /// What the name of the resulting model ends with.
    #[serde(default)]
    suffix: Option<String>,
}

/// What to train with. These are the names that are documented; what a script takes, and in which types, says its schema.
#[derive(ToSchema)]
#[schema(as = strongly::AskedHyperparameters)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "the schema of the script, which the cluster has, decides")]
struct AskedHyperparameters {
    /// Passes over the data.
    epochs: Option<f64>,
    /// Learning rate.
    learning_rate: Option<f64>,
    /// Examples a device takes at once.
    batch_size: Option<i64>,
    /// Steps until the learning rate is reached.
    warmup_steps: Option<i64>,
    /// Other parameters of the script.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// The run a create asks for.
///
/// # Errors
/// It has no name.
pub fn new_run(said: CreateJob, idempotency_key: Option<String>, request: String) -> Result<NewRun, Refusal> {
    if said.name.trim().is_empty() {
        return Err(Refusal::bad("name", "name must not be empty"));
    }
    Ok(NewRun {
        fields: FIELDS,
        called: said.name.clone(),
        display_name: Some(said.name),
        description: said.description,
        suffix: said.suffix,
        metadata: BTreeMap::new(),
        base_model: said.base_model,
        script: Script::Default,
        training: Data::Named(said.training_dataset),
        validation: said.validation_file,
        parameters: said.hyperparameters.unwrap_or_default(),
        defaults: Values::new(),
        learning_rate_multiplier: None,
        output: None,
        auto_deploy: None,
        visibility: Visibility::Private,
        labels: BTreeMap::new(),
        idempotency_key,
        request,
    })
}

/// Where a restart begins.
#[derive(Deserialize, Debug, Default, ToSchema)]
#[schema(as = strongly::Restart)]
pub struct Restart {
    /// `scratch`, or the step of the last checkpoint; the last checkpoint when absent.
    #[serde(default)]
    from: Option<Value>,
}

impl Restart {
    /// What is asked for: to go on with the last checkpoint, or to begin anew.
    ///
    /// # Errors
    /// It names a step that is not the last one.
    pub async fn action(&self, session: &Session, id: &str) -> Result<Action, Refusal> {
        match &self.from {
            None | Some(Value::Null) => Ok(Action::Restart { scratch: false }),
            Some(Value::String(word)) if word == "scratch" => Ok(Action::Restart { scratch: true }),
            Some(Value::Number(step)) if step.is_i64() => {
                let run = runs::get(session, id).await?;
                let checkpoint = checkpoints::at_step(session, &run, step.as_i64().unwrap_or_default()).await?;
                let last = checkpoints::of_run(session, &run).await?.pop();
                if last.is_some_and(|last| last.spec.step == checkpoint.spec.step) {
                    return Ok(Action::Restart { scratch: false });
                }
                Err(Refusal::conflict(
                    "a restart goes on with the last checkpoint or begins from \"scratch\": to go on with an earlier one, start a new job",
                ))
            }
            Some(_) => Err(Refusal::bad("from", "from is \"scratch\" or a step")),
        }
    }
}

/// A training whose cost is asked for.
#[derive(Deserialize, Debug, ToSchema)]
#[schema(as = strongly::EstimateCost)]
#[serde(rename_all = "camelCase")]
pub struct EstimateCost {
    /// Name or alias of the base model.
    pub base_model: String,
    /// Examples of the training data.
    pub dataset_size: u64,
    /// Name of the hardware; the default one when absent.
    #[serde(default)]
    hardware: Option<String>,
    /// Passes over the data: a number, or its text.
    #[serde(default)]
    epochs: Option<Value>,
    /// Tokens of an example; what the base model says when absent.
    #[serde(default)]
    sequence_length: Option<u64>,
}

impl EstimateCost {
    /// The question it asks.
    ///
    /// # Errors
    /// A number is none.
    pub fn question(self) -> Result<Question, Refusal> {
        let epochs = match &self.epochs {
            None | Some(Value::Null) => None,
            Some(value) => Some(parameters::decimal(value).ok_or_else(|| Refusal::bad("epochs", "epochs is a number"))?),
        };
        Ok(Question {
            base_model: self.base_model,
            examples: self.dataset_size,
            hardware: self.hardware,
            epochs,
            tokens_each: self.sequence_length,
        })
    }
}

/// Which job is meant.
#[derive(Deserialize, IntoParams)]
pub struct Of {
    /// Id of the job, or the name of its FineTune
    pub id: String,
}

/// How to deploy.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default)]
pub struct Deploying {
    /// If true, what serves the job's model is removed first
    #[param(inline)]
    pub retry: Flag,
    /// Seconds the answer may wait until it is done
    #[param(inline)]
    pub wait: Wait,
}
