#![allow(clippy::needless_pass_by_value, reason = "test data reads better by value")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::plan::{
    checkpoint,
    fixtures::{object, settings},
};

fn shared(storage: Value) -> ObservedCheckpoint {
    ObservedCheckpoint {
        checkpoint: object(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "Checkpoint",
            "metadata": {"name": "bot-step-5", "namespace": "team", "uid": "u-1", "labels": {labels::MANAGED_BY: labels::MANAGER}},
            "spec": {"baseModel": {"name": "m"}, "step": 5, "fineTune": {"name": "bot", "uid": "r-1"}, "storage": storage},
            "status": {"phase": "Ready", "digest": "sha256:d"},
        })),
        consumers: vec!["other/bot".into()],
        ..ObservedCheckpoint::default()
    }
}

fn volume() -> Value {
    json!({"volume": {"claimName": "out", "path": "bot-1/lineage-1/checkpoint-5"}})
}

fn look(observed: &ObservedCheckpoint) -> Vec<Change> {
    checkpoint::plan(observed, &settings(), jiff::Timestamp::UNIX_EPOCH).changes
}

fn made(changes: &[Change]) -> apps::Deployment {
    let made = changes.iter().find_map(|change| match change {
        Change::Apply { child: Child::Workload(workload), .. } => Some((**workload).clone()),
        _ => None,
    });
    made.unwrap()
}

/// Lets the world become what is asked for.
fn carry_out(observed: &mut ObservedCheckpoint) {
    for change in look(observed) {
        match change {
            Change::Apply { child: Child::Workload(mut workload), .. } => {
                workload.metadata.uid = Some("w".into());
                observed.exporter = Some(Arc::new(*workload));
            }
            Change::Apply { child: Child::Service(mut service), .. } => {
                service.metadata.uid = Some("s".into());
                observed.exporter_service = Some(Arc::new(*service));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_exporter_is_made_for_the_first_consumer_and_goes_after_the_last() {
    let mut observed = shared(volume());
    carry_out(&mut observed);
    assert!(observed.exporter.is_some() && observed.exporter_service.is_some());
    assert!(look(&observed).is_empty(), "it is as wanted");
    observed.consumers.push("third/bot".into());
    assert!(look(&observed).is_empty(), "one for all");
    observed.consumers.clear();
    let gone = look(&observed);
    assert!(matches!(&gone[..], [Change::Delete(workload), Change::Delete(service)]
        if (workload.kind, service.kind) == (ChildKind::Workload, ChildKind::Service) && workload.uid == "w" && service.uid == "s"));
    (observed.exporter, observed.exporter_service) = (None, None);
    assert!(look(&observed).is_empty());
}

#[test]
fn none_is_made_while_the_run_holds_the_volume_and_one_that_is_there_stays() {
    let mut observed = shared(volume());
    observed.held = true;
    assert!(look(&observed).is_empty());
    observed.held = false;
    carry_out(&mut observed);
    observed.held = true;
    assert!(look(&observed).is_empty());
}

#[test]
fn it_sees_the_files_of_its_checkpoint_alone_and_holds_no_credential_of_the_cluster() {
    let exporter = made(&look(&shared(volume())));
    let owner = &exporter.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("Checkpoint", "u-1", Some(true)));
    let pod = exporter.spec.unwrap().template.spec.unwrap();
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    let of_claim: Vec<_> = mounts.iter().filter(|mount| mount.name == "source").collect();
    let paths: Vec<_> = of_claim.iter().map(|mount| mount.sub_path.as_deref().unwrap()).collect();
    assert_eq!(paths, ["bot-1/lineage-1/checkpoint-5", "bot-1/lineage-1/checkpoint-5.finetune.json"]);
    assert!(of_claim.iter().all(|mount| mount.read_only == Some(true)));
    let claim = pod.volumes.iter().flatten().find_map(|volume| volume.persistent_volume_claim.as_ref()).unwrap();
    assert_eq!(claim.read_only, Some(true), "a node makes what a container is to see and is not there");
    let look = &pod.init_containers.as_ref().unwrap()[0];
    let words = look.args.as_ref().unwrap().join(" ");
    let root = format!("/finetune/volumes/{}", claim.claim_name);
    for path in paths {
        assert!(words.contains(&format!("--path {root}/{path}")), "{words}");
    }
    let mounts = look.volume_mounts.as_ref().unwrap();
    assert!(
        matches!(&mounts[..], [whole] if whole.sub_path.is_none() && whole.read_only == Some(true) && whole.mount_path == root)
    );
    assert_eq!(pod.automount_service_account_token, Some(false));
    let security = pod.containers[0].security_context.clone().unwrap();
    assert_eq!((security.read_only_root_filesystem, security.allow_privilege_escalation), (Some(true), Some(false)));
    assert_eq!(pod.security_context.unwrap().run_as_non_root, Some(true));
}

#[test]
fn of_an_import_no_manifest_is_expected_beside_it() {
    let mut observed = shared(volume());
    Arc::make_mut(&mut observed.checkpoint).spec.fine_tune = None;
    let pod = made(&look(&observed)).spec.unwrap().template.spec.unwrap();
    assert!(!pod.containers[0].args.as_ref().unwrap().contains(&"--manifest".to_owned()));
    assert!(!pod.init_containers.unwrap()[0].args.as_ref().unwrap().join(" ").contains(".finetune.json"));
}

#[test]
fn a_store_is_read_with_the_credentials_of_the_owner() {
    let store =
        json!({"objectStore": {"uri": "s3://bucket/bot/checkpoint-5/", "secretName": "keys", "endpoint": "http://s3:9000"}});
    let pod = made(&look(&shared(store))).spec.unwrap().template.spec.unwrap();
    let container = &pod.containers[0];
    let args = container.args.as_ref().unwrap().join(" ");
    assert!(args.contains("--store-uri s3://bucket/bot/checkpoint-5 --store-endpoint http://s3:9000"), "{args}");
    assert_eq!(container.env_from.as_ref().unwrap()[0].secret_ref.as_ref().unwrap().name, "keys");
    assert!(pod.init_containers.is_none());
    assert!(!pod.volumes.unwrap().iter().any(|volume| volume.persistent_volume_claim.is_some()));
}

#[test]
fn one_that_is_not_ready_is_not_handed_out_and_one_that_leaves_in_use_is() {
    for phase in ["Pending", "Corrupt", "Missing"] {
        let mut observed = shared(volume());
        Arc::make_mut(&mut observed.checkpoint).status = serde_json::from_value(json!({"phase": phase})).unwrap();
        assert!(look(&observed).is_empty(), "{phase}");
    }
    let mut observed = shared(volume());
    carry_out(&mut observed);
    let checkpoint = Arc::make_mut(&mut observed.checkpoint);
    checkpoint.metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap();
    checkpoint.metadata.finalizers = Some(vec![labels::CHECKPOINT_FINALIZER.into()]);
    checkpoint.status.as_mut().unwrap().phase = CheckpointPhase::Deleting;
    observed.users = vec!["deployments.finetune.dev/other/bot".into()];
    assert!(look(&observed).is_empty(), "it goes on while it is used");
    (observed.users, observed.consumers) = (Vec::new(), Vec::new());
    assert_eq!(look(&observed).iter().filter(|change| matches!(change, Change::Delete(_))).count(), 2);
}

#[test]
fn an_upgrade_of_the_operator_alone_breaks_no_transfer_off() {
    let (mut one, two) = (settings(), settings());
    one.image = "operator:2".into();
    let observed = shared(volume());
    let revision_of = |settings: &Settings| revision(&workload(&observed.checkpoint, settings).metadata).unwrap().to_owned();
    assert_eq!(revision_of(&one), revision_of(&two));
    one.report_url = "https://elsewhere".into();
    assert_ne!(revision_of(&one), revision_of(&two));
}
