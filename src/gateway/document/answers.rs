//! What holds of every answer: each of its keys is always there. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Marks every key of every answer as one that is always there. What requests are made of keeps its own words.
pub(super) fn complete(document: &mut Value) {
    let operations =
        || document["paths"].as_object().into_iter().flat_map(Map::values).filter_map(Value::as_object).flat_map(Map::values);
    let asked = reached(document, operations().map(|operation| &operation["requestBody"]));
    let said = reached(document, operations().map(|operation| &operation["responses"]));
    let said: Vec<String> = said.difference(&asked).cloned().collect();
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    for name in said {
        schemas.get_mut(&name).into_iter().for_each(require_all);
    }
}

/// Names of the schemas that can be reached from some places of a document.
fn reached<'a>(document: &'a Value, from: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut places: Vec<&Value> = from.collect();
    while let Some(place) = places.pop() {
        match place {
            Value::Object(entries) => {
                places.extend(entries.values());
                let reference = entries.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
                let Some(reference) = reference else { continue };
                let is_new = found.insert(reference.rsplit('/').next().unwrap_or_default().to_owned());
                places.extend(document.pointer(reference).filter(|_| is_new));
            }
            Value::Array(items) => places.extend(items),
            _ => {}
        }
    }
    found
}

/// Requires every property of a schema and of those within it.
fn require_all(schema: &mut Value) {
    if let Value::Array(choices) = schema {
        choices.iter_mut().for_each(require_all);
    }
    let Value::Object(entries) = schema else { return };
    if let Some(properties) = entries.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(require_all);
        let names: Vec<Value> = properties.keys().cloned().map(Value::String).collect();
        entries.insert("required".into(), names.into());
    }
    for within in ["items", "additionalProperties", "allOf", "oneOf", "anyOf"] {
        entries.get_mut(within).into_iter().for_each(require_all);
    }
}
