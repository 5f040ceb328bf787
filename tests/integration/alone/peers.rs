//! Others at work on what belongs to a run, and a server that refuses: what must not happen then.

use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use finetune_operator::api::{FineTune, FineTunePhase, condition, names};

use crate::{
    harness::{
        Agent, Sandbox,
        agent::so_far,
        proxy::{Proxied, Refusal},
        sandbox::{message, with_sandbox},
        wait::{until, until_gone},
    },
    run::{SAVES, train},
};

/// Refused deletions: the pauses between them add up to 7.5 s.
const REFUSALS: usize = 4;
/// How long the server comes and goes: in a sample, and when everything is asked for.
const FLAPPING: (Duration, Duration) = (Duration::from_secs(24), Duration::from_mins(1));
/// How long it is away each time, and how long it is there in between.
const AWAY: Duration = Duration::from_secs(4);
/// Most requests of any second while it comes and goes: each of the eleven watches lists and begins anew once, and little else.
const BUSIEST: usize = 25;
/// Descriptors that may be open at one moment and not at another.
const SLACK: usize = 12;

/// A run at work, and its agent.
async fn at_work(sandbox: &Sandbox) -> (FineTune, Agent, batch::Job) {
    let run = sandbox.run("bot", json!({})).await;
    let mut agent = Agent::training(sandbox, &run, 1).await;
    agent.report(so_far(1, &SAVES[..2], 100)).await;
    let run = sandbox.until_phase("bot", FineTunePhase::Running).await;
    let job = sandbox.jobs(&run).await.remove(0);
    (run, agent, job)
}

/// A Job of somebody else: it has our labels, but no owner, and runs nothing.
async fn foreign_job(sandbox: &Sandbox, name: &str, labels: Value) -> batch::Job {
    let pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "theirs", "image": "theirs:1"}]}});
    sandbox.create(json!({"metadata": {"name": name, "labels": labels}, "spec": {"suspend": true, "template": pod}})).await
}

/// Asserts that a Job is still there as its maker left it.
async fn is_untouched(sandbox: &Sandbox, theirs: &batch::Job) {
    let jobs: Api<batch::Job> = sandbox.api();
    let found = jobs.get(&theirs.name_any()).await.unwrap();
    let managers: Vec<_> = found.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect();
    assert_eq!((found.uid(), found.metadata.deletion_timestamp.is_some()), (theirs.uid(), false));
    assert_eq!((found.owner_references(), found.labels()), (&[][..], theirs.labels()));
    assert!(managers.iter().all(|manager| !manager.starts_with("finetune-operator")), "{managers:?}");
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn stopped_is_never_said_while_the_server_refuses_to_delete_the_job() {
    with_sandbox(|sandbox| async move {
        let proxied = Proxied::start(&sandbox, None).await;
        let (run, ..) = at_work(&sandbox).await;
        let code = StatusCode::INTERNAL_SERVER_ERROR;
        proxied.refuse(Refusal { method: Method::DELETE, path: "/jobs/", code, times: REFUSALS });
        sandbox.edit("bot", json!({"desiredState": "Stopped"})).await.unwrap();
        sandbox.until_phase("bot", FineTunePhase::Stopped).await;
        assert_eq!(proxied.refusals_left(), 0, "it said so before the Job could be deleted");
        assert_eq!(sandbox.jobs(&run).await, []);
        assert_eq!(proxied.times_asked("DELETE"), REFUSALS + 1, "each refusal is followed by a pause and one more try");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn stopped_is_never_said_while_somebody_holds_the_job() {
    with_sandbox(|sandbox| async move {
        let proxied = Proxied::start(&sandbox, None).await;
        let (_, agent, job) = at_work(&sandbox).await;
        let jobs: Api<batch::Job> = sandbox.api();
        let hold = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
        jobs.patch(&job.name_any(), &PatchParams::default(), &hold(json!(["test.finetune.dev/hold"]))).await.unwrap();
        sandbox.edit("bot", json!({"desiredState": "Stopped"})).await.unwrap();
        until_gone(&sandbox.api::<corev1::Pod>(), &agent.pod).await;
        // An edit is answered after the end of the pod was seen, since both come by watch.
        sandbox.edit("bot", json!({"displayName": "Bot"})).await.unwrap();
        let stopping = sandbox.until_phase("bot", FineTunePhase::Stopping).await;
        assert!(!condition::is_true(&stopping.status.unwrap().conditions, condition::FINISHED));
        let leaves = |job: &batch::Job| job.metadata.deletion_timestamp.is_some();
        let leaving = until(&jobs, &job.name_any(), "it is on its way out", leaves).await;
        let left: Vec<_> = leaving.finalizers().iter().filter(|name| *name != "test.finetune.dev/hold").collect();
        jobs.patch(&job.name_any(), &PatchParams::default(), &hold(json!(left))).await.unwrap();
        sandbox.until_phase("bot", FineTunePhase::Stopped).await;
        assert_eq!(proxied.times_asked("DELETE"), 1, "a deletion that was accepted is waited for");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_job_that_somebody_made_again_under_its_name_is_never_adopted() {
    with_sandbox(|sandbox| async move {
        let _proxied = Proxied::start(&sandbox, None).await;
        let (run, agent, job) = at_work(&sandbox).await;
        let jobs: Api<batch::Job> = sandbox.api();
        jobs.delete(&job.name_any(), &DeleteParams::background()).await.unwrap();
        until_gone(&jobs, &job).await;
        let theirs = foreign_job(&sandbox, &job.name_any(), json!(job.labels())).await;
        until_gone(&sandbox.api::<corev1::Pod>(), &agent.pod).await;
        let done = train(&sandbox, &run, 2).await;
        let attempts = done.status.unwrap().attempts;
        let told: Vec<_> = attempts.iter().map(|attempt| (attempt.number, attempt.reason.as_deref())).collect();
        assert_eq!(told, [(1, Some("Interrupted")), (2, Some("Succeeded"))]);
        is_untouched(&sandbox, &theirs).await;
        crate::run::delete(&sandbox, &run).await;
        is_untouched(&sandbox, &theirs).await;
        jobs.delete(&theirs.name_any(), &DeleteParams::background()).await.unwrap();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_job_that_was_there_before_ours_is_named_and_not_touched() {
    with_sandbox(|sandbox| async move {
        let proxied = Proxied::start(&sandbox, None).await;
        let run = sandbox.run("bot", json!({"output": {"volume": {"claimName": "later"}}})).await;
        sandbox.until_reason("bot", "ClaimNotFound").await;
        let name = format!("bot-{}-1", &run.uid().unwrap()[..8]);
        let theirs = foreign_job(&sandbox, &name, json!({})).await;
        sandbox.claim("later").await;
        let waits = sandbox.until_reason("bot", "NameTaken").await;
        let conditions = &waits.status.as_ref().unwrap().conditions;
        assert!(message(&waits).contains(&name), "{}", message(&waits));
        assert!(!condition::is_true(conditions, condition::FINISHED) && waits.status.as_ref().unwrap().attempt == 0);
        is_untouched(&sandbox, &theirs).await;
        let tried = proxied.times_asked("POST /apis/batch");
        assert!(tried <= 3, "it tried {tried} times within a moment");

        let jobs: Api<batch::Job> = sandbox.api();
        jobs.delete(&name, &DeleteParams::background()).await.unwrap();
        let agent = Agent::training(&sandbox, &run, 1).await;
        assert_eq!(agent.attempt(), 1);
        let status = sandbox.until_phase("bot", FineTunePhase::Running).await.status.unwrap();
        assert_eq!((status.attempt, status.job_name), (1, Some(name)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_server_that_comes_and_goes_is_not_hammered_and_costs_no_descriptor() {
    with_sandbox(|sandbox| async move {
        let proxied = Proxied::start(&sandbox, None).await;
        let (run, mut agent, _) = at_work(&sandbox).await;
        let (before, begin) = (proxied.operator.descriptors(), Instant::now());
        let all = std::env::var("FINETUNE_IT_ALL").is_ok_and(|value| value == "1");
        let mut refuses = true;
        while begin.elapsed() < if all { FLAPPING.1 } else { FLAPPING.0 } {
            if refuses {
                proxied.hang_up(AWAY).await;
            } else {
                proxied.be_unavailable(AWAY).await;
            }
            refuses = !refuses;
            tokio::time::sleep(AWAY).await;
        }
        agent.train(SAVES).await;
        agent.end("succeed", "").await;
        sandbox.until_phase("bot", FineTunePhase::Succeeded).await;
        let jobs = sandbox.jobs(&run).await;
        // A watch that comes back later than the last report may have the output read once more.
        assert_eq!(jobs.iter().filter(|job| job.labels()[names::ROLE] == names::ROLE_TRAIN).count(), 1, "nothing trained again");
        let (busiest, after) = (proxied.busiest_second(begin), proxied.operator.descriptors());
        println!("the busiest second had {} requests; {before} descriptors before, {after} after", busiest.len());
        assert!(busiest.len() <= BUSIEST, "{} requests within a second: {busiest:#?}", busiest.len());
        assert!(after <= before + SLACK, "{before} descriptors before, {after} after");
    })
    .await;
}
