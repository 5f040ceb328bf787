//! Stop, pause, go on and restart, as the spec asks for them.

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::ResourceExt;
use serde_json::json;

use finetune_operator::{
    api::{FineTune, FineTunePhase, condition},
    protocol::End,
};

use crate::{
    harness::{Agent, Sandbox, agent::so_far, in_sandbox, wait::until_gone},
    run::{SAVES, train},
};

/// Waits until the training pod and Job of an attempt are gone.
async fn ended(sandbox: &Sandbox, agent: &Agent, job: &batch::Job) {
    until_gone(&sandbox.api::<corev1::Pod>(), &agent.pod).await;
    until_gone(&sandbox.api::<batch::Job>(), job).await;
}

/// Starts a run and lets it save twice.
async fn half_trained(sandbox: &Sandbox) -> (FineTune, Agent, batch::Job) {
    let run = sandbox.run("bot", json!({})).await;
    let mut agent = Agent::training(sandbox, &run, 1).await;
    sandbox.until_phase("bot", FineTunePhase::Running).await;
    agent.report(so_far(1, &SAVES[..2], 100)).await;
    let job = sandbox.jobs(&run).await.remove(0);
    (run, agent, job)
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_pause_ends_the_pods_keeps_the_checkpoints_and_going_on_is_the_next_attempt() {
    in_sandbox(|sandbox| async move {
        let (run, agent, job) = half_trained(&sandbox).await;
        sandbox.edit("bot", json!({"desiredState": "Paused"})).await.unwrap();
        ended(&sandbox, &agent, &job).await;
        let paused = sandbox.until_phase("bot", FineTunePhase::Paused).await;
        let status = paused.status.unwrap();
        assert!(!condition::is_true(&status.conditions, condition::FINISHED));
        assert_eq!((status.checkpoint_count, status.attempts[0].reason.as_deref()), (2, Some("Paused")));

        sandbox.edit("bot", json!({"desiredState": "Running"})).await.unwrap();
        let again = train(&sandbox, &run, 2).await;
        let status = again.status.unwrap();
        assert_eq!((status.attempt, status.lineage, status.checkpoint_count), (2, 1, 4));
        assert_eq!(status.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_stop_is_final_until_restarts_is_raised() {
    in_sandbox(|sandbox| async move {
        let (run, agent, job) = half_trained(&sandbox).await;
        sandbox.edit("bot", json!({"desiredState": "Stopped"})).await.unwrap();
        ended(&sandbox, &agent, &job).await;
        let stopped = sandbox.until_phase("bot", FineTunePhase::Stopped).await;
        assert!(condition::is_true(&stopped.status.unwrap().conditions, condition::FINISHED));
        assert_eq!(sandbox.checkpoints(&run).await.len(), 2);

        let refusal = sandbox.edit("bot", json!({"desiredState": "Running"})).await.unwrap_err().to_string();
        assert!(refusal.contains("raise restarts together with desiredState"), "{refusal}");
        sandbox.edit("bot", json!({"desiredState": "Running", "restarts": 1})).await.unwrap();
        let again = train(&sandbox, &run, 2).await;
        assert_eq!(again.status.unwrap().attempt, 2);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn stopped_is_never_said_while_a_pod_still_runs() {
    in_sandbox(|sandbox| async move {
        let (run, agent, _) = half_trained(&sandbox).await;
        agent.hold().await;
        sandbox.edit("bot", json!({"desiredState": "Stopped"})).await.unwrap();
        let stopping = sandbox.until_phase("bot", FineTunePhase::Stopping).await;
        assert!(!condition::is_true(&stopping.status.unwrap().conditions, condition::FINISHED));
        agent.let_go().await;
        sandbox.until_phase("bot", FineTunePhase::Stopped).await;
        assert!(sandbox.jobs(&run).await.is_empty());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_stop_before_anything_ran_makes_no_job() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"desiredState": "Stopped"})).await;
        sandbox.until_phase("bot", FineTunePhase::Stopped).await;
        assert!(sandbox.jobs(&run).await.is_empty());
        sandbox.edit("bot", json!({"desiredState": "Running", "restarts": 1})).await.unwrap();
        Agent::training(&sandbox, &run, 1).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_restart_from_scratch_opens_a_new_lineage() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({})).await;
        train(&sandbox, &run, 1).await;
        sandbox.edit("bot", json!({"restarts": 1, "startFrom": {"policy": "Scratch"}})).await.unwrap();
        let mut agent = Agent::training(&sandbox, &run, 2).await;
        let mut report = so_far(2, SAVES, 100);
        report.checkpoints.iter_mut().for_each(|checkpoint| checkpoint.lineage = 2);
        report.end = Some(End::default());
        agent.report(report).await;
        agent.end("succeed", "").await;
        let done = sandbox.until_phase("bot", FineTunePhase::Succeeded).await;
        let status = done.status.unwrap();
        assert_eq!((status.attempt, status.lineage), (2, 2));
        assert_eq!(status.best_checkpoint.as_deref(), Some("bot-v2-step-100"));
        assert_eq!(sandbox.checkpoints(&run).await.len(), 8);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_edit_while_training_is_told_and_touches_nothing_until_the_next_attempt() {
    in_sandbox(|sandbox| async move {
        let (run, _, job) = half_trained(&sandbox).await;
        let before = run_digest(&sandbox).await;
        sandbox.edit("bot", json!({"parameters": {"learning_rate": 0.5}})).await.unwrap();
        let told = sandbox.until_phase("bot", FineTunePhase::Running).await;
        assert!(crate::harness::sandbox::message(&told).contains("takes effect with the next attempt"));
        assert_eq!(run_digest(&sandbox).await, before);
        let jobs = sandbox.jobs(&run).await;
        assert_eq!((jobs.len(), jobs[0].uid()), (1, job.uid()));
    })
    .await;
}

async fn run_digest(sandbox: &Sandbox) -> String {
    let run: FineTune = sandbox.api().get("bot").await.unwrap();
    run.status.unwrap().resolved.unwrap().parameters_digest
}
