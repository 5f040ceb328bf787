//! Why a pod does not serve, read from its status. The last words of the server are classified, and quoted without credentials. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as corev1;

use super::{
    containers::{FETCH, INIT, SERVER},
    image,
};
use crate::{
    api::{Failure, names as labels},
    plan::status_text::cut,
    protocol::redact::redact,
};

/// Seconds a pod may be unschedulable before it is said.
pub const UNSCHEDULABLE_AFTER: u64 = 15;

/// What keeps a pod from serving.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// What is wrong and what helps.
    pub failure: Failure,
    /// Whether somebody has to change something; else it may pass by itself.
    pub lasts: bool,
}

/// So often a server ends before it counts as one that cannot be started.
const LOOP: i32 = 3;
/// Lines of a container's last words that are quoted.
const QUOTED_LINES: usize = 8;
/// Their length at most.
const QUOTED_BYTES: usize = 1024;
/// What Kubernetes keeps of a log when a container fails: of more than that it cuts the beginning.
const KEPT_BYTES: usize = 2048;

impl Trouble {
    /// The same, in the words it was first told in: those of a second try differ by a time or an address, which is no news.
    pub fn told_like(self, before: Option<Failure>) -> Self {
        let new = &self.failure;
        let ends_alike = |known: &Failure| known.exit_code.is_some() && known.exit_code == new.exit_code;
        let is_known = |known: &Failure| ends_alike(known) || new.reason == image::REASON && image::says_no_more(known, new);
        let failure = before.filter(|known| known.reason == new.reason && is_known(known));
        Self { failure: failure.unwrap_or(self.failure), ..self }
    }
}

/// The worst that is known of `pods`.
pub fn trouble(pods: &[Arc<corev1::Pod>], now: Timestamp) -> Option<Trouble> {
    let mut all: Vec<_> = pods.iter().filter(|pod| !is_ready(pod)).filter_map(|pod| of_pod(pod, now)).collect();
    all.sort_by_key(|trouble| !trouble.lasts);
    all.into_iter().next()
}

/// What is said when the time for a roll-out has passed: it takes somebody to change something, whatever it is.
pub fn overdue(known: Option<Trouble>) -> Trouble {
    let nothing = || {
        lasting("RolloutTimedOut", "the servers do not come to list the model", "read their logs for what they are doing", None)
    };
    Trouble { lasts: true, ..known.unwrap_or_else(nothing) }
}

/// Whether a pod has not been given a node yet.
pub fn is_unscheduled(pod: &corev1::Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())
}

fn is_ready(pod: &corev1::Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn of_pod(pod: &corev1::Pod, now: Timestamp) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    unschedulable(status, now)
        .or_else(|| containers(status).find_map(|container| ended(container, pod)))
        .or_else(|| containers(status).find_map(cannot_start))
}

fn unschedulable(status: &corev1::PodStatus, now: Timestamp) -> Option<Trouble> {
    let conditions = status.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let since = scheduled.last_transition_time.as_ref().map_or(now, |time| time.0);
    let long = now.as_second() - since.as_second() >= UNSCHEDULABLE_AFTER.cast_signed();
    let message = format!("no node takes the pod: {}", scheduled.message.as_deref().unwrap_or_default());
    let hint = "free a node of that kind, or choose another hardware profile";
    (long && scheduled.reason.as_deref() == Some("Unschedulable")).then(|| passing("Unschedulable", &message, hint))
}

/// Whether a pod of that checkpoint does not come to serve: its weights cannot be had, which `fetch` has made sure of, or its server ends each
/// time it is started.
pub fn cannot_serve(pods: &[Arc<corev1::Pod>], checkpoint: &str) -> bool {
    let is_of = |pod: &&Arc<corev1::Pod>| {
        let served = pod.metadata.annotations.as_ref().and_then(|all| all.get(labels::CHECKPOINT));
        served.is_some_and(|served| served == checkpoint) && pod.metadata.deletion_timestamp.is_none() && !is_ready(pod)
    };
    let gives_up = |container: &corev1::ContainerStatus, pod: &corev1::Pod| {
        let runs = container.state.as_ref().is_none_or(|state| state.running.is_some());
        let ends = container.restart_count + i32::from(!runs);
        ended(container, pod).is_some() && ends >= if container.name == FETCH { 1 } else { LOOP }
    };
    let failed =
        |pod: &Arc<corev1::Pod>| pod.status.as_ref().is_some_and(|status| containers(status).any(|one| gives_up(one, pod)));
    pods.iter().filter(is_of).any(failed)
}

fn containers(status: &corev1::PodStatus) -> impl Iterator<Item = &corev1::ContainerStatus> {
    status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
}

/// A container that cannot start, and why.
fn cannot_start(container: &corev1::ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let words = waiting.message.as_deref().unwrap_or_default();
    match waiting.reason.as_deref()? {
        reason if image::is_about(reason) => {
            let message = image::message(&container.image, words);
            Some(passing(image::REASON, &message, "check the image of the ServingRuntime and the access to its registry"))
        }
        "CreateContainerConfigError" => {
            let message = format!("container {} cannot be created: {words}", container.name);
            Some(lasting("ContainerConfigInvalid", &message, "create the Secret that is named, or correct the name", None))
        }
        _ => None,
    }
}

/// A container that has ended, now or before its last restart: said before it is tried a second time.
fn ended(container: &corev1::ContainerStatus, pod: &corev1::Pod) -> Option<Trouble> {
    let terminated = |state: &Option<corev1::ContainerState>| state.as_ref()?.terminated.clone();
    let is_init = container.name == FETCH || container.name == INIT;
    let last = terminated(&container.state).or_else(|| terminated(&container.last_state))?;
    match container.name.as_str() {
        _ if is_init && last.exit_code == 0 => None,
        FETCH => Some(of_fetch(&last)),
        SERVER | INIT => Some(of_server(&container.name, &last, pod)),
        _ => None,
    }
}

/// `fetch` leaves its failure as its last words.
fn of_fetch(last: &corev1::ContainerStateTerminated) -> Trouble {
    let said = last.message.as_deref().and_then(|message| serde_json::from_str::<Failure>(message).ok());
    let code = last.exit_code;
    said.map_or_else(
        || passing("FetchFailed", &format!("the weights could not be fetched (exit code {code})"), "it is tried again"),
        |failure| Trouble {
            lasts: failure.user_error,
            failure: Failure { message: cut(&failure.message, 4096), hint: cut(&failure.hint, 1024), ..failure },
        },
    )
}

fn of_server(name: &str, last: &corev1::ContainerStateTerminated, pod: &corev1::Pod) -> Trouble {
    let code = last.exit_code;
    let words = last.message.as_deref().unwrap_or_default().to_lowercase();
    let says = |any: &[&str]| any.iter().any(|part| words.contains(part));
    let (reason, message, hint) = if last.reason.as_deref() == Some("OOMKilled") {
        ("OutOfMemory", "was killed for using more memory than its profile has", "choose a hardware profile with more memory")
    } else if last.reason.as_deref() == Some("StartError") {
        ("CannotStart", "could not be started", "correct the command of the ServingRuntime, or its image")
    } else if says(&["cuda out of memory", "torch.outofmemoryerror", "no available memory for the cache blocks"]) {
        (
            "GpuOutOfMemory",
            "ran out of GPU memory",
            "choose a hardware profile with more GPU memory, or a runtime with a shorter context",
        )
    } else if says(&["max_lora_rank", "lora rank", "target modules in", "modules_to_save", "size mismatch for"]) {
        (
            "AdapterMismatch",
            "refused the adapter: its rank or modules do not fit the base model or the server",
            "check which base model the adapter was trained from, or choose a runtime that merges adapters",
        )
    } else if says(&["gated repo", "401 client error", "403 client error", "repository not found"]) {
        (
            "ModelAccessDenied",
            "was not allowed to download the base model",
            "give the BaseModel's huggingFace.secretName a Secret with a valid HF_TOKEN",
        )
    } else if matches!(code, 137 | 143) {
        ("StartTimeout", "was stopped: it may not have listed the model in time", "read its log for what it was doing")
    } else {
        ("ServerFailed", "ended", "read its log")
    };
    let workload = pod.metadata.labels.as_ref().and_then(|all| all.get(labels::DEPLOYMENT)).map_or("", String::as_str);
    let log = format!("{hint}; kubectl logs deployment.apps/{workload} -c {name} --previous shows the rest");
    let words = last_words(last).map(|words| format!(". Its last words:\n{words}")).unwrap_or_default();
    lasting(reason, &format!("container {name} {message} (exit code {code}){words}"), &log, Some(code))
}

/// The end of what a container said, without credentials. A first line that lost its beginning may have lost what a credential is known by.
fn last_words(last: &corev1::ContainerStateTerminated) -> Option<String> {
    let said = last.message.as_deref()?;
    let whole = if said.len() < KEPT_BYTES { said } else { said.split_once('\n')?.1 };
    let clean = redact(whole);
    let lines: Vec<_> = clean.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let quoted = lines.get(lines.len().saturating_sub(QUOTED_LINES)..)?.join("\n");
    let from = quoted.ceil_char_boundary(quoted.len().saturating_sub(QUOTED_BYTES));
    quoted.get(from..).filter(|words| !words.is_empty()).map(str::to_owned)
}

fn passing(reason: &str, message: &str, hint: &str) -> Trouble {
    let failure = Failure { reason: reason.into(), message: cut(message, 4096), hint: hint.into(), ..Failure::default() };
    Trouble { failure, lasts: false }
}

fn lasting(reason: &str, message: &str, hint: &str, exit_code: Option<i32>) -> Trouble {
    let passing = passing(reason, message, hint);
    Trouble { failure: Failure { exit_code, user_error: true, ..passing.failure }, lasts: true }
}
