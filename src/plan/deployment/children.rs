//! The workload and the Service of a Deployment of ours. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{apps::v1 as apps, core::v1 as corev1},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{containers, observed::Owner, resolution::Resolution, volumes};
use crate::{
    api::{GROUP, VERSION, names as labels},
    plan::fine_tune::pod,
    protocol::DRAIN_SECONDS,
    settings::Settings,
};

/// Seconds a pod that goes is given: to answer what it was asked, and then to end.
const GRACE_SECONDS: i64 = DRAIN_SECONDS.cast_signed() + 30;
/// Seconds after which Kubernetes calls a roll-out stuck: what a server may take to start, and as long again for its image, its weights and a node.
const ROLLOUT_SECONDS: i32 = 2 * containers::STARTUP.0 * containers::STARTUP.1;

/// The workload: old pods serve until new ones do.
pub fn workload(resolution: &Resolution, settings: &Settings) -> apps::Deployment {
    // An upgrade of the operator alone is no reason to load every model anew: its image is left out of the fingerprint.
    let neutral = Settings { image: String::new(), image_pull_policy: String::new(), ..settings.clone() };
    let revision = fingerprint(&apps::DeploymentSpec { replicas: None, ..spec(resolution, &neutral) });
    let mut spec = spec(resolution, settings);
    let annotations = spec.template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    annotations.insert(labels::REVISION.into(), revision.clone());
    apps::Deployment { metadata: metadata(&resolution.owner(), revision), spec: Some(spec), status: None }
}

fn spec(resolution: &Resolution, settings: &Settings) -> apps::DeploymentSpec {
    let rolling =
        apps::RollingUpdateDeployment { max_surge: Some(IntOrString::Int(1)), max_unavailable: Some(IntOrString::Int(0)) };
    apps::DeploymentSpec {
        replicas: Some(resolution.spec.replicas),
        selector: selector(resolution),
        strategy: Some(apps::DeploymentStrategy { type_: Some("RollingUpdate".into()), rolling_update: Some(rolling) }),
        progress_deadline_seconds: Some(ROLLOUT_SECONDS),
        revision_history_limit: Some(2),
        template: template(resolution, settings),
        ..apps::DeploymentSpec::default()
    }
}

fn template(resolution: &Resolution, settings: &Settings) -> corev1::PodTemplateSpec {
    let runtime_user = resolution.runtime.spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let hardware = &resolution.hardware.spec;
    let spread = corev1::TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(selector(resolution)),
        ..corev1::TopologySpreadConstraint::default()
    };
    let init = [Some(containers::fetch(resolution, settings)), containers::init(resolution)];
    let sidecar = Some(containers::serve(resolution, settings));
    let spec = corev1::PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(pod::security(runtime_user.unwrap_or(pod::USER))),
        node_selector: Some(pod::node_selector(hardware)),
        tolerations: Some(pod::tolerations(hardware)),
        topology_spread_constraints: Some(vec![spread]),
        volumes: Some(volumes::volumes(resolution)),
        init_containers: Some(init.into_iter().chain([sidecar]).flatten().collect()),
        containers: vec![containers::server(resolution)],
        ..corev1::PodSpec::default()
    };
    let checkpoint = &resolution.checkpoint.metadata;
    let elsewhere = resolution.elsewhere.clone().map(|namespace| (labels::CHECKPOINT_NAMESPACE.to_owned(), namespace));
    let annotations = [
        ("kubectl.kubernetes.io/default-container", containers::SERVER.to_owned()),
        (labels::CHECKPOINT, checkpoint.name.clone().unwrap_or_default()),
        (labels::CHECKPOINT_UID, checkpoint.uid.clone().unwrap_or_default()),
        (labels::RESTARTS, resolution.spec.restarts.to_string()),
    ];
    let metadata = ObjectMeta {
        labels: Some(our_labels(&resolution.owner())),
        annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(elsewhere).collect()),
        ..ObjectMeta::default()
    };
    corev1::PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

/// The address: it leads to pods that serve the model.
pub fn service(resolution: &Resolution) -> corev1::Service {
    let spec = corev1::ServiceSpec {
        type_: Some("ClusterIP".into()),
        selector: Some(our_selector(&resolution.uid)),
        ports: Some(vec![corev1::ServicePort {
            name: Some("http".into()),
            port: resolution.runtime.spec.port,
            protocol: Some("TCP".into()),
            target_port: Some(IntOrString::String("http".into())),
            ..corev1::ServicePort::default()
        }]),
        ..corev1::ServiceSpec::default()
    };
    corev1::Service { metadata: metadata(&resolution.owner(), fingerprint(&spec)), spec: Some(spec), status: None }
}

/// Where the model answers, inside the cluster.
pub fn url(resolution: &Resolution) -> String {
    format!("http://{}.{}.svc:{}/v1", resolution.name, resolution.namespace, resolution.runtime.spec.port)
}

/// The labels the pods of a Deployment of ours are found by.
pub fn our_selector(uid: &str) -> BTreeMap<String, String> {
    [(labels::DEPLOYMENT_UID.to_owned(), uid.to_owned())].into()
}

fn selector(resolution: &Resolution) -> LabelSelector {
    LabelSelector { match_labels: Some(our_selector(&resolution.uid)), match_expressions: None }
}

fn our_labels(owner: &Owner<'_>) -> BTreeMap<String, String> {
    let more = [(labels::DEPLOYMENT, owner.name), (labels::MANAGED_BY, labels::MANAGER), (labels::ROLE, labels::ROLE_SERVE)];
    let more = more.map(|(key, value)| (key.to_owned(), value.to_owned()));
    our_selector(owner.uid).into_iter().chain(more).collect()
}

/// Name, labels and owner of a child, and what it was written for.
pub fn metadata(owner: &Owner<'_>, revision: String) -> ObjectMeta {
    let reference = OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "Deployment".into(),
        name: owner.name.to_owned(),
        uid: owner.uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    ObjectMeta {
        name: Some(owner.name.to_owned()),
        namespace: Some(owner.namespace.to_owned()),
        labels: Some(our_labels(owner)),
        annotations: Some([(labels::REVISION.to_owned(), revision)].into()),
        owner_references: Some(vec![reference]),
        ..ObjectMeta::default()
    }
}

/// What an object was written for.
pub fn revision(metadata: &ObjectMeta) -> Option<&str> {
    metadata.annotations.as_ref()?.get(labels::REVISION).map(String::as_str)
}

/// Tells what is wanted from what was wanted before.
pub fn fingerprint(wanted: &impl Serialize) -> String {
    let text = serde_json::to_string(wanted).unwrap_or_default();
    Sha256::digest(text.as_bytes()).iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
