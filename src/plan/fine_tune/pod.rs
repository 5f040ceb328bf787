//! The pod of a training attempt. Pure.

use k8s_openapi::api::core::v1 as corev1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{attempt::NextAttempt, containers, distributed, resolution::Resolution, volumes};
use crate::{
    api::HardwareProfileSpec,
    plan::{names, parameters},
    protocol::{RunConfig, Start, Store},
    settings::Settings,
};

/// User and group of every container, unless the runtime says otherwise.
pub const USER: i64 = 1000;

/// The template of the training pod.
pub fn template(resolution: &Resolution, next: NextAttempt, settings: &Settings) -> corev1::PodTemplateSpec {
    let config = config(resolution, next, settings);
    let overrides = resolution.spec.trainer.clone().unwrap_or_default();
    let runtime_user = resolution.runtime.spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let spec = corev1::PodSpec {
        automount_service_account_token: Some(false),
        service_account_name: overrides.service_account_name,
        image_pull_secrets: Some(overrides.image_pull_secrets),
        restart_policy: Some("Never".into()),
        termination_grace_period_seconds: Some(settings.grace_seconds),
        enable_service_links: Some(false),
        security_context: Some(security(runtime_user.unwrap_or(USER))),
        node_selector: Some(node_selector(&resolution.hardware.spec)),
        tolerations: Some(tolerations(&resolution.hardware.spec)),
        volumes: Some(volumes::volumes(resolution)),
        init_containers: Some(vec![
            containers::watch(resolution, &config, settings),
            containers::prepare(resolution, &config, settings),
        ]),
        containers: vec![containers::trainer(resolution, &config, distributed::torchrun_env(resolution, next, settings))],
        subdomain: (resolution.nodes > 1).then(|| names::service(&resolution.name, &resolution.uid)),
        ..corev1::PodSpec::default()
    };
    let default_container = ("kubectl.kubernetes.io/default-container".to_owned(), containers::TRAINER.to_owned());
    let metadata = ObjectMeta {
        labels: Some(resolution.attempt_labels(next.number)),
        annotations: Some([default_container].into()),
        ..ObjectMeta::default()
    };
    corev1::PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

/// What `prepare` and `watch` need to know.
pub fn config(resolution: &Resolution, next: NextAttempt, settings: &Settings) -> RunConfig {
    let source = |prefix: &str| {
        let found = resolution.sources().into_iter().find(|(.., credentials)| *credentials == prefix)?;
        Some(volumes::input(found.0, &found.1, found.2))
    };
    let dataset = volumes::input(&resolution.dataset.training, "spec.dataset", "DATASET_");
    let start = match (&resolution.warm_start, source("START_")) {
        (Some(checkpoint), Some(from)) => Start::Warm { from, step: checkpoint.spec.step },
        _ => Start::LastCheckpoint,
    };
    RunConfig {
        name: resolution.name.clone(),
        namespace: resolution.namespace.clone(),
        uid: resolution.uid.clone(),
        attempt: next.number,
        lineage: next.lineage,
        nodes: resolution.nodes,
        base_model: volumes::input(&resolution.base_model.spec.source, "spec.baseModel.name", "MODEL_"),
        dataset: source("DATASET_").unwrap_or(dataset),
        validation_dataset: source("VALIDATION_"),
        upload: resolution.output.object_store.as_ref().map(|store| Store {
            uri: store.uri.trim_end_matches('/').to_owned(),
            endpoint: store.endpoint.clone(),
            credentials: "OUTPUT_".into(),
        }),
        start,
        parameters: resolution.parameters.clone(),
        bind: resolution.runtime.spec.bind.clone(),
        seed: parameters::seed(&resolution.uid),
        completion: resolution.runtime.spec.completion,
        settle_seconds: settings.settle_seconds,
        stall_seconds: settings.stall_seconds,
        divergence_points: settings.divergence_points,
    }
}

/// What the restricted Pod Security Standard asks of a pod, and one user and group for all files.
pub fn security(user: i64) -> corev1::PodSecurityContext {
    corev1::PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(user),
        run_as_group: Some(user),
        fs_group: Some(user),
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(corev1::SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..corev1::PodSecurityContext::default()
    }
}

/// The nodes that have the hardware.
pub fn node_selector(hardware: &HardwareProfileSpec) -> std::collections::BTreeMap<String, String> {
    let product = hardware.gpu.product.clone().map(|product| ("nvidia.com/gpu.product".to_owned(), product));
    hardware.node_selector.clone().into_iter().chain(product).collect()
}

/// The taints the hardware may carry.
pub fn tolerations(hardware: &HardwareProfileSpec) -> Vec<corev1::Toleration> {
    let gpu = &hardware.gpu;
    let taint = (gpu.count > 0).then(|| corev1::Toleration {
        key: Some(gpu.resource_name.clone()),
        operator: Some("Exists".into()),
        effect: Some("NoSchedule".into()),
        ..corev1::Toleration::default()
    });
    hardware.tolerations.iter().cloned().chain(taint).collect()
}
