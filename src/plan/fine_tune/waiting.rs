//! What keeps a pod from starting, in words. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as corev1;

/// Seconds a pod may be unschedulable before it is said.
pub const UNSCHEDULABLE_AFTER: u64 = 15;

/// What a Job or pod waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Reason in CamelCase.
    pub reason: String,
    /// The same for people.
    pub message: String,
}

impl Waiting {
    /// A pod that starts as it should.
    pub fn for_pod() -> Self {
        Self { reason: "Starting".into(), message: "the pod starts, loads its data and checks what it can resume from".into() }
    }
}

/// No node takes the pod, and has not for a while.
pub fn unschedulable(pod: &corev1::Pod, now: Timestamp) -> Option<Waiting> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let since = scheduled.last_transition_time.as_ref().map_or(now, |time| time.0);
    let long = now.as_second() - since.as_second() >= UNSCHEDULABLE_AFTER.cast_signed();
    (long && scheduled.reason.as_deref() == Some("Unschedulable")).then(|| Waiting {
        reason: "Unschedulable".into(),
        message: format!("no node takes the pod: {}", scheduled.message.as_deref().unwrap_or_default()),
    })
}

/// A container that cannot start, and why.
pub fn stuck(pod: &corev1::Pod) -> Option<Waiting> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    containers.filter_map(|container| Some((container, container.state.as_ref()?.waiting.as_ref()?))).find_map(
        |(container, waiting)| {
            let words = waiting.message.as_deref().unwrap_or_default();
            let (reason, message) = match waiting.reason.as_deref()? {
                "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" => {
                    ("ImagePullFailed", format!("image {:?} cannot be pulled: {words}", container.image))
                }
                "CreateContainerConfigError" => {
                    ("ContainerConfigInvalid", format!("container {} cannot be created: {words}", container.name))
                }
                _ => return None,
            };
            Some(Waiting { reason: reason.into(), message })
        },
    )
}
