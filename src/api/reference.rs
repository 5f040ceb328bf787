//! References from one object to another, always by name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names an object of the kind the field stands for.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameReference {
    /// name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl NameReference {
    /// A reference to `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// Names a Checkpoint, possibly of another namespace.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointReference {
    /// name of the Checkpoint.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// namespace of the Checkpoint; the namespace of the referring object when absent. Another namespace needs a CheckpointPermission there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Names a directory of a PersistentVolumeClaim of the run's own namespace.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReference {
    /// claimName is the PersistentVolumeClaim, in the namespace of the run.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// path of the directory inside the volume; its root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
}
