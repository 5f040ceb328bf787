//! All that is known of the checkpoints in the folder of a run, and how scans change it. Pure.

use std::collections::BTreeMap;

use crate::protocol::{CheckpointKey, FilesState, MAX_REPORTED_CHECKPOINTS, ReportedCheckpoint};

const ROTATED: &str = "its folder is gone: the trainer's own rotation (save_total_limit) or somebody else has removed it";
const SAVED_AGAIN: &str = "it is being saved again and not verified yet";

/// Time and size of the file a trainer writes last: another one is another save.
pub type Stamp = (i64, u64);

/// A checkpoint about which there is something to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// What is said.
    pub reported: ReportedCheckpoint,
    /// The save it is about; nothing where there is no folder.
    pub stamp: Option<Stamp>,
    /// Whether its folder is there.
    pub local: bool,
    /// Whether it was uploaded whole.
    pub stored: bool,
}

/// A folder that is not proven.
#[derive(Clone, Debug, PartialEq)]
struct Pending {
    unusable: ReportedCheckpoint,
    stamp: Option<Stamp>,
    settled: bool,
}

/// The checkpoints of a run.
#[derive(Clone, Debug, Default)]
pub struct Book {
    lineage: i64,
    known: BTreeMap<CheckpointKey, Known>,
    pending: BTreeMap<i64, Option<Pending>>,
    changed: bool,
}

impl Book {
    /// An empty book of a run that now writes to `lineage`.
    #[must_use]
    pub fn new(lineage: i64) -> Self {
        Self { lineage, ..Self::default() }
    }

    const fn key(&self, step: i64) -> CheckpointKey {
        CheckpointKey { lineage: self.lineage, step }
    }

    /// Enters a checkpoint, in place of what was known.
    pub fn enter(&mut self, known: Known) {
        let key = CheckpointKey { lineage: known.reported.lineage, step: known.reported.step };
        if key.lineage == self.lineage {
            self.pending.remove(&key.step);
        }
        self.changed |= self.known.get(&key).is_none_or(|old| old.reported != known.reported);
        self.known.insert(key, known);
    }

    /// Marks a checkpoint as uploaded.
    pub fn stored(&mut self, known: Known) {
        let key = CheckpointKey { lineage: known.reported.lineage, step: known.reported.step };
        match self.known.get_mut(&key) {
            Some(old) if old.reported.digest == known.reported.digest => {
                old.stored = true;
                if old.reported.state == FilesState::Missing {
                    old.reported = known.reported;
                    self.changed = true;
                }
            }
            _ => self.enter(known),
        }
    }

    /// Marks saves of the current lineage that were found damaged, with the reason.
    pub fn refute(&mut self, refused: &BTreeMap<i64, String>) {
        for (step, reason) in refused {
            let known = self.known.get_mut(&CheckpointKey { lineage: self.lineage, step: *step });
            if let Some(known) = known.filter(|known| known.reported.state == FilesState::Ready) {
                known.reported.state = FilesState::Corrupt;
                known.reported.message.clone_from(reason);
                self.changed = true;
            }
        }
    }

    /// Takes the folders a scan of the current lineage has found; returns the steps that must be looked at.
    pub fn scanned(&mut self, found: &BTreeMap<i64, Option<Stamp>>) -> Vec<i64> {
        self.pending.retain(|step, _| found.contains_key(step));
        for (key, known) in &mut self.known {
            if key.lineage != self.lineage || !known.local {
                continue;
            }
            match found.get(&key.step) {
                // An unreadable moment is no change: only another save is.
                Some(stamp) if stamp.is_none() || *stamp == known.stamp => {}
                Some(_) => {
                    known.gone(SAVED_AGAIN);
                    known.stored = false;
                    self.changed = true;
                }
                None if known.stored => known.local = false,
                None => {
                    known.gone(ROTATED);
                    self.changed = true;
                }
            }
        }
        for step in found.keys() {
            let known = self.known.get_mut(&CheckpointKey { lineage: self.lineage, step: *step });
            if known.as_ref().is_some_and(|known| known.local) {
                continue;
            }
            if let Some(known) = known.filter(|known| known.reported.state == FilesState::Ready) {
                known.gone(SAVED_AGAIN);
                known.stored = false;
                self.changed = true;
            }
            self.pending.entry(*step).or_insert(None);
        }
        self.pending.keys().copied().collect()
    }

    /// Notes that a folder cannot be used as it is now.
    pub fn unusable(&mut self, unusable: ReportedCheckpoint, stamp: Option<Stamp>, settled: bool) {
        // A folder that went while it was looked at is the next scan's business.
        if unusable.state == FilesState::Missing {
            return;
        }
        let step = unusable.step;
        self.pending.insert(step, Some(Pending { unusable, stamp, settled }));
    }

    /// Notes that a folder looks whole now, so that it only has to be proven.
    pub fn whole(&mut self, step: i64) {
        self.pending.insert(step, None);
    }

    /// Whether nothing is decided yet about the folder of a step.
    #[must_use]
    pub fn is_open(&self, step: i64) -> bool {
        self.pending.contains_key(&step)
    }

    /// Gives up folders that stay unusable although the trainer has gone on to another save, or has ended.
    pub fn condemn(&mut self, ended: bool) {
        let newest = self.newest_ready();
        let lost: Vec<_> = self
            .pending
            .iter()
            .filter_map(|(step, pending)| {
                let pending = pending.as_ref()?;
                let passed = newest > Some(*step) && pending.settled;
                (ended || passed).then(|| pending.clone())
            })
            .collect();
        for Pending { unusable, stamp, .. } in lost {
            self.enter(Known { reported: unusable, stamp, local: true, stored: false });
        }
    }

    /// Whether folders are left about which nothing is decided.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The newest verified step of the current lineage.
    #[must_use]
    pub fn newest_ready(&self) -> Option<i64> {
        let ready =
            |(key, known): &(&CheckpointKey, &Known)| key.lineage == self.lineage && known.reported.state == FilesState::Ready;
        self.known.iter().filter(ready).map(|(key, _)| key.step).max()
    }

    /// Whether the files of a checkpoint may be removed: never a folder the trainer may still write, and
    /// not the one the attempt resumes from before it has saved a newer one.
    #[must_use]
    pub fn is_removable(&self, key: CheckpointKey, resumed_from: Option<i64>) -> bool {
        let current = key.lineage == self.lineage;
        let resumed = current && Some(key.step) == resumed_from && self.newest_ready() <= resumed_from;
        let open = current && self.pending.contains_key(&key.step);
        self.known.contains_key(&key) && !resumed && !open
    }

    /// Notes that the files of a checkpoint were removed.
    pub fn removed(&mut self, key: CheckpointKey) {
        if let Some(known) = self.known.get_mut(&key) {
            known.stored = false;
            known.gone("its files were removed");
            self.changed = true;
        }
    }

    /// Whether anything to report has changed since the last call.
    pub const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Everything that is said, by lineage and step; of very many, the newest.
    #[must_use]
    pub fn reported(&self) -> Vec<ReportedCheckpoint> {
        let surplus = self.known.len().saturating_sub(MAX_REPORTED_CHECKPOINTS);
        self.known.values().skip(surplus).map(|known| known.reported.clone()).collect()
    }

    /// What is known of a step of the current lineage.
    #[must_use]
    pub fn get(&self, step: i64) -> Option<&Known> {
        self.known.get(&self.key(step))
    }
}

impl Known {
    fn gone(&mut self, why: &str) {
        self.local = false;
        self.stamp = None;
        self.reported.state = FilesState::Missing;
        why.clone_into(&mut self.reported.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::fixtures::reported;

    fn checkpoint(lineage: i64, step: i64, state: FilesState) -> ReportedCheckpoint {
        ReportedCheckpoint { lineage, state, ..reported(step) }
    }

    fn ready(step: i64, stored: bool) -> Known {
        let reported = checkpoint(1, step, FilesState::Ready);
        Known { reported, stamp: Some((step, 1)), local: true, stored }
    }

    fn found(steps: &[(i64, i64)]) -> BTreeMap<i64, Option<Stamp>> {
        steps.iter().map(|(step, time)| (*step, Some((*time, 1)))).collect()
    }

    fn states(book: &Book) -> Vec<(i64, FilesState)> {
        book.reported().iter().map(|it| (it.step, it.state)).collect()
    }

    #[test]
    fn new_folders_are_looked_at_until_they_are_proven() {
        let mut book = Book::new(1);
        assert_eq!(book.scanned(&found(&[(10, 10)])), [10]);
        assert!(book.reported().is_empty() && !book.take_changed());
        book.enter(ready(10, false));
        assert!(book.take_changed() && !book.take_changed());
        assert!(book.scanned(&found(&[(10, 10)])).is_empty());
    }

    #[test]
    fn a_folder_that_goes_is_missing_unless_it_was_uploaded() {
        let mut book = Book::new(1);
        book.enter(ready(10, false));
        book.enter(ready(20, true));
        book.scanned(&found(&[]));
        assert_eq!(states(&book), [(10, FilesState::Missing), (20, FilesState::Ready)]);
    }

    #[test]
    fn a_save_that_was_refused_is_corrupt_until_it_is_saved_again() {
        let mut book = Book::new(1);
        book.enter(ready(10, false));
        book.enter(ready(20, false));
        book.take_changed();
        book.refute(&BTreeMap::from([(20, "hash-differs".to_owned()), (30, "of no checkpoint".to_owned())]));
        assert!(book.take_changed());
        assert_eq!(states(&book), [(10, FilesState::Ready), (20, FilesState::Corrupt)]);
        assert!(book.scanned(&found(&[(10, 10), (20, 20)])).is_empty());
        assert_eq!(book.newest_ready(), Some(10));
        assert_eq!(book.scanned(&found(&[(10, 10), (20, 99)])), [20]);
    }

    #[test]
    fn a_step_that_is_saved_again_is_not_ready_until_it_is_verified_again() {
        let mut book = Book::new(1);
        book.enter(ready(10, true));
        assert_eq!(book.scanned(&found(&[(10, 99)])), [10]);
        assert_eq!(states(&book), [(10, FilesState::Missing)]);
        book.enter(Known { stamp: Some((99, 1)), ..ready(10, true) });
        assert_eq!(states(&book), [(10, FilesState::Ready)]);
        assert!(book.scanned(&found(&[(10, 99)])).is_empty());
    }

    #[test]
    fn an_unusable_folder_is_corrupt_once_a_newer_one_is_whole_or_the_trainer_has_ended() {
        let mut book = Book::new(1);
        book.scanned(&found(&[(10, 1), (20, 1)]));
        book.unusable(checkpoint(1, 10, FilesState::Corrupt), Some((1, 1)), false);
        book.condemn(false);
        book.enter(ready(20, false));
        book.condemn(false);
        assert_eq!(states(&book), [(20, FilesState::Ready)]);
        book.unusable(checkpoint(1, 10, FilesState::Corrupt), Some((1, 1)), true);
        book.condemn(false);
        assert_eq!(states(&book), [(10, FilesState::Corrupt), (20, FilesState::Ready)]);
        book.scanned(&found(&[(10, 1), (20, 20), (30, 1)]));
        book.unusable(checkpoint(1, 30, FilesState::Corrupt), None, true);
        book.condemn(false);
        assert!(book.is_undecided());
        book.condemn(true);
        assert_eq!(states(&book).last(), Some(&(30, FilesState::Corrupt)));
        assert_eq!(book.newest_ready(), Some(20));
    }

    #[test]
    fn what_is_resumed_or_written_or_unknown_is_never_removed() {
        let mut book = Book::new(1);
        let key = |step| CheckpointKey { lineage: 1, step };
        book.enter(ready(10, false));
        book.enter(ready(20, false));
        book.scanned(&found(&[(10, 10), (20, 20), (30, 1)]));
        let removable = |book: &Book| [10, 20, 30, 40].map(|step| book.is_removable(key(step), Some(20)));
        assert_eq!(removable(&book), [true, false, false, false]);
        book.enter(ready(30, false));
        assert_eq!(removable(&book), [true, true, true, false]);
        book.removed(key(10));
        assert_eq!(states(&book)[0], (10, FilesState::Missing));
        assert!(!book.is_removable(CheckpointKey { lineage: 2, step: 10 }, None));
    }

    #[test]
    fn other_lineages_are_told_but_not_scanned() {
        let mut book = Book::new(2);
        book.enter(ready(10, false));
        assert!(book.scanned(&found(&[])).is_empty());
        assert_eq!(states(&book), [(10, FilesState::Ready)]);
        assert_eq!(book.newest_ready(), None);
    }

    #[test]
    fn an_upload_found_in_the_store_heals_a_folder_that_is_gone() {
        let mut book = Book::new(1);
        book.enter(ready(10, false));
        book.scanned(&found(&[]));
        book.stored(Known { local: false, stamp: None, ..ready(10, true) });
        assert_eq!(states(&book), [(10, FilesState::Ready)]);
    }
}
