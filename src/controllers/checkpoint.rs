//! What the controller of Checkpoints knows of one, and what it writes.

use std::sync::Arc;

use jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::{
    shell::{Planned, Shell},
    usage::{consumers, is_held, users},
    world::owned_by,
};
use crate::{
    api::{Checkpoint, CheckpointStatus, names},
    cluster::{Class, Error},
    plan::{self, Plan, checkpoint::ObservedCheckpoint, names::exporter},
    settings::Settings,
};

impl Planned for Checkpoint {
    type Observed = ObservedCheckpoint;
    type Status = CheckpointStatus;
    /// The report server says whether the files are good, and nobody looks at them a second time.
    const SHARED: bool = true;

    fn observe(checkpoint: &Arc<Self>, shell: &Shell) -> ObservedCheckpoint {
        let world = &shell.world;
        let uid = checkpoint.uid().unwrap_or_default();
        let namespace = checkpoint.namespace().unwrap_or_default();
        let run = checkpoint.spec.fine_tune.as_ref();
        let run_uid = run.map(|run| run.uid.as_str()).unwrap_or_default();
        let is_live = |pod: &Arc<k8s_openapi::api::core::v1::Pod>| {
            let trains = pod.labels().get(names::ROLE).is_some_and(|role| role == names::ROLE_TRAIN);
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            trains && phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        };
        let consumers = consumers(world, checkpoint);
        ObservedCheckpoint {
            fine_tune: run
                .and_then(|run| world.fine_tunes.get(&ObjectRef::new(&run.name).within(&namespace)))
                .filter(|fine_tune| fine_tune.metadata.uid.as_deref() == Some(run_uid)),
            jobs: world.jobs.get(&uid),
            run_is_live: !run_uid.is_empty() && world.pods.get(run_uid).iter().any(is_live),
            claim: checkpoint
                .spec
                .storage
                .volume
                .as_ref()
                .and_then(|volume| world.claims.get(&ObjectRef::new(&volume.claim_name).within(&namespace))),
            held: !consumers.is_empty() && is_held(world, checkpoint),
            consumers,
            exporter: owned_by(&world.serving.workloads, &exporter(&uid), &namespace, &uid),
            exporter_service: owned_by(&world.serving.services, &exporter(&uid), &namespace, &uid),
            users: if checkpoint.metadata.deletion_timestamp.is_some() { users(world, checkpoint) } else { Vec::new() },
            namespace_terminating: false,
            checkpoint: Arc::clone(checkpoint),
        }
    }
    fn plan(observed: &ObservedCheckpoint, settings: &Settings, now: Timestamp) -> Plan<CheckpointStatus> {
        plan::checkpoint::plan(observed, settings, now)
    }

    fn status(&self) -> CheckpointStatus {
        self.status.clone().unwrap_or_default()
    }

    /// The report server says the rest.
    fn owned(status: CheckpointStatus) -> serde_json::Value {
        serde_json::json!({
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
            "phase": status.phase,
        })
    }

    fn learn(observed: &mut ObservedCheckpoint, error: &Error) -> bool {
        observed.namespace_terminating = error.class() == Class::NamespaceTerminating;
        observed.namespace_terminating
    }
}
