//! Picks the checkpoint an attempt resumes from and proves it again: the newest of the lineage, on the
//! volume or in the object store, that is whole to the last byte and was saved by this very run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tokio::fs;
use tokio::task::spawn_blocking;

use super::check::{self, Depth, Verdict, folder, signed};
use super::inputs::{self, InputError};
use super::store::{Bucket, StoreError, lineage_prefix};
use crate::checkpoint_files::{
    FsError, Manifest, RealFs, RelPath, checkpoint_steps, inspect_weights, limits, manifest_name, step_of,
};
use crate::protocol::{Input, RunConfig, Start};

/// Checkpoints that are downloaded in the search for a good one.
const MAX_DOWNLOADS: usize = 10;

/// Why no decision could be made; that a checkpoint is bad is none.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The output cannot be read or written.
    #[error("the output {path} cannot be used: {problem}")]
    Output {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// The object store of the output cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The checkpoint of another run cannot be fetched.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The checkpoint of another run is damaged.
    #[error("the checkpoint to start from ({from}) is not whole: {problem}")]
    Damaged {
        /// Where it is.
        from: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A checkpoint to resume from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its step.
    pub step: i64,
    /// Its folder, or repository.
    pub path: PathBuf,
}

/// The outcome of the search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picked {
    /// What to resume from; nothing when the attempt begins with the base model.
    pub choice: Option<Choice>,
    /// Newer checkpoints that are damaged or of another run, with the reason.
    pub refused: BTreeMap<i64, String>,
}

/// Decides what an attempt begins with; `output` is the folder of its lineage, `bucket` where
/// checkpoints are uploaded to.
///
/// # Errors
/// When the output, or the checkpoint of another run that is asked for, cannot be used.
pub async fn pick(config: &RunConfig, output: &Path, bucket: Option<&Bucket>) -> Result<Picked, ResumeError> {
    if config.start == Start::Scratch {
        return Ok(Picked::default());
    }
    let mut search = Search { config, output, bucket, picked: Picked::default(), downloads: 0 };
    search.run().await?;
    let mut picked = search.picked;
    if let (None, Start::Warm { from, step }) = (&picked.choice, &config.start) {
        picked.choice = Some(warm(from, *step).await?);
    }
    Ok(picked)
}

struct Search<'a> {
    config: &'a RunConfig,
    output: &'a Path,
    bucket: Option<&'a Bucket>,
    picked: Picked,
    downloads: usize,
}

impl Search<'_> {
    async fn run(&mut self) -> Result<(), ResumeError> {
        let local = self.local_steps()?;
        let remote = self.remote_steps().await?;
        let all: BTreeSet<_> = local.iter().chain(remote.keys()).copied().collect();
        for step in all.into_iter().rev() {
            let found = local.contains(&step) && self.is_good(step).await?;
            let found = found
                || match (self.bucket, remote.get(&step)) {
                    (Some(bucket), Some(files)) => self.fetch(bucket, step, files).await?,
                    _ => false,
                };
            if found {
                let path = self.output.join(folder(step));
                self.picked.refused.remove(&step);
                self.picked.choice = Some(Choice { step, path });
                break;
            }
        }
        Ok(())
    }

    fn local_steps(&self) -> Result<BTreeSet<i64>, ResumeError> {
        let failed = |error: FsError| self.output_failed(&error);
        let fs = match RealFs::new(self.output) {
            Ok(fs) => fs,
            Err(FsError::NotFound) => return Ok(BTreeSet::new()),
            Err(error) => return Err(failed(error)),
        };
        let found = checkpoint_steps(&fs, &RelPath::root()).map_err(failed)?;
        Ok(found.into_iter().map(|(step, _)| signed(step)).collect())
    }

    /// The steps in the store, with the files of each and their sizes.
    async fn remote_steps(&self) -> Result<BTreeMap<i64, BTreeMap<String, u64>>, ResumeError> {
        let mut steps: BTreeMap<i64, BTreeMap<String, u64>> = BTreeMap::new();
        let Some(bucket) = self.bucket else { return Ok(steps) };
        let prefix = self.prefix();
        for (key, size) in bucket.list(&prefix).await? {
            let tail = key.strip_prefix(&prefix).and_then(|tail| tail.strip_prefix('/'));
            let Some((dir, file)) = tail.and_then(|tail| tail.split_once('/')) else { continue };
            if let Some(step) = step_of(dir) {
                steps.entry(signed(step)).or_default().insert(file.to_owned(), size);
            }
        }
        Ok(steps)
    }

    /// Whether the folder of a step on the disk can be resumed from; else the reason is noted.
    async fn is_good(&mut self, step: i64) -> Result<bool, ResumeError> {
        let (output, uid) = (self.output.to_owned(), self.config.uid.clone());
        let checked = spawn_blocking(move || check::check(&output, step, &uid, Depth::Content));
        let resumable = match checked.await.map_err(|error| self.output_failed(&error))? {
            Verdict::Recorded(manifest) => manifest.resumable,
            Verdict::Unrecorded(found) => found.resumable,
            Verdict::Refused(reason) => {
                self.refuse(step, reason);
                return Ok(false);
            }
        };
        if !resumable {
            tracing::info!(step, "checkpoint is whole but holds no training state: looking further back");
        }
        Ok(resumable)
    }

    /// Downloads a checkpoint whose listing looks right; whether it can be resumed from.
    async fn fetch(&mut self, bucket: &Bucket, step: i64, files: &BTreeMap<String, u64>) -> Result<bool, ResumeError> {
        let (name, prefix) = (folder(step), self.prefix());
        let record = manifest_name(&name);
        let manifest = bucket.get(&format!("{prefix}/{record}"), limits::JSON_BYTES).await?;
        if let Err(reason) = worth_fetching(manifest.as_deref(), files, &self.config.uid) {
            self.refuse(step, reason);
            return Ok(false);
        }
        self.downloads += 1;
        if self.downloads > MAX_DOWNLOADS {
            tracing::warn!(step, "checkpoint not looked at after {MAX_DOWNLOADS} bad ones");
            return Ok(false);
        }
        self.clear(step).await?;
        let to = self.output.join(&name);
        match bucket.download_prefix(&format!("{prefix}/{name}"), &to, "checkpoint").await {
            Ok(_) => {}
            // It was removed meanwhile, or holds what no trainer writes.
            Err(error @ (StoreError::Nothing { .. } | StoreError::BadKey { .. })) => {
                self.refuse(step, error.to_string());
                self.clear(step).await?;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(manifest) = manifest {
            let path = self.output.join(&record);
            fs::write(&path, &manifest).await.map_err(|e| StoreError::local(&path, e))?;
        }
        let good = self.is_good(step).await?;
        if !good {
            self.clear(step).await?;
        }
        Ok(good)
    }

    /// Removes the local copy of what lies in the store.
    async fn clear(&self, step: i64) -> Result<(), ResumeError> {
        let name = folder(step);
        let ended = fs::remove_file(self.output.join(manifest_name(&name))).await;
        let ended = [ended, fs::remove_dir_all(self.output.join(name)).await];
        let failed = ended.into_iter().filter_map(Result::err);
        let mut failed = failed.filter(|error| error.kind() != std::io::ErrorKind::NotFound);
        failed.next().map_or(Ok(()), |error| Err(self.output_failed(&error)))
    }

    fn refuse(&mut self, step: i64, reason: String) {
        tracing::warn!(step, reason, "checkpoint refused");
        self.picked.refused.insert(step, reason);
    }

    fn prefix(&self) -> String {
        lineage_prefix(self.config, self.config.lineage)
    }

    fn output_failed(&self, problem: &impl ToString) -> ResumeError {
        ResumeError::Output { path: self.output.to_owned(), problem: problem.to_string() }
    }
}

/// Whether a checkpoint in the store can be what its manifest says, by names and sizes alone.
fn worth_fetching(manifest: Option<&[u8]>, files: &BTreeMap<String, u64>, uid: &str) -> Result<(), String> {
    let Some(manifest) = manifest else {
        let needed = ["trainer_state.json", "scheduler.pt"];
        let missing = needed.into_iter().find(|name| !files.contains_key(*name));
        return missing.map_or(Ok(()), |name| Err(format!("{name} is missing")));
    };
    let manifest: Manifest = serde_json::from_slice(manifest).map_err(|error| format!("its manifest cannot be read: {error}"))?;
    if manifest.origin.fine_tune_uid != uid {
        return Err("its manifest is of another run".to_owned());
    }
    let differs = |file: &&crate::checkpoint_files::ManifestFile| files.get(&file.path) != Some(&file.size);
    match manifest.files.iter().find(differs) {
        Some(file) => Err(format!("{} is missing or of another size", file.path)),
        None => Ok(()),
    }
}

/// Fetches and proves a checkpoint of another run.
async fn warm(from: &Input, step: i64) -> Result<Choice, ResumeError> {
    inputs::make_usable(from, "checkpoint to start from").await?;
    let path = PathBuf::from(from.target());
    if !matches!(from, Input::Hub { .. }) {
        let dir = path.clone();
        let problem = spawn_blocking(move || damage(&dir, step)).await;
        let problem = problem.unwrap_or_else(|error| Some(error.to_string()));
        if let Some(problem) = problem {
            let from = match from {
                Input::Path { label, .. } => label.clone(),
                Input::Download { store, .. } => store.uri.clone(),
                Input::Shared { checkpoint: of, .. } | Input::Hub { repo: of, .. } => of.clone(),
            };
            return Err(ResumeError::Damaged { from, problem });
        }
    }
    Ok(Choice { step, path })
}

/// What is wrong with the weights in `dir`, whichever run they are of.
fn damage(dir: &Path, step: i64) -> Option<String> {
    let dir = match std::fs::canonicalize(dir) {
        Ok(dir) => dir,
        Err(error) => return Some(error.to_string()),
    };
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parent = dir.parent().map(RealFs::new);
    let (Some(Ok(fs)), Ok(relative), Ok(record)) = (parent, RelPath::parse(name), RelPath::parse(&manifest_name(name))) else {
        return Some("it is no directory with a plain name".to_owned());
    };
    let found = match check::manifest(&fs, &record) {
        Ok(Some(manifest)) => manifest.check(&fs, &relative, true),
        Ok(None) => inspect_weights(&fs, &relative, u64::try_from(step).unwrap_or_default()).reasons,
        Err(reason) => vec![reason],
    };
    (!found.is_empty()).then(|| check::reasons(&found))
}

#[cfg(test)]
mod tests;
