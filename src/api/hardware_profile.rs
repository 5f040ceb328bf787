//! HardwareProfile: a GPU shape with a price.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// HardwareProfile is a GPU shape with a price.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "finetune.dev",
    version = "v1alpha1",
    kind = "HardwareProfile",
    plural = "hardwareprofiles",
    shortname = "hw",
    category = "finetuning",
    derive = "PartialEq",
    cel,
    doc = "HardwareProfile is a GPU shape with a price.",
    printcolumn(name = "GPU", type_ = "integer", json_path = ".spec.gpu.count"),
    printcolumn(name = "GPU MEMORY", type_ = "string", json_path = ".spec.gpu.memory"),
    printcolumn(name = "COST/H", type_ = "string", json_path = ".spec.costPerHour"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct HardwareProfileSpec {
    /// displayName is what people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub display_name: Option<String>,
    /// gpu of each node of a run.
    #[serde(default)]
    pub gpu: Gpu,
    /// cpu asked for by the trainer on each node, as a Kubernetes quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?m?$"))]
    pub cpu: Option<String>,
    /// memory asked for (and the limit) on each node, as a Kubernetes quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"))]
    pub memory: Option<String>,
    /// nodeSelector the pods carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,
    /// tolerations the pods carry, beside the one for the taint of the GPU resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// costPerHour of one node of this shape, as a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub cost_per_hour: Option<String>,
    /// currency of costPerHour, as an ISO 4217 code.
    #[serde(default = "dollars")]
    #[schemars(length(max = 3), regex(pattern = r"^[A-Z]{3}$"))]
    pub currency: String,
}

fn dollars() -> String {
    "USD".into()
}

/// The GPUs of one node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// resourceName is the extended resource that counts them.
    #[serde(default = "nvidia")]
    #[schemars(length(min = 1, max = 253))]
    pub resource_name: String,
    /// count of GPUs on each node; 0 trains on CPU.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 64))]
    pub count: i32,
    /// memory of one GPU, for people and for hints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub memory: Option<String>,
    /// product is the value of the node label `nvidia.com/gpu.product` that pods ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub product: Option<String>,
}

impl Default for Gpu {
    fn default() -> Self {
        Self { resource_name: nvidia(), count: one(), memory: None, product: None }
    }
}

fn nvidia() -> String {
    "nvidia.com/gpu".into()
}

const fn one() -> i32 {
    1
}
