//! What every operation shares: its tag and name, who may call it, which project it works in, and how it says no. Pure.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;
use utoipa::openapi::path::ParameterIn;

use crate::gateway::dialect::{Dialect, word};
use crate::gateway::errors::Kind;
use crate::gateway::extract::Project;
use crate::gateway::identity::Scope;

const DIALECTS: [Dialect; 3] = [Dialect::OpenAi, Dialect::Oxen, Dialect::Strongly];

/// How requests are refused, whatever they ask.
const ALWAYS: [Kind; 8] = [
    Kind::BadRequest,
    Kind::Unauthorized,
    Kind::Forbidden,
    Kind::NotFound,
    Kind::TooManyRequests,
    Kind::Internal,
    Kind::Unavailable,
    Kind::TimedOut,
];

/// What tags mean.
pub(super) fn tags() -> Value {
    json!([
        {"name": "openai", "description": "The fine-tuning API of OpenAI. A success is always 200; lists are paged by the id of their last item."},
        {"name": "oxen", "description": "The fine-tuning API of Oxen. A namespace is a namespace, a repository a label and the claim that holds its files."},
        {"name": "strongly", "description": "The fine-tuning API of Strongly."},
        {"name": "reference", "description": "This document. It needs no key."},
    ])
}

/// Adds it to every operation of a document.
pub(super) fn add(document: &mut Value) {
    let mut components = document["components"].take();
    for dialect in DIALECTS {
        let (_, schemas) = dialect.refusals();
        for (name, schema) in schemas {
            components["schemas"][name] = json!(schema);
        }
        for kind in ALWAYS.into_iter().chain([Kind::Conflict, Kind::TooLarge]) {
            components["responses"][component(dialect, kind)] = refusal(dialect, kind);
        }
    }
    for parameter in Project::into_params(|| Some(ParameterIn::Header)) {
        let name = parameter.name.clone();
        components["parameters"][&name] = json!(parameter);
        never_null(&mut components["parameters"][&name]["schema"]);
    }
    components["headers"]["X-Request-Id"] = header("string", "What finds the request in the log.");
    components["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer", "description": "A Kubernetes token, such as that of a ServiceAccount."},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same token in another header."},
    });
    let projects: Vec<Value> = components["parameters"].as_object().into_iter().flat_map(Map::keys).map(parameter).collect();
    document["components"] = components;
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            share(Dialect::of(path), method, operation, &projects);
        }
    }
}

fn share(dialect: Dialect, method: &str, operation: &mut Value, projects: &[Value]) {
    let public = operation["security"].as_array().is_some_and(Vec::is_empty);
    let tag = if public { "reference" } else { dialect.name() };
    operation["tags"] = json!([tag]);
    operation["operationId"] = format!("{tag}_{}", operation["operationId"].as_str().unwrap_or_default()).into();
    for response in operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        response["headers"]["X-Request-Id"] = json!({"$ref": "#/components/headers/X-Request-Id"});
    }
    if public {
        return;
    }
    if operation["security"].is_null() {
        let scope = if method == "get" { Scope::Read } else { Scope::Write };
        operation["security"] = json!([{"bearer": [scope.name()]}, {"key": [scope.name()]}]);
    }
    let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    for parameter in &mut parameters {
        never_null(&mut parameter["schema"]);
        if parameter["in"] == "query" {
            parameter["allowEmptyValue"] = true.into();
        }
    }
    let body = operation.pointer_mut("/requestBody/content/application~1json/schema");
    body.into_iter().for_each(never_null);
    if dialect != Dialect::Oxen {
        parameters.extend_from_slice(projects);
    }
    operation["parameters"] = parameters.into();
    refuse(dialect, method, operation);
}

/// What may be left out is left out, and never null.
fn never_null(schema: &mut Value) {
    if let Some([either, or]) = schema["oneOf"].as_array().map(Vec::as_slice) {
        *schema = if either["type"] == "null" { or.clone() } else { either.clone() };
    }
    if let Some([only, _]) = schema["type"].as_array().map(Vec::as_slice) {
        schema["type"] = only.clone();
    }
}

/// How an operation says no. One that passes on what others say has said so already.
fn refuse(dialect: Dialect, method: &str, operation: &mut Value) {
    let body = operation.get("requestBody").is_some();
    let Some(responses) = operation["responses"].as_object_mut().filter(|responses| !responses.contains_key("default")) else {
        return;
    };
    for (_, response) in responses.iter_mut().filter(|(code, _)| code.starts_with(['4', '5'])) {
        response["content"] = content(dialect);
    }
    let conflict = (method != "get").then_some(Kind::Conflict);
    for kind in ALWAYS.into_iter().chain(conflict).chain(body.then_some(Kind::TooLarge)) {
        let reference = json!({"$ref": format!("#/components/responses/{}", component(dialect, kind))});
        responses.entry(kind.status().as_str()).or_insert(reference);
    }
}

fn component(dialect: Dialect, kind: Kind) -> String {
    format!("{}.{}", dialect.name(), word(kind))
}

fn refusal(dialect: Dialect, kind: Kind) -> Value {
    let mut headers = json!({"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}});
    match kind.status() {
        StatusCode::UNAUTHORIZED => headers["WWW-Authenticate"] = header("string", "How to send a key."),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            headers["Retry-After"] = header("integer", "Seconds after which to try again.");
        }
        _ => {}
    }
    json!({"description": described(kind), "headers": headers, "content": content(dialect)})
}

fn content(dialect: Dialect) -> Value {
    let (name, _) = dialect.refusals();
    json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}})
}

fn header(type_: &str, description: &str) -> Value {
    json!({"description": description, "schema": {"type": type_}})
}

fn parameter(name: &String) -> Value {
    json!({"$ref": format!("#/components/parameters/{name}")})
}

const fn described(kind: Kind) -> &'static str {
    match kind {
        Kind::BadRequest => "The request cannot be understood, or names something that is not there",
        Kind::Unauthorized => "There is no key, or it is not good",
        Kind::Forbidden => "The key lacks a scope, or the cluster refuses what is asked",
        Kind::NotFound => "There is no such thing, or none that the key may see",
        Kind::MethodNotAllowed => "The URL does not take this method",
        Kind::Conflict => "It cannot be done in this state, or something else has the name",
        Kind::TooLarge => "The body is too large",
        Kind::Unprocessable => "It is understood, and cannot be done",
        Kind::TooManyRequests => "Too many requests with this key",
        Kind::Internal => "Something went wrong in the gateway",
        Kind::Unavailable => "The cluster does not answer, or there are too many requests at once",
        Kind::TimedOut => "The cluster does not answer in time",
    }
}
