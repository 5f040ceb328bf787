//! ServingRuntime: a server and how it is started for adapters and for full models.

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements, SecurityContext};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::ServingType;

/// ServingRuntime is a server: image, and arguments for adapters and for full models.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "finetune.dev",
    version = "v1alpha1",
    kind = "ServingRuntime",
    plural = "servingruntimes",
    shortname = "srt",
    category = "finetuning",
    derive = "PartialEq",
    cel,
    doc = "ServingRuntime is a server: image, and arguments for adapters and for full models.",
    printcolumn(name = "TYPES", type_ = "string", json_path = ".spec.deploymentTypes"),
    printcolumn(name = "IMAGE", type_ = "string", json_path = ".spec.image"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.adapter) || has(self.model)", "give adapter, model or both: what the server is started with"))]
pub struct ServingRuntimeSpec {
    /// displayName is what people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub display_name: Option<String>,
    /// deploymentTypes it stands for: fast, normal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub deployment_types: Vec<ServingType>,
    /// image of the server.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// port the server listens on.
    #[serde(default = "port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// env of the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::training_runtime::env")]
    pub env: Vec<EnvVar>,
    /// resources of the server beside those of the hardware profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// securityContext of the server, over the restricted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// hardware is the HardwareProfile for deployments that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub hardware: Option<String>,
    /// adapter is how the server is started for adapter weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterServing>,
    /// model is how the server is started for full weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelServing>,
    /// readiness is how the server is asked whether it serves.
    #[serde(default)]
    pub readiness: Readiness,
}

const fn port() -> i32 {
    8000
}

/// How a server is started for adapter weights.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AdapterServing {
    /// command of the server; the image's own when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// args of the server; `$(NAME)` is expanded from env.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
    /// init is run first, for instance to merge the adapter into its base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Container>,
    /// ranks the server accepts, ascending; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub ranks: Vec<i64>,
}

/// How a server is started for full weights.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ModelServing {
    /// command of the server; the image's own when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// args of the server; `$(NAME)` is expanded from env.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
}

/// A command to run before the server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// image; the server's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// command to run.
    #[schemars(length(min = 1, max = 64), inner(length(max = 65536)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// args of the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 65536)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
}

/// How a server is asked whether it serves: at most one of modelsPath and path.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!(has(self.modelsPath) && has(self.path))", "give modelsPath or path, not both"))]
pub struct Readiness {
    /// modelsPath answers an OpenAI model list that must hold the served name; `/v1/models` when both are absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub models_path: Option<String>,
    /// path answers 200 once the model is served, for servers without a model list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub path: Option<String>,
}
