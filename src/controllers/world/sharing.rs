//! What wakes whom when checkpoints are shared between namespaces.

use std::sync::Arc;

use k8s_openapi::api::apps::v1 as apps;
use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};

use super::World;
use crate::api::{Checkpoint, CheckpointPermission, FineTune, ModelDeployment, is_controlled_by, names};

impl World {
    /// The permission that was made for a run that is Public.
    pub fn permission_of(&self, namespace: &str, run: &str) -> Option<Arc<CheckpointPermission>> {
        self.serving
            .permissions
            .find(|permission| permission.namespace().as_deref() == Some(namespace) && is_controlled_by(permission, run))
    }

    /// A permission came or went: who it lets use checkpoints, the checkpoints it is about, the run that keeps them, and the one it was made for.
    pub(super) fn touch_permission(&self, permission: &CheckpointPermission, _: bool) {
        let namespace = permission.namespace();
        let owners = permission.owner_references().iter().filter(|owner| owner.kind == "FineTune");
        for owner in owners {
            self.wake(ObjectRef::<FineTune>::new(&owner.name).within(namespace.as_deref().unwrap_or_default()));
        }
        self.wake_deployments(|deployment| {
            deployment.spec.checkpoint.namespace == namespace && deployment.namespace() != namespace
                || serves_of(self, deployment) == namespace
                || served_by(deployment) == namespace
        });
        self.wake_shared(|checkpoint| checkpoint.namespace() == namespace && is_about(permission, checkpoint));
        let named = permission.spec.checkpoint.iter().map(|named| (namespace.clone().unwrap_or_default(), named.name.clone()));
        self.wake_keepers(named);
    }

    /// A Deployment of ours came, changed or went: the checkpoint of another namespace that it names, and those it may have named before.
    pub(super) fn wake_shared_by(&self, deployment: &ModelDeployment) {
        let reference = &deployment.spec.checkpoint;
        if let Some(namespace) = reference.namespace.as_ref().filter(|theirs| Some(*theirs) != deployment.namespace().as_ref()) {
            let _ = self.checkpoint_wakes.send(ObjectRef::new(&reference.name).within(namespace));
        }
        if self.is_ready() {
            for exporter in self.serving.workloads.state_filter(is_exporter) {
                self.wake_exported(&*exporter);
            }
        }
    }

    /// A pod of a run in `namespace` came, changed or went, and with it perhaps the hold on a volume that Deployments elsewhere wait for.
    pub(super) fn wake_waited_for(&self, namespace: &str) {
        let is_elsewhere = |deployment: &ModelDeployment| {
            deployment.spec.checkpoint.namespace.as_deref() == Some(namespace)
                && deployment.metadata.namespace.as_deref() != Some(namespace)
        };
        for deployment in self.deployments.state_filter(is_elsewhere) {
            let _ = self.checkpoint_wakes.send(ObjectRef::new(&deployment.spec.checkpoint.name).within(namespace));
        }
    }

    /// An exporter or its Service: the Checkpoint it was made for.
    pub(super) fn wake_exported(&self, object: &impl Resource<DynamicType = ()>) {
        let namespace = object.namespace().unwrap_or_default();
        let owner = object.owner_references().iter().find(|owner| owner.kind == "Checkpoint");
        let owner = owner.map(|owner| ObjectRef::<Checkpoint>::new(&owner.name).within(&namespace));
        let _ = owner.map(|owner| self.checkpoint_wakes.send(owner));
    }

    fn wake_shared(&self, concerns: impl Fn(&Checkpoint) -> bool) {
        if !self.is_ready() {
            return;
        }
        for checkpoint in self.checkpoints.store().state_filter(concerns) {
            let _ = self.checkpoint_wakes.send(ObjectRef::from_obj(&*checkpoint));
        }
    }
}

/// The other namespace whose checkpoint the pods of a Deployment of ours serve.
fn serves_of(world: &World, deployment: &ModelDeployment) -> Option<String> {
    let reference = ObjectRef::new(&deployment.name_any()).within(&deployment.namespace()?);
    let workload = world.serving.workloads.get(&reference)?;
    workload.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?.get(names::CHECKPOINT_NAMESPACE).cloned()
}

/// The namespace of the checkpoint that was served last.
fn served_by(deployment: &ModelDeployment) -> Option<String> {
    deployment.status.as_ref()?.checkpoint.as_ref()?.namespace.clone()
}

fn is_exporter(workload: &apps::Deployment) -> bool {
    workload.labels().get(names::ROLE).is_some_and(|role| role == names::ROLE_EXPORT)
}

fn is_about(permission: &CheckpointPermission, checkpoint: &Checkpoint) -> bool {
    let run = checkpoint.spec.fine_tune.as_ref().map(|run| run.name.as_str());
    permission.spec.allows((&checkpoint.name_any(), run), &permission.spec.project)
}
