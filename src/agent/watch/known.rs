//! What a run has on record when its pod starts: the manifests of all its lineages, on the volume and in
//! the object store. Reads only.

use std::collections::BTreeMap;
use std::path::Path;

use super::book::{Known, Stamp};
use crate::agent::check::{as_reported, signed};
use crate::agent::store::{Bucket, StoreError};
use crate::checkpoint_files::{FileSystem, Kind, Manifest, RealFs, Reason, RelPath, limits, step_of};
use crate::protocol::{FilesState, MAX_REPORTED_CHECKPOINTS, RunConfig, lineage_folder, run_folder};

/// End of a manifest's name.
pub(super) const RECORD: &str = ".finetune.json";
/// The file a trainer writes last.
pub(super) const STATE: &str = "trainer_state.json";

/// What the manifests on a volume say.
#[derive(Debug, Default)]
pub struct OnDisk {
    /// The run's own checkpoints.
    pub known: Vec<Known>,
    /// Saves in the current lineage that a manifest says are of another run.
    pub foreign: BTreeMap<i64, Option<Stamp>>,
}

/// The checkpoints recorded below the folder of a run. One that differs from its record is corrupt, unless
/// it was saved again since: then it is left to the scan.
#[must_use]
pub fn on_disk(output: &Path, config: &RunConfig) -> OnDisk {
    let mut all = OnDisk::default();
    let Ok(fs) = RealFs::new(output) else { return all };
    let Ok(names) = fs.read_dir(&RelPath::root(), limits::ENTRIES) else { return all };
    for name in names.names {
        let Some(lineage) = name.strip_prefix("lineage-").and_then(|it| it.parse().ok()) else { continue };
        let Ok(dir) = RelPath::parse(&name) else { continue };
        let mut records: Vec<_> = fs.read_dir(&dir, limits::ENTRIES).unwrap_or_default().names;
        records.retain(|name| name.strip_suffix(RECORD).is_some_and(|it| step_of(it).is_some()));
        records.sort_by_key(|name| name.strip_suffix(RECORD).and_then(step_of));
        let surplus = records.len().saturating_sub(MAX_REPORTED_CHECKPOINTS);
        for record in records.iter().skip(surplus) {
            all.add(&fs, (&dir, record), lineage, config);
        }
    }
    all
}

impl OnDisk {
    fn add(&mut self, fs: &RealFs, (dir, record): (&RelPath, &str), lineage: i64, config: &RunConfig) {
        let checkpoint = record.strip_suffix(RECORD).and_then(|name| dir.join(name).ok());
        let (Some(checkpoint), Ok(path)) = (checkpoint, dir.join(record)) else { return };
        // A record that cannot be read vouches for nothing: the scan proves the folder anew.
        let Ok(manifest) = Manifest::read(fs, &path) else { return };
        if step_of(checkpoint.name()) != Some(manifest.step) {
            return;
        }
        let stamp = stamp(fs, &checkpoint);
        if manifest.origin.fine_tune_uid == config.uid {
            self.known.extend(recorded(fs, &checkpoint, (manifest, stamp), lineage));
        } else if lineage == config.lineage {
            self.foreign.insert(signed(manifest.step), stamp);
        }
    }
}

fn recorded(fs: &RealFs, checkpoint: &RelPath, (manifest, stamp): (Manifest, Option<Stamp>), lineage: i64) -> Option<Known> {
    let mut reported = as_reported(&manifest);
    // The folder a checkpoint lies in is where it will be looked for.
    reported.lineage = lineage;
    let problems = manifest.check(fs, checkpoint, false);
    let gone = matches!(problems.first(), Some(Reason::Vanished { .. }));
    if let Some(problem) = problems.first() {
        let saved_at = manifest.saved_at.as_nanosecond();
        if stamp.is_some_and(|(time, _)| i128::from(time) != saved_at) {
            return None;
        }
        reported.state = if gone { FilesState::Missing } else { FilesState::Corrupt };
        reported.message = problem.render();
    }
    Some(Known { reported, stamp, local: !gone, stored: false })
}

/// The save a folder holds.
#[must_use]
pub fn stamp(fs: &RealFs, checkpoint: &RelPath) -> Option<Stamp> {
    let found = fs.metadata(&checkpoint.join(STATE).ok()?).ok()?;
    (found.kind == Kind::File).then_some((found.mtime, found.size))
}

/// The checkpoints recorded in the object store.
///
/// # Errors
/// When the store refuses it or cannot be reached.
pub async fn in_store(bucket: &Bucket, config: &RunConfig) -> Result<Vec<Known>, StoreError> {
    let listing = bucket.list(&run_folder(&config.name, &config.uid)).await?;
    let mut records: Vec<_> = listing.iter().filter_map(|(key, _)| Some((place(key)?, key))).collect();
    records.sort_unstable();
    let surplus = records.len().saturating_sub(MAX_REPORTED_CHECKPOINTS);
    let mut all = Vec::new();
    for ((lineage, step), key) in records.into_iter().skip(surplus) {
        let text = bucket.get(key, limits::JSON_BYTES).await?.unwrap_or_default();
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else {
            tracing::warn!(key, "manifest cannot be read: checkpoint left out");
            continue;
        };
        if manifest.origin.fine_tune_uid == config.uid && manifest.step == step {
            let mut reported = as_reported(&manifest);
            reported.lineage = lineage;
            all.push(Known { reported, stamp: None, local: false, stored: true });
        }
    }
    Ok(all)
}

/// Lineage and step that the key of a manifest says. Pure.
fn place(key: &str) -> Option<(i64, u64)> {
    let mut parts = key.rsplit('/');
    let step = step_of(parts.next()?.strip_suffix(RECORD)?)?;
    let lineage: i64 = parts.next()?.strip_prefix("lineage-")?.parse().ok()?;
    let plain = parts.next().is_some() && parts.next().is_none();
    (plain && key.contains(&lineage_folder(lineage))).then_some((lineage, step))
}
