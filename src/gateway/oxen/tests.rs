#![allow(clippy::needless_pass_by_value, reason = "test data reads better by value")]

use serde_json::{Value, json};

use super::create::{CreateFineTune, Deploy, new_run};
use super::{left, run as shown};
use crate::api::{ServingType, Visibility};
use crate::gateway::errors::Refusal;
use crate::gateway::fixtures::{around, checkpoint, deployment, lacks, merged, run};
use crate::gateway::service::create::{Data, NewRun, Script};
use crate::gateway::service::sources;

fn value(shown: impl serde::Serialize) -> Value {
    serde_json::to_value(shown).unwrap()
}

fn asked(body: Value) -> Result<NewRun, Refusal> {
    let whole =
        merged(json!({"resource": "data/train.jsonl", "base_model": "org/model", "script_type": "text_generation"}), body);
    new_run(serde_json::from_value::<CreateFineTune>(whole).unwrap(), "repo", None, String::new())
}

/// The documented fine-tune: that of the create and that of the deploy together.
fn documented() -> Value {
    let words = "base_model created_at inserted_at updated_at id name status credits_used description display_name error finished_at \
        gpu_model last_credit_check rate_per_second repository_id started_at";
    let words: Value = words.split_whitespace().map(|key| (key.to_owned(), json!("s"))).collect();
    let script = json!({
        "description": "s", "display_name": "s", "docker_image_name": "s", "id": "s", "name": "s", "script_type": "s",
        "fine_tune_schema": {
            "description": "s", "id": "s", "name": "s",
            "schema": {"additionalProperties": true, "basic": ["s"], "properties": {}, "required": ["s"], "type": "s"},
        },
    });
    let parameters = json!({
        "answer_column": "s", "batch_size": 123, "enable_thinking": true, "epochs": 123, "grad_accum": 123, "learning_rate": 123,
        "logging_steps": 123, "lora_alpha": 123, "lora_rank": 123, "neftune_noise_alpha": 123, "question_column": "s",
        "save_steps_ratio": 123, "save_strategy": "s", "seq_length": 123, "use_lora": true,
    });
    let rest = json!({
        "created_by": {"id": "s", "image": "s", "name": "s", "username": "s"}, "deployed_model": {}, "fine_tune_script": script,
        "gpu_count": 123, "output_resource": {}, "queue_position": 123, "resource": {"path": "s", "version": "s"}, "source_model": {},
        "total_token_count": 0, "training_params": parameters, "use_lora": true,
    });
    merged(words, rest)
}

#[test]
fn a_fine_tune_has_every_documented_key() {
    let found = value(shown::fine_tune(&run(json!({})), &around(vec![deployment(200, "Ready")])));
    assert_eq!(lacks(&documented(), &found), Vec::<String>::new());
    assert_eq!((found["status"].as_str(), found["credits_used"].as_str()), (Some("deployed"), Some("1.5")));
    assert_eq!(
        (found["rate_per_second"].as_str(), &found["gpu_count"], &found["gpu_model"]),
        (Some("0.001"), &json!(2), &json!("A100"))
    );
    assert_eq!((&found["training_params"]["save_steps_ratio"], &found["training_params"]["custom"]), (&json!(0.25), &json!("x")));
    assert_eq!(found["deployed_model"]["id"], "deployment-200");
    let fresh = value(shown::fine_tune(&run(json!({"status": null, "metadata": {"annotations": null}})), &around(vec![])));
    assert_eq!(lacks(&documented(), &fresh), Vec::<String>::new());
    assert_eq!((&fresh["status"], &fresh["created_by"]), (&json!("created"), &Value::Null));
}

#[test]
fn every_phase_has_its_word_and_every_word_its_phases() {
    let words = [
        ("Pending", "created"),
        ("Preparing", "tokenizing"),
        ("Queued", "enqueued"),
        ("Running", "running"),
        ("Pausing", "running"),
        ("Paused", "stopped"),
        ("Stopping", "running"),
        ("Stopped", "stopped"),
        ("Succeeded", "completed"),
        ("Failed", "errored"),
    ];
    for (phase, word) in words {
        let run = run(json!({"status": {"phase": phase}}));
        let status = shown::status(&run, &around(vec![]));
        assert_eq!(value(status), word);
        assert!(status.phases().contains(&run.status.unwrap().phase), "{word}");
    }
    let untouched = run(json!({"spec": {"desiredState": "Paused"}, "status": {"phase": "Paused", "attempt": 0}}));
    assert_eq!(shown::status(&untouched, &around(vec![])), shown::Status::Created);
}

#[test]
fn a_create_becomes_a_run() {
    let new =
        asked(json!({"is_public": true, "oxen_model_path": "models/x", "training_params": {"steps": 10, "use_lora": false}}))
            .unwrap();
    let Data::Place(place) = &new.training else { panic!("{:?}", new.training) };
    assert_eq!(sources::text(place), "volume://repo/data/train.jsonl");
    assert_eq!((new.script.clone(), new.visibility), (Script::Named("text_generation".into()), Visibility::Public));
    assert_eq!(new.output.unwrap().volume.unwrap().path.as_deref(), Some("models/x"));
    assert_eq!(new.labels.get("finetune.dev/repository").map(String::as_str), Some("repo"));
    assert_eq!(new.defaults.get("use_lora"), Some(&json!(true)));
    let plain = asked(json!({"is_public": null, "oxen_model_path": null})).unwrap();
    assert_eq!((plain.visibility, plain.output), (Visibility::Private, None));
}

#[test]
fn places_outside_the_repository_are_refused() {
    for (body, param) in [
        (json!({"resource": "../other/x"}), "resource"),
        (json!({"oxen_model_path": "a/../../x"}), "oxen_model_path"),
        (json!({"oxen_model_path": "hf://org/x"}), "oxen_model_path"),
    ] {
        assert_eq!(asked(body).unwrap_err().param.as_deref(), Some(param));
    }
    let body: CreateFineTune = serde_json::from_value(json!({"resource": "a", "base_model": "b", "script_type": "c"})).unwrap();
    assert!(new_run(body, "../x", None, String::new()).is_err());
}

#[test]
fn checkpoints_have_every_documented_key_ascending() {
    let documented = json!({
        "branch": "s", "fine_tune_id": "s", "status": "s", "status_message": "s", "total_checkpoints": 2,
        "checkpoints": [{
            "created_at": "s", "deployment_status": "s", "inference_samples": [{}], "model_id": "s", "model_name": "s", "path": "s",
            "size_bytes": 1, "step": 1,
            "metrics": {"epoch": 0.1, "grad_norm": 0.1, "learning_rate": 0.1, "loss": 0.1, "mean_token_accuracy": 0.1},
        }],
    });
    let all = [checkpoint(100), checkpoint(200)];
    let found = value(left::checkpoints(&run(json!({})), &all, &around(vec![deployment(200, "Progressing")])));
    assert_eq!(lacks(&documented, &found), Vec::<String>::new());
    let (first, second) = (&found["checkpoints"][0], &found["checkpoints"][1]);
    assert_eq!(
        (&first["step"], &first["model_name"], &first["deployment_status"]),
        (&json!(100), &json!("bot-step-100"), &Value::Null)
    );
    assert_eq!((&second["deployment_status"], &second["model_id"]), (&json!("deploying"), &json!("deployment-200")));
    assert_eq!(first["inference_samples"], json!([{"prompt": "a", "completion": "b"}, {"text": "no json"}]));
    let none = value(left::checkpoints(&run(json!({})), &[], &around(vec![])));
    assert_eq!((&none["checkpoints"], &none["total_checkpoints"]), (&json!([]), &json!(0)));
}

#[test]
fn a_deploy_says_how_far_the_model_is() {
    let found = value(left::deployed(shown::fine_tune(&run(json!({})), &around(vec![])), &deployment(200, "Progressing")));
    assert_eq!(
        (&found["status"], &found["status_message"], &found["deployment_id"]),
        (&json!("success"), &json!("deploying"), &json!("deployment-200"))
    );
    assert!(found["model"].is_object() && found["fine_tune"].is_object());
    let type_ = |body: Value| {
        serde_json::from_value::<Deploy>(body).map(|deploy| ServingType::from(deploy.deployment_type.unwrap_or_default()))
    };
    assert_eq!(type_(json!({})).unwrap(), ServingType::Normal);
    assert_eq!(type_(json!({"deployment_type": "fast"})).unwrap(), ServingType::Fast);
    assert!(type_(json!({"deployment_type": "turbo"})).is_err());
}
