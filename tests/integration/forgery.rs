//! Reports of somebody else, of another time, or about somebody else: none of them changes anything.

use k8s_openapi::api::core::v1 as corev1;
use kube::ResourceExt;
use serde_json::json;

use finetune_operator::{
    api::{Checkpoint, FineTune, FineTunePhase},
    protocol::{AUDIENCE, Report},
};

use crate::harness::{
    Agent, Sandbox,
    agent::{so_far, token},
    in_sandbox, saved,
    wait::until,
};

/// Versions of everything a report can change.
async fn versions(sandbox: &Sandbox, run: &FineTune) -> Vec<Option<String>> {
    let now: FineTune = sandbox.api().get(&run.name_any()).await.unwrap();
    let history = sandbox.history(run).await.and_then(|history| history.resource_version());
    let checkpoints = sandbox.checkpoints(run).await;
    let versions = checkpoints.iter().map(ResourceExt::resource_version);
    [now.resource_version(), history].into_iter().chain(versions).collect()
}

/// A run that has saved once, its agent, and what it wants to say next.
async fn at_work(sandbox: &Sandbox) -> (FineTune, Agent, Report) {
    let run = sandbox.run("bot", json!({})).await;
    let mut agent = Agent::training(sandbox, &run, 1).await;
    let run = sandbox.until_phase(&run.name_any(), FineTunePhase::Running).await;
    agent.report(so_far(1, &[(10, "2.0")], 100)).await;
    let mut news = so_far(1, &[(10, "2.0"), (20, "1.0")], 100);
    news.sequence = 7;
    sandbox.until_run("bot", "its progress is there", |status| status.progress.is_some()).await;
    (run, agent, news)
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn tokens_that_are_not_for_reports_are_refused() {
    in_sandbox(|sandbox| async move {
        let (run, agent, news) = at_work(&sandbox).await;
        let before = versions(&sandbox, &run).await;
        let other_audience = token(&sandbox, Some(&agent.pod), "https://kubernetes.default.svc.cluster.local").await;
        let unbound = token(&sandbox, None, AUDIENCE).await;
        let mut forged = agent.token.clone();
        forged.replace_range(forged.len() - 8.., "AAAAAAAA");
        let cases = [
            (None, 401),
            (Some("not-a-token"), 401),
            (Some(forged.as_str()), 401),
            (Some(other_audience.as_str()), 401),
            (Some(unbound.as_str()), 403),
        ];
        for (token, expected) in cases {
            let (code, body) = agent.post(token, &news).await.unwrap();
            assert_eq!(code, expected, "{body}");
            assert!(!body.contains(agent.token.as_str()), "a token is told");
        }
        assert_eq!(versions(&sandbox, &run).await, before);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_pod_that_only_looks_like_ours_is_refused() {
    in_sandbox(|sandbox| async move {
        let (run, agent, news) = at_work(&sandbox).await;
        let before = versions(&sandbox, &run).await;
        let bare = json!({
            "metadata": {"name": "impostor", "labels": agent.pod.labels()},
            "spec": {"containers": [{"name": "trainer", "image": "registry.test/x:1"}]},
        });
        let bare: corev1::Pod = sandbox.create(bare).await;
        let forged = token(&sandbox, Some(&bare), AUDIENCE).await;
        assert_eq!(agent.post(Some(&forged), &news).await.unwrap().0, 403);
        assert_eq!(versions(&sandbox, &run).await, before);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_pod_of_another_run_speaks_for_its_own_run_alone() {
    in_sandbox(|sandbox| async move {
        let (run, agent, mut news) = at_work(&sandbox).await;
        let before = versions(&sandbox, &run).await;
        let other = sandbox.run("other", json!({})).await;
        let mut stranger = Agent::training(&sandbox, &other, 1).await;
        sandbox.until_phase("other", FineTunePhase::Running).await;
        news.sequence = 0;
        stranger.report(news).await;
        assert_eq!(versions(&sandbox, &run).await, before);
        let names: Vec<_> = sandbox.checkpoints(&other).await.iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["other-step-10", "other-step-20"]);
        drop(agent);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_report_about_an_attempt_that_is_not_yet_is_refused_and_names_the_field() {
    in_sandbox(|sandbox| async move {
        let (run, agent, mut news) = at_work(&sandbox).await;
        let before = versions(&sandbox, &run).await;
        news.checkpoints[1] = saved(2, 20, "1.0");
        let (code, body) = agent.post(Some(&agent.token), &news).await.unwrap();
        assert_eq!(code, 422);
        assert!(body.contains("checkpoints[1].attempt"), "{body}");
        news.checkpoints[1] = saved(1, 20, "1.0");
        news.checkpoints[1].lineage = 2;
        assert_eq!(agent.post(Some(&agent.token), &news).await.unwrap().0, 422);
        assert_eq!(versions(&sandbox, &run).await, before);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_report_said_twice_writes_once() {
    in_sandbox(|sandbox| async move {
        let (run, agent, news) = at_work(&sandbox).await;
        assert_eq!(agent.post(Some(&agent.token), &news).await.unwrap().0, 200);
        until(&sandbox.api::<Checkpoint>(), "bot-step-20", "it is there", |_| true).await;
        sandbox.until_run("bot", "the controller has seen it", |status| status.progress.is_some()).await;
        let before = versions(&sandbox, &run).await;
        assert_eq!(agent.post(Some(&agent.token), &news).await.unwrap().0, 200);
        // An older report, said later, brings nothing back.
        let older = Report { sequence: 3, ..so_far(1, &[(5, "4.0")], 100) };
        assert_eq!(agent.post(Some(&agent.token), &older).await.unwrap().0, 200);
        assert_eq!(versions(&sandbox, &run).await[1..], before[1..]);
        let progress =
            sandbox.until_run("bot", "it is running", |status| status.progress.is_some()).await.status.unwrap().progress.unwrap();
        assert_eq!(progress.metrics.get("loss").map(String::as_str), Some("2.0"), "progress within its interval is not written");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_late_word_of_an_old_attempt_does_not_move_the_new_one() {
    in_sandbox(|sandbox| async move {
        let (run, mut old, mut news) = at_work(&sandbox).await;
        old.fail(78, None).await;
        sandbox.until_phase("bot", FineTunePhase::Failed).await;
        sandbox.edit("bot", json!({"restarts": 1})).await.unwrap();
        let mut new = Agent::training(&sandbox, &run, 2).await;
        sandbox.until_phase("bot", FineTunePhase::Running).await;
        new.report(so_far(2, &[(10, "2.0"), (15, "1.5")], 100)).await;
        news.progress.as_mut().unwrap().step = 99;
        news.sequence = 8;
        assert_eq!(old.post(Some(&old.token), &news).await.unwrap().0, 200, "it is heard: what it saved is real");
        let status = sandbox.until_run("bot", "the new attempt has spoken", |status| {
            status.progress.as_ref().is_some_and(|progress| progress.attempt == 2)
        });
        let status = status.await.status.unwrap();
        assert_eq!((status.attempt, status.progress.unwrap().step), (2, 15));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_token_of_a_pod_that_is_gone_is_refused() {
    in_sandbox(|sandbox| async move {
        let (run, agent, news) = at_work(&sandbox).await;
        sandbox.edit("bot", json!({"desiredState": "Paused"})).await.unwrap();
        sandbox.until_phase("bot", FineTunePhase::Paused).await;
        let before = versions(&sandbox, &run).await;
        let (code, body) = agent.post(Some(&agent.token), &news).await.unwrap();
        assert!([401, 403].contains(&code), "{code} {body}");
        assert_eq!(versions(&sandbox, &run).await, before);
    })
    .await;
}
