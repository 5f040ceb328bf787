//! What Strongly answers that is no whole job. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use utoipa::ToSchema;

use super::job::{JobStatus, Summary, called, status};
use crate::api::FineTune;
use crate::gateway::service::deployments::Word;
use crate::gateway::service::{ids, logs, standing};

/// A page of jobs.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::JobList)]
pub struct Jobs {
    /// How many jobs there are, on all pages.
    pub count: usize,
    /// How many a page has.
    pub limit: usize,
    /// How many come before this page.
    pub offset: usize,
    /// The jobs of this page.
    pub jobs: Vec<Summary>,
}

/// A job that was just made.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::CreatedJob)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// `ftjob-` and the name of the FineTune.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Name of the base model.
    pub base_model: String,
    /// How far it is.
    pub status: JobStatus,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}

/// A job that was just changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::ChangedJob)]
pub struct Changed {
    /// `ftjob-` and the name of the FineTune.
    pub id: String,
    /// How far it is.
    pub status: JobStatus,
    /// What was done.
    pub message: &'static str,
}

/// A model that is deployed, or on its way.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::DeployedJob)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// The job.
    pub id: String,
    /// The name the model answers to.
    pub result_model: String,
    /// How far it is.
    pub status: Word,
    /// The same in a sentence.
    pub message: &'static str,
}

/// The log of a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::LogResponse)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// The job.
    pub job_id: String,
    /// Its lines, the oldest first.
    pub logs: Vec<logs::Line>,
}

/// A run that was just made.
#[must_use]
pub fn created(run: &FineTune) -> Created {
    Created {
        id: ids::run_id(&run.name_any()),
        name: called(run),
        base_model: run.spec.base_model.name.clone(),
        status: status(standing::phase(run)),
        created_at: standing::created(run),
    }
}

/// A run that was just changed.
#[must_use]
pub fn changed(run: &FineTune, message: &'static str) -> Changed {
    Changed { id: ids::run_id(&run.name_any()), status: status(standing::phase(run)), message }
}
