//! Bounds of what a caller may ask: how much at once, how often, how long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::future::Cache;

use super::errors::{Kind, Refusal};
use super::identity::CallerKey;
use crate::listener::Limits;

/// Largest body, in bytes.
pub const BODY_BYTES: usize = 1024 * 1024;
/// Largest body of a completion, in bytes: pictures come in it.
pub const COMPLETION_BYTES: usize = 16 * 1024 * 1024;
/// KiB that all requests for completions on their way to a server may take together.
pub const COMPLETIONS_KIB: usize = 128 * 1024;
/// Of the listeners: an answer may stream for as long as it likes.
pub const OF_LISTENERS: Limits = Limits {
    connections: 2048,
    life: None,
    keep_alive: true,
    head_bytes: 64 * 1024,
    headers: 64,
    unread: Duration::from_secs(30),
    grace: Duration::from_secs(45),
};
/// How long a request may take altogether.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a server may take to begin its answer to a completion; then it may go on as long as it likes.
pub const COMPLETION_TIMEOUT: Duration = Duration::from_mins(10);
/// Longest `?wait=`.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Requests at once.
pub const REQUESTS: usize = 512;
/// Chunks of 500 objects that all lists together may hold; of objects of 8 KiB that is half of the memory that the chart gives the gateway.
pub const LISTED_CHUNKS: usize = 64;
/// Lists at once that keep more than a chunk has: pages far behind.
pub const DEEP_LISTS: usize = 2;
/// How long a list waits for its share of the memory.
pub const PATIENCE_FOR_ROOM: Duration = Duration::from_secs(10);
/// Streams of events that begin with their list at the same time.
pub const LISTS_OF_STREAMS: usize = 16;
/// Streams of events at once. One of a run is four watches.
pub const STREAMS: usize = 256;
/// Streams of events one key may have at once.
pub const STREAMS_OF_CALLER: usize = 8;
/// How long a stream lasts; who listens asks again.
pub const STREAM_LIFE: Duration = Duration::from_hours(1);
/// Silence after which a stream says that it is still there.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Callers whose pace is remembered.
const CALLERS: u64 = 50_000;

/// How often one caller may ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests a second, in the long run.
    pub per_second: f64,
    /// Requests at once after a while of silence.
    pub burst: f64,
}

/// What callers have left.
#[derive(Clone)]
pub struct Rates {
    rate: Rate,
    callers: Cache<CallerKey, Arc<Mutex<Bucket>>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    /// Every caller has the same rate.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let full_again = Duration::try_from_secs_f64(rate.burst / rate.per_second).unwrap_or(Duration::from_mins(10));
        let kept = full_again.max(Duration::from_secs(1));
        Self { rate, callers: Cache::builder().max_capacity(CALLERS).time_to_idle(kept).build() }
    }

    /// Takes one request off what the caller has left.
    ///
    /// # Errors
    /// Nothing is left.
    pub async fn take(&self, caller: CallerKey, now: Instant) -> Result<(), Refusal> {
        let full = async { Arc::new(Mutex::new(Bucket { left: self.rate.burst, at: now })) };
        let bucket = self.callers.get_with(caller, full).await;
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let refilled = bucket.left + now.saturating_duration_since(bucket.at).as_secs_f64() * self.rate.per_second;
        *bucket = Bucket { left: refilled.min(self.rate.burst), at: now };
        if bucket.left < 1.0 {
            return Err(Refusal {
                code: Some("rate_limit_exceeded"),
                retry_after: Some(1),
                ..Refusal::new(Kind::TooManyRequests, "too many requests with this key: slow down")
            });
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_has_a_burst_and_then_its_rate_and_others_are_not_touched() {
        let rates = Rates::new(Rate { per_second: 2.0, burst: 3.0 });
        let now = Instant::now();
        for _ in 0..3 {
            rates.take([1; 32], now).await.unwrap();
        }
        assert_eq!(rates.take([1; 32], now).await.unwrap_err().kind, Kind::TooManyRequests);
        rates.take([2; 32], now).await.unwrap();
        let later = now + Duration::from_millis(500);
        rates.take([1; 32], later).await.unwrap();
        assert!(rates.take([1; 32], later).await.is_err());
    }
}
