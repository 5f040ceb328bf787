//! A create and a deploy as Oxen writes them, as ours. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::{ServingType, Visibility};
use crate::gateway::errors::Refusal;
use crate::gateway::service::create::{Data, Fields, NewRun, Script};
use crate::gateway::service::parameters::Values;
use crate::gateway::service::{REPOSITORY, ids, sources};

const FIELDS: Fields = Fields {
    base_model: "base_model",
    script: "script_type",
    training: "resource",
    validation: "resource",
    parameters: "training_params",
};

/// A fine-tune to be made.
#[derive(Deserialize, Debug, ToSchema)]
#[schema(as = oxen::CreateFineTuneRequest)]
pub struct CreateFineTune {
    /// What to train on: a path in the repository, or `s3://…`, `hf://org/name[@revision]`, `volume://claim/path`.
    resource: String,
    /// Name or alias of the base model.
    base_model: String,
    /// Type of the script that trains, or its name.
    script_type: String,
    /// Whether every namespace may use the checkpoints.
    #[serde(default)]
    #[schema(default = false)]
    is_public: Option<bool>,
    /// Where checkpoints go: a path in the repository, `s3://…` or `volume://…`; the operator's own place when absent.
    #[serde(default)]
    oxen_model_path: Option<String>,
    /// What to train with.
    #[serde(default)]
    #[schema(value_type = Option<AskedParams>)]
    training_params: Option<Values>,
    /// What people call it.
    #[serde(default)]
    name: Option<String>,
    /// What it is for.
    #[serde(default)]
    description: Option<String>,
}

/// What to train with. These are the names that are documented; what a script takes, and in which types, says its schema.
#[derive(ToSchema)]
#[schema(as = oxen::AskedTrainingParams)]
#[expect(dead_code, reason = "the schema of the script, which the cluster has, decides")]
struct AskedParams {
    /// Examples a device takes at once.
    batch_size: Option<i64>,
    /// Column of captions or prompts.
    caption_column: Option<String>,
    /// Steps whose gradients are taken together.
    gradient_accumulation: Option<i64>,
    /// Column of paths of images.
    image_column: Option<String>,
    /// Learning rate.
    learning_rate: Option<f64>,
    /// Scale of the adapter.
    lora_alpha: Option<i64>,
    /// Rank of the adapter.
    lora_rank: Option<i64>,
    /// Steps between two samples.
    sample_every: Option<i64>,
    /// How many samples, or the prompts of the samples.
    samples: Option<Value>,
    /// Steps altogether.
    steps: Option<i64>,
    /// How timesteps are sampled.
    timestep_type: Option<String>,
    /// Whether only an adapter is trained; true when absent, where the script knows the word.
    use_lora: Option<bool>,
    /// Other parameters of the script.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// How to deploy.
#[derive(Deserialize, Debug, Default, ToSchema)]
#[schema(as = oxen::DeployRequest)]
pub struct Deploy {
    /// For speed, or as usual.
    #[serde(default)]
    pub deployment_type: Option<DeploymentType>,
}

/// How a model is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = oxen::DeploymentType)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentType {
    /// By the server that is tuned for speed.
    Fast,
    /// By the ordinary server.
    #[default]
    Normal,
}

impl From<DeploymentType> for ServingType {
    fn from(type_: DeploymentType) -> Self {
        match type_ {
            DeploymentType::Fast => Self::Fast,
            DeploymentType::Normal => Self::Normal,
        }
    }
}

impl From<ServingType> for DeploymentType {
    fn from(type_: ServingType) -> Self {
        match type_ {
            ServingType::Fast => Self::Fast,
            ServingType::Normal => Self::Normal,
        }
    }
}

/// The run a create asks for.
///
/// # Errors
/// A place that cannot be one.
pub fn new_run(said: CreateFineTune, repository: &str, key: Option<String>, request: String) -> Result<NewRun, Refusal> {
    if !ids::is_label(repository) {
        return Err(Refusal::bad("repo_name", "a repository is a claim: lower-case letters, digits and '-', at most 63"));
    }
    let training = if said.resource.contains("://") {
        Data::Named(said.resource)
    } else {
        Data::Place(sources::path_in(repository, &said.resource).map_err(|message| Refusal::bad("resource", message))?)
    };
    let output = said.oxen_model_path.as_deref().filter(|path| !path.is_empty());
    let output = output.map(|path| sources::output(path, repository)).transpose();
    Ok(NewRun {
        fields: FIELDS,
        called: said.name.clone().unwrap_or_else(|| format!("{repository}-{}", said.base_model)),
        display_name: said.name,
        description: said.description,
        suffix: None,
        metadata: BTreeMap::new(),
        base_model: said.base_model,
        script: Script::Named(said.script_type),
        training,
        validation: None,
        parameters: said.training_params.unwrap_or_default(),
        defaults: [("use_lora".to_owned(), true.into())].into(),
        learning_rate_multiplier: None,
        output: output.map_err(|message| Refusal::bad("oxen_model_path", message))?,
        auto_deploy: None,
        visibility: if said.is_public == Some(true) { Visibility::Public } else { Visibility::Private },
        labels: [(REPOSITORY.to_owned(), repository.to_owned())].into(),
        idempotency_key: key,
        request,
    })
}
