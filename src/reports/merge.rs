//! What a report changes: from the report and from what is stored to the writes that are needed, none when nothing is new. Pure.

mod history;
mod progress;
mod status;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

pub(crate) use progress::ProgressWrite;

use super::authorization::{RunRole, RunSpeaker};
use super::naming::{candidate_names, key_of, new_checkpoint};
use super::refusal::Refusal;
use crate::api::{
    Checkpoint, CheckpointPhase, CheckpointStatus, DeletionPolicy, FineTune, FineTuneHistory, Output, condition, names,
};
use crate::protocol::{CheckpointKey, FilesState, Report, ReportedCheckpoint};

/// What is stored about a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The run.
    pub fine_tune: &'a FineTune,
    /// Its Checkpoints.
    pub checkpoints: &'a [Arc<Checkpoint>],
    /// Names its Checkpoints might have, were they not those of other objects.
    pub taken: &'a BTreeSet<String>,
    /// Its history.
    pub history: Option<&'a FineTuneHistory>,
    /// The output of runs that name none.
    pub default_output: Option<&'a Output>,
}

/// What is to be written, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Writes {
    /// Checkpoints to create, each with the status to give it.
    pub create: Vec<Checkpoint>,
    /// Statuses of Checkpoints that exist.
    pub statuses: Vec<StatusWrite>,
    /// The history of the run.
    pub history: Option<FineTuneHistory>,
    /// The progress of the run; last, since its end says that all else is on record.
    pub progress: Option<ProgressWrite>,
}

impl Writes {
    /// Whether there is nothing to write.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.create.is_empty() && self.statuses.is_empty() && self.history.is_none() && self.progress.is_none()
    }
}

/// A status to write to the Checkpoint of this name and uid.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StatusWrite {
    /// Name of the Checkpoint.
    pub name: String,
    /// Its uid; another object of the name is left alone.
    pub uid: String,
    /// The whole status.
    pub status: CheckpointStatus,
}

/// What the report of a pod of a run changes.
///
/// # Errors
/// A checkpoint cannot be made yet, since the output of the run is not on record.
pub(crate) fn merge(speaker: &RunSpeaker, observed: &Observed<'_>, report: &Report, now: Timestamp) -> Result<Writes, Refusal> {
    if observed.fine_tune.metadata.deletion_timestamp.is_some() {
        return Ok(Writes::default());
    }
    let current = is_current(speaker, observed.fine_tune);
    let mut writes = Writes::default();
    let mut known = by_key(observed);
    for reported in &report.checkpoints {
        let key = CheckpointKey { lineage: reported.lineage.max(1), step: reported.step };
        if let Some(checkpoint) = known.get(&key) {
            writes.statuses.extend(changed_status(checkpoint, reported, current, now));
        } else if reported.state == FilesState::Ready && !history::has_save(observed, &speaker.uid, reported) {
            let checkpoint = Arc::new(created(observed, reported, now)?);
            writes.create.push(Checkpoint::clone(&checkpoint));
            known.insert(key, checkpoint);
        }
    }
    if current {
        let is_new = |key: CheckpointKey| writes.create.iter().any(|made| key_of(made, &speaker.uid) == Some(key));
        writes.history = history::history(speaker, observed, report, &history::News { now, known: &known, is_new: &is_new });
        let stored = observed.fine_tune.status.as_ref().and_then(|status| status.progress.as_ref());
        writes.progress = progress::progress(speaker, stored, report, now);
    }
    Ok(writes)
}

/// What the report of an import changes: the status of its one Checkpoint.
#[must_use]
pub(crate) fn merge_import(checkpoint: &Checkpoint, report: &Report, now: Timestamp) -> Writes {
    let reported = report.checkpoints.first().filter(|_| checkpoint.metadata.deletion_timestamp.is_none());
    let statuses = reported.and_then(|reported| changed_status(checkpoint, reported, true, now)).into_iter().collect();
    Writes { statuses, ..Writes::default() }
}

/// Checkpoints the speaker is to remove from its output, as long as it holds the volume: those the Checkpoint controller has given free, that is
/// in phase Deleting with that reason. One that is still used is in phase Deleting too, with reason `InUse`.
#[must_use]
pub(crate) fn deletions(speaker: &RunSpeaker, observed: &Observed<'_>) -> Vec<CheckpointKey> {
    let terminating = observed.fine_tune.metadata.deletion_timestamp.is_some();
    if terminating || speaker.role != RunRole::Train || !is_current(speaker, observed.fine_tune) {
        return Vec::new();
    }
    let goes = |checkpoint: &Checkpoint| {
        let finalizers = checkpoint.metadata.finalizers.iter().flatten();
        checkpoint.metadata.deletion_timestamp.is_some()
            && checkpoint.spec.deletion_policy == DeletionPolicy::Delete
            && checkpoint.status.as_ref().is_some_and(is_given_free)
            && finalizers.into_iter().any(|finalizer| finalizer == names::CHECKPOINT_FINALIZER)
    };
    by_key(observed).into_iter().filter(|(_, checkpoint)| goes(checkpoint)).map(|(key, _)| key).collect()
}

/// Whether the speaker is of the newest attempt anybody knows of, and its first node: only then it speaks for the run as it is now.
fn is_current(speaker: &RunSpeaker, fine_tune: &FineTune) -> bool {
    let newest = fine_tune
        .status
        .as_ref()
        .map_or(0, |status| status.progress.as_ref().map_or(0, |progress| progress.attempt).max(status.attempt));
    speaker.node == 0 && speaker.attempt >= newest
}

fn is_given_free(status: &CheckpointStatus) -> bool {
    let reconciling = condition::find(&status.conditions, condition::RECONCILING);
    status.phase == CheckpointPhase::Deleting && reconciling.is_some_and(|reconciling| reconciling.reason == "Deleting")
}

fn by_key(observed: &Observed<'_>) -> BTreeMap<CheckpointKey, Arc<Checkpoint>> {
    let uid = observed.fine_tune.metadata.uid.as_deref().unwrap_or_default();
    let mut known: BTreeMap<CheckpointKey, Arc<Checkpoint>> = BTreeMap::new();
    for checkpoint in observed.checkpoints {
        if let Some(key) = key_of(checkpoint, uid) {
            let entry = known.entry(key).or_insert_with(|| Arc::clone(checkpoint));
            if checkpoint.metadata.name < entry.metadata.name {
                *entry = Arc::clone(checkpoint);
            }
        }
    }
    known
}

/// The status of an existing Checkpoint after this report, when it differs. An old attempt only completes what has no status at all.
fn changed_status(checkpoint: &Checkpoint, reported: &ReportedCheckpoint, current: bool, now: Timestamp) -> Option<StatusWrite> {
    let (name, uid) = (checkpoint.metadata.name.clone()?, checkpoint.metadata.uid.clone()?);
    let stored = checkpoint.status.as_ref();
    if !current && stored.is_some_and(|status| status.phase != CheckpointPhase::Pending) {
        return None;
    }
    let terminating = checkpoint.metadata.deletion_timestamp.is_some();
    if terminating && reported.state != FilesState::Missing {
        return None;
    }
    let status = status::checkpoint_status(reported, stored, checkpoint.metadata.generation, now);
    (stored != Some(&status)).then_some(StatusWrite { name, uid, status })
}

fn created(observed: &Observed<'_>, reported: &ReportedCheckpoint, now: Timestamp) -> Result<Checkpoint, Refusal> {
    let metadata = &observed.fine_tune.metadata;
    let run = metadata.name.as_deref().unwrap_or_default();
    let key = CheckpointKey { lineage: reported.lineage.max(1), step: reported.step };
    let [name, other] = candidate_names(run, metadata.uid.as_deref().unwrap_or_default(), key);
    let name = if observed.taken.contains(&name) { other } else { name };
    let mut checkpoint = new_checkpoint(observed.fine_tune, observed.default_output, reported, name)
        .ok_or_else(|| Refusal::NotYet(format!("the output of FineTune {run} is not on record yet: report again")))?;
    checkpoint.status = Some(status::checkpoint_status(reported, None, Some(1), now));
    Ok(checkpoint)
}
