//! A run as OpenAI shows it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::object::{JobObject, Listed};
use crate::api::{FineTune, FineTunePhase as Phase, TrainingRuntime};
use crate::gateway::service::runs::Surroundings;
use crate::gateway::service::{ids, parameters, standing};
use crate::plan;

/// A fine-tuning job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Job)]
pub struct Job {
    /// `ftjob-` and the name of the FineTune.
    pub id: String,
    /// Always `fine_tuning.job`.
    pub object: JobObject,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// Why it has failed, if it has.
    pub error: Option<JobError>,
    /// Name of the model it has made, for completions and for permissions of its checkpoint; null until it has succeeded.
    pub fine_tuned_model: Option<String>,
    /// When it ended, in seconds since 1970; null while it has not.
    pub finished_at: Option<i64>,
    /// What it trains with.
    pub hyperparameters: Hyperparameters,
    /// Name of the base model.
    pub model: String,
    /// Namespace it belongs to.
    pub organization_id: String,
    /// Always empty: results are checkpoints.
    pub result_files: Vec<String>,
    /// How far it is.
    pub status: JobStatus,
    /// Tokens it has trained on; null until it has ended.
    pub trained_tokens: Option<i64>,
    /// What it trains on, as the create named it.
    pub training_file: String,
    /// What it is evaluated on, as the create named it.
    pub validation_file: Option<String>,
    /// Always empty: none are supported.
    pub integrations: Vec<Value>,
    /// The seed it draws from.
    pub seed: i64,
    /// When it should be done, in seconds since 1970; null while nobody knows.
    pub estimated_finish: Option<i64>,
    /// How it trains.
    pub method: Method,
    /// Pairs by which lists of jobs can be filtered.
    pub metadata: BTreeMap<String, String>,
    /// What the name of the model ends with.
    pub user_provided_suffix: Option<String>,
}

/// Why a job has failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::JobError)]
pub struct JobError {
    /// A word for machines, such as `GpuOutOfMemory`.
    pub code: String,
    /// What happened, and what helps.
    pub message: String,
    /// The field that has to change, where it is one.
    pub param: Option<String>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = openai::JobStatus)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// What it names is looked up, and its data is prepared.
    ValidatingFiles,
    /// It waits for hardware.
    Queued,
    /// It trains.
    Running,
    /// It has been asked to pause.
    Pausing,
    /// It holds no hardware, and can be resumed.
    Paused,
    /// It is done.
    Succeeded,
    /// It cannot go on: see `error`.
    Failed,
    /// It was ended; its checkpoints stay.
    Cancelled,
}

/// What a job trains with; `auto` is left to the script.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Hyperparameters)]
pub struct Hyperparameters {
    /// Passes over the data: `auto` or a number.
    pub n_epochs: Value,
    /// Examples a device takes at once: `auto` or a number.
    pub batch_size: Value,
    /// What the default learning rate of the script is multiplied by: `auto` or a number.
    pub learning_rate_multiplier: Value,
    /// What the method has beside these: `beta` of `dpo`, `auto` or a number.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// How a job trains, by the name of its method.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Method)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Method {
    /// From examples of what to say.
    Supervised {
        /// Its settings.
        supervised: Settings,
    },
    /// From pairs of a better and a worse answer.
    Dpo {
        /// Its settings.
        dpo: Settings,
    },
    /// From rewards.
    Reinforcement {
        /// Its settings.
        reinforcement: Settings,
    },
}

/// The settings of a method.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::MethodSettings)]
pub struct Settings {
    /// What it trains with.
    pub hyperparameters: Hyperparameters,
}

impl Listed for Job {
    fn id(&self) -> &str {
        &self.id
    }
}

/// The job a run is.
#[must_use]
pub fn job(run: &FineTune, around: &Surroundings) -> Job {
    let (spec, runtime) = (&run.spec, around.runtime(run));
    let method = method(runtime);
    let given = hyperparameters(run, runtime, method);
    let trained = standing::progress(run).and_then(|progress| progress.trained_tokens);
    let seed = spec.parameters.get("seed").and_then(Value::as_i64);
    Job {
        id: ids::run_id(&run.name_any()),
        object: JobObject::Job,
        created_at: seconds(standing::created(run)).unwrap_or_default(),
        error: standing::failure(run).map(|failure| JobError {
            code: failure.reason.clone(),
            message: standing::told(failure),
            param: failure.field.clone(),
        }),
        fine_tuned_model: around.model(run),
        finished_at: seconds(standing::finished(run)),
        hyperparameters: given.clone(),
        model: spec.base_model.name.clone(),
        organization_id: run.namespace().unwrap_or_default(),
        result_files: Vec::new(),
        status: status(standing::phase(run)),
        trained_tokens: trained.filter(|_| !standing::is_open(standing::phase(run))),
        training_file: standing::training_file(run),
        validation_file: standing::validation_file(run),
        integrations: Vec::new(),
        seed: seed.unwrap_or_else(|| plan::parameters::seed(&run.uid().unwrap_or_default())),
        estimated_finish: seconds(standing::estimated_finish(run)),
        method: with(method, given),
        metadata: spec.metadata.clone(),
        user_provided_suffix: spec.suffix.clone(),
    }
}

/// The status of a phase.
#[must_use]
pub const fn status(phase: Phase) -> JobStatus {
    match phase {
        Phase::Pending | Phase::Preparing => JobStatus::ValidatingFiles,
        Phase::Queued => JobStatus::Queued,
        Phase::Running | Phase::Stopping => JobStatus::Running,
        Phase::Pausing => JobStatus::Pausing,
        Phase::Paused => JobStatus::Paused,
        Phase::Stopped => JobStatus::Cancelled,
        Phase::Succeeded => JobStatus::Succeeded,
        Phase::Failed => JobStatus::Failed,
    }
}

/// A moment in seconds.
#[must_use]
pub fn seconds(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_second)
}

/// The method a script stands for.
fn method(runtime: Option<&TrainingRuntime>) -> &'static str {
    let answers = |name: &str| runtime.is_some_and(|runtime| runtime.spec.script_types.iter().any(|known| known == name));
    ["dpo", "reinforcement"].into_iter().find(|name| answers(name) && !answers("supervised")).unwrap_or("supervised")
}

fn with(method: &str, hyperparameters: Hyperparameters) -> Method {
    let settings = Settings { hyperparameters };
    match method {
        "dpo" => Method::Dpo { dpo: settings },
        "reinforcement" => Method::Reinforcement { reinforcement: settings },
        _ => Method::Supervised { supervised: settings },
    }
}

/// The values it trains with, the runtime's defaults included; what nobody says is left to the script.
fn hyperparameters(run: &FineTune, runtime: Option<&TrainingRuntime>, method: &str) -> Hyperparameters {
    let given = &run.spec.parameters;
    let auto = || Value::from("auto");
    let known = |name: &str| parameters::value(given, runtime, name).cloned().unwrap_or_else(auto);
    Hyperparameters {
        n_epochs: known("epochs"),
        batch_size: known("batch_size"),
        learning_rate_multiplier: parameters::multiplier(given, runtime).unwrap_or_else(auto),
        others: (method == "dpo").then(|| ("beta".to_owned(), known("beta"))).into_iter().collect(),
    }
}
