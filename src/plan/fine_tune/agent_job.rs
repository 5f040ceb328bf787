//! The small Jobs beside training: collect, delete, import. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{
    ObservedFineTune,
    containers::{WATCH, agent, from_secret, var, words},
    job, pod, volumes,
};
use crate::{
    api::{Checkpoint, ObjectStore, names as labels},
    plan::names,
    protocol::{env, paths},
    settings::Settings,
};

/// Seconds a finished Job of this kind stays to be looked at.
const TTL_SECONDS: i32 = 600;
/// Failures such a Job survives.
const RETRIES: i32 = 6;

/// The Job that reads what an attempt left on its output and reports it: the training Job's own pod, with the agent in place of the trainer.
pub fn collect_job(observed: &ObservedFineTune, training: &batch::Job, attempt: i64) -> Option<batch::Job> {
    let template = training.spec.as_ref()?.template.spec.as_ref()?;
    let watch = template.init_containers.iter().flatten().find(|container| container.name == WATCH)?;
    let mut pod = template.clone();
    pod.init_containers = None;
    pod.node_selector = None;
    pod.subdomain = None;
    pod.tolerations = None;
    pod.containers = vec![corev1::Container {
        name: "collect".into(),
        args: Some(words(&["agent", "collect"])),
        restart_policy: None,
        ..watch.clone()
    }];
    let mut run = run_labels(observed.name(), observed.uid(), labels::ROLE_COLLECT);
    run.insert(labels::ATTEMPT.into(), attempt.to_string());
    let owner = job::owner(observed.name(), observed.uid());
    Some(small_job(names::collect_job(observed.name(), observed.uid(), attempt), observed.namespace(), (run, owner), pod))
}

/// What a delete Job removes.
pub struct Removal {
    /// The claim, or the store, the paths lie in.
    pub place: Place,
    /// Paths relative to the root of the claim, or to the URI of the store.
    pub paths: Vec<String>,
}

/// Where files to remove lie.
pub enum Place {
    /// A claim.
    Claim(String),
    /// An object store.
    Store(ObjectStore),
}

/// A Job that removes files.
#[must_use]
pub fn delete_job(
    (name, namespace): (String, &str),
    labels_and_owner: (BTreeMap<String, String>, OwnerReference),
    removal: &Removal,
    settings: &Settings,
) -> batch::Job {
    let mut container = corev1::Container { name: "delete".into(), ..agent(settings) };
    let mut pod = base_pod();
    match &removal.place {
        Place::Claim(claim) => {
            let mut args = words(&["agent", "delete", "--root", paths::OUTPUT]);
            args.extend(removal.paths.iter().cloned());
            container.args = Some(args);
            container.volume_mounts = Some(vec![volumes::mount("output", paths::OUTPUT)]);
            pod.volumes = Some(vec![claim_volume(claim)]);
        }
        Place::Store(store) => {
            let mut args = words(&["agent", "delete"]);
            args.extend(store_flags(store));
            args.extend(removal.paths.iter().cloned());
            container.args = Some(args);
            container.env_from = store.secret_name.as_ref().map(|secret| vec![from_secret(secret, "OUTPUT_")]);
        }
    }
    pod.containers = vec![container];
    small_job(name, namespace, labels_and_owner, pod)
}

/// A Job that verifies the files of a hand-written Checkpoint and reports what it found.
#[must_use]
pub fn import_job(checkpoint: &Checkpoint, settings: &Settings) -> batch::Job {
    let uid = checkpoint.metadata.uid.clone().unwrap_or_default();
    let storage = &checkpoint.spec.storage;
    let mut args = words(&["agent", "import", "--step"]);
    args.push(checkpoint.spec.step.to_string());
    let mut mounts = vec![volumes::token_mount(), volumes::mount("tmp", "/tmp")];
    let mut pod = base_pod();
    let mut all = vec![volumes::token(), scratch("tmp")];
    let mut container = corev1::Container { name: "import".into(), ..agent(settings) };
    if let Some(volume) = &storage.volume {
        args.extend(["--dir".to_owned(), format!("{}/{}", paths::OUTPUT, volume.path.trim_matches('/'))]);
        mounts.push(corev1::VolumeMount { read_only: Some(true), ..volumes::mount("output", paths::OUTPUT) });
        all.push(claim_volume(&volume.claim_name));
    } else if let Some(store) = &storage.object_store {
        args.extend(store_flags(store));
        container.env_from = store.secret_name.as_ref().map(|secret| vec![from_secret(secret, "OUTPUT_")]);
    }
    container.args = Some(args);
    container.env = Some(vec![var(env::REPORT_URL, &settings.report_url), var(env::REPORT_CA, &settings.report_ca)]);
    container.volume_mounts = Some(mounts);
    pod.containers = vec![container];
    pod.volumes = Some(all);
    let namespace = checkpoint.metadata.namespace.clone().unwrap_or_default();
    let name = names::checkpoint_job("import", &uid);
    small_job(name, &namespace, checkpoint_identity(checkpoint, labels::ROLE_IMPORT), pod)
}

/// Labels and owner of a Job that works for a Checkpoint.
#[must_use]
pub fn checkpoint_identity(checkpoint: &Checkpoint, role: &str) -> (BTreeMap<String, String>, OwnerReference) {
    let uid = checkpoint.metadata.uid.clone().unwrap_or_default();
    let labels = [(labels::CHECKPOINT_UID, uid.as_str()), (labels::ROLE, role), (labels::MANAGED_BY, labels::MANAGER)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let owner =
        OwnerReference { kind: "Checkpoint".into(), ..job::owner(checkpoint.metadata.name.as_deref().unwrap_or_default(), &uid) };
    (labels, owner)
}

/// Labels of a Job that works for a run.
#[must_use]
pub fn run_labels(name: &str, uid: &str, role: &str) -> BTreeMap<String, String> {
    let mut all = super::resolution::run_labels(name, uid);
    all.insert(labels::ROLE.into(), role.into());
    all
}

/// How an agent is told of a store.
pub fn store_flags(store: &ObjectStore) -> Vec<String> {
    let mut flags = words(&["--store-credentials", "OUTPUT_", "--store-uri", store.uri.trim_end_matches('/')]);
    flags.extend(store.endpoint.iter().flat_map(|endpoint| ["--store-endpoint".to_owned(), endpoint.clone()]));
    flags
}

fn small_job(
    name: String,
    namespace: &str,
    (labels, owner): (BTreeMap<String, String>, OwnerReference),
    pod: corev1::PodSpec,
) -> batch::Job {
    let metadata = ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() };
    batch::Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(batch::JobSpec {
            backoff_limit: Some(RETRIES),
            ttl_seconds_after_finished: Some(TTL_SECONDS),
            template: corev1::PodTemplateSpec { metadata: Some(metadata), spec: Some(pod) },
            ..batch::JobSpec::default()
        }),
        status: None,
    }
}

fn base_pod() -> corev1::PodSpec {
    corev1::PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".into()),
        security_context: Some(pod::security(pod::USER)),
        ..corev1::PodSpec::default()
    }
}

fn scratch(name: &str) -> corev1::Volume {
    corev1::Volume { name: name.into(), empty_dir: Some(corev1::EmptyDirVolumeSource::default()), ..corev1::Volume::default() }
}

fn claim_volume(claim: &str) -> corev1::Volume {
    let source = corev1::PersistentVolumeClaimVolumeSource { claim_name: claim.into(), read_only: None };
    corev1::Volume { name: "output".into(), persistent_volume_claim: Some(source), ..corev1::Volume::default() }
}
