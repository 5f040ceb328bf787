//! What a run left in an object store: checkpoints by their manifests, the newest uploads without one
//! fetched and proven, and the records of its last attempt. Writes nothing but manifests.

use std::collections::BTreeMap;
use std::path::Path;

use super::{CollectError, Found, HISTORY, HISTORY_BYTES, LOG_BYTES, RECORD_BYTES, STATE, end_name, log_name};
use crate::agent::check::{self, Depth, Verdict, as_reported, folder, signed};
use crate::agent::store::{Bucket, StoreError, lineage_prefix};
use crate::checkpoint_files::{Manifest, Origin, TrainerState, limits, manifest_name, step_of};
use crate::protocol::{FilesState, ReportedCheckpoint, RunConfig, run_folder};

/// Uploads without a manifest that are fetched: at most the last few can have been cut off.
const MAX_FETCHED: usize = 3;

type Files = BTreeMap<String, u64>;

/// One checkpoint in the store.
#[derive(Default)]
struct Save {
    files: Files,
    recorded: bool,
}

/// Reads the folder of a run.
pub(super) async fn collect(config: &RunConfig, bucket: &Bucket, work_dir: &Path) -> Result<Found, CollectError> {
    let mut found = Found::default();
    let saves = saves(&bucket.list(&run_folder(&config.name, &config.uid)).await?);
    let mut fetched = 0;
    for ((lineage, step), save) in saves.iter().rev() {
        let reported = if save.recorded {
            recorded(config, bucket, (*lineage, *step), &save.files).await?
        } else if fetched < MAX_FETCHED && save.files.contains_key(STATE) {
            fetched += 1;
            prove(config, bucket, (*lineage, *step), work_dir).await?
        } else {
            None
        };
        // The folder a checkpoint lies in is where it will be looked for.
        let lineage = i64::from(*lineage);
        found.checkpoints.extend(reported.map(|it| ReportedCheckpoint { lineage, ..it }));
    }
    let prefix = lineage_prefix(config, config.lineage);
    let newest = found.newest_ready(config.lineage).map(|step| format!("{prefix}/{}/{STATE}", folder(step)));
    for key in newest.into_iter().chain([format!("{prefix}/{STATE}")]) {
        let state = bucket.tail(&key, limits::JSON_BYTES).await?;
        let state = state.and_then(|bytes| TrainerState::parse(&*bytes).ok());
        found.state = found.state.into_iter().chain(state).max_by_key(|state| state.global_step);
    }
    let history = bucket.tail(&format!("{prefix}/{HISTORY}"), HISTORY_BYTES).await?;
    found.history = String::from_utf8_lossy(&history.unwrap_or_default()).into_owned();
    let log = bucket.tail(&format!("{prefix}/{}", log_name(config.attempt)), LOG_BYTES).await?;
    found.log = log.unwrap_or_default().to_vec();
    let end = bucket.tail(&format!("{prefix}/{}", end_name(config.attempt)), RECORD_BYTES).await?;
    found.end = end.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(found)
}

/// The checkpoints in a listing of a run's folder, by lineage and step.
fn saves(listing: &[(String, u64)]) -> BTreeMap<(u32, i64), Save> {
    let mut saves: BTreeMap<(u32, i64), Save> = BTreeMap::new();
    for (key, size) in listing {
        let mut parts = key.splitn(4, '/').skip(1);
        let (lineage, name, file) = (parts.next(), parts.next(), parts.next());
        let lineage = lineage.and_then(|name| name.strip_prefix("lineage-")?.parse().ok());
        let (Some(lineage), Some(name)) = (lineage, name) else { continue };
        let record = name.strip_suffix(".finetune.json").filter(|_| file.is_none());
        let Some(step) = step_of(record.unwrap_or(name)) else { continue };
        let save = saves.entry((lineage, signed(step))).or_default();
        save.recorded |= record.is_some();
        save.files.extend(file.map(|file| (file.to_owned(), *size)));
    }
    saves
}

/// A checkpoint with a manifest, compared with what the store lists.
async fn recorded(
    config: &RunConfig,
    bucket: &Bucket,
    (lineage, step): (u32, i64),
    files: &Files,
) -> Result<Option<ReportedCheckpoint>, StoreError> {
    let key = key_of_manifest(config, lineage, step);
    let text = bucket.get(&key, limits::JSON_BYTES).await?.unwrap_or_default();
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else {
        tracing::warn!(key, "manifest cannot be read: checkpoint left out");
        return Ok(None);
    };
    if manifest.origin.fine_tune_uid != config.uid || signed(manifest.step) != step {
        tracing::warn!(key, "manifest is of another run or step: checkpoint left out");
        return Ok(None);
    }
    let reported = as_reported(&manifest);
    let mut differs = manifest.files.iter().filter(|it| files.get(&it.path) != Some(&it.size));
    let (state, message) = match differs.next() {
        None => (FilesState::Ready, String::new()),
        Some(_) if files.is_empty() => (FilesState::Missing, format!("{} is gone", folder(step))),
        Some(file) => (FilesState::Corrupt, format!("{} is missing or of another size", file.path)),
    };
    Ok(Some(ReportedCheckpoint { state, message, ..reported }))
}

/// Fetches an upload nobody recorded, proves it and records it.
async fn prove(
    config: &RunConfig,
    bucket: &Bucket,
    (lineage, step): (u32, i64),
    work_dir: &Path,
) -> Result<Option<ReportedCheckpoint>, CollectError> {
    let from = format!("{}/{}", lineage_prefix(config, lineage.into()), folder(step));
    let to = work_dir.join(folder(step));
    bucket.download_prefix(&from, &to, "checkpoint").await?;
    let origin =
        Origin { fine_tune_uid: config.uid.clone(), attempt: u32::try_from(config.attempt).unwrap_or_default(), lineage };
    let (dir, uid) = (work_dir.to_owned(), config.uid.clone());
    let proven = tokio::task::spawn_blocking(move || match check::check(&dir, step, &uid, Depth::Content) {
        Verdict::Recorded(manifest) => Ok(*manifest),
        Verdict::Unrecorded(found) => check::record(&dir, &found, origin),
        Verdict::Refused(reason) => Err(reason),
    });
    let proven = proven.await?;
    for ended in [tokio::fs::remove_dir_all(&to).await, tokio::fs::remove_file(work_dir.join(manifest_name(&folder(step)))).await]
    {
        if let Err(error) = ended.or_else(not_found) {
            tracing::warn!(%error, "copy of a checkpoint not removed");
        }
    }
    match proven {
        Ok(manifest) => {
            let text = manifest.to_json().unwrap_or_default();
            bucket.put(&key_of_manifest(config, lineage, step), text).await?;
            Ok(Some(as_reported(&manifest)))
        }
        Err(reason) => {
            tracing::warn!(step, lineage, reason, "upload refused");
            Ok(None)
        }
    }
}

fn not_found(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn key_of_manifest(config: &RunConfig, lineage: u32, step: i64) -> String {
    format!("{}/{}", lineage_prefix(config, lineage.into()), manifest_name(&folder(step)))
}
