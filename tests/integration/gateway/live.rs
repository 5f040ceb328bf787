//! Streams of events about runs, as the page and other listeners get them.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    http::Request,
};
use finetune_operator::api::{FineTune, names};
use futures::StreamExt;
use k8s_openapi::api::{core::v1 as corev1, rbac::v1 as rbac};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::api::{Gate, READ, WRITE, bind};
use crate::{
    harness::{Sandbox, in_sandbox, sandbox::with_sandbox},
    run::train,
};

/// Longest wait for news.
const PATIENCE: Duration = Duration::from_secs(90);
const RUNS: &str = "/live/v1/runs/events";

/// A stream that is open, and what it has said.
struct Listener {
    stream: BodyDataStream,
    text: String,
}

/// One event of a stream.
#[derive(Debug)]
struct Told {
    name: String,
    said: Value,
}

impl Listener {
    async fn of(gate: &Gate, path: &str, project: Option<&str>) -> Self {
        let request = gate.request("GET", path).header("x-project", project.unwrap_or_default());
        let answer = gate.open(request.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["content-type"].to_str().unwrap()), (200, &"text/event-stream"));
        assert_eq!(answer.headers()["cache-control"], "no-store");
        Self { stream: answer.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event; none once the stream has ended.
    async fn next(&mut self) -> Option<Told> {
        tokio::time::timeout(PATIENCE, self.hear()).await.unwrap_or_else(|_| panic!("no news come"))
    }

    /// The same, however long it takes: a stream without news is not silent.
    async fn hear(&mut self) -> Option<Told> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let Some(name) = field("event: ") else { continue };
                return Some(Told { name, said: serde_json::from_str(&field("data: ").unwrap()).unwrap() });
            }
            let piece = self.stream.next().await?;
            self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
    }

    /// The first event from now on that holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Told) -> bool) -> Told {
        let found = async {
            loop {
                let Some(told) = self.hear().await else { panic!("the stream ended before {what}") };
                if holds(&told) {
                    return told;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
    }

    /// The first object of a section from now on that holds.
    async fn until_item(&mut self, section: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let is_it = |told: &Told| told.name == "change" && told.said["section"] == section && holds(&told.said["item"]);
        self.until(what, is_it).await.said["item"].take()
    }

    /// The first snapshot of each of these sections.
    async fn snapshots(&mut self, sections: &[&str]) -> Value {
        let (mut found, mut missing) = (json!({}), BTreeSet::from_iter(sections.to_vec()));
        while !missing.is_empty() {
            let told = self.until("each section is told", |told| told.name == "snapshot").await.said;
            missing.remove(told["section"].as_str().unwrap());
            found[told["section"].as_str().unwrap()] = told["items"].clone();
        }
        found
    }
}

fn events(run: &str) -> String {
    format!("/live/v1/runs/{run}/events")
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_run_is_told_from_its_first_word_to_what_serves_it_and_to_its_end() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let run = sandbox.run("bot", json!({})).await;
        let mut list = Listener::of(&gate, RUNS, None).await;
        let runs = list.snapshots(&["runs"]).await;
        assert_eq!((&runs["runs"][0]["name"], &runs["runs"][0]["baseModel"]), (&json!("bot"), &json!("it-tiny")));
        let mut listener = Listener::of(&gate, &events("ftjob-bot"), None).await;
        let first = listener.snapshots(&["run", "checkpoints", "history", "deployments"]).await;
        let shown = &first["run"][0]["object"];
        assert_eq!((&shown["metadata"]["uid"], &shown["kind"]), (&json!(run.uid()), &json!("FineTune")));
        assert!(shown["metadata"].get("managedFields").is_none());
        assert_eq!((&first["checkpoints"], &first["history"], &first["deployments"]), (&json!([]), &json!([]), &json!([])));

        let (_, ()) = tokio::join!(train(&sandbox, &run, 1), async {
            listener.until_item("run", "it runs", |item| item["phase"] == "Running").await;
            listener.until_item("run", "it has succeeded", |item| item["phase"] == "Succeeded").await;
        });
        let ended = list.until_item("runs", "the list says so too", |item| item["phase"] == "Succeeded").await;
        assert_eq!((&ended["loss"], &ended["percent"], &ended["checkpoints"]), (&json!("0.5"), &json!(100), &json!(4)));
        drop(listener);

        let mut listener = Listener::of(&gate, &events("bot"), None).await;
        let all = listener.snapshots(&["run", "checkpoints", "history", "deployments"]).await;
        let steps: Vec<_> = all["checkpoints"].as_array().unwrap().iter().map(|one| one["spec"]["step"].clone()).collect();
        assert_eq!(steps, [25, 50, 75, 100]);
        assert_eq!(all["history"][0]["spec"]["series"][0]["steps"], json!([25, 50, 75, 100]));
        let log = gate.get("/live/v1/runs/bot/logs").await.with(200);
        assert_eq!(log["lines"], json!([{"time": "2026-01-01T00:00:00Z", "level": "info", "text": "done"}]));

        let deployed = gate.post("/live/v1/checkpoints/bot-step-50/deploy", json!({"type": "fast"})).await.with(200);
        assert_eq!(deployed["deployment"]["spec"]["checkpoint"]["name"], "bot-step-50");
        let served = listener.until_item("deployments", "it is served", |item| item["status"]["phase"] == "Ready").await;
        assert_eq!(
            (&served["spec"]["type"], &served["metadata"]["uid"]),
            (&json!("fast"), &deployed["deployment"]["metadata"]["uid"])
        );

        sandbox.api::<FineTune>().delete("bot", &DeleteParams::default()).await.unwrap();
        let remover = crate::harness::Agent::of_role(&sandbox, &crate::harness::sandbox::of(&run), names::ROLE_DELETE).await;
        remover.end("succeed", "").await;
        assert_eq!(listener.until("it is gone", |told| told.name == "end").await.said, json!({"reason": "gone"}));
        assert!(listener.next().await.is_none());
        list.until("the list says so too", |told| told.name == "gone" && told.said["name"] == "bot").await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn who_may_not_listen_is_told_why_before_anything_is_told() {
    in_sandbox(|sandbox| async move {
        with_sandbox(|other| async move {
            let gate = Gate::new(&sandbox, READ).await;
            sandbox.run("bot", json!({})).await;
            other.run("theirs", json!({})).await;
            for path in [RUNS, &events("bot")] {
                for gate in [gate.with(""), gate.with("nonsense"), gate.with(format!("{}x", gate.key))] {
                    let refused = gate.get(path).await.with(401);
                    assert_eq!(refused["error"]["code"], "invalid_api_key");
                }
            }
            let missing = gate.get(&events("no-such-run")).await.with(404);
            assert_eq!(
                (&missing["error"]["code"], &missing["error"]["field"]),
                (&json!("fine_tune_not_found"), &json!("fine_tune_id"))
            );
            for path in [RUNS, &events("theirs"), &events("no-such-run"), "/live/v1/runs/theirs/logs"] {
                let request = gate.request("GET", path).header("x-project", &other.namespace);
                let refused = gate.send(request.body(Body::empty()).unwrap()).await.with(403);
                let message = refused["error"]["message"].as_str().unwrap();
                assert!(message.contains("fine-tuning:read") && message.contains(&other.namespace), "{path}: {message}");
            }
            let refused = gate.post("/live/v1/checkpoints/none/deploy", json!({"type": "turbo"})).await;
            assert_eq!(refused.with(400)["error"]["field"], "type");
            gate.post("/live/v1/checkpoints/none/deploy", json!({})).await.with(404);
        })
        .await;
    })
    .await;
}

async fn describe(sandbox: &Sandbox, run: &str, text: &str) {
    sandbox.edit(run, json!({"description": text})).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_run_of_the_same_name_in_another_project_is_another_run() {
    in_sandbox(|sandbox| async move {
        with_sandbox(|other| async move {
            let gate = Gate::new(&sandbox, READ).await;
            let account = account(&sandbox).await;
            bind(&sandbox, &account, &other.namespace, READ).await;
            let ours = sandbox.run("bot", json!({"desiredState": "Paused"})).await;
            let theirs = other.run("bot", json!({"desiredState": "Paused"})).await;
            // The first round leaves a second run in the other project.
            for (project, run, count) in [(None, &ours, 1), (Some(other.namespace.as_str()), &theirs, 2)] {
                let mut listener = Listener::of(&gate, &events("bot"), project).await;
                let first = listener.snapshots(&["run"]).await;
                assert_eq!(first["run"][0]["object"]["metadata"]["uid"], json!(run.uid()));
                let mut list = Listener::of(&gate, RUNS, project).await;
                assert_eq!(list.snapshots(&["runs"]).await["runs"].as_array().unwrap().len(), count);
                // What is said of the other first would come first.
                let [first, second] = if project.is_none() { [&other, &sandbox] } else { [&sandbox, &other] };
                describe(first, "bot", "of the other").await;
                first.run(&format!("late-{}", uuid::Uuid::new_v4().simple()), json!({"desiredState": "Paused"})).await;
                describe(second, "bot", "of this one").await;
                let uid = json!(run.uid());
                loop {
                    let Told { said, .. } = listener.until("it is described", |told| told.name == "change").await;
                    assert_eq!(said["item"]["object"]["metadata"]["uid"], uid, "{said}");
                    if said["item"]["object"]["spec"]["description"] == "of this one" {
                        break;
                    }
                }
                second.run("last", json!({"desiredState": "Paused"})).await;
                let is_other = |told: &Told| told.name == "change" && told.said["item"]["name"] != "bot";
                let told = list.until("the last is told", is_other).await;
                assert_eq!(told.said["item"]["name"], "last");
            }
        })
        .await;
    })
    .await;
}

/// The account of the gate of a sandbox.
async fn account(sandbox: &Sandbox) -> String {
    let accounts: Api<corev1::ServiceAccount> = sandbox.api();
    let all = accounts.list(&kube::api::ListParams::default()).await.unwrap();
    all.iter().map(ResourceExt::name_any).find(|name| name.starts_with("it-")).unwrap()
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn what_a_key_may_not_see_is_said_and_the_rest_is_told() {
    in_sandbox(|sandbox| async move {
        put_role_of_runs_alone(&sandbox.client).await;
        let gate = Gate::new(&sandbox, "it-runs-alone").await;
        sandbox.run("bot", json!({"desiredState": "Paused"})).await;
        let mut listener = Listener::of(&gate, &events("bot"), None).await;
        let mut denied = BTreeSet::new();
        let mut seen = false;
        while denied.len() < 3 || !seen {
            let told = listener.next().await.unwrap();
            match told.name.as_str() {
                "denied" => {
                    assert!(told.said["message"].as_str().unwrap().contains("fine-tuning:read"), "{told:?}");
                    denied.insert(told.said["section"].as_str().unwrap().to_owned());
                }
                "behind" => panic!("{told:?}"),
                _ => seen |= told.said["section"] == "run",
            }
        }
        assert_eq!(denied, ["checkpoints", "deployments", "history"].map(str::to_owned).into());
        describe(&sandbox, "bot", "still told").await;
        listener.until_item("run", "it is described", |item| item["object"]["spec"]["description"] == "still told").await;
    })
    .await;
}

async fn put_role_of_runs_alone(client: &Client) {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "it-runs-alone"},
        "rules": [{"apiGroups": ["finetune.dev"], "resources": ["finetunes"], "verbs": ["get", "list", "watch"]}],
    });
    let params = PatchParams::apply("integration-tests").force();
    Api::<rbac::ClusterRole>::all(client.clone()).patch("it-runs-alone", &params, &Patch::Apply(role)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_key_has_a_few_streams_and_gets_their_places_back() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, READ).await;
        let mut open = Vec::new();
        let refused = loop {
            let request: Request<Body> = gate.request("GET", RUNS).body(Body::empty()).unwrap();
            let answer = gate.open(request).await;
            if answer.status() != 200 {
                break answer;
            }
            open.push(answer);
            assert!(open.len() < 100, "there is no end to it");
        };
        assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
        open.pop();
        Listener::of(&gate, RUNS, None).await.snapshots(&["runs"]).await;
    })
    .await;
}
