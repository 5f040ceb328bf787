//! Runs in a queue of the real Kueue: they wait for their turn, know their place, and give their turn back when Kueue takes it.

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::{
    Api, Client, CustomResource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use finetune_operator::api::{FineTune, FineTunePhase, FineTuneStatus, condition};

use crate::{
    harness::{
        Agent, Sandbox,
        agent::so_far,
        cluster::put,
        in_sandbox,
        wait::{list, until_gone, until_some},
    },
    run::{SAVES, train},
};

#[derive(CustomResource, Serialize, Deserialize, Clone, Debug)]
#[kube(group = "kueue.x-k8s.io", version = "v1beta2", kind = "ResourceFlavor", schema = "disabled")]
struct ResourceFlavorSpec {}

#[derive(CustomResource, Serialize, Deserialize, Clone, Debug)]
#[kube(group = "kueue.x-k8s.io", version = "v1beta2", kind = "ClusterQueue", schema = "disabled")]
struct ClusterQueueSpec {}

#[derive(CustomResource, Serialize, Deserialize, Clone, Debug)]
#[kube(group = "kueue.x-k8s.io", version = "v1beta2", kind = "LocalQueue", namespaced, schema = "disabled")]
struct LocalQueueSpec {}

#[derive(CustomResource, Serialize, Deserialize, Clone, Debug)]
#[kube(group = "kueue.x-k8s.io", version = "v1beta2", kind = "Workload", namespaced, schema = "disabled")]
struct WorkloadSpec {}

/// Runs a test in a namespace with a queue named `team` that has quota for one GPU.
async fn with_queue<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Sandbox) -> F + Send + 'static) {
    in_sandbox(|sandbox| async move {
        put::<ResourceFlavor>(&sandbox.client, "it-any", json!({})).await;
        let quota = |(name, amount): (&str, &str)| json!({"name": name, "nominalQuota": amount});
        let resources = [("cpu", "1000"), ("memory", "1000Gi"), ("nvidia.com/gpu", "1")];
        let group = json!({
            "coveredResources": resources.map(|(name, _)| name),
            "flavors": [{"name": "it-any", "resources": resources.map(quota)}],
        });
        let spec = json!({"namespaceSelector": {}, "resourceGroups": [group]});
        put::<ClusterQueue>(&sandbox.client, &sandbox.namespace, spec).await;
        let queue = json!({"metadata": {"name": "team"}, "spec": {"clusterQueue": sandbox.namespace}});
        sandbox.create::<LocalQueue>(queue).await;
        let (client, name) = (sandbox.client.clone(), sandbox.namespace.clone());
        test(sandbox).await;
        Api::<ClusterQueue>::all(client).delete(&name, &DeleteParams::default()).await.unwrap();
    })
    .await;
}

async fn queued_run(sandbox: &Sandbox, name: &str) -> FineTune {
    sandbox.run(name, json!({"queue": {"name": "team"}})).await
}

/// A run, once it waits at a place in the queue.
async fn until_at(sandbox: &Sandbox, name: &str, position: i64) -> FineTuneStatus {
    let holds = |status: &FineTuneStatus| status.queue.as_ref().is_some_and(|queue| queue.position == Some(position));
    sandbox.until_run(name, &format!("it is number {position} in the queue"), holds).await.status.unwrap()
}

async fn workload_of(sandbox: &Sandbox, run: &FineTune) -> Workload {
    let job = sandbox.jobs(run).await.remove(0).uid().unwrap();
    until_some(&sandbox.api(), &format!("kueue.x-k8s.io/job-uid={job}"), "its Workload is there", |_| true).await
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn who_waits_knows_place_and_reason_moves_up_and_gives_the_place_away_by_a_pause() {
    with_queue(|sandbox| async move {
        let first = queued_run(&sandbox, "first").await;
        let mut agent = Agent::training(&sandbox, &first, 1).await;
        let second = queued_run(&sandbox, "second").await;
        until_at(&sandbox, "second", 1).await;
        let third = queued_run(&sandbox, "third").await;
        // Kueue orders by time of creation, which is known to the second: of two made in the same, either may be the first.
        let has_place = |status: &FineTuneStatus| status.queue.as_ref().is_some_and(|queue| queue.position.is_some());
        let place =
            sandbox.until_run("third", "it has a place", has_place).await.status.unwrap().queue.unwrap().position.unwrap();
        assert!([1, 2].contains(&place), "{place}");
        until_at(&sandbox, "second", 3 - place).await;
        let (next, last) = if place == 2 { (second, third) } else { (third, second) };
        for run in [&next, &last] {
            let names_what_is_missing = |status: &FineTuneStatus| {
                let why = status.queue.as_ref().and_then(|queue| queue.reason.as_deref()).unwrap_or_default();
                why.contains("insufficient unused quota for nvidia.com/gpu")
            };
            let run = sandbox.until_run(&run.name_any(), "its reason names what is missing", names_what_is_missing).await;
            let status = run.status.as_ref().unwrap();
            assert_eq!(status.phase, FineTunePhase::Queued);
            assert_eq!(condition::find(&status.conditions, condition::READY).unwrap().reason, "Queued");
            assert!(sandbox.pods(&run).await.is_empty());
        }

        agent.train(SAVES).await;
        agent.end("succeed", "").await;
        let mut agent = Agent::training(&sandbox, &next, 1).await;
        until_at(&sandbox, &last.name_any(), 1).await;
        let runs = sandbox.until_phase(&next.name_any(), FineTunePhase::Running).await.status.unwrap();
        assert_eq!(runs.queue, None);

        let workload = workload_of(&sandbox, &last).await;
        sandbox.edit(&last.name_any(), json!({"desiredState": "Paused"})).await.unwrap();
        let paused = sandbox.until_phase(&last.name_any(), FineTunePhase::Paused).await.status.unwrap();
        assert_eq!((paused.queue, sandbox.jobs(&last).await.len()), (None, 0));
        until_gone(&sandbox.api(), &workload).await;
        queued_run(&sandbox, "fourth").await;
        until_at(&sandbox, "fourth", 1).await;
        agent.train(SAVES).await;
        agent.end("succeed", "").await;
        sandbox.until_phase(&next.name_any(), FineTunePhase::Succeeded).await;
    })
    .await;
}

/// Stops a ClusterQueue and takes back what it has given, or sets it going again.
async fn set_stopped(client: &Client, queue: &str, policy: &str) {
    let queues: Api<ClusterQueue> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"spec": {"stopPolicy": policy}}));
    queues.patch(queue, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_evicted_run_waits_again_and_goes_on_in_the_same_attempt() {
    with_queue(|sandbox| async move {
        let run = queued_run(&sandbox, "bot").await;
        let mut agent = Agent::training(&sandbox, &run, 1).await;
        sandbox.until_phase("bot", FineTunePhase::Running).await;
        agent.report(so_far(1, &SAVES[..2], 100)).await;
        let job = sandbox.jobs(&run).await.remove(0);

        set_stopped(&sandbox.client, &sandbox.namespace, "HoldAndDrain").await;
        until_gone(&sandbox.api::<corev1::Pod>(), &agent.pod).await;
        let is_told = |status: &FineTuneStatus| {
            let why = status.queue.as_ref().and_then(|queue| queue.reason.as_deref()).unwrap_or_default();
            status.phase == FineTunePhase::Queued
                && status.attempts[0].turn_start.is_none()
                && why.contains("ClusterQueueStopped")
        };
        let waits = sandbox.until_run("bot", "it waits again and says why", is_told).await.status.unwrap();
        assert_eq!((waits.attempt, waits.checkpoint_count, waits.attempts[0].to_step), (1, 2, 50));
        assert_eq!(waits.cost.unwrap().gpu_seconds, waits.attempts[0].gpu_seconds);

        set_stopped(&sandbox.client, &sandbox.namespace, "None").await;
        let done = train(&sandbox, &run, 1).await.status.unwrap();
        assert_eq!((done.attempt, done.attempts.len(), done.checkpoint_count, done.queue), (1, 1, 4, None));
        let jobs: Vec<batch::Job> = list(&sandbox.api(), "").await;
        assert_eq!(jobs.iter().map(ResourceExt::uid).collect::<Vec<_>>(), [job.uid()], "the same Job made the next pod");
        assert_eq!(jobs[0].status.as_ref().unwrap().failed.unwrap_or(0), 0, "an eviction is no failure");
    })
    .await;
}
