//! What a run cost, as its status tells it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What a run cost. Amounts are decimals, computed exactly.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// perHour while all nodes of the newest attempt run, as a decimal.
    #[schemars(length(max = 32))]
    pub per_hour: String,
    /// gpuSeconds held: a node counts from the moment it took the pod until the last container ended.
    #[schemars(range(min = 0))]
    pub gpu_seconds: i64,
    /// seconds in which at least one node was held, of all attempts: what spec.budget.maxDuration limits. Neither waiting nor a pause counts.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub seconds: i64,
    /// accrued amount, as a decimal exact to a millionth: what spec.budget.maxCost limits.
    #[schemars(length(max = 32))]
    pub accrued: String,
    /// currency as an ISO 4217 code.
    #[schemars(length(max = 3))]
    pub currency: String,
    /// asOf is the moment the amounts stand for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
}
