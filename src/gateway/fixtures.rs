//! Objects the tests of the dialects translate.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::service::runs::Surroundings;
use crate::api::{Checkpoint, FineTune, HardwareProfile, ModelDeployment, TrainingRuntime};

/// Lays `over` over `base`, field by field.
pub(crate) fn merged(mut base: Value, over: Value) -> Value {
    match (&mut base, over) {
        (Value::Object(fields), Value::Object(over)) => {
            for (key, value) in over {
                let before = fields.remove(&key).unwrap_or(Value::Null);
                fields.insert(key, merged(before, value));
            }
            base
        }
        (_, over) => over,
    }
}

fn object<K: DeserializeOwned>(kind: &str, value: Value) -> K {
    serde_json::from_value(merged(json!({"apiVersion": "finetune.dev/v1alpha1", "kind": kind}), value)).unwrap()
}

/// A run that has succeeded, with `over` laid over it.
pub(crate) fn run(over: Value) -> FineTune {
    let base = json!({
        "metadata": {
            "name": "bot", "namespace": "team", "uid": "0123abcd-1111-2222-3333-444455556666", "generation": 1,
            "creationTimestamp": "2027-01-15T07:00:00Z",
            "labels": {"finetune.dev/repository": "repo"},
            "annotations": {"finetune.dev/created-by": "system:serviceaccount:team:bot"},
        },
        "spec": {
            "displayName": "Support Bot", "description": "Answers", "suffix": "support-v1", "metadata": {"team": "a"},
            "baseModel": {"name": "llama"}, "dataset": {"name": "ds_train_001"}, "runtime": {"name": "sft"},
            "hardware": {"profile": "gpu"}, "parameters": {"learning_rate": 0.0004, "epochs": 3, "custom": "x"},
        },
        "status": {
            "observedGeneration": 1, "phase": "Succeeded", "attempt": 1, "lineage": 1,
            "startTime": "2027-01-15T07:01:00Z", "completionTime": "2027-01-15T08:00:00Z",
            "latestCheckpoint": "bot-step-300", "bestCheckpoint": "bot-step-200",
            "resolved": {"runtime": "sft", "hardware": "gpu", "image": "i", "output": "volume://models/x", "parametersDigest": "d", "gpus": 2},
            "progress": {
                "attempt": 1, "step": 300, "totalSteps": 300, "epoch": "3.0", "totalEpochs": "3", "trainedTokens": 1_250_000,
                "metrics": {"loss": "0.342", "eval_loss": "0.389"},
            },
            "cost": {"perHour": "3.6", "gpuSeconds": 10, "accrued": "1.5", "currency": "USD", "asOf": "2027-01-15T08:00:00Z"},
        },
    });
    object("FineTune", merged(base, over))
}

/// A checkpoint of that run.
pub(crate) fn checkpoint(step: i64) -> Checkpoint {
    object(
        "Checkpoint",
        json!({
            "metadata": {"name": format!("bot-step-{step}"), "namespace": "team", "uid": format!("ckpt-{step}")},
            "spec": {
                "fineTune": {"name": "bot", "uid": "0123abcd-1111-2222-3333-444455556666"}, "lineage": 1, "step": step,
                "baseModel": {"name": "llama"}, "storage": {"volume": {"claimName": "models", "path": format!("x/checkpoint-{step}")}},
            },
            "status": {
                "phase": "Ready", "savedAt": "2027-01-15T07:30:00Z", "sizeBytes": 1234,
                "metrics": {"loss": "0.478", "mean_token_accuracy": "0.924", "eval_loss": "0.567", "grad_norm": "nan", "own": "1"},
                "samples": ["{\"prompt\": \"a\", \"completion\": \"b\"}", "no json"],
            },
        }),
    )
}

/// What serves one of its checkpoints.
pub(crate) fn deployment(step: i64, phase: &str) -> ModelDeployment {
    object(
        "Deployment",
        json!({
            "metadata": {"name": format!("bot-step-{step}"), "namespace": "team", "uid": format!("deployment-{step}")},
            "spec": {"checkpoint": {"name": format!("bot-step-{step}")}},
            "status": {"phase": phase, "url": "http://bot.team.svc:8000/v1"},
        }),
    )
}

/// A catalogue with one script and one profile, and what is served.
pub(crate) fn around(deployments: Vec<ModelDeployment>) -> Surroundings {
    let runtime: TrainingRuntime = object(
        "TrainingRuntime",
        json!({
            "metadata": {"name": "sft"},
            "spec": {
                "displayName": "SFT", "description": "Trains", "image": "registry/trainer:1", "command": ["train"],
                "scriptTypes": ["sft", "supervised"],
                "parameters": {
                    "schema": {"type": "object", "properties": {"epochs": {"type": "integer"}}, "required": []},
                    "basic": ["epochs"], "defaults": {"learning_rate": 0.0002, "batch_size": 8, "save_steps": 0.25},
                },
            },
        }),
    );
    let profile: HardwareProfile = object(
        "HardwareProfile",
        json!({
            "metadata": {"name": "gpu"},
            "spec": {"displayName": "NVIDIA A100 80GB", "gpu": {"count": 2, "memory": "80Gi", "product": "A100"}, "costPerHour": "3.60"},
        }),
    );
    Surroundings { now: Timestamp::UNIX_EPOCH, runtimes: vec![runtime].into(), hardware: vec![profile].into(), deployments }
}

/// The keys of an object, sorted.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// What a documented example has and an answer lacks: keys, and types where both are not null. Paths, for people.
pub(crate) fn lacks(example: &Value, answer: &Value) -> Vec<String> {
    let mut lacking = Vec::new();
    compare("", example, answer, &mut lacking);
    lacking
}

fn compare(path: &str, example: &Value, answer: &Value, lacking: &mut Vec<String>) {
    match (example, answer) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(example), Value::Object(answer)) => {
            for (key, value) in example {
                match answer.get(key) {
                    Some(answer) => compare(&format!("{path}/{key}"), value, answer, lacking),
                    None => lacking.push(format!("{path}/{key} is missing")),
                }
            }
        }
        (Value::Array(example), Value::Array(answer)) => {
            if let (Some(example), Some(answer)) = (example.first(), answer.first()) {
                compare(&format!("{path}/0"), example, answer, lacking);
            }
        }
        (example, answer) if std::mem::discriminant(example) == std::mem::discriminant(answer) => {}
        (example, answer) => lacking.push(format!("{path} is {answer}, documented is {example}")),
    }
}
