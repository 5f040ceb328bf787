//! What a checkpoint directory holds and whether it can be trusted: layout, completeness, metrics,
//! settling and manifests. Pure over the small [`FileSystem`] trait: nothing here writes, follows a
//! link, reads a clock or knows Kubernetes.

mod adapter;
mod fs;
mod inspect;
mod json;
mod layout;
mod listing;
mod lost_weights;
mod manifest;
mod path;
mod real_fs;
mod reason;
mod safetensors;
mod samples;
mod settle;
mod shards;
mod state_parse;
pub mod testing;
mod torch_zip;
mod trainer_state;
mod weights;

pub use adapter::AdapterFacts;
pub use fs::{FileSystem, FsError, Kind, Metadata, Names};
pub use inspect::{Format, Inspection, as_report, inspect, inspect_weights};
pub use layout::{Layout, checkpoint_steps, step_of};
pub use listing::FileFact;
pub use manifest::{Manifest, ManifestFile, Origin, digest_of, manifest_name};
pub use path::{BadPath, RelPath};
pub use real_fs::RealFs;
pub use reason::Reason;
pub use safetensors::{Header, header_end, parse_header};
pub use settle::Settling;
pub use trainer_state::{Point, TrainerState, decimal, loss_is_lost};

/// The bounds every reader of a checkpoint holds itself to, so that a hostile or broken directory
/// costs a bounded amount of time and memory.
pub mod limits {
    /// Entries (files and directories) looked at in one checkpoint.
    pub const ENTRIES: usize = 10_000;
    /// Directory levels below the checkpoint.
    pub const DEPTH: usize = 8;
    /// Bytes of a JSON file (configs, weight indexes, manifests).
    pub const JSON_BYTES: u64 = 64 << 20;
    /// Bytes of a `trainer_state.json`.
    pub const TRAINER_STATE_BYTES: u64 = 256 << 20;
    /// Bytes of a safetensors header; the format's own limit.
    pub const SAFETENSORS_HEADER_BYTES: u64 = 100_000_000;
    /// Log entries kept of a `trainer_state.json`: the newest ones.
    pub const POINTS: usize = 50_000;
    /// Metrics of one log entry or checkpoint.
    pub const METRICS: usize = 256;
    /// Bytes of a metric's name.
    pub const METRIC_NAME: usize = 64;
    /// Samples shown of a checkpoint.
    pub const SAMPLES: usize = 20;
    /// Bytes of one sample.
    pub const SAMPLE_BYTES: usize = 1024;
    /// Entries of a list taken from an adapter's configuration.
    pub const LIST: usize = 256;
    /// Bytes of a string taken from an adapter's configuration.
    pub const STRING: usize = 512;
    /// Bytes of a relative path.
    pub const PATH: usize = 1024;
    /// Reasons collected before the rest is left out.
    pub const REASONS: usize = 32;
}

/// The longest prefix of `text` of at most `bytes` bytes that ends at a character's end.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
