use std::collections::BTreeSet;
use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use kube::Config;
use serde_json::Value;
use tower::ServiceExt;

use super::text;
use crate::gateway::{Gateway, Rate};

fn document() -> Value {
    serde_json::from_str(&text()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let items = document["paths"].as_object().unwrap().iter();
    items
        .flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(move |(method, operation)| (path.clone(), method.to_uppercase(), operation.clone()))
        })
        .collect()
}

/// Every file of the gateway, with what it holds.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                found.push((path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), code));
            }
        }
    }
    found
}

#[tokio::test]
async fn every_documented_operation_is_routed_and_asks_for_a_key() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let rate = Rate { per_second: 1.0, burst: 1.0 };
    let router = Gateway::new(Config::new("http://127.0.0.1:1".parse().unwrap()), rate).unwrap().router();
    let all = operations(&document());
    assert!(all.len() > 40, "{}", all.len());
    let aliases = all.iter().filter_map(|(path, method, operation)| {
        let shorter = path.strip_prefix("/v1").filter(|path| path.starts_with("/fine_tuning") || path.starts_with("/models"));
        shorter.map(|path| (path.to_owned(), method.clone(), operation.clone()))
    });
    for (path, method, operation) in all.iter().cloned().chain(aliases) {
        let filled = path.replace(['{', '}'], "");
        let request = Request::builder().method(method.as_str()).uri(&filled).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let public = operation["security"] == serde_json::json!([]);
        let expected = if public { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(answer.status(), expected, "{method} {path}");
        let known: BTreeSet<&str> = operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(known.contains(expected.as_str()) || known.contains("default"), "{method} {path}: {known:?}");
    }
}

#[test]
fn routes_are_made_where_they_are_documented_and_nowhere_else() {
    for (file, code) in sources() {
        // The probes have a port of their own, and what the live page asks is of no dialect.
        if file != "process.rs" && !file.starts_with("live/") {
            for undocumented in [".route(", ".route_service(", ".nest_service(", "routing::get", "routing::post"] {
                assert!(
                    !code.contains(undocumented),
                    "{file} makes a route with {undocumented:?}: use routes!, which documents it"
                );
            }
        }
    }
}

#[test]
fn what_a_handler_takes_is_what_is_documented() {
    let mut handlers = 0;
    for (file, code) in sources() {
        for part in code.split("#[utoipa::path(").skip(1) {
            let (documented, rest) = part.split_once(")]\nasync fn ").unwrap();
            let (name, rest) = rest.split_once('(').unwrap();
            let taken = rest.split_once(") -> ").unwrap().0;
            let between = |begin: &'static str| taken.split(begin).skip(1).map(|rest| rest.split('>').next().unwrap().to_owned());
            for of_path in between("Path<").chain(between("Query<")).chain(taken.contains(": Once").then(|| "Once".to_owned())) {
                let params = documented.split_once("params(").map_or("", |(_, params)| params.split(')').next().unwrap());
                assert!(
                    params.split(", ").any(|param| param == of_path),
                    "{file}: {name} takes {of_path}, which is not in its params"
                );
            }
            for body in between("Said<") {
                let said = documented.split_once("request_body = ").map_or("", |(_, said)| said);
                let said = said.strip_prefix("Option<").unwrap_or(said);
                assert!(said.starts_with(&body), "{file}: {name} reads {body}, which is not its request_body");
            }
            let answers = rest.split_once(") -> ").unwrap().1.split(" {\n").next().unwrap();
            if let Some((_, answer)) = answers.split_once("Answer<") {
                let body = format!("body = {}, ", answer.strip_suffix('>').unwrap());
                assert!(documented.contains(&body), "{file}: {name} answers {answers}, which is not in its responses");
            }
            handlers += 1;
        }
    }
    assert_eq!(handlers, operations(&document()).len());
}

#[test]
fn operations_have_names_of_their_own_words_for_people_and_a_scope() {
    let document = document();
    let all = operations(&document);
    let names: BTreeSet<&str> = all.iter().map(|(_, _, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), all.len());
    for (path, method, operation) in &all {
        let what = format!("{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{what}");
        assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{what}");
        let reads = ["/estimate-cost", "/completions", "/embeddings"].iter().any(|end| path.ends_with(end)) || method == "GET";
        let scope = if reads { "fine-tuning:read" } else { "fine-tuning:write" };
        let security = operation["security"].as_array().unwrap();
        assert!(security.is_empty() || security[0]["bearer"][0] == scope, "{what}");
        let in_path = |parameter: &&Value| parameter["in"] == "path";
        let in_url = operation["parameters"].as_array().map_or(0, |parameters| parameters.iter().filter(in_path).count());
        assert_eq!(in_url, path.matches('{').count(), "{what}");
        for parameter in operation["parameters"].as_array().into_iter().flatten().filter(|parameter| parameter["$ref"].is_null())
        {
            assert!(parameter["description"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {}", parameter["name"]);
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (property, of) in schema["properties"].as_object().into_iter().flatten() {
            let described = of["description"].is_string() || of["oneOf"][0]["description"].is_string();
            assert!(described, "{name}.{property} has no description");
        }
    }
}

#[test]
fn references_lead_somewhere() {
    fn check(document: &Value, place: &Value) {
        if let Some(reference) = place.get("$ref").and_then(Value::as_str) {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
        match place {
            Value::Object(entries) => entries.values().for_each(|inner| check(document, inner)),
            Value::Array(items) => items.iter().for_each(|inner| check(document, inner)),
            _ => {}
        }
    }
    let document = document();
    check(&document, &document);
}

#[tokio::test]
async fn the_page_has_all_it_needs_with_it() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let rate = Rate { per_second: 1.0, burst: 1.0 };
    let router = Gateway::new(Config::new("http://127.0.0.1:1".parse().unwrap()), rate).unwrap().router();
    let mut loaded = vec!["/docs".to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(path) = loaded.pop() {
        let answer = router.clone().oneshot(Request::get(&path).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert!(answer.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"), "{path}");
        let text = String::from_utf8(to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap();
        for begin in ["src=\"", "href=\"", "fetch(\""] {
            for found in text.split(begin).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                if !found.starts_with('#') {
                    assert!(found.starts_with('/') && !found.starts_with("//"), "{path} loads {found} from elsewhere");
                    if seen.insert(found.to_owned()) {
                        loaded.push(found.to_owned());
                    }
                }
            }
        }
    }
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), ["/docs/page.css", "/docs/page.js", "/openapi.json"]);
}
