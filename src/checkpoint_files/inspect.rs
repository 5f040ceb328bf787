//! The verdict on one checkpoint directory: complete, resumable, servable, and what it holds. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::listing::Listing;
use super::reason::Reasons;
use super::weights::{self, View};
use super::{AdapterFacts, FileFact, FileSystem, FsError, Reason, RelPath, TrainerState, samples, torch_zip};

/// What kind of weights a checkpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// An adapter, to be put on its base model.
    Adapter,
    /// A whole model.
    Model,
}

impl Format {
    /// The name used in objects and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adapter => "Adapter",
            Self::Model => "Model",
        }
    }
}

/// What was found in one checkpoint directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Whether everything that must be there is there and whole; exactly when there are no reasons.
    /// That it has stopped changing is [`Settling`](super::Settling)'s to say.
    pub complete: bool,
    /// Whether training can go on from it: complete, with optimizer and scheduler state.
    pub resumable: bool,
    /// Whether a server can load it as it lies there: complete, and not only shards of a trainer.
    pub servable: bool,
    /// The step it was inspected for.
    pub step: u64,
    /// What kind of weights it holds; none where none were found.
    pub format: Option<Format>,
    /// Bytes of all files.
    pub size_bytes: u64,
    /// The number of files.
    pub file_count: u64,
    /// The metrics that belong to the step, as decimal strings.
    pub metrics: BTreeMap<String, String>,
    /// What an adapter says of itself.
    pub adapter: Option<AdapterFacts>,
    /// Samples the trainer wrote.
    pub samples: Vec<String>,
    /// Every file, by path.
    pub files: Vec<FileFact>,
    /// Why it is not complete.
    pub reasons: Vec<Reason>,
    /// Why it is complete but not resumable.
    pub notes: Vec<Reason>,
}

impl Inspection {
    /// When the trainer finished writing it, in nanoseconds since the Unix epoch: the time of its state
    /// file, which trainers write last, else of its newest file.
    #[must_use]
    pub fn saved_at(&self) -> Option<i64> {
        let state = self.files.iter().find(|file| file.path == STATE);
        state.or_else(|| self.files.iter().max_by_key(|file| file.mtime)).map(|file| file.mtime)
    }
}

/// Inspects the save of `step` in `dir`, as a trainer leaves it.
#[must_use]
pub fn inspect<F: FileSystem + ?Sized>(fs: &F, dir: &RelPath, step: u64) -> Inspection {
    look(fs, dir, step, true)
}

/// Inspects weights that no run of ours saved: the same rules, but the trainer's state may be missing
/// or be of another step.
#[must_use]
pub fn inspect_weights<F: FileSystem + ?Sized>(fs: &F, dir: &RelPath, step: u64) -> Inspection {
    look(fs, dir, step, false)
}

/// The report of an inspection, as programs and people read it.
#[must_use]
pub fn as_report(inspection: &Inspection) -> Value {
    json!({
        "complete": inspection.complete,
        "resumable": inspection.resumable,
        "step": inspection.step,
        "format": inspection.format.map(Format::as_str),
        "sizeBytes": inspection.size_bytes,
        "metrics": inspection.metrics,
        "reasons": inspection.reasons.iter().map(Reason::render).collect::<Vec<_>>(),
    })
}

const STATE: &str = "trainer_state.json";
const SENTINELS: [&str; 2] = ["checkpoint-is-incomplete.txt", ".incomplete"];

fn look<F: FileSystem + ?Sized>(fs: &F, dir: &RelPath, step: u64, saved: bool) -> Inspection {
    let mut reasons = Reasons::default();
    if dir.name().starts_with("tmp-checkpoint-") {
        reasons.push(Reason::Temporary { dir: dir.to_string() });
    }
    let listing = Listing::walk(fs, dir, &mut reasons);
    let view = View { fs, dir, listing: &listing };
    let mut found = Inspection {
        complete: false,
        resumable: false,
        servable: false,
        step,
        format: None,
        size_bytes: listing.size(),
        file_count: listing.files.len() as u64,
        metrics: BTreeMap::new(),
        adapter: None,
        samples: view.samples(),
        files: listing.facts(),
        reasons: Vec::new(),
        notes: Vec::new(),
    };
    // A directory that could not be listed whole would only give reasons that follow from that.
    if !listing.files.is_empty() || reasons.is_empty() {
        view.check_sentinels(&mut reasons);
        found.metrics = view.metrics(step, saved, &mut reasons);
        let weights = weights::check(&view, &mut reasons);
        if let Some(file) = weights.lost.filter(|_| saved) {
            reasons.push(Reason::WeightsLost { file });
        }
        found.servable = weights.servable;
        found.format = weights.format;
        found.adapter = weights.adapter;
        found.notes = view.not_resumable();
    }
    found.reasons = vanished_or(fs, dir, reasons.into_vec());
    found.complete = found.reasons.is_empty();
    found.servable &= found.complete;
    found.resumable = found.complete && found.notes.is_empty();
    found
}

/// The reasons, or just that the checkpoint is gone where that explains them.
pub(crate) fn vanished_or<F: FileSystem + ?Sized>(fs: &F, dir: &RelPath, reasons: Vec<Reason>) -> Vec<Reason> {
    let gone = !reasons.is_empty() && matches!(fs.metadata(dir), Err(FsError::NotFound));
    if gone { vec![Reason::Vanished { dir: dir.to_string() }] } else { reasons }
}

impl<F: FileSystem + ?Sized> View<'_, F> {
    fn check_sentinels(&self, reasons: &mut Reasons) {
        let marks = |name: &&str| SENTINELS.contains(name) || name.ends_with(".incomplete");
        let files = self.listing.files_in("").map(|(name, _)| name);
        for name in files.chain(self.listing.top_dirs()).filter(marks) {
            reasons.push(Reason::Sentinel { file: self.label(name) });
        }
    }

    fn metrics(&self, step: u64, saved: bool, reasons: &mut Reasons) -> BTreeMap<String, String> {
        let Some(found) = self.listing.file_in("", STATE) else {
            if saved {
                reasons.push(Reason::Missing { file: self.label(STATE) });
            }
            return BTreeMap::new();
        };
        let Some(state) = reasons.note(TrainerState::read(self.fs, &found.path)) else {
            return BTreeMap::new();
        };
        if saved && state.global_step != step {
            let (found, file) = (state.global_step, found.path.to_string());
            reasons.push(Reason::WrongStep { file, found, expected: step });
        }
        if let Some(since) = state.lost_at(step).filter(|_| saved) {
            reasons.push(Reason::LossLost { file: found.path.to_string(), since });
        }
        state.metrics_at(step)
    }

    fn samples(&self) -> Vec<String> {
        let file = self.listing.file_in("", samples::FILE);
        // Samples are for showing: a file that cannot be read shows nothing.
        file.and_then(|found| samples::read(self.fs, &found.path).ok()).unwrap_or_default()
    }

    /// Why training could not go on from here, were the rest complete.
    fn not_resumable(&self) -> Vec<Reason> {
        let mut notes = Reasons::default();
        let files = ["optimizer.pt", "optimizer.bin"];
        let file = files.iter().find_map(|name| self.listing.file_in("", name));
        match file {
            Some(found) => {
                notes.note(torch_zip::check_state(self.fs, &found.path, found.size));
            }
            None if self.check_fsdp("optimizer_", &mut notes) => {}
            None if self.check_deepspeed(&mut notes) => {}
            None => notes.push(Reason::NoOptimizer { dir: self.dir.to_string() }),
        }
        match self.listing.file_in("", "scheduler.pt") {
            Some(found) => {
                notes.note(torch_zip::check_state(self.fs, &found.path, found.size));
            }
            None => notes.push(Reason::NoScheduler { file: self.label("scheduler.pt") }),
        }
        notes.into_vec()
    }
}
