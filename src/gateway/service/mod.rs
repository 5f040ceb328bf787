//! What callers can do, in no dialect: over our kinds, with the caller's own rights. Dialects translate to and from this.

pub mod actions;
pub mod catalogue;
pub mod checkpoints;
mod chunks;
pub mod cluster;
pub mod create;
pub mod deployments;
pub mod estimate;
pub mod history;
pub mod ids;
pub mod logs;
pub mod parameters;
pub mod permissions;
pub mod query;
pub mod recent;
pub mod room;
pub mod runs;
pub mod sources;
pub mod standing;
pub mod transitions;

use std::sync::Arc;

use super::identity::{CallerKey, Identity};
use cluster::Cluster;
use recent::Recent;

/// Annotation: what the create called the training data, where it was resolved to a place.
pub const TRAINING_FILE: &str = "finetune.dev/training-file";
/// Annotation: the same of the rows for evaluation.
pub const VALIDATION_FILE: &str = "finetune.dev/validation-file";
/// Annotation: fingerprint of the request that made the object, so that the same key is not used for another.
pub const REQUEST: &str = "finetune.dev/request";
/// Label: the repository a run belongs to, where the dialect has such.
pub const REPOSITORY: &str = "finetune.dev/repository";

/// One caller in one project.
#[derive(Clone)]
pub struct Session {
    /// What the caller may see and do.
    pub cluster: Cluster,
    /// Who calls.
    pub identity: Arc<Identity>,
    /// The project: a namespace.
    pub project: String,
    /// What stands for the caller where something is remembered.
    pub key: CallerKey,
    /// What callers read of the catalogue a moment ago.
    pub recent: Recent,
}
