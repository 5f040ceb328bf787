//! How an attempt ended, read from its Job and the last words of its pods. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};

use super::{
    containers::{PREPARE, TRAINER},
    group,
};
use crate::{
    api::{Attempt, Failure},
    plan::status_text::cut,
    protocol::exit,
};

/// Reason of an attempt that was ended from outside.
pub const INTERRUPTED: &str = "Interrupted";

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The wrapper's verdict was success.
    Succeeded,
    /// It failed for good.
    Failed(Failure),
}

/// How the Job ended; `None` while it has not.
#[must_use]
pub fn outcome(job: &batch::Job, pods: &[Arc<corev1::Pod>]) -> Option<Outcome> {
    if condition(job, "Complete").is_some() {
        return Some(Outcome::Succeeded);
    }
    let failed = condition(job, "Failed")?;
    if group::is_group(job) {
        return Some(Outcome::Failed(group::fall(job, pods, &Attempt::default()).failure));
    }
    Some(Outcome::Failed(failure(failed, pods)))
}

/// When the Job ended.
pub fn finished_at(job: &batch::Job) -> Option<Timestamp> {
    let end = condition(job, "Complete").or_else(|| condition(job, "Failed"))?;
    end.last_transition_time.as_ref().map(|time| time.0)
}

/// A condition of a Job that is true.
pub fn condition<'a>(job: &'a batch::Job, kind: &str) -> Option<&'a batch::JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Why a Job failed: the words of the last pod that failed, else the Job's own.
fn failure(failed: &batch::JobCondition, pods: &[Arc<corev1::Pod>]) -> Failure {
    let last = pods
        .iter()
        .filter_map(|pod| {
            let (name, terminated) = last_words(pod)?;
            Some((terminated.finished_at.as_ref().map(|time| time.0), name, terminated))
        })
        .max_by_key(|(end, ..)| *end);
    last.map_or_else(
        || Failure {
            reason: failed.reason.clone().unwrap_or_else(|| "JobFailed".into()),
            message: failed.message.clone().unwrap_or_else(|| "the Job failed and its pods are gone".into()),
            ..Failure::default()
        },
        |(_, container, terminated)| told(terminated).unwrap_or_else(|| guessed(container, terminated)),
    )
}

/// The container of a failed pod that is to blame: prepare before trainer.
pub fn last_words(pod: &corev1::Pod) -> Option<(&str, &corev1::ContainerStateTerminated)> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    containers
        .filter(|container| [PREPARE, TRAINER].contains(&container.name.as_str()))
        .filter_map(|container| Some((container.name.as_str(), container.state.as_ref()?.terminated.as_ref()?)))
        .find(|(_, terminated)| terminated.exit_code != 0)
}

/// What the agent wrote into the termination message: a failure, bare or under the key `failure`.
pub fn told(terminated: &corev1::ContainerStateTerminated) -> Option<Failure> {
    let mut value: serde_json::Value = serde_json::from_str(terminated.message.as_deref()?.trim()).ok()?;
    let failure = value.get_mut("failure").map(serde_json::Value::take).unwrap_or(value);
    let failure: Failure = serde_json::from_value(failure).ok()?;
    (!failure.reason.is_empty()).then(|| Failure { exit_code: failure.exit_code.or(Some(terminated.exit_code)), ..failure })
}

/// What the exit code alone tells.
pub fn guessed(container: &str, terminated: &corev1::ContainerStateTerminated) -> Failure {
    let code = terminated.exit_code;
    let words = cut(terminated.message.as_deref().unwrap_or_default(), 2048);
    let (reason, message, hint, user_error) = match (code, terminated.reason.as_deref()) {
        (_, Some("OOMKilled")) => (
            "OutOfMemory",
            format!("container {container} used more memory than its limit"),
            "choose a HardwareProfile with more memory, or a smaller batch",
            true,
        ),
        (exit::INCOMPLETE, _) => (
            "IncompleteRun",
            "the trainer exited 0 before its planned end, again and again".to_owned(),
            "look at the log for what ends it; a runtime that needs no recorded end has spec.completion: ExitCode",
            false,
        ),
        (exit::INTERRUPTED | 137 | 143, _) => (
            INTERRUPTED,
            format!("the pod was ended from outside (exit code {code})"),
            "raise spec.restarts to go on from the last checkpoint",
            false,
        ),
        _ => ("ScriptError", format!("{container} exited with {code}: {words}"), "read the log: kubectl logs job/<name>", true),
    };
    Failure { reason: reason.into(), message, hint: hint.into(), field: None, exit_code: Some(code), user_error }
}
