//! Figures of a run and of all runs, as Strongly shows them. Pure.

use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::job::JobStatus;
use crate::api::FineTune;
use crate::gateway::service::history::Point;
use crate::gateway::service::query::Counts;
use crate::gateway::service::{ids, parameters, standing};

/// The metrics of a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::MetricsResponse)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// The job.
    pub job_id: String,
    /// Its metrics.
    pub metrics: Metrics,
}

/// What the trainer measured: null where it said nothing.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::Metrics)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Newest loss over the training data.
    #[schema(value_type = Option<f64>)]
    pub training_loss: Value,
    /// Newest loss over the validation data.
    #[schema(value_type = Option<f64>)]
    pub validation_loss: Value,
    /// Passes over the data so far.
    #[schema(value_type = Option<f64>)]
    pub current_epoch: Value,
    /// Passes over the data altogether.
    #[schema(value_type = Option<f64>)]
    pub total_epochs: Value,
    /// Tokens it has trained on.
    pub trained_tokens: Option<i64>,
    /// Its curves, by step.
    pub steps: Vec<Step>,
}

/// What the trainer measured at one step.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::Step)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The step.
    pub step: i64,
    /// Loss over the training data.
    #[schema(value_type = Option<f64>)]
    pub training_loss: Value,
    /// Loss over the validation data.
    #[schema(value_type = Option<f64>)]
    pub validation_loss: Value,
    /// Learning rate.
    #[schema(value_type = Option<f64>)]
    pub learning_rate: Value,
}

/// How many jobs there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = strongly::Stats)]
pub struct Stats {
    /// All of them, the stopped ones included.
    pub total: usize,
    /// That train.
    pub running: usize,
    /// That are done.
    pub completed: usize,
    /// That cannot go on.
    pub failed: usize,
    /// That wait.
    pub queued: usize,
    /// That were ended or paused.
    pub stopped: usize,
}

/// The metrics of a run, and its curves.
#[must_use]
pub fn metrics(run: &FineTune, points: &[Point]) -> Figures {
    let progress = standing::progress(run);
    let newest = |name: &str| {
        let said = progress.and_then(|progress| progress.metrics.get(name)).map(|text| parameters::number(text));
        said.or_else(|| points.iter().rev().find_map(|point| point.metrics.get(name).cloned())).unwrap_or_default()
    };
    let number = |text: Option<&String>| text.map(|text| parameters::number(text)).unwrap_or_default();
    Figures {
        job_id: ids::run_id(&run.name_any()),
        metrics: Metrics {
            training_loss: newest("loss"),
            validation_loss: newest("eval_loss"),
            current_epoch: number(progress.and_then(|progress| progress.epoch.as_ref())),
            total_epochs: number(progress.and_then(|progress| progress.total_epochs.as_ref())),
            trained_tokens: progress.and_then(|progress| progress.trained_tokens),
            steps: points.iter().map(step).collect(),
        },
    }
}

fn step(point: &Point) -> Step {
    let metric = |name: &str| point.metrics.get(name).cloned().unwrap_or_default();
    Step {
        step: point.step,
        training_loss: metric("loss"),
        validation_loss: metric("eval_loss"),
        learning_rate: metric("learning_rate"),
    }
}

/// How many runs there are; `total` counts the stopped ones as well.
#[must_use]
pub fn stats(counts: &Counts) -> Stats {
    let of = |status: JobStatus| counts.of(&status.phases());
    Stats {
        total: counts.total(),
        running: of(JobStatus::Running),
        completed: of(JobStatus::Completed),
        failed: of(JobStatus::Failed),
        queued: of(JobStatus::Queued),
        stopped: of(JobStatus::Stopped),
    }
}
