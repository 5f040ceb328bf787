//! Every CEL rule accepts what it should and refuses what it should, judged in process. The cases lie in `cel_cases.yaml`,
//! so that the same ones can be put to a real API server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use finetune_operator::api;
use kube::core::cel::{ValidationErrors, Validator};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    kind: String,
    rule: String,
    verdict: Verdict,
    old: Option<Value>,
    object: Value,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Accept,
    Refuse,
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("cel_cases.yaml")).unwrap();
    cases
        .into_iter()
        .map(|case| Case { object: whole(&case.kind, &case.object), old: case.old.map(|old| whole(&case.kind, &old)), ..case })
        .collect()
}

fn whole(kind: &str, object: &Value) -> Value {
    let mut whole = json!({"apiVersion": "finetune.dev/v1alpha1", "kind": kind});
    for (key, value) in object.as_object().unwrap() {
        whole[key] = value.clone();
    }
    whole
}

fn schemas() -> BTreeMap<String, Value> {
    let definitions = api::definitions();
    let schema = |definition: &_| {
        let value = serde_json::to_value(definition).unwrap();
        value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    };
    definitions.iter().map(|definition| (definition.spec.names.kind.clone(), schema(definition))).collect()
}

/// Messages of the rules an object breaks by the published schema, defaults applied as the server does.
fn broken_by_schema(schema: &Value, case: &Case) -> Vec<String> {
    messages(Validator::new().validate_with_defaults(schema, &case.object, case.old.as_ref()))
}

/// Messages of the rules an object breaks once it was read into its type.
fn broken_by_type(case: &Case) -> Vec<String> {
    macro_rules! judge {
        ($($kind:literal => $type:ident),+ $(,)?) => {
            match case.kind.as_str() {
                $($kind => {
                    let object: api::$type = serde_json::from_value(case.object.clone()).unwrap();
                    match &case.old {
                        None => object.validate_cel(),
                        Some(old) => object.validate_cel_update(&serde_json::from_value(old.clone()).unwrap()),
                    }
                })+
                other => panic!("no type for kind {other}"),
            }
        };
    }
    messages(judge! {
        "FineTune" => FineTune,
        "Checkpoint" => Checkpoint,
        "Deployment" => ModelDeployment,
        "CheckpointPermission" => CheckpointPermission,
        "Dataset" => Dataset,
        "BaseModel" => BaseModel,
        "TrainingRuntime" => TrainingRuntime,
        "ServingRuntime" => ServingRuntime,
    })
}

fn messages(verdict: Result<(), ValidationErrors>) -> Vec<String> {
    let errors = verdict.err().map(ValidationErrors::into_vec).unwrap_or_default();
    errors.into_iter().map(|error| error.message).collect()
}

fn rules_of(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(entries) => {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                found.insert(rule["message"].as_str().unwrap().to_owned());
            }
            entries.values().for_each(|entry| rules_of(entry, found));
        }
        Value::Array(items) => items.iter().for_each(|item| rules_of(item, found)),
        _ => {}
    }
}

#[test]
fn every_case_gets_its_verdict_from_schema_and_type_alike() {
    let schemas = schemas();
    for case in cases() {
        let expected = if case.verdict == Verdict::Refuse { vec![case.rule.clone()] } else { Vec::new() };
        let described = || format!("{} of {}, old {:?}", case.object, case.kind, case.old);
        assert_eq!(broken_by_schema(&schemas[&case.kind], &case), expected, "schema: {}", described());
        assert_eq!(broken_by_type(&case), expected, "type: {}", described());
    }
}

#[test]
fn every_rule_has_an_accepting_and_a_refusing_case() {
    let tried: BTreeSet<(String, Verdict)> = cases().into_iter().map(|case| (case.rule, case.verdict)).collect();
    let mut rules = BTreeSet::new();
    for schema in schemas().values() {
        rules_of(schema, &mut rules);
    }
    for verdict in [Verdict::Accept, Verdict::Refuse] {
        for rule in &rules {
            assert!(tried.contains(&(rule.clone(), verdict)), "no case to {verdict:?}: {rule}");
        }
    }
    for (rule, _) in &tried {
        assert!(rules.contains(rule), "no such rule: {rule}");
    }
}
