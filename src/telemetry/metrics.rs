//! Metrics of a controller process. Labels are closed sets: kinds, phases and reasons, never names.

use std::sync::{Mutex, PoisonError};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Metrics of a controller process.
pub struct Metrics {
    registry: Mutex<Registry>,
    failures: Family<Failure, Counter>,
    leading: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Failure {
    kind: String,
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("finetune");
        let failures = Family::<Failure, Counter>::default();
        let leading = Gauge::default();
        registry.register("reconcile_failures", "Reconciles that ended in an error, by kind and reason", failures.clone());
        registry.register("leading", "1 while this process leads", leading.clone());
        Self { registry: Mutex::new(registry), failures, leading }
    }
}

impl Metrics {
    /// Counts a reconcile that failed.
    pub fn reconcile_failed(&self, kind: &str, reason: &'static str) {
        self.failures.get_or_create(&Failure { kind: kind.to_owned(), reason }).inc();
    }

    /// Says whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// Lets another part of the process add its metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
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
