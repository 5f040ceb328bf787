//! Checkpoint: one complete save of a run.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeletionPolicy, NameReference, Source};

/// Checkpoint is one complete save of a run: where it is, how good it is, and what it can do.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "finetune.dev",
    version = "v1alpha1",
    kind = "Checkpoint",
    plural = "checkpoints",
    shortname = "ckpt",
    category = "finetuning",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    cel,
    status = "CheckpointStatus",
    doc = "Checkpoint is one complete save of a run: where it is, how good it is, and what it can do. Write one by hand to import weights.",
    selectable = ".spec.fineTune.name",
    selectable = ".status.phase",
    printcolumn(name = "RUN", type_ = "string", json_path = ".spec.fineTune.name"),
    printcolumn(name = "STEP", type_ = "integer", json_path = ".spec.step"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "LOSS", type_ = "string", json_path = ".status.metrics.loss"),
    printcolumn(name = "EVAL LOSS", type_ = "string", json_path = ".status.metrics.eval_loss"),
    printcolumn(name = "BYTES", type_ = "integer", json_path = ".status.sizeBytes"),
    printcolumn(name = "BEST", type_ = "boolean", json_path = ".status.best"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "FORMAT", type_ = "string", json_path = ".spec.format", priority = 1),
    printcolumn(name = "MODEL", type_ = "string", json_path = ".spec.baseModel.name", priority = 1),
    printcolumn(name = "RESUMABLE", type_ = "boolean", json_path = ".status.resumable", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.fineTune) == has(oldSelf.fineTune) && (!has(self.fineTune) || self.fineTune == oldSelf.fineTune) && self.attempt == oldSelf.attempt && self.lineage == oldSelf.lineage && self.step == oldSelf.step && self.baseModel == oldSelf.baseModel && self.format == oldSelf.format && self.storage == oldSelf.storage",
    "a Checkpoint is immutable but for deletionPolicy: make a new one"
))]
#[x_kube(validation = ("!has(self.storage.huggingFace)", "storage must be a volume or an objectStore"))]
pub struct CheckpointSpec {
    /// fineTune is the run that wrote it; absent for imported weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<RunReference>,
    /// attempt that wrote it.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempt: i64,
    /// lineage it belongs to.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub lineage: i64,
    /// step it was saved at, counted in optimizer updates.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub step: i64,
    /// baseModel is the BaseModel it was trained from.
    pub base_model: NameReference,
    /// format is Adapter (needs its base) or Model (stands alone).
    #[serde(default)]
    pub format: WeightsFormat,
    /// storage is the directory that holds its files.
    pub storage: Source,
    /// deletionPolicy says whether its files go with it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// The run that wrote a checkpoint.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RunReference {
    /// name of the FineTune.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// uid of the FineTune: a later one of the same name is another run.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// What kind of weights a checkpoint holds.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightsFormat {
    /// Adapter weights; serving needs the base model too.
    Adapter,
    /// All weights.
    #[default]
    Model,
}

/// What is known of a checkpoint.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStatus {
    /// observedGeneration is the generation of the spec this status was concluded from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// conditions: Ready, Reconciling, Stalled (kstatus).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::condition::schema")]
    pub conditions: Vec<Condition>,
    /// phase sums the conditions up for people.
    #[serde(default)]
    pub phase: CheckpointPhase,
    /// savedAt is when its last file was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_at: Option<Time>,
    /// metrics at its step by name, as decimals.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 64}))]
    pub metrics: BTreeMap<String, String>,
    /// sizeBytes of all its files.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub size_bytes: i64,
    /// fileCount of its files.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub file_count: i64,
    /// digest over paths, sizes and SHA-256 of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub digest: Option<String>,
    /// resumable is whether optimizer and scheduler state are there.
    #[serde(default)]
    pub resumable: bool,
    /// adapter is what adapter_config.json says, when the format is Adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterFacts>,
    /// samples the trainer wrote beside it, one JSON object each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub samples: Vec<String>,
    /// best is whether it is the best of its run by the run's metric.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub best: bool,
}

/// A checkpoint in one word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CheckpointPhase {
    /// Not verified yet.
    #[default]
    Pending,
    /// Whole and verified.
    Ready,
    /// Its files are damaged.
    Corrupt,
    /// Its files are gone.
    Missing,
    /// Its files are being removed.
    Deleting,
}

/// What an adapter needs of a server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AdapterFacts {
    /// rank is the greatest over all modules.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub rank: i64,
    /// targetModules it adapts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub target_modules: Vec<String>,
    /// modulesToSave are trained in full beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub modules_to_save: Vec<String>,
    /// baseModel as adapter_config.json names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub base_model: Option<String>,
}
