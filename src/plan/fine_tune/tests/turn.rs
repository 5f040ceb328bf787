//! What pods are said to have held, however they come and go.

use super::*;
use crate::api::Cost;

/// A run on two GPUs a node at 3.60 an hour, before its first pod.
fn launched(nodes: i32) -> ObservedFineTune {
    let mut world = on_nodes(nodes, json!({"retries": 0}));
    step_at(&mut world, "06:00:00");
    world
}

fn leaving(mut pod: Arc<corev1::Pod>) -> Arc<corev1::Pod> {
    Arc::make_mut(&mut pod).metadata.deletion_timestamp = Some(Time(at("07:30:00")));
    pod
}

/// Stops the run: what its pods held is booked, they vanish, and it rests.
fn stop(world: &mut ObservedFineTune, time: &str) {
    edit(world, |run| run.spec.desired_state = DesiredState::Stopped);
    for _ in 0..3 {
        step_at(world, time);
    }
    assert_eq!(phase(world), FineTunePhase::Stopped);
}

/// The Job fails, and the last report of its last pod is there.
fn fails(world: &mut ObservedFineTune, time: &str, last_pod: &str) {
    let status = json!({"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": at(time).to_string()}]});
    Arc::make_mut(&mut world.jobs[0]).status = serde_json::from_value(status).unwrap();
    report_end(world);
    edit(world, |run| run.status.as_mut().unwrap().progress.as_mut().unwrap().ended_by = Some(last_pod.into()));
}

fn cost(world: &ObservedFineTune) -> Cost {
    world.status().cost.unwrap()
}

/// Seconds, GPU seconds and amount on record.
fn booked(world: &ObservedFineTune) -> (i64, i64, String) {
    let cost = cost(world);
    (cost.seconds, cost.gpu_seconds, cost.accrued)
}

fn hours(hours: i64, gpus: i64, amount: &str) -> (i64, i64, String) {
    (hours * 3600, hours * 3600 * gpus, amount.into())
}

#[test]
fn pods_that_vanish_unseen_held_their_node_until_others_took_their_place_and_waiting_costs_nothing() {
    let mut world = launched(1);
    for (name, start, gone, replaced) in [("a", "07:00:00", "08:00:05", "08:00:00"), ("b", "10:00:00", "11:00:05", "11:00:00")] {
        world.pods = vec![pod_of(&world, name, start, None)];
        step_at(&mut world, start);
        world.pods = vec![waiting(&world, "next", replaced, None)];
        step_at(&mut world, gone);
        assert_eq!(world.status().attempts[0].turn_start, None, "nothing is held");
    }
    assert_eq!(booked(&world), hours(2, 2, "7.2"));
    world.pods = vec![pod_of(&world, "next", "13:00:00", None)];
    step_at(&mut world, "13:00:00");
    stop(&mut world, "14:00:00");
    assert_eq!(booked(&world), hours(3, 2, "10.8"));
    assert_eq!((world.status().attempts[0].gpu_seconds, world.status().attempts.len()), (3 * 7200, 1));
}

#[test]
fn a_pod_that_vanishes_before_it_is_replaced_held_its_node_until_it_was_missed() {
    let mut world = launched(1);
    world.pods = vec![pod_of(&world, "a", "07:00:00", None)];
    step_at(&mut world, "07:00:00");
    world.pods.clear();
    step_at(&mut world, "08:00:00");
    assert_eq!(booked(&world), hours(1, 2, "3.6"));
    let quiet = world.status();
    assert_eq!(step_at(&mut world, "09:00:00").status, Some(quiet));
}

#[test]
fn the_pause_between_a_failed_pod_and_the_next_costs_nothing() {
    let mut world = launched(1);
    world.pods = vec![pod_of(&world, "a", "07:00:00", None)];
    step_at(&mut world, "07:00:00");
    let failed = pod_of(&world, "a", "07:00:00", Some("08:00:00"));
    world.pods = vec![failed.clone()];
    let before = world.status();
    assert_eq!(step_at(&mut world, "08:00:01").status, Some(before), "that a pod failed alone is no news");
    world.pods = vec![failed.clone(), pod_of(&world, "b", "08:30:00", None)];
    step_at(&mut world, "08:30:01");
    assert_eq!(world.status().attempts[0].turn_start, Some(Time(at("08:30:00"))), "readers count from here");
    assert_eq!(booked(&world), hours(1, 2, "3.6"));
    world.pods = vec![failed, pod_of(&world, "b", "08:30:00", Some("09:30:00"))];
    fails(&mut world, "09:30:01", "b");
    step_at(&mut world, "09:31:00");
    assert_eq!((phase(&world), booked(&world)), (FineTunePhase::Failed, hours(2, 2, "7.2")));
}

#[test]
fn each_node_of_several_is_paid_for_and_the_time_counts_once() {
    let mut world = launched(3);
    assert_eq!(cost(&world).per_hour, "10.8");
    let pods = |world: &ObservedFineTune, end| {
        let pod = |index: &str, start| {
            let mut pod = with_index(pod_of(world, index, start, end), index);
            Arc::make_mut(&mut pod).metadata.creation_timestamp = Some(Time(at("06:59:00")));
            pod
        };
        vec![pod("0", "07:00:00"), pod("1", "07:00:00"), pod("2", "07:30:00")]
    };
    world.pods = pods(&world, None);
    step_at(&mut world, "07:30:00");
    world.pods = pods(&world, Some("08:00:00"));
    fails(&mut world, "08:00:00", "2");
    step_at(&mut world, "08:10:00");
    assert_eq!((phase(&world), booked(&world)), (FineTunePhase::Failed, (3600, 2 * 9000, "9".into())));
}

#[test]
fn nodes_whose_pods_are_gone_before_we_look_held_them_until_their_job_ended() {
    let mut world = launched(3);
    world.pods = ["0", "1", "2"].map(|index| with_index(pod_of(&world, index, "07:00:00", None), index)).into();
    step_at(&mut world, "07:00:10");
    world.pods.clear();
    fails(&mut world, "08:00:00", "2");
    step_at(&mut world, "12:00:00");
    assert_eq!((phase(&world), booked(&world)), (FineTunePhase::Preparing, (3600, 6 * 3600, "10.8".into())));
}

/// A pod that was evicted before any of its containers began.
fn evicted(world: &ObservedFineTune, name: &str, start: &str, end: &str) -> Arc<corev1::Pod> {
    let mut pod = waiting(world, name, start, Some(start));
    let status = Arc::make_mut(&mut pod).status.as_mut().unwrap();
    let disrupted = json!([{"type": "DisruptionTarget", "status": "True", "lastTransitionTime": at(end).to_string()}]);
    (status.phase, status.conditions) = (Some("Failed".into()), serde_json::from_value(disrupted).unwrap());
    pod
}

#[test]
fn what_evicted_pods_held_is_on_record_before_they_go_and_ended_with_them() {
    let mut world = launched(1);
    world.pods = vec![evicted(&world, "a", "07:00:00", "08:00:00")];
    let quiet = world.status();
    assert_eq!(step_at(&mut world, "08:30:00").status, Some(quiet), "it is there to be seen");
    world.pods.push(pod_of(&world, "b", "09:00:00", None));
    step_at(&mut world, "09:00:01");
    assert_eq!(booked(&world), hours(1, 2, "3.6"));
    world.pods = vec![evicted(&world, "b", "09:00:00", "10:00:00")];
    step_at(&mut world, "11:00:00");
    stop(&mut world, "12:00:00");
    assert_eq!(booked(&world), hours(2, 2, "7.2"));

    let mut world = launched(1);
    world.pods = vec![evicted(&world, "a", "07:00:00", "08:00:00")];
    stop(&mut world, "12:00:00");
    assert_eq!(booked(&world), hours(1, 2, "3.6"), "though its Job took it away");
}

#[test]
fn what_a_pod_held_while_it_loaded_its_data_is_known_once_it_is_about_to_go() {
    let mut world = launched(1);
    world.pods = vec![waiting(&world, "a", "07:00:00", Some("07:00:00"))];
    step_at(&mut world, "07:10:00");
    assert_eq!(world.status().attempts[0].turn_start, None, "that it has its node is no news");
    world.pods = vec![leaving(world.pods[0].clone())];
    step_at(&mut world, "07:30:00");
    world.pods = vec![waiting(&world, "b", "08:00:00", None)];
    step_at(&mut world, "08:00:01");
    assert_eq!(booked(&world), hours(1, 2, "3.6"));
    stop(&mut world, "12:00:00");
    assert_eq!(booked(&world), hours(1, 2, "3.6"));
}

#[test]
fn an_attempt_of_another_price_adds_to_what_is_on_record() {
    let mut world = launched(1);
    world.pods = vec![pod_of(&world, "a", "07:00:00", None)];
    step_at(&mut world, "07:00:00");
    stop(&mut world, "08:00:00");
    Arc::make_mut(world.hardware.as_mut().unwrap()).spec.cost_per_hour = Some("0.00001".into());
    edit(&mut world, |run| {
        run.spec.desired_state = DesiredState::Running;
        run.spec.restarts = 1;
    });
    step_at(&mut world, "09:00:00");
    assert_eq!((cost(&world).per_hour.as_str(), booked(&world)), ("0.00001", hours(1, 2, "3.6")));
    world.pods = vec![pod_of(&world, "b", "09:30:00", None)];
    step_at(&mut world, "09:30:00");
    stop(&mut world, "10:30:00");
    assert_eq!(booked(&world), hours(2, 2, "3.60001"), "a thousandth of a cent is not lost");
}

#[test]
fn two_currencies_are_never_added_up() {
    let mut world = launched(1);
    let currency = |world: &mut ObservedFineTune, name: &str| {
        Arc::make_mut(world.hardware.as_mut().unwrap()).spec.currency = name.into();
    };
    currency(&mut world, "EUR");
    world.pods = vec![pod_of(&world, "a", "07:00:00", None)];
    step_at(&mut world, "07:00:00");
    stop(&mut world, "08:00:00");
    let spent = cost(&world);
    edit(&mut world, |run| {
        run.spec.desired_state = DesiredState::Running;
        run.spec.restarts = 1;
    });
    let blocked = step_at(&mut world, "09:00:00");
    assert_eq!((jobs_made(&blocked).len(), reason(&world, condition::STALLED).as_deref()), (0, Some("CurrencyDiffers")));
    currency(&mut world, &spent.currency);
    assert_eq!(jobs_made(&step_at(&mut world, "09:00:01")).len(), 1);
    assert_eq!(cost(&world), spent);
}

#[test]
fn prices_no_one_can_pay_and_prices_that_are_none_overflow_nothing() {
    for (price, accrued) in [("999999999999999999999999", "999999999999999999999999"), ("a lot", "0")] {
        let mut world = world(json!({}));
        Arc::make_mut(world.hardware.as_mut().unwrap()).spec.cost_per_hour = Some(price.into());
        step_at(&mut world, "06:00:00");
        world.pods = vec![pod_of(&world, "a", "07:00:00", None)];
        step_at(&mut world, "07:00:00");
        stop(&mut world, "08:00:00");
        assert_eq!(booked(&world), hours(1, 2, accrued));
    }
}
