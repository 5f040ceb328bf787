//! What the controller of Deployments of ours knows of one, and what it writes.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as corev1;
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::{
    shell::{Planned, Shell},
    usage::{is_at_work, is_held, is_training, may_use},
    world::owned_by,
};
use crate::{
    api::{ModelDeployment, ModelDeploymentStatus},
    cluster::{Class, Error},
    plan::{
        self, Plan, Problem,
        deployment::{
            ObservedDeployment, claims_of,
            permission::{self, Permissions},
        },
    },
    settings::Settings,
};

impl Planned for ModelDeployment {
    type Observed = ObservedDeployment;
    type Status = ModelDeploymentStatus;

    fn observe(deployment: &Arc<Self>, shell: &Shell) -> ObservedDeployment {
        let world = &shell.world;
        let (uid, name) = (deployment.uid().unwrap_or_default(), deployment.name_any());
        let namespace = deployment.namespace().unwrap_or_default();
        let reference = &deployment.spec.checkpoint;
        let owner = reference.namespace.as_deref().unwrap_or(&namespace);
        let wanted = may_use(world, (owner, &reference.name), &namespace);
        let checkpoint = world.checkpoints.store().get(&ObjectRef::new(&reference.name).within(owner)).filter(|_| wanted);
        let base = checkpoint.as_ref().map(|checkpoint| ObjectRef::new(&checkpoint.spec.base_model.name));
        let mut observed = ObservedDeployment {
            base_model: base.and_then(|base| world.base_models.get(&base)),
            checkpoint,
            permissions: Permissions { wanted, ..Permissions::default() },
            runtimes: world.serving.runtimes.state(),
            hardware: world.hardware.state(),
            claims: BTreeMap::new(),
            holders: Vec::new(),
            will_hold: Vec::new(),
            workload: owned_by(&world.serving.workloads, &name, &namespace, &uid),
            service: owned_by(&world.serving.services, &name, &namespace, &uid),
            budget: owned_by(&world.serving.budgets, &name, &namespace, &uid),
            route: world.serving.routes.look(|routes| owned_by(routes, &name, &namespace, &uid)),
            pods: world.pods.get(&uid),
            refusal: None,
            namespace_terminating: false,
            deployment: Arc::clone(deployment),
        };
        let served = permission::served_elsewhere(&observed);
        observed.permissions.served = served.iter().all(|(name, owner)| may_use(world, (owner, name), &namespace));
        observed.permissions.held = owner != namespace && observed.checkpoint.as_ref().is_some_and(|found| is_held(world, found));
        let claim = |name: String| Some((name.clone(), world.claims.get(&ObjectRef::new(&name).within(&namespace))?));
        observed.claims = observed.claim_names().into_iter().filter_map(claim).collect();
        if observed.claims.keys().any(|claim| !observed.mounts(claim)) {
            let holds = |pod: &corev1::Pod| is_training(pod, &namespace) && mounts_any(pod, &observed.claims);
            observed.holders = world.pods.store().state_filter(holds);
            observed.will_hold = world.jobs.store().state_filter(|job| is_at_work(job, &namespace));
        }
        observed
    }

    fn plan(observed: &ObservedDeployment, settings: &Settings, now: Timestamp) -> Plan<ModelDeploymentStatus> {
        plan::deployment::plan(observed, settings, now)
    }

    fn status(&self) -> ModelDeploymentStatus {
        self.status.clone().unwrap_or_default()
    }

    fn owned(status: ModelDeploymentStatus) -> serde_json::Value {
        serde_json::to_value(status).unwrap_or_default()
    }

    fn learn(observed: &mut ObservedDeployment, error: &Error) -> bool {
        match error.class() {
            Class::NamespaceTerminating => observed.namespace_terminating = true,
            Class::Refused if observed.refusal.is_none() => {
                observed.refusal = Some(Problem {
                    reason: error.reason(),
                    field: "metadata.name".into(),
                    message: error.with_cause(),
                    waits: false,
                });
            }
            _ => return false,
        }
        true
    }
}

fn mounts_any(pod: &corev1::Pod, claims: &BTreeMap<String, Arc<corev1::PersistentVolumeClaim>>) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    claims_of(volumes).any(|claim| claims.contains_key(claim))
}
