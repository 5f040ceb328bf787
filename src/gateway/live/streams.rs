//! How many streams there may be, of one caller and in all, and their common end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::gateway::errors::{Kind, Refusal};
use crate::gateway::limits;
use crate::gateway::metrics::{GatewayMetrics, Running};

/// The streams that are open.
#[derive(Clone)]
pub struct Streams {
    open: Arc<Mutex<HashMap<String, usize>>>,
    stopping: Arc<watch::Sender<bool>>,
    metrics: GatewayMetrics,
}

/// A stream's place among the others, until it is dropped.
pub struct Place {
    streams: Streams,
    caller: String,
    _counted: Running,
}

impl Streams {
    /// None is open.
    #[must_use]
    pub fn new(metrics: GatewayMetrics) -> Self {
        Self { open: Arc::default(), stopping: Arc::new(watch::Sender::new(false)), metrics }
    }

    /// Takes a place for one more stream of a caller.
    ///
    /// # Errors
    /// The caller has too many, or all together are too many.
    pub fn enter(&self, caller: &str) -> Result<Place, Refusal> {
        let mut open = self.lock();
        if open.values().sum::<usize>() >= limits::STREAMS {
            return Err(Refusal {
                retry_after: Some(5),
                ..Refusal::new(Kind::Unavailable, "too many streams are open: try again")
            });
        }
        let of_caller = open.entry(caller.to_owned()).or_default();
        if *of_caller >= limits::STREAMS_OF_CALLER {
            let most = limits::STREAMS_OF_CALLER;
            return Err(Refusal {
                code: Some("too_many_streams"),
                retry_after: Some(5),
                ..Refusal::new(
                    Kind::TooManyRequests,
                    format!("this key has {most} streams open already: close one, such as another tab"),
                )
            });
        }
        *of_caller += 1;
        Ok(Place { streams: self.clone(), caller: caller.to_owned(), _counted: self.metrics.begin_stream() })
    }

    /// Ends every stream, and each that is opened after.
    pub fn end(&self) {
        self.stopping.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until all streams are to end.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.streams.stopping.subscribe();
        async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        if let Some(count) = open.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_and_others_are_not_touched() {
        let metrics = GatewayMetrics::default();
        let streams = Streams::new(metrics.clone());
        let mut places: Vec<_> = (0..limits::STREAMS_OF_CALLER).map(|_| streams.enter("one").unwrap()).collect();
        assert_eq!(streams.enter("one").map(|_| ()).unwrap_err().kind, Kind::TooManyRequests);
        let other = streams.enter("two").unwrap();
        places.pop();
        drop(streams.enter("one").unwrap());
        assert!(metrics.text().unwrap().contains(&format!("finetune_gateway_streams_open {}", limits::STREAMS_OF_CALLER)));
        drop((places, other));
        assert!(streams.lock().is_empty(), "nothing is remembered of who has gone");
    }

    #[test]
    fn all_together_are_bounded() {
        let streams = Streams::new(GatewayMetrics::default());
        let places: Vec<_> = (0..limits::STREAMS).map(|index| streams.enter(&index.to_string()).unwrap()).collect();
        assert_eq!(streams.enter("last").map(|_| ()).unwrap_err().kind, Kind::Unavailable);
        drop(places);
        assert!(streams.enter("last").is_ok());
    }

    #[tokio::test]
    async fn the_end_reaches_those_that_are_open_and_those_that_come_after() {
        let streams = Streams::new(GatewayMetrics::default());
        let before = streams.enter("one").unwrap().ended();
        streams.end();
        before.await;
        streams.enter("one").unwrap().ended().await;
    }
}
