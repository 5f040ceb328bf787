//! The shells around the plans: watch, observe, plan, write. One file a kind; no decision is taken here.

mod census;
mod checkpoint;
mod deployment;
mod fine_tune;
mod follow;
mod index;
mod kueue;
mod leader;
mod namespaces;
mod permitted;
mod probes;
mod process;
mod queues;
mod refusals;
mod routes;
mod runner;
mod shell;
mod usage;
mod world;

pub use process::{Arguments, run};
pub use world::World;
