//! A run as OpenAI shows it. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use crate::api::{FineTune, FineTunePhase as Phase, TrainingRuntime};
use crate::gateway::service::runs::Surroundings;
use crate::gateway::service::{ids, parameters, standing};
use crate::plan;

/// The job a run is.
#[must_use]
pub fn job(run: &FineTune, around: &Surroundings) -> Value {
    let (spec, runtime) = (&run.spec, around.runtime(run));
    let method = method(runtime);
    let given = hyperparameters(run, runtime, method);
    let trained = standing::progress(run).and_then(|progress| progress.trained_tokens);
    let seed = spec.parameters.get("seed").and_then(Value::as_i64);
    json!({
        "id": ids::run_id(&run.name_any()),
        "object": "fine_tuning.job",
        "created_at": seconds(standing::created(run)).unwrap_or_default(),
        "error": standing::failure(run).map(|failure| {
            json!({"code": failure.reason, "message": standing::told(failure), "param": failure.field})
        }),
        "fine_tuned_model": around.model(run),
        "finished_at": seconds(standing::finished(run)),
        "hyperparameters": given,
        "model": spec.base_model.name,
        "organization_id": run.namespace().unwrap_or_default(),
        "result_files": [],
        "status": status(standing::phase(run)),
        "trained_tokens": trained.filter(|_| !standing::is_open(standing::phase(run))),
        "training_file": standing::training_file(run),
        "validation_file": standing::validation_file(run),
        "integrations": [],
        "seed": seed.unwrap_or_else(|| plan::parameters::seed(&run.uid().unwrap_or_default())),
        "estimated_finish": seconds(standing::estimated_finish(run)),
        "method": {"type": method, method: {"hyperparameters": given}},
        "metadata": spec.metadata,
        "user_provided_suffix": spec.suffix,
    })
}

/// The status of a phase.
#[must_use]
pub const fn status(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending | Phase::Preparing => "validating_files",
        Phase::Queued => "queued",
        Phase::Running | Phase::Stopping => "running",
        Phase::Pausing => "pausing",
        Phase::Paused => "paused",
        Phase::Stopped => "cancelled",
        Phase::Succeeded => "succeeded",
        Phase::Failed => "failed",
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

/// The values it trains with, the runtime's defaults included; what nobody says is left to the script.
fn hyperparameters(run: &FineTune, runtime: Option<&TrainingRuntime>, method: &str) -> Value {
    let given = &run.spec.parameters;
    let known = |name: &str| parameters::value(given, runtime, name).cloned();
    let auto = || Value::from("auto");
    let mut all = Map::new();
    all.insert("n_epochs".into(), known("epochs").unwrap_or_else(auto));
    all.insert("batch_size".into(), known("batch_size").unwrap_or_else(auto));
    all.insert("learning_rate_multiplier".into(), parameters::multiplier(given, runtime).unwrap_or_else(auto));
    if method == "dpo" {
        all.insert("beta".into(), known("beta").unwrap_or_else(auto));
    }
    Value::Object(all)
}
