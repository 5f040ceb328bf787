//! Pods on nodes that no longer answer. Nothing takes their place: only Kubernetes can say that they have ended. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as corev1;

use super::{ObservedFineTune, attempt::is_live};
use crate::plan::{Next, condition::State};

/// Seconds past its grace period after which a pod that is to end counts as lost.
const PAST_GRACE_SECONDS: i64 = 60;

/// What is said while a pod of the run is on a lost node; of several the first by name.
pub fn node_lost(observed: &ObservedFineTune, now: Timestamp) -> Option<State> {
    let lost = observed.pods.iter().filter(|pod| is_lost(pod, now));
    let pod = lost.min_by_key(|pod| &pod.metadata.name)?;
    let (node, name) = (pod.spec.as_ref()?.node_name.as_deref()?, pod.metadata.name.as_deref()?);
    let message = format!(
        "node {node} does not answer, so pod {name} may still be writing: the run waits until the node is back or gone. If the \
         machine is off for good: kubectl taint nodes {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    );
    Some(State::reconciling("NodeLost", message))
}

/// When the next pod may turn out to be lost.
pub fn deadline(observed: &ObservedFineTune, now: Timestamp) -> Next {
    let overdue = observed.pods.iter().filter(|pod| is_live(pod)).filter_map(|pod| overdue_in(pod, now));
    let soonest = overdue.filter(|seconds| *seconds > 0).min();
    soonest.map_or(Next::OnChange, |seconds| Next::After(Duration::from_secs(seconds.unsigned_abs())))
}

/// Whether a pod has not ended though it should have, or its node has gone silent. Of a silent node's pods Kubernetes takes back that they
/// are ready, but not that their containers are: only the kubelet says that.
fn is_lost(pod: &corev1::Pod, now: Timestamp) -> bool {
    let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let silent = condition(pod, "Ready") == Some("False") && condition(pod, "ContainersReady") == Some("True");
    placed && is_live(pod) && (silent || overdue_in(pod, now).is_some_and(|seconds| seconds <= 0))
}

/// Seconds until a pod that is being deleted counts as lost. The time of its deletion has its grace period in it.
fn overdue_in(pod: &corev1::Pod, now: Timestamp) -> Option<i64> {
    let end = pod.metadata.deletion_timestamp.as_ref()?.0;
    Some(end.as_second() + PAST_GRACE_SECONDS - now.as_second())
}

fn condition<'a>(pod: &'a corev1::Pod, kind: &str) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}
