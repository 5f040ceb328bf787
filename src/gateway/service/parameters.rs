//! Training parameters under the many names the API documents have for them. Pure.

use std::collections::BTreeMap;
use std::str::FromStr;

use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde_json::Value;

use crate::api::{Parameters, TrainingRuntime};

/// Our name, and what else it is called.
const ALIASES: &[(&str, &[&str])] = &[
    ("epochs", &["n_epochs", "num_epochs", "num_train_epochs", "numEpochs", "nEpochs"]),
    ("max_steps", &["steps", "maxSteps"]),
    ("learning_rate", &["learningRate"]),
    ("batch_size", &["batchSize", "per_device_train_batch_size"]),
    (
        "grad_accum",
        &["gradient_accumulation", "gradient_accumulation_steps", "gradientAccumulation", "gradientAccumulationSteps"],
    ),
    ("warmup_steps", &["warmupSteps"]),
    ("weight_decay", &["weightDecay"]),
    ("seq_length", &["max_seq_length", "seqLength", "maxSeqLength", "maxSequenceLength"]),
    ("use_lora", &["useLora"]),
    ("lora_rank", &["loraRank", "lora_r"]),
    ("lora_alpha", &["loraAlpha"]),
    ("lora_dropout", &["loraDropout"]),
    ("save_steps", &["save_steps_ratio", "saveSteps"]),
    ("save_strategy", &["saveStrategy"]),
    ("logging_steps", &["loggingSteps"]),
    ("eval_steps", &["evalSteps"]),
];

/// Values by name.
pub type Values = BTreeMap<String, Value>;

/// The values under our names. What the runtime itself knows keeps its name, and so does what nobody knows; null and `"auto"` say nothing.
///
/// # Errors
/// The names that mean the same and have different values.
pub fn canonical(given: Values, runtime: &Parameters) -> Result<Values, String> {
    let mut said: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for (key, value) in given {
        if value.is_null() || value == "auto" {
            continue;
        }
        let ours = if is_known(&key, runtime) { key.clone() } else { canonical_name(&key).to_owned() };
        match said.get(&ours) {
            Some((other, before)) if *before != value => {
                return Err(format!("{other} and {key} mean the same and have different values: give one of them"));
            }
            Some(_) => {}
            None => drop(said.insert(ours, (key, value))),
        }
    }
    Ok(said.into_iter().map(|(ours, (_, value))| (ours, value)).collect())
}

/// Whether the runtime itself speaks of a parameter.
#[must_use]
pub fn is_known(key: &str, runtime: &Parameters) -> bool {
    let described = runtime.schema.get("properties").and_then(|properties| properties.get(key)).is_some();
    described || runtime.defaults.contains_key(key) || runtime.rename.contains_key(key)
}

fn canonical_name(key: &str) -> &str {
    ALIASES.iter().find(|(_, others)| others.contains(&key)).map_or(key, |(ours, _)| ours)
}

/// The value a run trains with: its own, or the runtime's default.
#[must_use]
pub fn value<'a>(given: &'a Values, runtime: Option<&'a TrainingRuntime>, name: &str) -> Option<&'a Value> {
    given.get(name).or_else(|| runtime?.spec.parameters.defaults.get(name))
}

/// A number as an exact decimal.
#[must_use]
pub fn decimal(value: &Value) -> Option<Decimal> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    Decimal::from_str(&text).or_else(|_| Decimal::from_scientific(&text)).ok()
}

/// A decimal as a JSON number; null where it is none, for instance `nan`.
#[must_use]
pub fn number(text: &str) -> Value {
    let decimal = Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text)).ok();
    decimal.map_or_else(|| text.parse::<f64>().map_or(Value::Null, Value::from), of_decimal)
}

/// An exact decimal as a JSON number: an integer where it is one.
#[must_use]
pub fn of_decimal(decimal: Decimal) -> Value {
    let decimal = decimal.normalize();
    decimal
        .is_integer()
        .then(|| decimal.to_i64())
        .flatten()
        .map_or_else(|| decimal.to_f64().map_or(Value::Null, Value::from), Value::from)
}

/// The default learning rate of the runtime, times `multiplier`.
///
/// # Errors
/// The runtime has no default, or the product is no number.
pub fn multiplied(multiplier: &Value, runtime: &TrainingRuntime) -> Result<Value, String> {
    let name = runtime.metadata.name.as_deref().unwrap_or_default();
    let default = runtime.spec.parameters.defaults.get("learning_rate").and_then(decimal);
    let default = default
        .ok_or_else(|| format!("TrainingRuntime {name:?} has no default learning_rate to multiply: give learning_rate"))?;
    let factor = decimal(multiplier).ok_or("a multiplier is a number")?;
    default.checked_mul(factor).map(of_decimal).ok_or_else(|| "the learning rate would be no number".to_owned())
}

/// What the learning rate of a run is to the default of its runtime.
#[must_use]
pub fn multiplier(given: &Values, runtime: Option<&TrainingRuntime>) -> Option<Value> {
    let rate = given.get("learning_rate").and_then(decimal)?;
    let default = runtime?.spec.parameters.defaults.get("learning_rate").and_then(decimal)?;
    rate.checked_div(default).map(of_decimal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(value: Value) -> Values {
        serde_json::from_value(value).unwrap()
    }

    fn runtime(parameters: &Value) -> TrainingRuntime {
        let spec = json!({"image": "i", "command": ["c"], "parameters": parameters});
        let object =
            json!({"apiVersion": "finetune.dev/v1alpha1", "kind": "TrainingRuntime", "metadata": {"name": "r"}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn each_documented_name_finds_ours_and_unknown_ones_pass() {
        let given = values(json!({
            "gradient_accumulation": 4, "steps": 100, "learningRate": 0.1, "batchSize": 8, "warmupSteps": 5, "n_epochs": "auto",
            "save_steps_ratio": 0.25, "image_column": "x", "samples": ["a"], "lora_rank": null,
        }));
        let expected = values(json!({
            "grad_accum": 4, "max_steps": 100, "learning_rate": 0.1, "batch_size": 8, "warmup_steps": 5, "save_steps": 0.25,
            "image_column": "x", "samples": ["a"],
        }));
        assert_eq!(canonical(given, &Parameters::default()), Ok(expected));
    }

    #[test]
    fn two_names_for_one_thing_must_agree() {
        let same = values(json!({"grad_accum": 4, "gradient_accumulation": 4}));
        assert_eq!(canonical(same, &Parameters::default()), Ok(values(json!({"grad_accum": 4}))));
        let differ = values(json!({"grad_accum": 4, "gradient_accumulation": 5}));
        assert!(canonical(differ, &Parameters::default()).unwrap_err().contains("gradient_accumulation"));
    }

    #[test]
    fn a_name_the_runtime_knows_stays() {
        let own = runtime(&json!({"schema": {"properties": {"steps": {"type": "integer"}}}}));
        assert_eq!(canonical(values(json!({"steps": 3})), &own.spec.parameters), Ok(values(json!({"steps": 3}))));
    }

    #[test]
    fn a_multiplier_is_exact_both_ways() {
        let runtime = runtime(&json!({"defaults": {"learning_rate": 0.0002}}));
        let rate = multiplied(&json!(1.8), &runtime).unwrap();
        assert_eq!(rate, json!(0.00036));
        assert_eq!(multiplier(&values(json!({"learning_rate": rate})), Some(&runtime)), Some(json!(1.8)));
        assert!(multiplied(&json!(2), &super::tests::runtime(&json!({}))).is_err());
    }

    #[test]
    fn numbers_come_out_as_people_write_them() {
        for (text, expected) in
            [("0.342", json!(0.342)), ("2.0", json!(2)), ("1e-4", json!(0.0001)), ("nan", Value::Null), ("x", Value::Null)]
        {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
