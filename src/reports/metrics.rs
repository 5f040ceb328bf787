//! What the report server counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Written {
    object: &'static str,
}

/// Counters of the report server; a clone counts into the same ones.
#[derive(Clone, Debug, Default)]
pub struct ReportMetrics {
    reports: Family<Outcome, Counter>,
    writes: Family<Written, Counter>,
    reviews: Counter,
}

impl ReportMetrics {
    /// Makes the counters known to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("reports", "Reports of agents by outcome", self.reports.clone());
        registry.register("report_writes", "Requests that write what agents report", self.writes.clone());
        registry.register("report_token_reviews", "Tokens the API server was asked about", self.reviews.clone());
    }

    /// Counts a report; `outcome` is `Accepted` or the reason it was refused for.
    pub fn count_report(&self, outcome: &'static str) {
        self.reports.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts a write of `object`.
    pub fn count_write(&self, object: &'static str) {
        self.writes.get_or_create(&Written { object }).inc();
    }

    /// Counts a TokenReview.
    pub fn count_review(&self) {
        self.reviews.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_show_up_in_the_registry() {
        let metrics = ReportMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.count_report("Accepted");
        metrics.count_write("Checkpoint");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        assert!(text.contains("reports_total{outcome=\"Accepted\"} 1"), "{text}");
        assert!(text.contains("report_writes_total{object=\"Checkpoint\"} 1"), "{text}");
    }
}
