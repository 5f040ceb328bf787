//! Runs that wait for their turn.

use super::*;
use crate::api::QueueStatus;

const JOB: &str = "a-0b9f6a1e-1";

/// A run in a queue, whose Job Kueue holds back.
fn queued() -> ObservedFineTune {
    let mut world = world(json!({"queue": {"name": "team", "priorityClass": "high"}}));
    step(&mut world);
    suspend(&mut world, true);
    step(&mut world);
    world
}

fn suspend(world: &mut ObservedFineTune, suspended: bool) {
    Arc::make_mut(&mut world.jobs[0]).spec.as_mut().unwrap().suspend = Some(suspended);
}

fn stands(world: &mut ObservedFineTune, position: Option<i64>, reason: &str) {
    let reason = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
    world.places = [(JOB.to_owned(), QueueStatus { position, reason })].into();
}

fn place(world: &ObservedFineTune) -> Option<(Option<i64>, Option<String>)> {
    world.status().queue.map(|queue| (queue.position, queue.reason))
}

/// A pod that began at a time of 15 January 2027 and, unless it runs, ended at another.
fn pod(world: &ObservedFineTune, name: &str, start: &str, end: Option<&str>) -> Arc<corev1::Pod> {
    let day = |time: &str| format!("2027-01-15T{time}Z");
    let state =
        end.map_or_else(|| json!({"running": {}}), |end| json!({"terminated": {"exitCode": 143, "finishedAt": day(end)}}));
    object::<corev1::Pod>(json!({
        "metadata": {"name": name, "uid": name, "labels": world.jobs[0].metadata.labels},
        "status": {"phase": if end.is_some() { "Failed" } else { "Running" }, "startTime": day(start), "containerStatuses": [
            {"name": "trainer", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state}]},
    }))
}

fn step_at(world: &mut ObservedFineTune, time: &str) -> Plan<FineTuneStatus> {
    let plan = plan(world, &settings(), format!("2027-01-15T{time}Z").parse().unwrap());
    carry_out(world, &plan);
    plan
}

#[test]
fn a_job_that_is_held_back_makes_the_run_queued_with_its_place_and_leaving_takes_the_place_away() {
    let mut world = queued();
    let labels = world.jobs[0].metadata.labels.clone().unwrap();
    assert_eq!(
        (labels[crate::plan::queue::QUEUE].as_str(), labels[crate::plan::queue::PRIORITY_CLASS].as_str()),
        ("team", "high")
    );
    assert_eq!((phase(&world), reason(&world, condition::READY).as_deref()), (FineTunePhase::Queued, Some("Queued")));
    assert_eq!(place(&world), None, "Kueue was not asked yet");
    stands(&mut world, Some(2), "one GPU is missing");
    step(&mut world);
    assert_eq!(place(&world), Some((Some(2), Some("one GPU is missing".to_owned()))));
    suspend(&mut world, false);
    world.places.clear();
    step(&mut world);
    assert_eq!((phase(&world), place(&world)), (FineTunePhase::Preparing, None));
}

#[test]
fn what_was_known_stays_until_kueue_was_asked_and_goes_when_kueue_does_not_know() {
    let mut world = queued();
    stands(&mut world, Some(2), "");
    step(&mut world);
    world.places.clear();
    assert_eq!(step(&mut world).status, Some(world.status()));
    assert_eq!(place(&world), Some((Some(2), None)));
    stands(&mut world, None, "");
    step(&mut world);
    assert_eq!(place(&world), None);
}

#[test]
fn a_first_place_is_written_at_once_and_its_changes_at_most_once_a_minute() {
    let mut world = queued();
    let ago = |seconds: i64| Timestamp::from_second(now().as_second() - seconds).ok();
    world.last_status_write = ago(1);
    stands(&mut world, Some(3), "full");
    step(&mut world);
    assert_eq!(place(&world).unwrap().0, Some(3));
    stands(&mut world, Some(2), "full");
    let waits = step(&mut world);
    assert_eq!((place(&world).unwrap().0, waits.next), (Some(3), Next::After(std::time::Duration::from_secs(59))));
    world.last_status_write = ago(60);
    step(&mut world);
    assert_eq!(place(&world).unwrap().0, Some(2));
    world.last_status_write = ago(1);
    stands(&mut world, Some(1), "full");
    edit(&mut world, |run| run.spec.desired_state = DesiredState::Paused);
    step(&mut world);
    assert_eq!(place(&world), None, "other news waits for nothing");
}

#[test]
fn a_pod_that_no_node_takes_has_a_reason_and_no_place() {
    let mut world = world(json!({}));
    step(&mut world);
    let unscheduled = |message: &str| {
        json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": "2027-01-15T07:00:00Z"}])
    };
    let labels = world.jobs[0].metadata.labels.clone();
    world.pods = vec![object::<corev1::Pod>(json!({
        "metadata": {"name": "p", "uid": "p", "labels": labels},
        "status": {"phase": "Pending", "conditions": unscheduled("0/2 nodes are available: 2 Insufficient nvidia.com/gpu")},
    }))];
    step(&mut world);
    let (position, why) = place(&world).unwrap();
    assert_eq!((phase(&world), position), (FineTunePhase::Queued, None));
    assert!(why.unwrap().contains("Insufficient nvidia.com/gpu"));
    world.last_status_write = Some(now());
    let status = Arc::make_mut(&mut world.pods[0]).status.as_mut().unwrap();
    status.conditions = serde_json::from_value(unscheduled("0/3 nodes are available")).unwrap();
    assert_eq!(step(&mut world).status, Some(world.status()), "new words for the same can wait");
    job_becomes(&mut world, "Running", None);
    step(&mut world);
    assert_eq!((phase(&world), place(&world)), (FineTunePhase::Running, None));
}

#[test]
fn an_evicted_run_waits_again_goes_on_in_the_same_attempt_and_pays_for_both_turns() {
    let mut world = queued();
    suspend(&mut world, false);
    world.pods = vec![pod(&world, "one", "07:00:00", None)];
    step_at(&mut world, "07:00:10");
    assert_eq!((phase(&world), place(&world)), (FineTunePhase::Running, None));

    suspend(&mut world, true);
    stands(&mut world, Some(1), "evicted (Preempted)");
    assert_eq!(step_at(&mut world, "07:29:00").changes, []);
    assert_eq!(phase(&world), FineTunePhase::Queued);
    assert_eq!(place(&world), Some((Some(1), Some("evicted (Preempted)".to_owned()))));
    edit(&mut world, |run| {
        let progress = Progress { attempt: 1, step: 50, ..Progress::default() };
        run.status.as_mut().unwrap().progress = Some(progress);
    });
    world.pods.clear();
    step_at(&mut world, "07:30:00");
    let after_first = world.status();
    assert_eq!(after_first.cost.as_ref().unwrap().accrued, "1.8", "half an hour at 3.60, though the pod is gone");
    assert_eq!(step_at(&mut world, "09:00:00").status, Some(after_first), "waiting costs nothing and writes nothing");

    suspend(&mut world, false);
    world.pods = vec![pod(&world, "two", "10:00:00", None)];
    assert_eq!(step_at(&mut world, "10:00:10").changes, [], "the Job makes its next pod itself");
    assert_eq!((phase(&world), world.jobs.len()), (FineTunePhase::Running, 1));
    world.pods = vec![pod(&world, "two", "10:00:00", Some("11:00:00"))];
    let complete = json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2027-01-15T11:00:00Z"}]});
    Arc::make_mut(&mut world.jobs[0]).status = serde_json::from_value(complete).unwrap();
    edit(&mut world, |run| {
        let ended_by = Some("two".to_owned());
        let progress = Progress { attempt: 1, step: 200, resumed_from: Some(50), ended_by, ..Progress::default() };
        run.status.as_mut().unwrap().progress = Some(progress);
    });
    step_at(&mut world, "11:00:01");
    let status = world.status();
    assert_eq!(status.phase, FineTunePhase::Succeeded);
    let attempt = &status.attempts[0];
    assert_eq!((status.attempts.len(), attempt.number, attempt.from_step, attempt.to_step), (1, 1, 0, 200));
    assert_eq!((attempt.gpu_seconds, attempt.turn_start.is_none()), (2 * 5400, true), "half an hour and an hour on two GPUs");
    assert_eq!((status.cost.as_ref().unwrap().accrued.as_str(), status.cost.as_ref().unwrap().gpu_seconds), ("5.4", 2 * 5400));
    assert_eq!(status.resumed_from, Some(50));
}

#[test]
fn an_evicted_pod_that_lingers_is_paid_for_once() {
    let mut world = queued();
    suspend(&mut world, false);
    world.pods = vec![pod(&world, "one", "07:00:00", None)];
    step_at(&mut world, "07:00:10");
    suspend(&mut world, true);
    let mut ended = pod(&world, "one", "07:00:00", Some("07:30:00"));
    Arc::make_mut(&mut ended).metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-15T07:29:00Z")).unwrap();
    world.pods = vec![ended.clone()];
    step_at(&mut world, "07:30:01");
    assert_eq!(world.status().cost.unwrap().accrued, "1.8");
    step_at(&mut world, "07:40:00");
    suspend(&mut world, false);
    world.pods = vec![ended, pod(&world, "two", "10:00:00", None)];
    step_at(&mut world, "10:00:10");
    edit(&mut world, |run| run.spec.desired_state = DesiredState::Stopped);
    step_at(&mut world, "10:30:00");
    step_at(&mut world, "10:30:00");
    assert_eq!((phase(&world), world.status().cost.unwrap().accrued), (FineTunePhase::Stopped, "3.6".to_owned()));
}

#[test]
fn a_pause_in_the_queue_deletes_the_job_and_costs_nothing() {
    let mut world = queued();
    edit(&mut world, |run| run.spec.desired_state = DesiredState::Paused);
    assert!(matches!(&step(&mut world).changes[..], [Change::Delete(reference)] if reference.name == JOB));
    step(&mut world);
    assert_eq!((phase(&world), place(&world)), (FineTunePhase::Paused, None));
    assert_eq!(world.status().cost.unwrap().accrued, "0");
    edit(&mut world, |run| run.spec.desired_state = DesiredState::Running);
    let jobs = step(&mut world);
    assert_eq!(jobs_made(&jobs).len(), 1);
    for change in &jobs.changes {
        if let Change::CreateOnce(Child::Job(job)) = change {
            assert_eq!(job.spec.as_ref().unwrap().suspend, None, "whether a Job is held back is for Kueue to say");
        }
    }
}
