//! A gateway in this process, keys to it, and what is said over it.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use finetune_operator::{
    api::{HardwareProfile, TrainingRuntime, names},
    gateway::{Gateway, Rate},
};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1 as corev1,
    rbac::v1 as rbac,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::document::{assert_documented, assert_takes};
use crate::harness::{
    Sandbox,
    cluster::{ADMIN, config, runtime},
};

/// How often the API server is asked whether it knows of a binding, and the pause in between: nothing tells when it does.
const LOOKS: usize = 200;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// The scope that reads.
pub const READ: &str = "finetune-operator-view";
/// The scope that writes.
pub const WRITE: &str = "finetune-operator-edit";

/// A gateway, and the key of one caller.
#[derive(Clone)]
pub struct Gate {
    router: Router,
    /// The key.
    pub key: String,
}

/// What the gateway answered.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The header.
    pub headers: HeaderMap,
    /// The body; null where there is none, and text where it is no JSON.
    pub body: Value,
}

/// A gateway to the cluster of the tests. It is given an administrator's configuration, whose credential it must not use.
pub async fn router() -> Router {
    let rate = Rate { per_second: 1000.0, burst: 1000.0 };
    Gateway::new(config(ADMIN).await, rate).unwrap().router()
}

impl Gate {
    /// A gate for a new ServiceAccount of a namespace, with a role in it.
    pub async fn new(sandbox: &Sandbox, role: &str) -> Self {
        put_defaults(&sandbox.client).await;
        let account = format!("it-{}", uuid::Uuid::new_v4().simple());
        sandbox.create::<corev1::ServiceAccount>(json!({"metadata": {"name": account}})).await;
        bind(sandbox, &account, &sandbox.namespace, role).await;
        Self { router: router().await, key: token(sandbox, &account).await }
    }

    /// The same gate with another key.
    pub fn with(&self, key: impl Into<String>) -> Self {
        Self { router: self.router.clone(), key: key.into() }
    }

    /// Sends a request as it is. The answer has to be as documented.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (code, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = to_bytes(answer.into_body(), 16 * 1024 * 1024).await.unwrap();
        let body = match headers.get(header::CONTENT_TYPE) {
            _ if bytes.is_empty() => Value::Null,
            Some(type_) if type_ == "application/json" => serde_json::from_slice(&bytes).unwrap(),
            _ => String::from_utf8(bytes.to_vec()).unwrap().into(),
        };
        assert_documented(&method, &path, (code, &body));
        Answer { code, headers, body }
    }

    /// The beginning of a request with the key.
    pub fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {}", self.key))
    }

    /// Sends a request, and returns the answer as it begins.
    pub async fn open(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).body(Body::empty()).unwrap()).await
    }

    /// Writes.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let sent = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer =
            self.send(self.request("POST", path).header(header::CONTENT_TYPE, "application/json").body(sent).unwrap()).await;
        if answer.code < 300 && !body.is_null() {
            assert_takes("POST", path, &body);
        }
        answer
    }

    /// Writes once, however often it is asked.
    pub async fn post_once(&self, path: &str, key: &str, body: Value) -> Answer {
        let request = self.request("POST", path).header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Deletes.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request("DELETE", path).body(Body::empty()).unwrap()).await
    }
}

impl Answer {
    /// The body, which must have come with this status code.
    pub fn with(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.body);
        assert!(self.headers.contains_key("x-request-id"));
        self.body
    }

    /// The same of a success without a body.
    pub fn empty(self) {
        assert_eq!(self.code, StatusCode::NO_CONTENT.as_u16(), "{}", self.body);
        assert_eq!(self.body, Value::Null);
    }
}

/// Gives an account of one namespace a role in another, or in its own, and waits until the API server knows: it learns of bindings by a watch.
pub async fn bind(sandbox: &Sandbox, account: &str, namespace: &str, role: &str) {
    let binding: rbac::RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": format!("{account}-{role}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": sandbox.namespace}],
    }))
    .unwrap();
    let bindings: Api<rbac::RoleBinding> = Api::namespaced(sandbox.client.clone(), namespace);
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{}:{account}", sandbox.namespace)),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some("get".to_owned()),
                group: Some("finetune.dev".to_owned()),
                resource: Some("finetunes".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(sandbox.client.clone());
    for _ in 0..LOOKS {
        if reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed {
            return;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    panic!("role {role} of {account} does not take effect in {namespace}");
}

/// A token of an account, as `kubectl create token` makes it.
pub async fn token(sandbox: &Sandbox, account: &str) -> String {
    let accounts: Api<corev1::ServiceAccount> = sandbox.api();
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap().status.unwrap().token
}

/// What stands in for what a request does not name.
async fn put_defaults(client: &Client) {
    let mut spec = runtime();
    spec["scriptTypes"] = json!(["text_generation", "supervised"]);
    put_default::<TrainingRuntime>(client, "it-default", spec).await;
    put_default::<HardwareProfile>(client, "it-default", json!({"gpu": {"count": 1, "memory": "80Gi"}, "costPerHour": "3.60"}))
        .await;
    let llama = json!({
        "displayName": "LLaMA 3.1 8B", "provider": "meta", "parameterCount": "8B", "supportedTasks": ["text-generation"],
        "maxSequenceLength": 8192, "aliases": ["meta-llama/Llama-3.1-8B"], "source": {"huggingFace": {"repo": "org/llama"}},
        "tokensPerSecond": {"it-default": 1000},
    });
    crate::harness::cluster::put::<finetune_operator::api::BaseModel>(client, "llama-3.1-8b", llama).await;
}

async fn put_default<K>(client: &Client, name: &str, spec: Value)
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": name, "annotations": {names::IS_DEFAULT: "true"}}, "spec": spec,
    });
    let params = PatchParams::apply("integration-tests").force();
    Api::<K>::all(client.clone()).patch(name, &params, &Patch::Apply(object)).await.unwrap();
}

/// What a documented example has and an answer lacks: keys, and types where neither is null.
pub fn lacks(example: &Value, answer: &Value) -> Vec<String> {
    match (example, answer) {
        (Value::Null, _) | (_, Value::Null) => Vec::new(),
        (Value::Object(example), Value::Object(answer)) => example
            .iter()
            .flat_map(|(key, value)| match answer.get(key) {
                Some(answer) => lacks(value, answer).into_iter().map(|inner| format!("{key}: {inner}")).collect(),
                None => vec![format!("{key} is missing")],
            })
            .collect(),
        (Value::Array(example), Value::Array(answer)) => {
            example.first().zip(answer.first()).map(|(example, answer)| lacks(example, answer)).unwrap_or_default()
        }
        (example, answer) if std::mem::discriminant(example) == std::mem::discriminant(answer) => Vec::new(),
        (example, answer) => vec![format!("{answer}, documented is {example}")],
    }
}

/// Asserts that an answer has everything a documented example has.
pub fn assert_like(answer: &Value, example: &Value) {
    assert_eq!(lacks(example, answer), Vec::<String>::new(), "{answer:#}");
}
