//! Runs whose budget is spent.

use std::time::Duration;

use super::*;

/// A run on two GPUs at 3.60 an hour whose pod took its node at seven.
fn at_work(budget: Value) -> ObservedFineTune {
    let mut world = world(json!({"budget": budget}));
    step_at(&mut world, "06:59:00");
    world.pods = vec![pod_of(&world, "p", "07:00:00", None)];
    step_at(&mut world, "07:00:10");
    assert_eq!(phase(&world), FineTunePhase::Running);
    world
}

/// The Job is being deleted in the foreground: it stays until its pods are gone.
fn leaves(world: &mut ObservedFineTune) {
    Arc::make_mut(&mut world.jobs[0]).metadata.deletion_timestamp = Some(Time(at("08:00:00")));
}

/// The plan, and of it only the status carried out: the writes before it were made, and their effect is not seen yet.
fn status_alone(world: &mut ObservedFineTune, time: &str) -> Vec<Change> {
    let plan = plan(world, &settings(), at(time));
    carry_out(world, &Plan { changes: Vec::new(), ..plan.clone() });
    plan.changes
}

/// Asked to end at nine, and ended a minute later.
fn spent(budget: Value) -> ObservedFineTune {
    let mut world = at_work(budget);
    step_at(&mut world, "09:00:00");
    step_at(&mut world, "09:01:00");
    assert_eq!(phase(&world), FineTunePhase::Failed);
    world
}

fn finished(world: &ObservedFineTune) -> bool {
    condition::is_true(&world.status().conditions, condition::FINISHED)
}

fn allow(world: &mut ObservedFineTune, duration: &str) {
    edit(world, |run| {
        run.spec.budget.as_mut().unwrap().max_duration = Some(duration.into());
        run.metadata.generation = run.metadata.generation.map(|generation| generation + 1);
    });
}

fn within(seconds: u64) -> Next {
    Next::After(Duration::from_secs(seconds))
}

fn begins_nothing(plan: &Plan<FineTuneStatus>) -> bool {
    jobs_made(plan).is_empty()
}

#[test]
fn a_spent_duration_ends_the_pods_first_and_says_failed_last() {
    let mut world = at_work(json!({"maxDuration": "2h"}));
    let waits = step_at(&mut world, "08:00:00");
    assert_eq!((waits.changes, waits.next), (vec![], within(3600)));
    let quiet = world.status();
    let waits = step_at(&mut world, "08:59:59");
    assert_eq!((waits.status, waits.next), (Some(quiet), within(1)), "time alone writes nothing");

    let asked = status_alone(&mut world, "09:00:00");
    assert!(matches!(&asked[..], [Change::Delete(reference)] if reference.kind == ChildKind::Job), "{asked:?}");
    assert_eq!((phase(&world), reason(&world, condition::READY).as_deref()), (FineTunePhase::Stopping, Some("DeadlineExceeded")));
    let again = status_alone(&mut world, "09:00:01");
    assert_eq!((again, finished(&world)), (asked, false), "a deletion that failed is asked for again");
    leaves(&mut world);
    assert_eq!((status_alone(&mut world, "09:00:30"), phase(&world)), (vec![], FineTunePhase::Stopping));
    world.jobs.clear();
    assert_eq!((status_alone(&mut world, "09:00:45"), phase(&world)), (vec![], FineTunePhase::Stopping), "a pod is left");
    world.pods.clear();
    let end = step_at(&mut world, "09:01:00");
    assert_eq!((end.changes, end.notices.len(), phase(&world)), (vec![], 1, FineTunePhase::Failed));

    let status = world.status();
    assert!(finished(&world) && condition::is_true(&status.conditions, condition::STALLED));
    assert_eq!(reason(&world, condition::STALLED).as_deref(), Some("DeadlineExceeded"));
    let failure = status.failure.clone().unwrap();
    assert_eq!((failure.reason.as_str(), failure.user_error), ("DeadlineExceeded", true));
    assert_eq!(failure.message, "spec.budget.maxDuration: 2h1m of 2h are spent");
    assert!(failure.hint.contains("raise spec.budget.maxDuration") && failure.hint.contains("spec.restarts"));
    assert_eq!(status.attempts[0].reason.as_deref(), Some("DeadlineExceeded"));
    let cost = status.cost.clone().unwrap();
    assert_eq!((cost.seconds, cost.gpu_seconds, cost.accrued.as_str()), (7260, 2 * 7260, "7.26"));
    let after = step_at(&mut world, "23:00:00");
    assert_eq!((after.changes, after.status, after.next), (vec![], Some(status), Next::OnChange));
}

#[test]
fn a_spent_amount_is_told_with_its_currency() {
    let mut world = at_work(json!({"maxCost": "7.20", "maxDuration": "24h"}));
    assert_eq!(step_at(&mut world, "08:00:00").next, within(3600));
    step_at(&mut world, "09:00:00");
    step_at(&mut world, "09:10:00");
    let failure = world.status().failure.unwrap();
    assert_eq!(
        (failure.reason.as_str(), failure.message.as_str()),
        ("BudgetExceeded", "spec.budget.maxCost: 7.8 of 7.20 USD are spent")
    );
}

#[test]
fn of_two_limits_the_one_that_was_reached_first_is_told() {
    for (budget, reason) in [
        (json!({"maxCost": "7.21", "maxDuration": "2h"}), "DeadlineExceeded"),
        (json!({"maxCost": "7.20", "maxDuration": "120m1s"}), "BudgetExceeded"),
    ] {
        assert_eq!(spent(budget).status().failure.unwrap().reason, reason, "though both are spent when the pods have ended");
    }
}

#[test]
fn several_nodes_spend_the_amount_together_and_the_time_once() {
    let mut world = on_nodes(4, json!({"budget": {"maxCost": "3.60"}}));
    step_at(&mut world, "06:59:00");
    let nodes = ["0", "1", "2", "3"].map(|index| with_index(pod_of(&world, index, "07:00:00", None), index));
    world.pods = nodes.into();
    assert_eq!(step_at(&mut world, "07:05:00").next, within(600), "a quarter of an hour on four nodes");
    edit(&mut world, |run| run.spec.budget.as_mut().unwrap().max_duration = Some("6m".into()));
    assert_eq!(step_at(&mut world, "07:05:00").next, within(60));
}

#[test]
fn loading_data_counts_and_waiting_does_not() {
    let mut world = world(json!({"budget": {"maxDuration": "1h"}}));
    step_at(&mut world, "06:00:00");
    assert_eq!(step_at(&mut world, "06:59:00").next, within(15), "as without a budget");
    world.pods = vec![pod_of(&world, "p", "07:00:00", None)];
    let pod = Arc::make_mut(&mut world.pods[0]).status.as_mut().unwrap();
    (pod.phase, pod.container_statuses) = (Some("Pending".into()), None);
    assert_eq!(step_at(&mut world, "07:59:50").next, within(10));
    assert_eq!(step_at(&mut world, "08:00:00").changes, [], "what was spent is on record first");
    assert!(matches!(step_at(&mut world, "08:00:00").changes[..], [Change::Delete(_)]));
    step_at(&mut world, "08:00:05");
    assert_eq!(world.status().failure.unwrap().message, "spec.budget.maxDuration: 1h5s of 1h are spent");
}

#[test]
fn a_run_that_completes_in_the_same_moment_succeeds() {
    for is_leaving in [false, true] {
        let mut world = at_work(json!({"maxDuration": "1h"}));
        if is_leaving {
            status_alone(&mut world, "09:00:00");
            leaves(&mut world);
        }
        job_becomes(&mut world, "Succeeded", None);
        report_end(&mut world);
        assert_eq!(status_alone(&mut world, "09:00:01"), [], "leaving: {is_leaving}");
        job_becomes(&mut world, "Succeeded", Some("Complete"));
        step_at(&mut world, "09:00:02");
        assert_eq!(phase(&world), FineTunePhase::Succeeded, "leaving: {is_leaving}");
    }
}

#[test]
fn a_job_that_fails_of_the_signal_has_not_failed_by_itself() {
    for (desired, ends_as) in
        [("Running", FineTunePhase::Failed), ("Paused", FineTunePhase::Paused), ("Stopped", FineTunePhase::Stopped)]
    {
        let mut world = at_work(json!({"maxDuration": "1h"}));
        edit(&mut world, |run| run.spec.desired_state = serde_json::from_value(json!(desired)).unwrap());
        status_alone(&mut world, "09:00:00");
        leaves(&mut world);
        job_becomes(&mut world, "Failed", Some("Failed"));
        assert_eq!(status_alone(&mut world, "09:00:30"), []);
        assert!([FineTunePhase::Stopping, FineTunePhase::Pausing].contains(&phase(&world)), "{desired}");
        (world.jobs, world.pods) = (Vec::new(), Vec::new());
        step_at(&mut world, "09:01:00");
        assert_eq!(phase(&world), ends_as);
        let failure = world.status().failure.map(|failure| failure.reason);
        assert_eq!(failure.as_deref(), (desired == "Running").then_some("DeadlineExceeded"));
    }
}

#[test]
fn raised_restarts_alone_is_blocked_by_the_budget_and_a_raised_budget_goes_on() {
    let mut world = spent(json!({"maxDuration": "2h", "maxCost": "100"}));
    edit(&mut world, |run| run.spec.restarts = 1);
    let plan = step_at(&mut world, "10:00:00");
    assert_eq!((plan.changes, phase(&world), finished(&world)), (vec![], FineTunePhase::Pending, false));
    assert_eq!(reason(&world, condition::STALLED).as_deref(), Some("DeadlineExceeded"));
    let ready = condition::find(&world.status().conditions, condition::READY).unwrap().message.clone();
    assert_eq!(ready, "spec.budget.maxDuration: 2h1m of 2h are spent: raise it to go on");
    assert!(world.status().failure.unwrap().user_error);
    allow(&mut world, "3h");
    assert_eq!(jobs_made(&step_at(&mut world, "10:01:00")), ["a-0b9f6a1e-2"]);
    world.pods = vec![pod_of(&world, "q", "11:00:00", None)];
    assert_eq!(step_at(&mut world, "11:00:10").next, within(3600 - 60 - 10), "two hours and a minute are gone");
}

#[test]
fn a_pause_stops_the_clock_and_a_paused_run_with_nothing_left_waits_for_a_raised_budget() {
    let mut world = at_work(json!({"maxDuration": "2h"}));
    edit(&mut world, |run| run.spec.desired_state = DesiredState::Paused);
    step_at(&mut world, "08:00:00");
    step_at(&mut world, "08:00:01");
    assert_eq!((phase(&world), step_at(&mut world, "20:00:00").next), (FineTunePhase::Paused, Next::OnChange));
    allow(&mut world, "1h");
    edit(&mut world, |run| run.spec.desired_state = DesiredState::Running);
    assert!(begins_nothing(&step_at(&mut world, "20:00:00")));
    assert_eq!((phase(&world), finished(&world)), (FineTunePhase::Pending, false));
    allow(&mut world, "2h");
    assert_eq!(jobs_made(&step_at(&mut world, "20:00:01")), ["a-0b9f6a1e-2"]);
}

#[test]
fn a_lowered_budget_ends_a_run_and_one_raised_in_time_saves_it() {
    let mut world = at_work(json!({"maxDuration": "24h"}));
    allow(&mut world, "30m");
    assert!(matches!(status_alone(&mut world, "08:00:00")[..], [Change::Delete(_)]));
    allow(&mut world, "24h");
    leaves(&mut world);
    status_alone(&mut world, "08:00:01");
    assert_eq!(phase(&world), FineTunePhase::Preparing, "its pods end all the same");
    (world.jobs, world.pods) = (Vec::new(), Vec::new());
    assert_eq!(jobs_made(&step_at(&mut world, "08:00:02")), ["a-0b9f6a1e-2"]);
}

#[test]
fn a_node_whose_clock_is_late_does_not_bring_a_spent_run_back() {
    let mut world = at_work(json!({"maxDuration": "2h"}));
    status_alone(&mut world, "09:00:00");
    leaves(&mut world);
    world.pods = vec![pod_of(&world, "p", "07:00:00", Some("08:59:58"))];
    status_alone(&mut world, "09:00:03");
    assert_eq!(phase(&world), FineTunePhase::Stopping);
    world.jobs.clear();
    let end = step_at(&mut world, "09:00:04");
    assert_eq!((end.changes, phase(&world)), (vec![], FineTunePhase::Failed));
    assert_eq!(world.status().failure.unwrap().message, "spec.budget.maxDuration: 1h59m58s of 2h are spent");
}

#[test]
fn a_budget_that_cannot_be_read_begins_nothing_and_ends_nothing() {
    let mut world = world(json!({"budget": {"maxCost": "ten", "maxDuration": "tomorrow"}}));
    assert!(begins_nothing(&step(&mut world)));
    assert_eq!(reason(&world, condition::STALLED).as_deref(), Some("InvalidBudget"));
    let mut world = at_work(json!({}));
    edit(&mut world, |run| run.spec.budget.as_mut().unwrap().max_cost = Some("ten".into()));
    assert_eq!((step_at(&mut world, "20:00:00").changes, phase(&world)), (vec![], FineTunePhase::Running));
}

#[test]
fn nothing_may_be_spent_of_nothing() {
    for budget in [json!({"maxDuration": "0s"}), json!({"maxCost": "0.00"})] {
        let mut world = world(json!({"budget": budget}));
        assert!(begins_nothing(&step(&mut world)));
        assert!(condition::is_true(&world.status().conditions, condition::STALLED));
    }
}
