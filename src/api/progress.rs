//! How far a run has come, as its trainer says.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the trainer last said of itself. Only the report server writes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// attempt this is about.
    #[schemars(range(min = 0))]
    pub attempt: i64,
    /// step, counted in optimizer updates.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub step: i64,
    /// totalSteps planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub total_steps: Option<i64>,
    /// percent of the planned steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// epoch reached, as a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub epoch: Option<String>,
    /// totalEpochs planned, as a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub total_epochs: Option<String>,
    /// trainedTokens so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub trained_tokens: Option<i64>,
    /// estimatedRemainingSeconds as of lastReportTime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub estimated_remaining_seconds: Option<i64>,
    /// lastReportTime is when the trainer said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_report_time: Option<Time>,
    /// metrics by name, as decimals.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 64}))]
    pub metrics: BTreeMap<String, String>,
    /// endedBy is the uid of the pod whose last report has arrived: nothing more is to come from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub ended_by: Option<String>,
    /// resumedFrom is the step the attempt really began with, as its pod found it on the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub resumed_from: Option<i64>,
    /// summary for people, such as `40% 120/300`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub summary: Option<String>,
    /// eta for people, such as `12m`, as of lastReportTime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub eta: Option<String>,
}
