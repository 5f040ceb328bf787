//! What the operator asked of the API server, from the audit log.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

use serde::Deserialize;

use super::cluster::{AUDIT_LOG, NAMESPACE, setting};

/// One request.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Who asked.
    pub user: User,
    /// Verb of the API.
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// What it was about; nothing for paths that are no objects.
    #[serde(default)]
    pub object_ref: Object,
    #[serde(default)]
    response_status: Status,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// Who asked.
#[derive(Deserialize, Clone, Debug)]
pub struct User {
    /// Name of the user.
    #[serde(default)]
    pub username: String,
}

/// What a request was about.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// API group; empty for the core group.
    pub api_group: String,
    /// Resource in the plural.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
}

#[derive(Deserialize, Clone, Debug, Default)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl Request {
    /// Whether it was done.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.response_status.code)
    }

    /// Whether RBAC refused it.
    pub fn was_forbidden(&self) -> bool {
        self.annotations.get("authorization.k8s.io/decision").is_some_and(|decision| decision == "forbid")
    }

    /// Whether it asks for a change of an object.
    pub fn is_mutating(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str()) && self.object_ref.resource != "tokenreviews"
    }

    /// Resource and subresource, as RBAC writes them.
    pub fn resource(&self) -> String {
        let Object { resource, subresource, .. } = &self.object_ref;
        if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") }
    }
}

/// Name of the operator's user.
pub fn operator() -> String {
    format!("system:serviceaccount:{}:finetune-operator", setting(NAMESPACE))
}

/// Every request of users that `picks`, in order.
pub fn requests(picks: impl Fn(&Request) -> bool) -> Vec<Request> {
    let lines = BufReader::new(File::open(setting(AUDIT_LOG)).unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).filter(|request| picks(request)).collect()
}

/// Every request of the operator.
pub fn of_operator() -> Vec<Request> {
    let operator = operator();
    requests(|request| request.user.username == operator)
}
