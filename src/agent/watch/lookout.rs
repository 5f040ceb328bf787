//! One scan after another over the folder the trainer writes to: which saves are whole and have come to
//! rest. Reads, hashes and records; blocking.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::book::{Book, Known, Stamp};
use super::known::{self, RECORD, STATE};
use super::session::HISTORY;
use crate::agent::check::{as_unusable, folder, record, signed};
use crate::checkpoint_files::{
    FileSystem, Inspection, Kind, Manifest, Origin, RealFs, Reason, RelPath, Settling, TrainerState, checkpoint_steps, inspect,
    limits,
};
use crate::protocol::{CheckpointKey, FilesState, MAX_REPORTED_CHECKPOINTS, RunConfig};

/// A save that is whole and at rest.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What was found.
    pub inspection: Inspection,
    /// Which save it is.
    pub stamp: Option<Stamp>,
    /// Whether this attempt has written it.
    pub own: bool,
}

/// A save that is proven and recorded.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The record beside it.
    pub manifest: Manifest,
    /// The trainer's state in it.
    pub state: Option<TrainerState>,
}

/// The scans of one lineage.
#[derive(Debug)]
pub struct Lookout {
    config: Arc<RunConfig>,
    dir: PathBuf,
    settling: Settling,
    /// All that is known.
    pub book: Book,
    before: BTreeMap<i64, Option<Stamp>>,
    foreign: BTreeMap<i64, Option<Stamp>>,
    copies: BTreeMap<i64, (Option<String>, Option<Stamp>)>,
    prepared: i64,
    refused: BTreeMap<i64, String>,
    unproven: BTreeMap<String, Stamp>,
    written: bool,
    lost: BTreeMap<i64, Option<Stamp>>,
    lost_states: Vec<TrainerState>,
}

impl Lookout {
    /// Begins with what lies there already. What was written before `prepared` (nanoseconds since the
    /// Unix epoch) is of an earlier attempt.
    #[must_use]
    pub fn new(config: Arc<RunConfig>, output: &Path, dir: PathBuf, prepared: i64) -> Self {
        let found = known::on_disk(output, &config);
        let (mut book, mut copies) = (Book::new(config.lineage), BTreeMap::new());
        for known in found.known {
            if config.upload.is_none() {
                book.enter(known);
            } else if known.reported.lineage == config.lineage {
                // An upload is what counts where checkpoints are uploaded.
                copies.insert(known.reported.step, (known.reported.digest, known.stamp));
            }
        }
        let mut before = stamps(&dir);
        before.retain(|_, stamp| stamp.is_none_or(|(time, _)| time < prepared));
        let settling = Settling::new(Duration::from_secs(config.settle_seconds.into()));
        book.take_changed();
        let (refused, unproven) = (BTreeMap::new(), BTreeMap::new());
        Self {
            config,
            dir,
            settling,
            book,
            before,
            foreign: found.foreign,
            copies,
            prepared,
            refused,
            unproven,
            written: false,
            lost: BTreeMap::new(),
            lost_states: Vec::new(),
        }
    }

    /// With the saves `prepare` has read to the last byte and refused, and why: sizes alone may not show it.
    #[must_use]
    pub fn refusing(mut self, refused: BTreeMap<i64, String>) -> Self {
        self.refused = refused;
        self.book.refute(&self.refused);
        self
    }

    /// From now on nothing has to come to rest: nobody writes any more.
    pub fn stop_settling(&mut self) {
        self.settling = Settling::new(Duration::ZERO);
    }

    /// Takes over what the object store has on record. A folder counts as a copy of an upload when `prepare`
    /// has fetched it, or when its own record says so.
    pub fn stored(&mut self, all: Vec<Known>) {
        let stamps = stamps(&self.dir);
        for mut known in all {
            let step = known.reported.step;
            let here = stamps.get(&step).copied().filter(|_| known.reported.lineage == self.config.lineage);
            let recorded = self.copies.get(&step);
            let copy =
                |stamp: &Option<Stamp>| recorded == Some(&(known.reported.digest.clone(), *stamp)) || !self.is_own(step, *stamp);
            if let Some(stamp) = here.filter(copy) {
                (known.local, known.stamp) = (true, stamp);
            }
            self.book.stored(known);
        }
        self.book.refute(&self.refused);
    }

    /// One scan at `now`, on any clock that only goes forward.
    pub fn look(&mut self, now: Duration) -> Vec<Candidate> {
        let mut found = stamps(&self.dir);
        found.retain(|step, stamp| self.foreign.get(step) != Some(stamp));
        // What is saved again is another save.
        let (before, prepared) = (&self.before, self.prepared);
        self.refused.retain(|step, _| found.get(step).is_none_or(|stamp| !is_own(before, prepared, (*step, *stamp))));
        let open = self.book.scanned(&found);
        self.settling.retain(|dir| open.iter().any(|step| folder(*step) == dir));
        let Ok(fs) = RealFs::new(&self.dir) else { return Vec::new() };
        let (mut candidates, mut unproven) = (Vec::new(), top_files(&fs));
        for step in open {
            let name = folder(step);
            let (Ok(dir), Ok(number)) = (RelPath::parse(&name), u64::try_from(step)) else { continue };
            let inspection = inspect(&fs, &dir, number);
            let stamp = known::stamp(&fs, &dir);
            let settled = self.settling.observe(&name, now, &inspection.files);
            unproven.extend(inspection.files.iter().map(|file| (format!("{name}/{}", file.path), (file.mtime, file.size))));
            let own = self.is_own(step, stamp);
            if !inspection.complete {
                self.book.unusable(as_unusable(step, &self.origin(own), &inspection), stamp, settled);
                if own && inspection.reasons.iter().any(Reason::is_divergence) && self.lost.insert(step, stamp) != Some(stamp) {
                    self.lost_states.extend(self.state(step));
                }
                continue;
            }
            self.book.whole(step);
            if settled {
                candidates.push(Candidate { inspection, stamp, own });
            }
        }
        self.written |= unproven.iter().any(|(path, stamp)| self.unproven.get(path) != Some(stamp));
        self.unproven = unproven;
        candidates
    }

    /// The states of saves this attempt made after its loss had ceased to be a number, each once: they tell of the divergence.
    pub fn take_lost_states(&mut self) -> Vec<TrainerState> {
        std::mem::take(&mut self.lost_states)
    }

    /// Whether files that are not proven yet have appeared or changed since the last call.
    pub const fn take_written(&mut self) -> bool {
        std::mem::replace(&mut self.written, false)
    }

    /// Gives up saves that are whole, but could not be brought to where they outlive the pod.
    pub fn lose(&mut self, steps: &BTreeSet<i64>, now: Duration) {
        for Candidate { inspection, stamp, own } in self.look(now) {
            let step = signed(inspection.step);
            if steps.contains(&step) {
                let mut reported = as_unusable(step, &self.origin(own), &inspection);
                reported.state = FilesState::Missing;
                "it could not be uploaded before the pod ended".clone_into(&mut reported.message);
                self.book.enter(Known { reported, stamp, local: true, stored: false });
            }
        }
    }

    /// Whether this attempt has written a save.
    fn is_own(&self, step: i64, stamp: Option<Stamp>) -> bool {
        is_own(&self.before, self.prepared, (step, stamp))
    }

    /// The newest state this attempt had saved before the scans began: there is one where only `watch`
    /// was started again.
    #[must_use]
    pub fn own_state(&self) -> Option<TrainerState> {
        let own = stamps(&self.dir).into_iter().filter(|(step, stamp)| self.is_own(*step, *stamp));
        own.rev().find_map(|(step, _)| self.state(step))
    }

    /// The trainer's state in the save of a step.
    #[must_use]
    pub fn state(&self, step: i64) -> Option<TrainerState> {
        state_of(&self.dir, &format!("{}/{STATE}", folder(step)))
    }

    /// The state in the output itself, where this attempt has written it.
    #[must_use]
    pub fn root_state(&self) -> Option<TrainerState> {
        let written = super::disk::modified(&self.dir.join(STATE))?;
        (written >= self.prepared).then(|| state_of(&self.dir, STATE)).flatten()
    }

    /// Which run, attempt and lineage a save is of.
    #[must_use]
    pub fn origin(&self, own: bool) -> Origin {
        let number = |number: i64| u32::try_from(number).unwrap_or_default();
        let earlier = self.config.attempt.saturating_sub(1).max(1);
        Origin {
            fine_tune_uid: self.config.uid.clone(),
            attempt: number(if own { self.config.attempt } else { earlier }),
            lineage: number(self.config.lineage),
        }
    }
}

fn is_own(before: &BTreeMap<i64, Option<Stamp>>, prepared: i64, (step, stamp): (i64, Option<Stamp>)) -> bool {
    before.get(&step) != Some(&stamp) || stamp.is_some_and(|(time, _)| time >= prepared)
}

/// Reads every byte of a save and records it beside the folder.
///
/// # Errors
/// Why it is not what it seemed.
pub fn prove(dir: &Path, candidate: &Candidate, origin: Origin) -> Result<Proof, String> {
    let manifest = record(dir, &candidate.inspection, origin)?;
    let state = state_of(dir, &format!("{}/{STATE}", folder(signed(manifest.step))));
    Ok(Proof { manifest, state })
}

fn state_of(dir: &Path, path: &str) -> Option<TrainerState> {
    TrainerState::read(&RealFs::new(dir).ok()?, &RelPath::parse(path).ok()?).ok()
}

/// Time and size of the files the trainer has right in its folder, such as a final model; what `watch` itself writes is none of them.
fn top_files(fs: &RealFs) -> BTreeMap<String, Stamp> {
    let names = fs.read_dir(&RelPath::root(), limits::ENTRIES).unwrap_or_default().names;
    let theirs = names.into_iter().filter(|name| !name.contains(HISTORY) && !name.ends_with(RECORD));
    let stamped = |name: String| {
        let found = fs.metadata(&RelPath::parse(&name).ok()?).ok()?;
        (found.kind == Kind::File).then_some((name, (found.mtime, found.size)))
    };
    theirs.filter_map(stamped).collect()
}

/// The newest saves in a folder, and which ones they are.
fn stamps(dir: &Path) -> BTreeMap<i64, Option<Stamp>> {
    let Ok(fs) = RealFs::new(dir) else { return BTreeMap::new() };
    let steps = checkpoint_steps(&fs, &RelPath::root()).unwrap_or_default();
    let newest = steps.iter().rev().take(MAX_REPORTED_CHECKPOINTS);
    let stamped = |(step, name): &(u64, String)| {
        let path = RelPath::parse(name).ok()?;
        Some((signed(*step), known::stamp(&fs, &path)))
    };
    newest.filter_map(stamped).collect()
}

/// Path of a checkpoint below the folder of its run.
#[must_use]
pub fn place(key: CheckpointKey) -> String {
    format!("{}/{}", crate::protocol::lineage_folder(key.lineage), folder(key.step))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::agent::fixture::{config, write_checkpoint};

    #[test]
    fn a_save_that_takes_long_is_a_sign_of_life_for_as_long_as_it_is_written() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("lineage-1");
        fs::create_dir_all(&dir).unwrap();
        let config = RunConfig { settle_seconds: 0, ..config() };
        let mut lookout = Lookout::new(Arc::new(config), root.path(), dir.clone(), 0);
        let mut written = |now: u64| {
            let candidates = lookout.look(Duration::from_secs(now));
            (lookout.take_written(), candidates.len())
        };
        assert_eq!(written(0), (false, 0));
        fs::create_dir(dir.join("checkpoint-10")).unwrap();
        for size in 1..4 {
            fs::write(dir.join("checkpoint-10/model.safetensors"), vec![0; size]).unwrap();
            assert_eq!(written(1), (true, 0), "{size} bytes so far");
        }
        assert_eq!(written(2), (false, 0), "nothing more is written");
        fs::write(dir.join("model.safetensors"), "the final model").unwrap();
        assert_eq!(written(3), (true, 0));
        fs::write(dir.join("history.jsonl"), "{}").unwrap();
        fs::write(dir.join("checkpoint-10.finetune.json"), "{}").unwrap();
        assert_eq!(written(4), (false, 0), "what watch itself writes tells nothing of the trainer");
        fs::remove_file(dir.join("checkpoint-10/model.safetensors")).unwrap();
        write_checkpoint(&dir, 10);
        assert_eq!(written(5), (true, 1));
    }
}
