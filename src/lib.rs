//! finetune-operator: the Kubernetes operator for fine-tuning language models.
//!
//! The layers, each seeing only those below it:
//!
//! ```text
//! cli
//! controllers · reports · gateway · agent · generate · check   shells: watch, serve, run
//! plan · cluster · checkpoint_files             decide · write · read checkpoints
//! api · protocol · settings · access · telemetry · listener · signals
//! ```
//!
//! `plan` is pure: data in, data out. `cluster` and `reports` are the only writers to Kubernetes.

pub mod access;
pub mod agent;
pub mod api;
pub mod check;
pub mod checkpoint_files;
pub mod cli;
pub mod cluster;
pub mod controllers;
pub mod gateway;
pub mod generate;
pub mod listener;
pub mod plan;
pub mod protocol;
pub mod reports;
pub mod settings;
pub mod signals;
pub mod telemetry;
pub mod watches;
