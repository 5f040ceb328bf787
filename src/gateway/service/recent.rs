//! What a caller read of the catalogue a moment ago: of many requests at once one reads it for all. Each caller has what that caller was shown,
//! and what is not in it is asked for anew.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use kube::Resource;
use moka::future::Cache;

use super::cluster::Kinded;
use crate::gateway::errors::Refusal;
use crate::gateway::identity::CallerKey;

/// How long it is good for.
const MOMENT: Duration = Duration::from_secs(2);
/// Lists that are remembered at most.
const MOST: u64 = 1000;

type Known = Arc<dyn Any + Send + Sync>;

/// What callers read a moment ago, by caller and kind.
#[derive(Clone)]
pub struct Recent(Cache<(CallerKey, String), Known>);

impl Default for Recent {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_live(MOMENT).build())
    }
}

impl Recent {
    /// The objects of a kind as the caller was shown them a moment ago, else as `read` finds them now.
    ///
    /// # Errors
    /// What `read` says; that is not remembered.
    pub async fn or_read<K>(
        &self,
        caller: CallerKey,
        read: impl Future<Output = Result<Vec<K>, Refusal>> + Send,
    ) -> Result<Arc<Vec<K>>, Refusal>
    where
        K: Kinded + Resource<DynamicType = ()>,
    {
        let read = async { read.await.map(|all| Arc::new(all) as Known) };
        let known = Box::pin(self.0.try_get_with((caller, K::kind(&()).into_owned()), read)).await;
        let known = known.map_err(|refusal| (*refusal).clone())?;
        known.downcast().map_err(|_| Refusal::unavailable())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;
    use crate::api::{HardwareProfile, TrainingRuntime, TrainingRuntimeSpec};

    #[tokio::test]
    async fn many_who_ask_at_once_are_one_and_no_caller_gets_what_another_was_shown() {
        let (recent, reads) = (Recent::default(), AtomicUsize::new(0));
        let read = |name: &'static str| async {
            reads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(vec![TrainingRuntime::new(name, TrainingRuntimeSpec::default())])
        };
        let (one, other) = ([1; 32], [2; 32]);
        let all = join_all((0..50).map(|_| recent.or_read(one, read("mine")))).await;
        assert!(all.into_iter().all(|found| found.unwrap()[0].metadata.name.as_deref() == Some("mine")));
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        let theirs = recent.or_read(other, read("theirs")).await.unwrap();
        assert_eq!(theirs[0].metadata.name.as_deref(), Some("theirs"));
        let hardware = recent.or_read::<HardwareProfile>(one, async { Ok(Vec::new()) }).await.unwrap();
        assert!(hardware.is_empty(), "kinds are kept apart");
    }

    #[tokio::test]
    async fn a_refusal_is_not_remembered() {
        let recent = Recent::default();
        let refused = recent.or_read::<TrainingRuntime>([1; 32], async { Err(Refusal::unavailable()) }).await;
        assert!(refused.is_err());
        assert!(recent.or_read::<TrainingRuntime>([1; 32], async { Ok(Vec::new()) }).await.is_ok());
    }
}
