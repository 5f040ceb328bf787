//! Whole reports against whole worlds: what is written, and that nothing is when nothing is new.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::*;
use crate::api::Progress;
use crate::protocol::End;
use crate::reports::fixtures::{self, World, now};

fn attempt(number: i64) -> RunSpeaker {
    RunSpeaker { attempt: number, ..fixtures::speaker() }
}

fn with_state(state: FilesState) -> Report {
    let mut report = fixtures::report();
    report.checkpoints[0].state = state;
    report
}

#[test]
fn a_first_report_creates_the_checkpoint_its_history_and_progress() {
    let writes = World::new().merge(&fixtures::speaker(), &fixtures::report());
    assert_eq!(writes.create.len(), 1);
    let made = &writes.create[0];
    assert_eq!(made.metadata.name.as_deref(), Some("run-step-100"));
    assert_eq!(made.status.as_ref().map(|status| status.phase), Some(CheckpointPhase::Ready));
    let history = writes.history.expect("a history");
    assert_eq!(history.spec.events[0].message, "attempt 1 saved step 100 of lineage 1 as run-step-100");
    assert_eq!(history.spec.series.len(), 1);
    assert_eq!(history.metadata.owner_references.unwrap_or_default()[0].controller, Some(false));
    assert!(writes.progress.expect("progress").urgent);
    assert!(writes.statuses.is_empty());
}

#[test]
fn the_same_report_again_changes_nothing() {
    let world = World::new();
    let after = world.after(world.merge(&fixtures::speaker(), &fixtures::report()));
    assert!(after.merge(&fixtures::speaker(), &fixtures::report()).is_empty());
}

#[test]
fn a_run_of_k_checkpoints_writes_its_history_k_plus_one_times() {
    let (mut world, mut histories) = (World::new(), 0);
    for round in 1..=30 {
        let mut report = fixtures::report();
        report.checkpoints = (1..=round / 10).map(|n| fixtures::reported(n * 100)).collect();
        report.progress.get_or_insert_default().step = 120 + round;
        report.series[0].steps[1] = 100 + round;
        let writes = world.merge(&fixtures::speaker(), &report);
        histories += usize::from(writes.history.is_some());
        world = world.after(writes);
    }
    let end = Report { end: Some(End::default()), ..fixtures::report() };
    for _ in 0..2 {
        let writes = world.merge(&fixtures::speaker(), &end);
        histories += usize::from(writes.history.is_some());
        world = world.after(writes);
    }
    assert_eq!((world.checkpoints.len(), histories), (3, 4));
    assert!(world.fine_tune.status.and_then(|status| status.progress).is_some_and(|progress| progress.ended_by.is_some()));
}

#[test]
fn a_history_whose_write_was_lost_is_made_up_for() {
    let world = World::new();
    let mut writes = world.merge(&fixtures::speaker(), &fixtures::report());
    writes.history = None;
    let after = world.after(writes);
    let again = after.merge(&fixtures::speaker(), &fixtures::report());
    assert!(again.history.is_some() && again.create.is_empty());
}

#[test]
fn a_crash_between_object_and_status_is_healed() {
    let mut world = World::new();
    world.checkpoints.push(Arc::new(fixtures::stored(100)));
    for speaker in [fixtures::speaker(), RunSpeaker { node: 1, ..fixtures::speaker() }] {
        let writes = world.merge(&speaker, &fixtures::report());
        assert!(writes.create.is_empty());
        assert_eq!(writes.statuses.len(), 1);
        assert_eq!(writes.statuses[0].uid, "uid-100");
    }
}

#[test]
fn a_folder_that_never_was_whole_gets_no_object() {
    for state in [FilesState::Corrupt, FilesState::Missing] {
        let writes = World::new().merge(&fixtures::speaker(), &with_state(state));
        assert!(writes.create.is_empty() && writes.statuses.is_empty(), "{state:?}");
    }
}

#[test]
fn a_loss_and_a_save_over_the_old_one_reach_the_status() {
    let world = World::new();
    let ready = world.after(world.merge(&fixtures::speaker(), &fixtures::report()));
    let lost = ready.merge(&fixtures::speaker(), &with_state(FilesState::Missing));
    assert_eq!(lost.statuses[0].status.phase, CheckpointPhase::Missing);
    assert!(lost.history.is_none());
    let mut saved = fixtures::report();
    saved.checkpoints[0].digest = Some("sha256:bb".into());
    let writes = ready.merge(&attempt(2), &saved);
    assert_eq!(writes.statuses[0].status.digest.as_deref(), Some("sha256:bb"));
}

#[test]
fn a_late_report_of_an_old_attempt_adds_checkpoints_and_nothing_else() {
    let mut world = World::new();
    let status = world.fine_tune.status.get_or_insert_default();
    status.attempt = 2;
    status.progress = Some(Progress { attempt: 2, step: 5, ..Progress::default() });
    let end = Report { end: Some(End::default()), ..fixtures::report() };
    let writes = world.merge(&attempt(1), &end);
    assert_eq!(writes.create.len(), 1);
    assert!(writes.history.is_none() && writes.progress.is_none());
    let after = world.after(writes);
    let lost = after.merge(&attempt(1), &with_state(FilesState::Missing));
    assert!(lost.is_empty(), "what a newer attempt may have saved is not taken away");
}

#[test]
fn nodes_other_than_the_first_only_add_checkpoints() {
    let writes = World::new().merge(&RunSpeaker { node: 1, ..fixtures::speaker() }, &fixtures::report());
    assert_eq!(writes.create.len(), 1);
    assert!(writes.history.is_none() && writes.progress.is_none());
}

#[test]
fn a_run_on_its_way_out_is_left_alone() {
    let mut world = World::new();
    world.fine_tune.metadata.deletion_timestamp = Some(Time(now()));
    assert!(world.merge(&fixtures::speaker(), &fixtures::report()).is_empty());
}

#[test]
fn a_name_left_behind_by_an_earlier_run_is_stepped_around() {
    let mut world = World::new();
    world.taken.insert("run-step-100".into());
    let writes = world.merge(&fixtures::speaker(), &fixtures::report());
    assert_eq!(writes.create[0].metadata.name.as_deref(), Some("run-0a1b2c3d-step-100"));
    let after = world.after(writes);
    assert!(after.merge(&fixtures::speaker(), &fixtures::report()).is_empty());
}

#[test]
fn a_history_of_an_earlier_run_is_not_touched() {
    let mut world = World::new();
    world.history = Some(FineTuneHistory::default());
    assert_eq!(world.merge(&fixtures::speaker(), &fixtures::report()).history, None);
}

#[test]
fn a_checkpoint_somebody_deleted_does_not_come_back_until_it_is_saved_anew() {
    let world = World::new();
    let mut after = world.after(world.merge(&fixtures::speaker(), &fixtures::report()));
    after.checkpoints.clear();
    assert!(after.merge(&fixtures::speaker(), &fixtures::report()).create.is_empty());
    let mut again = fixtures::report();
    again.checkpoints[0].attempt = 2;
    assert_eq!(after.merge(&attempt(2), &again).create.len(), 1);
}

#[test]
fn what_retention_has_deleted_is_not_made_again_however_long_ago_it_was_saved() {
    let (mut world, mut made) = (World::new(), 0);
    let mut report = fixtures::report();
    for round in 1..=250 {
        // The policy is Retain: the files stay, and every report tells of them all.
        report.checkpoints = (1..=round).map(|n| fixtures::reported(n * 10)).collect();
        let writes = world.merge(&fixtures::speaker(), &report);
        made += writes.create.len();
        world = world.after(writes);
        world.checkpoints.drain(..world.checkpoints.len().saturating_sub(2));
    }
    assert_eq!((made, world.checkpoints.len()), (250, 2));
    let history = world.history.clone().expect("a history");
    assert_eq!((history.spec.events.len(), history.spec.earlier_saves.len()), (100, 1));
    world.history = Some(FineTuneHistory { metadata: kube::api::ObjectMeta::default(), ..history });
    assert_eq!(
        world.merge(&fixtures::speaker(), &report).create.len(),
        248,
        "what another run has saved says nothing of this one"
    );
}

#[test]
fn without_an_output_on_record_the_report_has_to_come_again() {
    let mut world = World::new();
    world.fine_tune.status.get_or_insert_default().resolved = None;
    let refused = merge(&fixtures::speaker(), &world.observed(), &fixtures::report(), now());
    assert_eq!(refused.map_err(|refusal| refusal.code()), Err(503));
}

#[test]
fn a_resumed_attempt_tells_so_once_with_its_first_news() {
    let world = World::new();
    let world = world.after(world.merge(&fixtures::speaker(), &fixtures::report()));
    let mut report = Report { resumed_from: Some(100), ..fixtures::report() };
    report.checkpoints.push(fixtures::reported(200));
    let world = world.after(world.merge(&attempt(2), &report));
    report.checkpoints.push(fixtures::reported(300));
    let world = world.after(world.merge(&attempt(2), &report));
    let reasons: Vec<_> =
        world.history.iter().flat_map(|history| &history.spec.events).map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["CheckpointSaved", "Resumed", "CheckpointSaved", "CheckpointSaved"]);
}

fn terminating(reason: &str, policy: DeletionPolicy) -> Checkpoint {
    let mut checkpoint = fixtures::stored(100);
    checkpoint.metadata.deletion_timestamp = Some(Time(now()));
    checkpoint.spec.deletion_policy = policy;
    let reconciling = Condition {
        type_: condition::RECONCILING.into(),
        status: "True".into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: Time(now()),
        observed_generation: None,
    };
    let status =
        CheckpointStatus { phase: CheckpointPhase::Deleting, conditions: vec![reconciling], ..CheckpointStatus::default() };
    checkpoint.status = Some(status);
    checkpoint
}

#[test]
fn checkpoints_given_free_are_ordered_to_be_deleted_by_who_holds_the_volume() {
    use DeletionPolicy::{Delete, Retain};
    let key = CheckpointKey { lineage: 1, step: 100 };
    let collect = RunSpeaker { role: RunRole::Collect, ..fixtures::speaker() };
    let mut world = World::new();
    for (checkpoint, speaker, expected) in [
        (terminating("Deleting", Delete), fixtures::speaker(), vec![key]),
        (terminating("InUse", Delete), fixtures::speaker(), vec![]),
        (terminating("Deleting", Retain), fixtures::speaker(), vec![]),
        (terminating("Deleting", Delete), collect, vec![]),
        (fixtures::stored(100), fixtures::speaker(), vec![]),
    ] {
        world.checkpoints = vec![Arc::new(checkpoint)];
        assert_eq!(deletions(&speaker, &world.observed()), expected);
    }
    world.checkpoints = vec![Arc::new(terminating("Deleting", Delete))];
    world.fine_tune.status.get_or_insert_default().attempt = 2;
    assert!(deletions(&fixtures::speaker(), &world.observed()).is_empty(), "an old attempt holds nothing");
}

#[test]
fn a_terminating_checkpoint_is_told_gone_and_never_ready_again() {
    let mut world = World::new();
    world.checkpoints = vec![Arc::new(terminating("Deleting", DeletionPolicy::Delete))];
    assert!(world.merge(&fixtures::speaker(), &fixtures::report()).statuses.is_empty());
    let gone = world.merge(&fixtures::speaker(), &with_state(FilesState::Missing));
    assert_eq!(gone.statuses[0].status.phase, CheckpointPhase::Missing);
}

#[test]
fn a_collector_may_say_the_end_and_what_was_missed() {
    let collect = RunSpeaker { role: RunRole::Collect, ..fixtures::speaker() };
    let report = Report { end: Some(End::default()), progress: None, ..fixtures::report() };
    let writes = World::new().merge(&collect, &report);
    assert_eq!(writes.create.len(), 1);
    assert!(writes.progress.is_some_and(|write| write.progress.ended_by.is_some()));
}

#[test]
fn an_import_writes_the_status_of_its_one_checkpoint() {
    let (_, _, mut checkpoint) = fixtures::import();
    let writes = merge_import(&checkpoint, &fixtures::report(), now());
    assert_eq!(writes.statuses.len(), 1);
    assert_eq!((writes.statuses[0].name.as_str(), writes.statuses[0].uid.as_str()), ("imported", "ckpt-uid"));
    checkpoint.status = Some(writes.statuses[0].status.clone());
    assert!(merge_import(&checkpoint, &fixtures::report(), now()).is_empty());
}
