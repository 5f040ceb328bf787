#![allow(clippy::needless_pass_by_value, reason = "test data reads better by value")]

use serde_json::{Value, json};

use super::create::{CreateJob, CreatePermissions, new_run};
use super::object::{List, Listed};
use super::{job, left};
use crate::api::{DeployWhich, FineTunePhase as Phase};
use crate::gateway::asked::Number;
use crate::gateway::errors::{Kind, Refusal};
use crate::gateway::fixtures::{around, checkpoint, deployment, keys, lacks, run};
use crate::gateway::service::create::{NewRun, Script};

fn value(shown: impl serde::Serialize) -> Value {
    serde_json::to_value(shown).unwrap()
}

fn asked(body: Value) -> Result<NewRun, Refusal> {
    let whole = crate::gateway::fixtures::merged(json!({"model": "gpt-4o-mini", "training_file": "file-abc123"}), body);
    new_run(serde_json::from_value::<CreateJob>(whole).unwrap(), None, String::new())
}

#[test]
fn a_job_has_every_documented_key() {
    let documented = json!({
        "object": "fine_tuning.job", "id": "ftjob-abc123", "model": "davinci-002", "created_at": 1_692_661_014, "finished_at": 1_692_661_190,
        "fine_tuned_model": "ft:davinci-002:my-org:custom_suffix:7q8mpxmy", "organization_id": "org-123", "result_files": [],
        "status": "succeeded", "validation_file": null, "training_file": "file-abc123",
        "hyperparameters": {"n_epochs": 4, "batch_size": 1, "learning_rate_multiplier": 1.0},
        "trained_tokens": 5768, "integrations": [], "seed": 0, "estimated_finish": 0,
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 1, "learning_rate_multiplier": 1.0}}},
        "metadata": {"team": "value"}, "error": null, "user_provided_suffix": "x",
    });
    let shown = value(job::job(&run(json!({})), &around(vec![])));
    assert_eq!(lacks(&documented, &shown), Vec::<String>::new());
    assert_eq!((shown["id"].as_str(), shown["status"].as_str()), (Some("ftjob-bot"), Some("succeeded")));
    assert_eq!(shown["hyperparameters"], json!({"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 2}));
    assert_eq!((&shown["created_at"], &shown["finished_at"]), (&json!(1_799_996_400), &json!(1_800_000_000)));
    assert_eq!(shown["fine_tuned_model"], "bot-step-200", "the best checkpoint");
    assert_eq!(shown["training_file"], "ds_train_001");
}

#[test]
fn a_job_that_trains_has_no_result_yet_and_a_failed_one_says_why() {
    let training = value(job::job(&run(json!({"status": {"phase": "Running"}})), &around(vec![])));
    for null in ["fine_tuned_model", "finished_at", "trained_tokens", "error"] {
        assert_eq!(training[null], Value::Null, "{null}");
    }
    let failure =
        json!({"reason": "GpuOutOfMemory", "message": "no memory", "hint": "halve it", "field": "spec.parameters.batch_size"});
    let failed = value(job::job(&run(json!({"status": {"phase": "Failed", "failure": failure}})), &around(vec![])));
    let error = json!({"code": "GpuOutOfMemory", "message": "no memory (halve it)", "param": "spec.parameters.batch_size"});
    assert_eq!(failed["error"], error);
}

#[test]
fn the_model_is_named_as_what_serves_it() {
    let mut served = deployment(300, "Ready");
    served.spec.model_name = Some("llama-support-v1".into());
    let shown = |deployments| value(job::job(&run(json!({})), &around(deployments)))["fine_tuned_model"].clone();
    assert_eq!(shown(vec![served]), "llama-support-v1");
    assert_eq!(shown(vec![deployment(300, "Ready"), deployment(200, "Progressing")]), "bot-step-200", "the best comes first");
}

#[test]
fn every_phase_has_its_word() {
    let words = [
        (Phase::Pending, "validating_files"),
        (Phase::Preparing, "validating_files"),
        (Phase::Queued, "queued"),
        (Phase::Running, "running"),
        (Phase::Pausing, "pausing"),
        (Phase::Paused, "paused"),
        (Phase::Stopping, "running"),
        (Phase::Stopped, "cancelled"),
        (Phase::Succeeded, "succeeded"),
        (Phase::Failed, "failed"),
    ];
    for (phase, word) in words {
        assert_eq!(value(job::status(phase)), word);
    }
}

#[test]
fn a_create_becomes_a_run() {
    let new = asked(json!({
        "suffix": "my-model", "seed": 42, "metadata": {"team": "a"}, "validation_file": "file-v", "integrations": [],
        "hyperparameters": {"n_epochs": "auto", "batch_size": 4},
        "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "learning_rate_multiplier": 1.8}}},
    }))
    .unwrap();
    assert_eq!(new.script, Script::Named("dpo".into()));
    assert_eq!(new.learning_rate_multiplier, Some(json!(1.8)));
    let parameters: Vec<_> = new.parameters.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    assert_eq!(parameters, [("batch_size", json!(4)), ("beta", json!(0.1)), ("n_epochs", json!("auto")), ("seed", json!(42))]);
    assert_eq!(new.auto_deploy.unwrap().checkpoint, DeployWhich::Best);
    assert_eq!(asked(json!({})).unwrap().script, Script::Default);
    assert_eq!(asked(json!({"method": {"type": "supervised"}})).unwrap().script, Script::Preferred("supervised".into()));
    assert!(asked(json!({"integrations": null, "suffix": null, "method": null, "seed": null})).is_ok());
}

#[test]
fn what_lies_outside_the_documented_bounds_names_its_field() {
    let long: std::collections::BTreeMap<String, String> = (0..17).map(|n| (n.to_string(), String::new())).collect();
    let cases = [
        (json!({"hyperparameters": {"batch_size": 257}}), "hyperparameters.batch_size"),
        (json!({"hyperparameters": {"batch_size": 0}}), "hyperparameters.batch_size"),
        (json!({"hyperparameters": {"n_epochs": 1.5}}), "hyperparameters.n_epochs"),
        (json!({"hyperparameters": {"n_epochs": "3"}}), "hyperparameters.n_epochs"),
        (json!({"hyperparameters": {"n_epochs": 51}}), "hyperparameters.n_epochs"),
        (json!({"hyperparameters": {"learning_rate_multiplier": 0}}), "hyperparameters.learning_rate_multiplier"),
        (json!({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 2.1}}}}), "hyperparameters.beta"),
        (json!({"method": {"type": "dpo", "dpo": {"hyperparameters": 3}}}), "method.dpo.hyperparameters"),
        (json!({"integrations": [{"type": "wandb"}]}), "integrations"),
        (json!({"suffix": "a".repeat(65)}), "suffix"),
        (json!({"metadata": long}), "metadata"),
        (json!({"metadata": {"a": "b".repeat(513)}}), "metadata"),
    ];
    for (body, param) in cases {
        let refused = asked(body.clone()).unwrap_err();
        assert_eq!((refused.kind, refused.param.as_deref()), (Kind::BadRequest, Some(param)), "{body}");
    }
    assert!(serde_json::from_value::<CreatePermissions>(json!({"project_ids": ["a"], "more": 1})).is_err());
}

#[test]
fn a_checkpoint_has_every_documented_key_and_keeps_its_own() {
    let documented = json!({
        "object": "fine_tuning.job.checkpoint", "id": "ftckpt_x", "created_at": 1_712_211_699,
        "fine_tuned_model_checkpoint": "ft:x", "fine_tuning_job_id": "ftjob-x", "step_number": 88,
        "metrics": {
            "step": 88, "train_loss": 0.478, "train_mean_token_accuracy": 0.924, "valid_loss": 10.112, "valid_mean_token_accuracy": 0.145,
            "full_valid_loss": 0.567, "full_valid_mean_token_accuracy": 0.944,
        },
    });
    let shown = value(left::checkpoint(&checkpoint(88), "bot"));
    assert_eq!(lacks(&documented, &shown), Vec::<String>::new());
    assert_eq!(shown["metrics"]["train_loss"], json!(0.478));
    assert_eq!(shown["metrics"]["full_valid_loss"], json!(0.567));
    assert_eq!((&shown["metrics"]["grad_norm"], &shown["metrics"]["own"]), (&Value::Null, &json!(1)));
}

#[test]
fn pages_follow_their_cursor() {
    #[derive(Clone, serde::Serialize)]
    struct Item {
        id: String,
    }
    impl Listed for Item {
        fn id(&self) -> &str {
            &self.id
        }
    }
    let items: Vec<Item> = (0..5).map(|n| Item { id: format!("i{n}") }).collect();
    let page = |after, limit| {
        let page = List::after(items.clone(), after, Number::<10, 1>(limit));
        page.map(|page| (page.data.len(), page.data[0].id.clone(), page.has_more))
    };
    assert_eq!(page(None, 2).unwrap(), (2, "i0".into(), true));
    assert_eq!(page(Some("i1"), 3).unwrap(), (3, "i2".into(), false));
    assert_eq!(page(Some("gone"), 3).unwrap_err().param.as_deref(), Some("after"));
    let listed = value(List::new(items, false).with_ends());
    assert_eq!(keys(&listed), ["data", "first_id", "has_more", "last_id", "object"]);
    assert_eq!((&listed["first_id"], &listed["last_id"]), (&json!("i0"), &json!("i4")));
    assert_eq!(value(List::<Item>::new(vec![], false).with_ends())["first_id"], Value::Null);
}
