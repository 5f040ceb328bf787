//! Checkpoints of other namespaces.

use super::*;
use crate::plan::deployment::permission::Permissions;
use crate::plan::{ChildKind, ChildReference};

/// A Deployment that names a checkpoint of namespace `theirs`, which is there or not, and permitted or not.
fn foreign(is_there: bool, wanted: bool) -> ObservedDeployment {
    let mut world = world(json!({"checkpoint": {"name": "bot-step-50", "namespace": "theirs"}}));
    world.claims.clear();
    world.permissions = Permissions { wanted, served: wanted, held: false };
    if !is_there || !wanted {
        world.checkpoint = None;
    }
    world
}

fn serving() -> ObservedDeployment {
    let mut world = foreign(true, true);
    step(&mut world);
    counted(&mut world, (1, 1, 1), "NewReplicaSetAvailable");
    step(&mut world);
    assert_eq!(status_of(&mut world).status.as_ref().unwrap().phase, DeploymentPhase::Ready);
    world
}

#[test]
fn without_permission_nothing_is_made_and_what_exists_is_not_told() {
    let plan = look(&foreign(true, false));
    assert!(plan.changes.is_empty());
    assert_eq!((reason(&plan, STALLED).as_str(), phase(&plan)), ("NotPermitted", DeploymentPhase::Failed));
    assert_eq!(plan, look(&foreign(false, false)));
    assert_eq!(plan.notices.len(), 1);
}

#[test]
fn with_permission_the_pods_ask_the_controller_and_hold_nothing_of_the_owner() {
    let plan = look(&foreign(true, true));
    let pod = pod_spec(&plan);
    let fetch = &pod.init_containers.as_ref().unwrap()[0];
    let config: crate::protocol::FetchConfig = serde_json::from_str(
        fetch.env.as_ref().unwrap().iter().find(|entry| entry.name == "FINETUNE_FETCH_CONFIG").unwrap().value.as_ref().unwrap(),
    )
    .unwrap();
    assert_eq!(config.digest.as_deref(), Some("sha256:d"));
    assert!(matches!(&config.weights, crate::protocol::Input::Shared { checkpoint, .. } if checkpoint == "ckpt-uid"));
    let with_token = |container: &corev1::Container| container.volume_mounts.iter().flatten().any(|mount| mount.name == "token");
    assert!(with_token(fetch));
    assert!(!pod.containers.iter().any(with_token) && !pod.init_containers.as_ref().unwrap()[1..].iter().any(with_token));
    let text = serde_json::to_string(workload(&plan)).unwrap();
    assert!(!text.contains("\"out\"") && !text.contains("lineage-1"), "{text}");
    assert_eq!(pod.automount_service_account_token, Some(false));
}

#[test]
fn a_checkpoint_of_this_namespace_needs_no_token() {
    let plan = look(&world(json!({})));
    assert!(!pod_spec(&plan).volumes.as_ref().unwrap().iter().any(|volume| volume.name == "token"));
    let same = look(&world(json!({"checkpoint": {"name": "bot-step-50", "namespace": "ns"}})));
    assert_eq!(plan.changes, same.changes, "to name one's own namespace is no difference");
}

#[test]
fn without_a_digest_on_record_it_waits() {
    let mut world = foreign(true, true);
    Arc::make_mut(world.checkpoint.as_mut().unwrap()).status.as_mut().unwrap().digest = None;
    let plan = look(&world);
    assert!(plan.changes.is_empty());
    assert_eq!(reason(&plan, RECONCILING), "CheckpointNotReady");
}

#[test]
fn while_the_run_holds_the_volume_it_waits_and_says_so_without_naming_what_is_the_owners() {
    let mut world = foreign(true, true);
    world.permissions.held = true;
    let plan = look(&world);
    assert!(plan.changes.is_empty());
    assert_eq!(reason(&plan, RECONCILING), "VolumeInUse");
    world = serving();
    world.permissions.held = true;
    assert_eq!(phase(&look(&world)), DeploymentPhase::Ready, "what serves is not asked again");
}

#[test]
fn a_permission_taken_back_ends_workload_and_service_and_says_so() {
    let mut world = serving();
    world.permissions = Permissions::default();
    world.checkpoint = None;
    let plan = look(&world);
    let child = |kind, name: &str, uid: &str| Change::Delete(ChildReference { kind, name: name.into(), uid: uid.into() });
    let gone = vec![child(ChildKind::Workload, "bot", "workload-uid"), child(ChildKind::Service, "bot", "service-uid")];
    assert_eq!(plan.changes, gone);
    assert_eq!(reason(&plan, STALLED), "NotPermitted");
    assert!(plan.notices.iter().any(|notice| notice.warning && notice.message.contains("CheckpointPermission")));
    let status = plan.status.clone().unwrap();
    assert_eq!((status.url, status.failure.unwrap().reason.as_str()), (None, "NotPermitted"));
    carry_out(&mut world, &plan);
    let after = look(&world);
    assert_eq!((after.changes.len(), phase(&after)), (0, DeploymentPhase::Failed));
    world = foreign(true, true);
    assert_eq!(look(&world).changes.len(), 2, "permitted again, served again");
}

#[test]
fn what_is_served_ends_even_when_the_spec_names_something_else_by_now() {
    let mut world = serving();
    status_of(&mut world).spec.checkpoint.namespace = None;
    world.claims = [claim("out", "ReadWriteMany")].into();
    world.permissions = Permissions { wanted: true, served: false, held: false };
    let plan = look(&world);
    assert!(plan.changes.iter().all(|change| matches!(change, Change::Delete(_))) && plan.changes.len() == 2);
    (world.workload, world.service) = (None, None);
    assert!(look(&world).changes.iter().all(|change| matches!(change, Change::Apply { .. })), "then the other one is served");
}

#[test]
fn what_is_served_ends_though_pods_of_another_checkpoint_are_on_their_way() {
    let mut world = serving();
    let foreign = status_of(&mut world).spec.checkpoint.clone();
    status_of(&mut world).status.get_or_insert_default().checkpoint = Some(foreign);
    status_of(&mut world).spec.checkpoint.namespace = None;
    world.claims = [claim("out", "ReadWriteMany")].into();
    let template = Arc::make_mut(world.workload.as_mut().unwrap()).spec.as_mut().unwrap().template.metadata.as_mut().unwrap();
    template.annotations.as_mut().unwrap().remove(crate::api::names::CHECKPOINT_NAMESPACE);
    let served = permission::served_elsewhere(&world);
    assert_eq!(served.len(), 1, "the pods that are there: {served:?}");
    world.permissions = Permissions { wanted: true, served: false, held: false };
    let plan = look(&world);
    assert!(plan.changes.iter().all(|change| matches!(change, Change::Delete(_))) && plan.changes.len() == 2);
    (world.workload, world.service) = (None, None);
    assert_eq!(look(&world).status.unwrap().checkpoint, None, "nothing is served any more");
}

#[test]
fn what_may_be_served_goes_on_while_the_spec_names_what_may_not() {
    let mut world = serving();
    world.permissions = Permissions { wanted: false, served: true, held: false };
    world.checkpoint = None;
    let plan = look(&world);
    assert!(plan.changes.is_empty());
    assert_eq!((reason(&plan, STALLED).as_str(), phase(&plan)), ("NotPermitted", DeploymentPhase::Degraded));
}

#[test]
fn nothing_of_it_outlives_its_permission_even_when_the_operator_dies_in_between() {
    let settings = Settings { gateway: "infra/main".parse().ok(), ..settings() };
    let look = |world: &ObservedDeployment| plan(world, &settings, now());
    let mut world = serving();
    world.route = Route::Known(None);
    status_of(&mut world).spec.replicas = 2;
    let made = look(&world);
    carry_out(&mut world, &made);
    assert_eq!(reason(&look(&world), condition::ROUTED), "Routed");
    world.permissions = Permissions::default();
    world.checkpoint = None;
    let torn = look(&world);
    let kinds = |plan: &Plan<_>| -> Vec<_> {
        let kind = |change: &Change| match change {
            Change::Delete(gone) => gone.kind,
            other => panic!("{other:?}"),
        };
        plan.changes.iter().map(kind).collect()
    };
    assert_eq!(kinds(&torn), [ChildKind::Workload, ChildKind::Service, ChildKind::Budget, ChildKind::Route]);
    assert_eq!(reason(&torn, condition::ROUTED), "NothingServed", "it is not said any more that it leads to the model");
    world.workload = None;
    status_of(&mut world).status = torn.status;
    let left = look(&world);
    assert_eq!(kinds(&left), [ChildKind::Service, ChildKind::Budget, ChildKind::Route]);
    carry_out(&mut world, &left);
    let after = look(&world);
    assert_eq!((after.changes.len(), reason(&after, condition::ROUTED).as_str()), (0, "NothingServed"));
}
