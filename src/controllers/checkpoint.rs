//! The shell of the Checkpoint controller: observe, plan, write.

use std::sync::Arc;

use jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::{
    runner::{Pace, Reconciler},
    usage::users,
    world::World,
};
use crate::{
    api::{Checkpoint, CheckpointStatus, names},
    cluster::{Class, Cluster, Error},
    plan::{self, Next, checkpoint::ObservedCheckpoint},
    settings::Settings,
};

/// Reconciles Checkpoints.
pub struct Checkpoints {
    /// What is watched.
    pub world: Arc<World>,
    /// What is written to.
    pub cluster: Cluster,
    /// What the installation decided.
    pub settings: Arc<Settings>,
    /// What reconciles share.
    pub pace: Pace,
}

impl Reconciler<Checkpoint> for Checkpoints {
    fn pace(&self) -> &Pace {
        &self.pace
    }

    async fn reconcile(&self, checkpoint: Arc<Checkpoint>) -> Result<Next, Error> {
        if self.pace.is_stale(&*checkpoint) {
            return Ok(Next::OnChange);
        }
        let mut observed = self.observe(&checkpoint);
        match self.carry_out(&observed).await {
            Err(error) if error.class() == Class::NamespaceTerminating => {
                observed.namespace_terminating = true;
                self.carry_out(&observed).await
            }
            result => result,
        }
    }
}

impl Checkpoints {
    async fn carry_out(&self, observed: &ObservedCheckpoint) -> Result<Next, Error> {
        let checkpoint = &observed.checkpoint;
        let plan = plan::checkpoint::plan(observed, &self.settings, Timestamp::now());
        let applied = self.cluster.apply(&**checkpoint, &plan.changes).await?;
        if let Some(version) = applied {
            self.pace.wrote(&**checkpoint, &version, Timestamp::now());
        }
        let before = checkpoint.status.clone().unwrap_or_default();
        if let Some(status) = plan.status.filter(|status| *status != before) {
            let version = self.cluster.write_status(&**checkpoint, owned(&status)).await?;
            self.pace.wrote(&**checkpoint, &version, Timestamp::now());
        }
        self.cluster.publish(&**checkpoint, &plan.notices);
        Ok(plan.next)
    }

    fn observe(&self, checkpoint: &Arc<Checkpoint>) -> ObservedCheckpoint {
        let world = &self.world;
        let uid = checkpoint.uid().unwrap_or_default();
        let namespace = checkpoint.namespace().unwrap_or_default();
        let run = checkpoint.spec.fine_tune.as_ref();
        let run_uid = run.map(|run| run.uid.as_str()).unwrap_or_default();
        let is_live = |pod: &Arc<k8s_openapi::api::core::v1::Pod>| {
            let trains = pod.labels().get(names::ROLE).is_some_and(|role| role == names::ROLE_TRAIN);
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            trains && phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        };
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
            users: if checkpoint.metadata.deletion_timestamp.is_some() { users(world, checkpoint) } else { Vec::new() },
            namespace_terminating: false,
            checkpoint: Arc::clone(checkpoint),
        }
    }
}

/// The fields of the status the Checkpoint controller owns.
fn owned(status: &CheckpointStatus) -> serde_json::Value {
    serde_json::json!({
        "observedGeneration": status.observed_generation,
        "conditions": status.conditions,
        "phase": status.phase,
    })
}
