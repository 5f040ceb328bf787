//! How long a training would take and what it would cost, before it is begun. Pure.
//!
//! The speed is what finished runs of the same base model on the same hardware reached, loading and saving included, or else what the
//! BaseModel promises. Several GPUs are taken to be as many times as fast as one.

use std::fmt;

use rust_decimal::{Decimal, prelude::ToPrimitive};

use super::cost;
use crate::api::{BaseModel, FineTune, FineTunePhase, HardwareProfile};

/// Tokens of an example where nobody says how long it is.
const TOKENS_PER_EXAMPLE: u64 = 512;

/// Bytes of text that make a token.
const BYTES_PER_TOKEN: u64 = 4;

/// A training that may be begun.
#[derive(Clone, Debug)]
pub struct Training<'a> {
    /// The model to train.
    pub base_model: &'a BaseModel,
    /// The hardware of each node.
    pub hardware: &'a HardwareProfile,
    /// Number of nodes; below 1 counts as 1.
    pub nodes: i32,
    /// What one epoch trains on.
    pub dataset: DatasetSize,
    /// How often the data is gone through; may be a fraction, and below 0 counts as 0.
    pub epochs: Decimal,
}

/// The size of training data, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetSize {
    /// Tokens.
    Tokens(u64),
    /// Bytes of text.
    Bytes(u64),
    /// Examples.
    Examples {
        /// How many.
        count: u64,
        /// Tokens of each: the sequence length, when it is known.
        tokens_each: Option<u64>,
    },
}

/// What a training would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds it would hold its nodes.
    pub seconds: i64,
    /// What it would cost; `None` where the hardware has no price.
    pub cost: Option<Decimal>,
    /// Currency of the cost, as an ISO 4217 code.
    pub currency: String,
    /// Where the speed comes from.
    pub source: Source,
    /// How all this was arrived at, for people.
    pub explanation: String,
}

/// Where the speed of an estimate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Runs that have finished.
    FinishedRuns {
        /// How many of those given could be used.
        count: usize,
    },
    /// `BaseModel.spec.tokensPerSecond`.
    BaseModel,
}

/// Why nothing can be estimated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// What is missing, and what helps.
    pub reason: String,
}

impl fmt::Display for Unknown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

/// What `training` would take. Of the `runs` those count that trained the same base model on the same hardware to the end.
///
/// # Errors
/// Why nothing is known of its speed.
pub fn estimate<'a>(training: &Training, runs: impl IntoIterator<Item = &'a FineTune>) -> Result<Estimate, Unknown> {
    let (speed, source) = speed(training, runs)?;
    let devices = training.hardware.spec.gpu.count.max(1).saturating_mul(training.nodes.max(1));
    let tokens = tokens(training);
    let seconds = tokens.checked_div(speed.saturating_mul(devices.into())).unwrap_or(Decimal::MAX);
    let seconds = seconds.ceil().to_i64().unwrap_or(i64::MAX);
    let hardware = &training.hardware.spec;
    let per_hour = hardware.cost_per_hour.as_deref().map(cost::decimal);
    Ok(Estimate {
        tokens: tokens.to_u64().unwrap_or(u64::MAX),
        seconds,
        cost: per_hour.map(|price| cost::amount(price.saturating_mul(training.nodes.max(1).into()), seconds, 1)),
        currency: hardware.currency.clone(),
        source,
        explanation: format!("{}; {}", told_tokens(training, tokens), told_speed(training, speed, source)),
    })
}

/// Tokens a second and GPU (or node without any), and where that comes from.
fn speed<'a>(training: &Training, runs: impl IntoIterator<Item = &'a FineTune>) -> Result<(Decimal, Source), Unknown> {
    let (model, hardware) = (name(&training.base_model.metadata), name(&training.hardware.metadata));
    let mut reached: Vec<_> = runs.into_iter().filter_map(|run| speed_of(run, model, hardware)).collect();
    reached.sort_unstable();
    // The median: a run that was held up says little of the next. Of two in the middle the slower one, since nobody minds to be done early.
    if let Some(median) = reached.get(reached.len().saturating_sub(1) / 2) {
        return Ok((*median, Source::FinishedRuns { count: reached.len() }));
    }
    let promised = training.base_model.spec.tokens_per_second.get(hardware).filter(|speed| **speed > 0);
    promised.map(|speed| (Decimal::from(*speed), Source::BaseModel)).ok_or_else(|| Unknown {
        reason: format!(
            "BaseModel {model:?} gives no spec.tokensPerSecond for HardwareProfile {hardware:?}, and no run of the two has finished yet"
        ),
    })
}

/// What a run reached for each GPU (or node without any). One attempt only: of several nobody knows which tokens were trained twice, or on what.
fn speed_of(run: &FineTune, model: &str, hardware: &str) -> Option<Decimal> {
    let status = run.status.as_ref()?;
    let resolved = status.resolved.as_ref()?;
    let is_alike = run.spec.base_model.name == model && resolved.hardware == hardware;
    if !is_alike || status.phase != FineTunePhase::Succeeded || status.attempt != 1 {
        return None;
    }
    let tokens = status.progress.as_ref()?.trained_tokens.filter(|tokens| *tokens > 0)?;
    let cost = status.cost.as_ref()?;
    let seconds = if resolved.gpus > 0 { cost.gpu_seconds } else { cost.seconds.checked_mul(resolved.nodes.max(1).into())? };
    Decimal::from(tokens).checked_div(Decimal::from(seconds)).filter(|speed| *speed > Decimal::ZERO)
}

/// All tokens of all epochs.
fn tokens(training: &Training) -> Decimal {
    let once = match training.dataset {
        DatasetSize::Tokens(tokens) => Decimal::from(tokens),
        DatasetSize::Bytes(bytes) => Decimal::from(bytes.div_ceil(BYTES_PER_TOKEN)),
        DatasetSize::Examples { count, .. } => Decimal::from(count).saturating_mul(tokens_each(training).into()),
    };
    once.saturating_mul(training.epochs.max(Decimal::ZERO)).ceil()
}

/// Tokens of an example: no more than the model takes.
fn tokens_each(training: &Training) -> u64 {
    let said = match training.dataset {
        DatasetSize::Examples { tokens_each: Some(said), .. } => said,
        _ => TOKENS_PER_EXAMPLE,
    };
    let most = training.base_model.spec.max_sequence_length.and_then(|most| u64::try_from(most).ok());
    most.map_or(said, |most| said.min(most))
}

fn told_tokens(training: &Training, tokens: Decimal) -> String {
    let epochs = training.epochs.max(Decimal::ZERO).normalize();
    let once = match training.dataset {
        DatasetSize::Tokens(tokens) => format!("{tokens} tokens"),
        DatasetSize::Bytes(bytes) => format!("{bytes} bytes at {BYTES_PER_TOKEN} a token"),
        DatasetSize::Examples { count, tokens_each: said } => {
            let guessed = if said.is_none() { " (assumed)" } else { "" };
            format!("{count} examples of {} tokens{guessed}", tokens_each(training))
        }
    };
    format!("{tokens} tokens to train: {once}, {epochs} epochs")
}

fn told_speed(training: &Training, speed: Decimal, source: Source) -> String {
    let (model, hardware) = (name(&training.base_model.metadata), name(&training.hardware.metadata));
    let (nodes, gpus) = (training.nodes.max(1), training.hardware.spec.gpu.count);
    let each = if gpus > 0 { "GPU" } else { "node" };
    let from = match source {
        Source::FinishedRuns { count } => format!("the median of {count} finished runs of {model} on {hardware}"),
        Source::BaseModel => format!("spec.tokensPerSecond of BaseModel {model} for {hardware}"),
    };
    format!("{} tokens a second on each {each}, {nodes} nodes with {gpus} GPUs each: {from}", speed.round_dp(1).normalize())
}

fn name(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
