//! Whether a server can take an adapter, and with which rank. Pure.

use crate::{
    api::{AdapterFacts, AdapterServing, BaseModel},
    plan::Problem,
};

/// The rank the server is started with: the smallest it accepts that the adapter fits into.
///
/// # Errors
/// Why this adapter cannot be served so.
pub fn rank(facts: &AdapterFacts, serving: &AdapterServing, base: &BaseModel) -> Result<i64, Problem> {
    if let Some(found) = foreign_base(facts, base) {
        let name = base.metadata.name.as_deref().unwrap_or_default();
        return Err(refused(
            "BaseModelDiffers",
            format!(
                "the adapter was trained from {found:?}, which is not BaseModel {name:?}: correct that BaseModel, or name {found:?} among its aliases if they are the same"
            ),
        ));
    }
    // What is merged into its base first needs nothing of the server.
    if serving.init.is_some() {
        return Ok(facts.rank);
    }
    if !facts.modules_to_save.is_empty() {
        let modules = facts.modules_to_save.join(", ");
        return Err(refused(
            "AdapterUnsupported",
            format!(
                "the adapter brings whole modules ({modules}, from modules_to_save), which a server cannot add to its base: choose a runtime that merges adapters, or train without modules_to_save"
            ),
        ));
    }
    if serving.ranks.is_empty() {
        return Ok(facts.rank);
    }
    if facts.rank < 1 {
        return Err(refused(
            "AdapterUnsupported",
            "the adapter names no rank, so it is no LoRA adapter: choose a runtime that merges adapters".into(),
        ));
    }
    serving.ranks.iter().copied().filter(|rank| *rank >= facts.rank).min().ok_or_else(|| {
        let most = serving.ranks.iter().max().copied().unwrap_or_default();
        refused(
            "AdapterUnsupported",
            format!("the adapter has rank {}, the server takes {most} at most: choose a runtime that takes more or merges adapters, or train with a smaller rank", facts.rank),
        )
    })
}

fn refused(reason: &'static str, message: String) -> Problem {
    Problem { reason, field: "spec.checkpoint".into(), message, waits: false }
}

/// The model the adapter names as its base, when that is certainly another one. Quantized and republished copies of the same model keep its
/// name with a word before or after, so only a name that differs throughout counts; a path says nothing.
fn foreign_base<'a>(facts: &'a AdapterFacts, base: &BaseModel) -> Option<&'a str> {
    let named = facts.base_model.as_deref().filter(|named| !named.starts_with(['/', '.']))?;
    let hub = base.spec.source.hugging_face.iter().map(|hub| hub.repo.as_str());
    let mut known = hub.chain(base.spec.aliases.iter().map(String::as_str)).peekable();
    known.peek()?;
    let ours = short(named);
    let same = |other: &str| {
        let theirs = short(other);
        ours.starts_with(&theirs) || theirs.starts_with(&ours)
    };
    (!known.any(same)).then_some(named)
}

/// The last part of a model's name, in lower case.
fn short(name: &str) -> String {
    name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase()
}
