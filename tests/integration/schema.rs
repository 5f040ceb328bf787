//! The definitions as a real API server holds them: established, ruled by CEL, described, and shown in columns.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt, runtime::wait::conditions};
use serde::Deserialize;
use serde_json::{Value, json};

use finetune_operator::api::{self, GROUP, VERSION};

use crate::harness::{Sandbox, cluster::admin, sandbox::with_sandbox, wait::until};

const CASES: &str = include_str!("../cel_cases.yaml");

#[derive(Deserialize)]
struct Case {
    kind: String,
    rule: String,
    verdict: String,
    old: Option<Value>,
    object: Value,
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_api_server_takes_every_definition() {
    let definitions: Api<CustomResourceDefinition> = Api::all(admin().await);
    for definition in api::definitions() {
        let found = until(&definitions, &definition.name_any(), "it is established", |found| {
            conditions::Condition::matches_object(&conditions::is_crd_established(), Some(found))
        })
        .await;
        let names = found.spec.names;
        assert_eq!(names.short_names, definition.spec.names.short_names);
        assert_eq!(names.categories, definition.spec.names.categories);
        let said = found.status.unwrap().conditions.unwrap_or_default();
        let lacking = said.iter().find(|condition| condition.type_ == "NonStructuralSchema" && condition.status == "True");
        assert!(lacking.is_none(), "{lacking:?}");
    }
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_api_server_judges_every_cel_case_as_we_do() {
    with_sandbox(|sandbox| async move {
        let cases: Vec<Case> = serde_saphyr::from_str(CASES).unwrap();
        let mut wrong = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let verdict = judge(&sandbox, number, case).await;
            let right = match (&verdict, case.verdict.as_str()) {
                (Ok(()), "accept") => true,
                (Err(message), "refuse") => message.contains(&case.rule),
                _ => false,
            };
            if !right {
                wrong.push(format!("case {number}, to {} {}: {verdict:?}", case.verdict, case.rule));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    })
    .await;
}

/// What the server says to creating an object, or to updating an old one to it. An update gets a name of its own, so that no case meets another.
async fn judge(sandbox: &Sandbox, number: usize, case: &Case) -> Result<(), String> {
    let path = path(&case.kind, &sandbox.namespace);
    let Some(old) = &case.old else {
        return send(&sandbox.client, http::Method::POST, &format!("{path}?dryRun=All"), &whole(case, &case.object))
            .await
            .map(drop);
    };
    let name = format!("case-{number}-{}", &sandbox.namespace[3..9]);
    let renamed = |object: &Value| {
        let mut object = whole(case, object);
        object["metadata"]["name"] = name.clone().into();
        object
    };
    let there = send(&sandbox.client, http::Method::POST, &path, &renamed(old)).await.unwrap();
    let new = renamed(&case.object);
    let url = format!("{path}/{name}");
    // A patch, not an update: a controller may have put its finalizer there meanwhile, and what is asked for is a verdict on the spec.
    let verdict = send(&sandbox.client, http::Method::PATCH, &format!("{url}?dryRun=All"), &replacing(&there, &new)).await;
    send(&sandbox.client, http::Method::DELETE, &url, &json!({})).await.unwrap();
    verdict.map(drop)
}

/// A merge patch that makes the spec of `there` that of `new`.
fn replacing(there: &Value, new: &Value) -> Value {
    let mut spec = new["spec"].clone();
    for key in there["spec"].as_object().unwrap().keys() {
        if spec.get(key).is_none() {
            spec[key] = Value::Null;
        }
    }
    for (key, value) in spec.as_object_mut().unwrap() {
        clear(value, &there["spec"][key]);
    }
    json!({"spec": spec})
}

/// Names the keys that go.
fn clear(new: &mut Value, old: &Value) {
    let (Some(fields), Some(before)) = (new.as_object_mut(), old.as_object()) else { return };
    for (key, value) in before {
        clear(fields.entry(key.clone()).or_insert(Value::Null), value);
    }
}

fn whole(case: &Case, object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = format!("{GROUP}/{VERSION}").into();
    object["kind"] = case.kind.clone().into();
    object
}

fn path(kind: &str, namespace: &str) -> String {
    let definition = api::definitions().into_iter().find(|definition| definition.spec.names.kind == kind).unwrap();
    let scope = if definition.spec.scope == "Namespaced" { format!("namespaces/{namespace}/") } else { String::new() };
    format!("/apis/{GROUP}/{VERSION}/{scope}{}", definition.spec.names.plural)
}

async fn send(client: &Client, method: http::Method, url: &str, body: &Value) -> Result<Value, String> {
    let kind = if method == http::Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(url).header("content-type", kind);
    let request = request.body(serde_json::to_vec(body).unwrap()).unwrap();
    client.request(request).await.map_err(|error| error.to_string())
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn kubectl_explain_has_words_for_every_kind_and_its_fields() {
    let client = admin().await;
    let document = client.request_text(http::Request::get(format!("/openapi/v3/apis/{GROUP}/{VERSION}")).body(vec![]).unwrap());
    let document: Value = serde_json::from_str(&document.await.unwrap()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for definition in api::definitions() {
        let kind = &definition.spec.names.kind;
        let (_, schema) = schemas.iter().find(|(name, _)| name.ends_with(&format!(".{kind}"))).unwrap();
        assert!(schema["description"].as_str().is_some_and(|text| text.len() > 20), "{kind} has no description");
        let spec = schema["properties"]["spec"]["properties"].as_object().unwrap();
        for (field, described) in spec {
            assert!(described["description"].is_string(), "{kind}.spec.{field} has no description");
        }
    }
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn kubectl_get_shows_how_far_a_run_is() {
    let columns = columns(&admin().await, "finetunes", 0).await;
    assert_eq!(columns, ["Name", "PHASE", "PROGRESS", "ETA", "LOSS", "GPU", "AGE"]);
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn kubectl_get_shows_how_good_a_checkpoint_is() {
    let columns = columns(&admin().await, "checkpoints", 0).await;
    assert_eq!(columns, ["Name", "RUN", "STEP", "PHASE", "LOSS", "EVAL LOSS", "BYTES", "BEST", "AGE"]);
}

/// Titles of the columns up to a priority, as kubectl asks for them.
async fn columns(client: &Client, plural: &str, priority: i64) -> Vec<String> {
    let request = http::Request::get(format!("/apis/{GROUP}/{VERSION}/{plural}?limit=1"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let table: Value = client.request(request.body(vec![]).unwrap()).await.unwrap();
    let shown =
        table["columnDefinitions"].as_array().unwrap().iter().filter(|column| column["priority"].as_i64().unwrap() <= priority);
    shown.map(|column| column["name"].as_str().unwrap().to_owned()).collect()
}
