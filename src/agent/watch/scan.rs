//! The task that keeps the checkpoints of a run: scans, proves one save at a time, uploads it, and removes
//! what the controller orders removed. Effects only; what follows from what is seen is in [`super::book`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::book::{Book, Known};
use super::known;
use super::lookout::{self, Candidate, Lookout, Proof, place};
use crate::agent::check::{as_reported, folder, signed};
use crate::agent::remove::{remove_from_disk, remove_from_store};
use crate::agent::store::{Bucket, StoreError, lineage_prefix};
use crate::checkpoint_files::{TrainerState, manifest_name};
use crate::protocol::{CheckpointKey, ReportedCheckpoint, RunConfig, run_folder};

/// Tries for an upload once the trainer has ended.
const LAST_TRIES: u32 = 6;
/// Time for them.
const LAST_UPLOADS: Duration = Duration::from_mins(5);
/// Longest pause between two tries of an upload.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// What the scans have shown.
#[derive(Debug)]
pub enum News {
    /// All checkpoints, after something about them has changed.
    Checkpoints(Vec<ReportedCheckpoint>),
    /// A state this attempt has saved.
    State(Box<TrainerState>),
    /// Files that are not proven yet have changed: somebody writes.
    Written,
}

/// What the scanner is told to do.
#[derive(Debug)]
pub enum Order {
    /// Remove the files of these checkpoints.
    Remove(Vec<CheckpointKey>),
    /// The trainer has ended: prove what there is, then say so. With other nodes, files may still arrive.
    Finish {
        /// Whether files must come to rest.
        settle: bool,
        /// Told the state in the output itself, when all is done.
        done: oneshot::Sender<Option<TrainerState>>,
    },
}

/// The keeper of the checkpoints.
pub struct Scanner {
    config: Arc<RunConfig>,
    output: PathBuf,
    dir: PathBuf,
    bucket: Option<Bucket>,
    resumed_from: Option<i64>,
    lookout: Arc<Mutex<Lookout>>,
    news: mpsc::Sender<News>,
    start: Instant,
    store_read: bool,
    uploads: BTreeMap<i64, (u32, Instant)>,
}

impl Scanner {
    /// Keeps the checkpoints that `lookout` sees.
    #[must_use]
    pub fn new(
        config: Arc<RunConfig>,
        (output, dir): (PathBuf, PathBuf),
        (bucket, resumed_from): (Option<Bucket>, Option<i64>),
        lookout: Lookout,
        news: mpsc::Sender<News>,
    ) -> Self {
        let store_read = bucket.is_none();
        let lookout = Arc::new(Mutex::new(lookout));
        let (start, uploads) = (Instant::now(), BTreeMap::new());
        Self { config, output, dir, bucket, resumed_from, lookout, news, start, store_read, uploads }
    }

    /// Scans until nobody listens any more.
    pub async fn run(mut self, every: Duration, mut orders: mpsc::Receiver<Order>) {
        self.begin().await;
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Remove(keys)) => self.remove(keys).await,
                    Some(Order::Finish { settle, done }) => {
                        let state = self.finish(settle, every).await;
                        // Nobody listens any more when the pod is being ended.
                        let _ = done.send(state);
                        while let Some(order) = orders.recv().await {
                            if let Order::Remove(keys) = order {
                                self.remove(keys).await;
                            }
                        }
                        return;
                    }
                    None => return,
                },
                _ = ticks.tick() => self.scan(false).await,
            }
        }
    }

    fn look(&self) -> MutexGuard<'_, Lookout> {
        self.lookout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        change(&mut self.look().book)
    }

    /// Tells what there was before the first scan.
    async fn begin(&mut self) {
        let lookout = Arc::clone(&self.lookout);
        let own = move || lookout.lock().unwrap_or_else(PoisonError::into_inner).own_state();
        if let Ok(Some(state)) = spawn_blocking(own).await {
            self.tell(News::State(Box::new(state))).await;
        }
        self.read_store().await;
        let all = self.book(|book| book.reported());
        self.tell(News::Checkpoints(all)).await;
    }

    /// Takes over what the object store has on record; again with each scan until it succeeds.
    async fn read_store(&mut self) {
        let Some(bucket) = self.bucket.as_ref().filter(|_| !self.store_read) else { return };
        match known::in_store(bucket, &self.config).await {
            Ok(all) => {
                self.look().stored(all);
                self.store_read = true;
            }
            Err(error) => tracing::warn!(%error, "manifests in the store not read, trying again"),
        }
    }

    /// One scan, with all that follows from it.
    async fn scan(&mut self, ended: bool) {
        self.read_store().await;
        let (lookout, now) = (Arc::clone(&self.lookout), self.start.elapsed());
        let look = move || lookout.lock().unwrap_or_else(PoisonError::into_inner).look(now);
        let candidates = spawn_blocking(look).await.unwrap_or_default();
        if self.look().take_written() {
            self.tell(News::Written).await;
        }
        let lost = self.look().take_lost_states();
        for state in lost {
            self.tell(News::State(Box::new(state))).await;
        }
        for candidate in candidates {
            self.take(candidate).await;
        }
        self.look().book.condemn(ended);
        self.forget_gone_uploads();
        self.tell_changes().await;
    }

    fn forget_gone_uploads(&mut self) {
        let mut uploads = std::mem::take(&mut self.uploads);
        uploads.retain(|step, _| self.book(|book| book.is_open(*step)));
        self.uploads = uploads;
    }

    async fn tell_changes(&self) {
        let changed = self.book(|book| book.take_changed().then(|| book.reported()));
        if let Some(all) = changed {
            self.tell(News::Checkpoints(all)).await;
        }
    }

    async fn tell(&self, news: News) {
        // Nobody listens any more when the process is ending.
        let _ = self.news.send(news).await;
    }

    /// Proves a save, uploads it where it is to be uploaded, and tells.
    async fn take(&mut self, candidate: Candidate) {
        let step = signed(candidate.inspection.step);
        let waits = self.uploads.get(&step).is_some_and(|(_, at)| *at > Instant::now());
        if waits {
            return;
        }
        let (dir, origin, found) = (self.dir.clone(), self.look().origin(candidate.own), candidate.clone());
        let proven = spawn_blocking(move || lookout::prove(&dir, &found, origin)).await;
        let Proof { manifest, state } = match proven.map_err(|error| error.to_string()) {
            Ok(Ok(proof)) => proof,
            Ok(Err(reason)) | Err(reason) => {
                tracing::info!(step, reason, "checkpoint not proven, looking again");
                return;
            }
        };
        if let Some(bucket) = &self.bucket {
            let files: Vec<_> = manifest.files.iter().map(|file| file.path.clone()).collect();
            let text = manifest.to_json().unwrap_or_default();
            if let Err(error) = upload(bucket, &self.config, &self.dir, (step, &files, text)).await {
                self.upload_failed(step, &error);
                return;
            }
            self.uploads.remove(&step);
        }
        let reported = as_reported(&manifest);
        tracing::info!(step, bytes = reported.size_bytes, resumable = reported.resumable, "checkpoint verified");
        let stored = self.bucket.is_some();
        self.book(|book| book.enter(Known { reported, stamp: candidate.stamp, local: true, stored }));
        if let Some(state) = state.filter(|_| candidate.own) {
            self.tell(News::State(Box::new(state))).await;
        }
        self.tell_changes().await;
    }

    fn upload_failed(&mut self, step: i64, error: &StoreError) {
        let tries = self.uploads.get(&step).map_or(1, |(tries, _)| tries + 1);
        let pause = Duration::from_secs(1 << tries.min(6)).min(MAX_PAUSE);
        tracing::warn!(step, tries, %error, "checkpoint not uploaded, trying again");
        self.uploads.insert(step, (tries, Instant::now() + pause));
    }

    /// Proves what the trainer has left, and gives up what cannot be proven.
    async fn finish(&mut self, settle: bool, every: Duration) -> Option<TrainerState> {
        let rest = Duration::from_secs(u64::from(self.config.settle_seconds) * 2) + every * 3;
        let (settled, given_up) = (Instant::now() + rest, Instant::now() + rest + LAST_UPLOADS);
        loop {
            let last = !settle || Instant::now() >= settled;
            if last {
                self.look().stop_settling();
            }
            self.scan(last).await;
            let trying = self.uploads.values().any(|(tries, _)| *tries < LAST_TRIES);
            let open = self.book(|book| book.is_undecided());
            if !open || (last && !trying) || Instant::now() >= given_up {
                break;
            }
            sleep(every).await;
        }
        self.tell_lost_uploads().await;
        let lookout = Arc::clone(&self.lookout);
        let root = move || lookout.lock().unwrap_or_else(PoisonError::into_inner).root_state();
        spawn_blocking(root).await.unwrap_or_default()
    }

    /// A checkpoint that is whole, but only in a pod that ends, is lost.
    async fn tell_lost_uploads(&mut self) {
        let lost = std::mem::take(&mut self.uploads);
        if !lost.is_empty() {
            self.look().lose(&lost.into_keys().collect(), self.start.elapsed());
            self.tell_changes().await;
        }
    }

    /// Removes what may be removed, here and in the store.
    async fn remove(&mut self, keys: Vec<CheckpointKey>) {
        for key in keys {
            if !self.book(|book| book.is_removable(key, self.resumed_from)) {
                tracing::info!(lineage = key.lineage, step = key.step, "checkpoint not removed: unknown or in use");
                continue;
            }
            let path = place(key);
            let mut removed = remove_from_disk(&self.output, &path).await;
            if let (Some(bucket), Ok(_)) = (&self.bucket, &removed) {
                let key = format!("{}/{path}", run_folder(&self.config.name, &self.config.uid));
                removed = remove_from_store(bucket, &key).await;
            }
            match removed {
                Ok(_) => self.book(|book| book.removed(key)),
                Err(error) => tracing::warn!(path, %error, "checkpoint not removed"),
            }
        }
        self.tell_changes().await;
    }
}

/// Uploads the files of a save, and its record last.
async fn upload(
    bucket: &Bucket,
    config: &RunConfig,
    dir: &std::path::Path,
    (step, files, record): (i64, &[String], String),
) -> Result<(), StoreError> {
    let prefix = lineage_prefix(config, config.lineage);
    let name = folder(step);
    let record_key = format!("{prefix}/{}", manifest_name(&name));
    // A record of an earlier save of the step must not vouch for half of this one.
    bucket.delete(&record_key).await?;
    bucket.upload_dir(&dir.join(&name), &format!("{prefix}/{name}"), files).await?;
    bucket.put(&record_key, record).await
}
