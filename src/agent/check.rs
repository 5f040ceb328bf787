//! Whether a checkpoint folder on the disk can be trusted: against its manifest where there is one, by
//! a full inspection where there is none. Reads only.

use std::path::Path;

use jiff::Timestamp;

use crate::api::{AdapterFacts, WeightsFormat};
use crate::checkpoint_files::{Format, FsError, Inspection, Manifest, Origin, RealFs, Reason, RelPath, inspect, manifest_name};
use crate::protocol::{FilesState, ReportedCheckpoint};

/// How closely a folder is compared with its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names and sizes.
    Sizes,
    /// Names, sizes and SHA-256 of every file.
    Content,
}

/// What a folder turned out to be.
#[derive(Debug)]
pub enum Verdict {
    /// As its manifest says.
    Recorded(Box<Manifest>),
    /// Complete, but nobody recorded it yet.
    Unrecorded(Box<Inspection>),
    /// Not to be used, with the reason.
    Refused(String),
}

/// Name of the folder of a step.
#[must_use]
pub fn folder(step: i64) -> String {
    format!("checkpoint-{step}")
}

/// Checks `checkpoint-<step>` in `output`; a manifest of a run other than `uid` is refused.
#[must_use]
pub fn check(output: &Path, step: i64, uid: &str, depth: Depth) -> Verdict {
    let name = folder(step);
    let fs = match RealFs::new(output) {
        Ok(fs) => fs,
        Err(error) => return Verdict::Refused(error.to_string()),
    };
    let (Ok(dir), Ok(record)) = (RelPath::parse(&name), RelPath::parse(&manifest_name(&name))) else {
        return Verdict::Refused(format!("{name} is no checkpoint folder"));
    };
    match manifest(&fs, &record) {
        Err(reason) => Verdict::Refused(reason.render()),
        Ok(None) => {
            let found = inspect(&fs, &dir, u64::try_from(step).unwrap_or_default());
            if found.complete { Verdict::Unrecorded(Box::new(found)) } else { Verdict::Refused(reasons(&found.reasons)) }
        }
        Ok(Some(manifest)) if manifest.origin.fine_tune_uid != uid => {
            Verdict::Refused("its manifest is of another run".to_owned())
        }
        Ok(Some(manifest)) if i64::try_from(manifest.step) != Ok(step) => {
            Verdict::Refused(format!("its manifest is of step {}", manifest.step))
        }
        Ok(Some(manifest)) => {
            let found = manifest.check(&fs, &dir, depth == Depth::Content);
            if found.is_empty() { Verdict::Recorded(Box::new(manifest)) } else { Verdict::Refused(reasons(&found)) }
        }
    }
}

/// The manifest at `path`; nothing where there is none.
///
/// # Errors
/// Why it cannot be trusted.
pub fn manifest(fs: &RealFs, path: &RelPath) -> Result<Option<Manifest>, Reason> {
    use crate::checkpoint_files::FileSystem;
    match fs.metadata(path) {
        Err(FsError::NotFound) => Ok(None),
        _ => Manifest::read(fs, path).map(Some),
    }
}

/// Reads every file of an unrecorded checkpoint and records it beside the folder.
///
/// # Errors
/// Why it cannot be recorded.
pub fn record(output: &Path, found: &Inspection, origin: Origin) -> Result<Manifest, String> {
    let name = format!("checkpoint-{}", found.step);
    let fs = RealFs::new(output).map_err(|error| error.to_string())?;
    let dir = RelPath::parse(&name).map_err(|error| error.to_string())?;
    let manifest = Manifest::new(&fs, &dir, origin, found).map_err(|found| reasons(&found))?;
    let text = manifest.to_json().map_err(|error| error.to_string())?;
    let path = output.join(manifest_name(&name));
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(manifest)
}

/// The first few reasons in one line.
#[must_use]
pub fn reasons(reasons: &[Reason]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = reasons.iter().take(SHOWN).map(Reason::render).collect();
    let more = reasons.len().saturating_sub(SHOWN);
    let shown = shown.join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

/// A recorded checkpoint as it is reported.
#[must_use]
pub fn as_reported(manifest: &Manifest) -> ReportedCheckpoint {
    let sizes = manifest.files.iter().map(|file| file.size);
    ReportedCheckpoint {
        step: signed(manifest.step),
        lineage: manifest.origin.lineage.into(),
        attempt: manifest.origin.attempt.into(),
        state: FilesState::Ready,
        message: String::new(),
        format: format(manifest.format),
        saved_at: Some(manifest.saved_at),
        metrics: manifest.metrics.clone(),
        size_bytes: signed(sizes.fold(0, u64::saturating_add)),
        file_count: signed(manifest.files.len() as u64),
        digest: Some(manifest.digest.clone()),
        resumable: manifest.resumable,
        adapter: manifest.adapter.as_ref().map(adapter),
        samples: manifest.samples.clone(),
    }
}

/// A checkpoint that is not whole as it is reported.
#[must_use]
pub fn as_unusable(step: i64, origin: &Origin, found: &Inspection) -> ReportedCheckpoint {
    let gone = matches!(found.reasons.first(), Some(Reason::Vanished { .. }));
    ReportedCheckpoint {
        step,
        lineage: origin.lineage.into(),
        attempt: origin.attempt.into(),
        state: if gone { FilesState::Missing } else { FilesState::Corrupt },
        message: reasons(&found.reasons),
        format: found.format.map(format).unwrap_or_default(),
        saved_at: found.saved_at().and_then(|at| Timestamp::from_nanosecond(at.into()).ok()),
        metrics: found.metrics.clone(),
        size_bytes: signed(found.size_bytes),
        file_count: signed(found.file_count),
        digest: None,
        resumable: false,
        adapter: found.adapter.as_ref().map(adapter),
        samples: Vec::new(),
    }
}

const fn format(format: Format) -> WeightsFormat {
    match format {
        Format::Adapter => WeightsFormat::Adapter,
        Format::Model => WeightsFormat::Model,
    }
}

fn adapter(facts: &crate::checkpoint_files::AdapterFacts) -> AdapterFacts {
    AdapterFacts {
        rank: facts.rank.map(signed).unwrap_or_default(),
        target_modules: facts.target_modules.clone(),
        modules_to_save: facts.modules_to_save.clone(),
        base_model: facts.base_model.clone(),
    }
}

/// An unsigned number as Kubernetes holds it.
#[must_use]
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
