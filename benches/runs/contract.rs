//! What a run may cost in requests, and which request counts towards what. Pure.

use std::collections::BTreeMap;

use crate::requests::{Request, is_lease};

/// Checkpoints each run saves.
pub const CHECKPOINTS: usize = 4;

/// Mutating requests one successful run may cost: resource, verb, how many, what for.
pub const ALLOWED: &[(&str, &str, usize, &str)] = &[
    ("finetunes", "patch", 1, "finalizer"),
    ("jobs", "create", 1, "the Job"),
    ("finetunes/status", "patch", 3, "status of the run, once more for latest and best"),
    ("checkpoints", "create", CHECKPOINTS, "Checkpoints"),
    ("checkpoints/status", "patch", CHECKPOINTS, "their status"),
    ("checkpoints/status", "patch (best)", 0, "the mark of the best"),
    ("finetunehistories", "create", 1, "the history"),
    ("finetunehistories", "patch", CHECKPOINTS, "its growth"),
];

/// What a request counts as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// A change of an object, held against [`ALLOWED`]: resource and verb.
    Mutating(String, String),
    /// A get or list.
    Read(String, String),
    /// What is counted apart, by name.
    Apart(&'static str),
}

/// What a request counts as.
pub fn share(request: &Request) -> Share {
    let resource = request.resource();
    let is_by = |manager: &str| request.uri.contains(&format!("fieldManager={manager}"));
    match (resource.as_str(), request.verb.as_str()) {
        _ if is_lease(request) => Share::Apart("Lease"),
        ("tokenreviews", _) => Share::Apart("TokenReviews"),
        ("events", _) => Share::Apart("Events"),
        ("finetunes/status", _) if is_by("finetune-operator-progress") => Share::Apart("progress"),
        (_, "watch") => Share::Apart("watches"),
        (_, "get" | "list") => Share::Read(resource, request.verb.clone()),
        ("checkpoints/status", "patch") if is_by("finetune-operator-controller") => {
            Share::Mutating(resource, "patch (best)".into())
        }
        _ => Share::Mutating(resource, request.verb.clone()),
    }
}

/// How many requests count as what.
pub fn shares(requests: &[Request]) -> BTreeMap<Share, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(share(request)).or_insert(0) += 1;
    }
    counts
}

/// How many requests write, and how many read; what counts apart is neither.
pub fn writes_and_reads(requests: &[Request]) -> (usize, usize) {
    shares(requests).into_iter().fold((0, 0), |(writes, reads), (share, count)| match share {
        Share::Mutating(..) => (writes + count, reads),
        Share::Read(..) => (writes, reads + count),
        Share::Apart(_) => (writes, reads),
    })
}
