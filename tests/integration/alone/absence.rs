//! A run that ends while the operator is away.

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;

use finetune_operator::{
    api::{CheckpointPhase, Failure, FineTunePhase, names},
    protocol::{End, Report},
};

use crate::harness::{
    Agent,
    agent::so_far,
    proxy::Proxied,
    sandbox::{of, with_sandbox},
    wait::{until, until_gone},
};

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn sixty_checkpoints_saved_while_the_operator_was_away_are_collected() {
    with_sandbox(|sandbox| async move {
        let proxied = Proxied::start(&sandbox, None).await;
        let operator = &proxied.operator;
        let run = sandbox.run("bot", json!({})).await;
        let agent = Agent::training(&sandbox, &run, 1).await;
        sandbox.until_phase("bot", FineTunePhase::Running).await;
        operator.kill();

        agent.end("succeed", "").await;
        let jobs: Api<batch::Job> = sandbox.api();
        let job = sandbox.jobs(&run).await.remove(0);
        let complete = |job: &batch::Job| job.status.as_ref().is_some_and(|status| status.completion_time.is_some());
        until(&jobs, &job.name_any(), "it is complete", complete).await;
        let pods: Api<corev1::Pod> = sandbox.api();
        pods.delete(&agent.pod.name_any(), &DeleteParams::default()).await.unwrap();
        until_gone(&pods, &agent.pod).await;

        operator.start().await;
        let mut collector = Agent::of_role(&sandbox, &of(&run), names::ROLE_COLLECT).await;
        assert_eq!(collector.attempt(), 1);
        let losses: Vec<_> = (1..=60).map(|save| (save * 10, format!("{}.5", 61 - save))).collect();
        let saves: Vec<_> = losses.iter().map(|(step, loss)| (*step, loss.as_str())).collect();
        let end = Some(End { exit_code: 0, failure: None });
        collector.report(Report { end, ..so_far(1, &saves, 600) }).await;
        collector.end("succeed", "").await;
        let run = sandbox.until_phase("bot", FineTunePhase::Succeeded).await;
        let run = sandbox.until_run(&run.name_any(), "all are counted", |status| status.checkpoint_count == 60).await;
        let checkpoints = sandbox.checkpoints(&run).await;
        assert_eq!(checkpoints.len(), 60);
        assert!(checkpoints.iter().all(|checkpoint| checkpoint.status.as_ref().unwrap().phase == CheckpointPhase::Ready));
        assert_eq!(run.status.as_ref().unwrap().best_checkpoint.as_deref(), Some("bot-step-600"));
        let roles: Vec<_> = sandbox.jobs(&run).await.iter().map(|job| job.labels()[names::ROLE].clone()).collect();
        assert_eq!(roles, [names::ROLE_TRAIN, names::ROLE_COLLECT], "nothing trained again");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_run_deleted_while_the_operator_was_away_goes_when_it_is_back() {
    with_sandbox(|sandbox| async move {
        let proxied = Proxied::start(&sandbox, None).await;
        let operator = &proxied.operator;
        let run = sandbox.run("bot", json!({})).await;
        let run = crate::run::train(&sandbox, &run, 1).await;
        operator.kill();
        let runs: Api<finetune_operator::api::FineTune> = sandbox.api();
        runs.delete("bot", &DeleteParams::default()).await.unwrap();
        assert!(runs.get("bot").await.unwrap().metadata.deletion_timestamp.is_some(), "the finalizer holds it");
        operator.start().await;
        let remover = Agent::of_role(&sandbox, &of(&run), names::ROLE_DELETE).await;
        remover.end("succeed", "").await;
        until_gone(&runs, &run).await;
        crate::run::nothing_is_left(&sandbox, &run).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_failure_while_the_operator_was_away_is_concluded_though_the_pods_are_gone() {
    with_sandbox(|sandbox| async move {
        let proxied = Proxied::start(&sandbox, None).await;
        let run = sandbox.run("bot", json!({"retries": 0})).await;
        let agent = Agent::training(&sandbox, &run, 1).await;
        sandbox.until_phase("bot", FineTunePhase::Running).await;
        proxied.operator.kill();

        agent.end("fail:1", "").await;
        let jobs: Api<batch::Job> = sandbox.api();
        let job = sandbox.jobs(&run).await.remove(0);
        let failed =
            |job: &batch::Job| job.status.as_ref().is_some_and(|status| status.failed == Some(1) && status.conditions.is_some());
        until(&jobs, &job.name_any(), "it has failed", failed).await;
        let pods: Api<corev1::Pod> = sandbox.api();
        pods.delete(&agent.pod.name_any(), &DeleteParams::default()).await.unwrap();
        until_gone(&pods, &agent.pod).await;

        proxied.operator.start().await;
        let mut collector = Agent::of_role(&sandbox, &of(&run), names::ROLE_COLLECT).await;
        let failure = Failure { reason: "ScriptError".into(), message: "ValueError: no".into(), ..Failure::default() };
        let end = Some(End { exit_code: 1, failure: Some(failure) });
        collector.report(Report { end, ..so_far(1, &[(10, "2.0")], 100) }).await;
        collector.end("succeed", "").await;
        let status = sandbox.until_phase("bot", FineTunePhase::Failed).await.status.unwrap();
        assert_eq!((status.attempt, status.checkpoint_count), (1, 1));
        assert!(status.failure.is_some_and(|failure| !failure.message.is_empty()));
        let roles: Vec<_> = sandbox.jobs(&run).await.iter().map(|job| job.labels()[names::ROLE].clone()).collect();
        assert_eq!(roles, [names::ROLE_TRAIN, names::ROLE_COLLECT], "nothing trained again");
    })
    .await;
}
