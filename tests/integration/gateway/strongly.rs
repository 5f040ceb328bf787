//! Every documented example of the Strongly dialect.

use finetune_operator::api::{Dataset, DeploymentPhase, FineTune, FineTunePhase, ModelDeployment};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::api::{Gate, WRITE, assert_like};
use crate::{
    harness::{Agent, Sandbox, in_sandbox, wait::until},
    run::train,
};

const JOBS: &str = "/api/v1/fine-tuning/jobs";

/// The documented create.
fn documented() -> Value {
    json!({
        "name": "Customer Support Classifier", "baseModel": "llama-3.1-8b", "trainingDataset": "ds-train-001",
        "description": "Fine-tuned on 10k support tickets for intent classification", "validationFile": "validation-data",
        "hyperparameters": {"epochs": 3, "learningRate": 0.0002, "batchSize": 8, "warmupSteps": 100}, "suffix": "support-v1",
    })
}

async fn datasets(sandbox: &Sandbox) {
    for name in ["ds-train-001", "validation-data"] {
        let spec = json!({"training": {"huggingFace": {"repo": format!("org/{name}")}}});
        sandbox.create::<Dataset>(json!({"metadata": {"name": name}, "spec": spec})).await;
    }
}

/// Makes the documented run.
async fn made(sandbox: &Sandbox, gate: &Gate) -> (Value, FineTune) {
    datasets(sandbox).await;
    let made = gate.post(JOBS, documented()).await.with(201);
    let name = made["id"].as_str().unwrap().strip_prefix("ftjob-").unwrap();
    let run = sandbox.api().get(name).await.unwrap();
    (made, run)
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_job_is_made_listed_described_stopped_and_deleted_as_documented() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let (created, run) = made(&sandbox, &gate).await;
        let example = json!({"id": "s", "name": "s", "baseModel": "s", "status": "s", "createdAt": "s"});
        assert_like(&created, &example);
        assert_eq!((&created["status"], &created["name"]), (&json!("queued"), &json!("Customer Support Classifier")));
        assert_eq!(created["baseModel"], "llama-3.1-8b");
        let expected = json!({"batch_size": 8, "epochs": 3, "learning_rate": 0.0002, "warmup_steps": 100});
        assert_eq!(serde_json::to_value(&run.spec.parameters).unwrap(), expected);
        let owner = run.annotations().get("finetune.dev/created-by").unwrap();
        assert!(owner.starts_with(&format!("system:serviceaccount:{}:", sandbox.namespace)), "{owner}");

        let id = created["id"].as_str().unwrap();
        let job = gate.get(&format!("{JOBS}/{id}")).await.with(200);
        let example = json!({
            "id": "s", "name": "s", "baseModel": "s", "status": "s", "description": "s", "owner": "s", "organizationId": "s",
            "trainingDataset": "s", "trainingFile": "s", "validationFile": "s",
            "hyperparameters": {"epochs": 3, "learningRate": 0.0002, "batchSize": 8, "warmupSteps": 100}, "resultModel": null,
            "trainedTokens": 1, "error": null, "metrics": {"trainingLoss": null, "validationLoss": null, "epoch": null},
            "startedAt": "s", "finishedAt": null, "createdAt": "s", "updatedAt": "s",
        });
        assert_like(&job, &example);
        assert_eq!((&job["trainingDataset"], &job["validationFile"]), (&json!("ds-train-001"), &json!("validation-data")));
        assert_eq!(gate.get(&format!("{JOBS}/{}", run.name_any())).await.with(200)["id"], id, "the plain name is an id too");

        let list = gate
            .get(&format!("{JOBS}?status=queued&baseModel=llama-3.1-8b&search=SUPPORT&limit=20&offset=0&sort=createdAt:desc"))
            .await;
        let list = list.with(200);
        assert_eq!((&list["count"], &list["limit"], &list["offset"]), (&json!(1), &json!(20), &json!(0)));
        assert_eq!(list["jobs"][0]["id"], id);
        assert_eq!(gate.get(&format!("{JOBS}?status=failed")).await.with(200)["count"], 0);
        assert_eq!(gate.get(&format!("{JOBS}?baseModel=meta-llama%2FLlama-3.1-8B")).await.with(200)["count"], 1, "by alias");

        let stats = gate.get("/api/v1/fine-tuning/stats").await.with(200);
        assert_eq!(stats, json!({"total": 1, "running": 0, "completed": 0, "failed": 0, "queued": 1, "stopped": 0}));

        let stopped = gate.post(&format!("{JOBS}/{id}/stop?wait=30"), Value::Null).await.with(200);
        assert_eq!(stopped, json!({"id": id, "status": "stopped", "message": "Fine-tuning job stopped successfully"}));
        assert_eq!(gate.post(&format!("{JOBS}/{id}/stop"), Value::Null).await.with(200)["status"], "stopped", "again is no harm");
        let restarted = gate.post(&format!("{JOBS}/{id}/restart"), Value::Null).await.with(200);
        assert_eq!(restarted, json!({"id": id, "status": "queued", "message": "Fine-tuning job restarted successfully"}));
        gate.post(&format!("{JOBS}/{id}/restart"), Value::Null).await.with(409);
        gate.post(&format!("{JOBS}/{id}/stop?wait=30"), Value::Null).await.with(200);
        gate.delete(&format!("{JOBS}/{id}")).await.empty();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_trained_job_has_logs_and_metrics_and_is_deployed_once() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let run = sandbox.run("bot", json!({"suffix": "support-v1", "displayName": "Bot"})).await;
        let job = format!("{JOBS}/ftjob-bot");
        gate.post(&format!("{job}/deploy"), Value::Null).await.with(409);
        let agent = Agent::training(&sandbox, &run, 1).await;
        sandbox.until_phase("bot", FineTunePhase::Running).await;
        gate.delete(&job).await.with(409);
        drop(agent);
        train(&sandbox, &run, 1).await;
        gate.post(&format!("{job}/stop"), Value::Null).await.with(409);

        let logs = gate.get(&format!("{job}/logs?lines=1")).await.with(200);
        assert_like(&logs, &json!({"jobId": "s", "logs": [{"timestamp": "s", "level": "s", "message": "s"}]}));
        assert_eq!(logs["logs"], json!([{"timestamp": "2026-01-01T00:00:00Z", "level": "info", "message": "done"}]));
        assert_eq!(gate.get(&format!("{job}/logs?since=2026-01-01T00:00:00Z")).await.with(200)["logs"], json!([]));
        gate.get(&format!("{job}/logs?since=yesterday")).await.with(400);

        let metrics = gate.get(&format!("{job}/metrics")).await.with(200);
        let example = json!({"jobId": "s", "metrics": {
            "trainingLoss": 0.3, "validationLoss": 0.3, "currentEpoch": 2, "totalEpochs": 3, "trainedTokens": 1,
            "steps": [{"step": 1, "trainingLoss": 0.8, "validationLoss": 0.9, "learningRate": 0.1}],
        }});
        assert_like(&metrics, &example);
        let steps: Vec<_> = metrics["metrics"]["steps"].as_array().unwrap().iter().map(|step| step["step"].clone()).collect();
        assert_eq!(steps, [25, 50, 75, 100]);

        let deployed = gate.post(&format!("{job}/deploy?wait=30"), Value::Null).await.with(200);
        let example = json!({"id": "ftjob-bot", "resultModel": "it-tiny-support-v1", "status": "s", "message": "s"});
        assert_like(&deployed, &example);
        assert_eq!(deployed["resultModel"], "it-tiny-support-v1");
        until(&sandbox.api::<ModelDeployment>(), "bot-step-100", "it serves", |deployment| {
            deployment.status.as_ref().is_some_and(|status| status.phase == DeploymentPhase::Ready)
        })
        .await;
        let again = gate.post(&format!("{job}/deploy"), Value::Null).await.with(200);
        let message = "Fine-tuned model deployed successfully";
        assert_eq!(
            again,
            json!({"id": "ftjob-bot", "resultModel": "it-tiny-support-v1", "status": "deployed", "message": message})
        );
        assert_eq!(gate.get(&job).await.with(200)["resultModel"], "it-tiny-support-v1");
        let models = gate.get("/v1/models").await.with(200);
        assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("it-tiny-support-v1")));
        assert_eq!(gate.get("/v1/models/it-tiny-support-v1").await.with(200), models["data"][0]);
        gate.get("/v1/models/bot-step-100").await.with(404);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_catalogue_and_an_estimate_are_shown_as_documented() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, super::api::READ).await;
        let models = gate.get("/api/v1/fine-tuning/base-models").await.with(200);
        let llama = models["models"].as_array().unwrap().iter().find(|model| model["id"] == "llama-3.1-8b").unwrap();
        let example = json!({
            "id": "llama-3.1-8b", "name": "LLaMA 3.1 8B", "provider": "meta", "parameterCount": "8B", "supportedTasks": ["text-generation"],
            "maxSequenceLength": 8192,
        });
        assert_eq!(*llama, example);
        let hardware = gate.get("/api/v1/fine-tuning/hardware").await.with(200);
        let default = hardware["hardware"].as_array().unwrap().iter().find(|profile| profile["id"] == "it-default").unwrap();
        assert_like(default, &json!({"id": "s", "name": "s", "gpuMemory": "80GB", "gpuCount": 1, "costPerHour": 3.6}));
        let asked = json!({"baseModel": "llama-3.1-8b", "datasetSize": 50000});
        let estimate = gate.post("/api/v1/fine-tuning/estimate-cost", asked).await.with(200);
        // 50000 examples of 512 tokens at 1000 tokens a second, at 3.60 an hour.
        assert_like(&estimate, &json!({"baseModel": "s", "datasetSize": 1, "estimatedCost": 42.5, "estimatedTimeMinutes": 180, "currency": "USD"}));
        assert_eq!((&estimate["estimatedCost"], &estimate["estimatedTimeMinutes"]), (&json!(25.6), &json!(427)));
        gate.post("/api/v1/fine-tuning/estimate-cost", json!({"baseModel": "it-tiny", "datasetSize": 1})).await.with(422);
        gate.post("/api/v1/fine-tuning/estimate-cost", json!({"baseModel": "nothing", "datasetSize": 1})).await.with(400);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn what_a_create_gets_wrong_is_told_by_field_and_in_the_operators_words() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        datasets(&sandbox).await;
        let with = |field: &str, value: Value| {
            let mut body = documented();
            body[field] = value;
            body
        };
        for (body, field, words) in [
            (with("baseModel", json!("no-such")), "baseModel", "no-such"),
            (with("trainingDataset", json!("no-such")), "trainingDataset", "no-such"),
            (with("trainingDataset", json!("ftp://x")), "trainingDataset", "s3://"),
            (with("validationFile", json!("no-such")), "validationFile", "no-such"),
            (with("hyperparameters", json!({"learningRate": "fast"})), "hyperparameters", "/learning_rate"),
            (with("hyperparameters", json!({"batchSize": 1, "batch_size": 2})), "hyperparameters", "batchSize"),
            (with("suffix", json!("s".repeat(65))), "spec.suffix", "64"),
            (with("name", json!(3)), "name", "string"),
            (with("name", Value::Null), "name", "string"),
        ] {
            let refused = gate.post(JOBS, body).await.with(400);
            let message = refused["error"]["message"].as_str().unwrap();
            assert!(message.contains(words), "{field}: {message}");
            assert_eq!(refused["error"]["field"], field, "{message}");
        }
        let mut short = documented();
        short.as_object_mut().unwrap().remove("trainingDataset");
        let refused = gate.post(JOBS, short).await.with(400);
        assert!(refused["error"]["message"].as_str().unwrap().contains("trainingDataset"));
        for query in ["status=done", "sort=owner", "limit=0", "limit=x", "offset=-1", "offset=1000000"] {
            gate.get(&format!("{JOBS}?{query}")).await.with(400);
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_create_with_a_key_is_made_once() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        datasets(&sandbox).await;
        let (one, other) = tokio::join!(gate.post_once(JOBS, "k1", documented()), gate.post_once(JOBS, "k1", documented()));
        let (one, other) = (one.with(201), other.with(201));
        assert_eq!(one, other);
        let mut changed = documented();
        changed["name"] = json!("Another");
        gate.post_once(JOBS, "k1", changed.clone()).await.with(409);
        assert_ne!(gate.post_once(JOBS, "k2", changed).await.with(201)["id"], one["id"]);
        assert_eq!(gate.get(JOBS).await.with(200)["count"], 2);
    })
    .await;
}
