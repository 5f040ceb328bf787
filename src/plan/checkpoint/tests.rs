#![allow(clippy::needless_pass_by_value, reason = "test data reads better by value")]

use serde_json::{Value, json};

use super::*;
use crate::api::condition::{RECONCILING, STALLED, find};
use crate::plan::fixtures::{object, settings};

/// A Checkpoint on claim `out`; `metadata` is laid over its metadata.
fn observed(metadata: Value, policy: &str) -> ObservedCheckpoint {
    let mut wanted = json!({"name": "a-step-5", "namespace": "ns", "uid": "u-1", "generation": 1});
    wanted.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    ObservedCheckpoint {
        checkpoint: object(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "Checkpoint", "metadata": wanted,
            "spec": {"baseModel": {"name": "m"}, "step": 5, "deletionPolicy": policy,
                     "storage": {"volume": {"claimName": "out", "path": "runs/a-1/lineage-1/checkpoint-5"}}},
        })),
        claim: Some(object(json!({"metadata": {"name": "out"}}))),
        ..ObservedCheckpoint::default()
    }
}

fn leaving(policy: &str) -> ObservedCheckpoint {
    observed(json!({"deletionTimestamp": "2027-01-15T08:00:00Z", "finalizers": [labels::CHECKPOINT_FINALIZER]}), policy)
}

fn job(role: &str, condition: Option<&str>) -> Arc<batch::Job> {
    let conditions = condition.map(|kind| json!([{"type": kind, "status": "True"}]));
    object(json!({"metadata": {"name": "j", "labels": {labels::ROLE: role}}, "status": {"conditions": conditions}}))
}

fn look(observed: &ObservedCheckpoint) -> Plan<CheckpointStatus> {
    plan(observed, &settings(), Timestamp::UNIX_EPOCH)
}

fn reason(plan: &Plan<CheckpointStatus>, kind: &str) -> String {
    find(&plan.status.as_ref().unwrap().conditions, kind).unwrap().reason.clone()
}

const RELEASED: [Change; 1] = [Change::RemoveFinalizer(labels::CHECKPOINT_FINALIZER)];

#[test]
fn one_written_by_hand_is_verified_by_one_job() {
    let mut observed = observed(json!({}), "Retain");
    let first = look(&observed);
    assert!(matches!(first.changes[..], [Change::CreateOnce(Child::Job(_))]));
    assert_eq!(reason(&first, RECONCILING), "Verifying");
    observed.jobs = vec![job(labels::ROLE_IMPORT, None)];
    assert!(look(&observed).changes.is_empty());
    observed.jobs = vec![job(labels::ROLE_IMPORT, Some("Failed"))];
    assert_eq!(reason(&look(&observed), STALLED), "VerificationFailed");
}

#[test]
fn one_on_a_claim_that_is_not_there_waits_and_names_it() {
    let mut observed = observed(json!({}), "Retain");
    observed.claim = None;
    let plan = look(&observed);
    assert!(plan.changes.is_empty());
    assert_eq!(reason(&plan, RECONCILING), "ClaimNotFound");
}

#[test]
fn a_reported_one_is_left_to_the_report_server() {
    assert_eq!(look(&observed(json!({"labels": {labels::MANAGED_BY: labels::MANAGER}}), "Delete")), Plan::nothing());
}

#[test]
fn bytes_go_before_the_finalizer() {
    let mut observed = leaving("Delete");
    assert!(matches!(look(&observed).changes[..], [Change::CreateOnce(Child::Job(_))]));
    observed.jobs = vec![job(labels::ROLE_DELETE, None)];
    assert_eq!(look(&observed), Plan::nothing());
    observed.jobs = vec![job(labels::ROLE_DELETE, Some("Complete"))];
    assert_eq!(look(&observed).changes, RELEASED);
}

#[test]
fn while_a_pod_holds_the_volume_it_does_the_removing() {
    let mut observed = leaving("Delete");
    observed.run_is_live = true;
    let plan = look(&observed);
    assert!(plan.changes.is_empty());
    assert_eq!(reason(&plan, RECONCILING), "Deleting");
    Arc::make_mut(&mut observed.checkpoint).status =
        Some(CheckpointStatus { phase: CheckpointPhase::Missing, ..CheckpointStatus::default() });
    assert_eq!(look(&observed).changes, RELEASED, "its files are gone");
}

#[test]
fn one_in_use_stays_until_its_users_go() {
    let mut observed = leaving("Delete");
    observed.users = vec!["deployments.finetune.dev/x".into()];
    let plan = look(&observed);
    assert!(plan.changes.is_empty());
    assert_eq!(reason(&plan, RECONCILING), "InUse");
}

#[test]
fn what_cannot_or_must_not_be_removed_never_blocks() {
    assert_eq!(look(&leaving("Retain")).changes, RELEASED);
    let mut without_claim = leaving("Delete");
    without_claim.claim = None;
    assert_eq!(look(&without_claim).changes, RELEASED);
    let mut terminating = leaving("Delete");
    terminating.namespace_terminating = true;
    assert_eq!(look(&terminating).changes, RELEASED);
}

#[test]
fn a_removal_that_fails_says_so_and_keeps_the_object() {
    let mut observed = leaving("Delete");
    observed.jobs = vec![job(labels::ROLE_DELETE, Some("Failed"))];
    let plan = look(&observed);
    assert!(plan.changes.is_empty());
    assert_eq!(reason(&plan, RECONCILING), "DeletionFailed");
}
