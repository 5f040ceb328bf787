//! What is checked in is what the code generates.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use finetune_operator::generate;

#[test]
fn generated_files_are_up_to_date() {
    let drift = generate::check(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(drift.is_empty(), "run `finetune-operator generate` and commit what it writes: {drift:#?}");
}
