//! A run as Strongly shows it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::{FineTune, FineTunePhase as Phase, names};
use crate::gateway::service::parameters;
use crate::gateway::service::runs::Surroundings;
use crate::gateway::service::{ids, standing};

/// A job in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::JobSummary)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// `ftjob-` and the name of the FineTune.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Name of the base model.
    pub base_model: String,
    /// How far it is.
    pub status: JobStatus,
    /// What it is for.
    pub description: Option<String>,
    /// Who made it; null where it was not made here.
    pub owner: Option<String>,
    /// Namespace it belongs to.
    pub organization_id: Option<String>,
    /// Tokens it has trained on; null before it has begun.
    pub trained_tokens: Option<i64>,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When anything about it last changed.
    pub updated_at: Option<Timestamp>,
}

/// A fine-tuning job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::FineTuningJob)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// What lists show of it.
    #[serde(flatten)]
    pub summary: Summary,
    /// What it trains on, as the create named it.
    pub training_dataset: String,
    /// The same.
    pub training_file: String,
    /// What it is evaluated on, as the create named it.
    pub validation_file: Option<String>,
    /// What it trains with.
    pub hyperparameters: Hyperparameters,
    /// What the name of the resulting model ends with.
    pub suffix: Option<String>,
    /// Name of the resulting model; null until it is completed.
    pub result_model: Option<String>,
    /// Why it has failed, if it has.
    pub error: Option<JobError>,
    /// How good it is.
    pub metrics: JobMetrics,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = strongly::JobStatus)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// It is prepared, or waits for hardware.
    Queued,
    /// It trains.
    Running,
    /// It is done.
    Completed,
    /// It cannot go on: see `error`.
    Failed,
    /// It was ended or paused; its checkpoints stay.
    Stopped,
}

impl JobStatus {
    /// The phases it stands for.
    #[must_use]
    pub fn phases(self) -> Vec<Phase> {
        match self {
            Self::Queued => vec![Phase::Pending, Phase::Preparing, Phase::Queued],
            Self::Running => vec![Phase::Running, Phase::Pausing, Phase::Stopping],
            Self::Stopped => vec![Phase::Paused, Phase::Stopped],
            Self::Completed => vec![Phase::Succeeded],
            Self::Failed => vec![Phase::Failed],
        }
    }

    /// The word itself.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// What a job trains with, the script's defaults included: null where nobody says.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::Hyperparameters)]
#[serde(rename_all = "camelCase")]
pub struct Hyperparameters {
    /// Passes over the data.
    pub epochs: Value,
    /// Learning rate.
    pub learning_rate: Value,
    /// Examples a device takes at once.
    pub batch_size: Value,
    /// Steps until the learning rate is reached.
    pub warmup_steps: Value,
    /// Other parameters, under their own names.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// Why a job has failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::JobError)]
pub struct JobError {
    /// A word for machines, such as `GpuOutOfMemory`.
    pub code: String,
    /// What happened, and what helps.
    pub message: String,
    /// The field that has to change, where it is one.
    pub field: Option<String>,
}

/// How good a job is: null where the trainer said nothing.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::JobMetrics)]
#[serde(rename_all = "camelCase")]
pub struct JobMetrics {
    /// Loss over the training data.
    #[schema(value_type = Option<f64>)]
    pub training_loss: Value,
    /// Loss over the validation data.
    #[schema(value_type = Option<f64>)]
    pub validation_loss: Value,
    /// Passes over the data so far.
    #[schema(value_type = Option<f64>)]
    pub epoch: Value,
}

/// What people call a run.
#[must_use]
pub fn called(run: &FineTune) -> String {
    run.spec.display_name.clone().unwrap_or_else(|| run.name_any())
}

/// The status of a phase.
#[must_use]
pub const fn status(phase: Phase) -> JobStatus {
    match phase {
        Phase::Pending | Phase::Preparing | Phase::Queued => JobStatus::Queued,
        Phase::Running | Phase::Pausing | Phase::Stopping => JobStatus::Running,
        Phase::Paused | Phase::Stopped => JobStatus::Stopped,
        Phase::Succeeded => JobStatus::Completed,
        Phase::Failed => JobStatus::Failed,
    }
}

/// A run in a list.
#[must_use]
pub fn summary(run: &FineTune) -> Summary {
    Summary {
        id: ids::run_id(&run.name_any()),
        name: called(run),
        base_model: run.spec.base_model.name.clone(),
        status: status(standing::phase(run)),
        description: run.spec.description.clone(),
        owner: run.annotations().get(names::CREATED_BY).cloned(),
        organization_id: run.namespace(),
        trained_tokens: standing::progress(run).and_then(|progress| progress.trained_tokens),
        started_at: standing::started(run),
        finished_at: standing::finished(run),
        created_at: standing::created(run),
        updated_at: standing::updated(run),
    }
}

/// A whole run.
#[must_use]
pub fn job(run: &FineTune, around: &Surroundings) -> Job {
    let progress = standing::progress(run);
    let metric = |name: &str| progress.and_then(|progress| progress.metrics.get(name)).map(|text| parameters::number(text));
    let served = || around.deployment(run).map(standing::model_name);
    Job {
        summary: summary(run),
        training_dataset: standing::training_file(run),
        training_file: standing::training_file(run),
        validation_file: standing::validation_file(run),
        hyperparameters: hyperparameters(run, around),
        suffix: run.spec.suffix.clone(),
        result_model: around.model(run).map(|model| served().or_else(|| suffixed(run)).unwrap_or(model)),
        error: standing::failure(run).map(|failure| JobError {
            code: failure.reason.clone(),
            message: standing::told(failure),
            field: failure.field.clone(),
        }),
        metrics: JobMetrics {
            training_loss: metric("loss").unwrap_or_default(),
            validation_loss: metric("eval_loss").unwrap_or_default(),
            epoch: progress.and_then(|progress| progress.epoch.as_deref()).map(parameters::number).unwrap_or_default(),
        },
    }
}

/// The name the result is to have: that of the base model and the suffix, where there is one.
#[must_use]
pub fn suffixed(run: &FineTune) -> Option<String> {
    let suffix = run.spec.suffix.as_ref().filter(|suffix| !suffix.is_empty())?;
    let allowed = |letter: char| if letter.is_ascii_alphanumeric() || "._:/-".contains(letter) { letter } else { '-' };
    let name: String = format!("{}-{suffix}", run.spec.base_model.name).chars().map(allowed).take(128).collect();
    Some(name)
}

/// The values it trains with; ours that have a name of Strongly are shown under that.
fn hyperparameters(run: &FineTune, around: &Surroundings) -> Hyperparameters {
    let (given, runtime) = (&run.spec.parameters, around.runtime(run));
    let mut others = given.clone();
    let mut value = |ours: &str, theirs: &str| {
        others.remove(ours);
        others.remove(theirs);
        parameters::value(given, runtime, ours).cloned().unwrap_or_default()
    };
    Hyperparameters {
        epochs: value("epochs", "epochs"),
        learning_rate: value("learning_rate", "learningRate"),
        batch_size: value("batch_size", "batchSize"),
        warmup_steps: value("warmup_steps", "warmupSteps"),
        others,
    }
}
