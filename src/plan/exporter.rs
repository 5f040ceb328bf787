//! The one pod that hands a checkpoint out to other namespaces, and the Service it is found by. Pure.

use super::{
    Change, Child, ChildKind, ChildReference, Known,
    checkpoint::ObservedCheckpoint,
    deployment::{fingerprint, revision},
    fine_tune::{
        checkpoint_identity,
        containers::{agent, from_secret, var, words},
        pod, store_flags, volumes,
    },
};
use crate::{
    api::{Checkpoint, CheckpointPhase, names as labels},
    protocol::{
        env, paths,
        sharing::{EXPORT_PORT, MANIFEST_SUFFIX, exporter_name},
    },
    settings::Settings,
};
use k8s_openapi::{
    api::{apps::v1 as apps, core::v1 as corev1},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

/// Name of the container.
const EXPORT: &str = "export";
/// Name of the container that runs before it.
const LOOK: &str = "look";
/// Name of the volume the files lie on.
const SOURCE: &str = "source";

/// Makes exporter and Service when the first permitted Deployment of another namespace asks for the checkpoint, and removes them after the last.
pub fn writes(observed: &ObservedCheckpoint, settings: &Settings) -> Vec<Change> {
    let status = observed.checkpoint.status.as_ref();
    // One that is leaving while it is in use keeps its files till the end.
    let usable = status.is_some_and(|status| match status.phase {
        CheckpointPhase::Ready => true,
        CheckpointPhase::Deleting => observed.exporter.is_some(),
        CheckpointPhase::Pending | CheckpointPhase::Corrupt | CheckpointPhase::Missing => false,
    });
    // A pod that waits for a volume would keep the next pod of the run from it.
    let must_wait = observed.held && observed.exporter.is_none();
    if observed.namespace_terminating || must_wait {
        return Vec::new();
    }
    if observed.consumers.is_empty() || !usable {
        return removals(observed);
    }
    let (workload, service) = (workload(&observed.checkpoint, settings), service(&observed.checkpoint));
    let workload_differs = differs(observed.exporter.as_ref().map(|known| &known.metadata), &workload.metadata);
    let service_differs = differs(observed.exporter_service.as_ref().map(|known| &known.metadata), &service.metadata);
    let workload = Change::Apply {
        known: observed.exporter.as_ref().map(|known| Known::of(&known.metadata)),
        child: Child::Workload(Box::new(workload)),
    };
    let service = Change::Apply {
        known: observed.exporter_service.as_ref().map(|known| Known::of(&known.metadata)),
        child: Child::Service(Box::new(service)),
    };
    [(workload_differs, workload), (service_differs, service)]
        .into_iter()
        .filter_map(|(due, change)| due.then_some(change))
        .collect()
}

fn removals(observed: &ObservedCheckpoint) -> Vec<Change> {
    let workload = observed.exporter.iter().map(|known| (ChildKind::Workload, &known.metadata));
    let service = observed.exporter_service.iter().map(|known| (ChildKind::Service, &known.metadata));
    let known = workload.chain(service).filter(|(_, metadata)| metadata.deletion_timestamp.is_none());
    known.map(|(kind, metadata)| Change::Delete(ChildReference::of(kind, metadata))).collect()
}

fn differs(known: Option<&ObjectMeta>, wanted: &ObjectMeta) -> bool {
    known.is_none_or(|known| revision(known) != revision(wanted))
}

/// The exporter: one pod, which Kubernetes puts back where it is lost.
fn workload(checkpoint: &Checkpoint, settings: &Settings) -> apps::Deployment {
    // An upgrade of the operator alone is no reason to break transfers off: its image is left out of the fingerprint.
    let neutral = Settings { image: String::new(), image_pull_policy: String::new(), ..settings.clone() };
    let revision = fingerprint(&spec(checkpoint, &neutral));
    apps::Deployment { metadata: metadata(checkpoint, revision), spec: Some(spec(checkpoint, settings)), status: None }
}

fn spec(checkpoint: &Checkpoint, settings: &Settings) -> apps::DeploymentSpec {
    let name = checkpoint.metadata.name.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        labels: Some(checkpoint_identity(checkpoint, labels::ROLE_EXPORT).0),
        annotations: Some([(labels::CHECKPOINT.to_owned(), name)].into()),
        ..ObjectMeta::default()
    };
    apps::DeploymentSpec {
        replicas: Some(1),
        selector: LabelSelector { match_labels: Some(selector(checkpoint)), match_expressions: None },
        // Never two pods that want the same volume.
        strategy: Some(apps::DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None }),
        revision_history_limit: Some(0),
        template: corev1::PodTemplateSpec { metadata: Some(metadata), spec: Some(pod_spec(checkpoint, settings)) },
        ..apps::DeploymentSpec::default()
    }
}

fn pod_spec(checkpoint: &Checkpoint, settings: &Settings) -> corev1::PodSpec {
    let claim =
        checkpoint.spec.storage.volume.as_ref().map(|volume| read_only(volumes::claim_volume(SOURCE, &volume.claim_name)));
    corev1::PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(pod::security(pod::USER)),
        init_containers: look(checkpoint, settings).map(|container| vec![container]),
        containers: vec![container(checkpoint, settings)],
        volumes: Some(claim.into_iter().chain([volumes::token(), volumes::scratch("tmp")]).collect()),
        ..corev1::PodSpec::default()
    }
}

/// Says what is missing on the volume. Whatever of it a container is to see alone, Kubernetes would make where it is not there, in a volume that
/// is somebody's: so this one runs before, and sees the volume as it is.
fn look(checkpoint: &Checkpoint, settings: &Settings) -> Option<corev1::Container> {
    let volume = checkpoint.spec.storage.volume.as_ref()?;
    let root = format!("{}/{}", paths::VOLUMES, volume.claim_name);
    let all = [Some(volume.path.trim_matches('/').to_owned()), manifest(checkpoint)];
    let flags = all.into_iter().flatten().flat_map(|path| ["--path".to_owned(), format!("{root}/{path}")]);
    let whole = corev1::VolumeMount { read_only: Some(true), ..volumes::mount(SOURCE, &root) };
    Some(corev1::Container {
        name: LOOK.into(),
        args: Some(words(&["agent", "look"]).into_iter().chain(flags).collect()),
        volume_mounts: Some(vec![whole]),
        ..agent(settings)
    })
}

/// Where the manifest lies: only beside what a run has saved there is certainly one.
fn manifest(checkpoint: &Checkpoint) -> Option<String> {
    let path = checkpoint.spec.storage.volume.as_ref()?.path.trim_matches('/');
    (checkpoint.spec.fine_tune.is_some() && !path.is_empty()).then(|| format!("{path}{MANIFEST_SUFFIX}"))
}

/// A claim that nothing is written to, not even by the node: where the volume can be mounted so, no missing folder is ever made in it.
fn read_only(mut volume: corev1::Volume) -> corev1::Volume {
    if let Some(claim) = &mut volume.persistent_volume_claim {
        claim.read_only = Some(true);
    }
    volume
}

fn container(checkpoint: &Checkpoint, settings: &Settings) -> corev1::Container {
    let uid = checkpoint.metadata.uid.clone().unwrap_or_default();
    let mut args = words(&["agent", "export", "--checkpoint", &uid]);
    let mut mounts = vec![volumes::token_mount(), volumes::mount("tmp", "/tmp")];
    let store = checkpoint.spec.storage.object_store.as_ref();
    if let Some(volume) = &checkpoint.spec.storage.volume {
        args.extend(words(&["--dir", paths::CHECKPOINT]));
        mounts.push(only(volume.path.trim_matches('/'), paths::CHECKPOINT));
        if let Some(manifest) = manifest(checkpoint) {
            args.extend(words(&["--manifest", paths::MANIFEST]));
            mounts.push(only(&manifest, paths::MANIFEST));
        }
    } else if let Some(store) = store {
        args.extend(store_flags(store));
    }
    let credentials = store.and_then(|store| store.secret_name.as_ref()).map(|secret| from_secret(secret, "OUTPUT_"));
    let connects = corev1::TCPSocketAction { port: IntOrString::String(EXPORT.into()), host: None };
    corev1::Container {
        name: EXPORT.into(),
        args: Some(args),
        env: Some(vec![var(env::REPORT_URL, &settings.report_url), var(env::REPORT_CA, &settings.report_ca)]),
        env_from: credentials.map(|credentials| vec![credentials]),
        volume_mounts: Some(mounts),
        ports: Some(vec![corev1::ContainerPort {
            name: Some(EXPORT.into()),
            container_port: EXPORT_PORT.into(),
            protocol: Some("TCP".into()),
            ..corev1::ContainerPort::default()
        }]),
        // It listens only when it has everything it hands out.
        readiness_probe: Some(corev1::Probe { tcp_socket: Some(connects), period_seconds: Some(2), ..corev1::Probe::default() }),
        ..agent(settings)
    }
}

/// One path of the claim and nothing beside it, to read.
fn only(path: &str, at: &str) -> corev1::VolumeMount {
    let sub_path = (!path.is_empty()).then(|| path.to_owned());
    corev1::VolumeMount { read_only: Some(true), sub_path, ..volumes::mount(SOURCE, at) }
}

fn service(checkpoint: &Checkpoint) -> corev1::Service {
    let spec = corev1::ServiceSpec {
        type_: Some("ClusterIP".into()),
        selector: Some(selector(checkpoint)),
        ports: Some(vec![corev1::ServicePort {
            name: Some(EXPORT.into()),
            port: EXPORT_PORT.into(),
            protocol: Some("TCP".into()),
            target_port: Some(IntOrString::String(EXPORT.into())),
            ..corev1::ServicePort::default()
        }]),
        ..corev1::ServiceSpec::default()
    };
    corev1::Service { metadata: metadata(checkpoint, fingerprint(&spec)), spec: Some(spec), status: None }
}

fn selector(checkpoint: &Checkpoint) -> std::collections::BTreeMap<String, String> {
    let uid = checkpoint.metadata.uid.clone().unwrap_or_default();
    [(labels::CHECKPOINT_UID.to_owned(), uid), (labels::ROLE.to_owned(), labels::ROLE_EXPORT.to_owned())].into()
}

fn metadata(checkpoint: &Checkpoint, revision: String) -> ObjectMeta {
    let (all, owner) = checkpoint_identity(checkpoint, labels::ROLE_EXPORT);
    ObjectMeta {
        name: Some(exporter_name(checkpoint.metadata.uid.as_deref().unwrap_or_default())),
        namespace: checkpoint.metadata.namespace.clone(),
        labels: Some(all),
        annotations: Some([(labels::REVISION.to_owned(), revision)].into()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
