//! What the controller of FineTunes knows of one, and what it writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1 as batch;
use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};

use super::{
    shell::{Planned, Shell},
    usage::{is_shared, users},
};
use crate::{
    api::{Checkpoint, FineTune, FineTuneStatus, is_owned_by, names},
    cluster::{Class, Error},
    plan::{self, Plan, fine_tune::ObservedFineTune},
    settings::Settings,
};

impl Planned for FineTune {
    type Observed = ObservedFineTune;
    type Status = FineTuneStatus;

    fn observe(fine_tune: &Arc<Self>, shell: &Shell) -> ObservedFineTune {
        let world = &shell.world;
        let spec = &fine_tune.spec;
        let uid = fine_tune.uid().unwrap_or_default();
        let namespace = fine_tune.namespace().unwrap_or_default();
        let mut observed = ObservedFineTune {
            base_model: world.base_models.get(&ObjectRef::new(&spec.base_model.name)),
            dataset: spec.dataset.name.as_ref().and_then(|name| world.datasets.get(&ObjectRef::new(name).within(&namespace))),
            runtime: named_or_default(&world.runtimes, spec.runtime.as_ref().map(|runtime| runtime.name.as_str())),
            hardware: named_or_default(&world.hardware, spec.hardware.profile.as_deref()),
            start_checkpoint: spec
                .start_from
                .checkpoint
                .as_ref()
                .and_then(|reference| world.checkpoints.store().get(&ObjectRef::new(&reference.name).within(&namespace))),
            claims: BTreeMap::new(),
            jobs: world.jobs.get(&uid).into_iter().filter(|job| is_owned_by(&**job, &uid)).collect(),
            pods: world.pods.get(&uid),
            checkpoints: world.checkpoints.get(&uid),
            used_checkpoints: BTreeSet::new(),
            deployment: world.deployments.get(&ObjectRef::new(&fine_tune.name_any()).within(&namespace)),
            servers: Vec::new(),
            permission: world.permission_of(&namespace, &uid),
            places: BTreeMap::new(),
            last_status_write: shell.pace.last_write(&**fine_tune).map(|written| written.at),
            namespace_terminating: false,
            name_taken: None,
            refused: [plan::DEPLOYMENT, plan::PERMISSION]
                .into_iter()
                .filter_map(|what| Some((what, shell.pace.refusals.why(&**fine_tune, what)?)))
                .collect(),
            fine_tune: Arc::clone(fine_tune),
        };
        let servers = observed.own_deployment().and_then(|ours| ours.uid());
        observed.servers = servers.map(|uid| world.pods.get(&uid)).unwrap_or_default();
        let place = |job: &Arc<batch::Job>| Some((job.uid()?, world.queues.place(job.metadata.uid.as_deref()?)?));
        observed.places = observed.jobs.iter().filter_map(place).collect();
        let claim = |name: String| Some((name.clone(), world.claims.get(&ObjectRef::new(&name).within(&namespace))?));
        observed.claims = observed.claim_names(&shell.settings).into_iter().filter_map(claim).collect();
        let policy = &spec.checkpoints;
        let leaves = fine_tune.metadata.deletion_timestamp.is_some();
        if leaves || policy.keep_last.is_some() || policy.keep_best.is_some() {
            let is_used = |checkpoint: &Checkpoint| is_shared(world, checkpoint, leaves) || !users(world, checkpoint).is_empty();
            let used = observed.checkpoints.iter().filter(|checkpoint| is_used(checkpoint));
            observed.used_checkpoints = used.map(|checkpoint| checkpoint.name_any()).collect();
        }
        observed
    }
    fn plan(observed: &ObservedFineTune, settings: &Settings, now: Timestamp) -> Plan<FineTuneStatus> {
        plan::fine_tune::plan(observed, settings, now)
    }

    fn status(&self) -> FineTuneStatus {
        self.status.clone().unwrap_or_default()
    }

    /// All but `progress`, which the report server writes.
    fn owned(status: FineTuneStatus) -> serde_json::Value {
        let ours = FineTuneStatus { progress: None, ..status };
        serde_json::to_value(ours).unwrap_or_default()
    }

    fn learn_of_refusal(observed: &mut ObservedFineTune, what: &'static str, why: &str) -> bool {
        let before = observed.refused.insert(what, why.to_owned());
        what == plan::DEPLOYMENT && before.as_deref() != Some(why)
    }

    fn learn(observed: &mut ObservedFineTune, error: &Error) -> bool {
        match error {
            Error::NameTaken { kind, name } => observed.name_taken = Some(format!("{kind} {name}")),
            _ if error.class() == Class::NamespaceTerminating => observed.namespace_terminating = true,
            _ => return false,
        }
        true
    }
}

/// The object of that name, or the one that stands in where none is named; of several the oldest.
fn named_or_default<K>(store: &kube::runtime::reflector::Store<K>, name: Option<&str>) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    if let Some(name) = name {
        return store.get(&ObjectRef::new(name));
    }
    let is_default = |object: &K| {
        let annotation = object.annotations().get(names::IS_DEFAULT);
        annotation.or_else(|| object.labels().get(names::IS_DEFAULT)).is_some_and(|value| value == "true")
    };
    let age = |object: &Arc<K>| (object.creation_timestamp().map(|time| time.0), object.name_any());
    store.state_filter(is_default).into_iter().min_by_key(age)
}
