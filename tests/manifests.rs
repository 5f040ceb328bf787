//! What ships as YAML is valid: the catalogue and the samples fit their schemas and rules, and the samples fit the catalogue.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use finetune_operator::api::{self, FineTuneSpec, TrainingRuntimeSpec};
use kube::core::cel::Validator;
use serde_json::Value;

struct Object {
    kind: String,
    name: String,
    whole: Value,
}

fn objects(path: &Path) -> Vec<Object> {
    let text = std::fs::read_to_string(path).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let object = |whole: Value| Object {
        kind: whole["kind"].as_str().unwrap().into(),
        name: whole["metadata"]["name"].as_str().unwrap().into(),
        whole,
    };
    documents.into_iter().map(object).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn catalogue() -> Vec<Object> {
    objects(&root().join("deploy/base/catalogue.yaml"))
}

fn samples() -> Vec<Object> {
    let mut files: Vec<_> =
        std::fs::read_dir(root().join("deploy/samples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().filter(|path| path.extension().is_some_and(|end| end == "yaml")).flat_map(|path| objects(path)).collect()
}

fn schemas() -> BTreeMap<String, Value> {
    let definitions = api::definitions();
    let schema = |definition: &_| {
        let value = serde_json::to_value(definition).unwrap();
        value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    };
    definitions.iter().map(|definition| (definition.spec.names.kind.clone(), schema(definition))).collect()
}

/// Fields the server would drop, since the schema does not know them.
fn unknown(path: &str, schema: &Value, value: &Value, found: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    match value {
        Value::Object(entries) => {
            for (key, entry) in entries {
                let child = schema["properties"].get(key).or_else(|| schema.get("additionalProperties"));
                let path = format!("{path}.{key}");
                match child {
                    Some(child) => unknown(&path, child, entry, found),
                    None => found.push(path),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| unknown(path, &schema["items"], item, found)),
        _ => {}
    }
}

#[test]
fn every_shipped_object_fits_its_schema_and_its_rules() {
    let schemas = schemas();
    for object in catalogue().iter().chain(&samples()) {
        let schema = &schemas[&object.kind];
        let mut dropped = Vec::new();
        unknown("spec", &schema["properties"]["spec"], &object.whole["spec"], &mut dropped);
        assert!(dropped.is_empty(), "{} {}: unknown {dropped:?}", object.kind, object.name);
        let verdict = jsonschema::validator_for(&schema["properties"]["spec"]).unwrap();
        let errors: Vec<String> = verdict.iter_errors(&object.whole["spec"]).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{} {}: {errors:?}", object.kind, object.name);
        let rules = Validator::new().validate_with_defaults(schema, &object.whole, None);
        assert!(rules.is_ok(), "{} {}: {rules:?}", object.kind, object.name);
    }
}

#[test]
fn the_catalogue_has_one_default_runtime_profile_and_server() {
    for kind in ["TrainingRuntime", "HardwareProfile", "ServingRuntime"] {
        let defaults = catalogue()
            .into_iter()
            .filter(|object| object.kind == kind && object.whole["metadata"]["annotations"][api::names::IS_DEFAULT] == "true");
        assert_eq!(defaults.count(), 1, "{kind}");
    }
}

#[test]
fn defaults_and_samples_satisfy_the_parameters_schema_of_their_runtime() {
    let runtimes: BTreeMap<String, TrainingRuntimeSpec> = catalogue()
        .into_iter()
        .filter(|object| object.kind == "TrainingRuntime")
        .map(|object| (object.name, serde_json::from_value(object.whole["spec"].clone()).unwrap()))
        .collect();
    let check = |runtime: &TrainingRuntimeSpec, given: &BTreeMap<String, Value>, name: &str| {
        let schema = serde_json::to_value(&runtime.parameters.schema).unwrap();
        let mut merged = runtime.parameters.defaults.clone();
        merged.extend(given.clone());
        let instance = serde_json::to_value(merged).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> = validator.iter_errors(&instance).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    };
    for (name, runtime) in &runtimes {
        check(runtime, &BTreeMap::new(), name);
        let properties = runtime.parameters.schema["properties"].as_object().unwrap();
        for ours in runtime.parameters.basic.iter().chain(runtime.parameters.rename.keys()) {
            assert!(properties.contains_key(ours), "{name} does not describe {ours}");
        }
    }
    for sample in samples().into_iter().filter(|object| object.kind == "FineTune") {
        let spec: FineTuneSpec = serde_json::from_value(sample.whole["spec"].clone()).unwrap();
        let runtime = spec.runtime.map_or_else(|| "trl-sft".to_owned(), |runtime| runtime.name);
        check(&runtimes[&runtime], &spec.parameters, &sample.name);
    }
}

#[test]
fn samples_name_only_what_the_catalogue_has() {
    let known: Vec<(String, String)> = catalogue().into_iter().map(|object| (object.kind, object.name)).collect();
    let has =
        |kind: &str, name: &Value| name.as_str().is_none_or(|name| known.iter().any(|known| known.0 == kind && known.1 == name));
    for sample in samples() {
        let spec = &sample.whole["spec"];
        assert!(has("BaseModel", &spec["baseModel"]["name"]), "{}", sample.name);
        let runtime = if sample.kind == "Deployment" { "ServingRuntime" } else { "TrainingRuntime" };
        assert!(has(runtime, &spec["runtime"]["name"]), "{}", sample.name);
        assert!(has("HardwareProfile", &spec["hardware"]["profile"]), "{}", sample.name);
    }
}
