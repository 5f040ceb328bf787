//! What this process has written and its watches may not show yet, for a minute.

use std::sync::Arc;
use std::time::Duration;

use kube::{Resource, ResourceExt};
use moka::future::Cache;

use crate::api::{Checkpoint, FineTune, FineTuneHistory};

const KEPT: Duration = Duration::from_mins(1);

/// Objects as the API server answered them.
#[derive(Clone)]
pub(crate) struct Recent {
    /// Checkpoints created or given a status.
    pub checkpoints: Shelf<Checkpoint>,
    /// FineTunes given progress.
    pub fine_tunes: Shelf<FineTune>,
    /// Histories.
    pub histories: Shelf<FineTuneHistory>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { checkpoints: Shelf::new(10_000), fine_tunes: Shelf::new(1000), histories: Shelf::new(200) }
    }
}

/// A bounded number of objects of one kind, by namespace and name.
#[derive(Clone)]
pub(crate) struct Shelf<K: Send + Sync + 'static>(Cache<(String, String), Arc<K>>);

impl<K: Resource<DynamicType = ()> + Send + Sync + 'static> Shelf<K> {
    fn new(capacity: u64) -> Self {
        Self(Cache::builder().max_capacity(capacity).time_to_live(KEPT).build())
    }

    /// Keeps what the API server answered.
    pub(crate) async fn keep(&self, object: Arc<K>) {
        self.0.insert((object.namespace().unwrap_or_default(), object.name_any()), object).await;
    }

    /// Forgets an object that turned out to be gone or another.
    pub(crate) async fn forget(&self, namespace: &str, name: &str) {
        self.0.invalidate(&(namespace.to_owned(), name.to_owned())).await;
    }

    /// The newer of what is watched and what was written.
    pub(crate) async fn newest(&self, namespace: &str, name: &str, watched: Option<Arc<K>>) -> Option<Arc<K>> {
        let written = self.0.get(&(namespace.to_owned(), name.to_owned())).await;
        match (watched, written) {
            (Some(watched), Some(written)) => {
                let older = is_older(watched.meta().resource_version.as_deref(), written.meta().resource_version.as_deref());
                Some(if older { written } else { watched })
            }
            (watched, written) => watched.or(written),
        }
    }
}

/// Whether a resource version is older than another; what cannot be compared is taken for older, since it will not be kept for long.
fn is_older(watched: Option<&str>, written: Option<&str>) -> bool {
    let number = |version: Option<&str>| version.and_then(|version| version.parse::<u64>().ok());
    match (number(watched), number(written)) {
        (Some(watched), Some(written)) => watched < written,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::fixtures;

    fn at(version: &str) -> Arc<Checkpoint> {
        let mut checkpoint = fixtures::stored(100);
        checkpoint.metadata.resource_version = Some(version.into());
        Arc::new(checkpoint)
    }

    #[tokio::test]
    async fn the_newer_of_watched_and_written_counts() {
        let shelf = Shelf::new(10);
        shelf.keep(at("9")).await;
        let version = |found: Option<Arc<Checkpoint>>| found.and_then(|found| found.metadata.resource_version.clone());
        let newest = |watched| shelf.newest("team", "run-step-100", watched);
        assert_eq!(version(newest(None).await).as_deref(), Some("9"));
        assert_eq!(version(newest(Some(at("8"))).await).as_deref(), Some("9"));
        assert_eq!(version(newest(Some(at("10"))).await).as_deref(), Some("10"));
        shelf.forget("team", "run-step-100").await;
        assert_eq!(version(newest(Some(at("8"))).await).as_deref(), Some("8"));
        assert!(newest(None).await.is_none());
    }
}
