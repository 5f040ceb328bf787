//! Runs a reconciler: wakes it, paces its errors per object, counts them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt};
use kube::{
    ResourceExt,
    runtime::{
        controller::{self, Action, Config, ReconcileReason, ReconcileRequest, applier},
        reflector::{ObjectRef, Store},
    },
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::refusals::Refusals;
use crate::{
    cluster::{self, After, Class, Subject},
    plan::Next,
    telemetry::Metrics,
};

/// Reconciles at once, at most.
const CONCURRENCY: u16 = 16;
/// A reconcile that takes longer is given up and tried again.
const LONGEST: Duration = Duration::from_secs(45);
/// Every object is looked at this often though nothing happened: it costs no request, and heals what a lost event would leave undone.
const RESYNC: Duration = Duration::from_mins(5);
/// First and longest pause after an error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(2));

/// What every reconciler shares.
pub struct Pace {
    failures: Mutex<HashMap<String, u32>>,
    written: Mutex<HashMap<String, Written>>,
    /// Writes beside objects that were refused.
    pub refusals: Refusals,
    metrics: Arc<Metrics>,
}

/// Our last write to an object.
#[derive(Clone, Debug)]
pub struct Written {
    uid: Option<String>,
    /// The version it had afterwards; none when that let it go.
    version: Option<u64>,
    /// When that was.
    pub at: jiff::Timestamp,
}

impl Pace {
    /// Nothing written, nothing failed.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { failures: Mutex::default(), written: Mutex::default(), refusals: Refusals::default(), metrics }
    }

    /// Remembers a write, so that an older view of the object is recognised.
    pub fn wrote<K: Subject>(&self, object: &K, after: &After, at: jiff::Timestamp) {
        let version = match after {
            After::Gone => None,
            After::Version(version) => match version.parse() {
                Ok(version) => Some(version),
                Err(_) => return,
            },
        };
        let written = Written { uid: object.uid(), version, at };
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(key(object), written);
    }

    /// Our last write to an object.
    pub fn last_write<K: Subject>(&self, object: &K) -> Option<Written> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(&key(object)).filter(|written| written.uid == object.uid()).cloned()
    }

    /// Whether `object` is older than what we last wrote: the newer one is on its way and will wake us. Of one that was let go only its end is.
    pub fn is_stale<K: Subject>(&self, object: &K) -> bool {
        let Some(last) = self.last_write(object) else { return false };
        let seen = object.resource_version().and_then(|version| version.parse::<u64>().ok());
        last.version.is_none_or(|version| seen.is_some_and(|seen| seen < version))
    }

    /// Forgets an object that is gone.
    fn forget(&self, key: &str) {
        self.succeeded(key);
        self.refusals.forget_all(key);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn succeeded(&self, key: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// The pause after one more failure of an object: doubles, with jitter, up to the longest.
    fn failed(&self, key: &str, class: Class) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        let exponent = if class == Class::Refused { 8 } else { count.saturating_sub(1).min(8) };
        let pause = BACKOFF.0.saturating_mul(1 << exponent).min(BACKOFF.1);
        pause.mul_f64(rand::random_range(0.8..1.2))
    }
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Setback {
    /// Why.
    #[source]
    pub error: cluster::Error,
    /// Whether the object gets on without it.
    pub aside: bool,
    /// When to look again at the latest, whatever becomes of that write.
    pub next: Next,
}

impl From<cluster::Error> for Setback {
    fn from(error: cluster::Error) -> Self {
        Self { error, aside: false, next: Next::OnChange }
    }
}

/// What a reconciler of `K` does.
pub trait Reconciler<K: Subject>: Send + Sync + 'static {
    /// Brings the world one step closer to `object`.
    fn reconcile(&self, object: Arc<K>) -> impl Future<Output = Result<Next, Setback>> + Send;
    /// What the reconcilers share.
    fn pace(&self) -> &Pace;
}

/// Runs `reconciler` for every name that `wakes`, until `stop`.
pub async fn run<K, R>(
    store: Store<K>,
    wakes: UnboundedReceiver<ObjectRef<K>>,
    reconciler: Arc<R>,
    stop: impl Future<Output = ()> + Send,
) where
    K: Subject + 'static,
    R: Reconciler<K>,
{
    let outcomes = applier(
        |object: Arc<K>, reconciler: Arc<R>| {
            Box::pin(async move {
                let outcome = tokio::time::timeout(LONGEST, reconciler.reconcile(Arc::clone(&object))).await;
                let next = outcome.unwrap_or(Err(cluster::Error::TimedOut { seconds: LONGEST.as_secs() }.into()))?;
                reconciler.pace().succeeded(&key(&*object));
                let resync = RESYNC.mul_f64(rand::random_range(0.8..1.2));
                Ok(Action::requeue(match next {
                    Next::OnChange => resync,
                    Next::After(pause) => pause.min(resync),
                }))
            })
        },
        |object: Arc<K>, Setback { error, next, .. }: &Setback, reconciler: Arc<R>| {
            let pause = reconciler.pace().failed(&key(&*object), error.class());
            let pause = if let Next::After(soon) = next { pause.min(*soon) } else { pause };
            reconciler.pace().metrics.reconcile_failed(&K::kind(&()), error.reason());
            let cause = std::error::Error::source(error).map(ToString::to_string);
            let (kind, namespace, name) = (K::kind(&()), object.namespace(), object.name_any());
            if error.class() == Class::Conflict {
                tracing::debug!(%kind, namespace, name, %error, cause, "what was seen has changed since");
            } else {
                let retry_in_seconds = pause.as_secs_f64();
                tracing::warn!(%kind, namespace, name, %error, cause, retry_in_seconds, "reconcile failed");
            }
            Action::requeue(pause)
        },
        Arc::clone(&reconciler),
        store,
        requests(wakes),
        Config::default().concurrency(CONCURRENCY),
    );
    let work = outcomes.for_each(|outcome| {
        if let Err(controller::Error::ObjectNotFound(gone)) = outcome {
            reconciler.pace().forget(&format!("{}/{}", gone.namespace.unwrap_or_default(), gone.name));
        }
        std::future::ready(())
    });
    tokio::select! {
        () = work => {}
        () = stop => {}
    }
}

/// Where an object is found: namespace and name.
pub fn key<K: Subject>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn requests<K: Subject>(
    wakes: UnboundedReceiver<ObjectRef<K>>,
) -> impl Stream<Item = Result<ReconcileRequest<K>, std::convert::Infallible>> {
    futures::stream::unfold(wakes, |mut wakes| async move {
        let reference = wakes.recv().await?;
        Some((Ok(ReconcileRequest { obj_ref: reference, reason: ReconcileReason::Unknown }), wakes))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::FineTune;

    fn seen(uid: &str, version: &str) -> FineTune {
        let spec = json!({"baseModel": {"name": "tiny"}, "dataset": {"name": "data"}});
        let metadata = json!({"name": "a", "namespace": "ns", "uid": uid, "resourceVersion": version});
        serde_json::from_value(
            json!({"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune", "metadata": metadata, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn what_was_let_go_is_not_looked_at_again_and_its_namesake_is() {
        let (pace, now) = (Pace::new(Arc::default()), jiff::Timestamp::UNIX_EPOCH);
        pace.wrote(&seen("one", "5"), &After::Version("9".into()), now);
        let stale = |uid, version| pace.is_stale(&seen(uid, version));
        assert_eq!((stale("one", "8"), stale("one", "9"), stale("one", "10")), (true, false, false));
        // The answer to the write that lets an object go still carries the version from before.
        pace.wrote(&seen("one", "9"), &After::Gone, now);
        assert_eq!((stale("one", "9"), stale("one", "10"), stale("two", "11")), (true, true, false));
    }
}
