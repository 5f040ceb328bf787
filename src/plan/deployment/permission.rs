//! Whether a Deployment of ours may serve a checkpoint of another namespace, and what goes when it no longer may. Pure.

use super::ObservedDeployment;
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
    elsewhere(observed).filter(|_| observed.permissions.held && observed.workload.is_none())?;
    let message = "the volume of the checkpoint can be mounted on one node at a time, and its run holds it: wait for the run, or ask its owner to train on a ReadWriteMany volume or into an object store";
    Some(Problem { reason: "VolumeInUse", field: "spec.checkpoint".into(), message: message.into(), waits: true })
}

/// Name and namespace of the checkpoint the pods serve, where that is of another namespace.
#[must_use]
pub fn served_elsewhere(observed: &ObservedDeployment) -> Option<(&str, &str)> {
    let template = observed.workload.as_ref()?.spec.as_ref()?.template.metadata.as_ref()?;
    let annotations = template.annotations.as_ref()?;
    Some((annotations.get(labels::CHECKPOINT)?, annotations.get(labels::CHECKPOINT_NAMESPACE)?))
}

/// The end of pods that serve what may not be used any more. Nothing takes their place before they are gone.
#[must_use]
pub fn revoked(observed: &ObservedDeployment) -> Vec<Change> {
    if served_elsewhere(observed).is_none() || observed.permissions.served {
        return Vec::new();
    }
    let workload = observed.workload.iter().map(|known| (ChildKind::Workload, &known.metadata));
    let service = observed.service.iter().map(|known| (ChildKind::Service, &known.metadata));
    let known = workload.chain(service).filter(|(_, metadata)| metadata.deletion_timestamp.is_none());
    known.map(|(kind, metadata)| Change::Delete(ChildReference::of(kind, metadata))).collect()
}
