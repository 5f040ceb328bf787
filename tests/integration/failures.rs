//! Pods that fail: what is told of it, what is tried again, and what is counted.

use std::collections::BTreeSet;

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::{Api, ResourceExt, api::EvictParams};
use serde_json::json;

use finetune_operator::{
    api::{Failure, FineTune, FineTunePhase, names},
    protocol::{End, Report},
};

use crate::harness::{
    Agent, Sandbox,
    agent::so_far,
    in_sandbox,
    sandbox::of,
    wait::{until, until_some},
};

/// The training pod that comes after those of these uids.
async fn next_pod(sandbox: &Sandbox, run: &FineTune, before: &BTreeSet<String>) -> Agent {
    let selector = format!("{},{}={}", of(run), names::ROLE, names::ROLE_TRAIN);
    let pods: Api<corev1::Pod> = sandbox.api();
    let is_next = |pod: &corev1::Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        phase == Some("Running") && !before.contains(&pod.uid().unwrap())
    };
    let pod = until_some(&pods, &selector, "another pod runs", is_next).await;
    Agent::of_pod(sandbox, pod).await
}

fn script_error(message: &str) -> Failure {
    Failure { reason: "ScriptError".into(), message: message.into(), ..Failure::default() }
}

/// Failures the Job has counted.
async fn counted(sandbox: &Sandbox, run: &FineTune) -> i32 {
    let job = sandbox.jobs(run).await.remove(0);
    job.status.and_then(|status| status.failed).unwrap_or(0)
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_failure_only_the_user_can_mend_ends_the_run_at_the_first_pod() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"retries": 5})).await;
        let failure = Failure {
            reason: "GpuOutOfMemory".into(),
            message: "CUDA out of memory at step 3".into(),
            hint: "halve batch_size".into(),
            user_error: true,
            ..Failure::default()
        };
        Agent::training(&sandbox, &run, 1).await.fail(78, Some(failure)).await;
        let run = sandbox.until_phase("bot", FineTunePhase::Failed).await;
        let failure = run.status.clone().unwrap().failure.unwrap();
        assert_eq!((failure.reason.as_str(), failure.exit_code), ("GpuOutOfMemory", Some(78)));
        assert_eq!((failure.message.as_str(), failure.hint.as_str()), ("CUDA out of memory at step 3", "halve batch_size"));
        assert_eq!(sandbox.pods(&run).await.len(), 1);
        assert_eq!(run.status.unwrap().attempts[0].reason.as_deref(), Some("GpuOutOfMemory"));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn any_other_failure_is_tried_again_as_often_as_retries_say() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"retries": 1})).await;
        let mut first = Agent::training(&sandbox, &run, 1).await;
        first.fail(1, Some(script_error("ValueError: no"))).await;
        let mut second = next_pod(&sandbox, &run, &[first.pod.uid().unwrap()].into()).await;
        let during = sandbox.until_phase("bot", FineTunePhase::Running).await;
        assert_eq!(during.status.unwrap().failure, None);
        second.fail(1, Some(script_error("ValueError: still no"))).await;
        let run = sandbox.until_phase("bot", FineTunePhase::Failed).await;
        let failure = run.status.clone().unwrap().failure.unwrap();
        assert_eq!((failure.reason.as_str(), failure.exit_code), ("ScriptError", Some(1)));
        assert!(failure.message.contains("still no"), "{}", failure.message);
        assert_eq!((sandbox.pods(&run).await.len(), run.status.unwrap().attempt), (2, 1));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_interruption_is_not_counted() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"retries": 0})).await;
        let mut first = Agent::training(&sandbox, &run, 1).await;
        first.report(so_far(1, &[(10, "2.0")], 20)).await;
        first.fail(85, None).await;
        let mut second = next_pod(&sandbox, &run, &[first.pod.uid().unwrap()].into()).await;
        assert_eq!(counted(&sandbox, &run).await, 0);
        second.train(&[(10, "2.0"), (20, "1.0")]).await;
        second.end("succeed", "").await;
        let status = sandbox.until_phase("bot", FineTunePhase::Succeeded).await.status.unwrap();
        assert_eq!((status.attempt, status.checkpoint_count), (1, 2));
        assert_eq!(status.progress.unwrap().step, 20, "what the second pod said of itself");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_eviction_is_not_counted() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"retries": 0})).await;
        let first = Agent::training(&sandbox, &run, 1).await;
        let pods: Api<corev1::Pod> = sandbox.api();
        pods.evict(&first.pod.name_any(), &EvictParams::default()).await.unwrap();
        let second = next_pod(&sandbox, &run, &[first.pod.uid().unwrap()].into()).await;
        assert_eq!(counted(&sandbox, &run).await, 0);
        second.end("succeed", "").await;
        let jobs: Api<batch::Job> = sandbox.api();
        let job = sandbox.jobs(&run).await.remove(0);
        let complete = |job: &batch::Job| job.status.as_ref().is_some_and(|status| status.completion_time.is_some());
        until(&jobs, &job.name_any(), "it is complete", complete).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_pod_that_says_nothing_before_it_is_killed_for_its_memory_is_understood() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"retries": 0})).await;
        let mut agent = Agent::training(&sandbox, &run, 1).await;
        agent.report(Report { end: Some(End { exit_code: 137, failure: None }), ..Report::default() }).await;
        agent.end("fail:137:OOMKilled", "").await;
        let run = sandbox.until_phase("bot", FineTunePhase::Failed).await;
        let failure = run.status.unwrap().failure.unwrap();
        assert_eq!(failure.reason, "OutOfMemory");
        assert!(failure.hint.contains("memory"), "{}", failure.hint);
    })
    .await;
}
