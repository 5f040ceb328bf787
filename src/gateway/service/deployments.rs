//! Serving a checkpoint: one Deployment of ours for each, whoever asks and however often.

use std::time::Duration;

use kube::{ResourceExt, api::ObjectMeta};
use serde::Serialize;
use utoipa::ToSchema;

use super::cluster::Selection;
use super::runs::is_ready;
use super::{Session, catalogue, ids};
use crate::api::{Checkpoint, CheckpointReference, DeploymentPhase, ModelDeployment, ModelDeploymentSpec, ServingType, names};
use crate::gateway::errors::Refusal;

/// How long an earlier Deployment may take to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a checkpoint is to be served.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Fast or normal.
    pub type_: ServingType,
    /// The name it answers to; that of the checkpoint when absent.
    pub model_name: Option<String>,
    /// Whether what is there is removed first.
    pub retry: bool,
}

/// Serves a checkpoint, or returns what serves it already.
///
/// # Errors
/// What is there has failed and no retry is wanted, nothing serves that way, or the caller may not.
pub async fn deploy(session: &Session, checkpoint: &Checkpoint, wanted: Wanted) -> Result<ModelDeployment, Refusal> {
    if !catalogue::is_served(session, wanted.type_).await? {
        let name = serde_json::to_value(wanted.type_).unwrap_or_default();
        return Err(Refusal::bad("deployment_type", format!("no ServingRuntime of this cluster serves {name}")));
    }
    for there in of_checkpoint(session, checkpoint).await? {
        if wanted.retry {
            session.cluster.delete(&there, false).await?;
            session.cluster.until_gone(&there, PATIENCE).await?;
        } else {
            return as_it_is(there);
        }
    }
    let new = object(session, checkpoint, wanted);
    if let Some(created) = session.cluster.create(&new).await? {
        return Ok(created);
    }
    // Somebody else was quicker, or has taken the name.
    let there = session.cluster.get::<ModelDeployment>(&new.name_any()).await?;
    let ours = there.filter(|there| there.spec.checkpoint == new.spec.checkpoint);
    ours.map_or_else(|| Err(Refusal::conflict(format!("the name {} is taken by another Deployment", new.name_any()))), as_it_is)
}

/// What serves a checkpoint; the one that is ready comes first.
async fn of_checkpoint(session: &Session, checkpoint: &Checkpoint) -> Result<Vec<ModelDeployment>, Refusal> {
    let selection = Selection::field("spec.checkpoint.name", &checkpoint.name_any());
    let mut all: Vec<ModelDeployment> = session.cluster.list(&selection).await?;
    all.retain(|deployment| deployment.spec.checkpoint.namespace.as_ref().is_none_or(|namespace| *namespace == session.project));
    all.sort_by_key(|deployment| (!is_ready(deployment), deployment.name_any()));
    Ok(all)
}

fn as_it_is(there: ModelDeployment) -> Result<ModelDeployment, Refusal> {
    let status = there.status.as_ref();
    if status.is_some_and(|status| status.phase == DeploymentPhase::Failed) {
        let failure = status.and_then(|status| status.failure.as_ref()).map_or("no reason is known", |failure| &failure.message);
        return Err(Refusal::conflict(format!(
            "the deployment has failed ({failure}): use retry=true to remove it and deploy again"
        )));
    }
    if there.metadata.deletion_timestamp.is_some() {
        return Err(Refusal::conflict("an earlier deployment is still being removed: try again"));
    }
    Ok(there)
}

fn object(session: &Session, checkpoint: &Checkpoint, wanted: Wanted) -> ModelDeployment {
    let metadata = ObjectMeta {
        name: Some(ids::deployment(&checkpoint.name_any())),
        namespace: Some(session.project.clone()),
        annotations: Some([(names::CREATED_BY.to_owned(), session.identity.username.clone())].into()),
        ..ObjectMeta::default()
    };
    let spec = ModelDeploymentSpec {
        checkpoint: CheckpointReference { name: checkpoint.name_any(), namespace: None },
        type_: wanted.type_,
        model_name: wanted.model_name,
        replicas: 1,
        ..ModelDeploymentSpec::default()
    };
    ModelDeployment { metadata, spec, status: None }
}

/// The deployment once it is ready or has failed, or as it is when patience ends.
///
/// # Errors
/// It is gone, or the API server does not answer.
pub async fn settled(session: &Session, deployment: ModelDeployment, patience: Duration) -> Result<ModelDeployment, Refusal> {
    if patience.is_zero() {
        return Ok(deployment);
    }
    let (name, version) = (deployment.name_any(), deployment.metadata.generation);
    let holds = move |deployment: &ModelDeployment| {
        let heard = deployment.status.as_ref().is_some_and(|status| status.observed_generation >= version);
        heard
            && (is_ready(deployment) || deployment.status.as_ref().is_some_and(|status| status.phase == DeploymentPhase::Failed))
    };
    let found = session.cluster.wait(&name, patience, holds).await?;
    found.ok_or_else(|| Refusal::not_found("deployment", &name))
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DeploymentStatus)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Its server is on its way.
    Deploying,
    /// It answers.
    Deployed,
    /// It cannot be served.
    Failed,
}

/// One word for how far it is.
#[must_use]
pub fn word(deployment: &ModelDeployment) -> Word {
    match deployment.status.as_ref().map(|status| status.phase) {
        _ if is_ready(deployment) => Word::Deployed,
        Some(DeploymentPhase::Failed) => Word::Failed,
        _ => Word::Deploying,
    }
}
