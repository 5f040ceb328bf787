//! What is served changes: another checkpoint, one that fails, more replicas, none; and what a run deploys by itself. Pods of a checkpoint with
//! `broken` or `-13` at its name's end crash, those of a `slow` one start when they are told to.

use std::process::Stdio;

use futures::future::join_all;
use k8s_openapi::api::{apps::v1 as apps, autoscaling::v2 as autoscaling, core::v1 as corev1, policy::v1 as policy};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use finetune_operator::{
    api::{DeploymentPhase, FineTune, FineTunePhase, ModelDeployment, condition, names},
    protocol::{End, Report},
};

use crate::{
    harness::{
        Agent, Sandbox,
        agent::so_far,
        audit::of_operator,
        cluster::{ADMIN, setting},
        in_sandbox,
        wait::{list, until, until_gone, until_some},
    },
    run::{self, nothing_is_left, train},
    serving::{checkpoint, edit, serve, until_reason, until_serving},
};

/// Deletes a Deployment of ours and waits until it is gone.
pub async fn delete(sandbox: &Sandbox, deployment: &ModelDeployment) {
    let deployments: Api<ModelDeployment> = sandbox.api();
    deployments.delete(&deployment.name_any(), &DeleteParams::default()).await.unwrap();
    until_gone(&deployments, deployment).await;
}

/// Waits until nothing that serves is left in the namespace.
pub async fn nothing_serves(sandbox: &Sandbox) {
    let serves = format!("{}={}", names::ROLE, names::ROLE_SERVE);
    assert_eq!(list::<ModelDeployment>(&sandbox.api(), "").await, []);
    for workload in list::<apps::Deployment>(&sandbox.api(), &serves).await {
        until_gone(&sandbox.api(), &workload).await;
    }
    for service in list::<corev1::Service>(&sandbox.api(), &serves).await {
        until_gone(&sandbox.api(), &service).await;
    }
    for pod in pods(sandbox).await {
        until_gone(&sandbox.api(), &pod).await;
    }
}

/// The run, once its condition Deployed has a reason and the Deployment has come to rest.
pub async fn until_deployed(sandbox: &Sandbox, reason: &str) -> FineTune {
    until_serving(sandbox).await;
    sandbox
        .until_run("bot", &format!("Deployed is {reason}"), |status| {
            condition::find(&status.conditions, condition::DEPLOYED).is_some_and(|deployed| deployed.reason == reason)
        })
        .await
}

async fn pods(sandbox: &Sandbox) -> Vec<corev1::Pod> {
    list(&sandbox.api(), &format!("{}={}", names::ROLE, names::ROLE_SERVE)).await
}

/// The pods that are not on their way out, by name.
async fn pod_names(sandbox: &Sandbox) -> Vec<String> {
    let stays = |pod: &corev1::Pod| pod.metadata.deletion_timestamp.is_none();
    pods(sandbox).await.into_iter().filter(stays).map(|pod| pod.name_any()).collect()
}

/// Runs the real kubectl in the namespace.
async fn kubectl(sandbox: &Sandbox, arguments: &[&str]) {
    let command = tokio::process::Command::new("kubectl")
        .args(["--kubeconfig", &setting(ADMIN), "--namespace", &sandbox.namespace])
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let done = command.await.unwrap();
    assert!(done.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

async fn until_pod_of(sandbox: &Sandbox, checkpoint: &str) -> corev1::Pod {
    let serves = format!("{}={}", names::ROLE, names::ROLE_SERVE);
    until_some(&sandbox.api(), &serves, &format!("a pod of {checkpoint} is there"), |pod: &corev1::Pod| {
        pod.annotations().get(names::CHECKPOINT).is_some_and(|of| of == checkpoint)
    })
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_old_version_serves_until_the_new_one_is_ready() {
    in_sandbox(|sandbox| async move {
        checkpoint(&sandbox, "first").await;
        checkpoint(&sandbox, "slow").await;
        serve(&sandbox, "first").await;
        assert_eq!(until_serving(&sandbox).await.status.unwrap().checkpoint.unwrap().name, "first");
        let before = pod_names(&sandbox).await;
        edit(&sandbox, json!({"checkpoint": {"name": "slow"}})).await;
        let new = until_pod_of(&sandbox, "slow").await;
        assert!(pod_names(&sandbox).await.contains(&before[0]), "the old pod serves on");
        let status = until_reason(&sandbox, "Starting").await.status.unwrap();
        assert_eq!((status.phase, status.ready_replicas), (DeploymentPhase::Progressing, 1));
        assert_eq!((status.model_name.as_deref(), status.checkpoint.unwrap().name.as_str()), (Some("first"), "first"));
        let go = Patch::Merge(json!({"metadata": {"annotations": {"test.finetune.dev/go": "true"}}}));
        sandbox.api::<corev1::Pod>().patch(&new.name_any(), &PatchParams::default(), &go).await.unwrap();
        let status = until_serving(&sandbox).await.status.unwrap();
        assert_eq!((status.model_name.as_deref(), status.checkpoint.unwrap().name.as_str()), (Some("slow"), "slow"));
        assert_eq!(pod_names(&sandbox).await, [new.name_any()]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_version_of_a_person_that_fails_is_told_and_the_old_one_serves_on() {
    in_sandbox(|sandbox| async move {
        checkpoint(&sandbox, "first").await;
        checkpoint(&sandbox, "broken").await;
        serve(&sandbox, "first").await;
        until_serving(&sandbox).await;
        let before = pod_names(&sandbox).await;
        edit(&sandbox, json!({"checkpoint": {"name": "broken"}})).await;
        let failed = until_reason(&sandbox, "ServerFailed").await;
        assert_eq!(failed.spec.checkpoint.name, "broken", "nobody takes back what a person wrote");
        let status = failed.status.unwrap();
        assert_eq!((status.phase, status.ready_replicas), (DeploymentPhase::Degraded, 1));
        let said = &condition::find(&status.conditions, condition::STALLED).unwrap().message;
        assert!(said.contains("\"broken\" is not served") && said.contains("\"first\" still is"), "{said}");
        assert!(pod_names(&sandbox).await.contains(&before[0]));
        edit(&sandbox, json!({"checkpoint": {"name": "first"}})).await;
        until_serving(&sandbox).await;
        assert_eq!(pod_names(&sandbox).await, before, "what served all the time is not loaded anew");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn kubectl_and_an_autoscaler_scale_it_and_several_replicas_have_a_budget() {
    in_sandbox(|sandbox| async move {
        const NAME: &str = "deployments.finetune.dev/bot";
        checkpoint(&sandbox, "first").await;
        serve(&sandbox, "first").await;
        let one = until_serving(&sandbox).await;
        let budgets: Api<policy::PodDisruptionBudget> = sandbox.api();
        assert!(budgets.get_opt("bot").await.unwrap().is_none(), "one replica must not keep its node from being drained");
        kubectl(&sandbox, &["scale", NAME, "--replicas=2"]).await;
        assert_eq!(until_serving(&sandbox).await.status.unwrap().ready_replicas, 2);
        let budget = until(&budgets, "bot", "it counts the pods", |budget| {
            budget.status.as_ref().is_some_and(|status| status.expected_pods == 2 && status.disruptions_allowed == 1)
        })
        .await;
        assert_eq!(budget.owner_references()[0].uid, one.uid().unwrap());
        kubectl(&sandbox, &["autoscale", NAME, "--min=3", "--max=4", "--cpu=80%"]).await;
        until(&sandbox.api::<ModelDeployment>(), "bot", "the autoscaler has raised it", |bot| {
            bot.spec.replicas == 3 && bot.status.as_ref().is_some_and(|status| status.ready_replicas == 3)
        })
        .await;
        let autoscalers: Api<autoscaling::HorizontalPodAutoscaler> = sandbox.api();
        until(&autoscalers, "bot", "it sees the replicas", |autoscaler| {
            autoscaler.status.as_ref().is_some_and(|status| status.current_replicas == Some(3))
        })
        .await;
        autoscalers.delete("bot", &DeleteParams::default()).await.unwrap();
        kubectl(&sandbox, &["scale", NAME, "--replicas=0"]).await;
        let asleep = until_reason(&sandbox, "ScaledToZero").await.status.unwrap();
        assert_eq!((asleep.phase, asleep.replicas), (DeploymentPhase::Pending, 0));
        for kind in [condition::READY, condition::RECONCILING, condition::STALLED] {
            assert!(!condition::is_true(&asleep.conditions, kind), "{kind}");
        }
        until_gone(&budgets, &budget).await;
        kubectl(&sandbox, &["scale", NAME, "--replicas=1"]).await;
        assert_eq!(until_serving(&sandbox).await.status.unwrap().ready_replicas, 1);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn what_serves_is_scaled_while_the_checkpoint_that_comes_next_is_away() {
    in_sandbox(|sandbox| async move {
        checkpoint(&sandbox, "first").await;
        serve(&sandbox, "first").await;
        until_serving(&sandbox).await;
        edit(&sandbox, json!({"checkpoint": {"name": "away"}})).await;
        until_reason(&sandbox, "CheckpointNotFound").await;
        kubectl(&sandbox, &["scale", "deployments.finetune.dev/bot", "--replicas=2"]).await;
        let scaled = until(&sandbox.api::<ModelDeployment>(), "bot", "two serve", |bot| {
            bot.status.as_ref().is_some_and(|status| status.ready_replicas == 2)
        })
        .await;
        let status = scaled.status.unwrap();
        assert_eq!((status.phase, status.checkpoint.unwrap().name.as_str()), (DeploymentPhase::Degraded, "first"));
        checkpoint(&sandbox, "away").await;
        assert_eq!(until_serving(&sandbox).await.status.unwrap().ready_replicas, 2);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn what_others_do_to_the_workload_is_put_right_each_time_by_one_write() {
    in_sandbox(|sandbox| async move {
        checkpoint(&sandbox, "first").await;
        serve(&sandbox, "first").await;
        until_serving(&sandbox).await;
        let workloads: Api<apps::Deployment> = sandbox.api();
        for replicas in [3, 4, 3] {
            let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
            let changed = workloads.patch("bot", &PatchParams::default(), &scale).await.unwrap();
            until(&workloads, "bot", "there is to be one again", |found| {
                found.metadata.generation > changed.metadata.generation && found.spec.as_ref().unwrap().replicas == Some(1)
            })
            .await;
        }
        until_serving(&sandbox).await;
        let writes = of_operator().into_iter().filter(|request| {
            let object = &request.object_ref;
            request.is_mutating() && object.namespace == sandbox.namespace && object.api_group == "apps" && object.name == "bot"
        });
        assert_eq!(writes.count(), 4, "one that made it, and one for each change");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn many_who_deploy_the_same_get_one_and_a_restart_fetches_anew() {
    in_sandbox(|sandbox| async move {
        checkpoint(&sandbox, "first").await;
        let spec = json!({"checkpoint": {"name": "first"}, "runtime": {"name": "it-server"}, "hardware": {"profile": "it-gpu"}});
        let all = (0..8).map(|_| sandbox.try_create::<ModelDeployment>(json!({"metadata": {"name": "bot"}, "spec": spec})));
        let made = join_all(all).await;
        assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
        let refused = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.is_already_exists());
        assert!(made.iter().filter_map(|made| made.as_ref().err()).all(refused));
        until_serving(&sandbox).await;
        let before = pod_names(&sandbox).await;
        assert_eq!(before.len(), 1);
        edit(&sandbox, json!({"restarts": 1})).await;
        until_serving(&sandbox).await;
        let after = pod_names(&sandbox).await;
        assert!(after.len() == 1 && after != before, "{before:?} and then {after:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_run_serves_its_best_checkpoint_and_goes_back_from_one_that_fails() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"autoDeploy": {"checkpoint": "Best", "type": "fast"}})).await;
        let mut agent = Agent::training(&sandbox, &run, 1).await;
        agent.report(so_far(1, &[(10, "3.0")], 40)).await;
        until_deployed(&sandbox, "Serving").await;
        let first = until_serving(&sandbox).await;
        assert_eq!(first.owner_references()[0].uid, run.uid().unwrap());
        assert_eq!(first.status.as_ref().unwrap().model_name.as_deref(), Some("bot"), "the name stays whatever is served");
        kubectl(&sandbox, &["scale", "deployments.finetune.dev/bot", "--replicas=2"]).await;
        until_serving(&sandbox).await;
        let saves = [(10, "3.0"), (13, "2.0"), (20, "1.0")];
        agent.report(so_far(1, &saves[..2], 40)).await;
        let back = until_deployed(&sandbox, "RolledBack").await.status.unwrap();
        let said = &condition::find(&back.conditions, condition::DEPLOYED).unwrap().message;
        assert!(
            said.contains("\"bot-step-13\" could not be served (ServerFailed") && said.contains("\"bot-step-10\" is served"),
            "{said}"
        );
        let served = until_serving(&sandbox).await;
        assert_eq!((served.spec.checkpoint.name.as_str(), served.spec.replicas), ("bot-step-10", 2));
        agent.report(so_far(1, &saves, 40)).await;
        until(&sandbox.api::<ModelDeployment>(), "bot", "the better one is served", |bot| {
            bot.status.as_ref().and_then(|status| status.checkpoint.as_ref()).is_some_and(|served| served.name == "bot-step-20")
        })
        .await;
        assert_eq!(until_serving(&sandbox).await.spec.replicas, 2, "what a person scaled stays");
        agent.report(Report { end: Some(End::default()), ..so_far(1, &saves, 20) }).await;
        agent.end("succeed", "").await;
        sandbox.until_phase("bot", FineTunePhase::Succeeded).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_run_that_is_deleted_takes_what_it_deployed_along() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"autoDeploy": {"checkpoint": "Last"}})).await;
        let run = train(&sandbox, &run, 1).await;
        until_deployed(&sandbox, "Serving").await;
        assert_eq!(until_serving(&sandbox).await.spec.checkpoint.name, "bot-step-100");
        run::delete(&sandbox, &run).await;
        nothing_is_left(&sandbox, &run).await;
        nothing_serves(&sandbox).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_deployment_of_a_person_is_left_alone_by_a_run_of_its_name() {
    in_sandbox(|sandbox| async move {
        checkpoint(&sandbox, "first").await;
        serve(&sandbox, "first").await;
        let theirs = until_serving(&sandbox).await;
        let run = sandbox.run("bot", json!({"autoDeploy": {"checkpoint": "Last"}})).await;
        train(&sandbox, &run, 1).await;
        until_deployed(&sandbox, "NameTaken").await;
        assert_eq!(until_serving(&sandbox).await.resource_version(), theirs.resource_version());
    })
    .await;
}
