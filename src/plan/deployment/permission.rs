//! Whether a Deployment of ours may serve a checkpoint of another namespace, and what goes when it no longer may. Pure.

use super::{ObservedDeployment, Route, resolution};
use crate::{
    api::names as labels,
    plan::{Change, ChildKind, ChildReference, Problem},
};

/// What the owners of checkpoints allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// The checkpoint of the spec may be used.
    pub wanted: bool,
    /// What the pods serve may be used.
    pub served: bool,
    /// The run that saved the checkpoint of the spec holds its volume, which no second node can mount.
    pub held: bool,
}

/// The namespace of the checkpoint, where that is another one.
#[must_use]
pub fn elsewhere(observed: &ObservedDeployment) -> Option<&str> {
    let namespace = observed.deployment.spec.checkpoint.namespace.as_deref();
    namespace.filter(|namespace| *namespace != observed.namespace())
}

/// Why the checkpoint may not be used. Whether it exists is its owner's to tell: the words are the same.
#[must_use]
pub fn refusal(observed: &ObservedDeployment) -> Option<Problem> {
    let namespace = elsewhere(observed).filter(|_| !observed.permissions.wanted)?;
    let reference = &observed.deployment.spec.checkpoint;
    let message = format!(
        "no CheckpointPermission in namespace {namespace} lets namespace {} use a checkpoint {:?}: ask there for one, or name a checkpoint of this namespace",
        observed.namespace(),
        reference.name
    );
    Some(Problem { reason: "NotPermitted", field: "spec.checkpoint".into(), message, waits: false })
}

/// Why a checkpoint that may be used cannot be handed out now.
#[must_use]
pub fn held(observed: &ObservedDeployment) -> Option<Problem> {
    let is_deployed = observed.checkpoint.as_ref().is_some_and(|checkpoint| resolution::is_deployed(observed, checkpoint));
    elsewhere(observed).filter(|_| observed.permissions.held && !is_deployed)?;
    let message = "the volume of the checkpoint can be mounted on one node at a time, and its run holds it: wait for the run, or ask its owner to train on a ReadWriteMany volume or into an object store";
    Some(Problem { reason: "VolumeInUse", field: "spec.checkpoint".into(), message: message.into(), waits: true })
}

/// Name and namespace of the checkpoints of other namespaces that the pods serve: those that are there, and those that come in their place.
#[must_use]
pub fn served_elsewhere(observed: &ObservedDeployment) -> Vec<(String, String)> {
    let Some(workload) = &observed.workload else { return Vec::new() };
    let template = workload.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref()?.annotations.as_ref());
    let coming =
        template.and_then(|all| Some((all.get(labels::CHECKPOINT)?.clone(), all.get(labels::CHECKPOINT_NAMESPACE)?.clone())));
    let served = observed.status().checkpoint.and_then(|served| Some((served.name, served.namespace?)));
    let served = served.filter(|(_, namespace)| namespace != observed.namespace());
    coming.into_iter().chain(served).collect()
}

/// Whether the pods serve what may not be used any more.
#[must_use]
pub fn is_over(observed: &ObservedDeployment) -> bool {
    !served_elsewhere(observed).is_empty() && !observed.permissions.served
}

/// The end of pods that serve what may not be used any more, and of what led to them. Nothing takes their place before they are gone.
#[must_use]
pub fn revoked(observed: &ObservedDeployment) -> Vec<Change> {
    // Without the pods nobody knows any more what they served: what is left of the others goes when nothing may come in its place.
    let is_left = observed.workload.is_none() && refusal(observed).is_some();
    if !is_over(observed) && !is_left {
        return Vec::new();
    }
    let route = if let Route::Known(route) = &observed.route { route.as_ref() } else { None };
    let workload = observed.workload.iter().map(|known| (ChildKind::Workload, &known.metadata));
    let service = observed.service.iter().map(|known| (ChildKind::Service, &known.metadata));
    let budget = observed.budget.iter().map(|known| (ChildKind::Budget, &known.metadata));
    let route = route.into_iter().map(|known| (ChildKind::Route, &known.metadata));
    let all = workload.chain(service).chain(budget).chain(route);
    let known = all.filter(|(_, metadata)| metadata.deletion_timestamp.is_none());
    known.map(|(kind, metadata)| Change::Delete(ChildReference::of(kind, metadata))).collect()
}
