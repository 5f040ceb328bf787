//! Runs on two nodes: one Job of two pods that end and begin again together, and a node that goes silent.

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::{
    Api, ResourceExt,
    api::{EvictParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use finetune_operator::{
    api::{FineTune, FineTunePhase, TrainingRuntime, names},
    protocol::{End, Report, env},
};

use crate::harness::{
    Agent, Sandbox,
    agent::so_far,
    cluster::{put, runtime},
    in_sandbox,
    sandbox::{message, of},
    wait::{list, until, until_some},
};

/// Starts a run on two nodes.
async fn two_nodes(sandbox: &Sandbox, changes: Value) -> FineTune {
    let mut torchrun = runtime();
    torchrun["distributed"] = "Torchrun".into();
    put::<TrainingRuntime>(&sandbox.client, "it-torchrun", torchrun).await;
    let mut all = json!({"runtime": {"name": "it-torchrun"}, "hardware": {"profile": "it-gpu", "nodes": 2}});
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    sandbox.run("bot", all).await
}

/// The agents of both nodes of an attempt, in order of their rank.
async fn both(sandbox: &Sandbox, run: &FineTune, attempt: i64) -> [Agent; 2] {
    let selector = format!("{},{}={attempt},{}={}", of(run), names::ATTEMPT, names::ROLE, names::ROLE_TRAIN);
    let pods: Api<corev1::Pod> = sandbox.api();
    let of_rank = async |rank: &str| {
        let runs = |pod: &corev1::Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running") && pod.annotations().get(names::COMPLETION_INDEX).is_some_and(|index| index == rank)
        };
        let pod = until_some(&pods, &selector, &format!("node {rank} of attempt {attempt} runs"), runs).await;
        Agent::of_pod(sandbox, pod).await
    };
    [of_rank("0").await, of_rank("1").await]
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn one_failed_node_ends_the_other_and_both_begin_again_until_they_succeed() {
    in_sandbox(|sandbox| async move {
        let run = two_nodes(&sandbox, json!({"retries": 1})).await;
        let [mut first, second] = both(&sandbox, &run, 1).await;
        let service: Vec<corev1::Service> = list(&sandbox.api(), &of(&run)).await;
        assert_eq!(service.len(), 1);
        assert_eq!(first.pod.spec.as_ref().unwrap().subdomain, service[0].metadata.name, "pods find each other by it");
        let rank = first.pod.spec.as_ref().unwrap().init_containers.as_ref().unwrap()[0].env.iter().flatten();
        assert!(rank.into_iter().any(|variable| variable.name == env::NODE && variable.value_from.is_some()));
        first.report(so_far(1, &[(10, "2.0")], 20)).await;
        second.end("fail:1", "").await;
        let status = sandbox.until_run("bot", "both begin again", |status| status.attempt == 2).await.status.unwrap();
        assert_eq!((status.failures, status.attempts[0].reason.as_deref()), (1, Some("ScriptError")));
        let jobs: Vec<batch::Job> = sandbox.jobs(&run).await;
        let active = jobs.iter().filter(|job| job.status.as_ref().is_none_or(|status| status.conditions.is_none())).count();
        assert_eq!((jobs.len(), active), (2, 1), "the Job of the first attempt has failed");
        let [mut first, second] = both(&sandbox, &run, 2).await;
        first.train(&[(10, "2.0"), (20, "1.0")]).await;
        second.end("succeed", "").await;
        first.end("succeed", "").await;
        let status = sandbox.until_phase("bot", FineTunePhase::Succeeded).await.status.unwrap();
        assert_eq!((status.attempt, status.checkpoint_count, status.resolved.unwrap().nodes), (2, 2, 2));
        let services: Vec<corev1::Service> = list(&sandbox.api(), &of(&run)).await;
        assert_eq!((services.len(), services[0].uid()), (1, service[0].uid()), "one Service serves all attempts");
        assert_eq!(services[0].owner_references()[0].uid, run.uid().unwrap(), "it goes with the run");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_evicted_node_begins_again_with_the_other_and_is_not_counted() {
    in_sandbox(|sandbox| async move {
        let run = two_nodes(&sandbox, json!({"retries": 0})).await;
        let [_, second] = both(&sandbox, &run, 1).await;
        let pods: Api<corev1::Pod> = sandbox.api();
        pods.evict(&second.pod.name_any(), &EvictParams::default()).await.unwrap();
        let status = sandbox.until_run("bot", "both begin again", |status| status.attempt == 2).await.status.unwrap();
        assert_eq!((status.failures, status.attempts[0].reason.as_deref()), (0, Some("Interrupted")));
        let [mut first, second] = both(&sandbox, &run, 2).await;
        second.end("fail:78", "").await;
        first.report(Report { end: Some(End { exit_code: 85, failure: None }), ..Report::default() }).await;
        let status = sandbox.until_phase("bot", FineTunePhase::Failed).await.status.unwrap();
        assert_eq!((status.attempt, status.failure.unwrap().exit_code), (2, Some(78)), "only the user can mend it");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_node_that_goes_silent_is_named_and_its_pod_is_waited_for() {
    in_sandbox(|sandbox| async move {
        let run = two_nodes(&sandbox, json!({})).await;
        let [_, second] = both(&sandbox, &run, 1).await;
        sandbox.until_phase("bot", FineTunePhase::Running).await;
        // As the node lifecycle controller does for the pods of a node it cannot reach.
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let pods: Api<corev1::Pod> = sandbox.api();
        let name = second.pod.name_any();
        pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(ready)).await.unwrap();
        let told = sandbox.until_reason("bot", "NodeLost").await;
        let node = second.pod.spec.clone().unwrap().node_name.unwrap();
        let command = format!("kubectl taint nodes {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute");
        assert!(message(&told).contains(&command) && message(&told).contains(&name), "{}", message(&told));
        let back = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(back)).await.unwrap();
        sandbox.until_reason("bot", "Training").await;
        until(&pods, &name, "it runs on", |pod| pod.metadata.deletion_timestamp.is_none()).await;
    })
    .await;
}
