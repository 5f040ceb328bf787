//! FineTuneHistory: what a run leaves to read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// FineTuneHistory is what a run leaves to read: series, events and log tails. It has the name of its run.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "finetune.dev",
    version = "v1alpha1",
    kind = "FineTuneHistory",
    plural = "finetunehistories",
    shortname = "fth",
    category = "finetuning",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    cel,
    doc = "FineTuneHistory is what a run leaves to read: series, events and log tails. It has the name of its run; the full history lies beside the checkpoints.",
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FineTuneHistorySpec {
    /// series of metrics by name, downsampled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub series: Vec<Series>,
    /// events of the run, oldest first; the last 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub events: Vec<HistoryEvent>,
    /// earlierSaves sums up what was saved before the events that are left: each of these saves has had its Checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub earlier_saves: Vec<EarlierSaves>,
    /// logs are the last lines of each of the last attempts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["attempt"]))]
    pub logs: Vec<AttemptLog>,
}

/// One metric over the steps of a run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// name of the metric.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// steps the values belong to, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<i64>,
    /// values as decimals, one a step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 32)), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

/// Something that happened to a run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEvent {
    /// time it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// level is info, warn or error.
    #[schemars(length(max = 16))]
    pub level: String,
    /// reason in CamelCase.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// message for people.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Saves of which no event is left.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EarlierSaves {
    /// lineage they belong to.
    #[schemars(range(min = 1))]
    pub lineage: i64,
    /// attempt is the last that saved some of them.
    #[schemars(range(min = 1))]
    pub attempt: i64,
    /// upToStep is the highest step among them.
    #[schemars(range(min = 0))]
    pub up_to_step: i64,
}

/// The last lines an attempt wrote.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AttemptLog {
    /// attempt that wrote them.
    #[schemars(range(min = 1))]
    pub attempt: i64,
    /// lines, oldest first, each beginning with its RFC 3339 time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(max = 2048)), extend("x-kubernetes-list-type" = "atomic"))]
    pub lines: Vec<String>,
}
