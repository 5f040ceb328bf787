//! What callers send, as Strongly documents it, in our words.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::api::Visibility;
use crate::gateway::errors::Refusal;
use crate::gateway::extract::Asked;
use crate::gateway::service::create::{Data, Fields, NewRun, Script};
use crate::gateway::service::parameters::{self, Values};
use crate::gateway::service::query::{FURTHEST, Field, Sort};
use crate::gateway::service::transitions::Action;
use crate::gateway::service::{Session, checkpoints, estimate::Question, runs};

const FIELDS: Fields = Fields {
    base_model: "baseModel",
    script: "script",
    training: "trainingDataset",
    validation: "validationFile",
    parameters: "hyperparameters",
};

/// The body of a create.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct CreateJob {
    name: String,
    base_model: String,
    training_dataset: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    validation_file: Option<String>,
    #[serde(default)]
    hyperparameters: Option<Values>,
    #[serde(default)]
    suffix: Option<String>,
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

/// The body of a restart, which may be left out.
#[derive(Deserialize, Debug, Default)]
pub struct Restart {
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

/// The body of an estimate.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct EstimateCost {
    /// Name or alias of the base model.
    pub base_model: String,
    /// Examples of the training data.
    pub dataset_size: u64,
    #[serde(default)]
    hardware: Option<String>,
    #[serde(default)]
    epochs: Option<Value>,
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

/// How many results are skipped.
///
/// # Errors
/// It is no number, or too far.
pub fn offset(asked: &Asked) -> Result<usize, Refusal> {
    let offset = asked.number("offset", 0, 0)?;
    if offset > FURTHEST {
        return Err(Refusal::bad("offset", format!("offset is at most {FURTHEST}: narrow the list with search or status")));
    }
    Ok(offset)
}

/// An order such as `createdAt:desc`.
///
/// # Errors
/// There is no such field or direction.
pub fn sort(text: &str) -> Result<Sort, Refusal> {
    let (field, direction) = text.split_once(':').unwrap_or((text, "asc"));
    let field = match field {
        "createdAt" => Field::Created,
        "updatedAt" => Field::Updated,
        "startedAt" => Field::Started,
        "finishedAt" => Field::Finished,
        "name" => Field::Name,
        "status" => Field::Status,
        "baseModel" => Field::BaseModel,
        _ => {
            let known = "createdAt, updatedAt, startedAt, finishedAt, name, status, baseModel";
            return Err(Refusal::bad("sort", format!("sort is one of {known}, with :asc or :desc")));
        }
    };
    match direction {
        "asc" => Ok(Sort { field, descending: false }),
        "desc" => Ok(Sort { field, descending: true }),
        _ => Err(Refusal::bad("sort", "the direction of sort is asc or desc")),
    }
}
