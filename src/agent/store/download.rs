//! Fetching everything below a prefix onto the disk: a few files at a time, and none under its real name
//! before it is whole.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use object_store::ObjectStoreExt;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Bucket, Entry, IN_FLIGHT, StoreError};
use crate::checkpoint_files::RelPath;

/// How often a long download says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// What a download brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downloaded {
    /// Number of files, those that were there already included.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Bucket {
    /// Downloads everything below `prefix` into the directory `to`, logging progress of `what`. Files
    /// that are there with the same size and were written later than the object are kept.
    ///
    /// # Errors
    /// When there is nothing, a key would lead out of `to`, the disk fails, or the store refuses it or
    /// cannot be reached.
    pub async fn download_prefix(&self, prefix: &str, to: &Path, what: &str) -> Result<Downloaded, StoreError> {
        let entries = self.entries(prefix).await?;
        if entries.is_empty() {
            return Err(StoreError::Nothing { uri: self.uri_of(prefix) });
        }
        let mut files = Vec::with_capacity(entries.len());
        for entry in entries {
            files.push((local_path(to, &entry)?, entry));
        }
        let total = Downloaded { files: files.len() as u64, bytes: files.iter().map(|(_, entry)| entry.size).sum() };
        let progress = Progress::default();
        let one = |(path, entry)| self.download(path, entry, &progress);
        let fetching =
            stream::iter(files.into_iter().map(one).collect::<Vec<_>>()).buffer_unordered(IN_FLIGHT).try_collect::<()>();
        let begun = Instant::now();
        tokio::select! {
            ended = fetching => ended?,
            () = progress.narrate(what, total) => {}
        }
        let seconds = begun.elapsed().as_secs_f64();
        tracing::info!(what, files = total.files, bytes = total.bytes, seconds, "downloaded");
        Ok(total)
    }

    async fn download(&self, path: PathBuf, entry: Entry, progress: &Progress) -> Result<(), StoreError> {
        if is_current(&path, &entry).await {
            progress.add_file(entry.size);
            return Ok(());
        }
        let part = with_suffix(&path, ".finetune-part");
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).await.map_err(|e| StoreError::local(parent, e))?;
        }
        let written = self.write_file(&part, &entry, progress).await;
        let result = match written {
            Ok(()) => fs::rename(&part, &path).await.map_err(|e| StoreError::local(&path, e)),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => progress.add_file(0),
            Err(_) => drop(fs::remove_file(&part).await),
        }
        result
    }

    async fn write_file(&self, path: &Path, entry: &Entry, progress: &Progress) -> Result<(), StoreError> {
        let at = |error| StoreError::local(path, error);
        let uri = self.uri_of(&entry.relative);
        let remote = |error| StoreError::of(&uri, &error);
        let found = self.store.get(&entry.location).await.map_err(remote)?;
        let mut pieces = found.into_stream();
        let mut file = File::create(path).await.map_err(at)?;
        let mut written = 0_u64;
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(remote)?;
            file.write_all(&piece).await.map_err(at)?;
            written += piece.len() as u64;
            progress.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        file.flush().await.map_err(at)?;
        file.sync_all().await.map_err(at)?;
        if written == entry.size { Ok(()) } else { Err(StoreError::SizeDiffers { uri, found: written, expected: entry.size }) }
    }
}

/// How far a download is.
#[derive(Default)]
struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    fn add_file(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Logs until dropped.
    async fn narrate(&self, what: &str, total: Downloaded) {
        let mut ticks = interval(PROGRESS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut before = 0;
        loop {
            ticks.tick().await;
            let bytes = self.bytes.load(Ordering::Relaxed);
            let rate = bytes.saturating_sub(before) / PROGRESS.as_secs() / 1_000_000;
            let files = self.files.load(Ordering::Relaxed);
            let (all, of) = (total.files, total.bytes);
            tracing::info!(what, files, all, bytes, of, megabytes_per_second = rate, "downloading");
            before = bytes;
        }
    }
}

/// Where an object goes; refuses keys that would not stay below `to`.
fn local_path(to: &Path, entry: &Entry) -> Result<PathBuf, StoreError> {
    match RelPath::parse(&entry.relative) {
        Ok(relative) => Ok(to.join(relative.as_str())),
        Err(error) => Err(StoreError::BadKey { key: entry.relative.clone(), problem: error.to_string() }),
    }
}

async fn is_current(path: &Path, entry: &Entry) -> bool {
    let Ok(found) = fs::symlink_metadata(path).await else { return false };
    let written = found.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    let later = written.is_some_and(|written| written > entry.modified);
    found.is_file() && found.len() == entry.size && later
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
