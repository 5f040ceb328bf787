//! Which checkpoints a policy keeps when somebody uses them or may: what is used or shared stays, and goes when that ends, though nothing else
//! happens to its run.

use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;

use finetune_operator::api::{Checkpoint, CheckpointPermission, CheckpointPhase, FineTunePhase, ModelDeployment};

use crate::{
    harness::{
        Agent, Sandbox,
        agent::so_far,
        in_sandbox,
        wait::{list, until, until_gone},
    },
    run,
    serving::{edit, serve, until_serving},
};

const SAVES: &[(i64, &str)] = &[(10, "3.0"), (20, "2.0"), (30, "1.0")];

async fn until_ready(sandbox: &Sandbox, name: &str) -> Checkpoint {
    until(&sandbox.api::<Checkpoint>(), name, "it is Ready", |checkpoint| {
        checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Ready)
    })
    .await
}

async fn until_surplus(sandbox: &Sandbox, name: &str) {
    until(&sandbox.api::<Checkpoint>(), name, "it is surplus", |found| found.metadata.deletion_timestamp.is_some()).await;
}

async fn is_kept(sandbox: &Sandbox, name: &str) -> bool {
    sandbox.api::<Checkpoint>().get(name).await.unwrap().metadata.deletion_timestamp.is_none()
}

async fn share(sandbox: &Sandbox, checkpoint: &str) {
    let spec = json!({"checkpoint": {"name": checkpoint}, "project": "nobody-yet"});
    sandbox.create::<CheckpointPermission>(json!({"metadata": {"name": "share"}, "spec": spec})).await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn what_is_used_no_more_is_surplus_at_once() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("run", json!({"checkpoints": {"keepLast": 1}})).await;
        let mut agent = Agent::training(&sandbox, &run, 1).await;
        agent.report(so_far(1, &SAVES[..2], 100)).await;
        until_surplus(&sandbox, "run-step-10").await;
        serve(&sandbox, "run-step-20").await;
        until_serving(&sandbox).await;
        agent.report(so_far(1, SAVES, 100)).await;
        until_ready(&sandbox, "run-step-30").await;
        agent.report(so_far(1, &[SAVES[0], SAVES[1], SAVES[2], (40, "0.9")], 100)).await;
        until_surplus(&sandbox, "run-step-30").await;
        assert!(is_kept(&sandbox, "run-step-20").await, "it is served");
        edit(&sandbox, json!({"checkpoint": {"name": "run-step-40"}})).await;
        until_serving(&sandbox).await;
        until_surplus(&sandbox, "run-step-20").await;

        let deployments: Api<ModelDeployment> = sandbox.api();
        let saves = [SAVES[0], SAVES[1], SAVES[2], (40, "0.9"), (50, "0.8")];
        agent.report(so_far(1, &saves, 100)).await;
        until_ready(&sandbox, "run-step-50").await;
        agent.report(so_far(1, &[&saves[..], &[(60, "0.7")]].concat(), 100)).await;
        until_surplus(&sandbox, "run-step-50").await;
        assert!(is_kept(&sandbox, "run-step-40").await, "it is served");
        deployments.delete("bot", &DeleteParams::default()).await.unwrap();
        until_surplus(&sandbox, "run-step-40").await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn what_is_shared_stays_though_nobody_uses_it_yet() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("run", json!({"checkpoints": {"keepLast": 1}})).await;
        let mut agent = Agent::training(&sandbox, &run, 1).await;
        agent.report(so_far(1, &SAVES[..1], 100)).await;
        until_ready(&sandbox, "run-step-10").await;
        share(&sandbox, "run-step-10").await;
        agent.report(so_far(1, &SAVES[..2], 100)).await;
        until_ready(&sandbox, "run-step-20").await;
        agent.report(so_far(1, SAVES, 100)).await;
        until_surplus(&sandbox, "run-step-20").await;
        assert!(is_kept(&sandbox, "run-step-10").await, "it is shared");
        sandbox.api::<CheckpointPermission>().delete("share", &DeleteParams::default()).await.unwrap();
        until_surplus(&sandbox, "run-step-10").await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn what_is_shared_survives_its_run_and_goes_when_its_owner_says_so() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("run", json!({})).await;
        let mut agent = Agent::training(&sandbox, &run, 1).await;
        agent.train(&SAVES[..2]).await;
        agent.end("succeed", "").await;
        sandbox.until_phase("run", FineTunePhase::Succeeded).await;
        share(&sandbox, "run-step-10").await;
        run::delete(&sandbox, &run).await;
        let left: Vec<_> = list::<Checkpoint>(&sandbox.api(), "").await;
        assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["run-step-10"]);
        assert!(is_kept(&sandbox, "run-step-10").await);
        let checkpoints: Api<Checkpoint> = sandbox.api();
        checkpoints.delete("run-step-10", &DeleteParams::default()).await.unwrap();
        let selector = format!("{}={}", finetune_operator::api::names::CHECKPOINT_UID, left[0].uid().unwrap());
        let remover = Agent::of_role(&sandbox, &selector, finetune_operator::api::names::ROLE_DELETE).await;
        remover.end("succeed", "").await;
        until_gone(&checkpoints, &left[0]).await;
    })
    .await;
}
