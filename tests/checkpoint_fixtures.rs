//! Checkpoints that real trainers wrote, inspected on the real file system.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use finetune_operator::checkpoint_files::{
    Format, Inspection, Manifest, Origin, RealFs, Reason, RelPath, TrainerState, checkpoint_steps, inspect,
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints")
}

/// Every checkpoint of a fixture by step, with its inspection.
fn inspected(root: &Path, name: &str) -> (RealFs, Vec<(RelPath, Inspection)>) {
    let fs = RealFs::new(root.join(name)).unwrap();
    let steps = checkpoint_steps(&fs, &RelPath::root()).unwrap();
    let look = |(step, dir): (u64, String)| {
        let dir = RelPath::parse(&dir).unwrap();
        let found = inspect(&fs, &dir, step);
        (dir, found)
    };
    let found = steps.into_iter().map(look).collect();
    (fs, found)
}

#[test]
fn what_trainers_wrote_whole_is_complete() {
    let root = fixtures();
    let cases = [
        ("trl-full", Format::Model, true),
        ("trl-lora", Format::Adapter, true),
        ("trl-sharded", Format::Model, true),
        ("trl-model-only", Format::Model, false),
    ];
    for (name, format, resumable) in cases {
        let (_, checkpoints) = inspected(&root, name);
        let (_, found) = checkpoints.iter().find(|(dir, _)| dir.name() == "checkpoint-4").unwrap();
        assert_eq!(found.reasons, [], "{name}");
        assert!(found.complete && found.servable, "{name}");
        assert_eq!((found.format, found.resumable), (Some(format), resumable), "{name}");
        assert!(found.metrics.contains_key("loss"), "{name}: {:?}", found.metrics);
        assert_eq!(found.adapter.is_some(), format == Format::Adapter, "{name}");
    }
}

#[test]
fn what_a_diverged_run_has_saved_is_not_complete_and_shows_where_its_loss_was_no_number() {
    let (fs, checkpoints) = inspected(&fixtures(), "trl-diverged");
    let (dir, found) = checkpoints.last().unwrap();
    let state = TrainerState::read(&fs, &dir.join("trainer_state.json").unwrap()).unwrap();
    assert!(state.history.iter().any(|point| !point.non_finite.is_empty()));
    assert_eq!(state.lost_row(), Some((2, 3)), "logged as 0 beside a gradient norm of NaN");
    let codes: Vec<_> = found.reasons.iter().map(Reason::code).collect();
    assert_eq!(codes, ["loss-lost", "weights-lost"]);
    assert!(!found.complete && !found.resumable && !found.servable);
    assert!(found.metrics.values().all(|value| value.parse::<f64>().unwrap().is_finite()));
}

#[test]
fn a_run_that_stopped_early_records_its_end() {
    let (fs, checkpoints) = inspected(&fixtures(), "trl-early-stop");
    let (dir, _) = checkpoints.last().unwrap();
    let state = TrainerState::read(&fs, &dir.join("trainer_state.json").unwrap()).unwrap();
    assert!(state.learned_end());
    assert!(state.max_steps.unwrap() > state.global_step, "it stopped early");
}

#[test]
fn complete_fixtures_get_a_manifest_that_matches_them() {
    let root = fixtures();
    for name in ["trl-full", "trl-lora", "trl-sharded", "trl-model-only"] {
        let (fs, checkpoints) = inspected(&root, name);
        for (dir, found) in checkpoints.iter().filter(|(_, found)| found.complete) {
            let origin = Origin { fine_tune_uid: name.to_owned(), attempt: 1, lineage: 1 };
            let manifest = Manifest::new(&fs, dir, origin, found).unwrap();
            assert_eq!(manifest.check(&fs, dir, true), [], "{name} {dir}");
        }
    }
}
