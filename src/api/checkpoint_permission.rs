//! CheckpointPermission: another project may use a checkpoint, or all of a run's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::NameReference;

/// CheckpointPermission lets another project use a checkpoint, or all of a run's.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "finetune.dev",
    version = "v1alpha1",
    kind = "CheckpointPermission",
    plural = "checkpointpermissions",
    shortname = "ckptperm",
    category = "finetuning",
    namespaced,
    derive = "PartialEq",
    cel,
    status = "CheckpointPermissionStatus",
    doc = "CheckpointPermission lets another project use a checkpoint, or all of a run's. A project is a namespace.",
    printcolumn(name = "CHECKPOINT", type_ = "string", json_path = ".spec.checkpoint.name"),
    printcolumn(name = "RUN", type_ = "string", json_path = ".spec.fineTune.name"),
    printcolumn(name = "PROJECT", type_ = "string", json_path = ".spec.project"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.checkpoint) != has(self.fineTune)", "give exactly one of checkpoint and fineTune"))]
#[x_kube(validation = ("self == oldSelf", "a permission is immutable: delete it and make another"))]
pub struct CheckpointPermissionSpec {
    /// checkpoint that may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<NameReference>,
    /// fineTune whose checkpoints may all be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<NameReference>,
    /// project is the namespace that may use it, or `*` for every namespace of the cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"))]
    pub project: String,
}

/// What is known of a permission.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointPermissionStatus {
    /// observedGeneration is the generation of the spec this status was concluded from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// conditions: Ready, Reconciling, Stalled (kstatus).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::condition::schema")]
    pub conditions: Vec<Condition>,
}
