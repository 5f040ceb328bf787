//! The operator against a real control plane with simulated nodes. Needs a cluster: run `hack/test/integration.sh`.
//!
//! Tests share one operator and have a namespace each. Those in `alone` have an operator of their own, which they kill, so they run one
//! after the other. Those in `audit` judge what all others left in the audit log, so they run last.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::large_futures,
    reason = "a test fails by panicking, and runs in a task of its own"
)]

mod alone;
mod audit;
mod budget;
mod failures;
mod forgery;
mod gateway;
mod harness;
mod imports;
mod inputs;
mod nodes;
mod permissions;
mod queue;
mod refusals;
mod retention;
mod rollouts;
mod run;
mod schema;
mod serving;
mod states;
