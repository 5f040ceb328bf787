//! The part of the Gateway API's HTTPRoute that leads to a served model. The kind is not ours: a cluster may do without it.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Leads requests of a Gateway to a Service.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    root = "HttpRoute",
    plural = "httproutes",
    namespaced,
    schema = "disabled",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// parentRefs are the Gateways it belongs to.
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// rules say which requests it takes, and where they go.
    #[serde(default)]
    pub rules: Vec<Value>,
}

/// Names a Gateway.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentReference {
    /// namespace of the Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// name of the Gateway.
    pub name: String,
}
