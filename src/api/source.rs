//! Where bytes come from or go to: a volume, an object store or a model hub.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

const RELATIVE: &str = "!self.startsWith('/') && !self.split('/').exists(part, part == '..')";
const RELATIVE_MESSAGE: &str = "path must stay inside the volume: no leading '/', no '..'";

/// A place data is read from: exactly one of volume, objectStore and huggingFace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.volume), has(self.objectStore), has(self.huggingFace)].filter(given, given).size() == 1",
    "give exactly one of volume, objectStore and huggingFace"
))]
pub struct Source {
    /// volume is a path in a PersistentVolumeClaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// objectStore is a prefix in an S3-compatible bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStore>,
    /// huggingFace is a repository on the Hugging Face hub; it can only be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugging_face: Option<HuggingFace>,
}

/// A path in a PersistentVolumeClaim of the run's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// claimName is the PersistentVolumeClaim, looked up in the run's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// path of a file or directory inside the volume; its root when empty.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = (RELATIVE, RELATIVE_MESSAGE))]
    pub path: String,
}

/// A prefix in an S3-compatible bucket.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStore {
    /// uri is `s3://bucket/prefix`.
    #[schemars(length(max = 1024), regex(pattern = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?$"))]
    pub uri: String,
    /// secretName is a Secret of the run's namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN and AWS_REGION optional).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// endpoint of a store that is not AWS, for instance `http://minio.storage:9000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^\s]+$"))]
    pub endpoint: Option<String>,
}

/// A repository on the Hugging Face hub.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HuggingFace {
    /// repo is `organisation/name`, or a bare `name`.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$"))]
    pub repo: String,
    /// revision is a branch, tag or commit; the default branch when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub revision: Option<String>,
    /// secretName is a Secret of the run's namespace with the key HF_TOKEN, for gated or private repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}
