//! What the Checkpoints of a run are called, where their files are, and what they look like when new. Pure.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;

use crate::api::{Checkpoint, CheckpointSpec, FineTune, ObjectStore, Output, RunReference, Source, Volume, names};
use crate::protocol::{CheckpointKey, ReportedCheckpoint, lineage_folder, run_folder, short_uid};

/// Names a Checkpoint may have, in the order they are tried: the second is for when another run has left the first behind.
#[must_use]
pub(crate) fn candidate_names(fine_tune: &str, uid: &str, key: CheckpointKey) -> [String; 2] {
    let step = match key {
        CheckpointKey { lineage, step } if lineage >= 2 => format!("v{lineage}-step-{step}"),
        CheckpointKey { step, .. } => format!("step-{step}"),
    };
    [format!("{fine_tune}-{step}"), format!("{fine_tune}-{}-{step}", short_uid(uid))]
}

/// The directory of a checkpoint of a run; none while the output of the run is not known. Secret and endpoint of an object store are those
/// of the run's own output, or of the `default` one.
#[must_use]
pub fn checkpoint_storage(fine_tune: &FineTune, default: Option<&Output>, lineage: i64, step: i64) -> Option<Source> {
    let output = &fine_tune.status.as_ref()?.resolved.as_ref()?.output;
    let run = run_folder(fine_tune.metadata.name.as_deref()?, fine_tune.metadata.uid.as_deref()?);
    let folder = format!("{run}/{}/checkpoint-{step}", lineage_folder(lineage));
    if let Some(volume) = output.strip_prefix("volume://") {
        let (claim, path) = volume.split_once('/').unwrap_or((volume, ""));
        let path = match path.trim_matches('/') {
            "" => folder,
            path => format!("{path}/{folder}"),
        };
        let volume = Volume { claim_name: claim.into(), path };
        return (!claim.is_empty()).then(|| Source { volume: Some(volume), ..Source::default() });
    }
    if !output.starts_with("s3://") {
        return None;
    }
    let given = fine_tune.spec.output.as_ref().or(default).and_then(|output| output.object_store.as_ref());
    let given = given.filter(|given| given.uri.trim_end_matches('/') == output.trim_end_matches('/'));
    let store = ObjectStore {
        uri: format!("{}/{folder}", output.trim_end_matches('/')),
        secret_name: given.and_then(|given| given.secret_name.clone()),
        endpoint: given.and_then(|given| given.endpoint.clone()),
    };
    Some(Source { object_store: Some(store), ..Source::default() })
}

/// The object of a checkpoint that has none yet, without status.
#[must_use]
pub(crate) fn new_checkpoint(
    fine_tune: &FineTune,
    default: Option<&Output>,
    reported: &ReportedCheckpoint,
    name: String,
) -> Option<Checkpoint> {
    let run = RunReference { name: fine_tune.metadata.name.clone()?, uid: fine_tune.metadata.uid.clone()? };
    let mut labels = BTreeMap::from([(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned())]);
    for (key, value) in [
        (names::FINE_TUNE, run.name.as_str()),
        (names::FINE_TUNE_UID, run.uid.as_str()),
        (names::STEP, reported.step.to_string().as_str()),
        (names::BASE_MODEL, fine_tune.spec.base_model.name.as_str()),
    ] {
        if is_label_value(value) {
            labels.insert(key.into(), value.into());
        }
    }
    Some(Checkpoint {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: fine_tune.metadata.namespace.clone(),
            labels: Some(labels),
            finalizers: Some(vec![names::CHECKPOINT_FINALIZER.into()]),
            ..ObjectMeta::default()
        },
        spec: CheckpointSpec {
            storage: checkpoint_storage(fine_tune, default, reported.lineage.max(1), reported.step)?,
            fine_tune: Some(run),
            attempt: reported.attempt,
            lineage: reported.lineage.max(1),
            step: reported.step,
            base_model: fine_tune.spec.base_model.clone(),
            format: reported.format,
            deletion_policy: fine_tune.spec.checkpoints.deletion_policy,
        },
        status: None,
    })
}

/// The key of a Checkpoint, when it is one of the run with this uid.
#[must_use]
pub(crate) fn key_of(checkpoint: &Checkpoint, run_uid: &str) -> Option<CheckpointKey> {
    let spec = &checkpoint.spec;
    let ours = spec.fine_tune.as_ref().is_some_and(|run| !run.uid.is_empty() && run.uid == run_uid);
    ours.then_some(CheckpointKey { lineage: spec.lineage.max(1), step: spec.step })
}

fn is_label_value(value: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = value.bytes().next().zip(value.bytes().last());
    value.len() <= 63
        && value.bytes().all(inside)
        && ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NameReference;
    use crate::reports::fixtures;

    #[test]
    fn names_carry_step_and_from_the_second_on_the_lineage() {
        let key = |lineage, step| CheckpointKey { lineage, step };
        assert_eq!(candidate_names("run", fixtures::UID, key(1, 100)), ["run-step-100", "run-0a1b2c3d-step-100"]);
        assert_eq!(candidate_names("run", fixtures::UID, key(2, 5)), ["run-v2-step-5", "run-0a1b2c3d-v2-step-5"]);
    }

    fn at(output: &str) -> Option<Source> {
        let mut fine_tune = fixtures::fine_tune();
        let status = fine_tune.status.get_or_insert_default();
        status.resolved.get_or_insert_default().output = output.into();
        checkpoint_storage(&fine_tune, None, 1, 100)
    }

    #[test]
    fn files_lie_in_the_folder_of_the_run_and_lineage() {
        for (output, claim, path) in [
            ("volume://claim", "claim", "run-0a1b2c3d/lineage-1/checkpoint-100"),
            ("volume://claim/", "claim", "run-0a1b2c3d/lineage-1/checkpoint-100"),
            ("volume://claim/a/b", "claim", "a/b/run-0a1b2c3d/lineage-1/checkpoint-100"),
        ] {
            let volume = at(output).and_then(|source| source.volume).expect("a volume");
            assert_eq!((volume.claim_name.as_str(), volume.path.as_str()), (claim, path), "{output}");
        }
        let store = at("s3://bucket/prefix/").and_then(|source| source.object_store).expect("a store");
        assert_eq!(store.uri, "s3://bucket/prefix/run-0a1b2c3d/lineage-1/checkpoint-100");
        assert_eq!(at("ftp://x"), None);
        assert_eq!(at("volume://"), None);
    }

    #[test]
    fn an_object_store_keeps_the_secret_and_endpoint_of_the_spec() {
        let mut fine_tune = fixtures::fine_tune();
        fine_tune.status.get_or_insert_default().resolved.get_or_insert_default().output = "s3://bucket".into();
        let given = ObjectStore { uri: "s3://bucket".into(), secret_name: Some("key".into()), endpoint: Some("http://m".into()) };
        fine_tune.spec.output = Some(Output { object_store: Some(given), ..Output::default() });
        let store = checkpoint_storage(&fine_tune, None, 2, 1).and_then(|source| source.object_store).expect("a store");
        assert_eq!(store.uri, "s3://bucket/run-0a1b2c3d/lineage-2/checkpoint-1");
        assert_eq!((store.secret_name.as_deref(), store.endpoint.as_deref()), (Some("key"), Some("http://m")));
    }

    #[test]
    fn a_new_checkpoint_is_found_by_labels_and_held_by_the_finalizer_alone() {
        let mut fine_tune = fixtures::fine_tune();
        fine_tune.spec.base_model = NameReference::new("not a label value");
        let made = new_checkpoint(&fine_tune, None, &fixtures::reported(100), "run-step-100".into()).expect("a checkpoint");
        let labels = made.metadata.labels.clone().unwrap_or_default();
        assert_eq!(labels.get(names::FINE_TUNE_UID).map(String::as_str), Some(fixtures::UID));
        assert_eq!(labels.get(names::STEP).map(String::as_str), Some("100"));
        assert_eq!(labels.get(names::BASE_MODEL), None);
        assert_eq!(made.metadata.finalizers, Some(vec![names::CHECKPOINT_FINALIZER.to_owned()]));
        assert_eq!(made.metadata.owner_references, None);
        assert_eq!(key_of(&made, fixtures::UID), Some(CheckpointKey { lineage: 1, step: 100 }));
        assert_eq!(key_of(&made, "other"), None);
    }

    #[test]
    fn label_values_are_told_from_other_names() {
        for (value, valid) in [("a", true), ("a.b-c_d", true), ("", false), ("-a", false), ("a/b", false)] {
            assert_eq!(is_label_value(value), valid, "{value}");
        }
        assert!(!is_label_value(&"a".repeat(64)));
    }
}
