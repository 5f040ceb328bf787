//! FineTune: one training run, as its user asks for it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, LocalObjectReference};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CheckpointReference, ClaimReference, FineTuneStatus, NameReference, ObjectStore, Source};

/// FineTune is one training run: a base model, data, a script, parameters and hardware.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "finetune.dev", version = "v1alpha1", kind = "FineTune", plural = "finetunes", shortname = "ft",
    category = "finetuning", namespaced, derive = "PartialEq", derive = "Default", cel, status = "FineTuneStatus",
    doc = "FineTune is one training run: a base model, data, a script, parameters and hardware.",
    validation = ("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must be at most 40 characters of lower-case letters, digits and '-', starting with a letter"),
    selectable = ".spec.baseModel.name",
    selectable = ".status.phase",
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "PROGRESS", type_ = "string", json_path = ".status.progress.summary"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.progress.eta"),
    printcolumn(name = "LOSS", type_ = "string", json_path = ".status.progress.metrics.loss"),
    printcolumn(name = "GPU", type_ = "integer", json_path = ".status.resolved.gpus"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "MODEL", type_ = "string", json_path = ".spec.baseModel.name", priority = 1),
    printcolumn(name = "CHECKPOINT", type_ = "string", json_path = ".status.latestCheckpoint", priority = 1),
    printcolumn(name = "COST", type_ = "string", json_path = ".status.cost.accrued", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.baseModel == oldSelf.baseModel", "baseModel is immutable: make a new FineTune to train another model"))]
#[x_kube(validation = (
    "has(self.output) == has(oldSelf.output) && (!has(self.output) || self.output == oldSelf.output)",
    "output is immutable: make a new FineTune to write elsewhere"
))]
#[x_kube(validation = (
    "oldSelf.desiredState != 'Stopped' || self.desiredState == 'Stopped' || self.restarts > oldSelf.restarts",
    "a stopped run goes on only with a new attempt: raise restarts together with desiredState"
))]
#[x_kube(validation = ("self.restarts >= oldSelf.restarts", "restarts counts up: it cannot be lowered"))]
pub struct FineTuneSpec {
    /// displayName is what people call the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub display_name: Option<String>,
    /// description is free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// suffix of the name of the served model in the REST dialects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub suffix: Option<String>,
    /// metadata is up to 16 string pairs that lists can be filtered by (key up to 64 characters, value up to 512).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 512}))]
    #[x_kube(validation = ("self.all(key, key.size() <= 64)", "metadata keys must be at most 64 characters"))]
    pub metadata: BTreeMap<String, String>,
    /// baseModel is the BaseModel to start from. Immutable.
    pub base_model: NameReference,
    /// dataset is a Dataset by name, or the sources themselves.
    pub dataset: DatasetChoice,
    /// runtime is the TrainingRuntime; the one marked as default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<NameReference>,
    /// trainer overrides parts of the runtime's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainer: Option<TrainerOverrides>,
    /// parameters of the script, free-form; checked against the JSON Schema of the runtime.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "super::training_runtime::free_form")]
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// hardware is a HardwareProfile and a number of nodes; the default profile when absent.
    #[serde(default)]
    pub hardware: HardwareChoice,
    /// output is where checkpoints are written; the operator's setting when absent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// checkpoints says which checkpoints are kept.
    #[serde(default)]
    pub checkpoints: CheckpointPolicy,
    /// desiredState is Running, Paused or Stopped; the latter two end the pods gracefully and keep every checkpoint.
    #[serde(default)]
    pub desired_state: DesiredState,
    /// restarts is raised to start a new attempt of a run that failed, stopped or succeeded.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub restarts: i64,
    /// startFrom says what a new attempt begins with.
    #[serde(default)]
    pub start_from: StartFrom,
    /// retries is how many failures are survived, by an attempt on one node or by all attempts of a run on several nodes; evictions and
    /// preemptions are never counted.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 100))]
    pub retries: i32,
    /// budget ends the run gracefully when it is spent: its pods are given time to save and end, its checkpoints stay, and it fails with
    /// BudgetExceeded or DeadlineExceeded. Only time counts in which pods held nodes: loading data and saving at the end do, waiting and
    /// pauses do not. An edit counts at once, also for a running attempt. To go on, raise the limit together with restarts. A paused run with
    /// nothing left waits, when it is set Running, until the limit is raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// queue puts the run into a Kueue LocalQueue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// autoDeploy serves a checkpoint as soon as there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_deploy: Option<AutoDeploy>,
    /// visibility is Private, or Public: one CheckpointPermission for every namespace of the cluster.
    #[serde(default)]
    pub visibility: Visibility,
}

const fn three() -> i32 {
    3
}

const fn one() -> i32 {
    1
}

/// Training data: the name of a Dataset, or the sources themselves.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.name) != has(self.training)", "give either name (of a Dataset) or training (a source)"))]
#[x_kube(validation = ("!has(self.validation) || has(self.training)", "validation goes with training; a named Dataset has its own"))]
pub struct DatasetChoice {
    /// name of a Dataset in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// training is where the training rows are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Source>,
    /// validation is where the rows for evaluation are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Source>,
}

/// What a run changes about the runtime's container.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.env) || self.env.all(e, !e.name.startsWith('PET_') && !e.name.startsWith('FINETUNE_') && !e.name.startsWith('KUBEFLOW_TRAINER_'))",
    "env names that start with PET_, FINETUNE_ or KUBEFLOW_TRAINER_ are set by the operator"
))]
pub struct TrainerOverrides {
    /// image instead of the runtime's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// command instead of the runtime's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// args instead of the runtime's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
    /// env beside (and over) the runtime's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::training_runtime::env")]
    pub env: Vec<EnvVar>,
    /// envFrom beside the runtime's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub env_from: Vec<EnvFromSource>,
    /// imagePullSecrets of the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// serviceAccountName of the pods; its token is never mounted into the trainer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
}

/// A HardwareProfile and how many nodes of it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HardwareChoice {
    /// profile is the HardwareProfile; the one marked as default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub profile: Option<String>,
    /// nodes the run is spread over. More than one needs a runtime with distributed: Torchrun and an output all nodes can write to; when one
    /// node fails, all begin again from the last good checkpoint.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024))]
    pub nodes: i32,
}

impl Default for HardwareChoice {
    fn default() -> Self {
        Self { profile: None, nodes: one() }
    }
}

/// Where checkpoints are written: exactly one of volume, volumeTemplate and objectStore.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.volume), has(self.volumeTemplate), has(self.objectStore)].filter(given, given).size() == 1",
    "give exactly one of volume, volumeTemplate and objectStore"
))]
pub struct Output {
    /// volume is a directory of an existing claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (
        "!has(self.path) || (!self.path.startsWith('/') && !self.path.split('/').exists(part, part == '..'))",
        "path must stay inside the volume: no leading '/', no '..'"
    ))]
    pub volume: Option<ClaimReference>,
    /// volumeTemplate is a claim made for this run; it goes with its last Checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_template: Option<VolumeTemplate>,
    /// objectStore is a prefix in an S3-compatible bucket; checkpoints are uploaded as they complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStore>,
}

/// A claim made for one run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeTemplate {
    /// size of the claim, as a Kubernetes quantity.
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"))]
    pub size: String,
    /// storageClassName of the claim; the default class when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// accessModes of the claim; when empty ReadWriteOnce, or ReadWriteMany for a run on several nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub access_modes: Vec<String>,
}

/// Which checkpoints are kept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointPolicy {
    /// keepLast is how many of the newest are kept; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_last: Option<i32>,
    /// keepBest is how many of the best by metric are kept beside the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_best: Option<i32>,
    /// metric that ranks checkpoints.
    #[serde(default = "eval_loss")]
    #[schemars(length(min = 1, max = 64))]
    pub metric: String,
    /// goal is whether a small or a large metric is good.
    #[serde(default)]
    pub goal: Goal,
    /// deletionPolicy of the checkpoints when the FineTune is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            keep_last: None,
            keep_best: None,
            metric: eval_loss(),
            goal: Goal::default(),
            deletion_policy: DeletionPolicy::default(),
        }
    }
}

fn eval_loss() -> String {
    "eval_loss".into()
}

/// Whether a small or a large value of a metric is good.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// Smaller is better.
    #[default]
    Minimize,
    /// Larger is better.
    Maximize,
}

/// What happens to bytes when their object goes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The bytes go with the object.
    #[default]
    Delete,
    /// The bytes stay.
    Retain,
}

/// What the user wants the run to do.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DesiredState {
    /// Train.
    #[default]
    Running,
    /// End the pods gracefully, go on later.
    Paused,
    /// End the pods gracefully, for good.
    Stopped,
}

/// What a new attempt begins with.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StartFrom {
    /// policy is LastCheckpoint (the last good one) or Scratch (a new lineage).
    #[serde(default)]
    pub policy: StartPolicy,
    /// checkpoint to begin with, possibly of another run of the same base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointReference>,
}

/// Where a new attempt begins.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartPolicy {
    /// At the last good checkpoint of the current lineage.
    #[default]
    LastCheckpoint,
    /// At the base model, in a new lineage.
    Scratch,
}

/// Limits that end a run gracefully.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// maxCost of all attempts together, as a decimal in the profile's currency, such as `25.00`; see status.cost.accrued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub max_cost: Option<String>,
    /// maxDuration of all attempts together, such as `6h`, `90m` or `1h30m`; see status.cost.seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    pub max_duration: Option<String>,
}

/// A place in a Kueue queue.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// name of the LocalQueue.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// priorityClass is a Kueue WorkloadPriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub priority_class: Option<String>,
}

/// Which checkpoint to serve without being asked, and how.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AutoDeploy {
    /// checkpoint is Best or Last.
    #[serde(default)]
    pub checkpoint: DeployWhich,
    /// type of serving.
    #[serde(default, rename = "type")]
    pub type_: ServingType,
    /// replicas of the server.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
}

/// Which checkpoint of a run is served.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeployWhich {
    /// The best by spec.checkpoints.metric.
    #[default]
    Best,
    /// The newest.
    Last,
}

/// How a checkpoint is served.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum ServingType {
    /// The server tuned for speed.
    Fast,
    /// The ordinary server.
    #[default]
    Normal,
}

/// Who in the cluster may use the checkpoints of a run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// The run's own namespace.
    #[default]
    Private,
    /// Every namespace of the cluster.
    Public,
}
