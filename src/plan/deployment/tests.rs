#![allow(clippy::needless_pass_by_value, reason = "test data reads better by value")]

mod sharing;

use std::sync::Arc;

use k8s_openapi::api::{apps::v1 as apps, core::v1 as corev1};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::{
    BaseModel, Checkpoint, DeploymentPhase, HardwareProfile, ModelDeployment, ServingRuntime,
    condition::{self, READY, RECONCILING, STALLED},
    names as labels,
};
use crate::plan::{
    ChildKind, Next, Problem,
    fixtures::{object, settings},
};

mod rollouts;

const UID: &str = "0b9f6a1e-0000-0000-0000-000000000002";

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_060).unwrap()
}

fn checkpoint(format: &str, storage: Value, status: Value) -> Arc<Checkpoint> {
    object(json!({
        "apiVersion": "finetune.dev/v1alpha1", "kind": "Checkpoint",
        "metadata": {"name": "bot-step-50", "namespace": "ns", "uid": "ckpt-uid"},
        "spec": {"baseModel": {"name": "tiny"}, "format": format, "step": 50, "storage": storage},
        "status": status,
    }))
}

fn lora(adapter: Value) -> Value {
    json!({"phase": "Ready", "digest": "sha256:d", "adapter": adapter})
}

fn runtime(name: &str, default: bool, spec: Value) -> Arc<ServingRuntime> {
    object(json!({
        "apiVersion": "finetune.dev/v1alpha1", "kind": "ServingRuntime",
        "metadata": {"name": name, "annotations": {labels::IS_DEFAULT: default.to_string()}},
        "spec": spec,
    }))
}

fn server() -> Value {
    json!({
        "image": "vllm:1", "deploymentTypes": ["fast", "normal"],
        "adapter": {"command": ["vllm"], "args": ["--lora=$(MODEL_NAME)=$(ADAPTER_PATH)"], "ranks": [1, 8, 16, 32]},
        "model": {"args": ["$(MODEL_PATH)"]},
    })
}

fn claim(name: &str, mode: &str) -> (String, Arc<corev1::PersistentVolumeClaim>) {
    (name.to_owned(), object(json!({"metadata": {"name": name}, "spec": {"accessModes": [mode]}})))
}

/// A world in which an adapter can be served; `spec` is laid over the spec.
fn world(spec: Value) -> ObservedDeployment {
    let mut wanted = json!({"checkpoint": {"name": "bot-step-50"}});
    wanted.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    ObservedDeployment {
        deployment: object::<ModelDeployment>(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "Deployment",
            "metadata": {"name": "bot", "namespace": "ns", "uid": UID, "generation": 1},
            "spec": wanted,
        })),
        checkpoint: Some(checkpoint(
            "Adapter",
            json!({"volume": {"claimName": "out", "path": "bot/lineage-1/checkpoint-50"}}),
            lora(json!({"rank": 12, "baseModel": "org/tiny"})),
        )),
        base_model: Some(object::<BaseModel>(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "BaseModel", "metadata": {"name": "tiny"},
            "spec": {"source": {"huggingFace": {"repo": "org/tiny", "secretName": "hub"}}},
        }))),
        runtimes: vec![runtime("vllm", true, server())],
        hardware: vec![object::<HardwareProfile>(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "HardwareProfile",
            "metadata": {"name": "gpu", "annotations": {labels::IS_DEFAULT: "true"}},
            "spec": {"gpu": {"count": 1}, "memory": "8Gi"},
        }))],
        claims: [claim("out", "ReadWriteMany")].into(),
        ..ObservedDeployment::default()
    }
}

fn status_of(world: &mut ObservedDeployment) -> &mut ModelDeployment {
    Arc::make_mut(&mut world.deployment)
}

/// Lets the world become what `plan` asks for, as the API server would: with uids, defaults and generations.
fn carry_out(world: &mut ObservedDeployment, plan: &Plan<ModelDeploymentStatus>) {
    for change in &plan.changes {
        match change {
            Change::Apply { child: Child::Workload(workload), known } => {
                assert_eq!(*known, world.workload.as_ref().map(|found| Known::of(&found.metadata)));
                let mut made = (**workload).clone();
                let generation = world.workload.as_ref().and_then(|known| known.metadata.generation).unwrap_or(0) + 1;
                made.metadata.uid = Some("workload-uid".into());
                made.metadata.generation = Some(generation);
                made.spec.as_mut().unwrap().min_ready_seconds = Some(0);
                made.status = world.workload.as_ref().and_then(|known| known.status.clone());
                world.workload = Some(Arc::new(made));
            }
            Change::Apply { child: Child::Service(service), known } => {
                assert_eq!(*known, world.service.as_ref().map(|found| Known::of(&found.metadata)));
                let mut made = (**service).clone();
                made.metadata.uid = Some("service-uid".into());
                made.spec.as_mut().unwrap().cluster_ip = Some("10.0.0.1".into());
                world.service = Some(Arc::new(made));
            }
            Change::Apply { child: Child::Budget(budget), known } => {
                assert_eq!(*known, world.budget.as_ref().map(|found| Known::of(&found.metadata)));
                let mut made = (**budget).clone();
                made.metadata.uid = Some("budget-uid".into());
                world.budget = Some(Arc::new(made));
            }
            Change::Apply { child: Child::Route(route), .. } => {
                let mut made = (**route).clone();
                made.metadata.uid = Some("route-uid".into());
                world.route = Route::Known(Some(Arc::new(made)));
            }
            Change::Scale { known, replicas, .. } => {
                let workload = Arc::make_mut(world.workload.as_mut().unwrap());
                assert_eq!(*known, Known::of(&workload.metadata));
                workload.spec.as_mut().unwrap().replicas = Some(*replicas);
            }
            Change::Delete(gone) => match gone.kind {
                ChildKind::Budget => world.budget = None,
                ChildKind::Workload => world.workload = None,
                ChildKind::Service => world.service = None,
                ChildKind::Route => world.route = Route::Known(None),
                other => panic!("{other:?} is not for this plan"),
            },
            other => panic!("{other:?} is not for this plan"),
        }
    }
    if let Some(status) = &plan.status {
        status_of(world).status = Some(status.clone());
    }
}

fn look(world: &ObservedDeployment) -> Plan<ModelDeploymentStatus> {
    plan(world, &settings(), now())
}

fn step(world: &mut ObservedDeployment) -> Plan<ModelDeploymentStatus> {
    let plan = look(world);
    carry_out(world, &plan);
    plan
}

/// The workload's controller has counted.
fn counted(world: &mut ObservedDeployment, (replicas, updated, ready): (i32, i32, i32), reason: &str) {
    let workload = Arc::make_mut(world.workload.as_mut().unwrap());
    workload.status = Some(apps::DeploymentStatus {
        observed_generation: workload.metadata.generation,
        replicas: Some(replicas),
        updated_replicas: Some(updated),
        ready_replicas: Some(ready),
        conditions: Some(serde_json::from_value(json!([{"type": "Progressing", "status": "True", "reason": reason}])).unwrap()),
        ..apps::DeploymentStatus::default()
    });
}

/// A pod of the current revision with that status.
fn pod(world: &mut ObservedDeployment, status: Value) {
    let template = world.workload.as_ref().unwrap().spec.as_ref().unwrap().template.clone();
    let mut pod: corev1::Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap();
    pod.metadata.labels = template.metadata.as_ref().unwrap().labels.clone();
    pod.metadata.annotations = template.metadata.unwrap().annotations;
    pod.spec = template.spec;
    pod.spec.as_mut().unwrap().node_name = Some("n".into());
    world.pods = vec![Arc::new(pod)];
}

fn reason(plan: &Plan<ModelDeploymentStatus>, kind: &str) -> String {
    let status = plan.status.clone().unwrap();
    condition::find(&status.conditions, kind).map(|found| found.reason.clone()).unwrap_or_default()
}

fn phase(plan: &Plan<ModelDeploymentStatus>) -> DeploymentPhase {
    plan.status.as_ref().unwrap().phase
}

fn workload(plan: &Plan<ModelDeploymentStatus>) -> &apps::Deployment {
    let made = plan.changes.iter().find_map(|change| match change {
        Change::Apply { child: Child::Workload(workload), .. } => Some(workload),
        _ => None,
    });
    made.unwrap()
}

fn pod_spec(plan: &Plan<ModelDeploymentStatus>) -> &corev1::PodSpec {
    workload(plan).spec.as_ref().unwrap().template.spec.as_ref().unwrap()
}

fn environment(container: &corev1::Container, name: &str) -> Option<String> {
    container.env.iter().flatten().find(|entry| entry.name == name)?.value.clone()
}

#[test]
fn a_checkpoint_becomes_ready_with_two_children_and_two_statuses() {
    let mut world = world(json!({}));
    let mut statuses = 0;
    let mut count = |plan: &Plan<_>, before: &ModelDeploymentStatus| statuses += u32::from(plan.status.as_ref() != Some(before));
    let before = world.status();
    let first = step(&mut world);
    count(&first, &before);
    assert_eq!(first.changes.len(), 2);
    assert_eq!((phase(&first), reason(&first, RECONCILING).as_str()), (DeploymentPhase::Progressing, "Starting"));
    for numbers in [(0, 0, 0), (1, 1, 0)] {
        counted(&mut world, numbers, "ReplicaSetUpdated");
        let before = world.status();
        let next = step(&mut world);
        count(&next, &before);
        assert_eq!((next.changes.len(), phase(&next)), (0, DeploymentPhase::Progressing));
    }
    counted(&mut world, (1, 1, 1), "NewReplicaSetAvailable");
    let before = world.status();
    let last = step(&mut world);
    count(&last, &before);
    let status = last.status.clone().unwrap();
    assert_eq!((status.phase, reason(&last, READY).as_str()), (DeploymentPhase::Ready, "Serving"));
    assert_eq!(status.url.as_deref(), Some("http://bot.ns.svc:8000/v1"));
    assert_eq!((status.model_name.as_deref(), status.replicas, status.ready_replicas), (Some("bot-step-50"), 1, 1));
    assert_eq!(status.selector, Some(format!("finetune.dev/deployment-uid={UID}")));
    assert_eq!(last.notices.len(), 1);
    assert_eq!(statuses, 2);
    assert_eq!(look(&world).status, Some(world.status()));
}

#[test]
fn an_adapter_gets_its_base_its_path_and_the_smallest_rank_that_fits() {
    let plan = look(&world(json!({})));
    let server = &pod_spec(&plan).containers[0];
    for (name, value) in [
        ("MODEL_NAME", "bot-step-50"),
        ("BASE_MODEL", "org/tiny"),
        ("ADAPTER_PATH", "/finetune/volumes/out/bot/lineage-1/checkpoint-50"),
        ("ADAPTER_RANK", "16"),
        ("MODEL_PATH", "/finetune/model"),
        ("PORT", "8000"),
    ] {
        assert_eq!(environment(server, name).as_deref(), Some(value), "{name}");
    }
    let token = server.env.iter().flatten().find(|entry| entry.name == "HF_TOKEN").unwrap();
    assert_eq!(token.value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap().name, "hub");
    assert_eq!(server.args.as_deref(), Some(&["--lora=$(MODEL_NAME)=$(ADAPTER_PATH)".to_owned()][..]));
}

#[test]
fn full_weights_in_a_store_are_fetched_and_compared() {
    let mut world = world(json!({}));
    let store = json!({"objectStore": {"uri": "s3://b/bot/checkpoint-50", "secretName": "s3"}});
    world.checkpoint = Some(checkpoint("Model", store, json!({"phase": "Ready", "digest": "sha256:d"})));
    world.claims.clear();
    let plan = look(&world);
    let pod = pod_spec(&plan);
    let fetch = &pod.init_containers.as_ref().unwrap()[0];
    let config: Value = serde_json::from_str(&environment(fetch, "FINETUNE_FETCH_CONFIG").unwrap()).unwrap();
    assert_eq!((config["digest"].as_str(), config["baseModel"].is_null()), (Some("sha256:d"), true));
    assert_eq!(fetch.env_from.as_ref().unwrap()[0].prefix.as_deref(), Some("WEIGHTS_"));
    assert_eq!(environment(&pod.containers[0], "MODEL_PATH").as_deref(), Some("/finetune/sources/weights"));
    assert_eq!(environment(&pod.containers[0], "BASE_MODEL"), None);
    assert!(pod.containers[0].env_from.is_none(), "the server sees no credentials of the store");
}

#[test]
fn the_pod_is_restricted_and_reads_volumes_only() {
    let plan = look(&world(json!({})));
    let pod = pod_spec(&plan);
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.security_context.as_ref().unwrap().run_as_non_root, Some(true));
    for container in pod.init_containers.iter().flatten().chain(&pod.containers) {
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.capabilities.as_ref().unwrap().drop, Some(vec!["ALL".to_owned()]));
        let claims = container.volume_mounts.iter().flatten().filter(|mount| mount.name.starts_with("source-"));
        assert!(claims.into_iter().all(|mount| mount.read_only == Some(true)));
    }
    let sidecar = pod.init_containers.as_ref().unwrap().last().unwrap();
    assert_eq!((sidecar.name.as_str(), sidecar.restart_policy.as_deref()), ("serve", Some("Always")));
    assert!(sidecar.startup_probe.is_none(), "a sidecar that waits for the server would keep it from starting");
    let drain = pod.containers[0].lifecycle.as_ref().unwrap().pre_stop.as_ref().unwrap().http_get.as_ref().unwrap();
    assert_eq!(drain.path.as_deref(), Some(crate::protocol::SERVE_DRAINED));
    assert!(i64::try_from(crate::protocol::DRAIN_SECONDS).unwrap() < pod.termination_grace_period_seconds.unwrap());
    let startup = pod.containers[0].startup_probe.as_ref().unwrap();
    assert!(startup.period_seconds.unwrap() * startup.failure_threshold.unwrap() >= 600);
}

#[test]
fn what_is_missing_is_waited_for_and_said() {
    type Loss = fn(&mut ObservedDeployment);
    let cases: [(Loss, &str); 8] = [
        (
            |world| {
                world.claims = [claim("out", "ReadWriteOnce")].into();
                let volumes = json!([{"name": "o", "persistentVolumeClaim": {"claimName": "out"}}]);
                let template = json!({"spec": {"containers": [], "volumes": volumes}});
                world.will_hold = vec![object(json!({"metadata": {"name": "j"}, "spec": {"template": template}}))];
            },
            "VolumeInUse",
        ),
        (|world| world.checkpoint = None, "CheckpointNotFound"),
        (|world| Arc::make_mut(world.checkpoint.as_mut().unwrap()).status = None, "CheckpointNotReady"),
        (|world| world.runtimes.clear(), "RuntimeNotFound"),
        (|world| world.hardware.clear(), "HardwareNotFound"),
        (|world| world.base_model = None, "BaseModelNotFound"),
        (|world| world.claims.clear(), "ClaimNotFound"),
        (
            |world| {
                world.claims = [claim("out", "ReadWriteOnce")].into();
                let volumes = json!([{"name": "o", "persistentVolumeClaim": {"claimName": "out"}}]);
                world.holders = vec![object(
                    json!({"metadata": {"name": "t"}, "spec": {"containers": [], "nodeName": "n1", "volumes": volumes}}),
                )];
            },
            "VolumeInUse",
        ),
    ];
    for (lose, expected) in cases {
        let mut world = world(json!({}));
        lose(&mut world);
        let plan = look(&world);
        assert_eq!((reason(&plan, RECONCILING).as_str(), phase(&plan)), (expected, DeploymentPhase::Pending));
        assert!(plan.changes.is_empty());
    }
}

#[test]
fn a_server_for_adapters_alone_waits_for_a_checkpoint_of_unknown_format() {
    let mut world = world(json!({}));
    world.checkpoint = None;
    world.runtimes = vec![runtime("lora", true, json!({"image": "x", "deploymentTypes": ["normal"], "adapter": {}}))];
    assert_eq!(reason(&look(&world), RECONCILING), "CheckpointNotFound");
}

#[test]
fn what_only_an_edit_can_mend_is_stalled() {
    let corrupt = |world: &mut ObservedDeployment, status: Value| {
        Arc::make_mut(world.checkpoint.as_mut().unwrap()).status = Some(serde_json::from_value(status).unwrap());
    };
    let mut foreign = world(json!({"checkpoint": {"name": "x", "namespace": "other"}}));
    foreign.checkpoint = None;
    let mut damaged = world(json!({}));
    corrupt(&mut damaged, json!({"phase": "Corrupt"}));
    let mut unsuitable = world(json!({}));
    unsuitable.runtimes = vec![runtime("full", true, json!({"image": "x", "deploymentTypes": ["normal"], "model": {}}))];
    let mut cases = vec![(foreign, "NotPermitted"), (damaged, "CheckpointUnusable"), (unsuitable, "RuntimeUnsuitable")];
    for (adapter, expected) in [
        (json!({"rank": 64}), "AdapterUnsupported"),
        (json!({"rank": 0}), "AdapterUnsupported"),
        (json!({"rank": 8, "modulesToSave": ["lm_head"]}), "AdapterUnsupported"),
        (json!({"rank": 8, "baseModel": "org/other"}), "BaseModelDiffers"),
    ] {
        let mut world = world(json!({}));
        corrupt(&mut world, lora(adapter));
        cases.push((world, expected));
    }
    for (world, expected) in cases {
        let plan = look(&world);
        assert_eq!((reason(&plan, STALLED).as_str(), phase(&plan)), (expected, DeploymentPhase::Failed));
        assert!(plan.changes.is_empty() && plan.status.unwrap().failure.unwrap().reason == expected);
    }
}

#[test]
fn an_adapter_that_is_merged_first_may_have_any_rank_and_modules() {
    let mut world = world(json!({}));
    let merging = json!({"image": "x", "deploymentTypes": ["normal"], "adapter": {"ranks": [8], "init": {"command": ["merge"]}}});
    world.runtimes = vec![runtime("merge", true, merging)];
    let status = lora(json!({"rank": 64, "modulesToSave": ["lm_head"], "baseModel": "unsloth/Tiny-bnb-4bit"}));
    Arc::make_mut(world.checkpoint.as_mut().unwrap()).status = Some(serde_json::from_value(status).unwrap());
    let plan = look(&world);
    let containers = pod_spec(&plan).init_containers.as_ref().unwrap();
    assert_eq!(containers.iter().map(|container| container.name.as_str()).collect::<Vec<_>>(), ["fetch", "init", "serve"]);
    let model = |container: &corev1::Container| {
        container.volume_mounts.as_ref().unwrap().iter().find(|mount| mount.name == "model").unwrap().read_only
    };
    assert_eq!((model(&containers[1]), model(&pod_spec(&plan).containers[0])), (None, Some(true)));
}

#[test]
fn the_server_is_the_one_named_else_the_default_for_the_type() {
    let other = |name: &str, default: bool, kind: &str| {
        let mut spec = server();
        spec["deploymentTypes"] = json!([kind]);
        spec["image"] = json!(name);
        runtime(name, default, spec)
    };
    let mut world = world(json!({"type": "fast"}));
    world.runtimes = vec![other("a", false, "fast"), other("b", true, "normal"), other("c", true, "fast")];
    assert_eq!(pod_spec(&look(&world)).containers[0].image.as_deref(), Some("c"));
    status_of(&mut world).spec.runtime = Some(crate::api::NameReference::new("a"));
    assert_eq!(pod_spec(&look(&world)).containers[0].image.as_deref(), Some("a"));
}

#[test]
fn a_held_volume_does_not_disturb_what_already_serves_from_it() {
    let mut world = world(json!({}));
    step(&mut world);
    world.claims = [claim("out", "ReadWriteOnce")].into();
    let volumes = json!([{"name": "o", "persistentVolumeClaim": {"claimName": "out"}}]);
    world.holders = vec![object(json!({"metadata": {"name": "t"}, "spec": {"containers": [], "volumes": volumes}}))];
    assert_eq!(reason(&look(&world), RECONCILING), "Starting");
}

#[test]
fn a_checkpoint_that_is_deleted_while_it_is_served_goes_on_being_served() {
    let mut world = world(json!({}));
    let leave = |world: &mut ObservedDeployment| {
        let metadata = json!({"name": "bot-step-50", "uid": "ckpt-uid", "deletionTimestamp": "2027-01-15T08:00:00Z"});
        Arc::make_mut(world.checkpoint.as_mut().unwrap()).metadata = serde_json::from_value(metadata).unwrap();
    };
    let mut fresh = world.clone();
    leave(&mut fresh);
    assert_eq!(reason(&look(&fresh), STALLED), "CheckpointDeleting");
    step(&mut world);
    leave(&mut world);
    assert!(look(&world).changes.is_empty());
    assert_eq!(reason(&look(&world), RECONCILING), "Starting");
}

#[test]
fn a_raised_restart_or_another_checkpoint_makes_new_pods_and_a_scale_does_not() {
    let mut world = world(json!({}));
    step(&mut world);
    let revision = |plan: &Plan<_>| children::revision(&workload(plan).metadata).unwrap().to_owned();
    let first = children::revision(&world.workload.as_ref().unwrap().metadata).unwrap().to_owned();
    status_of(&mut world).spec.replicas = 3;
    assert_eq!(revision(&look(&world)), first, "pods stay when there are to be more of them");
    step(&mut world);
    status_of(&mut world).spec.restarts = 1;
    assert_ne!(revision(&look(&world)), first);
    step(&mut world);
    Arc::make_mut(world.checkpoint.as_mut().unwrap()).metadata.uid = Some("another".into());
    assert_eq!(look(&world).changes.len(), 1);
    let upgraded = Settings { image: "operator:2".into(), ..settings() };
    step(&mut world);
    assert!(plan(&world, &upgraded, now()).changes.is_empty(), "an upgrade of the operator loads no model anew");
}

#[test]
fn what_served_before_keeps_its_name_until_the_new_one_serves() {
    let mut world = world(json!({}));
    step(&mut world);
    counted(&mut world, (1, 1, 1), "NewReplicaSetAvailable");
    step(&mut world);
    status_of(&mut world).spec.model_name = Some("new".into());
    status_of(&mut world).metadata.generation = Some(2);
    let rolling = step(&mut world).status.unwrap();
    assert_eq!((rolling.model_name.as_deref(), rolling.phase), (Some("bot-step-50"), DeploymentPhase::Progressing));
    assert_eq!(reason(&look(&world), RECONCILING), "Starting", "the count is of the revision before");
    counted(&mut world, (2, 1, 1), "ReplicaSetUpdated");
    assert_eq!(phase(&step(&mut world)), DeploymentPhase::Progressing);
    counted(&mut world, (1, 1, 1), "NewReplicaSetAvailable");
    let served = step(&mut world).status.unwrap();
    assert_eq!((served.model_name.as_deref(), served.phase), (Some("new"), DeploymentPhase::Ready));
}

#[test]
fn failures_of_pods_are_told_apart() {
    let server = |state: Value| json!({"containerStatuses": [{"name": "server", "image": "vllm:1", "imageID": "", "ready": false, "restartCount": 0, "state": state}]});
    let fetch = |state: Value| json!({"initContainerStatuses": [{"name": "fetch", "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": state}]});
    let ended =
        |code: i32, reason: &str, message: &str| json!({"terminated": {"exitCode": code, "reason": reason, "message": message}});
    let waiting = |reason: &str| json!({"waiting": {"reason": reason, "message": "words"}});
    let said = json!({"reason": "CheckpointInvalid", "message": "m", "hint": "h", "userError": true}).to_string();
    let since = |second: i64| Timestamp::from_second(now().as_second() - second).unwrap().to_string();
    let unscheduled = |second| {
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/2 nodes", "lastTransitionTime": since(second)}]})
    };
    let cases = [
        (server(ended(1, "Error", "boom")), "ServerFailed", true),
        (server(ended(137, "OOMKilled", "")), "OutOfMemory", true),
        (server(ended(143, "Error", "")), "StartTimeout", true),
        (server(ended(1, "Error", "torch.OutOfMemoryError: CUDA out of memory")), "GpuOutOfMemory", true),
        (server(ended(1, "Error", "LoRA rank 64 is greater than max_lora_rank 16")), "AdapterMismatch", true),
        (server(ended(1, "Error", "401 Client Error: hf_a1B2c3D4e5F6g7H8i9J0")), "ModelAccessDenied", true),
        (server(ended(128, "StartError", "exec: \"vlm\": not found")), "CannotStart", true),
        (server(waiting("ImagePullBackOff")), "ImagePullFailed", false),
        (server(waiting("CreateContainerConfigError")), "ContainerConfigInvalid", true),
        (fetch(ended(78, "Error", &said)), "CheckpointInvalid", true),
        (fetch(ended(1, "Error", "")), "FetchFailed", false),
        (unscheduled(60), "Unschedulable", false),
    ];
    for (status, expected, lasts) in cases {
        let mut world = world(json!({}));
        step(&mut world);
        counted(&mut world, (1, 1, 0), "ReplicaSetUpdated");
        pod(&mut world, status);
        let plan = look(&world);
        let (kind, stands) = if lasts { (STALLED, DeploymentPhase::Failed) } else { (RECONCILING, DeploymentPhase::Progressing) };
        assert_eq!((reason(&plan, kind).as_str(), phase(&plan)), (expected, stands));
        let status = plan.status.unwrap();
        assert_eq!(status.failure.as_ref().unwrap().reason, expected);
        assert!(!format!("{status:?}").contains("a1B2c3D4"), "a credential is quoted");
    }
    let mut world = world(json!({}));
    step(&mut world);
    counted(&mut world, (1, 1, 0), "ReplicaSetUpdated");
    pod(&mut world, unscheduled(1));
    Arc::make_mut(&mut world.pods[0]).spec.as_mut().unwrap().node_name = None;
    let plan = look(&world);
    assert_eq!(reason(&plan, RECONCILING), "Starting");
    assert!(matches!(plan.next, Next::After(_)), "it is looked at again before long");
}

#[test]
fn an_image_that_cannot_be_pulled_is_told_once_however_the_kubelet_puts_it() {
    let mut world = world(json!({}));
    step(&mut world);
    let waits = |world: &mut ObservedDeployment, reason: &str, words: &str| {
        counted(world, (1, 1, 0), "ReplicaSetUpdated");
        let waiting = json!({"waiting": {"reason": reason, "message": words}});
        pod(
            world,
            json!({"containerStatuses": [{"name": "server", "image": "r:1/vllm:1", "imageID": "", "ready": false, "restartCount": 0, "state": waiting}]}),
        );
    };
    waits(&mut world, "ImagePullBackOff", "Back-off pulling image \"r:1/vllm:1\"");
    let bare = step(&mut world).status.unwrap().failure.unwrap();
    assert_eq!((bare.reason.as_str(), bare.message.as_str()), ("ImagePullFailed", "image \"r:1/vllm:1\" cannot be pulled"));
    waits(&mut world, "ErrImagePull", "dial tcp 10.0.0.1:40412: refused");
    let told = step(&mut world).status.unwrap().failure.unwrap();
    assert!(told.message.ends_with("cannot be pulled: dial tcp 10.0.0.1:40412: refused"), "{}", told.message);
    for (reason, words) in [
        ("ImagePullBackOff", "Back-off pulling image \"r:1/vllm:1\": ErrImagePull: dial tcp 10.0.0.1:40412: refused"),
        ("ImagePullBackOff", "Back-off pulling image \"r:1/vllm:1\""),
        ("ErrImagePull", "dial tcp 10.0.0.1:51333: refused"),
    ] {
        waits(&mut world, reason, words);
        assert_eq!(look(&world).status, Some(world.status()), "{reason} {words}");
    }
    waits(&mut world, "ErrImagePull", "manifest unknown");
    assert!(look(&world).status.unwrap().failure.unwrap().message.ends_with("manifest unknown"), "that is news");
}

/// A pod whose server ended with those words.
fn crashed(world: &mut ObservedDeployment, words: &str) {
    let last = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": words}});
    pod(
        world,
        json!({"containerStatuses": [{"name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 1, "lastState": last}]}),
    );
    counted(world, (1, 1, 0), "ReplicaSetUpdated");
}

#[test]
fn the_last_words_of_a_server_are_quoted_and_those_of_its_next_tries_are_no_news() {
    let mut world = world(json!({}));
    step(&mut world);
    crashed(&mut world, "10:00 loading\n\n10:01 ValueError: no such layout  \n");
    let told = step(&mut world).status.unwrap().failure.unwrap();
    assert!(told.message.ends_with("Its last words:\n10:00 loading\n10:01 ValueError: no such layout"), "{}", told.message);
    crashed(&mut world, "10:05 loading\n10:06 ValueError: no such layout");
    assert_eq!(look(&world).status, Some(world.status()));
    crashed(&mut world, "torch.OutOfMemoryError: CUDA out of memory");
    assert_eq!(reason(&look(&world), STALLED), "GpuOutOfMemory");
}

#[test]
fn of_a_long_log_only_whole_lines_at_its_end_are_quoted() {
    let mut world = world(json!({}));
    step(&mut world);
    let rest_of_a_token = "k1L2m3N4o5P6q7R8s9T0";
    let lines = (1..=400).map(|line| format!("line {line}")).collect::<Vec<_>>().join("\n");
    crashed(&mut world, &format!("{rest_of_a_token}\n{lines}"));
    let long = look(&world).status.unwrap().failure.unwrap().message;
    assert!(long.contains("words:\nline 393\n") && long.ends_with("line 400"), "{long}");
    crashed(&mut world, &format!("{rest_of_a_token}{}\nend", "x".repeat(2048)));
    let wide = look(&world).status.unwrap().failure.unwrap().message;
    assert!(wide.ends_with("words:\nend"), "{wide}");
    crashed(&mut world, &"ä".repeat(900));
    let cut = look(&world).status.unwrap().failure.unwrap().message;
    assert!(cut.ends_with("ää") && cut.len() < 1300, "{cut}");
}

#[test]
fn pods_of_an_earlier_revision_say_nothing_about_the_new_one() {
    let mut world = world(json!({}));
    step(&mut world);
    let ended = json!({"terminated": {"exitCode": 1}});
    pod(
        &mut world,
        json!({"containerStatuses": [{"name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 3, "lastState": ended}]}),
    );
    counted(&mut world, (1, 1, 0), "ReplicaSetUpdated");
    assert_eq!(phase(&look(&world)), DeploymentPhase::Failed);
    status_of(&mut world).spec.restarts = 1;
    step(&mut world);
    counted(&mut world, (2, 1, 0), "ReplicaSetUpdated");
    assert_eq!(phase(&look(&world)), DeploymentPhase::Progressing);
}

#[test]
fn some_that_stop_serving_degrade_it() {
    let mut world = world(json!({"replicas": 2}));
    step(&mut world);
    counted(&mut world, (2, 2, 1), "ReplicaSetUpdated");
    assert_eq!(phase(&step(&mut world)), DeploymentPhase::Progressing);
    counted(&mut world, (2, 2, 2), "NewReplicaSetAvailable");
    assert_eq!(phase(&step(&mut world)), DeploymentPhase::Ready);
    counted(&mut world, (2, 2, 1), "NewReplicaSetAvailable");
    let plan = step(&mut world);
    assert_eq!((phase(&plan), reason(&plan, RECONCILING).as_str()), (DeploymentPhase::Degraded, "Impaired"));
}

#[test]
fn none_wanted_is_neither_ready_nor_failed() {
    let mut world = world(json!({"replicas": 0}));
    step(&mut world);
    counted(&mut world, (0, 0, 0), "NewReplicaSetAvailable");
    let plan = look(&world);
    assert_eq!(reason(&plan, READY), "ScaledToZero");
    assert!(!condition::is_true(&plan.status.unwrap().conditions, READY));
}

#[test]
fn a_refused_write_is_said_and_tried_again_later() {
    let mut world = world(json!({}));
    let message = "Service bot exists and is not ours".to_owned();
    world.refusal = Some(Problem { reason: "NameTaken", field: "metadata.name".into(), message, waits: false });
    let plan = look(&world);
    assert_eq!((reason(&plan, STALLED).as_str(), plan.changes.len()), ("NameTaken", 0));
    assert!(matches!(plan.next, Next::After(_)));
}

#[test]
fn one_that_is_deleted_or_lies_in_a_namespace_that_goes_is_left_alone() {
    let mut leaving = world(json!({}));
    status_of(&mut leaving).metadata.deletion_timestamp = serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap();
    assert_eq!(look(&leaving), Plan::nothing());
    let mut terminating = world(json!({}));
    terminating.namespace_terminating = true;
    assert_eq!(look(&terminating), Plan::nothing());
}

proptest! {
    #[test]
    fn a_plan_carried_out_leaves_nothing_to_write(
        replicas in 0..5_i32, restarts in 0..3_i64, rank in 0..40_i64, format in prop_oneof!["Adapter", "Model"], name in "[a-z]{1,9}",
        counts in (0..5_i32, 0..5_i32, 0..5_i32), available in any::<bool>(),
    ) {
        let mut world = world(json!({"replicas": replicas, "restarts": restarts, "modelName": name}));
        let storage = json!({"volume": {"claimName": "out", "path": "a$(b)"}});
        world.checkpoint = Some(checkpoint(&format, storage, lora(json!({"rank": rank}))));
        step(&mut world);
        if world.workload.is_some() {
            counted(&mut world, counts, if available { "NewReplicaSetAvailable" } else { "ReplicaSetUpdated" });
        }
        step(&mut world);
        let again = look(&world);
        prop_assert!(again.changes.is_empty());
        prop_assert_eq!(again.status, Some(world.status()));
        prop_assert!(again.notices.is_empty());
        let ready = condition::is_true(&world.status().conditions, READY);
        prop_assert!(!ready || counts.2 >= replicas && replicas > 0);
    }
}
