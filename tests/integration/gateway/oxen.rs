//! Every documented example of the Oxen dialect.

use finetune_operator::api::{FineTune, Visibility};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::api::{Gate, WRITE, assert_like};
use crate::{harness::in_sandbox, run::train};

/// The documented create, but for the sorts of images.
fn documented() -> Value {
    json!({
        "base_model": "meta-llama/Llama-3.1-8B", "is_public": false, "oxen_model_path": null, "resource": "data/train.jsonl",
        "script_type": "text_generation",
        "training_params": {
            "batch_size": 4, "caption_column": "text", "gradient_accumulation": 2, "image_column": "image", "learning_rate": 0.001,
            "lora_alpha": 16, "lora_rank": 16, "sample_every": 100, "samples": 4, "steps": 100, "timestep_type": "weighted", "use_lora": true,
        },
    })
}

/// Asserts that an answer has every key of a schema of the Oxen documents, and is as that schema says.
fn assert_as_oxen_says(name: &str, answer: &Value) {
    let mut document: Value = serde_json::from_str(include_str!("../../fixtures/oxen-schemas.json")).unwrap();
    for schema in document["components"]["schemas"].as_object_mut().unwrap().values_mut() {
        schema["required"] = schema["properties"].as_object().unwrap().keys().cloned().collect();
    }
    document["$ref"] = format!("#/components/schemas/{name}").into();
    let validator = jsonschema::options().should_validate_formats(true).build(&document).unwrap();
    let errors: Vec<String> = validator.iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{answer:#}");
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_fine_tune_is_made_listed_and_deleted_in_its_repository() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let base = format!("/api/repos/{}/models/fine_tunes", sandbox.namespace);
        let made = gate.post(&base, documented()).await.with(201);
        let example = json!({"status": "success", "status_message": "s", "fine_tune": {
            "base_model": "s", "created_at": "s", "id": "s", "name": "s", "status": "s", "updated_at": "s",
        }});
        assert_like(&made, &example);
        assert_eq!(made["fine_tune"]["status"], "created");
        assert_as_oxen_says("CreateFineTuneRequest", &documented());
        assert_as_oxen_says("FineTuneResponse", &made);
        let name = made["fine_tune"]["name"].as_str().unwrap();
        let run: FineTune = sandbox.api().get(name).await.unwrap();
        let volume = run.spec.dataset.training.unwrap().volume.unwrap();
        assert_eq!((volume.claim_name.as_str(), volume.path.as_str()), ("models", "data/train.jsonl"));
        assert_eq!((run.spec.parameters["grad_accum"].clone(), run.spec.parameters["max_steps"].clone()), (json!(2), json!(100)));
        assert_eq!(run.spec.parameters["timestep_type"], "weighted");
        assert_eq!(run.metadata.labels.unwrap()["finetune.dev/repository"], "models");

        let id = made["fine_tune"]["id"].as_str().unwrap();
        let one = gate.get(&format!("{base}/{id}")).await.with(200);
        assert_as_oxen_says("FineTuneResponse", &one);
        assert_eq!(one["fine_tune"]["resource"]["path"], "data/train.jsonl");
        let list = gate.get(&format!("{base}?page=1&page_size=5&sort=newest&status=created&search=models")).await.with(200);
        assert_eq!((&list["total_entries"], &list["fine_tunes"][0]["id"]), (&json!(1), &json!(id)));
        let elsewhere = format!("/api/repos/{}/other/fine_tunes", sandbox.namespace);
        assert_eq!(gate.get(&elsewhere).await.with(200)["total_entries"], 0);
        gate.get(&format!("{elsewhere}/{id}")).await.with(404);
        gate.delete(&format!("{elsewhere}/{id}")).await.with(404);

        let mut public = documented();
        public["is_public"] = json!(true);
        public["oxen_model_path"] = json!("trained/bot");
        let made = gate.post(&base, public).await.with(201);
        let run: FineTune = sandbox.api().get(made["fine_tune"]["name"].as_str().unwrap()).await.unwrap();
        assert_eq!(
            (run.spec.visibility, run.spec.output.unwrap().volume.unwrap().path),
            (Visibility::Public, Some("trained/bot".into()))
        );

        for (field, value) in [("base_model", json!("no-such")), ("script_type", json!("no-such")), ("resource", json!("../x"))] {
            let mut bad = documented();
            bad[field] = value;
            let refused = gate.post(&base, bad).await.with(400);
            assert_eq!(refused["status"], "error");
            let message = refused["status_message"].as_str().unwrap();
            assert!(field == "resource" || message.contains("no-such"), "{message}");
        }
        let stopped = gate.post(&format!("{base}/{id}/actions/stop?wait=30"), Value::Null).await.with(200);
        assert_eq!(stopped["fine_tune"]["status"], "stopped");
        let started = gate.post(&format!("{base}/{id}/actions/run"), Value::Null).await.with(200);
        assert_eq!(started["fine_tune"]["status"], "enqueued");
        gate.post(&format!("{base}/{id}/actions/stop?wait=30"), Value::Null).await.with(200);
        assert_eq!(gate.delete(&format!("{base}/{id}")).await.with(200)["status"], "success");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn checkpoints_are_listed_ascending_and_deployed_by_step() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let run = sandbox.run("bot", json!({})).await;
        let labelled = Patch::Merge(json!({"metadata": {"labels": {"finetune.dev/repository": "models"}}}));
        let runs: Api<FineTune> = sandbox.api();
        runs.patch("bot", &PatchParams::default(), &labelled).await.unwrap();
        let one = format!("/api/repos/{}/models/fine_tunes/ftjob-bot", sandbox.namespace);
        let none = gate.get(&format!("{one}/checkpoints")).await.with(200);
        assert_eq!((&none["checkpoints"], &none["total_checkpoints"]), (&json!([]), &json!(0)));
        assert_as_oxen_says("CheckpointListResponse", &none);
        gate.post(&format!("{one}/checkpoints/25/deploy"), json!({})).await.with(404);
        train(&sandbox, &run, 1).await;

        let list = gate.get(&format!("{one}/checkpoints")).await.with(200);
        let example = json!({
            "branch": "s", "fine_tune_id": "s", "status": "s", "status_message": "s", "total_checkpoints": 4,
            "checkpoints": [{
                "created_at": "s", "deployment_status": null, "inference_samples": [], "model_id": null, "model_name": "s", "path": "s",
                "size_bytes": 1, "step": 1,
                "metrics": {"epoch": null, "grad_norm": null, "learning_rate": null, "loss": 0.1, "mean_token_accuracy": null},
            }],
        });
        assert_like(&list, &example);
        let steps: Vec<_> = list["checkpoints"].as_array().unwrap().iter().map(|one| one["step"].clone()).collect();
        assert_eq!(steps, [25, 50, 75, 100]);
        assert_eq!(list["checkpoints"][3]["model_name"], "bot-step-100");
        assert_as_oxen_says("CheckpointListResponse", &list);

        let deploy = format!("{one}/checkpoints/50/deploy");
        let first = gate.post(&format!("{deploy}?wait=30"), json!({"deployment_type": "normal"})).await.with(200);
        assert_like(&first, &json!({"deployment_id": "s", "fine_tune": {"id": "s"}, "model": {}, "status": "s", "status_message": "s"}));
        assert_eq!((&first["model"]["status"], &first["model"]["name"]), (&json!("deployed"), &json!("bot-step-50")));
        let again = gate.post(&deploy, Value::Null).await.with(200);
        assert_eq!(again["deployment_id"], first["deployment_id"], "there is one already");
        let retried = gate.post(&format!("{deploy}?retry=true"), json!({})).await.with(200);
        assert_ne!(retried["deployment_id"], first["deployment_id"], "a new one");
        let listed = gate.get(&format!("{one}/checkpoints")).await.with(200);
        assert_eq!(listed["checkpoints"][1]["model_id"], retried["deployment_id"]);
        assert_as_oxen_says("CheckpointListResponse", &listed);
        assert_eq!(gate.get(&one).await.with(200)["fine_tune"]["deployed_model"]["name"], "bot-step-50");

        gate.post(&deploy, json!({"deployment_type": "turbo"})).await.with(400);
        gate.post(&format!("{one}/checkpoints/51/deploy"), json!({})).await.with(404);
        gate.post(&format!("{one}/checkpoints/x/deploy"), json!({})).await.with(400);
        gate.post(&format!("{one}/actions/stop"), Value::Null).await.with(409);
        let log = gate.get(&format!("{one}/logs?lines=5")).await.with(200);
        assert_eq!(log["logs"][0]["message"], "done");
        assert_eq!(run.name_any(), "bot");
    })
    .await;
}
