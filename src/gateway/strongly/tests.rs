#![allow(clippy::needless_pass_by_value, reason = "test data reads better by value")]

use serde_json::{Value, json};

use super::lists::Order;
use super::{answers, ask, catalogue, figures, job};
use crate::api::{BaseModel, HardwareProfile};
use crate::gateway::fixtures::{around, deployment, keys, lacks, run};
use crate::gateway::service::history::Point;
use crate::gateway::service::query::{Counts, Field};

fn value(shown: impl serde::Serialize) -> Value {
    serde_json::to_value(shown).unwrap()
}

#[test]
fn a_job_has_every_documented_key() {
    let documented = json!({
        "id": "ftjob_abc123", "name": "Customer Support Classifier", "baseModel": "llama-3.1-8b", "status": "running", "description": "s",
        "owner": "user_456", "organizationId": "org_xyz", "trainingDataset": "ds_train_001", "trainingFile": "training_data.jsonl",
        "validationFile": "validation_data.jsonl",
        "hyperparameters": {"epochs": 3, "learningRate": 0.0002, "batchSize": 8, "warmupSteps": 100},
        "resultModel": null, "trainedTokens": 1_250_000, "error": null,
        "metrics": {"trainingLoss": 0.342, "validationLoss": 0.389, "epoch": 2},
        "startedAt": "2025-02-01T10:00:00Z", "finishedAt": null, "createdAt": "2025-02-01T09:55:00Z", "updatedAt": "2025-02-01T12:30:00Z",
    });
    let whole = value(job::job(&run(json!({})), &around(vec![])));
    assert_eq!(lacks(&documented, &whole), Vec::<String>::new());
    assert_eq!(whole["metrics"], json!({"trainingLoss": 0.342, "validationLoss": 0.389, "epoch": 3}));
    let hyperparameters = json!({"epochs": 3, "learningRate": 0.0004, "batchSize": 8, "warmupSteps": null, "custom": "x"});
    assert_eq!(whole["hyperparameters"], hyperparameters);
    assert_eq!(
        (&whole["createdAt"], &whole["owner"]),
        (&json!("2027-01-15T07:00:00Z"), &json!("system:serviceaccount:team:bot"))
    );
    let listed = [
        "baseModel",
        "createdAt",
        "description",
        "finishedAt",
        "id",
        "name",
        "organizationId",
        "owner",
        "startedAt",
        "status",
        "trainedTokens",
        "updatedAt",
    ];
    assert_eq!(keys(&value(job::summary(&run(json!({}))))), listed);
    assert_eq!(keys(&value(answers::created(&run(json!({}))))), ["baseModel", "createdAt", "id", "name", "status"]);
}

#[test]
fn the_result_is_named_by_base_model_and_suffix_or_as_it_is_served() {
    let named = |run, deployments| value(job::job(&run, &around(deployments)))["resultModel"].clone();
    assert_eq!(named(run(json!({})), vec![]), "llama-support-v1");
    assert_eq!(named(run(json!({"spec": {"suffix": null}})), vec![]), "bot-step-200");
    assert_eq!(named(run(json!({})), vec![deployment(200, "Ready")]), "bot-step-200");
    assert_eq!(named(run(json!({"status": {"phase": "Running"}})), vec![]), Value::Null);
    assert_eq!(job::suffixed(&run(json!({"spec": {"suffix": "a b/ü"}}))).unwrap(), "llama-a-b/-");
}

#[test]
fn every_phase_has_its_word_and_stats_count_all_of_them() {
    let words = [
        ("Pending", "queued"),
        ("Preparing", "queued"),
        ("Queued", "queued"),
        ("Running", "running"),
        ("Pausing", "running"),
        ("Stopping", "running"),
        ("Paused", "stopped"),
        ("Stopped", "stopped"),
        ("Succeeded", "completed"),
        ("Failed", "failed"),
    ];
    let mut counts = Counts::default();
    for (phase, word) in words {
        let run = run(json!({"status": {"phase": phase}}));
        let status = job::summary(&run).status;
        assert_eq!((value(status), status.word()), (json!(word), word));
        assert!(status.phases().contains(&run.status.as_ref().unwrap().phase));
        counts.see(&run);
    }
    let stats = json!({"total": 10, "running": 3, "completed": 1, "failed": 1, "queued": 3, "stopped": 2});
    assert_eq!(value(figures::stats(&counts)), stats);
}

#[test]
fn metrics_have_their_curves() {
    let point = |step: i64, loss: Value| Point {
        step,
        metrics: [("loss".to_owned(), loss), ("learning_rate".to_owned(), json!(0.0002))].into(),
    };
    let shown = value(figures::metrics(&run(json!({})), &[point(100, json!(0.85)), point(200, Value::Null)]));
    let documented = json!({"jobId": "s", "metrics": {
        "trainingLoss": 0.3, "validationLoss": 0.3, "currentEpoch": 2, "totalEpochs": 3, "trainedTokens": 1,
        "steps": [{"step": 100, "trainingLoss": 0.85, "validationLoss": 0.91, "learningRate": 0.0002}],
    }});
    assert_eq!(lacks(&documented, &shown), Vec::<String>::new());
    assert_eq!(
        shown["metrics"]["steps"][0],
        json!({"step": 100, "trainingLoss": 0.85, "validationLoss": null, "learningRate": 0.0002})
    );
}

#[test]
fn the_catalogue_is_shown_as_documented() {
    let model: BaseModel = serde_json::from_value(json!({
        "apiVersion": "finetune.dev/v1alpha1", "kind": "BaseModel", "metadata": {"name": "llama-3.1-8b"},
        "spec": {
            "displayName": "LLaMA 3.1 8B", "provider": "meta", "parameterCount": "8B", "supportedTasks": ["text-generation", "classification"],
            "maxSequenceLength": 8192, "source": {"huggingFace": {"repo": "meta-llama/x"}},
        },
    }))
    .unwrap();
    let documented = json!({
        "id": "llama-3.1-8b", "name": "LLaMA 3.1 8B", "provider": "meta", "parameterCount": "8B",
        "supportedTasks": ["text-generation", "classification"], "maxSequenceLength": 8192,
    });
    assert_eq!(value(catalogue::base_model(&model)), documented);
    let profile: HardwareProfile = serde_json::from_value(json!({
        "apiVersion": "finetune.dev/v1alpha1", "kind": "HardwareProfile", "metadata": {"name": "gpu-a100-80gb-x4"},
        "spec": {"displayName": "NVIDIA A100 80GB x4", "gpu": {"count": 4, "memory": "80Gi"}, "costPerHour": "18.00"},
    }))
    .unwrap();
    let shown = value(catalogue::hardware(&profile));
    let documented =
        json!({"id": "gpu-a100-80gb-x4", "name": "NVIDIA A100 80GB x4", "gpuMemory": "80GB", "gpuCount": 4, "costPerHour": 18});
    assert_eq!(lacks(&documented, &shown), Vec::<String>::new());
    assert_eq!((&shown["gpuMemory"], &shown["costPerHour"]), (&json!("80GB"), &json!(18)));
}

#[test]
fn orders_are_read_as_documented() {
    let sort = |text: &str| Order::try_from(text.to_owned()).map(|order| order.0);
    let newest = sort("createdAt:desc").unwrap();
    assert_eq!((newest.field, newest.descending), (Field::Created, true));
    assert!(!sort("name").unwrap().descending);
    for bad in ["owner", "createdAt:down", ":desc", "createdAt:desc:asc"] {
        assert!(sort(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_create_needs_a_name() {
    let body = |name: &str| serde_json::from_value(json!({"name": name, "baseModel": "m", "trainingDataset": "d"})).unwrap();
    assert!(ask::new_run(body(" "), None, String::new()).is_err());
    let new = ask::new_run(body("Customer Support"), None, String::new()).unwrap();
    assert_eq!((new.display_name.as_deref(), new.auto_deploy), (Some("Customer Support"), None));
}
