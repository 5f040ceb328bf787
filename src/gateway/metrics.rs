//! What the gateway counts. Labels are closed sets: routes as they are written in the code, never paths.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::Method;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::dialect::Dialect;

/// What a request was.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    dialect: &'static str,
    route: String,
    method: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Spoken {
    dialect: &'static str,
}

/// Counters of the gateway; a clone counts into the same ones.
#[derive(Clone)]
pub struct GatewayMetrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<Answered, Counter>,
    seconds: Family<Spoken, Histogram>,
    running: Gauge,
    streams: Gauge,
}

impl Default for GatewayMetrics {
    fn default() -> Self {
        let buckets = || Histogram::new([0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 40.0]);
        let (requests, running, streams) = (Family::default(), Gauge::default(), Gauge::default());
        let seconds = Family::<Spoken, Histogram>::new_with_constructor(buckets as fn() -> Histogram);
        let mut registry = Registry::with_prefix("finetune_gateway");
        registry.register("requests", "Requests by dialect, route, method and status code", Family::clone(&requests));
        registry.register("request_seconds", "How long requests took, by dialect", seconds.clone());
        registry.register("requests_running", "Requests under way", Gauge::clone(&running));
        registry.register("streams_open", "Streams of events that are open", Gauge::clone(&streams));
        Self { registry: Arc::new(Mutex::new(registry)), requests, seconds, running, streams }
    }
}

impl GatewayMetrics {
    /// Counts a request that was answered; `route` is a route of the code, or none where the path had none.
    pub fn answered(&self, dialect: Dialect, route: Option<&str>, (method, code): (&Method, u16), took: Duration) {
        let dialect = dialect.name();
        let method = match method.as_str() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            "DELETE" => "DELETE",
            _ => "other",
        };
        let route = route.unwrap_or("none").to_owned();
        self.requests.get_or_create(&Answered { dialect, route, method, code }).inc();
        self.seconds.get_or_create(&Spoken { dialect }).observe(took.as_secs_f64());
    }

    /// Counts a request as under way until what is returned goes.
    #[must_use]
    pub fn begin(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// Counts a stream as open until what is returned goes.
    #[must_use]
    pub fn begin_stream(&self) -> Running {
        self.streams.inc();
        Running(self.streams.clone())
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

/// A request or stream under way.
pub struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_show_up_under_closed_labels() {
        let metrics = GatewayMetrics::default();
        let running = metrics.begin();
        let method = Method::from_bytes(b"MADEUP").unwrap();
        metrics.answered(Dialect::OpenAi, None, (&method, 404), Duration::from_millis(3));
        let text = metrics.text().unwrap();
        assert!(
            text.contains(r#"finetune_gateway_requests_total{dialect="openai",route="none",method="other",code="404"} 1"#),
            "{text}"
        );
        assert!(text.contains("requests_running 1"));
        drop(running);
        assert!(metrics.text().unwrap().contains("requests_running 0"));
    }
}
