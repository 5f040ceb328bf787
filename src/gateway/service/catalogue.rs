//! What a run may name: base models, scripts, hardware, servers.

use std::sync::Arc;

use k8s_openapi::ClusterResourceScope;
use kube::{Resource, ResourceExt};

use super::Session;
use super::cluster::{Kinded, or_nothing};
use crate::api::{BaseModel, HardwareProfile, ServingRuntime, ServingType, TrainingRuntime, names};
use crate::gateway::errors::Refusal;

/// The objects of a kind as the caller was shown them a moment ago at most.
///
/// # Errors
/// The caller may not read the catalogue.
pub async fn recent<K>(session: &Session) -> Result<Arc<Vec<K>>, Refusal>
where
    K: Kinded + Resource<Scope = ClusterResourceScope>,
{
    session.recent.or_read(session.key, session.cluster.list_global()).await
}

/// The base model of a name or alias.
///
/// # Errors
/// The caller may not read the catalogue.
pub async fn base_model(session: &Session, name: &str) -> Result<Option<BaseModel>, Refusal> {
    let known = or_nothing(recent::<BaseModel>(session).await)?;
    let is_meant = |model: &&BaseModel| model.metadata.name.as_deref() == Some(name);
    let has_alias = |model: &&BaseModel| model.spec.aliases.iter().any(|alias| alias == name);
    if let Some(model) = known.iter().find(is_meant).or_else(|| known.iter().find(has_alias)) {
        return Ok(Some(model.clone()));
    }
    if let Some(model) = session.cluster.get_global::<BaseModel>(name).await? {
        return Ok(Some(model));
    }
    let all = session.cluster.list_global::<BaseModel>().await?;
    Ok(all.into_iter().find(|model| model.spec.aliases.iter().any(|alias| alias == name)))
}

/// Every base model, by name.
///
/// # Errors
/// The caller may not read the catalogue.
pub async fn base_models(session: &Session) -> Result<Vec<BaseModel>, Refusal> {
    session.cluster.list_global().await.map(by_name)
}

/// Every hardware profile, by name.
///
/// # Errors
/// The caller may not read the catalogue.
pub async fn hardware(session: &Session) -> Result<Vec<HardwareProfile>, Refusal> {
    session.cluster.list_global().await.map(by_name)
}

/// Every training runtime; none where the caller may not read the catalogue.
///
/// # Errors
/// The API server does not answer.
pub async fn runtimes(session: &Session) -> Result<Vec<TrainingRuntime>, Refusal> {
    or_nothing(session.cluster.list_global().await).map(by_name)
}

/// The runtime that answers to a script type, or has that name.
#[must_use]
pub fn runtime_of<'a>(runtimes: &'a [TrainingRuntime], script: &str) -> Option<&'a TrainingRuntime> {
    let answers = |runtime: &&TrainingRuntime| runtime.spec.script_types.iter().any(|known| known == script);
    runtimes.iter().find(|runtime| runtime.name_any() == script).or_else(|| runtimes.iter().find(answers))
}

/// The object that stands in for what a spec leaves out; of several the oldest, as the operator chooses.
#[must_use]
pub fn default_of<K: Resource>(all: &[K]) -> Option<&K> {
    let is_default = |object: &&K| {
        let annotation = object.annotations().get(names::IS_DEFAULT);
        annotation.or_else(|| object.labels().get(names::IS_DEFAULT)).is_some_and(|value| value == "true")
    };
    all.iter().filter(is_default).min_by_key(|object| (object.creation_timestamp().map(|time| time.0), object.name_any()))
}

/// Whether a server serves that way.
///
/// # Errors
/// The API server does not answer.
pub async fn is_served(session: &Session, type_: ServingType) -> Result<bool, Refusal> {
    let servers = session.cluster.list_global::<ServingRuntime>().await?;
    Ok(servers.iter().any(|server| server.spec.deployment_types.contains(&type_)))
}

fn by_name<K: Resource>(mut all: Vec<K>) -> Vec<K> {
    all.sort_by_key(ResourceExt::name_any);
    all
}
