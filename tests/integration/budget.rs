//! Runs that have spent their budget.

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::ResourceExt;
use serde_json::json;

use finetune_operator::api::{FineTunePhase, condition};

use crate::{
    harness::{Agent, Sandbox, agent::so_far, audit, in_sandbox, sandbox::message, wait::until_gone},
    run::SAVES,
};

/// How often the operator had a Job of the namespace deleted.
fn deleted_jobs(sandbox: &Sandbox) -> usize {
    let operator = audit::operator();
    let deletes = audit::requests(|request| request.user.username == operator && request.verb == "delete" && request.succeeded());
    deletes.iter().filter(|request| request.resource() == "jobs" && request.object_ref.namespace == sandbox.namespace).count()
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_spent_duration_ends_the_pods_once_keeps_the_checkpoints_and_fails() {
    in_sandbox(|sandbox| async move {
        // No retries: the Job counts the pod it is deleted with as failed, which must not become the reason.
        let run = sandbox.run("bot", json!({"retries": 0, "budget": {"maxDuration": "15s", "maxCost": "100"}})).await;
        let mut agent = Agent::training(&sandbox, &run, 1).await;
        agent.hold().await;
        agent.report(so_far(1, &SAVES[..2], 100)).await;
        let job = sandbox.jobs(&run).await.remove(0);

        let stopping = sandbox.until_phase("bot", FineTunePhase::Stopping).await;
        assert!(!condition::is_true(&stopping.status.unwrap().conditions, condition::FINISHED), "a pod is left");
        agent.let_go().await;
        let failed = sandbox.until_phase("bot", FineTunePhase::Failed).await;
        until_gone(&sandbox.api::<corev1::Pod>(), &agent.pod).await;
        until_gone(&sandbox.api::<batch::Job>(), &job).await;
        assert_eq!((sandbox.jobs(&run).await.len(), deleted_jobs(&sandbox)), (0, 1));

        let status = failed.status.clone().unwrap();
        for kind in [condition::FINISHED, condition::STALLED] {
            let condition = condition::find(&status.conditions, kind).unwrap();
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "DeadlineExceeded"));
        }
        let failure = status.failure.unwrap();
        assert!(failure.user_error && failure.message.ends_with("of 15s are spent"), "{failure:?}");
        let cost = status.cost.unwrap();
        assert!(cost.seconds >= 15 && cost.gpu_seconds == cost.seconds, "{cost:?}");
        assert_eq!(sandbox.checkpoints(&run).await.len(), 2);

        sandbox.edit("bot", json!({"restarts": 1})).await.unwrap();
        let blocked = sandbox.until_phase("bot", FineTunePhase::Pending).await;
        assert!(message(&blocked).contains("spec.budget.maxDuration"), "{}", message(&blocked));
        assert!(sandbox.jobs(&run).await.is_empty());
        sandbox.edit("bot", json!({"budget": {"maxDuration": "1h"}})).await.unwrap();
        let second = Agent::training(&sandbox, &run, 2).await;
        assert_ne!(second.pod.uid(), agent.pod.uid());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_budget_that_cannot_be_read_is_refused() {
    in_sandbox(|sandbox| async move {
        for budget in [json!({"maxDuration": "tomorrow"}), json!({"maxDuration": ""}), json!({"maxCost": "ten"})] {
            let refusal = sandbox.try_run("bot", json!({"budget": budget})).await.unwrap_err().to_string();
            assert!(refusal.contains("spec.budget"), "{refusal}");
        }
    })
    .await;
}
