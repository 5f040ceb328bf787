//! What derived objects are called. Every name carries the uid of its run, so that a later run of the same name never meets it.

use crate::{
    api::{CheckpointSpec, Output},
    protocol::{run_folder, sharing::exporter_name, short_uid},
};

/// Name of the Job of an attempt.
#[must_use]
pub fn job(fine_tune: &str, uid: &str, attempt: i64) -> String {
    format!("{fine_tune}-{}-{attempt}", short_uid(uid))
}

/// Name of the Job that reads what an attempt left and reports it.
#[must_use]
pub fn collect_job(fine_tune: &str, uid: &str, attempt: i64) -> String {
    format!("{fine_tune}-{}-{attempt}-c", short_uid(uid))
}

/// Name of the Job that removes the files of a run.
#[must_use]
pub fn delete_job(fine_tune: &str, uid: &str) -> String {
    format!("{fine_tune}-{}-delete", short_uid(uid))
}

/// Name of a Job that works for one Checkpoint.
#[must_use]
pub fn checkpoint_job(verb: &str, uid: &str) -> String {
    format!("ckpt-{verb}-{uid}")
}

/// Name of the claim made from a run's template.
#[must_use]
pub fn claim(fine_tune: &str, uid: &str) -> String {
    format!("{fine_tune}-{}", short_uid(uid))
}

/// Name of the Service by which the nodes of a run find each other.
#[must_use]
pub fn service(fine_tune: &str, uid: &str) -> String {
    format!("{fine_tune}-{}", short_uid(uid))
}

/// Name of the permission of a run that is Public.
#[must_use]
pub fn permission(fine_tune: &str, uid: &str) -> String {
    format!("{fine_tune}-{}-public", short_uid(uid))
}

/// Name of the exporter of a Checkpoint, and of its Service.
#[must_use]
pub fn exporter(checkpoint_uid: &str) -> String {
    exporter_name(checkpoint_uid)
}

/// Host name of the first node of an attempt, as its other nodes see it.
#[must_use]
pub fn first_node(fine_tune: &str, uid: &str, attempt: i64) -> String {
    format!("{}-0.{}", job(fine_tune, uid, attempt), service(fine_tune, uid))
}

/// The output as a URI: `volume://claim/path` or `s3://bucket/prefix`, without trailing slash.
#[must_use]
pub fn output_uri(output: &Output, fine_tune: &str, uid: &str) -> String {
    if let Some(volume) = &output.volume {
        let path = volume.path.as_deref().unwrap_or_default().trim_matches('/');
        return format!("volume://{}/{path}", volume.claim_name).trim_end_matches('/').to_owned();
    }
    if let Some(store) = &output.object_store {
        return store.uri.trim_end_matches('/').to_owned();
    }
    format!("volume://{}", claim(fine_tune, uid))
}

/// Directory of a run inside its volume: the output's path and the run's folder.
#[must_use]
pub fn run_path(output: &Output, fine_tune: &str, uid: &str) -> String {
    let base = output.volume.as_ref().and_then(|volume| volume.path.as_deref()).unwrap_or_default();
    join(base, &run_folder(fine_tune, uid))
}

/// Path of a checkpoint relative to the root of its claim, or the URI of its prefix.
#[must_use]
pub fn place(spec: &CheckpointSpec) -> String {
    match (&spec.storage.volume, &spec.storage.object_store) {
        (Some(volume), _) => volume.path.clone(),
        (None, Some(store)) => store.uri.clone(),
        (None, None) => String::new(),
    }
}

/// Joins two relative paths.
#[must_use]
pub fn join(base: &str, inner: &str) -> String {
    let base = base.trim_matches('/');
    if base.is_empty() { inner.to_owned() } else { format!("{base}/{inner}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_names_fit_a_dns_label_for_the_longest_run_name() {
        let (name, uid) = ("a".repeat(40), "0b9f6a1e-1111-2222-3333-444455556666");
        for derived in [
            job(&name, uid, 99_999),
            collect_job(&name, uid, 99_999),
            delete_job(&name, uid),
            claim(&name, uid),
            service(&name, uid),
            checkpoint_job("delete", uid),
            checkpoint_job("import", uid),
        ] {
            assert!(derived.len() <= 63 - 6, "{derived} leaves no room for the suffix of a pod");
        }
    }

    #[test]
    fn runs_of_the_same_name_have_different_jobs() {
        assert_ne!(job("a", "11111111-x", 1), job("a", "22222222-x", 1));
    }
}
