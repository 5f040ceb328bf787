//! What a run left on a volume: checkpoints of all its lineages, proven where they were not, and the
//! records of its last attempt. Writes nothing but manifests.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::{CollectError, Found, HISTORY, HISTORY_BYTES, LOG_BYTES, RECORD_BYTES, STATE, end_name, log_name};
use crate::agent::check::{self, Depth, Verdict, as_reported, as_unusable, folder, signed};
use crate::checkpoint_files::{
    FileSystem, FsError, Manifest, Origin, RealFs, RelPath, TrainerState, checkpoint_steps, inspect, limits, manifest_name,
    step_of,
};
use crate::protocol::{FilesState, ReportedCheckpoint, RunConfig, lineage_folder};

/// Reads the folder of a run.
pub(super) fn collect(config: &RunConfig, output: &Path) -> Result<Found, CollectError> {
    let failed = |problem| CollectError::Output { path: output.to_owned(), problem };
    let fs = match RealFs::new(output) {
        Ok(fs) => fs,
        // The trainer never came so far as to write anything.
        Err(FsError::NotFound) => return Ok(Found::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Found::default();
    for name in fs.read_dir(&RelPath::root(), limits::ENTRIES).map_err(failed)?.names {
        if let Some(lineage) = lineage_of(&name) {
            let mut all = lineage_checkpoints(config, &output.join(&name), lineage).map_err(failed)?;
            found.checkpoints.append(&mut all);
        }
    }
    let dir = output.join(lineage_folder(config.lineage));
    if let Ok(fs) = RealFs::new(&dir) {
        found.state = newest_state(&fs, found.newest_ready(config.lineage));
    }
    let text = |name: &str, most| tail(&dir.join(name), most).unwrap_or_default();
    found.history = String::from_utf8_lossy(&text(HISTORY, HISTORY_BYTES)).into_owned();
    found.log = text(&log_name(config.attempt), LOG_BYTES);
    found.end = serde_json::from_slice(&text(&end_name(config.attempt), RECORD_BYTES)).ok();
    Ok(found)
}

/// The lineage a folder's name says.
fn lineage_of(name: &str) -> Option<u32> {
    name.strip_prefix("lineage-")?.parse().ok()
}

fn lineage_checkpoints(config: &RunConfig, dir: &Path, lineage: u32) -> Result<Vec<ReportedCheckpoint>, FsError> {
    let fs = RealFs::new(dir)?;
    let steps = checkpoint_steps(&fs, &RelPath::root())?;
    let origin =
        Origin { fine_tune_uid: config.uid.clone(), attempt: u32::try_from(config.attempt).unwrap_or_default(), lineage };
    let mut all: Vec<_> = steps.iter().filter_map(|(step, _)| reported(&fs, dir, signed(*step), &origin)).collect();
    all.extend(missing(&fs, &origin.fine_tune_uid)?);
    // The folder a checkpoint lies in is where it will be looked for.
    for checkpoint in &mut all {
        checkpoint.lineage = lineage.into();
    }
    Ok(all)
}

/// One checkpoint as it is reported; nothing where it is of another run.
fn reported(fs: &RealFs, dir: &Path, step: i64, origin: &Origin) -> Option<ReportedCheckpoint> {
    let message = match check::check(dir, step, &origin.fine_tune_uid, Depth::Sizes) {
        Verdict::Recorded(manifest) => return Some(as_reported(&manifest)),
        Verdict::Unrecorded(found) => match check::record(dir, &found, origin.clone()) {
            Ok(manifest) => return Some(as_reported(&manifest)),
            Err(problem) => problem,
        },
        Verdict::Refused(reason) => reason,
    };
    tracing::warn!(step, lineage = origin.lineage, reason = message, "checkpoint refused");
    let name = folder(step);
    let record = RelPath::parse(&manifest_name(&name)).ok()?;
    match check::manifest(fs, &record) {
        Ok(Some(manifest)) if manifest.origin.fine_tune_uid != origin.fine_tune_uid => None,
        Ok(Some(manifest)) => Some(ReportedCheckpoint { state: FilesState::Corrupt, message, ..as_reported(&manifest) }),
        Ok(None) | Err(_) => {
            let found = inspect(fs, &RelPath::parse(&name).ok()?, u64::try_from(step).ok()?);
            let unusable = as_unusable(step, origin, &found);
            // A state of its own, even where a second look finds nothing: it was not recorded.
            Some(ReportedCheckpoint { message, ..unusable })
        }
    }
}

/// Checkpoints that were recorded and are gone.
fn missing(fs: &RealFs, uid: &str) -> Result<Vec<ReportedCheckpoint>, FsError> {
    let mut gone = Vec::new();
    for name in fs.read_dir(&RelPath::root(), limits::ENTRIES)?.names {
        let Some(dir) = name.strip_suffix(".finetune.json") else { continue };
        let (Some(_), Ok(path), Ok(record)) = (step_of(dir), RelPath::parse(dir), RelPath::parse(&name)) else {
            continue;
        };
        if fs.metadata(&path) == Err(FsError::NotFound)
            && let Ok(manifest) = Manifest::read(fs, &record)
            && manifest.origin.fine_tune_uid == uid
        {
            let message = format!("{dir} is gone");
            gone.push(ReportedCheckpoint { state: FilesState::Missing, message, ..as_reported(&manifest) });
        }
    }
    Ok(gone)
}

/// The trainer's last word: of the newest good checkpoint, or of the output itself at the end. A checkpoint that nobody could go on
/// from may be of an attempt whose steps were trained again since.
fn newest_state(fs: &RealFs, ready: Option<i64>) -> Option<TrainerState> {
    let saved = ready.map(|step| format!("{}/{STATE}", folder(step)));
    let states = saved.into_iter().chain([STATE.to_owned()]);
    let read = |path: String| TrainerState::read(fs, &RelPath::parse(&path).ok()?).ok();
    states.filter_map(read).max_by_key(|state| state.global_step)
}

/// The last `most` bytes of a plain file.
fn tail(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Ok(Vec::new());
    }
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
