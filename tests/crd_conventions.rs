//! The conventions every schema of ours keeps: described, bounded, free of floats and nulls, with rules the server can afford.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;

use finetune_operator::api;
use kube::core::cel::{compile_schema, estimate_rule_cost};
use serde_json::Value;

/// Fields whose contents are types of Kubernetes itself.
const UPSTREAM: &[&str] = &["env", "envFrom", "imagePullSecrets", "resources", "securityContext", "tolerations"];

struct Node<'a> {
    path: String,
    schema: &'a Value,
}

impl Node<'_> {
    fn is(&self, kind: &str) -> bool {
        self.schema["type"] == kind
    }

    fn has(&self, key: &str) -> bool {
        self.schema.get(key).is_some()
    }
}

fn schemas() -> Vec<(String, Value)> {
    let definitions = api::definitions();
    let schema = |definition: &_| {
        let value = serde_json::to_value(definition).unwrap();
        value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    };
    definitions.iter().map(|definition| (definition.spec.names.kind.clone(), schema(definition))).collect()
}

fn walk<'a>(path: &str, schema: &'a Value, ours_alone: bool, visit: &mut dyn FnMut(&Node<'a>)) {
    visit(&Node { path: path.into(), schema });
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let upstream = ours_alone && UPSTREAM.contains(&name.as_str());
        let path = format!("{path}.{name}");
        if upstream {
            visit(&Node { path, schema: property });
        } else {
            walk(&path, property, ours_alone, visit);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(key).filter(|child| child.is_object()) {
            walk(&format!("{path}[]"), child, ours_alone, visit);
        }
    }
}

/// Every node of ours for which `complaint` has something to say.
fn complaints(ours_alone: bool, complaint: impl Fn(&Node<'_>) -> Option<&'static str>) -> String {
    let mut text = String::new();
    for (kind, schema) in schemas() {
        walk(&kind, &schema, ours_alone, &mut |node| {
            if let Some(words) = complaint(node) {
                writeln!(text, "{}: {words}", node.path).unwrap();
            }
        });
    }
    text
}

#[test]
fn every_property_is_described_by_a_sentence() {
    let found = complaints(true, |node| {
        let words = node.schema["description"].as_str().unwrap_or_default();
        let is_property = !node.path.ends_with("[]");
        (is_property && !(words.len() >= 10 && (words.ends_with('.') || words.ends_with(')')))).then_some("no description")
    });
    assert_eq!(found, "");
}

#[test]
fn a_description_begins_with_the_name_of_its_field() {
    let found = complaints(true, |node| {
        let (_, field) = node.path.rsplit_once('.')?;
        let is_root = ["spec", "status"].contains(&field) && node.path.matches('.').count() == 1;
        let words = node.schema["description"].as_str().unwrap_or_default();
        let exempt = is_root || field.ends_with("[]");
        (!exempt && !words.starts_with(field)).then_some("description does not begin with its name")
    });
    assert_eq!(found, "");
}

#[test]
fn no_schema_holds_a_null_a_float_or_an_unsigned_integer() {
    let found = complaints(false, |node| {
        let null = node.has("nullable") || node.schema["enum"].as_array().is_some_and(|values| values.contains(&Value::Null));
        let format = node.schema["format"].as_str().unwrap_or_default();
        match () {
            () if null => Some("null is a value"),
            () if node.is("number") || ["float", "double"].contains(&format) => Some("a float"),
            () if format.starts_with("uint") => Some("an unsigned integer"),
            () => None,
        }
    });
    assert_eq!(found, "");
}

#[test]
fn every_list_has_a_type_and_every_list_of_ours_a_length() {
    assert_eq!(complaints(false, |node| (node.is("array") && !node.has("x-kubernetes-list-type")).then_some("no list type")), "");
    assert_eq!(complaints(true, |node| (node.is("array") && !node.has("maxItems")).then_some("no maxItems")), "");
}

#[test]
fn every_string_and_map_of_ours_is_bounded() {
    let found = complaints(true, |node| {
        let bounded = ["maxLength", "enum", "format", "x-kubernetes-int-or-string"].iter().any(|key| node.has(key));
        let map = node.has("additionalProperties") || node.has("x-kubernetes-preserve-unknown-fields");
        match () {
            () if node.is("string") && !bounded => Some("no maxLength"),
            () if map && !node.has("maxProperties") => Some("no maxProperties"),
            () => None,
        }
    });
    let ours: Vec<&str> = found.lines().filter(|line| !line.contains(".resources")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn every_node_has_a_type_as_a_structural_schema_needs() {
    let free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
    let found = complaints(false, |node| (!node.has("type") && !free.iter().any(|key| node.has(key))).then_some("no type"));
    assert_eq!(found, "");
}

#[test]
fn every_printed_and_selectable_path_exists_in_the_schema() {
    for definition in api::definitions() {
        let version = serde_json::to_value(definition.spec.versions.first().unwrap()).unwrap();
        let schema = &version["schema"]["openAPIV3Schema"];
        let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        for path in columns.chain(selectable).filter_map(|column| column["jsonPath"].as_str()) {
            if path.starts_with(".metadata.") {
                continue;
            }
            let mut node = schema;
            for part in path.trim_start_matches('.').split('.') {
                node = node["properties"].get(part).unwrap_or_else(|| &node["additionalProperties"]);
            }
            assert!(node.is_object(), "{} shows {path}, which its schema does not have", definition.spec.names.kind);
        }
    }
}

#[test]
fn every_rule_compiles_and_its_cost_is_bounded() {
    let mut rules = 0;
    for (kind, schema) in schemas() {
        walk(&kind, &schema, false, &mut |node| {
            let compiled = compile_schema(node.schema);
            assert!(!compiled.has_errors(), "{}: {:?}", node.path, compiled.compilation_errors());
            for rule in node.schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let warnings = estimate_rule_cost(rule["rule"].as_str().unwrap(), &compiled);
                assert!(warnings.is_empty(), "{}: {warnings:?}", node.path);
                assert!(rule["message"].as_str().is_some_and(|words| words.len() > 10), "{}: no message", node.path);
                rules += 1;
            }
        });
    }
    assert!(rules > 20, "only {rules} rules were found");
}

#[test]
fn a_default_object_of_every_kind_serializes_without_null() {
    fn assert_no_null(kind: &str, value: &Value) {
        match value {
            Value::Null => panic!("{kind} writes null"),
            Value::Array(items) => items.iter().for_each(|item| assert_no_null(kind, item)),
            Value::Object(entries) => entries.values().for_each(|entry| assert_no_null(kind, entry)),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    macro_rules! check {
        ($($kind:ident: $($part:ident),+);+ $(;)?) => {
            $($(assert_no_null(stringify!($part), &serde_json::to_value(api::$part::default()).unwrap());)+)+
        };
    }
    check! {
        FineTune: FineTuneSpec, FineTuneStatus, TrainerOverrides, Output, Resolved, Attempt, Progress, QueueStatus, Cost, Failure;
        Checkpoint: CheckpointSpec, CheckpointStatus, AdapterFacts;
        ModelDeployment: ModelDeploymentSpec, ModelDeploymentStatus;
        CheckpointPermission: CheckpointPermissionSpec, CheckpointPermissionStatus;
        FineTuneHistory: FineTuneHistorySpec, HistoryEvent, Series, AttemptLog;
        Dataset: DatasetSpec, Source;
        BaseModel: BaseModelSpec;
        TrainingRuntime: TrainingRuntimeSpec, Parameters, Bindings;
        ServingRuntime: ServingRuntimeSpec, AdapterServing, ModelServing, Readiness, Container;
        HardwareProfile: HardwareProfileSpec, Gpu;
    }
}

#[test]
fn a_budget_that_cannot_be_read_is_refused() {
    let (_, schema) = schemas().into_iter().find(|(kind, _)| kind == "FineTune").unwrap();
    let budget = jsonschema::validator_for(&schema["properties"]["spec"]["properties"]["budget"]).unwrap();
    for (field, good, bad) in [
        ("maxCost", vec!["0", "25", "25.00"], vec!["", "ten", "-1", "1e3", "1.", "25 USD", "1234567890123456789012345"]),
        ("maxDuration", vec!["6h", "90m", "1h30m", "5s"], vec!["", "6", "1.5h", "-1h", "1m1h", "6 h", "1d"]),
    ] {
        for text in good {
            assert!(budget.is_valid(&serde_json::json!({field: text})), "{field}: {text:?} is refused");
        }
        for text in bad {
            assert!(!budget.is_valid(&serde_json::json!({field: text})), "{field}: {text:?} is accepted");
        }
    }
}
