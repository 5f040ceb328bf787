use std::fs;
use std::path::Path;
use std::sync::Arc;

use object_store::memory::InMemory;
use tempfile::tempdir;

use super::*;
use crate::agent::fixture::{UID, config, write_checkpoint, write_manifest};
use crate::protocol::FilesState;

/// Two lineages: in the second a recorded, an unrecorded, a shortened, a vanished and an unfinished
/// save, and the records of attempt 2.
fn output(root: &Path) {
    let (old, new) = (root.join("lineage-1"), root.join("lineage-2"));
    write_checkpoint(&old, 5);
    write_manifest(&old, 5, UID);
    write_checkpoint(&old, 6);
    write_manifest(&old, 6, "another");
    for step in [10, 20, 30, 40, 50] {
        write_checkpoint(&new, step);
    }
    for step in [10, 30, 40] {
        write_manifest(&new, step, UID);
    }
    fs::write(new.join("checkpoint-30/optimizer.pt"), "short").unwrap();
    fs::remove_dir_all(new.join("checkpoint-40")).unwrap();
    fs::write(new.join("checkpoint-50/trainer_state.json"), "{\"global_step\":").unwrap();
    fs::create_dir(new.join("logs")).unwrap();
    fs::write(new.join("logs/attempt-2.log"), "one\ntwo\n").unwrap();
    fs::write(new.join("logs/attempt-2.end.json"), r#"{"exitCode":85}"#).unwrap();
    fs::write(new.join("history.jsonl"), "{\"step\":1,\"loss\":3}\n").unwrap();
}

fn states(report: &Report) -> Vec<(i64, i64, FilesState)> {
    report.checkpoints.iter().map(|it| (it.lineage, it.step, it.state)).collect()
}

#[test]
fn a_volume_is_reported_whole_and_what_was_unproven_is_recorded() {
    use FilesState::{Corrupt, Missing, Ready};
    let root = tempdir().unwrap();
    output(root.path());
    let config = RunConfig { lineage: 2, ..config() };
    let found = report(disk::collect(&config, root.path()).unwrap());
    let expected = [(1, 5, Ready), (2, 10, Ready), (2, 20, Ready), (2, 30, Corrupt), (2, 40, Missing), (2, 50, Corrupt)];
    assert_eq!(states(&found), expected);
    assert!(root.path().join("lineage-2/checkpoint-20.finetune.json").is_file());
    assert!(!root.path().join("lineage-2/checkpoint-50.finetune.json").exists());
    let progress = found.progress.as_ref().map(|it| (it.step, it.total_steps));
    assert_eq!(progress, Some((20, Some(100))), "what is damaged tells nothing");
    assert_eq!(found.log, ["one", "two"]);
    assert_eq!(found.end.map(|end| end.exit_code), Some(85));
    let loss = found.series.iter().find(|series| series.name == "loss").unwrap();
    assert_eq!(loss.steps, [1, 20]);
}

#[test]
fn steps_that_a_later_attempt_trains_again_are_not_told_by_a_save_it_was_refused() {
    let root = tempdir().unwrap();
    let dir = root.path().join("lineage-1");
    for step in [50, 100] {
        write_checkpoint(&dir, step);
        write_manifest(&dir, step, UID);
    }
    // The first attempt came to step 100, but what it saved there is cut short: the second has begun at step 50 again.
    fs::write(dir.join("checkpoint-100/adapter_model.safetensors"), "torn").unwrap();
    fs::write(dir.join("history.jsonl"), "{\"step\":50,\"loss\":0.5}\n{\"step\":55,\"loss\":3}\n").unwrap();
    let found = report(disk::collect(&config(), root.path()).unwrap());
    let loss = found.series.iter().find(|series| series.name == "loss").unwrap();
    assert_eq!((loss.steps.as_slice(), loss.values.last().map(String::as_str)), (&[50, 55][..], Some("3")));
    assert_eq!(found.progress.map(|progress| progress.step), Some(50));
}

#[test]
fn an_output_nobody_wrote_to_is_an_empty_report_without_an_end() {
    let root = tempdir().unwrap();
    let found = report(disk::collect(&config(), &root.path().join("none")).unwrap());
    assert_eq!(found, Report { sequence: 1, ..Report::default() });
}

#[tokio::test]
async fn a_store_is_reported_by_its_manifests_and_the_last_upload_is_proven() {
    use FilesState::{Corrupt, Missing, Ready};
    let (root, work) = (tempdir().unwrap(), tempdir().unwrap());
    output(root.path());
    let bucket = Bucket::over(Arc::new(InMemory::new()), "s3://runs").unwrap();
    upload(&bucket, root.path(), "tiny-01234567").await;
    let config = RunConfig { lineage: 2, ..config() };
    let found = report(stored::collect(&config, &bucket, work.path()).await.unwrap());
    let expected = [(1, 5, Ready), (2, 10, Ready), (2, 20, Ready), (2, 30, Corrupt), (2, 40, Missing)];
    assert_eq!(states(&found), expected);
    let written = bucket.get("tiny-01234567/lineage-2/checkpoint-20.finetune.json", 1 << 20).await;
    assert!(written.unwrap().is_some());
    assert_eq!(found.log, ["one", "two"]);
    assert_eq!(found.end.map(|end| end.exit_code), Some(85));
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
}

async fn upload(bucket: &Bucket, root: &Path, prefix: &str) {
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let key = path.strip_prefix(root).unwrap().to_str().unwrap();
                bucket.put(&format!("{prefix}/{key}"), fs::read(&path).unwrap()).await.unwrap();
            }
        }
    }
}

#[test]
fn the_last_lines_of_a_long_log_are_whole_and_bounded() {
    let mut log = "x".repeat(2000).into_bytes();
    for line in 0..20_000 {
        log.extend_from_slice(format!("\nline {line}").as_bytes());
    }
    let tail = &log[log.len() - usize::try_from(LOG_BYTES).unwrap()..];
    let lines = last_lines(tail);
    assert_eq!((lines.len(), lines.last().map(String::as_str)), (200, Some("line 19999")));
    assert_eq!(last_lines(b"only\n"), ["only"]);
    assert_eq!(last_lines("y".repeat(5000).as_bytes()).first().map(String::len), Some(1024));
}
