//! The models a project serves, as OpenAI lists models.

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::ModelDeployment;
use crate::gateway::app::Gateway;
use crate::gateway::errors::Refusal;
use crate::gateway::service::cluster::Selection;
use crate::gateway::service::{Session, runs, standing};

/// The routes of models.
pub fn router() -> Router<Gateway> {
    Router::new().route("/", get(list)).route("/{model}", get(retrieve))
}

async fn list(session: Session) -> Result<Json<Value>, Refusal> {
    let served = served(&session).await?;
    Ok(Json(json!({"object": "list", "data": served.iter().map(model).collect::<Vec<_>>()})))
}

async fn retrieve(session: Session, Path(name): Path<String>) -> Result<Json<Value>, Refusal> {
    let served = served(&session).await?;
    let found = served.iter().find(|deployment| standing::model_name(deployment) == name);
    found.map(|deployment| Json(model(deployment))).ok_or_else(|| Refusal {
        param: Some("model".into()),
        code: Some("model_not_found"),
        ..Refusal::not_found("a model that is served", &name)
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

fn model(deployment: &ModelDeployment) -> Value {
    json!({
        "id": standing::model_name(deployment),
        "object": "model",
        "created": created(deployment),
        "owned_by": deployment.namespace().unwrap_or_default(),
    })
}
