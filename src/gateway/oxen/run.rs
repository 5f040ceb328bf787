//! A run as Oxen shows it: every documented key is there, null where there is nothing. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::left::{Model, model};
use super::script::{Script, TrainingParams, script, training_params};
use crate::api::{FineTune as Run, FineTunePhase as Phase, Visibility, names};
use crate::gateway::service::runs::{Surroundings, is_ready};
use crate::gateway::service::{REPOSITORY, ids, parameters, sources, standing};
use crate::plan::cost;

/// A fine-tune.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::FineTune)]
pub struct FineTune {
    /// `ftjob-` and the name of the FineTune.
    pub id: String,
    /// Name of the FineTune.
    pub name: String,
    /// What people call it.
    pub display_name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Name of the base model.
    pub base_model: String,
    /// How far it is.
    pub status: Status,
    /// Why it has failed, and what helps.
    pub error: Option<String>,
    /// Who made it; null where it was not made here.
    pub created_by: Option<User>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// The same.
    pub inserted_at: Option<Timestamp>,
    /// When anything about it last changed.
    pub updated_at: Option<Timestamp>,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Its place among all that wait, 1 is next; null where nobody knows.
    pub queue_position: Option<i64>,
    /// The repository it belongs to.
    pub repository_id: Option<String>,
    /// What it trains on.
    pub resource: Resource,
    /// Where its checkpoints go.
    pub output_resource: Resource,
    /// What it starts from.
    pub source_model: Source,
    /// What serves its best checkpoint; null where nothing does.
    pub deployed_model: Option<Model>,
    /// The script that trains.
    pub fine_tune_script: Option<Script>,
    /// What it trains with.
    pub training_params: TrainingParams,
    /// Whether only an adapter is trained; null where nobody says.
    #[schema(value_type = Option<bool>)]
    pub use_lora: Value,
    /// Tokens it has trained on.
    pub total_token_count: i64,
    /// Whether every namespace may use its checkpoints.
    pub is_public: bool,
    /// What it runs on and what that costs.
    #[serde(flatten)]
    pub money: Money,
}

/// What a fine-tune runs on and what that costs; amounts are strings.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::Cost)]
pub struct Money {
    /// What it has cost so far.
    pub credits_used: String,
    /// What a second costs.
    pub rate_per_second: Option<String>,
    /// When the cost was last put on record.
    pub last_credit_check: Option<Timestamp>,
    /// How many accelerators it has.
    pub gpu_count: Option<i32>,
    /// Which ones.
    pub gpu_model: Option<String>,
}

/// How far a fine-tune is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = oxen::Status)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is there, and what it names is looked up.
    Created,
    /// Its data is prepared.
    Tokenizing,
    /// It waits for hardware.
    Enqueued,
    /// It trains.
    Running,
    /// It is done.
    Completed,
    /// It was ended or paused; its checkpoints stay.
    Stopped,
    /// It cannot go on: see `error`.
    Errored,
    /// It is done, and its model is served.
    Deployed,
}

impl Status {
    /// The phases it may stand for.
    #[must_use]
    pub fn phases(self) -> Vec<Phase> {
        match self {
            Self::Created => vec![Phase::Pending, Phase::Paused],
            Self::Tokenizing => vec![Phase::Preparing],
            Self::Enqueued => vec![Phase::Queued],
            Self::Running => vec![Phase::Running, Phase::Pausing, Phase::Stopping],
            Self::Stopped => vec![Phase::Paused, Phase::Stopped],
            Self::Completed | Self::Deployed => vec![Phase::Succeeded],
            Self::Errored => vec![Phase::Failed],
        }
    }
}

/// A user.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::User)]
pub struct User {
    /// Name of the user, as the audit log has it.
    pub id: String,
    /// Always null.
    pub image: Option<String>,
    /// The same name.
    pub name: String,
    /// The same name.
    pub username: String,
}

/// A place of files.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::Resource)]
pub struct Resource {
    /// A path in the repository, the name of a Dataset, or `s3://…`, `hf://…`, `volume://…`; null while nobody knows.
    pub path: Option<String>,
    /// Always null.
    pub version: Option<String>,
}

/// What a fine-tune starts from.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::SourceModel)]
pub struct Source {
    /// Id of a checkpoint, or the name of a base model.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// The status of a run.
#[must_use]
pub fn status(run: &Run, around: &Surroundings) -> Status {
    let begun = run.status.as_ref().is_some_and(|status| status.attempt > 0);
    match standing::phase(run) {
        Phase::Pending => Status::Created,
        Phase::Paused if !begun => Status::Created,
        Phase::Preparing => Status::Tokenizing,
        Phase::Queued => Status::Enqueued,
        Phase::Running | Phase::Pausing | Phase::Stopping => Status::Running,
        Phase::Paused | Phase::Stopped => Status::Stopped,
        Phase::Succeeded if around.deployment(run).is_some_and(is_ready) => Status::Deployed,
        Phase::Succeeded => Status::Completed,
        Phase::Failed => Status::Errored,
    }
}

/// A run.
#[must_use]
pub fn fine_tune(run: &Run, around: &Surroundings) -> FineTune {
    let (spec, status_of) = (&run.spec, run.status.as_ref());
    let (name, runtime) = (run.name_any(), around.runtime(run));
    FineTune {
        id: ids::run_id(&name),
        name,
        display_name: spec.display_name.clone(),
        description: spec.description.clone(),
        base_model: spec.base_model.name.clone(),
        status: status(run, around),
        error: standing::failure(run).map(standing::told),
        created_by: created_by(run),
        created_at: standing::created(run),
        inserted_at: standing::created(run),
        updated_at: standing::updated(run),
        started_at: standing::started(run),
        finished_at: standing::finished(run),
        queue_position: status_of.and_then(|status| status.queue.as_ref()).and_then(|queue| queue.position),
        repository_id: run.labels().get(REPOSITORY).cloned(),
        resource: resource(run),
        output_resource: output(run),
        source_model: source_model(run),
        deployed_model: around.deployment(run).map(model),
        fine_tune_script: runtime.map(script),
        training_params: training_params(run, runtime),
        use_lora: parameters::value(&spec.parameters, runtime, "use_lora").cloned().unwrap_or_default(),
        total_token_count: standing::progress(run).and_then(|progress| progress.trained_tokens).unwrap_or(0),
        is_public: spec.visibility == Visibility::Public,
        money: money(run, around),
    }
}

fn money(run: &Run, around: &Surroundings) -> Money {
    let (status, profile) = (run.status.as_ref(), around.profile(run));
    let cost = status.and_then(|status| status.cost.as_ref());
    let nodes = run.spec.hardware.nodes.max(1);
    let of_profile = || {
        let price = profile.and_then(|profile| profile.spec.cost_per_hour.as_deref());
        price.map(|price| cost::decimal(price).saturating_mul(Decimal::from(nodes)))
    };
    let per_hour = cost.map(|cost| cost::decimal(&cost.per_hour)).or_else(of_profile);
    let gpus = status.and_then(|status| status.resolved.as_ref()).map(|resolved| resolved.gpus);
    Money {
        credits_used: standing::accrued(run, around.now).unwrap_or_default().to_string(),
        rate_per_second: per_hour.map(|price| (price / Decimal::from(3600)).round_dp(10).normalize().to_string()),
        last_credit_check: cost.and_then(|cost| cost.as_of.as_ref()).map(|time| time.0),
        gpu_count: gpus.or_else(|| profile.map(|profile| profile.spec.gpu.count.saturating_mul(nodes))),
        gpu_model: profile.and_then(|profile| profile.spec.gpu.product.clone().or_else(|| profile.spec.display_name.clone())),
    }
}

fn created_by(run: &Run) -> Option<User> {
    let user = run.annotations().get(names::CREATED_BY)?.clone();
    Some(User { id: user.clone(), image: None, name: user.clone(), username: user })
}

fn resource(run: &Run) -> Resource {
    let dataset = &run.spec.dataset;
    let in_repository = |source: &crate::api::Source| {
        let volume = source.volume.as_ref().filter(|volume| Some(&volume.claim_name) == run.labels().get(REPOSITORY));
        volume.map_or_else(|| sources::text(source), |volume| volume.path.clone())
    };
    let path = dataset.name.clone().or_else(|| dataset.training.as_ref().map(in_repository));
    Resource { path, version: None }
}

fn output(run: &Run) -> Resource {
    let resolved = run.status.as_ref().and_then(|status| status.resolved.as_ref());
    Resource { path: resolved.map(|resolved| resolved.output.clone()), version: None }
}

fn source_model(run: &Run) -> Source {
    match &run.spec.start_from.checkpoint {
        Some(checkpoint) => Source { id: ids::checkpoint_id(&checkpoint.name), name: checkpoint.name.clone() },
        None => Source { id: run.spec.base_model.name.clone(), name: run.spec.base_model.name.clone() },
    }
}
