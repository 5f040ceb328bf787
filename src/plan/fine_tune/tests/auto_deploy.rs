//! What a run deploys by itself.

use super::*;
use crate::api::{DeploymentPhase, ModelDeployment, ServingType};

/// A run that trains and wants its checkpoints served.
fn wishing(wish: Value) -> ObservedFineTune {
    let mut world = world(json!({"autoDeploy": wish}));
    step(&mut world);
    world
}

/// A verified checkpoint appears.
fn save(world: &mut ObservedFineTune, step: i64, eval_loss: &str) {
    world.checkpoints.push(object::<Checkpoint>(json!({
        "apiVersion": "finetune.dev/v1alpha1", "kind": "Checkpoint",
        "metadata": {"name": format!("a-step-{step}"), "namespace": "ns", "uid": format!("ckpt-{step}")},
        "spec": {"baseModel": {"name": "tiny"}, "format": "Adapter", "step": step, "lineage": 1, "attempt": 1,
            "fineTune": {"name": "a", "uid": UID}, "storage": {"volume": {"claimName": "out", "path": format!("c-{step}")}}},
        "status": {"phase": "Ready", "metrics": {"eval_loss": eval_loss}},
    })));
}

fn succeed(world: &mut ObservedFineTune) {
    let finished =
        json!([{"type": "Finished", "status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": now()}]);
    edit(world, |run| {
        let status = run.status.get_or_insert_default();
        status.phase = FineTunePhase::Succeeded;
        status.conditions = serde_json::from_value(finished).unwrap();
    });
}

fn deployment(world: &mut ObservedFineTune) -> &mut ModelDeployment {
    Arc::make_mut(world.deployment.as_mut().expect("a Deployment was made"))
}

/// The Deployment's controller has said how it stands.
fn stands(world: &mut ObservedFineTune, phase: DeploymentPhase, failure: Option<&str>) {
    let bot = deployment(world);
    let status = bot.status.get_or_insert_default();
    (status.phase, status.observed_generation) = (phase, bot.metadata.generation);
    if phase == DeploymentPhase::Ready {
        status.checkpoint = Some(bot.spec.checkpoint.clone());
    }
    status.failure = failure.map(|reason| crate::api::Failure {
        reason: reason.into(),
        message: "it ended".into(),
        exit_code: Some(1),
        ..Default::default()
    });
    let name = bot.spec.checkpoint.name.clone();
    world.servers = failure.map(|_| server(&name, 2, json!({"waiting": {"reason": "CrashLoopBackOff"}}))).into_iter().collect();
    let bot = deployment(world);
    let status = bot.status.get_or_insert_default();
    let stalled = json!([{"type": "Stalled", "status": "True", "reason": "X", "message": "", "lastTransitionTime": now()}]);
    status.conditions = failure.map(|_| serde_json::from_value(stalled).unwrap()).unwrap_or_default();
}

/// A pod of that checkpoint whose server was started again so often, and is in that state.
fn server(checkpoint: &str, restarts: i32, state: Value) -> Arc<corev1::Pod> {
    let last = (restarts > 0).then(|| json!({"terminated": {"exitCode": 1}}));
    let server = json!({"name": "server", "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
        "lastState": last});
    object(json!({
        "metadata": {"name": "p", "annotations": {names::CHECKPOINT: checkpoint}}, "status": {"containerStatuses": [server]},
    }))
}

fn serves(world: &mut ObservedFineTune) -> String {
    step(world);
    deployment(world).spec.checkpoint.name.clone()
}

fn deployed(world: &ObservedFineTune) -> (String, String, String) {
    let conditions = world.status().conditions;
    let found = condition::find(&conditions, condition::DEPLOYED).expect("it is said how it stands");
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

#[test]
fn the_last_is_deployed_once_the_run_has_succeeded_under_a_name_that_stays() {
    let mut world = wishing(json!({"checkpoint": "Last", "type": "fast", "replicas": 2}));
    save(&mut world, 10, "1.0");
    save(&mut world, 20, "2.0");
    step(&mut world);
    assert!(world.deployment.is_none());
    succeed(&mut world);
    assert_eq!(serves(&mut world), "a-step-20");
    let bot = deployment(&mut world).clone();
    assert_eq!((bot.spec.type_, bot.spec.replicas, bot.spec.model_name.as_deref()), (ServingType::Fast, 2, Some("a")));
    assert_eq!(bot.metadata.owner_references.unwrap()[0].uid, UID);
    assert_eq!(deployed(&world).1, "Deploying");
    stands(&mut world, DeploymentPhase::Ready, None);
    step(&mut world);
    assert_eq!((deployed(&world).0.as_str(), deployed(&world).1.as_str()), ("True", "Serving"));
    assert!(plan(&world, &settings(), now()).changes.is_empty());
}

#[test]
fn a_better_one_takes_over_while_the_run_trains_but_only_when_the_one_before_is_decided() {
    let mut world = wishing(json!({}));
    save(&mut world, 10, "3.0");
    assert_eq!(serves(&mut world), "a-step-10");
    stands(&mut world, DeploymentPhase::Ready, None);
    save(&mut world, 20, "4.0");
    assert_eq!(serves(&mut world), "a-step-10", "a worse one is not served");
    save(&mut world, 30, "2.0");
    assert_eq!(serves(&mut world), "a-step-30");
    save(&mut world, 40, "1.0");
    assert_eq!(serves(&mut world), "a-step-30", "nothing is known of it yet");
    stands(&mut world, DeploymentPhase::Progressing, None);
    assert_eq!(serves(&mut world), "a-step-30", "one at a time");
    stands(&mut world, DeploymentPhase::Ready, None);
    assert_eq!(serves(&mut world), "a-step-40");
}

#[test]
fn a_run_without_the_metric_deploys_its_newest_as_its_best_when_it_is_over() {
    let mut world = wishing(json!({"checkpoint": "Best"}));
    save(&mut world, 10, "1.0");
    Arc::make_mut(&mut world.checkpoints[0]).status.as_mut().unwrap().metrics.clear();
    step(&mut world);
    assert!(world.deployment.is_none());
    succeed(&mut world);
    assert_eq!(serves(&mut world), "a-step-10");
}

#[test]
fn one_that_fails_is_taken_back_remembered_and_not_tried_again() {
    let mut world = wishing(json!({}));
    save(&mut world, 10, "3.0");
    step(&mut world);
    stands(&mut world, DeploymentPhase::Ready, None);
    save(&mut world, 20, "2.0");
    assert_eq!(serves(&mut world), "a-step-20");
    stands(&mut world, DeploymentPhase::Degraded, Some("GpuOutOfMemory"));
    assert_eq!(serves(&mut world), "a-step-10");
    stands(&mut world, DeploymentPhase::Ready, None);
    assert_eq!(serves(&mut world), "a-step-10", "it is not tried again");
    let (status, reason, message) = deployed(&world);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "RolledBack"));
    assert!(message.contains("\"a-step-20\"") && message.contains("GpuOutOfMemory: it ended"), "{message}");
    assert!(plan(&world, &settings(), now()).changes.is_empty());
    save(&mut world, 30, "1.0");
    assert_eq!(serves(&mut world), "a-step-30", "another one is tried");
    stands(&mut world, DeploymentPhase::Ready, None);
    step(&mut world);
    stands(&mut world, DeploymentPhase::Degraded, Some("OutOfMemory"));
    assert_eq!(serves(&mut world), "a-step-30", "what was ready once is not a version that failed");
}

#[test]
fn one_crash_is_no_failure_of_a_version_and_a_crash_loop_is() {
    let mut world = wishing(json!({}));
    save(&mut world, 10, "3.0");
    step(&mut world);
    stands(&mut world, DeploymentPhase::Ready, None);
    save(&mut world, 20, "2.0");
    step(&mut world);
    let (ended, running) = (json!({"terminated": {"exitCode": 1}}), json!({"running": {}}));
    for (restarts, state) in [(0, &ended), (1, &running), (1, &ended), (2, &running)] {
        stands(&mut world, DeploymentPhase::Degraded, Some("ServerFailed"));
        // What the version before left behind says nothing about this one.
        world.servers = vec![server("a-step-20", restarts, state.clone()), server("a-step-10", 9, ended.clone())];
        assert_eq!(serves(&mut world), "a-step-20", "{restarts} {state}");
        assert_eq!(deployed(&world).1, "Deploying");
    }
    save(&mut world, 30, "1.0");
    assert_eq!(serves(&mut world), "a-step-20", "one at a time");
    world.servers = vec![server("a-step-20", 2, ended)];
    assert_eq!(serves(&mut world), "a-step-30", "it is given up for the better one");
}

#[test]
fn what_cannot_be_fetched_or_takes_too_long_has_failed_at_once() {
    let mut world = wishing(json!({}));
    save(&mut world, 10, "3.0");
    step(&mut world);
    stands(&mut world, DeploymentPhase::Ready, None);
    save(&mut world, 20, "2.0");
    step(&mut world);
    let mut timed_out = world.clone();
    stands(&mut timed_out, DeploymentPhase::Degraded, Some("RolloutTimedOut"));
    deployment(&mut timed_out).status.as_mut().unwrap().failure.as_mut().unwrap().exit_code = None;
    timed_out.servers.clear();
    assert_eq!(serves(&mut timed_out), "a-step-10");
    stands(&mut world, DeploymentPhase::Degraded, Some("CheckpointInvalid"));
    let mut pod = (*server("a-step-20", 0, json!({"terminated": {"exitCode": 78}}))).clone();
    let status = pod.status.as_mut().unwrap();
    status.init_container_statuses = status.container_statuses.take();
    status.init_container_statuses.as_mut().unwrap()[0].name = "fetch".into();
    world.servers = vec![Arc::new(pod)];
    assert_eq!(serves(&mut world), "a-step-10");
}

#[test]
fn the_first_one_that_fails_stays_until_there_is_another() {
    let mut world = wishing(json!({}));
    save(&mut world, 10, "3.0");
    step(&mut world);
    stands(&mut world, DeploymentPhase::Failed, Some("ServerFailed"));
    assert_eq!(serves(&mut world), "a-step-10");
    assert_eq!(deployed(&world).1, "NotServing");
    save(&mut world, 20, "2.0");
    assert_eq!(serves(&mut world), "a-step-20");
}

#[test]
fn what_a_person_wrote_stays_until_the_run_wants_something_else() {
    let mut world = wishing(json!({"replicas": 1}));
    save(&mut world, 10, "3.0");
    step(&mut world);
    stands(&mut world, DeploymentPhase::Ready, None);
    save(&mut world, 5, "9.0");
    deployment(&mut world).spec.checkpoint.name = "a-step-5".into();
    deployment(&mut world).spec.replicas = 3;
    stands(&mut world, DeploymentPhase::Degraded, Some("ServerFailed"));
    assert_eq!(serves(&mut world), "a-step-5", "what a person tried is not taken back");
    save(&mut world, 20, "2.0");
    assert_eq!(serves(&mut world), "a-step-20");
    assert_eq!(deployment(&mut world).spec.replicas, 3);
    edit(&mut world, |run| run.spec.auto_deploy.as_mut().unwrap().replicas = 4);
    stands(&mut world, DeploymentPhase::Ready, None);
    step(&mut world);
    assert_eq!(deployment(&mut world).spec.replicas, 4);
    deployment(&mut world).metadata.annotations = None;
    save(&mut world, 30, "1.0");
    assert_eq!(serves(&mut world), "a-step-20", "without the note it is the person's alone");
}

#[test]
fn a_deployment_of_somebody_else_is_not_touched_and_that_is_said() {
    let mut world = wishing(json!({"checkpoint": "Last"}));
    let theirs = json!({"apiVersion": "finetune.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": "a", "uid": "x"},
        "spec": {"checkpoint": {"name": "other"}}});
    world.deployment = Some(object::<ModelDeployment>(theirs));
    save(&mut world, 10, "1.0");
    succeed(&mut world);
    assert_eq!(serves(&mut world), "other");
    assert_eq!(deployed(&world).1, "NameTaken");
}

#[test]
fn a_refused_deployment_is_told_and_holds_nothing_of_the_run_back() {
    let mut world = wishing(json!({"checkpoint": "Best"}));
    edit(&mut world, |run| run.spec.checkpoints.keep_last = Some(1));
    for (number, loss) in [(10, "3.0"), (20, "1.0"), (30, "2.0")] {
        save(&mut world, number, loss);
    }
    let is_surplus = |plan: &Plan<_>, name: &str| {
        plan.changes.iter().any(|change| matches!(change, Change::Delete(gone) if gone.name == name))
    };
    let unknown = plan(&world, &settings(), now());
    assert!(!is_surplus(&unknown, "a-step-10"), "what is deployed is settled first");
    world.refused = [(DEPLOYMENT, "cannot write create Deployment a: denied by policy".to_owned())].into();
    let refused = plan(&world, &settings(), now());
    assert!(refused.changes.iter().any(|change| change.aside() == Some(DEPLOYMENT)), "it is tried again");
    assert!(is_surplus(&refused, "a-step-10") && !is_surplus(&refused, "a-step-20"), "{:?}", refused.changes);
    let conditions = refused.status.unwrap().conditions;
    let said = condition::find(&conditions, condition::DEPLOYED).unwrap();
    assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", "Refused"));
    assert!(said.message.ends_with("denied by policy"));
}

#[test]
fn a_run_on_its_way_out_takes_its_deployment_along_before_its_checkpoints() {
    let mut world = wishing(json!({}));
    save(&mut world, 10, "1.0");
    step(&mut world);
    world.jobs.clear();
    edit(&mut world, |run| run.metadata.deletion_timestamp = Some(Time(now())));
    let first = step(&mut world);
    assert!(matches!(&first.changes[..], [Change::Delete(gone)] if gone.kind == ChildKind::Served));
    let second = step(&mut world);
    assert!(matches!(&second.changes[..], [Change::Delete(gone)] if gone.kind == ChildKind::Checkpoint));
}

proptest! {
    /// Whatever happens to what is served: one that failed is never tried again while it is the best, and a plan carried out is the last.
    #[test]
    fn no_course_of_events_tries_the_same_failure_twice(events in proptest::collection::vec((0..3_u8, 1..100_i64), 1..30)) {
        let mut world = wishing(json!({}));
        let mut failed = std::collections::BTreeSet::new();
        for (kind, number) in events {
            match kind {
                0 => {
                    let step = i64::try_from(world.checkpoints.len()).unwrap();
                    save(&mut world, step, &format!("{number}.0"));
                }
                _ if world.deployment.is_none() => {}
                1 => stands(&mut world, DeploymentPhase::Ready, None),
                _ => {
                    let bot = deployment(&mut world).clone();
                    let served = bot.status.and_then(|status| status.checkpoint).map(|served| served.name);
                    if served.is_some() && served.as_ref() != Some(&bot.spec.checkpoint.name) {
                        failed.insert(bot.spec.checkpoint.name);
                    }
                    stands(&mut world, DeploymentPhase::Degraded, Some("ServerFailed"));
                }
            }
            let before = world.deployment.clone();
            step(&mut world);
            if let (Some(before), Some(after)) = (before, &world.deployment) && before.spec.checkpoint != after.spec.checkpoint {
                prop_assert!(!failed.contains(&after.spec.checkpoint.name), "{} again", after.spec.checkpoint.name);
            }
            prop_assert!(plan(&world, &settings(), now()).changes.is_empty());
        }
    }
}
