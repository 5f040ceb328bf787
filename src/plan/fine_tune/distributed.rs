//! How the processes of several GPUs and nodes find each other: a Service, torchrun's environment, and what stands against it. Pure.

use k8s_openapi::{
    api::core::v1 as corev1,
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{ObservedFineTune, attempt::NextAttempt, containers::var, job, resolution::Resolution};
use crate::{
    api::{Distributed, names as labels},
    plan::{Problem, names},
    protocol::env,
    settings::Settings,
};

/// Port the first node of a run is met at.
const PORT: i32 = 29_500;
/// What torchrun leaves its processes to save when it is asked to stop, if nothing is said.
const SHORTEST_SHUTDOWN_SECONDS: i64 = 30;
/// The access mode of a claim that pods on several nodes can write to.
const SHARED: &str = "ReadWriteMany";

/// The Service that gives every node of a run a name, also before it is ready. One serves all attempts, since only one runs at a time.
pub fn service(resolution: &Resolution) -> Option<corev1::Service> {
    let mut selector = resolution.labels();
    selector.remove(labels::MANAGED_BY);
    selector.insert(labels::ROLE.into(), labels::ROLE_TRAIN.into());
    (resolution.nodes > 1).then(|| corev1::Service {
        metadata: ObjectMeta {
            name: Some(names::service(&resolution.name, &resolution.uid)),
            namespace: Some(resolution.namespace.clone()),
            labels: Some(resolution.labels()),
            owner_references: Some(vec![job::owner(&resolution.name, &resolution.uid)]),
            ..ObjectMeta::default()
        },
        spec: Some(corev1::ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(selector),
            ports: Some(vec![corev1::ServicePort {
                name: Some("rendezvous".into()),
                port: PORT,
                target_port: Some(IntOrString::Int(PORT)),
                ..corev1::ServicePort::default()
            }]),
            ..corev1::ServiceSpec::default()
        }),
        ..corev1::Service::default()
    })
}

/// Where torchrun finds the other nodes, and how many processes it starts; nothing for a runtime that does without.
pub fn torchrun_env(resolution: &Resolution, next: NextAttempt, settings: &Settings) -> Vec<corev1::EnvVar> {
    if resolution.runtime.spec.distributed != Distributed::Torchrun {
        return Vec::new();
    }
    let several = resolution.nodes > 1;
    let first = if several { names::first_node(&resolution.name, &resolution.uid, next.number) } else { "127.0.0.1".to_owned() };
    let rank = if several { rank("PET_NODE_RANK") } else { var("PET_NODE_RANK", "0") };
    vec![
        var("PET_NNODES", &resolution.nodes.to_string()),
        var("PET_NPROC_PER_NODE", &resolution.hardware.spec.gpu.count.max(1).to_string()),
        rank,
        var("PET_MASTER_ADDR", &first),
        var("PET_MASTER_PORT", &PORT.to_string()),
        var("PET_SHUTDOWN_TIMEOUT", &settings.grace_seconds.max(SHORTEST_SHUTDOWN_SECONDS).to_string()),
    ]
}

/// What tells the agent which node it is on, where there are several.
pub fn node_env(resolution: &Resolution) -> Option<corev1::EnvVar> {
    (resolution.nodes > 1).then(|| rank(env::NODE))
}

/// A variable that holds the rank of the pod.
fn rank(name: &str) -> corev1::EnvVar {
    let field = corev1::ObjectFieldSelector {
        field_path: format!("metadata.annotations['{}']", labels::COMPLETION_INDEX),
        ..corev1::ObjectFieldSelector::default()
    };
    let from = corev1::EnvVarSource { field_ref: Some(field), ..corev1::EnvVarSource::default() };
    corev1::EnvVar { name: name.into(), value: None, value_from: Some(from) }
}

/// What stands against spreading a run over several nodes.
pub fn problems(resolution: &Resolution, observed: &ObservedFineTune) -> Vec<Problem> {
    if resolution.nodes < 2 {
        return Vec::new();
    }
    [runs_on_one_node(resolution), output_is_not_shared(resolution, observed)].into_iter().flatten().collect()
}

fn runs_on_one_node(resolution: &Resolution) -> Option<Problem> {
    (resolution.runtime.spec.distributed == Distributed::None).then(|| Problem {
        reason: "NotDistributed",
        field: "spec.hardware.nodes".into(),
        message: format!(
            "TrainingRuntime {:?} runs on one node: set nodes to 1, or name a runtime with distributed: Torchrun in spec.runtime",
            resolution.runtime.metadata.name.as_deref().unwrap_or_default()
        ),
        waits: false,
    })
}

/// Every node writes into one folder. A claim that says nothing of its modes gets the benefit of the doubt.
fn output_is_not_shared(resolution: &Resolution, observed: &ObservedFineTune) -> Option<Problem> {
    let template = resolution.output.volume_template.as_ref();
    let (name, field) = match (&resolution.output.volume, template) {
        (Some(volume), _) => (volume.claim_name.clone(), "spec.output.volume.claimName"),
        (None, Some(_)) => (names::claim(&resolution.name, &resolution.uid), "spec.output.volumeTemplate.accessModes"),
        (None, None) => return None,
    };
    let known = observed.claims.get(&name).map(|claim| {
        let asked = claim.spec.iter().flat_map(|spec| spec.access_modes.iter().flatten());
        asked.chain(claim.status.iter().flat_map(|status| status.access_modes.iter().flatten())).cloned().collect()
    });
    let modes: Vec<String> = known.or_else(|| template.map(|template| template.access_modes.clone())).unwrap_or_default();
    (!modes.is_empty() && modes.iter().all(|mode| mode != SHARED)).then(|| Problem {
        reason: "OutputNotShared",
        field: field.into(),
        message: format!(
            "claim {name:?} is {}, and {} nodes write to it: use one that is {SHARED}, or set spec.hardware.nodes to 1",
            modes.join(", "),
            resolution.nodes
        ),
        waits: false,
    })
}

/// The access modes of a claim that is made for a run on so many nodes.
pub fn default_access_modes(nodes: i32) -> Vec<String> {
    vec![if nodes > 1 { SHARED } else { "ReadWriteOnce" }.to_owned()]
}
