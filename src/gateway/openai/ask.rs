//! What paths and queries of OpenAI name.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::gateway::asked::Length;

/// Which job is meant.
#[derive(Deserialize, IntoParams)]
pub struct Job {
    /// Id of the job, or the name of its FineTune
    pub id: String,
}

/// Which checkpoint is meant.
#[derive(Deserialize, IntoParams)]
pub struct Checkpoint {
    /// Id of the checkpoint, the name of its Checkpoint, or `ft:MODEL:ORG:SUFFIX:JOB:ckpt-step-N`; colons may be percent-encoded
    pub checkpoint: String,
}

/// Which permission of which checkpoint is meant.
#[derive(Deserialize, IntoParams)]
pub struct Permission {
    /// Id of the checkpoint, the name of its Checkpoint, or `ft:MODEL:ORG:SUFFIX:JOB:ckpt-step-N`; colons may be percent-encoded
    pub checkpoint: String,
    /// Id of the permission
    pub permission: String,
}

/// Which jobs are listed.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default)]
pub struct Jobs {
    /// Id of the job after which the page begins
    pub after: Option<String>,
    /// Jobs on the page; more than 100 count as 100
    #[param(inline)]
    pub limit: Length<20>,
    /// Only jobs with this metadata: `metadata[key]=value`
    #[param(style = DeepObject, explode)]
    pub metadata: BTreeMap<String, String>,
}

/// Which events are listed.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default)]
pub struct Events {
    /// Id of the event after which the page begins
    pub after: Option<String>,
    /// Events on the page; more than 100 count as 100
    #[param(inline)]
    pub limit: Length<20>,
}

/// Which checkpoints are listed.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default)]
pub struct Checkpoints {
    /// Id of the checkpoint after which the page begins
    pub after: Option<String>,
    /// Checkpoints on the page; more than 100 count as 100
    #[param(inline)]
    pub limit: Length<10>,
}

/// Which permissions are listed.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default)]
pub struct Permissions {
    /// Only that of this project
    pub project_id: Option<String>,
    /// Id of the permission after which the page begins
    pub after: Option<String>,
    /// Permissions on the page; more than 100 count as 100
    #[param(inline)]
    pub limit: Length<10>,
    /// By when they were given
    #[param(inline)]
    pub order: Order,
}

/// An order by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The oldest first.
    Ascending,
    /// The newest first.
    #[default]
    Descending,
}
