//! The Job of a training attempt. Pure.

use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{
    attempt::NextAttempt,
    containers::{PREPARE, TRAINER},
    pod,
    resolution::Resolution,
};
use crate::{
    plan::{names, queue},
    protocol::exit,
    settings::Settings,
};

/// The Job of the next attempt.
pub fn training_job(resolution: &Resolution, next: NextAttempt, settings: &Settings) -> batch::Job {
    let mut labels = resolution.attempt_labels(next.number);
    if let Some(wanted) = &resolution.spec.queue {
        labels.insert(queue::QUEUE.into(), wanted.name.clone());
        let class = wanted.priority_class.clone().map(|class| (queue::PRIORITY_CLASS.to_owned(), class));
        labels.extend(class);
    }
    let group = resolution.nodes > 1;
    batch::Job {
        metadata: ObjectMeta {
            name: Some(names::job(&resolution.name, &resolution.uid, next.number)),
            namespace: Some(resolution.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![owner(&resolution.name, &resolution.uid)]),
            ..ObjectMeta::default()
        },
        spec: Some(batch::JobSpec {
            // The nodes of a group begin again together, and that is another Job.
            backoff_limit: Some(if group { 0 } else { resolution.spec.retries }),
            completions: Some(resolution.nodes),
            parallelism: Some(resolution.nodes),
            completion_mode: Some(if group { "Indexed" } else { "NonIndexed" }.into()),
            pod_failure_policy: Some(if group { group_failure_policy(resolution) } else { failure_policy() }),
            pod_replacement_policy: Some("Failed".into()),
            template: pod::template(resolution, next, settings),
            ..batch::JobSpec::default()
        }),
        status: None,
    }
}

/// What ends a Job at once, and what is not counted against its retries.
fn failure_policy() -> batch::PodFailurePolicy {
    batch::PodFailurePolicy {
        rules: vec![
            on_exit("FailJob", PREPARE, ("In", exit::USER_ERROR)),
            on_exit("FailJob", TRAINER, ("In", exit::USER_ERROR)),
            on_disruption("Ignore"),
            on_exit("Ignore", TRAINER, ("In", exit::INTERRUPTED)),
        ],
    }
}

/// Nodes that train together end together: the others would wait for the one that is gone. A queue that takes its nodes back ends all of them
/// by itself, and the Job stays to wait for its next turn.
fn group_failure_policy(resolution: &Resolution) -> batch::PodFailurePolicy {
    let by_queue = resolution.spec.queue.is_some().then(|| on_exit("Ignore", TRAINER, ("In", exit::INTERRUPTED)));
    let failed = [PREPARE, TRAINER].map(|container| on_exit("FailJob", container, ("NotIn", 0)));
    batch::PodFailurePolicy { rules: [on_disruption("FailJob")].into_iter().chain(by_queue).chain(failed).collect() }
}

fn on_exit(action: &str, container: &str, (operator, code): (&str, i32)) -> batch::PodFailurePolicyRule {
    batch::PodFailurePolicyRule {
        action: action.into(),
        on_exit_codes: Some(batch::PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(container.into()),
            operator: operator.into(),
            values: vec![code],
        }),
        on_pod_conditions: None,
    }
}

fn on_disruption(action: &str) -> batch::PodFailurePolicyRule {
    let pattern = batch::PodFailurePolicyOnPodConditionsPattern { type_: "DisruptionTarget".into(), status: "True".into() };
    batch::PodFailurePolicyRule { action: action.into(), on_exit_codes: None, on_pod_conditions: Some(vec![pattern]) }
}

/// The FineTune as controller of what it makes.
pub fn owner(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", crate::api::GROUP, crate::api::VERSION),
        kind: "FineTune".into(),
        name: name.into(),
        uid: uid.into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
