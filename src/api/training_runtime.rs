//! TrainingRuntime: a training script — image, command and the JSON Schema of its parameters.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements, SecurityContext};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// TrainingRuntime is a training script: image, command and the JSON Schema of its parameters.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "finetune.dev",
    version = "v1alpha1",
    kind = "TrainingRuntime",
    plural = "trainingruntimes",
    shortname = "trt",
    category = "finetuning",
    derive = "PartialEq",
    cel,
    doc = "TrainingRuntime is a training script: image, command and the JSON Schema of its parameters.",
    printcolumn(name = "SCRIPTS", type_ = "string", json_path = ".spec.scriptTypes"),
    printcolumn(name = "IMAGE", type_ = "string", json_path = ".spec.image"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.env) || self.env.all(e, !e.name.startsWith('PET_') && !e.name.startsWith('FINETUNE_') && !e.name.startsWith('KUBEFLOW_TRAINER_'))",
    "env names that start with PET_, FINETUNE_ or KUBEFLOW_TRAINER_ are set by the operator"
))]
pub struct TrainingRuntimeSpec {
    /// displayName is what people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub display_name: Option<String>,
    /// description is free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// scriptTypes are the names it answers to in REST (`script_type`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub script_types: Vec<String>,
    /// image of the trainer.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// command of the trainer. Required, since it is run under a wrapper; `$(NAME)` is expanded from env.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// args of the trainer; `$(NAME)` is expanded from env.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
    /// env of the trainer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "env")]
    pub env: Vec<EnvVar>,
    /// resources of the trainer beside those of the hardware profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// securityContext of the trainer, over the restricted one (uid 1000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// parameters the script takes.
    #[serde(default)]
    pub parameters: Parameters,
    /// bind names the keys of the parameters file under which paths and the seed are written.
    #[serde(default)]
    pub bind: Bindings,
    /// checkpointLayout is how checkpoints lie on disk.
    #[serde(default)]
    pub checkpoint_layout: CheckpointLayout,
    /// completion is Verified (success needs the recorded end of training) or ExitCode (exit 0 is enough).
    #[serde(default)]
    pub completion: Completion,
    /// distributed is how the processes of several GPUs and nodes find each other: None (the script sees to the GPUs of its node by itself,
    /// and runs on one node) or Torchrun (the command starts torchrun, which is configured by PET_ variables).
    #[serde(default)]
    pub distributed: Distributed,
    /// sharedMemory is the size of /dev/shm, as a Kubernetes quantity; half of the memory of the profile when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"))]
    pub shared_memory: Option<String>,
}

/// The parameters of a script.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parameters {
    /// schema is the JSON Schema (2020-12) of the parameters, under our names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "free_form")]
    pub schema: BTreeMap<String, serde_json::Value>,
    /// basic are the names a short form shows first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub basic: Vec<String>,
    /// defaults for what the user leaves out, under our names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "free_form")]
    pub defaults: BTreeMap<String, serde_json::Value>,
    /// rename gives the script's name for each of ours that differs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256, "additionalProperties" = {"type": "string", "minLength": 1, "maxLength": 128}))]
    pub rename: BTreeMap<String, String>,
}

/// Keys of the parameters file under which the operator writes what it knows.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bindings {
    /// baseModel is the key for the path or hub name of the base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub base_model: Option<String>,
    /// dataset is the key for the path or hub name of the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub dataset: Option<String>,
    /// validationDataset is the key for the path or hub name of the evaluation data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub validation_dataset: Option<String>,
    /// output is the key for the directory checkpoints are written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub output: Option<String>,
    /// resumeFrom is the key for the checkpoint to resume from; left out when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub resume_from: Option<String>,
    /// seed is the key for the random seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub seed: Option<String>,
}

/// How checkpoints lie on disk.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckpointLayout {
    /// `checkpoint-<step>` folders as Hugging Face Trainer writes them.
    #[default]
    HuggingFace,
}

/// What counts as the end of training.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completion {
    /// The recorded end of training; exit 0 alone is not believed.
    #[default]
    Verified,
    /// Exit code 0.
    ExitCode,
}

/// How the processes of a run find each other.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distributed {
    /// They do not: one command on one node.
    #[default]
    None,
    /// By the PET_ environment of torchrun.
    Torchrun,
}

/// Schema of a free-form object: its keys are kept as they come.
pub fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "maxProperties": 256})
}

/// Schema of a list of environment variables: bounded, keyed by name.
pub fn env(generator: &mut SchemaGenerator) -> Schema {
    let mut item = EnvVar::json_schema(generator);
    if let Some(name) = item.pointer_mut("/properties/name").and_then(serde_json::Value::as_object_mut) {
        name.insert("maxLength".into(), 256.into());
    }
    json_schema!({
        "type": "array",
        "maxItems": 128,
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"]
    })
}
