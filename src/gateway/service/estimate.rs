//! What a training would take and cost.

use kube::ResourceExt;
use rust_decimal::Decimal;

use super::cluster::Selection;
use super::{Session, catalogue, parameters};
use crate::api::{BaseModel, FineTune, HardwareProfile};
use crate::gateway::errors::{Kind, Refusal};
use crate::plan::estimate::{DatasetSize, Estimate, Training, estimate};

/// Finished runs an estimate learns from at most.
const MOST_RUNS: usize = 1000;

/// What is to be estimated.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Name or alias of the base model.
    pub base_model: String,
    /// Examples of the training data.
    pub examples: u64,
    /// The hardware; the default one when absent.
    pub hardware: Option<String>,
    /// Passes over the data; the default script's when absent.
    pub epochs: Option<Decimal>,
    /// Tokens of an example, where they are known.
    pub tokens_each: Option<u64>,
}

/// The estimate, and the base model it is for.
///
/// # Errors
/// The base model or hardware is not there, or nothing is known of its speed.
pub async fn ask(session: &Session, question: Question) -> Result<(BaseModel, Estimate), Refusal> {
    let base_model = catalogue::base_model(session, &question.base_model).await?;
    let base_model = base_model
        .ok_or_else(|| Refusal::bad("baseModel", "there is no such base model: see GET /api/v1/fine-tuning/base-models"))?;
    let hardware = hardware(session, question.hardware.as_deref()).await?;
    let runtimes = catalogue::runtimes(session).await?;
    let default = catalogue::default_of(&runtimes);
    let of_script = || default.and_then(|runtime| runtime.spec.parameters.defaults.get("epochs")).and_then(parameters::decimal);
    let training = Training {
        base_model: &base_model,
        hardware: &hardware,
        nodes: 1,
        dataset: DatasetSize::Examples { count: question.examples, tokens_each: question.tokens_each },
        epochs: question.epochs.or_else(of_script).unwrap_or(Decimal::ONE),
    };
    let runs = finished(session, &base_model).await?;
    let estimate = estimate(&training, &runs).map_err(|unknown| Refusal::new(Kind::Unprocessable, unknown.reason))?;
    Ok((base_model, estimate))
}

async fn hardware(session: &Session, name: Option<&str>) -> Result<HardwareProfile, Refusal> {
    let all = catalogue::hardware(session).await?;
    let found = match name {
        Some(name) => all.iter().find(|profile| profile.name_any() == name),
        None => catalogue::default_of(&all),
    };
    found
        .cloned()
        .ok_or_else(|| Refusal::bad("hardware", "there is no such hardware, or no default: see GET /api/v1/fine-tuning/hardware"))
}

/// Runs of the project that trained this base model to the end.
async fn finished(session: &Session, base_model: &BaseModel) -> Result<Vec<FineTune>, Refusal> {
    let fields = format!("spec.baseModel.name={},status.phase=Succeeded", base_model.name_any());
    let mut found: Vec<FineTune> = Vec::new();
    let see = |run| {
        if found.len() < MOST_RUNS {
            found.push(run);
        }
    };
    session.cluster.each(&Selection { fields: Some(fields), labels: None }, MOST_RUNS, see).await?;
    Ok(found)
}
