//! What operators of the operator see: structured logs, and metrics with bounded labels.

mod log;
mod metrics;

pub use log::{Format, init};
pub use metrics::Metrics;
