//! Another version of what is served, several replicas, and the way from a Gateway.

use super::*;
use crate::settings::Gateway;

/// A world in which the first checkpoint is served.
fn serving(spec: Value) -> ObservedDeployment {
    let mut world = world(spec);
    let replicas = world.deployment.spec.replicas;
    step(&mut world);
    counted(&mut world, (replicas, replicas, replicas), "NewReplicaSetAvailable");
    step(&mut world);
    assert_eq!(world.status().phase, DeploymentPhase::Ready);
    world
}

/// Somebody names another checkpoint.
fn name_another(world: &mut ObservedDeployment) {
    let mut other = (**world.checkpoint.as_ref().unwrap()).clone();
    (other.metadata.name, other.metadata.uid) = (Some("bot-step-90".into()), Some("ckpt-90".into()));
    world.checkpoint = Some(Arc::new(other));
    status_of(world).spec.checkpoint.name = "bot-step-90".into();
    status_of(world).metadata.generation = Some(2);
}

fn message(plan: &Plan<ModelDeploymentStatus>, kind: &str) -> String {
    let status = plan.status.clone().unwrap();
    condition::find(&status.conditions, kind).map(|found| found.message.clone()).unwrap_or_default()
}

fn crashed() -> Value {
    let ended = json!({"terminated": {"exitCode": 1}});
    json!({"containerStatuses": [{"name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 1, "lastState": ended}]})
}

#[test]
fn no_pod_goes_before_another_has_come_and_the_server_ends_only_when_nobody_is_connected() {
    let plan = look(&world(json!({"replicas": 3})));
    let spec = workload(&plan).spec.clone().unwrap();
    let rolling = spec.strategy.unwrap().rolling_update.unwrap();
    let int = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int;
    assert_eq!((rolling.max_unavailable, rolling.max_surge), (Some(int(0)), Some(int(1))));
    let pod = pod_spec(&plan);
    let hook = pod.containers[0].lifecycle.as_ref().unwrap().pre_stop.as_ref().unwrap().http_get.as_ref().unwrap();
    assert_eq!((hook.path.as_deref(), &hook.port), (Some("/drained"), &int(28_082)));
    let grace = u64::try_from(pod.termination_grace_period_seconds.unwrap()).unwrap();
    assert!(grace > crate::protocol::DRAIN_SECONDS, "the server needs time to end after it was drained");
    let startup = pod.containers[0].startup_probe.as_ref().unwrap();
    assert!(spec.progress_deadline_seconds.unwrap() > startup.period_seconds.unwrap() * startup.failure_threshold.unwrap());
    let spread = &pod.topology_spread_constraints.as_ref().unwrap()[0];
    assert_eq!(spread.label_selector.as_ref().unwrap().match_labels, spec.selector.match_labels);
}

#[test]
fn what_last_served_is_on_record_until_another_serves() {
    let mut world = serving(json!({}));
    let served = |world: &ObservedDeployment| world.status().checkpoint.unwrap().name;
    assert_eq!(served(&world), "bot-step-50");
    name_another(&mut world);
    step(&mut world);
    counted(&mut world, (2, 1, 1), "ReplicaSetUpdated");
    step(&mut world);
    assert_eq!((served(&world).as_str(), world.status().phase), ("bot-step-50", DeploymentPhase::Progressing));
    counted(&mut world, (1, 1, 1), "NewReplicaSetAvailable");
    step(&mut world);
    assert_eq!((served(&world).as_str(), world.status().phase), ("bot-step-90", DeploymentPhase::Ready));
}

#[test]
fn a_version_that_fails_is_told_with_its_name_and_what_still_serves() {
    let mut world = serving(json!({}));
    name_another(&mut world);
    step(&mut world);
    counted(&mut world, (2, 1, 1), "ReplicaSetUpdated");
    pod(&mut world, crashed());
    let failed = step(&mut world);
    assert_eq!((phase(&failed), reason(&failed, STALLED).as_str()), (DeploymentPhase::Degraded, "ServerFailed"));
    let said = message(&failed, STALLED);
    assert!(
        said.contains("\"bot-step-90\" is not served: container server ended") && said.contains("\"bot-step-50\" still is"),
        "{said}"
    );
    assert!(failed.changes.is_empty(), "what a person asked for is not taken back");
    assert_eq!(world.status().failure.unwrap().reason, "ServerFailed");
}

#[test]
fn a_checkpoint_that_cannot_be_served_is_told_beside_the_one_that_is() {
    let mut world = serving(json!({}));
    name_another(&mut world);
    let status = json!({"phase": "Corrupt"});
    Arc::make_mut(world.checkpoint.as_mut().unwrap()).status = Some(serde_json::from_value(status).unwrap());
    let plan = step(&mut world);
    assert_eq!((phase(&plan), reason(&plan, STALLED).as_str()), (DeploymentPhase::Degraded, "CheckpointUnusable"));
    assert!(message(&plan, STALLED).contains("\"bot-step-50\" still is") && plan.changes.is_empty());
}

#[test]
fn what_still_serves_is_scaled_though_nothing_new_can_be() {
    let mut world = serving(json!({}));
    name_another(&mut world);
    let checkpoint = world.checkpoint.take();
    status_of(&mut world).spec.replicas = 3;
    let replicas = |world: &ObservedDeployment| world.workload.as_ref().unwrap().spec.as_ref().unwrap().replicas;
    let template = |world: &ObservedDeployment| world.workload.as_ref().unwrap().spec.as_ref().unwrap().template.clone();
    let before = template(&world);
    let away = step(&mut world);
    assert_eq!((reason(&away, RECONCILING).as_str(), replicas(&world)), ("CheckpointNotFound", Some(3)));
    assert!(template(&world) == before && world.budget.is_some(), "the pods are more of the same");
    assert!(look(&world).changes.is_empty());
    world.checkpoint = checkpoint;
    let status = json!({"phase": "Corrupt"});
    Arc::make_mut(world.checkpoint.as_mut().unwrap()).status = Some(serde_json::from_value(status).unwrap());
    status_of(&mut world).spec.replicas = 0;
    assert_eq!(reason(&step(&mut world), STALLED), "CheckpointUnusable");
    assert_eq!(replicas(&world), Some(0));
    status_of(&mut world).spec.replicas = 1;
    assert!(look(&world).changes.is_empty(), "what rests is not waked: nobody knows whether it can be served");
}

#[test]
fn what_still_serves_is_scaled_beside_a_write_that_is_refused() {
    let mut world = serving(json!({}));
    status_of(&mut world).spec.replicas = 2;
    let problem = Problem { reason: "Refused", field: "metadata.name".into(), message: "quota".into(), waits: false };
    world.refusal = Some(problem);
    let plan = look(&world);
    assert!(matches!(plan.changes[..], [Change::Scale { replicas: 2, .. }]), "{:?}", plan.changes);
    assert!(
        plan.changes.iter().all(|change| change.aside().is_some()),
        "that it is refused must not keep the status from being told"
    );
}

#[test]
fn what_takes_longer_than_the_deadline_has_failed_whatever_it_is() {
    let mut world = serving(json!({}));
    name_another(&mut world);
    step(&mut world);
    counted(&mut world, (2, 1, 1), "ProgressDeadlineExceeded");
    let plan = look(&world);
    assert_eq!((phase(&plan), reason(&plan, STALLED).as_str()), (DeploymentPhase::Degraded, "RolloutTimedOut"));
    let waiting = json!({"containerStatuses": [{"name": "server", "image": "vllm:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
    pod(&mut world, waiting);
    assert_eq!(reason(&look(&world), STALLED), "ImagePullFailed", "what would have passed by itself has not");
}

#[test]
fn several_replicas_have_a_budget_and_one_has_none() {
    let mut world = serving(json!({"replicas": 2}));
    let budget = world.budget.clone().unwrap().spec.clone().unwrap();
    assert_eq!(budget.selector.unwrap().match_labels.unwrap(), children::our_selector(UID));
    status_of(&mut world).spec.replicas = 1;
    assert_eq!(look(&world).changes.len(), 2, "the workload is scaled, the budget goes");
    step(&mut world);
    assert!(world.budget.is_none() && look(&world).changes.is_empty());
}

fn with_gateway() -> Settings {
    Settings { gateway: "infra/main".parse().ok(), ..settings() }
}

#[test]
fn a_gateway_leads_to_every_model_under_a_path_of_its_own() {
    assert!("infra".parse::<Gateway>().is_err() && "infra/".parse::<Gateway>().is_err());
    let mut world = world(json!({}));
    world.route = Route::Known(None);
    let first = plan(&world, &with_gateway(), now());
    let made = first.changes.iter().find_map(|change| match change {
        Change::Apply { child: Child::Route(route), known: None } => Some(route),
        _ => None,
    });
    let spec = serde_json::to_value(&made.unwrap().spec).unwrap();
    assert_eq!(spec["parentRefs"], json!([{"namespace": "infra", "name": "main"}]));
    assert_eq!(spec["rules"][0]["matches"][0]["path"]["value"], "/ns/bot");
    assert_eq!(spec["rules"][0]["backendRefs"], json!([{"name": "bot", "port": 8000}]));
    carry_out(&mut world, &first);
    let second = plan(&world, &with_gateway(), now());
    assert_eq!((second.changes.len(), reason(&second, condition::ROUTED).as_str()), (0, "Routed"));
    assert!(plan(&world, &settings(), now()).status.unwrap().conditions.iter().all(|known| known.type_ != condition::ROUTED));
}

#[test]
fn a_cluster_without_the_gateway_api_serves_all_the_same_and_that_is_said() {
    let mut world = serving(json!({}));
    world.route = Route::Unavailable("the cluster has no such kind".into());
    let plan = plan(&world, &with_gateway(), now());
    assert_eq!((phase(&plan), reason(&plan, condition::ROUTED).as_str()), (DeploymentPhase::Ready, "GatewayApiUnavailable"));
    assert!(plan.changes.is_empty());
    carry_out(&mut world, &plan);
    world.route = Route::Unknown;
    let after = super::plan(&world, &with_gateway(), now());
    assert_eq!(after.status, Some(world.status()), "while nothing is known nothing is said anew");
}

proptest! {
    /// What the API server's own controller does with pods follows from the strategy, which no course of events changes.
    #[test]
    fn every_workload_that_is_ever_asked_for_keeps_the_old_pods_until_new_ones_are_ready(
        edits in proptest::collection::vec((0..4_u8, 0..5_i32), 1..12),
    ) {
        let mut world = world(json!({}));
        for (kind, number) in edits {
            let spec = &mut status_of(&mut world).spec;
            match kind {
                0 => spec.replicas = number,
                1 => spec.restarts += i64::from(number),
                2 => spec.model_name = Some(format!("m{number}")),
                _ => spec.type_ = if number % 2 == 0 { crate::api::ServingType::Fast } else { crate::api::ServingType::Normal },
            }
            step(&mut world);
            let asked = world.workload.as_ref().unwrap().spec.as_ref().unwrap();
            let rolling = asked.strategy.as_ref().unwrap().rolling_update.as_ref().unwrap();
            prop_assert_eq!(rolling.max_unavailable.as_ref(), Some(&k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(0)));
            let service = world.service.as_ref().unwrap().spec.as_ref().unwrap();
            prop_assert_eq!(service.selector.clone(), asked.selector.match_labels.clone(), "the Service leads to old and new");
            prop_assert_eq!(world.budget.is_some(), world.deployment.spec.replicas > 1);
            prop_assert!(look(&world).changes.is_empty());
        }
    }
}
