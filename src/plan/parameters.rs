//! The parameters of a script: checked against its JSON Schema, completed and renamed. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Problem;
use crate::api::Parameters;

/// Most errors named at once.
const MOST_ERRORS: usize = 10;

/// The parameters under the script's names: the runtime's defaults, over them the user's, each renamed.
///
/// # Errors
/// Every violation of the schema with its JSON pointer, or what is wrong with the schema itself.
pub fn resolve(
    given: &BTreeMap<String, Value>,
    runtime: &str,
    parameters: &Parameters,
) -> Result<BTreeMap<String, Value>, Problem> {
    let mut merged = parameters.defaults.clone();
    merged.extend(given.iter().map(|(key, value)| (key.clone(), value.clone())));
    check(&merged, runtime, parameters)?;
    Ok(merged.into_iter().map(|(key, value)| (parameters.rename.get(&key).cloned().unwrap_or(key), value)).collect())
}

fn check(merged: &BTreeMap<String, Value>, runtime: &str, parameters: &Parameters) -> Result<(), Problem> {
    let schema = Value::Object(parameters.schema.clone().into_iter().collect());
    let validator = jsonschema::validator_for(&schema).map_err(|error| Problem {
        reason: "RuntimeInvalid",
        field: "spec.runtime.name".into(),
        message: format!(
            "the JSON Schema of TrainingRuntime {runtime:?} is not valid ({error}): its spec.parameters.schema must be mended"
        ),
        waits: true,
    })?;
    let instance = Value::Object(merged.clone().into_iter().collect());
    let errors: Vec<String> = validator
        .iter_errors(&instance)
        .take(MOST_ERRORS)
        .map(|error| {
            let pointer = error.instance_path().to_string();
            format!("{}: {error}", if pointer.is_empty() { "/" } else { &pointer })
        })
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(Problem {
        reason: "InvalidParameters",
        field: "spec.parameters".into(),
        message: format!("refused by the schema of TrainingRuntime {runtime:?}: {}", errors.join("; ")),
        waits: false,
    })
}

/// SHA-256 of the parameters, as `sha256:<hex>`.
#[must_use]
pub fn digest(parameters: &BTreeMap<String, Value>) -> String {
    let text = serde_json::to_string(parameters).unwrap_or_default();
    let sum = Sha256::digest(text.as_bytes());
    sum.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// The seed of a run that names none: drawn from its uid, so that every attempt has the same.
#[must_use]
pub fn seed(uid: &str) -> i64 {
    let sum = Sha256::digest(uid.as_bytes());
    i64::from(u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]) >> 1)
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "test data reads better by value")]
mod tests {
    use serde_json::json;

    use super::*;

    fn runtime(schema: Value) -> Parameters {
        serde_json::from_value(json!({
            "schema": schema,
            "defaults": {"epochs": 3},
            "rename": {"epochs": "num_train_epochs"}
        }))
        .unwrap()
    }

    fn given(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_user_wins_over_defaults_and_names_are_the_scripts() {
        let out = resolve(&given(json!({"epochs": 5, "x": 0.1})), "r", &runtime(json!({"type": "object"}))).unwrap();
        assert_eq!(out, given(json!({"num_train_epochs": 5, "x": 0.1})));
    }

    #[test]
    fn every_error_has_its_pointer() {
        let schema = json!({"properties": {"epochs": {"type": "integer"}, "lr": {"type": "number"}}, "required": ["must"]});
        let problem = resolve(&given(json!({"epochs": "x", "lr": true})), "r", &runtime(schema)).unwrap_err();
        assert_eq!(problem.reason, "InvalidParameters");
        for part in ["/epochs:", "/lr:", "must"] {
            assert!(problem.message.contains(part), "{part} missing in {}", problem.message);
        }
    }

    #[test]
    fn a_broken_schema_is_the_runtimes_fault() {
        let problem = resolve(&given(json!({})), "r", &runtime(json!({"type": "no-such-type"}))).unwrap_err();
        assert_eq!((problem.reason, problem.waits), ("RuntimeInvalid", true));
    }
}
