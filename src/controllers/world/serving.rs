//! What wakes the controller of Deployments of ours.

use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};

use super::World;
use crate::api::{Checkpoint, DeploymentPhase, ModelDeployment, names};

impl World {
    pub(super) fn touch_deployment(&self, deployment: &ModelDeployment, _: bool) {
        let _ = self.deployment_wakes.send(ObjectRef::from_obj(deployment));
        self.wake_leaving();
    }

    /// Something that may bear on deployments came, changed or went: looks at those that `concerns` picks.
    pub(super) fn wake_deployments(&self, concerns: impl Fn(&ModelDeployment) -> bool) {
        if !self.is_ready() {
            return;
        }
        for deployment in self.deployments.state_filter(concerns) {
            let _ = self.deployment_wakes.send(ObjectRef::from_obj(&*deployment));
        }
    }

    /// A Checkpoint came, changed or went: those that serve it, or wait for it.
    pub(super) fn wake_deployments_of(&self, checkpoint: &Checkpoint) {
        let name = checkpoint.name_any();
        let namespace = checkpoint.namespace();
        self.wake_deployments(|deployment| deployment.spec.checkpoint.name == name && deployment.namespace() == namespace);
    }

    /// A pod of a run came, changed or went, and with it perhaps the hold on a volume that somebody waits for.
    pub(super) fn wake_waiting_deployments(&self, namespace: &str) {
        self.wake_deployments(|deployment| {
            let phase = deployment.status.as_ref().map_or(DeploymentPhase::Pending, |status| status.phase);
            phase == DeploymentPhase::Pending && deployment.namespace().as_deref() == Some(namespace)
        });
    }

    /// A workload, Service or pod of ours: the deployment it was made for.
    pub(super) fn wake_deployment_of(&self, object: &impl Resource<DynamicType = ()>) {
        let Some(name) = object.labels().get(names::DEPLOYMENT) else { return };
        let namespace = object.namespace().unwrap_or_default();
        let _ = self.deployment_wakes.send(ObjectRef::new(name).within(&namespace));
    }
}
