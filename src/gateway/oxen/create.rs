//! A create and a deploy as Oxen writes them, as ours. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

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

/// The body of a create.
#[derive(Deserialize, Debug)]
pub struct CreateFineTune {
    resource: String,
    base_model: String,
    script_type: String,
    #[serde(default)]
    is_public: Option<bool>,
    #[serde(default)]
    oxen_model_path: Option<String>,
    #[serde(default)]
    training_params: Option<Values>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
}

/// The body of a deploy.
#[derive(Deserialize, Debug, Default)]
pub struct Deploy {
    #[serde(default)]
    deployment_type: Option<String>,
}

impl Deploy {
    /// The kind of server that is wanted.
    ///
    /// # Errors
    /// There is no such kind.
    pub fn type_(&self) -> Result<ServingType, Refusal> {
        match self.deployment_type.as_deref() {
            None | Some("normal") => Ok(ServingType::Normal),
            Some("fast") => Ok(ServingType::Fast),
            Some(_) => Err(Refusal::bad("deployment_type", "deployment_type is fast or normal")),
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
