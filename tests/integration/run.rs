//! A run from its creation to its end and beyond, and what is left when it is deleted.

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1, events::v1 as events};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use finetune_operator::api::{Checkpoint, CheckpointPhase, FineTune, FineTuneHistory, FineTunePhase, condition, names};

use crate::harness::{
    Agent, Sandbox, in_sandbox,
    sandbox::of,
    wait::{list, until, until_gone, until_some},
};

/// Four saves of a training that gets better and better.
pub const SAVES: &[(i64, &str)] = &[(25, "3.5"), (50, "2.5"), (75, "1.5"), (100, "0.5")];

/// Trains a run to its end.
pub async fn train(sandbox: &Sandbox, run: &FineTune, attempt: i64) -> FineTune {
    let mut agent = Agent::training(sandbox, run, attempt).await;
    agent.train(SAVES).await;
    agent.end("succeed", "").await;
    sandbox.until_phase(&run.name_any(), FineTunePhase::Succeeded).await
}

/// Deletes a run, and has the Job that removes its files succeed.
pub async fn delete(sandbox: &Sandbox, run: &FineTune) {
    let runs: Api<FineTune> = sandbox.api();
    runs.delete(&run.name_any(), &DeleteParams::default()).await.unwrap();
    let remover = Agent::of_role(sandbox, &of(run), names::ROLE_DELETE).await;
    remover.end("succeed", "").await;
    until_gone(&runs, run).await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_run_trains_to_its_end_and_leaves_ready_checkpoints_progress_and_history() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({})).await;
        let run = train(&sandbox, &run, 1).await;
        let status = run.status.clone().unwrap();
        for kind in [condition::READY, condition::FINISHED] {
            assert!(condition::is_true(&status.conditions, kind), "{kind}: {:?}", status.conditions);
        }
        assert_eq!(status.best_checkpoint.as_deref(), Some("bot-step-100"));
        assert_eq!((status.latest_checkpoint.as_deref(), status.checkpoint_count), (Some("bot-step-100"), 4));
        let progress = status.progress.unwrap();
        assert_eq!((progress.step, progress.percent, progress.ended_by.is_some()), (100, Some(100), true));
        assert_eq!(progress.summary.as_deref(), Some("100% 100/100"));

        let jobs = sandbox.jobs(&run).await;
        let uid = run.uid().unwrap();
        assert_eq!(jobs.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), [format!("bot-{}-1", &uid[..8])]);
        assert_eq!(status.job_name, Some(jobs[0].name_any()));
        for checkpoint in sandbox.checkpoints(&run).await {
            let status = checkpoint.status.unwrap();
            assert_eq!(status.phase, CheckpointPhase::Ready);
            assert!(condition::is_true(&status.conditions, condition::READY) && status.resumable);
        }
        let history = sandbox.history(&run).await.unwrap().spec;
        assert_eq!(history.series[0].steps, [25, 50, 75, 100]);
        assert!(history.events.len() >= 5 && history.logs[0].lines.len() == 1, "{history:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_best_checkpoint_is_marked_and_only_it() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"checkpoints": {"metric": "loss"}})).await;
        let mut agent = Agent::training(&sandbox, &run, 1).await;
        agent.train(&[(10, "3.0"), (20, "1.0"), (30, "2.0")]).await;
        agent.end("succeed", "").await;
        let run = sandbox.until_phase("bot", FineTunePhase::Succeeded).await;
        assert_eq!(run.status.as_ref().unwrap().best_checkpoint.as_deref(), Some("bot-step-20"));
        let is_best = |checkpoint: &Checkpoint| checkpoint.status.as_ref().is_some_and(|status| status.best);
        until(&sandbox.api(), "bot-step-20", "it is marked as the best", is_best).await;
        assert_eq!(sandbox.checkpoints(&run).await.iter().filter(|checkpoint| is_best(checkpoint)).count(), 1);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_finished_run_never_trains_again_though_its_job_is_deleted() {
    never_trains_again_without(true, false).await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_finished_run_never_trains_again_though_its_pods_are_deleted() {
    never_trains_again_without(false, true).await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_finished_run_never_trains_again_though_its_job_and_pods_are_deleted() {
    never_trains_again_without(true, true).await;
}

/// Takes its Job, its pods or both from a run that is over; the Job alone leaves its pods behind as orphans.
async fn never_trains_again_without(no_job: bool, no_pods: bool) {
    in_sandbox(move |sandbox| async move {
        let run = sandbox.run("bot", json!({})).await;
        let run = train(&sandbox, &run, 1).await;
        let jobs: Api<batch::Job> = sandbox.api();
        let pods: Api<corev1::Pod> = sandbox.api();
        let (job, pod) = (sandbox.jobs(&run).await.remove(0), sandbox.pods(&run).await.remove(0));
        if no_job {
            jobs.delete(&job.name_any(), &DeleteParams::orphan()).await.unwrap();
            until_gone(&jobs, &job).await;
        }
        if no_pods {
            pods.delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
            until_gone(&pods, &pod).await;
        }
        // An edit is answered after the deletion was seen, since both come by watch.
        sandbox.edit("bot", json!({"displayName": "Bot"})).await.unwrap();
        let after = sandbox.until_phase("bot", FineTunePhase::Succeeded).await;
        assert_eq!(after.status.unwrap().attempt, 1);
        let left = (sandbox.jobs(&run).await.len(), sandbox.pods(&run).await.len());
        assert_eq!(left, (usize::from(!no_job), usize::from(!no_pods)), "nothing was made again");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_run_made_again_under_its_name_has_checkpoints_and_history_of_its_own() {
    in_sandbox(|sandbox| async move {
        let first = sandbox.run("bot", json!({})).await;
        let first = train(&sandbox, &first, 1).await;
        delete(&sandbox, &first).await;
        let second = sandbox.run("bot", json!({})).await;
        let second = train(&sandbox, &second, 1).await;
        assert_ne!(first.uid(), second.uid());
        let second = sandbox.until_run("bot", "all are counted", |status| status.checkpoint_count == 4).await;
        let names: Vec<_> = sandbox.checkpoints(&second).await.iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["bot-step-100", "bot-step-25", "bot-step-50", "bot-step-75"]);
        let history = sandbox.history(&second).await.unwrap();
        assert_eq!(history.owner_references()[0].uid, second.uid().unwrap());
        assert_eq!(history.spec.series[0].steps, [25, 50, 75, 100]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn deleting_a_run_leaves_nothing_behind() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({})).await;
        let run = train(&sandbox, &run, 1).await;
        delete(&sandbox, &run).await;
        nothing_is_left(&sandbox, &run).await;
        sandbox.api::<corev1::PersistentVolumeClaim>().get("models").await.expect("the user's claim stays");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_claim_of_the_run_goes_with_it_without_a_job_to_empty_it() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"output": {"volumeTemplate": {"size": "1Gi"}}})).await;
        let run = train(&sandbox, &run, 1).await;
        let claims: Api<corev1::PersistentVolumeClaim> = sandbox.api();
        let claim = list(&claims, &of(&run)).await.remove(0);
        assert_eq!(claim.name_any(), format!("bot-{}", &run.uid().unwrap()[..8]));
        let runs: Api<FineTune> = sandbox.api();
        runs.delete("bot", &DeleteParams::default()).await.unwrap();
        until_gone(&runs, &run).await;
        until_gone(&claims, &claim).await;
        nothing_is_left(&sandbox, &run).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn checkpoints_that_are_retained_outlive_their_run() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({"checkpoints": {"deletionPolicy": "Retain"}})).await;
        let run = train(&sandbox, &run, 1).await;
        let runs: Api<FineTune> = sandbox.api();
        runs.delete("bot", &DeleteParams::default()).await.unwrap();
        until_gone(&runs, &run).await;
        let kept = sandbox.checkpoints(&run).await;
        assert_eq!(kept.len(), 4);
        assert!(kept.iter().all(|checkpoint| checkpoint.metadata.deletion_timestamp.is_none()));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_run_tells_in_events_what_happens_to_it() {
    in_sandbox(|sandbox| async move {
        let run = sandbox.run("bot", json!({})).await;
        let run = train(&sandbox, &run, 1).await;
        let all: Api<events::Event> = sandbox.api();
        for reason in ["AttemptStarted", "Succeeded"] {
            let about = |event: &events::Event| {
                event.reason.as_deref() == Some(reason)
                    && event.regarding.as_ref().is_some_and(|regarding| regarding.uid == run.uid())
            };
            until_some(&all, "", &format!("there is an event {reason}"), about).await;
        }
    })
    .await;
}

/// Asserts that nothing that belongs to a run is there any more, but what the garbage collector is about to remove.
pub async fn nothing_is_left(sandbox: &Sandbox, run: &FineTune) {
    let jobs: Api<batch::Job> = sandbox.api();
    for job in sandbox.jobs(run).await {
        until_gone(&jobs, &job).await;
    }
    let histories: Api<FineTuneHistory> = sandbox.api();
    for history in list(&histories, &of(run)).await {
        until_gone(&histories, &history).await;
    }
    let pods: Api<corev1::Pod> = sandbox.api();
    for pod in sandbox.pods(run).await {
        until_gone(&pods, &pod).await;
    }
    assert_eq!(sandbox.checkpoints(run).await, []);
    let claims: Api<corev1::PersistentVolumeClaim> = sandbox.api();
    assert!(claims.list(&ListParams::default().labels(&of(run))).await.unwrap().items.is_empty());
}
