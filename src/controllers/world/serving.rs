//! The watches of what serves models, and what wakes the controller of Deployments of ours.

use std::sync::Arc;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1 as apps, core::v1 as corev1, policy::v1 as policy},
};
use kube::{
    Resource, ResourceExt,
    runtime::reflector::{
        ObjectRef, Store, store,
        store::{Writer, WriterDropped},
    },
};

use super::World;
use crate::{
    api::{Checkpoint, CheckpointPermission, DeploymentPhase, HttpRoute, ModelDeployment, ServingRuntime, is_owned_by, names},
    controllers::{
        follow::{Driver, Follow},
        routes::{self, Routes},
    },
};

/// What serves models, as stores that are always current.
pub struct Serving {
    /// All servers.
    pub runtimes: Store<ServingRuntime>,
    /// Our workloads that serve models.
    pub workloads: Store<apps::Deployment>,
    /// Our Services.
    pub services: Store<corev1::Service>,
    /// Our budgets for drained nodes.
    pub budgets: Store<policy::PodDisruptionBudget>,
    /// Our routes, where the installation names a Gateway.
    pub routes: Routes,
    /// All permissions to use checkpoints of other namespaces.
    pub permissions: Store<CheckpointPermission>,
}

/// What fills the stores.
pub struct Writers {
    runtimes: Writer<ServingRuntime>,
    workloads: Writer<apps::Deployment>,
    services: Writer<corev1::Service>,
    budgets: Writer<policy::PodDisruptionBudget>,
    routes: Writer<HttpRoute>,
    permissions: Writer<CheckpointPermission>,
}

impl Serving {
    /// Empty stores, and what fills them.
    pub fn stores() -> (Self, Writers) {
        let ((runtimes, runtimes_writer), (workloads, workloads_writer)) = (store(), store());
        let ((services, services_writer), (budgets, budgets_writer), (routes, routes_writer)) = (store(), store(), store());
        let (permissions, permissions_writer) = store();
        let writers = Writers {
            runtimes: runtimes_writer,
            workloads: workloads_writer,
            services: services_writer,
            budgets: budgets_writer,
            routes: routes_writer,
            permissions: permissions_writer,
        };
        (Self { runtimes, workloads, services, budgets, routes: Routes::of(routes), permissions }, writers)
    }

    /// Waits until every store holds what the API server holds.
    ///
    /// # Errors
    /// When a watch has ended, which happens only at shutdown.
    pub async fn synced(&self) -> Result<(), WriterDropped> {
        self.runtimes.wait_until_ready().await?;
        self.workloads.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.budgets.wait_until_ready().await?;
        self.permissions.wait_until_ready().await
    }
}

/// The child of that name, when it is the child of that very owner.
pub fn owned_by<K>(store: &Store<K>, name: &str, namespace: &str, owner: &str) -> Option<Arc<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + 'static,
{
    let found = store.get(&ObjectRef::new(name).within(namespace))?;
    is_owned_by(&*found, owner).then_some(found)
}

impl Writers {
    /// The watches.
    pub fn drivers(self, follow: &Follow<'_>, with_routes: bool) -> Vec<Driver> {
        let routes = with_routes.then(|| routes::follow(follow, self.routes));
        let drivers = [
            follow.catalogue(self.runtimes, |world, _, _| world.wake_deployments(|_| true)),
            follow.ours(self.workloads, |world, workload, _| world.wake_owner_of(workload)),
            follow.ours(self.services, |world, service, _| world.wake_owner_of(service)),
            follow.ours(self.budgets, |world, budget, _| world.wake_owner_of(budget)),
            follow.every(self.permissions, World::touch_permission),
        ];
        drivers.into_iter().chain(routes).collect()
    }
}

impl World {
    pub(super) fn touch_deployment(&self, deployment: &ModelDeployment, is_there: bool) {
        self.note_served(deployment, is_there);
        let _ = self.deployment_wakes.send(ObjectRef::from_obj(deployment));
        self.wake_leaving();
        let namespace = deployment.namespace().unwrap_or_default();
        // The run that made it has its name; one that could not make its own since this has the name learns when it goes.
        self.wake(ObjectRef::new(&deployment.name_any()).within(&namespace));
        self.wake_shared_by(deployment);
    }

    /// Something that may bear on deployments came, changed or went: looks at those that `concerns` picks.
    pub(in crate::controllers) fn wake_deployments(&self, concerns: impl Fn(&ModelDeployment) -> bool) {
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
        self.wake_deployments(|deployment| {
            let reference = &deployment.spec.checkpoint;
            reference.name == name && reference.namespace.clone().or_else(|| deployment.namespace()) == namespace
        });
    }

    /// A pod of a run came, changed or went, and with it perhaps the hold on a volume that somebody waits for.
    pub(super) fn wake_waiting_deployments(&self, namespace: &str) {
        self.wake_deployments(|deployment| {
            let phase = deployment.status.as_ref().map_or(DeploymentPhase::Pending, |status| status.phase);
            let (near, named) = (deployment.namespace(), &deployment.spec.checkpoint.namespace);
            phase != DeploymentPhase::Ready && (near.as_deref() == Some(namespace) || named.as_deref() == Some(namespace))
        });
        self.wake_waited_for(namespace);
    }

    /// A workload or Service of ours: the deployment or Checkpoint it was made for.
    fn wake_owner_of(&self, object: &impl Resource<DynamicType = ()>) {
        self.wake_deployment_of(object);
        self.wake_exported(object);
    }

    /// A pod that serves: the run that deployed it by itself, which has the name of its Deployment.
    pub(super) fn wake_maker_of(&self, pod: &impl Resource<DynamicType = ()>) {
        let Some(name) = pod.labels().get(names::DEPLOYMENT) else { return };
        self.wake(ObjectRef::new(name).within(&pod.namespace().unwrap_or_default()));
    }

    /// A workload, Service or pod of ours: the deployment it was made for.
    pub(in crate::controllers) fn wake_deployment_of(&self, object: &impl Resource<DynamicType = ()>) {
        let Some(name) = object.labels().get(names::DEPLOYMENT) else { return };
        let namespace = object.namespace().unwrap_or_default();
        let _ = self.deployment_wakes.send(ObjectRef::new(name).within(&namespace));
    }
}
