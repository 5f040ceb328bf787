//! Dataset: named training data.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::Source;

/// Dataset names training data, so that runs can refer to it by name.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "finetune.dev",
    version = "v1alpha1",
    kind = "Dataset",
    plural = "datasets",
    shortname = "ds",
    category = "finetuning",
    namespaced,
    derive = "PartialEq",
    cel,
    doc = "Dataset names training data, so that runs can refer to it by name.",
    printcolumn(name = "DISPLAY NAME", type_ = "string", json_path = ".spec.displayName"),
    printcolumn(name = "VERSION", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DatasetSpec {
    /// displayName is what people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub display_name: Option<String>,
    /// training is where the training rows are.
    pub training: Source,
    /// validation is where the rows for evaluation are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Source>,
    /// version of the data, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
}
