//! Deployment (`deployments.finetune.dev`): one checkpoint being served.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CheckpointReference, Failure, NameReference, ServingType};

/// Deployment serves one checkpoint behind an OpenAI-compatible endpoint.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "finetune.dev", version = "v1alpha1", kind = "Deployment", root = "ModelDeployment", plural = "deployments",
    shortname = "mdeploy", category = "finetuning", namespaced, derive = "PartialEq", derive = "Default", cel, status = "ModelDeploymentStatus",
    doc = "Deployment serves one checkpoint behind an OpenAI-compatible endpoint. Short name mdeploy; `kubectl get deployments` means apps/v1.",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    validation = ("self.metadata.name.size() <= 57 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must be at most 57 characters of lower-case letters, digits and '-', starting with a letter"),
    selectable = ".spec.checkpoint.name",
    printcolumn(name = "CHECKPOINT", type_ = "string", json_path = ".spec.checkpoint.name"),
    printcolumn(name = "TYPE", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "READY", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "MODEL", type_ = "string", json_path = ".status.modelName", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.restarts >= oldSelf.restarts", "restarts counts up: it cannot be lowered"))]
pub struct ModelDeploymentSpec {
    /// checkpoint to serve.
    pub checkpoint: CheckpointReference,
    /// type is fast or normal: which ServingRuntime serves it when runtime is absent.
    #[serde(default, rename = "type")]
    pub type_: ServingType,
    /// runtime is the ServingRuntime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<NameReference>,
    /// hardware is the HardwareProfile; the runtime's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<ProfileReference>,
    /// replicas of the server.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// modelName the server answers to; `<finetune>-step-<n>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$"))]
    pub model_name: Option<String>,
    /// restarts is raised to clean up and deploy again.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub restarts: i64,
}

const fn one() -> i32 {
    1
}

/// Names a HardwareProfile.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProfileReference {
    /// profile is the HardwareProfile.
    #[schemars(length(min = 1, max = 253))]
    pub profile: String,
}

/// What is known of a deployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// observedGeneration is the generation of the spec this status was concluded from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// conditions: Ready, Reconciling, Stalled (kstatus), and Routed where the installation has a Gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::condition::schema")]
    pub conditions: Vec<Condition>,
    /// phase sums the conditions up for people.
    #[serde(default)]
    pub phase: DeploymentPhase,
    /// url of the OpenAI-compatible endpoint, inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub url: Option<String>,
    /// modelName a client sends, and the server lists where it keeps a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub model_name: Option<String>,
    /// checkpoint that every replica last served. While another one is rolled out, or could not be, this one is still served and stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointReference>,
    /// replicas that exist.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// readyReplicas that serve the model by its name.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// failure says why the model is not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A deployment in one word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeploymentPhase {
    /// Something it needs is missing.
    #[default]
    Pending,
    /// The servers start.
    Progressing,
    /// Every replica serves the model.
    Ready,
    /// Some replicas serve the model.
    Degraded,
    /// The model cannot be served.
    Failed,
}
