//! The models a project serves, as OpenAI lists models.

use axum::Json;
use axum::extract::Path;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::object::{ListObject, ModelObject};
use crate::api::ModelDeployment;
use crate::gateway::app::Gateway;
use crate::gateway::errors::Refusal;
use crate::gateway::service::cluster::Selection;
use crate::gateway::service::{Session, runs, standing};

/// The routes of models.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(list_models)).routes(routes!(retrieve_model))
}

/// A model that is served.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Model)]
pub struct Model {
    /// The name it answers to.
    pub id: String,
    /// Always `model`.
    pub object: ModelObject,
    /// When it was deployed, in seconds since 1970.
    pub created: i64,
    /// Namespace it is served in.
    pub owned_by: String,
}

/// The models that are served.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Models)]
pub struct Models {
    /// Always `list`.
    pub object: ListObject,
    /// The models, newest first.
    pub data: Vec<Model>,
}

/// Which model is meant.
#[derive(Deserialize, IntoParams)]
pub struct Called {
    /// The name it answers to
    model: String,
}

/// List models
///
/// Those that answer in the project, newest first.
#[utoipa::path(get, path = "/", responses((status = 200, body = Models, description = "The models")))]
async fn list_models(session: Session) -> Result<Json<Models>, Refusal> {
    let served = served(&session).await?;
    Ok(Json(Models { object: ListObject::List, data: served.iter().map(model).collect() }))
}

/// Retrieve a model
#[utoipa::path(get, path = "/{model}", params(Called), responses((status = 200, body = Model, description = "The model")))]
async fn retrieve_model(session: Session, Path(called): Path<Called>) -> Result<Json<Model>, Refusal> {
    let served = served(&session).await?;
    let found = served.iter().find(|deployment| standing::model_name(deployment) == called.model);
    found.map(|deployment| Json(model(deployment))).ok_or_else(|| Refusal {
        param: Some("model".into()),
        code: Some("model_not_found"),
        ..Refusal::not_found("a model that is served", &called.model)
    })
}

/// What answers in the project, newest first.
async fn served(session: &Session) -> Result<Vec<ModelDeployment>, Refusal> {
    let mut all: Vec<ModelDeployment> = session.cluster.list(&Selection::default()).await?;
    all.retain(runs::is_ready);
    all.sort_by_key(|deployment| (std::cmp::Reverse(created(deployment)), deployment.name_any()));
    Ok(all)
}

fn created(deployment: &ModelDeployment) -> i64 {
    deployment.creation_timestamp().map_or(0, |time| time.0.as_second())
}

fn model(deployment: &ModelDeployment) -> Model {
    Model {
        id: standing::model_name(deployment),
        object: ModelObject::Model,
        created: created(deployment),
        owned_by: deployment.namespace().unwrap_or_default(),
    }
}
