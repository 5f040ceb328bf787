//! The OpenAI dialect, as its clients use it.

use std::process::Stdio;

use finetune_operator::api::{Dataset, DeployWhich, FineTune, FineTunePhase};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use super::api::{Gate, READ, WRITE, assert_like};
use crate::{
    harness::{Agent, Sandbox, in_sandbox},
    run::train,
};

const JOBS: &str = "/v1/fine_tuning/jobs";

async fn dataset(sandbox: &Sandbox) {
    let spec = json!({"training": {"huggingFace": {"repo": "org/rows"}}});
    sandbox.create::<Dataset>(json!({"metadata": {"name": "file-abc123"}, "spec": spec})).await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_job_is_made_paged_and_cancelled() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        dataset(&sandbox).await;
        let body = json!({
            "model": "llama-3.1-8b", "training_file": "file-abc123", "suffix": "my-model", "seed": 42, "metadata": {"team": "a"},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "learning_rate_multiplier": 2}}},
        });
        let job = gate.post(JOBS, body).await.with(200);
        let hyperparameters = json!({"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 2});
        let example = json!({
            "object": "fine_tuning.job", "id": "s", "model": "s", "created_at": 1, "finished_at": null, "fine_tuned_model": null,
            "organization_id": "s", "result_files": [], "status": "validating_files", "validation_file": null, "training_file": "s",
            "hyperparameters": hyperparameters, "trained_tokens": null, "error": null, "user_provided_suffix": "s", "seed": 42,
            "estimated_finish": null, "integrations": [], "metadata": {"team": "a"},
            "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        });
        assert_like(&job, &example);
        assert_eq!((&job["status"], &job["training_file"], &job["seed"]), (&json!("validating_files"), &json!("file-abc123"), &json!(42)));
        assert_eq!(job["hyperparameters"], hyperparameters);
        assert_eq!((&job["organization_id"], &job["model"]), (&json!(sandbox.namespace), &json!("llama-3.1-8b")));
        let id = job["id"].as_str().unwrap().to_owned();
        let run: FineTune = sandbox.api().get(id.strip_prefix("ftjob-").unwrap()).await.unwrap();
        assert_eq!(run.spec.parameters["learning_rate"], json!(0.002));
        assert_eq!(run.spec.auto_deploy.unwrap().checkpoint, DeployWhich::Best);

        for _ in 0..2 {
            gate.post("/fine_tuning/jobs", json!({"model": "llama-3.1-8b", "training_file": "file-abc123"})).await.with(200);
        }
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = gate.get(&format!("{JOBS}?limit=2{after}")).await.with(200);
            assert_eq!(page["object"], "list");
            let ids = page["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned());
            seen.extend(ids);
            if page["has_more"] == json!(false) {
                break;
            }
            after = format!("&after={}", seen.last().unwrap());
        }
        assert_eq!(seen.len(), 3);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3, "no job is on two pages");
        let filtered = gate.get(&format!("{JOBS}?metadata%5Bteam%5D=a")).await.with(200);
        assert_eq!(filtered["data"][0]["id"], json!(id));
        assert_eq!(gate.get(&format!("{JOBS}?metadata%5Bteam%5D=b")).await.with(200)["data"], json!([]));
        gate.get(&format!("{JOBS}?after=ftjob-gone")).await.with(400);

        let cancelled = gate.post(&format!("{JOBS}/{id}/cancel?wait=30"), Value::Null).await.with(200);
        assert_eq!(cancelled["status"], "cancelled");
        assert!(cancelled["finished_at"].is_i64());
        gate.post(&format!("{JOBS}/{id}/resume"), Value::Null).await.with(409);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_job_pauses_resumes_and_leaves_events_and_checkpoints() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let run = sandbox.run("bot", json!({})).await;
        let job = format!("{JOBS}/ftjob-bot");
        let none = gate.get(&format!("{job}/checkpoints")).await.with(200);
        assert_eq!(none, json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false}));
        Agent::training(&sandbox, &run, 1).await;
        sandbox.until_phase("bot", FineTunePhase::Running).await;
        let pausing = gate.post(&format!("{job}/pause"), Value::Null).await.with(200);
        assert!(["pausing", "paused"].contains(&pausing["status"].as_str().unwrap()), "{}", pausing["status"]);
        assert_eq!(gate.post(&format!("{job}/pause?wait=30"), Value::Null).await.with(200)["status"], "paused");
        assert_eq!(gate.post(&format!("{job}/resume"), Value::Null).await.with(200)["status"], "queued");
        train(&sandbox, &run, 2).await;

        let done = gate.get(&job).await.with(200);
        assert_eq!((&done["status"], &done["fine_tuned_model"]), (&json!("succeeded"), &json!("bot-step-100")));
        let page = gate.get(&format!("{job}/checkpoints?limit=3")).await.with(200);
        let example = json!({
            "object": "fine_tuning.job.checkpoint", "id": "s", "created_at": 1, "fine_tuned_model_checkpoint": "s", "fine_tuning_job_id": "s",
            "step_number": 1, "metrics": {
                "step": 1, "train_loss": 0.4, "train_mean_token_accuracy": null, "valid_loss": 0.4, "valid_mean_token_accuracy": null,
                "full_valid_loss": 0.4, "full_valid_mean_token_accuracy": null,
            },
        });
        assert_like(&page["data"][0], &example);
        let steps = |page: &Value| page["data"].as_array().unwrap().iter().map(|item| item["step_number"].clone()).collect::<Vec<_>>();
        assert_eq!((steps(&page), &page["has_more"]), (vec![json!(100), json!(75), json!(50)], &json!(true)));
        let last = page["last_id"].as_str().unwrap();
        let rest = gate.get(&format!("{job}/checkpoints?limit=3&after={last}")).await.with(200);
        assert_eq!((steps(&rest), &rest["has_more"]), (vec![json!(25)], &json!(false)));
        assert_eq!(page["data"][0]["fine_tuned_model_checkpoint"], "bot-step-100");

        let events = gate.get(&format!("{job}/events?limit=2")).await.with(200);
        let example = json!({"object": "fine_tuning.job.event", "id": "s", "created_at": 1, "level": "info", "message": "s", "type": "message", "data": {}});
        assert_like(&events["data"][0], &example);
        assert_eq!(events["has_more"], true);
        let after = events["data"][1]["id"].as_str().unwrap();
        let rest = gate.get(&format!("{job}/events?limit=100&after={after}")).await.with(200);
        let oldest = rest["data"].as_array().unwrap().last().unwrap();
        assert_eq!((&oldest["message"], &rest["has_more"]), (&json!("Created fine-tuning job: ftjob-bot"), &json!(false)));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_checkpoint_is_shared_with_projects_and_taken_back() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let run = sandbox.run("bot", json!({})).await;
        train(&sandbox, &run, 1).await;
        // Ids hold colons, and may come encoded.
        let path = "/v1/fine_tuning/checkpoints/ft%3Ait-tiny%3Aorg%3A%3Abot%3Ackpt-step-100/permissions";
        let granted = gate.post(path, json!({"project_ids": ["web", "shop", "web"]})).await.with(200);
        let example = json!({"object": "list", "has_more": false, "first_id": "s", "last_id": "s", "data": [
            {"object": "checkpoint.permission", "id": "s", "created_at": 1, "project_id": "s"},
        ]});
        assert_like(&granted, &example);
        let projects =
            |list: &Value| list["data"].as_array().unwrap().iter().map(|one| one["project_id"].clone()).collect::<Vec<_>>();
        assert_eq!(projects(&granted), ["web", "shop"]);
        let again = gate.post(path, json!({"project_ids": ["web"]})).await.with(200);
        assert_eq!(again["data"][0], granted["data"][0], "the same permission, not another");
        let plain = "/v1/fine_tuning/checkpoints/bot-step-100/permissions";
        let list = gate.get(&format!("{plain}?limit=1&order=ascending")).await.with(200);
        assert_eq!((list["data"].as_array().unwrap().len(), &list["has_more"]), (1, &json!(true)));
        assert_eq!(projects(&gate.get(&format!("{plain}?project_id=shop")).await.with(200)), ["shop"]);
        let other = "/v1/fine_tuning/checkpoints/bot-step-75/permissions";
        assert_eq!(gate.get(other).await.with(200)["data"], json!([]));
        let id = granted["data"][0]["id"].as_str().unwrap();
        gate.delete(&format!("{other}/{id}")).await.with(404);
        let gone = gate.delete(&format!("{plain}/{id}")).await.with(200);
        assert_eq!(gone, json!({"id": id, "object": "checkpoint.permission", "deleted": true}));
        gate.delete(&format!("{plain}/{id}")).await.with(404);
        for bad in
            [json!({"project_ids": []}), json!({"project_ids": ["Bad Name"]}), json!({"project_ids": ["a"], "x": 1}), json!({})]
        {
            gate.post(plain, bad).await.with(400);
        }
        let reader = Gate::new(&sandbox, READ).await;
        reader.get(plain).await.with(200);
        let refused = reader.post(plain, json!({"project_ids": ["web2"]})).await.with(403);
        assert!(refused["error"]["message"].as_str().unwrap().contains("fine-tuning:write"), "{refused}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn lists_longer_than_what_is_read_at_a_time_are_read_to_their_end() {
    const RUNS: usize = 510;
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, READ).await;
        let make = |number: usize| {
            let sandbox = sandbox.clone();
            async move { sandbox.run(&format!("run-{number}"), json!({"desiredState": "Paused"})).await }
        };
        futures::StreamExt::for_each(
            futures::StreamExt::buffer_unordered(futures::stream::iter((0..RUNS).map(make)), 16),
            |_| async {},
        )
        .await;
        let (mut seen, mut after) = (std::collections::BTreeSet::new(), String::new());
        loop {
            let page = gate.get(&format!("/fine_tuning/jobs?limit=100{after}")).await.with(200);
            let ids: Vec<_> = page["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
            assert!(ids.iter().all(|id| seen.insert(id.clone())), "no job is on two pages");
            if page["has_more"] == json!(false) {
                break;
            }
            after = format!("&after={}", ids.last().unwrap());
        }
        assert_eq!(seen.len(), RUNS);
        let far = gate.get(&format!("/api/v1/fine-tuning/jobs?offset={}&limit=20&sort=name:asc", RUNS - 3)).await.with(200);
        assert_eq!((&far["count"], far["jobs"].as_array().unwrap().len()), (&json!(RUNS), 3));
        assert_eq!(gate.get("/api/v1/fine-tuning/stats").await.with(200)["total"], RUNS);
    })
    .await;
}

/// The official client, where a Python that has it is named by `FINETUNE_IT_OPENAI_PYTHON`; see hack/test/openai-client.sh.
#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_official_client_is_content() {
    let Ok(python) = std::env::var("FINETUNE_IT_OPENAI_PYTHON") else {
        println!("skipped: FINETUNE_IT_OPENAI_PYTHON names no Python with the package openai");
        return;
    };
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        dataset(&sandbox).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(axum::serve(listener, super::api::router().await).into_future());
        let mut client = Command::new(python)
            .args([concat!(env!("CARGO_MANIFEST_DIR"), "/hack/test/openai_client.py"), "llama-3.1-8b", "file-abc123"])
            .env("OPENAI_BASE_URL", format!("http://{address}/v1"))
            .env("OPENAI_API_KEY", &gate.key)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        // The client makes jobs of its own meanwhile, and pages through exactly those.
        let trained = async {
            until_cancelled(&sandbox).await;
            let run = sandbox.run("bot", json!({})).await;
            train(&sandbox, &run, 1).await;
            input.write_all(b"trained\n").await.unwrap();
        };
        let (ended, ()) = tokio::join!(client.wait(), trained);
        assert!(ended.unwrap().success());
        server.abort();
    })
    .await;
}

/// Waits until the client has made its jobs and cancelled one.
async fn until_cancelled(sandbox: &Sandbox) {
    let runs: kube::Api<FineTune> = sandbox.api();
    let stopped = |run: &FineTune| run.spec.desired_state == finetune_operator::api::DesiredState::Stopped;
    crate::harness::wait::until_some(&runs, "", "the client has cancelled a job", stopped).await;
}
