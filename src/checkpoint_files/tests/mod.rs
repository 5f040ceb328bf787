//! Every rule of a checkpoint, whole and damaged.

mod damage;
mod files;
mod manifest;
mod state;

use super::testing::MemoryFs;
use super::{Inspection, RelPath, inspect};

const DIR: &str = "out/checkpoint-4";

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn look(fs: &MemoryFs) -> Inspection {
    inspect(fs, &path(DIR), 4)
}

fn codes(found: &Inspection) -> Vec<&'static str> {
    found.reasons.iter().map(super::Reason::code).collect()
}
