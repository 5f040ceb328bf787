//! What paths and queries of Oxen name.

use serde::Deserialize;
use utoipa::IntoParams;

use super::run::Status;
use crate::gateway::asked::{Flag, Length, Number, Wait};

/// In which repository.
#[derive(Deserialize, IntoParams)]
pub struct Place {
    /// Namespace
    pub namespace: String,
    /// Repository: a label of runs, and the claim that holds the files of the repository
    pub repository: String,
}

/// Which fine-tune of a repository is meant.
#[derive(Deserialize, IntoParams)]
pub struct At {
    /// Namespace
    pub namespace: String,
    /// Repository
    pub repository: String,
    /// Id of the fine-tune, or the name of its FineTune
    pub id: String,
}

/// Which checkpoint of a fine-tune is meant.
#[derive(Deserialize, IntoParams)]
pub struct AtStep {
    /// Namespace
    pub namespace: String,
    /// Repository
    pub repository: String,
    /// Id of the fine-tune, or the name of its FineTune
    pub id: String,
    /// The step at which the checkpoint was saved
    #[param(value_type = i64)]
    pub step: String,
}

/// Which fine-tunes are listed.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default)]
pub struct FineTunes {
    /// Which page, from 1
    #[param(inline)]
    pub page: Number<1, 1>,
    /// Fine-tunes on a page; more than 100 count as 100
    #[param(inline)]
    pub page_size: Length<10>,
    /// Only those whose name or description contains this
    pub search: Option<String>,
    /// Only those that are so far
    #[param(inline)]
    pub status: Option<Status>,
    /// By when they were made
    #[param(inline)]
    pub sort: Order,
}

/// An order by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The newest first.
    #[default]
    Newest,
    /// The oldest first.
    Oldest,
}

/// How to deploy.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default)]
pub struct Deploying {
    /// If true, what serves this checkpoint is removed first
    #[param(inline)]
    pub retry: Flag,
    /// Seconds the answer may wait until it is done
    #[param(inline)]
    pub wait: Wait,
}
