//! The volumes of a training pod, and how its inputs look from inside. Pure.

use k8s_openapi::{api::core::v1 as corev1, apimachinery::pkg::api::resource::Quantity};

use super::resolution::Resolution;
use crate::{
    api::Source,
    plan::names,
    protocol::{AUDIENCE, Input, Store, paths},
};

/// Name of the volume all containers share.
const RUN: &str = "run";
/// Name of the volume checkpoints are written to.
const OUTPUT: &str = "output";
/// Name of the volume downloads go to.
const SOURCES: &str = "sources";
/// Seconds a report token lives; the kubelet renews it.
const TOKEN_SECONDS: i64 = 3600;

/// How a source looks from inside the pod.
pub fn input(source: &Source, field: &str, credentials: &str) -> Input {
    if let Some(volume) = &source.volume {
        let path = volume.path.trim_matches('/');
        let inside = if path.is_empty() { String::new() } else { format!("/{path}") };
        return Input::Path {
            path: format!("{}/{}{inside}", paths::VOLUMES, volume.claim_name),
            label: format!("volume://{}{inside}", volume.claim_name),
            field: field.to_owned(),
        };
    }
    if let Some(store) = &source.object_store {
        let to = format!("{}/{}", paths::SOURCES, credentials.trim_end_matches('_').to_lowercase());
        let store = Store {
            uri: store.uri.trim_end_matches('/').to_owned(),
            endpoint: store.endpoint.clone(),
            credentials: credentials.to_owned(),
        };
        return Input::Download { store, to, field: field.to_owned() };
    }
    let hub = source.hugging_face.clone().unwrap_or_default();
    Input::Hub { repo: hub.repo, revision: hub.revision }
}

/// The claims the sources of the run lie on, each once.
fn source_claims(resolution: &Resolution) -> Vec<String> {
    let claims = resolution.sources().into_iter().filter_map(|(source, ..)| Some(source.volume.as_ref()?.claim_name.clone()));
    let mut all: Vec<String> = claims.collect();
    all.sort();
    all.dedup();
    all
}

/// The claim the output lies on, and the directory of the run in it.
fn output_claim(resolution: &Resolution) -> Option<(String, String)> {
    let output = &resolution.output;
    let path = names::run_path(output, &resolution.name, &resolution.uid);
    match (&output.volume, &output.volume_template) {
        (Some(volume), _) => Some((volume.claim_name.clone(), path)),
        (None, Some(_)) => Some((names::claim(&resolution.name, &resolution.uid), path)),
        (None, None) => None,
    }
}

/// All volumes of the pod.
pub fn volumes(resolution: &Resolution) -> Vec<corev1::Volume> {
    let mut all = vec![scratch(RUN), scratch(SOURCES), scratch("home"), scratch("tmp"), shared_memory(resolution), token()];
    match output_claim(resolution) {
        Some((claim, _)) => all.push(claim_volume(OUTPUT, &claim)),
        None => all.push(scratch(OUTPUT)),
    }
    let output = output_claim(resolution).map(|(claim, _)| claim);
    let claims = source_claims(resolution);
    let others = claims.iter().enumerate().filter(|(_, claim)| Some(*claim) != output.as_ref());
    all.extend(others.map(|(index, claim)| claim_volume(&format!("source-{index}"), claim)));
    all
}

/// An empty directory that lives as long as the pod.
pub fn scratch(name: &str) -> corev1::Volume {
    corev1::Volume { name: name.into(), empty_dir: Some(corev1::EmptyDirVolumeSource::default()), ..corev1::Volume::default() }
}

/// A claim.
pub fn claim_volume(name: &str, claim: &str) -> corev1::Volume {
    let source = corev1::PersistentVolumeClaimVolumeSource { claim_name: claim.into(), read_only: None };
    corev1::Volume { name: name.into(), persistent_volume_claim: Some(source), ..corev1::Volume::default() }
}

fn shared_memory(resolution: &Resolution) -> corev1::Volume {
    let size_limit = resolution.runtime.spec.shared_memory.clone().map(Quantity);
    let source = corev1::EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit };
    corev1::Volume { name: "shm".into(), empty_dir: Some(source), ..corev1::Volume::default() }
}

/// The token reports are signed with: ours by audience, bound to the pod, mounted into `watch` alone.
pub fn token() -> corev1::Volume {
    let projection = corev1::ServiceAccountTokenProjection {
        audience: Some(AUDIENCE.into()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "token".into(),
    };
    let source = corev1::VolumeProjection { service_account_token: Some(projection), ..corev1::VolumeProjection::default() };
    let projected = corev1::ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(vec![source]) };
    corev1::Volume { name: "token".into(), projected: Some(projected), ..corev1::Volume::default() }
}

/// Mounts the agent's containers and the trainer have in common.
pub fn shared_mounts(resolution: &Resolution) -> Vec<corev1::VolumeMount> {
    let output = output_claim(resolution);
    let mut all = vec![mount(RUN, paths::RUN), mount(SOURCES, paths::SOURCES)];
    all.push(corev1::VolumeMount { sub_path: output.as_ref().map(|(_, path)| path.clone()), ..mount(OUTPUT, paths::OUTPUT) });
    all.extend(source_claims(resolution).iter().enumerate().map(|(index, claim)| {
        let is_output = output.as_ref().is_some_and(|(output, _)| output == claim);
        let name = if is_output { OUTPUT.to_owned() } else { format!("source-{index}") };
        corev1::VolumeMount { read_only: Some(true), ..mount(&name, &format!("{}/{claim}", paths::VOLUMES)) }
    }));
    all
}

/// Mounts of the trainer alone.
pub fn trainer_mounts() -> Vec<corev1::VolumeMount> {
    vec![mount("home", paths::HOME), mount("tmp", "/tmp"), mount("shm", "/dev/shm")]
}

/// Mount of the report token.
pub fn token_mount() -> corev1::VolumeMount {
    corev1::VolumeMount { read_only: Some(true), ..mount("token", paths::TOKEN.trim_end_matches("/token")) }
}

/// A plain mount.
pub fn mount(name: &str, path: &str) -> corev1::VolumeMount {
    corev1::VolumeMount { name: name.into(), mount_path: path.into(), ..corev1::VolumeMount::default() }
}
