//! Bad inputs: each is refused, or told in a condition that names the field and the remedy; none makes a Job. And what waits for something
//! missing starts when it comes, without an edit.

use k8s_openapi::api::core::v1 as corev1;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use finetune_operator::api::{BaseModel, Dataset, FineTune, FineTunePhase, HardwareProfile, TrainingRuntime, condition};

use crate::harness::{
    Agent, Sandbox,
    cluster::{put, runtime},
    in_sandbox,
    sandbox::message,
};

/// A run with `changes` says `reason`, and its message holds all of `words`; it is stalled if only an edit helps, else it waits.
async fn is_told(sandbox: &Sandbox, changes: Value, reason: &str, words: &[&str], stalled: bool) -> FineTune {
    sandbox.run("bot", changes).await;
    let run = sandbox.until_reason("bot", reason).await;
    let message = message(&run);
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
    let status = run.status.clone().unwrap();
    let found = if stalled { condition::STALLED } else { condition::RECONCILING };
    assert!(condition::is_true(&status.conditions, found), "{:?}", status.conditions);
    assert_eq!(status.phase, FineTunePhase::Pending);
    assert_eq!((sandbox.jobs(&run).await, status.attempt), (vec![], 0));
    run
}

/// A run starts, though nobody touches it.
async fn starts(sandbox: &Sandbox, run: &FineTune) {
    Agent::training(sandbox, run, 1).await;
    let run = sandbox.until_phase("bot", FineTunePhase::Running).await;
    assert_eq!(run.metadata.generation, Some(1), "it was edited");
}

/// Removes an object without namespace that a test has made.
async fn remove<K>(sandbox: &Sandbox, name: &str)
where
    K: crate::harness::wait::Object,
{
    Api::<K>::all(sandbox.client.clone()).delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_unknown_base_model_is_waited_for() {
    in_sandbox(|sandbox| async move {
        let name = sandbox.namespace.clone();
        let words = ["spec.baseModel.name", &name, "create it", "kubectl get basemodels"];
        let run = is_told(&sandbox, json!({"baseModel": {"name": name}}), "BaseModelNotFound", &words, false).await;
        put::<BaseModel>(&sandbox.client, &name, json!({"source": {"huggingFace": {"repo": "org/tiny"}}})).await;
        starts(&sandbox, &run).await;
        remove::<BaseModel>(&sandbox, &name).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_unknown_runtime_is_waited_for() {
    in_sandbox(|sandbox| async move {
        let name = sandbox.namespace.clone();
        let words = ["spec.runtime.name", &name, "create it", "kubectl get trainingruntimes"];
        let run = is_told(&sandbox, json!({"runtime": {"name": name}}), "RuntimeNotFound", &words, false).await;
        put::<TrainingRuntime>(&sandbox.client, &name, runtime()).await;
        starts(&sandbox, &run).await;
        remove::<TrainingRuntime>(&sandbox, &name).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_unknown_hardware_profile_is_waited_for() {
    in_sandbox(|sandbox| async move {
        let name = sandbox.namespace.clone();
        let words = ["spec.hardware.profile", &name, "create it", "kubectl get hardwareprofiles"];
        let run = is_told(&sandbox, json!({"hardware": {"profile": name}}), "HardwareNotFound", &words, false).await;
        put::<HardwareProfile>(&sandbox.client, &name, json!({"gpu": {"count": 0}})).await;
        starts(&sandbox, &run).await;
        remove::<HardwareProfile>(&sandbox, &name).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_unknown_dataset_is_waited_for() {
    in_sandbox(|sandbox| async move {
        let words = ["spec.dataset.name", "rows", "create it", "kubectl get datasets"];
        let run = is_told(&sandbox, json!({"dataset": {"name": "rows"}}), "DatasetNotFound", &words, false).await;
        let spec = json!({"training": {"huggingFace": {"repo": "org/rows"}}});
        sandbox.create::<Dataset>(json!({"metadata": {"name": "rows"}, "spec": spec})).await;
        starts(&sandbox, &run).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_missing_claim_is_waited_for_wherever_it_is_named() {
    in_sandbox(|sandbox| async move {
        let changes = json!({
            "dataset": {"training": {"volume": {"claimName": "rows", "path": "train.jsonl"}}},
            "output": {"volume": {"claimName": "results"}},
        });
        let words = ["spec.dataset.training", "\"rows\"", "spec.output.volume.claimName", "\"results\"", "create it"];
        let run = is_told(&sandbox, changes, "ClaimNotFound", &words, false).await;
        sandbox.claim("rows").await;
        sandbox.claim("results").await;
        starts(&sandbox, &run).await;
        let claims: Api<corev1::PersistentVolumeClaim> = sandbox.api();
        assert!(claims.get("rows").await.unwrap().metadata.owner_references.is_none(), "the user's claim stays the user's");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_parameter_of_the_wrong_type_is_named_and_mended_by_an_edit() {
    in_sandbox(|sandbox| async move {
        let words = ["spec.parameters", "/learning_rate", "number", "it-sft"];
        let changes = json!({"parameters": {"learning_rate": "fast"}});
        let run = is_told(&sandbox, changes, "InvalidParameters", &words, true).await;
        let failure = run.status.clone().unwrap().failure.unwrap();
        assert_eq!((failure.field.as_deref(), failure.user_error), (Some("spec.parameters"), true));
        sandbox.edit("bot", json!({"parameters": {"learning_rate": 0.1}})).await.unwrap();
        let run = sandbox.until_phase("bot", FineTunePhase::Running).await;
        assert_eq!(run.status.unwrap().failure, None);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_parameter_that_is_missing_is_named() {
    in_sandbox(|sandbox| async move {
        let name = sandbox.namespace.clone();
        let mut strict = runtime();
        strict["parameters"]["defaults"] = json!({});
        put::<TrainingRuntime>(&sandbox.client, &name, strict).await;
        let words = ["spec.parameters", "learning_rate", "required", &name];
        is_told(&sandbox, json!({"runtime": {"name": name}}), "InvalidParameters", &words, true).await;
        remove::<TrainingRuntime>(&sandbox, &name).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_runtime_whose_schema_is_invalid_is_told_and_waited_for() {
    in_sandbox(|sandbox| async move {
        let name = sandbox.namespace.clone();
        let mut broken = runtime();
        broken["parameters"]["schema"]["properties"]["learning_rate"]["type"] = "decimal".into();
        put::<TrainingRuntime>(&sandbox.client, &name, broken).await;
        let words = ["spec.runtime.name", &name, "spec.parameters.schema must be mended"];
        let run = is_told(&sandbox, json!({"runtime": {"name": name}}), "RuntimeInvalid", &words, false).await;
        let runtimes: Api<TrainingRuntime> = Api::all(sandbox.client.clone());
        let mended = Patch::Merge(json!({"spec": runtime()}));
        runtimes.patch(&name, &PatchParams::default(), &mended).await.unwrap();
        starts(&sandbox, &run).await;
        remove::<TrainingRuntime>(&sandbox, &name).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn everything_that_is_wrong_is_told_at_once() {
    in_sandbox(|sandbox| async move {
        let changes = json!({
            "baseModel": {"name": "no-such-model"},
            "hardware": {"profile": "no-such-profile"},
            "parameters": {"learning_rate": "fast"},
        });
        let words = ["spec.baseModel.name", "spec.hardware.profile", "spec.parameters"];
        is_told(&sandbox, changes, "InvalidParameters", &words, true).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn what_can_never_be_right_is_refused_by_the_api_server() {
    in_sandbox(|sandbox| async move {
        let long = "a".repeat(41);
        let two = json!({"huggingFace": {"repo": "org/rows"}, "volume": {"claimName": "models", "path": "rows"}});
        let cases = [
            (long.as_str(), json!({}), "metadata.name must be at most 40 characters"),
            ("bot", json!({"dataset": {"training": two}}), "give exactly one of volume, objectStore and huggingFace"),
            (
                "bot",
                json!({"output": {"volume": {"claimName": "a"}, "volumeTemplate": {"size": "1Gi"}}}),
                "give exactly one of volume",
            ),
            ("bot", json!({"hardware": {"nodes": 100_000}}), "spec.hardware.nodes"),
            ("bot", json!({"retries": -1}), "spec.retries"),
            ("bot", json!({"baseModel": null}), "spec.baseModel"),
        ];
        for (name, changes, words) in cases {
            let refusal = sandbox.try_run(name, changes.clone()).await.unwrap_err().to_string();
            assert!(refusal.contains(words), "{changes}: {refusal}");
        }
        let profile = json!({"apiVersion": "finetune.dev/v1alpha1", "kind": "HardwareProfile", "metadata": {"name": "huge"},
            "spec": {"gpu": {"count": 10_000}}});
        let profiles: Api<HardwareProfile> = Api::all(sandbox.client.clone());
        let params = PatchParams::apply("integration-tests");
        let refusal = profiles.patch("huge", &params, &Patch::Apply(profile)).await.unwrap_err().to_string();
        assert!(refusal.contains("spec.gpu.count"), "{refusal}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn more_gpus_than_any_node_has_are_told_as_the_scheduler_says_it() {
    in_sandbox(|sandbox| async move {
        let name = sandbox.namespace.clone();
        put::<HardwareProfile>(&sandbox.client, &name, json!({"gpu": {"count": 64}})).await;
        sandbox.run("bot", json!({"hardware": {"profile": name}})).await;
        let run = sandbox.until_reason("bot", "Unschedulable").await;
        assert!(message(&run).contains("Insufficient nvidia.com/gpu"), "{}", message(&run));
        assert_eq!(run.status.unwrap().phase, FineTunePhase::Queued);
        remove::<HardwareProfile>(&sandbox, &name).await;
    })
    .await;
}
