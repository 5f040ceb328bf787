//! The REST gateway: existing APIs for fine-tuning over our kinds, with the rights of whoever calls.
//!
//! A request passes `observe` (id, bounds, log), `extract` (who calls, what is asked) and a handler of its dialect, which translates to and from
//! `service`. The API server judges every step by the caller's own token; nothing here decides what anybody may do.

mod app;
mod asked;
mod dialect;
mod document;
mod errors;
mod extract;
#[cfg(test)]
mod fixtures;
mod identity;
mod limits;
mod live;
mod metrics;
mod observe;
mod openai;
mod oxen;
mod process;
mod reference;
mod refusals;
mod service;
mod strongly;

pub use app::Gateway;
pub use document::text as document;
pub use limits::Rate;
pub use metrics::GatewayMetrics;
pub use process::{Arguments, Error, run};
