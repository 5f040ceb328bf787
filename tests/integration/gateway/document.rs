//! What the gateway documents, against what it says: every answer and every body it takes in these tests has to be as documented.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use jsonschema::Validator;
use serde_json::{Value, json};

/// The document as it is served.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(&finetune_operator::gateway::document()).unwrap());
/// Validators by pointer to their schema: one takes a while to make.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Prefixes without `/v1`, under which the same routes are.
const ALIASES: [&str; 2] = ["/fine_tuning", "/models"];

/// What the live page asks is of no dialect and in no document; it is refused as Strongly refuses.
const OF_THE_PAGE: &str = "/live/";

/// Asserts that an answer is one that is documented.
pub fn assert_documented(method: &str, path: &str, (code, body): (u16, &Value)) {
    if path.starts_with(OF_THE_PAGE) && code < 400 {
        return;
    }
    let Some(operation) = operation(method, path) else { return assert_refused(path, (code, body)) };
    let responses = &operation["responses"];
    let (code, response) = [code.to_string().as_str(), "default"]
        .into_iter()
        .find_map(|code| Some((code.to_owned(), responses.get(code)?)))
        .unwrap_or_else(|| panic!("{method} {path} answers {code}, which is not documented: {body}"));
    match (content(response), body) {
        (Some(schema), body) => assert_like(&schema, body, &format!("{method} {path}: {code}")),
        (None, Value::String(_)) if response.get("content").is_some() => {}
        (None, body) => assert_eq!(*body, Value::Null, "{method} {path}: {code} is documented to have no body"),
    }
}

/// Asserts that a body that was taken is one that is documented.
pub fn assert_takes(method: &str, path: &str, body: &Value) {
    if path.starts_with(OF_THE_PAGE) {
        return;
    }
    let operation = operation(method, path).unwrap_or_else(|| panic!("{method} {path} is not documented"));
    let schema = content(&operation["requestBody"]).unwrap_or_else(|| panic!("{method} {path} is documented to take no body"));
    assert_like(&schema, body, &format!("{method} {path} takes"));
}

/// What no operation answers is refused as its dialect refuses.
fn assert_refused(path: &str, (code, body): (u16, &Value)) {
    assert!((400..500).contains(&code), "{path} answers {code}, and is not documented: {body}");
    let dialect = if path.starts_with("/api/repos") {
        "oxen"
    } else if path.starts_with("/api") || path.starts_with(OF_THE_PAGE) {
        "strongly"
    } else {
        "openai"
    };
    assert_like(&json!({"$ref": format!("#/components/schemas/{dialect}.Refusal")}), body, path);
}

fn assert_like(schema: &Value, body: &Value, what: &str) {
    let validator = {
        let mut known = VALIDATORS.lock().unwrap();
        Arc::clone(known.entry(schema.to_string()).or_insert_with(|| {
            let whole = json!({"components": DOCUMENT["components"], "allOf": [schema]});
            Arc::new(jsonschema::options().should_validate_formats(true).build(&whole).unwrap())
        }))
    };
    let errors: Vec<String> = validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what} is not as documented: {errors:#?}\n{body:#}");
}

/// The schema of the JSON a response or a request has, if it has any.
fn content(of: &Value) -> Option<Value> {
    let of = of["$ref"].as_str().map_or(of, |reference| DOCUMENT.pointer(&reference[1..]).unwrap());
    of.pointer("/content/application~1json/schema").cloned()
}

fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap_or_default();
    let shorter =
        ALIASES.iter().any(|alias| path.strip_prefix(alias).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    let path = if shorter { format!("/v1{path}") } else { path.to_owned() };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let item = paths.iter().find(|(template, _)| matches(template, &path)).map(|(_, item)| item)?;
    item.get(method.to_lowercase())
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let same = |(wanted, found): (&&str, &&str)| wanted == found || (wanted.starts_with('{') && !found.is_empty());
    template.len() == path.len() && template.iter().zip(&path).all(same)
}
