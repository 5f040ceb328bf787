#![allow(clippy::needless_pass_by_value, reason = "test data reads better by value")]

mod deaths;

use std::sync::Arc;

use k8s_openapi::{
    api::{batch::v1 as batch, core::v1 as corev1},
    apimachinery::pkg::apis::meta::v1::Time,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::{
    BaseModel, Checkpoint, CheckpointPhase, CheckpointStatus, FineTune, HardwareProfile, Progress, TrainingRuntime, condition,
};
use crate::plan::fixtures::{object, settings};

mod auto_deploy;
mod budget;
mod nodes;
mod queue;
mod turn;

const UID: &str = "0b9f6a1e-0000-0000-0000-000000000001";

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_060).unwrap()
}

/// A world in which a run can begin; `spec` is laid over its spec.
fn world(spec: Value) -> ObservedFineTune {
    let mut wanted = json!({
        "baseModel": {"name": "tiny"},
        "dataset": {"training": {"volume": {"claimName": "data", "path": "train"}}},
        "output": {"volume": {"claimName": "out", "path": "runs"}},
    });
    wanted.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let claim = |name: &str| (name.to_owned(), object::<corev1::PersistentVolumeClaim>(json!({"metadata": {"name": name}})));
    ObservedFineTune {
        fine_tune: object::<FineTune>(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune",
            "metadata": {"name": "a", "namespace": "ns", "uid": UID, "generation": 1},
            "spec": wanted,
        })),
        base_model: Some(object::<BaseModel>(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "BaseModel", "metadata": {"name": "tiny"},
            "spec": {"source": {"huggingFace": {"repo": "org/tiny"}}},
        }))),
        runtime: Some(object::<TrainingRuntime>(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "TrainingRuntime", "metadata": {"name": "trl"},
            "spec": {"image": "trainer:1", "command": ["train"], "parameters": {"schema": {
                "properties": {"epochs": {"type": "integer"}}, "required": ["epochs"]}, "defaults": {"epochs": 3}}},
        }))),
        hardware: Some(object::<HardwareProfile>(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "HardwareProfile", "metadata": {"name": "gpu"},
            "spec": {"gpu": {"count": 2}, "costPerHour": "3.60", "memory": "8Gi"},
        }))),
        claims: [claim("data"), claim("out")].into(),
        ..ObservedFineTune::default()
    }
}

fn edit(world: &mut ObservedFineTune, change: impl FnOnce(&mut FineTune)) {
    change(Arc::make_mut(&mut world.fine_tune));
}

/// Lets the world become what `plan` asks for, as a perfect cluster would.
fn carry_out(world: &mut ObservedFineTune, plan: &Plan<FineTuneStatus>) {
    for change in &plan.changes {
        match change {
            Change::AddFinalizer(name) => edit(world, |run| run.metadata.finalizers.get_or_insert_default().push((*name).into())),
            Change::RemoveFinalizer(name) => {
                edit(world, |run| run.metadata.finalizers.get_or_insert_default().retain(|had| had != name));
            }
            Change::CreateOnce(Child::Permission(permission)) => world.permission = Some(Arc::new((**permission).clone())),
            Change::CreateOnce(Child::Job(job)) => {
                if world.jobs.iter().all(|known| known.metadata.name != job.metadata.name) {
                    let mut job = job.clone();
                    job.metadata.uid = job.metadata.name.clone();
                    world.jobs.push(Arc::new(*job));
                }
            }
            Change::CreateOnce(Child::Service(_)) => {}
            Change::CreateOnce(Child::Claim(claim)) => {
                world.claims.insert(claim.metadata.name.clone().unwrap(), Arc::new(*claim.clone()));
            }
            Change::Delete(reference) if reference.kind == ChildKind::Checkpoint => {
                let goes = world.checkpoints.iter_mut().find(|known| known.metadata.uid.as_ref() == Some(&reference.uid));
                let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now());
                Arc::make_mut(goes.unwrap()).metadata.deletion_timestamp = Some(time);
            }
            Change::CreateOnce(Child::Served(deployment)) => {
                let mut made = (**deployment).clone();
                made.metadata.uid = Some("deployment-uid".into());
                (made.metadata.generation, made.metadata.resource_version) = (Some(1), Some("1".into()));
                world.deployment = Some(Arc::new(made));
            }
            Change::Redeploy(wanted) => {
                let deployment = Arc::make_mut(world.deployment.as_mut().unwrap());
                assert_eq!(deployment.metadata.resource_version.as_ref(), Some(&wanted.version));
                let annotations = deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(names::AUTO_DEPLOY.into(), wanted.note.clone());
                deployment.spec.checkpoint.name.clone_from(&wanted.checkpoint);
                deployment.spec.type_ = wanted.type_;
                deployment.spec.replicas = wanted.replicas.unwrap_or(deployment.spec.replicas);
                deployment.metadata.generation = deployment.metadata.generation.map(|generation| generation + 1);
            }
            Change::Apply { .. } | Change::CreateOnce(_) => unreachable!("a run applies nothing"),
            Change::Delete(reference) if reference.kind == ChildKind::Served => world.deployment = None,
            Change::Delete(reference) => {
                world.jobs.retain(|job| job.metadata.uid.as_ref() != Some(&reference.uid));
                world.pods.clear();
            }
            Change::MarkBest { name, best, .. } => {
                for checkpoint in &mut world.checkpoints {
                    if checkpoint.metadata.name.as_ref() == Some(name) {
                        Arc::make_mut(checkpoint).status.get_or_insert_default().best = *best;
                    }
                }
            }
            Change::ReleaseCheckpoint { name, .. } => {
                world.checkpoints.retain(|known| known.metadata.name.as_ref() != Some(name));
            }
        }
    }
    if let Some(status) = &plan.status {
        edit(world, |run| run.status = Some(status.clone()));
    }
}

/// A world in which a run on several nodes can begin; `spec` is laid over its spec.
fn on_nodes(nodes: i32, spec: Value) -> ObservedFineTune {
    let mut all = json!({"hardware": {"nodes": nodes}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut world = world(all);
    Arc::make_mut(world.runtime.as_mut().unwrap()).spec.distributed = crate::api::Distributed::Torchrun;
    world
}

fn step(world: &mut ObservedFineTune) -> Plan<FineTuneStatus> {
    step_then(world, now())
}

fn step_then(world: &mut ObservedFineTune, now: Timestamp) -> Plan<FineTuneStatus> {
    let plan = plan(world, &settings(), now);
    carry_out(world, &plan);
    plan
}

/// A time of the day of these tests.
fn at(time: &str) -> Timestamp {
    format!("2027-01-15T{time}Z").parse().unwrap()
}

fn step_at(world: &mut ObservedFineTune, time: &str) -> Plan<FineTuneStatus> {
    let plan = plan(world, &settings(), at(time));
    carry_out(world, &plan);
    plan
}

/// A pod of the newest training Job that was made and took its node at one time of the day and, unless it runs, ended at another.
fn pod_of(world: &ObservedFineTune, name: &str, start: &str, end: Option<&str>) -> Arc<corev1::Pod> {
    let state = end.map_or_else(
        || json!({"running": {}}),
        |end| json!({"terminated": {"exitCode": 143, "finishedAt": at(end).to_string()}}),
    );
    object::<corev1::Pod>(json!({
        "metadata": {"name": name, "uid": name, "labels": world.jobs.last().unwrap().metadata.labels, "creationTimestamp": at(start).to_string()},
        "status": {"phase": if end.is_some() { "Failed" } else { "Running" }, "startTime": at(start).to_string(), "containerStatuses": [
            {"name": "trainer", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state}]},
    }))
}

/// A pod without containers yet, on a node since `start` or on none.
fn waiting(world: &ObservedFineTune, name: &str, created: &str, start: Option<&str>) -> Arc<corev1::Pod> {
    let mut pod = pod_of(world, name, created, None);
    let status = Arc::make_mut(&mut pod).status.as_mut().unwrap();
    (status.phase, status.container_statuses) = (Some("Pending".into()), None);
    status.start_time = start.map(|start| Time(at(start)));
    pod
}

/// The pod as that of one of several nodes.
fn with_index(mut pod: Arc<corev1::Pod>, index: &str) -> Arc<corev1::Pod> {
    let annotations = Arc::make_mut(&mut pod).metadata.annotations.get_or_insert_default();
    annotations.insert(names::COMPLETION_INDEX.into(), index.into());
    pod
}

/// The newest training Job gets a pod in `phase`, and `condition` when it is over.
fn job_becomes(world: &mut ObservedFineTune, phase: &str, condition: Option<&str>) {
    let job = world.jobs.last_mut().unwrap();
    let labels = job.metadata.labels.clone();
    let running = if phase == "Running" {
        json!({"running": {}})
    } else {
        json!({"terminated": {"exitCode": 0, "finishedAt": "2027-01-15T08:00:00Z"}})
    };
    world.pods = vec![object::<corev1::Pod>(json!({
        "metadata": {"name": "p", "uid": "pod-uid", "labels": labels},
        "status": {"phase": phase, "startTime": "2027-01-15T07:00:00Z", "containerStatuses": [
            {"name": "trainer", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": running}]},
    }))];
    if let Some(kind) = condition {
        let status = json!({"conditions": [{"type": kind, "status": "True", "lastTransitionTime": "2027-01-15T08:00:00Z"}]});
        Arc::make_mut(job).status = Some(serde_json::from_value::<batch::JobStatus>(status).unwrap());
    }
}

fn report_end(world: &mut ObservedFineTune) {
    edit(world, |run| {
        let status = run.status.as_mut().unwrap();
        status.progress =
            Some(Progress { attempt: status.attempt, step: 200, ended_by: Some("pod-uid".into()), ..Progress::default() });
    });
}

fn jobs_made(plan: &Plan<FineTuneStatus>) -> Vec<&str> {
    let made = plan.changes.iter().filter_map(|change| match change {
        Change::CreateOnce(Child::Job(job)) => job.metadata.name.as_deref(),
        _ => None,
    });
    made.collect()
}

fn phase(world: &ObservedFineTune) -> FineTunePhase {
    world.status().phase
}

fn reason(world: &ObservedFineTune, kind: &str) -> Option<String> {
    condition::find(&world.status().conditions, kind).map(|condition| condition.reason.clone())
}

#[test]
fn a_run_goes_from_nothing_to_succeeded_with_three_statuses_and_one_job() {
    let mut world = world(json!({}));
    let first = step(&mut world);
    assert_eq!(jobs_made(&first), ["a-0b9f6a1e-1"]);
    assert_eq!(first.changes[0], Change::AddFinalizer(names::FINE_TUNE_FINALIZER));
    assert_eq!(phase(&world), FineTunePhase::Preparing);
    job_becomes(&mut world, "Running", None);
    assert!(step(&mut world).changes.is_empty());
    assert_eq!(phase(&world), FineTunePhase::Running);
    job_becomes(&mut world, "Succeeded", Some("Complete"));
    report_end(&mut world);
    step(&mut world);
    assert_eq!(phase(&world), FineTunePhase::Succeeded);
    let status = world.status();
    assert!(
        condition::is_true(&status.conditions, condition::READY) && condition::is_true(&status.conditions, condition::FINISHED)
    );
    let cost = status.cost.unwrap();
    assert_eq!((cost.accrued.as_str(), cost.gpu_seconds), ("3.6", 7200), "an hour on two GPUs at 3.60 a node");
}

#[test]
fn a_finished_run_never_trains_again_when_its_job_is_deleted() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Succeeded", Some("Complete"));
    report_end(&mut world);
    step(&mut world);
    world.jobs.clear();
    world.pods.clear();
    let after = step(&mut world);
    assert!(after.changes.is_empty());
    assert_eq!(phase(&world), FineTunePhase::Succeeded);
}

#[test]
fn a_job_that_was_never_seen_at_work_is_made_again_under_its_own_name() {
    let mut world = world(json!({}));
    step(&mut world);
    world.jobs.clear();
    assert_eq!(jobs_made(&step(&mut world)), ["a-0b9f6a1e-1"]);
}

#[test]
fn nothing_is_concluded_from_the_absence_of_a_job_that_was_put_on_record_a_moment_ago() {
    for desired in ["Running", "Stopped", "Paused"] {
        let mut world = world(json!({}));
        step(&mut world);
        let (jobs, recorded) = (std::mem::take(&mut world.jobs), world.status());
        world.last_status_write = Timestamp::from_second(now().as_second() - 1).ok();
        edit(&mut world, |run| run.spec.desired_state = serde_json::from_value(json!(desired)).unwrap());
        let waits = step(&mut world);
        assert_eq!((waits.changes, waits.status), (Vec::new(), Some(recorded)), "{desired}");
        assert!(matches!(waits.next, Next::After(_)), "it looks again though the Job never shows");
        world.jobs = jobs;
        assert_eq!(step(&mut world).changes.is_empty(), desired == "Running", "{desired}: the Job shows and is ended");
    }
}

/// The process ends after the writes to other objects and before the status.
fn step_and_die(world: &mut ObservedFineTune) {
    let plan = plan(world, &settings(), now());
    carry_out(world, &Plan { status: None, ..plan });
}

#[test]
fn a_job_that_was_made_but_not_recorded_is_put_on_record_and_not_made_again() {
    for restarts in [0, 2] {
        let mut world = world(json!({"restarts": restarts}));
        step_and_die(&mut world);
        job_becomes(&mut world, "Running", None);
        assert_eq!(step(&mut world).changes, []);
        let status = world.status();
        assert_eq!((status.attempt, status.lineage, status.restarts, status.attempts.len()), (1, 1, restarts, 1));
        assert!(status.resolved.is_some() && status.job_name.as_deref() == Some("a-0b9f6a1e-1"), "{status:?}");
        assert_eq!(step(&mut world).changes, []);
        assert_eq!(phase(&world), FineTunePhase::Running);
    }
}

#[test]
fn a_restart_that_was_not_recorded_makes_one_job_of_one_lineage() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Succeeded", Some("Complete"));
    report_end(&mut world);
    step(&mut world);
    edit(&mut world, |run| {
        run.spec.restarts = 1;
        run.spec.start_from.policy = crate::api::StartPolicy::Scratch;
    });
    step_and_die(&mut world);
    assert_eq!(step(&mut world).changes, []);
    let status = world.status();
    assert_eq!((status.attempt, status.lineage, status.restarts, world.jobs.len()), (2, 2, 1, 2));
    assert!(!condition::is_true(&status.conditions, condition::FINISHED));
}

#[test]
fn the_attempt_before_one_that_was_not_recorded_is_closed_and_paid_for() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Running", None);
    step(&mut world);
    world.jobs.clear();
    world.pods.clear();
    step_and_die(&mut world);
    step(&mut world);
    let status = world.status();
    let told: Vec<_> = status.attempts.iter().map(|attempt| (attempt.number, attempt.reason.as_deref())).collect();
    assert_eq!(told, [(1, Some("Interrupted")), (2, None)]);
    assert_eq!(status.cost.unwrap().gpu_seconds, 2 * 3660, "two GPUs were held until the pod was gone");
}

#[test]
fn an_attempt_that_was_not_recorded_before_a_pause_keeps_its_number() {
    let mut world = world(json!({}));
    step_and_die(&mut world);
    job_becomes(&mut world, "Running", None);
    edit(&mut world, |run| run.spec.desired_state = DesiredState::Paused);
    assert_eq!(step(&mut world).changes, [], "it is put on record first");
    assert_eq!(step(&mut world).changes, [], "and then what its pod holds");
    assert!(matches!(step(&mut world).changes[..], [Change::Delete(_)]));
    step(&mut world);
    assert_eq!(phase(&world), FineTunePhase::Paused);
    edit(&mut world, |run| run.spec.desired_state = DesiredState::Running);
    assert_eq!(jobs_made(&step(&mut world)), ["a-0b9f6a1e-2"]);
}

#[test]
fn nothing_is_surplus_until_it_is_settled_who_may_use_it() {
    let mut world = world(json!({"visibility": "Public", "checkpoints": {"keepLast": 1}}));
    world.checkpoints = vec![checkpoint(1, "0.5", CheckpointPhase::Ready), checkpoint(2, "0.4", CheckpointPhase::Ready)];
    let goes = |plan: &Plan<FineTuneStatus>| {
        let is_checkpoint = |change: &&Change| matches!(change, Change::Delete(gone) if gone.kind == ChildKind::Checkpoint);
        plan.changes.iter().filter(is_checkpoint).count()
    };
    let first = step(&mut world);
    assert_eq!((goes(&first), world.permission.is_some()), (0, true), "somebody elsewhere may be serving the first");
    assert_eq!(goes(&step(&mut world)), 1);
}

#[test]
fn a_job_that_was_not_recorded_ends_when_what_it_was_made_of_is_gone() {
    let mut world = world(json!({}));
    step_and_die(&mut world);
    world.runtime = None;
    assert!(matches!(step(&mut world).changes[..], [Change::Delete(_)]));
    step(&mut world);
    assert_eq!((phase(&world), reason(&world, condition::READY).as_deref()), (FineTunePhase::Pending, Some("RuntimeNotFound")));
}

#[test]
fn a_run_that_was_stopped_before_its_first_attempt_can_be_started() {
    let mut world = world(json!({"desiredState": "Stopped"}));
    step(&mut world);
    assert_eq!(phase(&world), FineTunePhase::Stopped);
    edit(&mut world, |run| {
        run.spec.desired_state = DesiredState::Running;
        run.spec.restarts = 1;
    });
    assert_eq!(jobs_made(&step(&mut world)), ["a-0b9f6a1e-1"]);
}

#[test]
fn in_a_namespace_that_is_going_away_nothing_is_made() {
    let mut world = world(json!({}));
    world.namespace_terminating = true;
    assert_eq!(step(&mut world), Plan::nothing());
}

#[test]
fn a_job_deleted_at_work_is_followed_by_the_next_attempt_once_its_pods_are_gone() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Running", None);
    step(&mut world);
    world.jobs.clear();
    assert!(step(&mut world).changes.is_empty(), "a pod may still be writing");
    world.pods.clear();
    assert_eq!(jobs_made(&step(&mut world)), ["a-0b9f6a1e-2"]);
    let reasons: Vec<_> = world.status().attempts.into_iter().map(|attempt| attempt.reason).collect();
    assert_eq!(reasons, [Some("Interrupted".to_owned()), None]);
}

#[test]
fn success_without_a_last_report_is_collected_from_the_output_first() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Succeeded", Some("Complete"));
    assert_eq!(jobs_made(&step(&mut world)), ["a-0b9f6a1e-1-c"]);
    assert_eq!(phase(&world), FineTunePhase::Running);
    let collect = world.jobs.last_mut().unwrap();
    let status = json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2027-01-15T08:00:00Z"}]});
    Arc::make_mut(collect).status = serde_json::from_value(status).unwrap();
    step(&mut world);
    assert_eq!(phase(&world), FineTunePhase::Succeeded);
}

#[test]
fn news_of_checkpoints_that_can_wait_put_off_no_look_that_is_due_sooner() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Running", None);
    step(&mut world);
    world.last_status_write = Some(now());
    world.checkpoints.push(checkpoint(10, "1.0", CheckpointPhase::Ready));
    let trains = step(&mut world);
    assert_eq!((trains.next, world.status().checkpoint_count), (Next::After(std::time::Duration::from_mins(10)), 0));
    // The Job ends, and its last report is lost.
    job_becomes(&mut world, "Succeeded", Some("Complete"));
    let condition = &mut Arc::make_mut(&mut world.jobs[0]).status.as_mut().unwrap().conditions.as_mut().unwrap()[0];
    condition.last_transition_time = Some(Time(now()));
    let ends = step(&mut world);
    assert_eq!((jobs_made(&ends).len(), ends.next), (0, Next::After(std::time::Duration::from_secs(5))));
}

#[test]
fn every_missing_reference_is_named_and_none_makes_a_job() {
    type TakeAway = fn(&mut ObservedFineTune);
    let cases: [(&str, TakeAway, &str); 5] = [
        ("BaseModelNotFound", |world| world.base_model = None, "spec.baseModel.name"),
        ("RuntimeNotFound", |world| world.runtime = None, "spec.runtime.name"),
        ("HardwareNotFound", |world| world.hardware = None, "spec.hardware.profile"),
        ("ClaimNotFound", |world| drop(world.claims.remove("data")), "spec.dataset.training"),
        ("ClaimNotFound", |world| drop(world.claims.remove("out")), "spec.output.volume.claimName"),
    ];
    for (wanted, take_away, field) in cases {
        let mut world = world(json!({}));
        take_away(&mut world);
        let plan = step(&mut world);
        assert!(jobs_made(&plan).is_empty(), "{wanted}");
        assert_eq!(reason(&world, condition::RECONCILING).as_deref(), Some(wanted));
        let conditions = world.status().conditions;
        assert!(condition::find(&conditions, condition::READY).unwrap().message.contains(field), "{field} in {conditions:?}");
    }
}

#[test]
fn a_name_that_somebody_else_has_taken_is_said_and_tried_again() {
    let mut world = world(json!({}));
    world.name_taken = Some("Job a-0b9f6a1e-1".into());
    let blocked = step(&mut world);
    assert!(jobs_made(&blocked).is_empty());
    assert!(matches!(blocked.next, Next::After(_)), "nobody tells when it goes");
    assert_eq!((phase(&world), reason(&world, condition::READY).as_deref()), (FineTunePhase::Pending, Some("NameTaken")));
    let conditions = world.status().conditions;
    assert!(condition::find(&conditions, condition::READY).unwrap().message.contains("Job a-0b9f6a1e-1 exists already"));
    assert_eq!(world.status().failure, None);
    world.name_taken = None;
    assert_eq!(jobs_made(&step(&mut world)), ["a-0b9f6a1e-1"]);
}

#[test]
fn refused_parameters_stall_the_run_and_name_the_pointer() {
    let mut world = world(json!({"parameters": {"epochs": "three"}}));
    assert!(jobs_made(&step(&mut world)).is_empty());
    assert_eq!(reason(&world, condition::STALLED).as_deref(), Some("InvalidParameters"));
    let failure = world.status().failure.unwrap();
    assert!(failure.message.contains("/epochs") && failure.user_error, "{failure:?}");
}

#[test]
fn stop_ends_the_pods_first_and_says_stopped_last() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Running", None);
    step(&mut world);
    edit(&mut world, |run| run.spec.desired_state = DesiredState::Stopped);
    let pods = world.pods.clone();
    assert!(matches!(step(&mut world).changes[..], [Change::Delete(_)]));
    assert_eq!(phase(&world), FineTunePhase::Stopping);
    world.pods = pods;
    step(&mut world);
    assert_eq!(phase(&world), FineTunePhase::Stopping, "a pod of the run still runs");
    world.pods.clear();
    step(&mut world);
    assert_eq!(phase(&world), FineTunePhase::Stopped);
    assert_eq!(reason(&world, condition::FINISHED).as_deref(), Some("Stopped"));
    assert_eq!(world.status().cost.unwrap().gpu_seconds, 2 * 3660, "two GPUs were held until the pod was gone");
    assert!(step(&mut world).changes.is_empty());
}

#[test]
fn a_raised_restarts_starts_the_next_attempt_of_a_failed_run() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Failed", Some("Failed"));
    step(&mut world);
    assert_eq!(phase(&world), FineTunePhase::Failed);
    assert!(condition::is_true(&world.status().conditions, condition::STALLED));
    edit(&mut world, |run| run.spec.restarts = 1);
    assert_eq!(jobs_made(&step(&mut world)), ["a-0b9f6a1e-2"]);
    assert!(!condition::is_true(&world.status().conditions, condition::FINISHED));
}

#[test]
fn the_words_of_the_agent_become_the_failure() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Failed", Some("Failed"));
    let told = r#"{"failure":{"reason":"GpuOutOfMemory","message":"m","hint":"h","userError":true}}"#;
    let pod = Arc::make_mut(&mut world.pods[0]);
    pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].state =
        serde_json::from_value(json!({"terminated": {"exitCode": 78, "message": told}})).unwrap();
    step(&mut world);
    let failure = world.status().failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.exit_code), ("GpuOutOfMemory", Some(78)));
}

#[test]
fn a_deleted_run_ends_pods_then_checkpoints_then_files_then_lets_go() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Running", None);
    step(&mut world);
    world.checkpoints = vec![checkpoint(50, "0.5", CheckpointPhase::Ready)];
    edit(&mut world, |run| run.metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap());
    assert!(matches!(step(&mut world).changes[..], [Change::Delete(ChildReference { kind: ChildKind::Job, .. })]));
    assert!(matches!(step(&mut world).changes[..], [Change::Delete(ChildReference { kind: ChildKind::Checkpoint, .. })]));
    Arc::make_mut(&mut world.checkpoints[0]).metadata.deletion_timestamp = world.fine_tune.metadata.deletion_timestamp.clone();
    assert_eq!(jobs_made(&step(&mut world)), ["a-0b9f6a1e-delete"]);
    let args = world.jobs[0].spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0].args.clone().unwrap();
    assert_eq!(args.last().unwrap(), "runs/a-0b9f6a1e");
    job_becomes(&mut world, "Succeeded", Some("Complete"));
    let last = step(&mut world);
    assert!(matches!(last.changes[..], [Change::ReleaseCheckpoint { .. }, Change::RemoveFinalizer(_)]), "{last:?}");
}

#[test]
fn a_public_run_takes_its_permission_back_before_it_asks_what_is_used() {
    let mut world = world(json!({"visibility": "Public"}));
    step(&mut world);
    world.jobs.clear();
    Arc::make_mut(world.permission.as_mut().unwrap()).metadata.uid = Some("p".into());
    world.checkpoints = vec![checkpoint(50, "0.5", CheckpointPhase::Ready)];
    edit(&mut world, |run| run.metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap());
    let first = plan(&world, &settings(), now()).changes;
    assert!(matches!(&first[..], [Change::Delete(gone)] if gone.kind == ChildKind::Permission && gone.uid == "p"), "{first:?}");
    world.permission = None;
    assert!(matches!(step(&mut world).changes[..], [Change::Delete(ChildReference { kind: ChildKind::Checkpoint, .. })]));
}

#[test]
fn a_checkpoint_that_is_used_or_retained_outlives_its_run_and_only_the_others_lose_their_files() {
    let mut world = world(json!({}));
    step(&mut world);
    world.jobs.clear();
    world.checkpoints = [50, 100, 150].map(|step| checkpoint(step, "0.5", CheckpointPhase::Ready)).into();
    for (checkpoint, path) in world.checkpoints.iter_mut().zip(["a/50", "a/100", "a/150"]) {
        let volume = crate::api::Volume { claim_name: "out".into(), path: path.into() };
        Arc::make_mut(checkpoint).spec.storage.volume = Some(volume);
    }
    world.used_checkpoints = ["a-step-50".to_owned()].into();
    Arc::make_mut(&mut world.checkpoints[1]).spec.deletion_policy = crate::api::DeletionPolicy::Retain;
    edit(&mut world, |run| run.metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap());
    let deletes = step(&mut world).changes;
    assert!(matches!(&deletes[..], [Change::Delete(reference)] if reference.name == "a-step-150"), "{deletes:?}");
    Arc::make_mut(&mut world.checkpoints[2]).metadata.deletion_timestamp = world.fine_tune.metadata.deletion_timestamp.clone();
    step(&mut world);
    let args = world.jobs[0].spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0].args.clone().unwrap();
    assert_eq!(args.last().unwrap(), "a/150");
}

#[test]
fn a_claim_that_is_gone_never_blocks_a_deletion() {
    let mut world = world(json!({}));
    step(&mut world);
    world.jobs.clear();
    world.claims.clear();
    edit(&mut world, |run| run.metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap());
    assert!(matches!(step(&mut world).changes[..], [Change::RemoveFinalizer(_)]));
}

#[test]
fn the_pod_is_restricted_and_only_watch_holds_a_token() {
    let mut world = world(json!({}));
    step(&mut world);
    let pod = world.jobs[0].spec.as_ref().unwrap().template.spec.clone().unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    let sidecars = pod.init_containers.unwrap();
    let mounts_token =
        |container: &corev1::Container| container.volume_mounts.iter().flatten().any(|mount| mount.name == "token");
    let holders: Vec<_> =
        sidecars.iter().chain(&pod.containers).filter(|container| mounts_token(container)).map(|c| c.name.as_str()).collect();
    assert_eq!(holders, ["watch"]);
    for container in sidecars.iter().chain(&pod.containers) {
        let context = container.security_context.as_ref().unwrap();
        assert_eq!(context.allow_privilege_escalation, Some(false), "{}", container.name);
    }
}

fn checkpoint(step: i64, loss: &str, phase: CheckpointPhase) -> Arc<Checkpoint> {
    let mut checkpoint = Checkpoint::default();
    checkpoint.metadata.name = Some(format!("a-step-{step}"));
    checkpoint.metadata.uid = Some(format!("c{step}"));
    checkpoint.metadata.finalizers = Some(vec![names::CHECKPOINT_FINALIZER.into()]);
    checkpoint.spec.step = step;
    checkpoint.spec.lineage = 1;
    checkpoint.status = Some(CheckpointStatus {
        phase,
        metrics: [("eval_loss".to_owned(), loss.to_owned())].into(),
        ..CheckpointStatus::default()
    });
    Arc::new(checkpoint)
}

/// Anything that can happen to a run between two looks at it.
#[derive(Clone, Debug)]
enum Happening {
    Runs,
    Completes,
    Fails,
    LastReport,
    JobDeleted,
    PodsGone,
    Suspended(bool),
    Desired(DesiredState),
    Restarted,
    Saved(i64),
    ModelGone,
    ModelBack,
    BudgetSet(i64),
    BudgetLifted,
    JobLeaves,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        Just(Happening::Runs),
        Just(Happening::Completes),
        Just(Happening::Fails),
        Just(Happening::LastReport),
        Just(Happening::JobDeleted),
        Just(Happening::PodsGone),
        any::<bool>().prop_map(Happening::Suspended),
        prop_oneof![Just(DesiredState::Running), Just(DesiredState::Paused), Just(DesiredState::Stopped)]
            .prop_map(Happening::Desired),
        Just(Happening::Restarted),
        (1_i64..5).prop_map(Happening::Saved),
        Just(Happening::ModelGone),
        Just(Happening::ModelBack),
        prop_oneof![Just(1), Just(2), Just(24)].prop_map(Happening::BudgetSet),
        Just(Happening::BudgetLifted),
        Just(Happening::JobLeaves),
    ]
}

fn happen(observed: &mut ObservedFineTune, happening: Happening) {
    let over = observed.jobs.last().is_some_and(|job| outcome(job, &[]).is_some());
    match happening {
        Happening::Runs if !observed.jobs.is_empty() && !over => job_becomes(observed, "Running", None),
        Happening::Completes if !observed.jobs.is_empty() && !over => job_becomes(observed, "Succeeded", Some("Complete")),
        Happening::Fails if !observed.jobs.is_empty() && !over => job_becomes(observed, "Failed", Some("Failed")),
        Happening::LastReport if observed.fine_tune.status.is_some() => report_end(observed),
        Happening::JobDeleted => drop(observed.jobs.pop()),
        Happening::PodsGone => observed.pods.clear(),
        Happening::Suspended(suspended) if !observed.jobs.is_empty() && !over => {
            Arc::make_mut(observed.jobs.last_mut().unwrap()).spec.as_mut().unwrap().suspend = Some(suspended);
        }
        Happening::Desired(desired) => edit(observed, |run| run.spec.desired_state = desired),
        Happening::Restarted => edit(observed, |run| run.spec.restarts += 1),
        Happening::Saved(step) => observed.checkpoints.push(checkpoint(step, "0.5", CheckpointPhase::Ready)),
        Happening::ModelGone => observed.base_model = None,
        Happening::ModelBack => observed.base_model = world(json!({})).base_model,
        Happening::BudgetSet(hours) => edit(observed, |run| {
            run.spec.budget = Some(crate::api::Budget { max_cost: None, max_duration: Some(format!("{hours}h")) });
        }),
        Happening::BudgetLifted => edit(observed, |run| run.spec.budget = None),
        Happening::JobLeaves if !observed.jobs.is_empty() => {
            Arc::make_mut(observed.jobs.last_mut().unwrap()).metadata.deletion_timestamp = Some(Time(now()));
        }
        _ => {}
    }
}

/// Whether what is on record alone uses up the budget.
fn spent_on_record(world: &ObservedFineTune) -> bool {
    let allowed = world.fine_tune.spec.budget.as_ref().and_then(|budget| budget.max_duration.as_deref());
    let hours = allowed.map(|text| text.trim_end_matches('h').parse::<i64>().unwrap());
    hours.is_some_and(|hours| world.status().cost.map_or(0, |cost| cost.seconds) >= hours * 3600)
}

fn active_jobs(world: &ObservedFineTune) -> usize {
    world
        .jobs
        .iter()
        .filter(|job| job.metadata.labels.as_ref().unwrap()[names::ROLE] == names::ROLE_TRAIN && outcome(job, &[]).is_none())
        .count()
}

proptest! {
    #[test]
    fn no_world_makes_two_jobs_active_and_every_plan_carried_out_is_the_last(happenings in proptest::collection::vec(happening(), 0..25)) {
        let mut world = world(json!({}));
        for happening in happenings {
            happen(&mut world, happening);
            let was_over = condition::is_true(&world.status().conditions, condition::FINISHED) && world.fine_tune.spec.restarts == world.status().restarts;
            let before = world.status();
            let is_spent = spent_on_record(&world);
            let next = step(&mut world);
            prop_assert!(active_jobs(&world) <= 1, "two active jobs");
            let trains = jobs_made(&next).iter().any(|name| name.ends_with(|last: char| last.is_ascii_digit()));
            prop_assert!(!(is_spent && trains), "an attempt begins though the budget is spent");
            let cost = |status: &FineTuneStatus| status.cost.clone().unwrap_or_default();
            prop_assert!(cost(&world.status()).seconds >= cost(&before).seconds, "the books shrink");
            let before = before.phase;
            if was_over {
                prop_assert_eq!(world.status().phase, before, "a terminal state is left");
            }
            let ended = [FineTunePhase::Failed, FineTunePhase::Stopped, FineTunePhase::Succeeded].contains(&world.status().phase);
            if ended && !was_over {
                prop_assert_eq!(AttemptFacts::of(&world).live_pods, 0, "ended while a pod trains");
            }
            for _ in 0..3 {
                step(&mut world);
            }
            let settled = plan(&world, &settings(), now());
            let repeats_only = settled.changes.iter().all(|change| matches!(change, Change::CreateOnce(_)));
            prop_assert!(repeats_only && settled.status == Some(world.status()), "a plan that was carried out asks for more: {:?}", settled);
            prop_assert!(settled.notices.is_empty());
        }
    }
}
