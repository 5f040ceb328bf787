//! Labels, annotations and finalizers: the words by which our objects are found again.

use k8s_openapi::api::core::v1 as corev1;
use kube::ResourceExt;

/// Carried by the object that stands in for what a spec leaves out, as a default StorageClass does.
pub const IS_DEFAULT: &str = "finetune.dev/is-default";

/// Label: uid of the FineTune an object belongs to.
pub const FINE_TUNE_UID: &str = "finetune.dev/fine-tune-uid";

/// Label: name of the FineTune an object belongs to.
pub const FINE_TUNE: &str = "finetune.dev/fine-tune";

/// Label: number of the attempt a Job or Pod carries out.
pub const ATTEMPT: &str = "finetune.dev/attempt";

/// Label: what a Job of ours is for; see [`Role`](self).
pub const ROLE: &str = "finetune.dev/role";

/// Value of [`ROLE`]: trains.
pub const ROLE_TRAIN: &str = "train";

/// Value of [`ROLE`]: reads the manifests a finished run left and reports them.
pub const ROLE_COLLECT: &str = "collect";

/// Value of [`ROLE`]: verifies the files of a hand-written Checkpoint.
pub const ROLE_IMPORT: &str = "import";

/// Value of [`ROLE`]: removes files.
pub const ROLE_DELETE: &str = "delete";

/// Value of [`ROLE`]: serves a model.
pub const ROLE_SERVE: &str = "serve";

/// Value of [`ROLE`]: hands a checkpoint out to other namespaces.
pub const ROLE_EXPORT: &str = "export";

/// Label: name of the Deployment of ours an object works for.
pub const DEPLOYMENT: &str = "finetune.dev/deployment";

/// Label: uid of the Deployment of ours an object works for.
pub const DEPLOYMENT_UID: &str = "finetune.dev/deployment-uid";

/// Annotation: fingerprint of what was wanted when the object was written, so that defaults the API server fills in are no difference.
pub const REVISION: &str = "finetune.dev/revision";

/// Annotation of a Deployment of ours that a run made by itself: what it last wrote there, and what could not be served.
pub const AUTO_DEPLOY: &str = "finetune.dev/auto-deploy";

/// Annotation of a serving pod: value of `restarts` it was made for.
pub const RESTARTS: &str = "finetune.dev/restarts";

/// Annotation of a serving pod: name of the Checkpoint it serves.
pub const CHECKPOINT: &str = "finetune.dev/checkpoint";

/// Annotation of a serving pod: namespace of the Checkpoint it serves, where that is another than its own.
pub const CHECKPOINT_NAMESPACE: &str = "finetune.dev/checkpoint-namespace";

/// Label: uid of the Checkpoint a Job or claim serves.
pub const CHECKPOINT_UID: &str = "finetune.dev/checkpoint-uid";

/// Label: name of the base model of a Checkpoint.
pub const BASE_MODEL: &str = "finetune.dev/base-model";

/// Label: step of a Checkpoint.
pub const STEP: &str = "finetune.dev/step";

/// Annotation: who created the object, stamped by the gateway.
pub const CREATED_BY: &str = "finetune.dev/created-by";

/// Finalizer of a FineTune: pods ended, checkpoints and folder removed.
pub const FINE_TUNE_FINALIZER: &str = "finetune.dev/run";

/// Finalizer of a Checkpoint: its bytes removed.
pub const CHECKPOINT_FINALIZER: &str = "finetune.dev/files";

/// The standard label that names the manager of an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Our value of [`MANAGED_BY`].
pub const MANAGER: &str = "finetune-operator";

/// Annotation the Job controller puts on each pod of an indexed Job: its rank.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Rank of a pod among the nodes of its attempt; 0 when it does not say, since it is alone then.
#[must_use]
pub fn rank(pod: &corev1::Pod) -> u32 {
    pod.annotations().get(COMPLETION_INDEX).and_then(|index| index.parse().ok()).unwrap_or(0)
}
