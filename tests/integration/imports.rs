//! Checkpoints written by hand, and single ones that are deleted.

use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use finetune_operator::{
    api::{Checkpoint, CheckpointPhase, FineTunePhase, condition, names},
    protocol::{FilesState, Report},
};

use crate::{
    harness::{
        Agent, Sandbox, in_sandbox, saved,
        wait::{until, until_gone},
    },
    run::train,
};

pub async fn import(sandbox: &Sandbox, claim: &str) -> Checkpoint {
    let spec = json!({
        "baseModel": {"name": "it-tiny"},
        "format": "Adapter",
        "storage": {"volume": {"claimName": claim, "path": "old/checkpoint-7"}},
        "step": 7,
    });
    sandbox.create(json!({"metadata": {"name": "imported"}, "spec": spec})).await
}

pub fn of(checkpoint: &Checkpoint) -> String {
    format!("{}={}", names::CHECKPOINT_UID, checkpoint.metadata.uid.as_ref().unwrap())
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_checkpoint_written_by_hand_is_ready_once_a_job_has_read_it() {
    in_sandbox(|sandbox| async move {
        let checkpoint = import(&sandbox, "models").await;
        let mut reader = Agent::of_role(&sandbox, &of(&checkpoint), names::ROLE_IMPORT).await;
        reader.report(Report { checkpoints: vec![saved(0, 7, "1.0")], ..Report::default() }).await;
        reader.end("succeed", "").await;
        let ready = until(&sandbox.api::<Checkpoint>(), "imported", "it is Ready", |checkpoint| {
            checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Ready)
        })
        .await;
        let status = ready.status.unwrap();
        assert!(condition::is_true(&status.conditions, condition::READY));
        assert!(!condition::is_true(&status.conditions, condition::RECONCILING));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_damaged_import_says_so() {
    in_sandbox(|sandbox| async move {
        let checkpoint = import(&sandbox, "models").await;
        let mut reader = Agent::of_role(&sandbox, &of(&checkpoint), names::ROLE_IMPORT).await;
        let mut damaged = saved(0, 7, "1.0");
        (damaged.state, damaged.message) = (FilesState::Corrupt, "adapter_model.safetensors is cut short".into());
        reader.report(Report { checkpoints: vec![damaged], ..Report::default() }).await;
        let corrupt = until(&sandbox.api::<Checkpoint>(), "imported", "it is Corrupt", |checkpoint| {
            checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Corrupt)
        })
        .await;
        let conditions = corrupt.status.unwrap().conditions;
        let stalled = condition::find(&conditions, condition::STALLED).unwrap();
        assert!(stalled.message.contains("cut short"), "{}", stalled.message);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_import_waits_for_its_claim() {
    in_sandbox(|sandbox| async move {
        let checkpoint = import(&sandbox, "old").await;
        let checkpoints: Api<Checkpoint> = sandbox.api();
        until(&checkpoints, "imported", "it says what is missing", |checkpoint| {
            let conditions = checkpoint.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            condition::find(&conditions, condition::READY).is_some_and(|ready| ready.reason == "ClaimNotFound")
        })
        .await;
        sandbox.claim("old").await;
        Agent::of_role(&sandbox, &of(&checkpoint), names::ROLE_IMPORT).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn deleting_one_checkpoint_of_a_finished_run_removes_its_files_first() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({})).await;
        train(&sandbox, &run, 1).await;
        let checkpoints: Api<Checkpoint> = sandbox.api();
        let doomed = checkpoints.get("bot-step-100").await.unwrap();
        checkpoints.delete("bot-step-100", &DeleteParams::default()).await.unwrap();
        let remover = Agent::of_role(&sandbox, &of(&doomed), names::ROLE_DELETE).await;
        assert!(checkpoints.get_opt("bot-step-100").await.unwrap().is_some(), "it stays until its files are gone");
        remover.end("succeed", "").await;
        until_gone(&checkpoints, &doomed).await;
        let run = sandbox
            .until_run("bot", "another is the best", |status| status.best_checkpoint.as_deref() == Some("bot-step-75"))
            .await;
        let status = run.status.unwrap();
        assert_eq!((status.phase, status.checkpoint_count), (FineTunePhase::Succeeded, 3));
        let left = checkpoints.list(&ListParams::default()).await.unwrap().items;
        assert_eq!(left.len(), 3);
    })
    .await;
}
