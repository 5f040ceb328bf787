//! Every sample run, planned in a world where all it names exists: the whole plan, compared with what is on record.
//!
//! `cargo insta review` (or INSTA_UPDATE=always cargo test --test golden) puts a wanted change on record.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{fs, path::Path, sync::Arc};

use finetune_operator::{
    api::{
        BaseModel, Checkpoint, Dataset, FineTune, HardwareProfile, ModelDeployment, Output, ServingRuntime, TrainingRuntime,
        names,
    },
    checkpoint_files::{RealFs, RelPath, inspect_weights},
    plan::{
        Change, Child,
        deployment::{self, ObservedDeployment},
        fine_tune::{ObservedFineTune, plan},
    },
    settings::Settings,
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn settings() -> Settings {
    let output = json!({"volumeTemplate": {"size": "50Gi"}});
    Settings {
        namespace: "finetune-system".into(),
        image: "finetune/operator:golden".into(),
        image_pull_policy: "IfNotPresent".into(),
        report_url: "https://finetune-operator-reports.finetune-system.svc:443".into(),
        report_ca: "-----BEGIN CERTIFICATE-----".into(),
        default_output: serde_json::from_value::<Output>(output).ok(),
        settle_seconds: 10,
        stall_seconds: None,
        divergence_points: Some(3),
        grace_seconds: 600,
        queue_seconds: 30,
        gateway: None,
    }
}

/// All objects of the YAML files below `directory`.
fn objects(directory: &str) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut paths: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let yaml = paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let documents = yaml.flat_map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        text.split("\n---").map(str::to_owned).collect::<Vec<_>>()
    });
    documents.filter_map(|text| serde_saphyr::from_str::<Value>(&text).ok()).filter(Value::is_object).collect()
}

/// The object of a kind that is named, or else marked as default.
fn find<K: DeserializeOwned>(world: &[Value], kind: &str, name: Option<&str>) -> Option<Arc<K>> {
    let is_default = |object: &Value| object["metadata"]["annotations"][names::IS_DEFAULT] == "true";
    let found = world
        .iter()
        .filter(|object| object["kind"] == kind)
        .find(|object| name.map_or_else(|| is_default(object), |name| object["metadata"]["name"] == name))?;
    Some(Arc::new(serde_json::from_value(found.clone()).unwrap()))
}

fn observed(sample: &Value, world: &[Value]) -> ObservedFineTune {
    let mut run: FineTune = serde_json::from_value(sample.clone()).unwrap();
    run.metadata.namespace = Some("team".into());
    run.metadata.uid = Some("0b9f6a1e-0000-0000-0000-000000000001".into());
    run.metadata.generation = Some(1);
    let claim = |name: &str| (name.to_owned(), Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()));
    ObservedFineTune {
        base_model: find::<BaseModel>(world, "BaseModel", Some(&run.spec.base_model.name)),
        dataset: run.spec.dataset.name.as_deref().and_then(|name| find::<Dataset>(world, "Dataset", Some(name))),
        runtime: find::<TrainingRuntime>(
            world,
            "TrainingRuntime",
            run.spec.runtime.as_ref().map(|runtime| runtime.name.as_str()),
        ),
        hardware: find::<HardwareProfile>(world, "HardwareProfile", run.spec.hardware.profile.as_deref()),
        claims: [claim("data"), claim("models")].into(),
        fine_tune: Arc::new(run),
        ..ObservedFineTune::default()
    }
}

fn described(change: &Change) -> Value {
    match change {
        Change::AddFinalizer(name) => json!({"addFinalizer": name}),
        Change::CreateOnce(Child::Job(job)) => json!({"createOnce": readable(serde_json::to_value(job).unwrap())}),
        Change::CreateOnce(Child::Claim(claim)) => json!({"createOnce": claim}),
        Change::CreateOnce(Child::Service(service)) => json!({"createOnce": service}),
        Change::Apply { child: Child::Workload(workload), .. } => {
            json!({"apply": readable(serde_json::to_value(workload).unwrap())})
        }
        Change::Apply { child: Child::Service(service), .. } => json!({"apply": service}),
        Change::Apply { child: Child::Budget(budget), .. } => json!({"apply": budget}),
        other => json!(format!("{other:?}")),
    }
}

/// The configuration of the agent is JSON in an environment variable: shown as what it is.
fn readable(mut job: Value) -> Value {
    let containers = job.pointer_mut("/spec/template/spec/initContainers").and_then(Value::as_array_mut).unwrap();
    for entry in containers.iter_mut().filter_map(|container| container["env"].as_array_mut()).flatten() {
        if let Some(config) = entry["value"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
            entry["value"] = config;
        }
    }
    job
}

#[test]
fn every_sample_run_is_planned_as_on_record() {
    let world: Vec<_> = objects("deploy/base").into_iter().chain(objects("deploy/samples")).collect();
    let samples: Vec<_> = objects("deploy/samples").into_iter().filter(|object| object["kind"] == "FineTune").collect();
    assert!(samples.len() >= 3, "the samples are gone");
    for sample in samples {
        let observed = observed(&sample, &world);
        let plan = plan(&observed, &settings(), Timestamp::UNIX_EPOCH);
        let shown = json!({
            "changes": plan.changes.iter().map(described).collect::<Vec<_>>(),
            "status": plan.status,
            "notices": plan.notices.iter().map(|notice| format!("{}: {}", notice.reason, notice.message)).collect::<Vec<_>>(),
        });
        let settings = insta::Settings::clone_current();
        settings.bind(|| insta::assert_yaml_snapshot!(sample["metadata"]["name"].as_str().unwrap(), shown));
    }
}

/// A sample Checkpoint, ready to be served.
fn ready(sample: &Value, format: &str, status: Value) -> Arc<Checkpoint> {
    let mut checkpoint: Checkpoint = serde_json::from_value(sample.clone()).unwrap();
    checkpoint.metadata.uid = Some("0b9f6a1e-0000-0000-0000-000000000003".into());
    checkpoint.spec.format = serde_json::from_value(json!(format)).unwrap();
    checkpoint.status = Some(serde_json::from_value(status).unwrap());
    Arc::new(checkpoint)
}

fn served(world: &[Value], spec: &Value, checkpoint: Arc<Checkpoint>) -> Value {
    let sample = world.iter().find(|object| object["kind"] == "Deployment" && object["apiVersion"] == "finetune.dev/v1alpha1");
    let mut wanted: ModelDeployment = serde_json::from_value(sample.unwrap().clone()).unwrap();
    wanted.metadata.namespace = Some("team".into());
    wanted.metadata.uid = Some("0b9f6a1e-0000-0000-0000-000000000002".into());
    wanted.metadata.generation = Some(1);
    wanted.spec = serde_json::from_value(spec.clone()).unwrap();
    let all = |kind: &str| world.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
    let claim = |name: &str| (name.to_owned(), Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()));
    let read = |object: Value| Arc::new(serde_json::from_value::<ServingRuntime>(object).unwrap());
    let observed = ObservedDeployment {
        base_model: find::<BaseModel>(world, "BaseModel", Some(&checkpoint.spec.base_model.name)),
        runtimes: all("ServingRuntime").into_iter().map(read).collect(),
        hardware: all("HardwareProfile").into_iter().map(|object| Arc::new(serde_json::from_value(object).unwrap())).collect(),
        claims: [claim("models")].into(),
        checkpoint: Some(checkpoint),
        deployment: Arc::new(wanted),
        ..ObservedDeployment::default()
    };
    let plan = deployment::plan(&observed, &settings(), Timestamp::UNIX_EPOCH);
    json!({"changes": plan.changes.iter().map(described).collect::<Vec<_>>(), "status": plan.status})
}

#[test]
fn an_adapter_on_vllm_and_full_weights_on_a_cpu_are_served_as_on_record() {
    let world: Vec<_> = objects("deploy/base").into_iter().chain(objects("deploy/samples")).collect();
    let sample = world.iter().find(|object| object["kind"] == "Checkpoint").unwrap();
    let adapter = json!({"phase": "Ready", "digest": "sha256:0", "adapter": {"rank": 12, "targetModules": ["q_proj"]}});
    let fast = json!({"checkpoint": {"name": "imported-adapter"}, "type": "fast", "replicas": 2});
    insta::assert_yaml_snapshot!("served-adapter", served(&world, &fast, ready(sample, "Adapter", adapter)));
    let named = json!({"checkpoint": {"name": "imported-adapter"}, "runtime": {"name": "transformers"}, "hardware": {"profile": "cpu-small"}});
    let full = json!({"phase": "Ready", "digest": "sha256:0"});
    insta::assert_yaml_snapshot!("served-model", served(&world, &named, ready(sample, "Model", full)));
}

/// What the server is started with, as the kubelet makes it from command, arguments and environment.
fn command_line(plan: &Value) -> Vec<String> {
    let workload = plan["changes"].as_array().unwrap().iter().find(|change| change["apply"]["kind"] == "Deployment").unwrap();
    let server = &workload["apply"]["spec"]["template"]["spec"]["containers"][0];
    let variables: Vec<_> = server["env"].as_array().unwrap().iter().filter(|variable| variable["value"].is_string()).collect();
    let expanded = |word: &Value| {
        variables.iter().fold(word.as_str().unwrap().to_owned(), |word, variable| {
            word.replace(&format!("$({})", variable["name"].as_str().unwrap()), variable["value"].as_str().unwrap())
        })
    };
    ["command", "args"].iter().flat_map(|part| server[part].as_array().unwrap()).map(expanded).collect()
}

/// What is known of an adapter with these ranks: the one a trainer wrote, with its configuration rewritten.
fn adapter_of(ranks: &Value) -> Value {
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/trl-lora/checkpoint-4");
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(written).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let path = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(ranks.as_object().unwrap().clone());
    config["base_model_name_or_path"] = Value::Null;
    fs::write(&path, config.to_string()).unwrap();
    let found = inspect_weights(&RealFs::new(folder.path()).unwrap(), &RelPath::root(), 4);
    json!({"phase": "Ready", "digest": "sha256:0", "adapter": found.adapter.unwrap()})
}

#[test]
fn vllm_is_started_as_on_record_for_full_weights_and_for_adapters_of_every_kind_of_rank() {
    let world: Vec<_> = objects("deploy/base").into_iter().chain(objects("deploy/samples")).collect();
    let sample = world.iter().find(|object| object["kind"] == "Checkpoint").unwrap();
    let spec = json!({"checkpoint": {"name": "imported-adapter"}, "type": "fast", "modelName": "bot"});
    let command_of = |format: &str, status: Value| command_line(&served(&world, &spec, ready(sample, format, status)));
    let adapter = |ranks: Value| command_of("Adapter", adapter_of(&ranks));
    let all = json!({
        "full-weights": command_of("Model", json!({"phase": "Ready", "digest": "sha256:0"})),
        "adapter-rank-8": adapter(json!({"r": 8})),
        "adapter-rank-17": adapter(json!({"r": 17})),
        "adapter-rank-64": adapter(json!({"r": 64})),
        "adapter-rank-pattern": adapter(json!({"r": 8, "rank_pattern": {"q_proj": 48, "v_proj": 4}})),
    });
    insta::assert_yaml_snapshot!("vllm-arguments", all);
}
