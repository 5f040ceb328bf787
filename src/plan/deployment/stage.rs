//! Where a Deployment of ours stands. Pure.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1 as apps, core::v1 as corev1};

use super::{
    ObservedDeployment, children,
    trouble::{self, Trouble},
};
use crate::plan::{Next, Problem};

/// Where it stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Something it needs is missing, or the API server refused a write.
    Blocked(Vec<Problem>),
    /// No replica is wanted, and none is there.
    Asleep,
    /// Servers start, or the pods of an earlier revision go.
    Rolling,
    /// All replicas served, and now some do not.
    Impaired,
    /// Pods do not serve, and why.
    Failing(Trouble),
    /// Every replica serves the model.
    Serving,
}

/// The pods in numbers, as Kubernetes counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Pods that exist.
    pub replicas: i32,
    /// Pods whose sidecar has seen the model listed.
    pub ready: i32,
}

impl Census {
    /// The pods of a workload.
    pub fn of(workload: Option<&apps::Deployment>) -> Self {
        let status = workload.and_then(|workload| workload.status.as_ref());
        let count = |pick: fn(&apps::DeploymentStatus) -> Option<i32>| status.and_then(pick).unwrap_or_default();
        Self { replicas: count(|status| status.replicas), ready: count(|status| status.ready_replicas) }
    }
}

/// Where it stands, when nothing is left to write.
pub fn settled(observed: &ObservedDeployment, now: Timestamp) -> Stage {
    let Some(workload) = observed.workload.as_deref() else { return Stage::Rolling };
    let wanted = observed.deployment.spec.replicas;
    let status = workload.status.clone().unwrap_or_default();
    let census = Census::of(Some(workload));
    let is_seen = workload.metadata.generation <= status.observed_generation;
    let is_new = status.updated_replicas.unwrap_or_default() >= wanted && census.replicas == wanted;
    if !is_seen {
        return Stage::Rolling;
    }
    if is_new && census.ready >= wanted {
        return if wanted == 0 { Stage::Asleep } else { Stage::Serving };
    }
    let conditions = status.conditions.unwrap_or_default();
    let is_overdue = conditions.iter().any(|condition| condition.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    let known = trouble::trouble(&current_pods(observed), now);
    if let Some(trouble) = if is_overdue { Some(trouble::overdue(known)) } else { known } {
        return Stage::Failing(trouble.told_like(observed.status().failure));
    }
    let rolled_out = conditions.iter().any(|condition| condition.reason.as_deref() == Some("NewReplicaSetAvailable"));
    if is_new && rolled_out { Stage::Impaired } else { Stage::Rolling }
}

/// The pods of the revision that is wanted; those before it say nothing about it.
fn current_pods(observed: &ObservedDeployment) -> Vec<Arc<corev1::Pod>> {
    let wanted = observed.workload.as_ref().and_then(|workload| children::revision(&workload.metadata));
    let is_over = |pod: &corev1::Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Failed" | "Succeeded")) || pod.metadata.deletion_timestamp.is_some()
    };
    let ours = observed.pods.iter().filter(|pod| children::revision(&pod.metadata) == wanted && !is_over(pod));
    ours.cloned().collect()
}

/// When to look again though nothing changed.
pub fn look_again(observed: &ObservedDeployment, stage: &Stage) -> Next {
    match stage {
        Stage::Blocked(_) if observed.refusal.is_some() => Next::After(REFUSED_AGAIN),
        Stage::Rolling | Stage::Impaired if observed.pods.iter().any(|pod| trouble::is_unscheduled(pod)) => {
            Next::After(Duration::from_secs(trouble::UNSCHEDULABLE_AFTER))
        }
        _ => Next::OnChange,
    }
}

/// What was refused is tried again after this long: objects of others are not watched.
const REFUSED_AGAIN: Duration = Duration::from_mins(1);
