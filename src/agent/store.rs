//! An S3-compatible bucket as the agent uses it: small reads and writes, listings and removals below
//! one prefix. Bulk transfers are in `upload` and `download`. Effects only; knows no checkpoint.

mod download;
mod error;
mod stream;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::sync::Semaphore;

pub use download::Downloaded;
pub use error::{StoreError, is_full};

use crate::protocol::{RunConfig, Store, lineage_folder, run_folder};

/// Most keys one listing takes.
pub const MAX_KEYS: usize = 100_000;
/// Requests, and parts of uploads held in memory, at any one time.
const IN_FLIGHT: usize = 4;
/// A store that is silent for so long is asked again.
const SILENCE: Duration = Duration::from_secs(100);

/// A prefix in a bucket. Every key given to it, and every key it gives, is relative to that prefix.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    root: Path,
    uri: String,
    in_flight: Arc<Semaphore>,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Key relative to the prefix listed, never empty.
    relative: String,
    location: Path,
    size: u64,
    modified: Timestamp,
}

impl Bucket {
    /// Opens a prefix with the credentials its environment variables hold. No other source of
    /// credentials is asked, so that a missing Secret is an error that says so and not a wait for a
    /// metadata service.
    ///
    /// # Errors
    /// When the uri or the endpoint cannot be used, or credentials are missing.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        Self::open_with(store, |name| std::env::var(name).ok())
    }

    /// Opens a prefix as [`Self::open`] does; `variable` stands for the environment.
    ///
    /// # Errors
    /// When the uri or the endpoint cannot be used, or credentials are missing.
    pub fn open_with(store: &Store, variable: impl Fn(&str) -> Option<String>) -> Result<Self, StoreError> {
        let (bucket, _) = split(&store.uri)?;
        let given = |name: &str| variable(&format!("{}{name}", store.credentials)).filter(|value| !value.is_empty());
        let required = |name: &str| {
            given(name).ok_or_else(|| StoreError::NoCredentials {
                uri: store.uri.clone(),
                variable: format!("{}{name}", store.credentials),
            })
        };
        let http = store.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client = ClientOptions::new()
            .with_allow_http(http)
            .with_connect_timeout(Duration::from_secs(10))
            .with_timeout_disabled()
            .with_read_timeout(SILENCE);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(given("AWS_REGION").unwrap_or_else(|| "us-east-1".to_owned()))
            .with_access_key_id(required("AWS_ACCESS_KEY_ID")?)
            .with_secret_access_key(required("AWS_SECRET_ACCESS_KEY")?)
            .with_virtual_hosted_style_request(false)
            // Bulk deletion is not part of what every compatible store offers.
            .with_disable_bulk_delete(true)
            .with_client_options(client)
            .with_retry(retries());
        if let Some(token) = given("AWS_SESSION_TOKEN") {
            builder = builder.with_token(token);
        }
        // The signature covers the SHA-256 of every body, which every store checks; the checksum that is
        // kept with the object as well is asked of AWS alone, since other stores may refuse the header.
        builder = match &store.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint),
            None => builder.with_checksum_algorithm(Checksum::SHA256),
        };
        let opened = builder.build().map_err(|error| StoreError::of(&store.uri, &error))?;
        Self::over(Arc::new(opened), &store.uri)
    }

    /// Takes any store as the bucket that `uri` names.
    ///
    /// # Errors
    /// When the uri is not of the form `s3://bucket/prefix`.
    pub fn over(store: Arc<dyn ObjectStore>, uri: &str) -> Result<Self, StoreError> {
        let (_, prefix) = split(uri)?;
        let uri = uri.trim_end_matches('/').to_owned();
        let root = Path::parse(prefix).map_err(|error| StoreError::BadUri { uri: uri.clone(), problem: error.to_string() })?;
        Ok(Self { store, root, uri, in_flight: Arc::new(Semaphore::new(IN_FLIGHT)) })
    }

    /// The uri of a key, for messages.
    #[must_use]
    pub fn uri_of(&self, key: &str) -> String {
        if key.is_empty() { self.uri.clone() } else { format!("{}/{key}", self.uri) }
    }

    /// Writes a small object.
    ///
    /// # Errors
    /// When the store refuses it or cannot be reached.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes> + Send) -> Result<(), StoreError> {
        let location = self.location(key)?;
        let written = self.store.put(&location, bytes.into().into()).await;
        written.map(drop).map_err(|error| StoreError::of(&self.uri_of(key), &error))
    }

    /// Reads an object of at most `limit` bytes; nothing where there is none.
    ///
    /// # Errors
    /// When it is larger, or the store refuses it or cannot be reached.
    pub async fn get(&self, key: &str, limit: u64) -> Result<Option<Bytes>, StoreError> {
        let uri = self.uri_of(key);
        let found = match self.store.get(&self.location(key)?).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(StoreError::of(&uri, &error)),
        };
        if found.meta.size > limit {
            return Err(StoreError::TooLarge { uri, size: found.meta.size, limit });
        }
        found.bytes().await.map(Some).map_err(|error| StoreError::of(&uri, &error))
    }

    /// The last `most` bytes of an object; nothing where there is none.
    ///
    /// # Errors
    /// When the store refuses it or cannot be reached.
    pub async fn tail(&self, key: &str, most: u64) -> Result<Option<Bytes>, StoreError> {
        let (uri, location) = (self.uri_of(key), self.location(key)?);
        let size = match self.store.head(&location).await {
            Ok(meta) => meta.size,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(StoreError::of(&uri, &error)),
        };
        if size == 0 {
            return Ok(Some(Bytes::new()));
        }
        let range = size.saturating_sub(most)..size;
        let read = self.store.get_range(&location, range).await;
        read.map(Some).map_err(|error| StoreError::of(&uri, &error))
    }

    /// The objects below `prefix` (all, when empty) with their sizes, by key.
    ///
    /// # Errors
    /// When there are more than [`MAX_KEYS`], or the store refuses it or cannot be reached.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let entries = self.entries(prefix).await?;
        let key = |entry: Entry| {
            let whole = prefix.is_empty();
            let key = if whole { entry.relative } else { format!("{prefix}/{}", entry.relative) };
            (key, entry.size)
        };
        Ok(entries.into_iter().map(key).collect())
    }

    /// Removes one object; one that is not there is no error.
    ///
    /// # Errors
    /// When the store refuses it or cannot be reached.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.location(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StoreError::of(&self.uri_of(key), &error)),
        }
    }

    /// Removes every object below `prefix` and says how many there were. A whole bucket is never
    /// removed.
    ///
    /// # Errors
    /// When the prefix is a whole bucket, or the store refuses it or cannot be reached.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<u64, StoreError> {
        let uri = self.uri_of(prefix);
        let location = self.location(prefix)?;
        if location.as_ref().is_empty() {
            return Err(StoreError::WholeBucket { uri });
        }
        let keys = self.store.list(Some(&location)).map_ok(|found| found.location).boxed();
        let removed = self.store.delete_stream(keys);
        let one = |result: object_store::Result<Path>| async move {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(1),
                Err(error) => Err(error),
            }
        };
        let count = removed.then(one).try_fold(0_u64, |sum, one| async move { Ok(sum + one) }).await;
        count.map_err(|error| StoreError::of(&uri, &error))
    }

    fn location(&self, key: &str) -> Result<Path, StoreError> {
        let bad = |problem: String| StoreError::BadKey { key: key.to_owned(), problem };
        let tail = Path::parse(key).map_err(|error| bad(error.to_string()))?;
        Ok(self.root.parts().chain(tail.parts()).collect())
    }

    /// Lists a prefix, without the empty objects some tools leave in place of directories.
    async fn entries(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let uri = self.uri_of(prefix);
        let base = self.location(prefix)?;
        let mut found = self.store.list(Some(&base));
        let mut entries = Vec::new();
        while let Some(meta) = found.next().await {
            let meta = meta.map_err(|error| StoreError::of(&uri, &error))?;
            let Some(tail) = meta.location.prefix_match(&base) else { continue };
            let parts: Vec<_> = tail.map(|part| part.as_ref().to_owned()).collect();
            if parts.is_empty() {
                continue;
            }
            if entries.len() >= MAX_KEYS {
                return Err(StoreError::TooMany { uri, limit: MAX_KEYS });
            }
            let modified = Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or(Timestamp::MAX);
            let (location, size) = (meta.location, meta.size);
            entries.push(Entry { relative: parts.join("/"), location, size, modified });
        }
        entries.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(without_markers(entries))
    }
}

/// Where a lineage of a run lies below its output's prefix.
#[must_use]
pub fn lineage_prefix(config: &RunConfig, lineage: i64) -> String {
    format!("{}/{}", run_folder(&config.name, &config.uid), lineage_folder(lineage))
}

/// Bucket and prefix of a uri.
fn split(uri: &str) -> Result<(&str, &str), StoreError> {
    let bad = |problem: &str| StoreError::BadUri { uri: uri.to_owned(), problem: problem.to_owned() };
    let rest = uri.strip_prefix("s3://").ok_or_else(|| bad("it must begin with s3://"))?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() { Err(bad("it names no bucket")) } else { Ok((bucket, prefix)) }
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: 8, retry_timeout: Duration::from_secs(150), ..RetryConfig::default() }
}

fn without_markers(entries: Vec<Entry>) -> Vec<Entry> {
    let mut dirs = std::collections::BTreeSet::new();
    for entry in &entries {
        let mut rest = entry.relative.as_str();
        while let Some((parent, _)) = rest.rsplit_once('/') {
            if !dirs.insert(parent.to_owned()) {
                break;
            }
            rest = parent;
        }
    }
    let keep = |entry: &Entry| entry.size > 0 || !dirs.contains(&entry.relative);
    entries.into_iter().filter(keep).collect()
}

#[cfg(test)]
mod tests;
