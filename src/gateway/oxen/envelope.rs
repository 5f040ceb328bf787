//! The answers of Oxen around what they are about. Pure.

use serde::Serialize;
use utoipa::ToSchema;

use super::left::{Model, SavedCheckpoint};
use super::run::FineTune;
use crate::gateway::service::{deployments, logs};

/// That the request was fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = oxen::Success)]
#[serde(rename_all = "lowercase")]
pub enum Success {
    /// It was.
    Success,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = oxen::Message)]
pub enum Message {
    /// It was read.
    #[serde(rename = "resource_found")]
    Found,
    /// It was made.
    #[serde(rename = "resource_created")]
    Created,
    /// It was changed.
    #[serde(rename = "resource_updated")]
    Updated,
    /// It is going.
    #[serde(rename = "resource_deleted")]
    Deleted,
}

/// One fine-tune.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::FineTuneResponse)]
pub struct One {
    /// The fine-tune.
    pub fine_tune: FineTune,
    /// Always `success`.
    pub status: Success,
    /// What was done.
    pub status_message: Message,
}

impl One {
    /// The envelope around one fine-tune.
    #[must_use]
    pub const fn new(fine_tune: FineTune, status_message: Message) -> Self {
        Self { fine_tune, status: Success::Success, status_message }
    }
}

/// A page of fine-tunes.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::FineTuneList)]
pub struct Many {
    /// The fine-tunes of the page.
    pub fine_tunes: Vec<FineTune>,
    /// Which page it is, from 1.
    pub page_number: usize,
    /// How many fine-tunes a page has.
    pub page_size: usize,
    /// How many fine-tunes there are.
    pub total_entries: usize,
    /// How many pages there are.
    pub total_pages: usize,
    /// Always `success`.
    pub status: Success,
    /// Always `resource_found`.
    pub status_message: Message,
}

/// That it was done.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::Done)]
pub struct Done {
    /// Always `success`.
    pub status: Success,
    /// What was done.
    pub status_message: Message,
}

/// The checkpoints of a fine-tune.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::CheckpointListResponse)]
pub struct Checkpoints {
    /// `lineage-` and how often training has begun anew.
    pub branch: String,
    /// Those that were verified, by step ascending.
    pub checkpoints: Vec<SavedCheckpoint>,
    /// The fine-tune they are of.
    pub fine_tune_id: String,
    /// Always `success`.
    pub status: Success,
    /// Always `resource_found`.
    pub status_message: Message,
    /// How many they are.
    pub total_checkpoints: usize,
}

/// A checkpoint that is deployed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::DeployResponse)]
pub struct Deployed {
    /// Id of the deployment.
    pub deployment_id: Option<String>,
    /// The fine-tune the checkpoint is of.
    pub fine_tune: FineTune,
    /// What serves it.
    pub model: Model,
    /// Always `success`: the request was fulfilled. How far the model is, `status_message` and the model say.
    pub status: Success,
    /// How far the model is.
    pub status_message: deployments::Word,
}

/// The log of a fine-tune.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::LogResponse)]
pub struct Log {
    /// The fine-tune.
    pub fine_tune_id: String,
    /// Its lines, the oldest first.
    pub logs: Vec<logs::Line>,
    /// Always `success`.
    pub status: Success,
    /// Always `resource_found`.
    pub status_message: Message,
}
