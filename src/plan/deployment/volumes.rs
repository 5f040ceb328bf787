//! The volumes of a serving pod. Pure.

use k8s_openapi::api::core::v1 as corev1;

use super::resolution::Resolution;
use crate::{
    plan::fine_tune::volumes::{claim_volume, mount, scratch, token},
    protocol::paths,
};

/// Name of the volume downloads go to.
pub const SOURCES: &str = "sources";
/// Name of the volume an init command makes its model in.
pub const MODEL: &str = "model";

/// All volumes of the pod.
pub fn volumes(resolution: &Resolution) -> Vec<corev1::Volume> {
    let memory = corev1::EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: None };
    let shared = corev1::Volume { name: "shm".into(), empty_dir: Some(memory), ..corev1::Volume::default() };
    let mut all = vec![scratch(SOURCES), scratch(MODEL), scratch("home"), scratch("tmp"), shared];
    all.extend(resolution.elsewhere.is_some().then(token));
    all.extend(resolution.claims().iter().enumerate().map(|(index, claim)| claim_volume(&volume(index), claim)));
    all
}

/// Mounts of the server: all it reads is read-only.
pub fn server_mounts(resolution: &Resolution) -> Vec<corev1::VolumeMount> {
    let mut all = claim_mounts(resolution);
    all.extend([read_only(mount(SOURCES, paths::SOURCES)), read_only(mount(MODEL, paths::MODEL))]);
    all.extend([mount("home", paths::HOME), mount("tmp", "/tmp"), mount("shm", "/dev/shm")]);
    all
}

/// Mounts of the claims, where inputs are looked for.
pub fn claim_mounts(resolution: &Resolution) -> Vec<corev1::VolumeMount> {
    let claims = resolution.claims();
    let mounts = claims.iter().enumerate();
    mounts.map(|(index, claim)| read_only(mount(&volume(index), &format!("{}/{claim}", paths::VOLUMES)))).collect()
}

fn volume(index: usize) -> String {
    format!("source-{index}")
}

fn read_only(mount: corev1::VolumeMount) -> corev1::VolumeMount {
    corev1::VolumeMount { read_only: Some(true), ..mount }
}
