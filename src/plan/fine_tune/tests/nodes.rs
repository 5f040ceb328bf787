//! Runs on several nodes, and nodes that are lost.

use super::*;

fn two_nodes(spec: Value) -> ObservedFineTune {
    on_nodes(2, spec)
}

/// A pod of the newest Job on the node of that rank: Running, or ended with a code.
fn pod(world: &ObservedFineTune, rank: usize, code: Option<i32>) -> Arc<corev1::Pod> {
    let state = code.map_or_else(
        || json!({"running": {}}),
        |code| json!({"terminated": {"exitCode": code, "startedAt": "2027-01-15T07:00:00Z", "finishedAt": "2027-01-15T08:00:00Z"}}),
    );
    let phase = match code {
        None => "Running",
        Some(0) => "Succeeded",
        Some(_) => "Failed",
    };
    object(json!({
        "metadata": {"name": format!("p-{rank}"), "uid": format!("pod-{rank}"), "labels": world.jobs.last().unwrap().metadata.labels,
            "annotations": {(names::COMPLETION_INDEX): rank.to_string()}},
        "spec": {"nodeName": format!("node-{rank}"), "containers": []},
        "status": {"phase": phase, "startTime": "2027-01-15T07:00:00Z", "containerStatuses": [
            {"name": "trainer", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state}]},
    }))
}

/// The nodes of the newest Job get pods that run (`None`) or have ended with a code.
fn nodes_become(world: &mut ObservedFineTune, codes: &[Option<i32>]) {
    world.pods = codes.iter().enumerate().map(|(rank, code)| pod(world, rank, *code)).collect();
}

/// The newest Job gets a condition, with a message as the Job controller words it.
fn job_is(world: &mut ObservedFineTune, kind: &str, message: &str) {
    let condition = json!({"type": kind, "status": "True", "reason": "PodFailurePolicy", "message": message,
        "lastTransitionTime": "2027-01-15T08:00:00Z"});
    let job = world.jobs.last_mut().unwrap();
    Arc::make_mut(job).status = serde_json::from_value(json!({"conditions": [condition]})).unwrap();
}

/// The newest Job fails with its pods ended so.
fn group_falls(world: &mut ObservedFineTune, codes: &[Option<i32>]) {
    nodes_become(world, codes);
    job_is(world, "Failed", "");
}

fn mark_disrupted(world: &mut ObservedFineTune, rank: usize) {
    let condition = json!({"type": "DisruptionTarget", "status": "True"});
    let status = Arc::make_mut(&mut world.pods[rank]).status.as_mut().unwrap();
    status.conditions = serde_json::from_value(json!([condition])).unwrap();
}

fn mark_deleted(world: &mut ObservedFineTune, rank: usize, at: &str) {
    Arc::make_mut(&mut world.pods[rank]).metadata.deletion_timestamp = serde_json::from_value(json!(at)).unwrap();
}

fn later(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + seconds).unwrap()
}

/// Looks until a Job is made; returns its name, and how many looks it took.
fn until_job(world: &mut ObservedFineTune) -> (String, usize) {
    for looks in 1..5 {
        let plan = step_then(world, later(400 * i64::try_from(looks).unwrap()));
        if let [name] = jobs_made(&plan)[..] {
            return (name.to_owned(), looks);
        }
    }
    panic!("no Job is made: {:?}", world.status());
}

fn trainer_env(world: &ObservedFineTune, name: &str) -> Option<corev1::EnvVar> {
    let pod = world.jobs.last().unwrap().spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    pod.containers[0].env.iter().flatten().find(|variable| variable.name == name).cloned()
}

fn trainer_value(world: &ObservedFineTune, name: &str) -> Option<String> {
    trainer_env(world, name)?.value
}

#[test]
fn two_nodes_are_one_job_whose_pods_find_each_other_by_a_service() {
    let mut world = two_nodes(json!({"retries": 3}));
    let plan = step(&mut world);
    let [_, Change::CreateOnce(Child::Service(service)), Change::CreateOnce(Child::Job(job))] = &plan.changes[..] else {
        panic!("{:?}", plan.changes);
    };
    let spec = service.spec.as_ref().unwrap();
    assert_eq!((spec.cluster_ip.as_deref(), spec.publish_not_ready_addresses), (Some("None"), Some(true)));
    assert_eq!(service.metadata.owner_references.as_ref().unwrap()[0].uid, UID);
    let template = &job.spec.as_ref().unwrap().template;
    let labels = template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
    assert!(spec.selector.as_ref().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value)), "it selects our pods");
    assert_eq!(template.spec.as_ref().unwrap().subdomain, service.metadata.name);
    let job = job.spec.as_ref().unwrap();
    assert_eq!((job.completions, job.parallelism, job.backoff_limit), (Some(2), Some(2), Some(0)));
    assert_eq!(job.completion_mode.as_deref(), Some("Indexed"));
    let rules = &job.pod_failure_policy.as_ref().unwrap().rules;
    assert!(rules.len() == 3 && rules.iter().all(|rule| rule.action == "FailJob"), "{rules:?}");
    let expected = [
        ("PET_NNODES", "2"),
        ("PET_NPROC_PER_NODE", "2"),
        ("PET_MASTER_ADDR", "a-0b9f6a1e-1-0.a-0b9f6a1e"),
        ("PET_MASTER_PORT", "29500"),
    ];
    for (name, value) in expected {
        assert_eq!(trainer_value(&world, name).as_deref(), Some(value), "{name}");
    }
    let rank = trainer_env(&world, "PET_NODE_RANK").unwrap().value_from.unwrap().field_ref.unwrap();
    assert_eq!(rank.field_path, "metadata.annotations['batch.kubernetes.io/job-completion-index']");
}

#[test]
fn torchrun_on_one_node_starts_a_process_a_gpu_and_needs_no_service() {
    let mut world = two_nodes(json!({"hardware": {"nodes": 1}}));
    assert!(matches!(step(&mut world).changes[..], [_, Change::CreateOnce(Child::Job(_))]));
    let of = |name| trainer_value(&world, name).unwrap();
    assert_eq!((of("PET_NNODES"), of("PET_NPROC_PER_NODE"), of("PET_NODE_RANK")), ("1".into(), "2".into(), "0".into()));
    assert_eq!((of("PET_MASTER_ADDR"), of("PET_SHUTDOWN_TIMEOUT")), ("127.0.0.1".into(), "600".into()));
}

#[test]
fn a_runtime_without_launcher_is_told_nothing_and_refused_on_two_nodes() {
    let mut alone = world(json!({}));
    step(&mut alone);
    assert_eq!(trainer_env(&alone, "PET_NNODES"), None);
    let mut both = world(json!({"hardware": {"nodes": 2}}));
    assert!(jobs_made(&step(&mut both)).is_empty());
    assert_eq!(reason(&both, condition::STALLED).as_deref(), Some("NotDistributed"));
    assert_eq!(both.status().failure.unwrap().field.as_deref(), Some("spec.hardware.nodes"));
}

#[test]
fn two_nodes_want_an_output_both_can_write_to() {
    let claim = |spec: Value| object::<corev1::PersistentVolumeClaim>(json!({"metadata": {"name": "out"}, "spec": spec}));
    let mut once = two_nodes(json!({}));
    once.claims.insert("out".into(), claim(json!({"accessModes": ["ReadWriteOnce"]})));
    step(&mut once);
    assert_eq!(reason(&once, condition::STALLED).as_deref(), Some("OutputNotShared"));
    assert_eq!(once.status().failure.unwrap().field.as_deref(), Some("spec.output.volume.claimName"));
    once.claims.insert("out".into(), claim(json!({"accessModes": ["ReadWriteMany"]})));
    assert_eq!(jobs_made(&step(&mut once)).len(), 1, "a claim that is shared will do");
    let mut refused = two_nodes(json!({"output": {"volumeTemplate": {"size": "1Gi", "accessModes": ["ReadWriteOnce"]}}}));
    step(&mut refused);
    assert_eq!(reason(&refused, condition::STALLED).as_deref(), Some("OutputNotShared"));
    let mut made = two_nodes(json!({"output": {"volumeTemplate": {"size": "1Gi"}}}));
    assert_eq!(jobs_made(&step(&mut made)).len(), 1);
    let modes = made.claims["a-0b9f6a1e"].spec.as_ref().unwrap().access_modes.clone();
    assert_eq!(modes.unwrap(), ["ReadWriteMany"]);
    let mut stored = two_nodes(json!({"output": {"objectStore": {"uri": "s3://bucket/runs"}}}));
    assert_eq!(jobs_made(&step(&mut stored)).len(), 1, "a store is shared by nature");
}

#[test]
fn a_run_trains_once_all_its_nodes_do_and_its_end_is_that_of_the_first() {
    let mut world = two_nodes(json!({}));
    step(&mut world);
    nodes_become(&mut world, &[None]);
    step(&mut world);
    assert_eq!(phase(&world), FineTunePhase::Preparing, "the other node waits");
    nodes_become(&mut world, &[None, None]);
    step(&mut world);
    assert_eq!(phase(&world), FineTunePhase::Running);
    nodes_become(&mut world, &[Some(0), Some(0)]);
    job_is(&mut world, "Complete", "");
    edit(&mut world, |run| {
        let ended = Progress { attempt: 1, step: 200, ended_by: Some("pod-0".into()), ..Progress::default() };
        run.status.as_mut().unwrap().progress = Some(ended);
    });
    step(&mut world);
    assert_eq!(phase(&world), FineTunePhase::Succeeded);
    let cost = world.status().cost.unwrap();
    assert_eq!((cost.accrued.as_str(), cost.gpu_seconds), ("7.2", 4 * 3600), "an hour on two nodes of two GPUs at 3.60 a node");
}

#[test]
fn one_failed_node_ends_all_and_all_begin_again_when_every_pod_has_ended() {
    let mut world = two_nodes(json!({"retries": 1}));
    step(&mut world);
    nodes_become(&mut world, &[None, Some(1)]);
    job_is(&mut world, "FailureTarget", "");
    assert_eq!(step(&mut world).changes, []);
    assert_eq!(reason(&world, condition::RECONCILING).as_deref(), Some("NodeFailed"));
    group_falls(&mut world, &[None, Some(1)]);
    assert_eq!(step(&mut world).changes, [], "the other node still writes");
    group_falls(&mut world, &[Some(85), Some(1)]);
    let fallen = step(&mut world);
    assert!(fallen.changes.is_empty(), "the end is put on record first");
    let status = world.status();
    assert_eq!((status.failures, status.attempt), (1, 1));
    assert_eq!(status.attempts[0].reason.as_deref(), Some("ScriptError"));
    assert_eq!(fallen.notices[0].reason, "Restarting");
    let waits = step(&mut world);
    assert!(waits.changes.is_empty() && waits.status == Some(world.status()), "a pause, without a word");
    assert_eq!(waits.next, Next::After(std::time::Duration::from_secs(10)));
    assert_eq!(jobs_made(&step_then(&mut world, later(10))), ["a-0b9f6a1e-2"]);
    assert_eq!((world.status().failures, world.status().attempt), (1, 2));
}

#[test]
fn a_group_that_keeps_failing_fails_for_good_after_its_retries() {
    let mut world = two_nodes(json!({"retries": 2}));
    step(&mut world);
    for attempt in [2, 3] {
        group_falls(&mut world, &[Some(1), Some(85)]);
        assert_eq!(until_job(&mut world).0, format!("a-0b9f6a1e-{attempt}"));
    }
    group_falls(&mut world, &[Some(1), Some(85)]);
    for _ in 0..3 {
        step_then(&mut world, later(4000));
        let collect = world.jobs.last_mut().unwrap();
        let status =
            json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2027-01-15T08:00:00Z"}]});
        if collect.metadata.labels.as_ref().unwrap()[names::ROLE] == names::ROLE_COLLECT {
            Arc::make_mut(collect).status = serde_json::from_value(status).unwrap();
        }
    }
    assert_eq!((phase(&world), world.status().attempt), (FineTunePhase::Failed, 3));
    assert_eq!(world.status().failure.unwrap().reason, "ScriptError");
    edit(&mut world, |run| run.spec.restarts = 1);
    assert_eq!(jobs_made(&step(&mut world)), ["a-0b9f6a1e-4"]);
    assert_eq!(world.status().failures, 0, "a restart by hand counts anew");
}

#[test]
fn what_only_the_user_can_mend_ends_the_run_at_the_first_fall() {
    let mut world = two_nodes(json!({"retries": 5}));
    step(&mut world);
    group_falls(&mut world, &[Some(1), Some(78)]);
    step_then(&mut world, later(400));
    assert_eq!(world.status().failures, 0);
    assert_eq!(jobs_made(&step_then(&mut world, later(800))), [""; 0]);
    assert_eq!(world.jobs.last().unwrap().metadata.labels.as_ref().unwrap()[names::ROLE], names::ROLE_COLLECT);
}

#[test]
fn an_interruption_of_a_node_is_not_counted_whoever_fails_because_of_it() {
    type Interruption = fn(&mut ObservedFineTune);
    let cases: [(&str, Interruption); 4] = [
        ("every pod was asked to stop", |world| group_falls(world, &[Some(85), Some(85)])),
        ("an evicted pod is still there", |world| {
            group_falls(world, &[Some(1), Some(85)]);
            mark_disrupted(world, 1);
        }),
        ("an evicted pod is gone, and the other had failed for want of it", |world| {
            nodes_become(world, &[None, None]);
            mark_disrupted(world, 1);
            step(world);
            assert_eq!(reason(world, condition::RECONCILING).as_deref(), Some("NodeFailed"));
            group_falls(world, &[Some(1)]);
        }),
        ("all pods are gone, and the Job tells why", |world| {
            group_falls(world, &[]);
            job_is(world, "Failed", "Container trainer for pod ns/p-1 failed with exit code 85 matching FailJob rule at index 2");
        }),
    ];
    for (what, interrupt) in cases {
        let mut world = two_nodes(json!({"retries": 0}));
        step(&mut world);
        interrupt(&mut world);
        assert_eq!(until_job(&mut world), ("a-0b9f6a1e-2".to_owned(), 2), "{what}");
        assert_eq!((world.status().failures, world.status().attempts[0].reason.as_deref()), (0, Some("Interrupted")), "{what}");
    }
}

#[test]
fn a_failure_counts_though_its_pod_is_gone() {
    let mut world = two_nodes(json!({"retries": 1}));
    step(&mut world);
    group_falls(&mut world, &[]);
    job_is(&mut world, "Failed", "Container trainer for pod ns/p-1 failed with exit code 3 matching FailJob rule at index 2");
    until_job(&mut world);
    assert_eq!((world.status().failures, world.status().attempts[0].reason.as_deref()), (1, Some("ScriptError")));
}

#[test]
fn a_run_that_is_stopped_between_two_attempts_stays_stopped() {
    for (desired, resting) in [("Stopped", FineTunePhase::Stopped), ("Paused", FineTunePhase::Paused)] {
        let mut world = two_nodes(json!({"retries": 5}));
        step(&mut world);
        group_falls(&mut world, &[Some(1), Some(85)]);
        edit(&mut world, |run| run.spec.desired_state = serde_json::from_value(json!(desired)).unwrap());
        step(&mut world);
        assert_eq!(step_then(&mut world, later(400)).changes, []);
        assert_eq!(phase(&world), resting);
        edit(&mut world, |run| {
            run.spec.desired_state = DesiredState::Running;
            run.spec.restarts = 1;
        });
        assert_eq!(jobs_made(&step_then(&mut world, later(800))), ["a-0b9f6a1e-2"]);
    }
}

#[test]
fn a_crash_between_the_next_job_and_its_record_makes_no_other_and_counts_once() {
    let mut world = two_nodes(json!({"retries": 5}));
    step(&mut world);
    group_falls(&mut world, &[Some(1), Some(85)]);
    step(&mut world);
    let unrecorded = plan(&world, &settings(), later(10));
    carry_out(&mut world, &Plan { status: None, ..unrecorded });
    assert_eq!(world.jobs.len(), 2);
    assert_eq!(step_then(&mut world, later(20)).changes, []);
    let status = world.status();
    assert_eq!((status.attempt, status.failures, status.job_name.as_deref()), (2, 1, Some("a-0b9f6a1e-2")));
}

#[test]
fn a_node_that_does_not_answer_is_named_with_the_command_that_helps_and_nothing_takes_its_place() {
    let mut world = two_nodes(json!({}));
    step(&mut world);
    nodes_become(&mut world, &[None, None]);
    step(&mut world);
    let conditions = json!([{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]);
    Arc::make_mut(&mut world.pods[1]).status.as_mut().unwrap().conditions = serde_json::from_value(conditions).unwrap();
    let told = step(&mut world);
    assert_eq!((told.changes.len(), told.notices[0].reason), (0, "NodeLost"));
    assert_eq!(phase(&world), FineTunePhase::Running);
    let message = condition::find(&world.status().conditions, condition::READY).unwrap().message.clone();
    assert!(message.contains("kubectl taint nodes node-1 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"), "{message}");
    assert!(step(&mut world).notices.is_empty(), "it is said once");
    nodes_become(&mut world, &[None, None]);
    step(&mut world);
    assert_eq!(reason(&world, condition::RECONCILING).as_deref(), Some("Training"), "it is back");
}

#[test]
fn a_pod_that_outlives_its_grace_period_is_lost_and_the_moment_is_awaited() {
    let mut world = world(json!({}));
    step(&mut world);
    job_becomes(&mut world, "Running", None);
    Arc::make_mut(&mut world.pods[0]).spec = serde_json::from_value(json!({"nodeName": "node-9", "containers": []})).unwrap();
    edit(&mut world, |run| run.spec.desired_state = DesiredState::Stopped);
    let pods = world.pods.clone();
    step(&mut world);
    step(&mut world);
    world.pods = pods;
    mark_deleted(&mut world, 0, "2027-01-15T08:00:40Z");
    let waits = step(&mut world);
    assert_eq!((waits.changes.len(), waits.next), (0, Next::After(std::time::Duration::from_secs(40))), "{:?}", now());
    assert_eq!(reason(&world, condition::RECONCILING).as_deref(), Some("Stopping"));
    step_then(&mut world, later(40));
    assert_eq!((phase(&world), reason(&world, condition::RECONCILING).as_deref()), (FineTunePhase::Stopping, Some("NodeLost")));
    edit(&mut world, |run| run.metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-15T08:02:00Z")).unwrap());
    let leaving = step_then(&mut world, later(60));
    assert!(leaving.changes.is_empty() && leaving.status.is_some(), "a deletion waits, and says for what");
}

/// Anything that can happen to a run on two nodes between two looks at it.
#[derive(Clone, Debug)]
enum Happening {
    Nodes([Option<i32>; 2]),
    Disrupted(usize),
    Falls,
    PodsGone,
    JobDeleted,
    Desired(DesiredState),
    Restarted,
    TimePasses,
    Crash,
}

fn happening() -> impl Strategy<Value = Happening> {
    let code = || prop_oneof![Just(None), Just(Some(0)), Just(Some(1)), Just(Some(85)), Just(Some(137))];
    prop_oneof![
        4 => [code(), code()].prop_map(Happening::Nodes),
        1 => (0_usize..2).prop_map(Happening::Disrupted),
        4 => Just(Happening::Falls),
        2 => Just(Happening::PodsGone),
        1 => Just(Happening::JobDeleted),
        1 => prop_oneof![Just(DesiredState::Running), Just(DesiredState::Paused), Just(DesiredState::Stopped)]
            .prop_map(Happening::Desired),
        1 => Just(Happening::Restarted),
        3 => Just(Happening::TimePasses),
        1 => Just(Happening::Crash),
    ]
}

fn happen(world: &mut ObservedFineTune, happening: &Happening) {
    let at_work = world.jobs.last().is_some_and(|job| outcome(job, &[]).is_none());
    match happening {
        Happening::Nodes(codes) if at_work => nodes_become(world, codes),
        Happening::Disrupted(rank) if world.pods.len() == 2 => mark_disrupted(world, *rank),
        Happening::Falls if at_work => job_is(world, "Failed", ""),
        Happening::PodsGone => world.pods.clear(),
        Happening::JobDeleted => drop(world.jobs.pop()),
        Happening::Desired(desired) => edit(world, |run| run.spec.desired_state = *desired),
        Happening::Restarted => edit(world, |run| run.spec.restarts += 1),
        _ => {}
    }
}

proptest! {
    #[test]
    fn groups_never_overlap_and_begin_again_no_more_often_than_retries_say(happenings in proptest::collection::vec(happening(), 0..40)) {
        let mut world = two_nodes(json!({"retries": 2}));
        let mut time = 0;
        for happening in happenings {
            happen(&mut world, &happening);
            time += if matches!(happening, Happening::TimePasses) { 1000 } else { 1 };
            let before = world.status();
            let alive = AttemptFacts::of(&world).live_pods;
            let plan = plan(&world, &settings(), later(time));
            let made = jobs_made(&plan).iter().filter(|name| !name.ends_with("-c")).count();
            let crash = matches!(happening, Happening::Crash);
            carry_out(&mut world, &if crash { Plan { status: None, ..plan } } else { plan });
            prop_assert!(made == 0 || alive == 0, "a Job is made while a pod of the last may still write");
            prop_assert!(active_jobs(&world) <= 1, "two active Jobs");
            let after = world.status();
            prop_assert!(after.failures <= 2, "more failures are tolerated than retries say");
            let forgotten = after.failures < before.failures && after.restarts == before.restarts;
            prop_assert!(!forgotten && after.failures <= before.failures + 1, "a failure is counted once and kept");
            let ended = [FineTunePhase::Failed, FineTunePhase::Stopped, FineTunePhase::Succeeded].contains(&after.phase);
            prop_assert!(!ended || before.phase == after.phase || alive == 0, "ended while a pod trains");
        }
    }
}
