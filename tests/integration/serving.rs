//! Checkpoints that are served. Simulated pods are ready at once, as if their sidecars had seen the model.

use k8s_openapi::api::{apps::v1 as apps, core::v1 as corev1};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use finetune_operator::{
    api::{Checkpoint, CheckpointPhase, DeploymentPhase, ModelDeployment, condition, names},
    protocol::Report,
};

use crate::harness::{
    Agent, Sandbox, in_sandbox, saved,
    wait::{list, until, until_gone},
};

/// A verified adapter of that name.
pub async fn checkpoint(sandbox: &Sandbox, name: &str) -> Checkpoint {
    let storage = json!({"volume": {"claimName": "models", "path": format!("old/{name}")}});
    let spec = json!({"baseModel": {"name": "it-tiny"}, "format": "Adapter", "step": 7, "storage": storage});
    let made: Checkpoint = sandbox.create(json!({"metadata": {"name": name}, "spec": spec})).await;
    let selector = format!("{}={}", names::CHECKPOINT_UID, made.uid().unwrap());
    let mut reader = Agent::of_role(sandbox, &selector, names::ROLE_IMPORT).await;
    reader.report(Report { checkpoints: vec![saved(0, 7, "1.0")], ..Report::default() }).await;
    reader.end("succeed", "").await;
    until(&sandbox.api::<Checkpoint>(), name, "it is Ready", |checkpoint| {
        checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Ready)
    })
    .await
}

pub async fn serve(sandbox: &Sandbox, checkpoint: &str) -> ModelDeployment {
    let spec = json!({"checkpoint": {"name": checkpoint}, "runtime": {"name": "it-server"}, "hardware": {"profile": "it-gpu"}});
    sandbox.create(json!({"metadata": {"name": "bot"}, "spec": spec})).await
}

pub async fn edit(sandbox: &Sandbox, spec: Value) {
    let api: Api<ModelDeployment> = sandbox.api();
    api.patch("bot", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
}

/// The deployment, once it serves what its newest spec asks for.
pub async fn until_serving(sandbox: &Sandbox) -> ModelDeployment {
    until(&sandbox.api::<ModelDeployment>(), "bot", "it serves", |deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        status.phase == DeploymentPhase::Ready && status.observed_generation == deployment.metadata.generation
    })
    .await
}

pub async fn until_reason(sandbox: &Sandbox, reason: &str) -> ModelDeployment {
    until(&sandbox.api::<ModelDeployment>(), "bot", &format!("the reason is {reason}"), |deployment| {
        let conditions = deployment.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        condition::find(&conditions, condition::READY).is_some_and(|ready| ready.reason == reason)
    })
    .await
}

/// An annotation of the pods of the workload.
pub async fn of_pods(sandbox: &Sandbox, annotation: &str) -> Option<String> {
    let workload = sandbox.api::<apps::Deployment>().get("bot").await.unwrap();
    workload.spec?.template.metadata?.annotations?.get(annotation).cloned()
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_checkpoint_is_served_scaled_and_leaves_nothing_behind() {
    in_sandbox(|sandbox| async move {
        checkpoint(&sandbox, "imported").await;
        let deployment = serve(&sandbox, "imported").await;
        let uid = deployment.uid().unwrap();
        let status = until_serving(&sandbox).await.status.unwrap();
        assert!(condition::is_true(&status.conditions, condition::READY));
        assert_eq!(status.url, Some(format!("http://bot.{}.svc:8000/v1", sandbox.namespace)));
        assert_eq!((status.model_name.as_deref(), status.replicas, status.ready_replicas), (Some("imported"), 1, 1));
        let (workloads, services): (Api<apps::Deployment>, Api<corev1::Service>) = (sandbox.api(), sandbox.api());
        let (workload, service) = (workloads.get("bot").await.unwrap(), services.get("bot").await.unwrap());
        for owners in [workload.owner_references(), service.owner_references()] {
            assert!(owners.len() == 1 && owners[0].uid == uid && owners[0].controller == Some(true));
        }
        let deployments: Api<ModelDeployment> = sandbox.api();
        let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
        deployments.patch_scale("bot", &PatchParams::default(), &scale).await.unwrap();
        until_serving(&sandbox).await;
        let scale = deployments.get_scale("bot").await.unwrap().status.unwrap();
        assert_eq!((scale.replicas, scale.selector.clone()), (2, status.selector.clone()));
        let pods: Vec<corev1::Pod> = list(&sandbox.api(), &status.selector.unwrap()).await;
        assert_eq!(pods.len(), 2);
        deployments.delete("bot", &DeleteParams::default()).await.unwrap();
        until_gone(&deployments, &deployment).await;
        until_gone(&workloads, &workload).await;
        until_gone(&services, &service).await;
        for pod in pods {
            until_gone(&sandbox.api(), &pod).await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_deployment_waits_for_its_checkpoint_and_another_one_makes_new_pods() {
    in_sandbox(|sandbox| async move {
        serve(&sandbox, "first").await;
        until_reason(&sandbox, "CheckpointNotFound").await;
        checkpoint(&sandbox, "first").await;
        until_serving(&sandbox).await;
        assert_eq!(of_pods(&sandbox, names::CHECKPOINT).await.as_deref(), Some("first"));
        checkpoint(&sandbox, "second").await;
        edit(&sandbox, json!({"checkpoint": {"name": "second"}})).await;
        assert_eq!(until_serving(&sandbox).await.status.unwrap().model_name.as_deref(), Some("second"));
        assert_eq!(of_pods(&sandbox, names::CHECKPOINT).await.as_deref(), Some("second"));
        let before = of_pods(&sandbox, names::REVISION).await;
        edit(&sandbox, json!({"restarts": 1})).await;
        until_serving(&sandbox).await;
        assert_ne!(of_pods(&sandbox, names::REVISION).await, before);
        edit(&sandbox, json!({"checkpoint": {"name": "first", "namespace": "elsewhere"}})).await;
        let refused = until_reason(&sandbox, "NotPermitted").await.status.unwrap();
        assert!(condition::is_true(&refused.conditions, condition::STALLED));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_service_of_somebody_else_is_never_touched() {
    in_sandbox(|sandbox| async move {
        checkpoint(&sandbox, "imported").await;
        let spec = json!({"selector": {"app": "theirs"}, "ports": [{"port": 80}]});
        let theirs: corev1::Service = sandbox.create(json!({"metadata": {"name": "bot"}, "spec": spec})).await;
        serve(&sandbox, "imported").await;
        until_reason(&sandbox, "NameTaken").await;
        let services: Api<corev1::Service> = sandbox.api();
        assert_eq!(services.get("bot").await.unwrap().resource_version(), theirs.resource_version());
        services.delete("bot", &DeleteParams::default()).await.unwrap();
        until_serving(&sandbox).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_checkpoint_stays_while_it_is_served() {
    in_sandbox(|sandbox| async move {
        let served = checkpoint(&sandbox, "imported").await;
        let deployment = serve(&sandbox, "imported").await;
        until_serving(&sandbox).await;
        let checkpoints: Api<Checkpoint> = sandbox.api();
        checkpoints
            .patch(
                "imported",
                &PatchParams::default(),
                &Patch::Merge(json!({"metadata": {"finalizers": [names::CHECKPOINT_FINALIZER]}})),
            )
            .await
            .unwrap();
        checkpoints.delete("imported", &DeleteParams::default()).await.unwrap();
        until(&checkpoints, "imported", "it says who uses it", |checkpoint| {
            let conditions = checkpoint.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            condition::find(&conditions, condition::READY).is_some_and(|ready| ready.reason == "InUse")
        })
        .await;
        until_serving(&sandbox).await;
        let deployments: Api<ModelDeployment> = sandbox.api();
        deployments.delete("bot", &DeleteParams::default()).await.unwrap();
        until_gone(&deployments, &deployment).await;
        let remover =
            Agent::of_role(&sandbox, &format!("{}={}", names::CHECKPOINT_UID, served.uid().unwrap()), names::ROLE_DELETE).await;
        remover.end("succeed", "").await;
        until_gone(&checkpoints, &served).await;
    })
    .await;
}
