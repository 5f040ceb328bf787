//! BaseModel: a model that may be fine-tuned.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::Source;

/// BaseModel is a model that may be fine-tuned.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "finetune.dev",
    version = "v1alpha1",
    kind = "BaseModel",
    plural = "basemodels",
    shortname = "bm",
    category = "finetuning",
    derive = "PartialEq",
    cel,
    doc = "BaseModel is a model that may be fine-tuned.",
    printcolumn(name = "PROVIDER", type_ = "string", json_path = ".spec.provider"),
    printcolumn(name = "PARAMETERS", type_ = "string", json_path = ".spec.parameterCount"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BaseModelSpec {
    /// displayName is what people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub display_name: Option<String>,
    /// aliases are canonical names that also find it, such as `meta-llama/Llama-3.2-1B`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub aliases: Vec<String>,
    /// provider is who published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub provider: Option<String>,
    /// parameterCount is its size as people say it, such as `1B`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub parameter_count: Option<String>,
    /// maxSequenceLength in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_sequence_length: Option<i64>,
    /// supportedTasks such as `text-generation`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub supported_tasks: Vec<String>,
    /// source is where the weights are. Claims and secrets are looked up in the run's namespace.
    pub source: Source,
    /// tokensPerSecond trained on one GPU, by name of HardwareProfile: what estimates of time and cost start from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub tokens_per_second: BTreeMap<String, i64>,
}
