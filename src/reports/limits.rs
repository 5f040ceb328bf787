//! How much a pod, and all pods together, may ask: token buckets over a clock that is passed in. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Reports handled at the same time.
pub(crate) const CONCURRENT_REPORTS: usize = 64;
/// How long a body may take to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a report may take altogether.
pub(crate) const REPORT_TIMEOUT: Duration = Duration::from_secs(45);
/// Pods remembered at most.
const MAX_PODS: usize = 20_000;

/// What a bucket holds and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    /// Most tokens it holds.
    pub burst: f64,
    /// Tokens it gains a second.
    pub per_second: f64,
}

/// Reports of one pod.
pub(crate) const POD_RATE: Rate = Rate { burst: 5.0, per_second: 1.0 };
/// Questions to the API server about tokens never seen before.
pub(crate) const REVIEW_RATE: Rate = Rate { burst: 200.0, per_second: 100.0 };

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub(crate) const fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, at: now }
    }

    /// Takes one token; the time to wait for the next when there is none.
    ///
    /// # Errors
    /// How long to wait.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.tokens = self.level(rate, now);
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::try_from_secs_f64((1.0 - self.tokens) / rate.per_second).unwrap_or(Duration::from_mins(1)))
    }

    fn level(&self, rate: Rate, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        passed.mul_add(rate.per_second, self.tokens).min(rate.burst)
    }
}

/// One bucket for each pod, bounded: full buckets are forgotten, since they say nothing.
#[derive(Debug, Default)]
pub(crate) struct PodLimits {
    buckets: HashMap<String, Bucket>,
}

impl PodLimits {
    /// Whether the pod may report now.
    ///
    /// # Errors
    /// How long to wait.
    pub(crate) fn admit(&mut self, pod_uid: &str, now: Instant) -> Result<(), Duration> {
        if let Some(bucket) = self.buckets.get_mut(pod_uid) {
            return bucket.take(POD_RATE, now);
        }
        if self.buckets.len() >= MAX_PODS {
            self.buckets.retain(|_, bucket| bucket.level(POD_RATE, now) < POD_RATE.burst);
        }
        if self.buckets.len() >= MAX_PODS {
            return Err(Duration::from_secs(5));
        }
        let mut bucket = Bucket::full(POD_RATE, now);
        let taken = bucket.take(POD_RATE, now);
        self.buckets.insert(pod_uid.to_owned(), bucket);
        taken
    }
}

/// A wait in whole seconds, at least one.
#[must_use]
pub(crate) fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(u32::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_may_burst_five_times_and_then_once_a_second() {
        let mut limits = PodLimits::default();
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(limits.admit("a", start), Ok(()));
        }
        assert_eq!(limits.admit("a", start), Err(Duration::from_secs(1)));
        assert_eq!(limits.admit("b", start), Ok(()), "another pod has its own bucket");
        assert_eq!(limits.admit("a", start + Duration::from_secs(1)), Ok(()));
        assert!(limits.admit("a", start + Duration::from_secs(1)).is_err());
    }

    #[test]
    fn pods_that_are_quiet_are_forgotten_before_the_map_grows_beyond_its_bound() {
        let mut limits = PodLimits::default();
        let start = Instant::now();
        for pod in 0..MAX_PODS {
            assert_eq!(limits.admit(&pod.to_string(), start), Ok(()));
        }
        assert!(limits.admit("one more", start).is_err());
        assert_eq!(limits.admit("one more", start + Duration::from_secs(10)), Ok(()));
        assert_eq!(limits.buckets.len(), 1);
    }

    #[test]
    fn a_wait_is_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(10)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1500)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
    }
}
