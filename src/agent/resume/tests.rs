use std::fs::{create_dir_all, read_dir, write};
use std::sync::Arc;

use object_store::memory::InMemory;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::agent::fixture::{UID, config, damage, write_checkpoint, write_manifest};

fn bucket() -> Bucket {
    Bucket::over(Arc::new(InMemory::new()), "s3://runs/team").unwrap()
}

fn output() -> (TempDir, PathBuf) {
    let root = tempdir().unwrap();
    let output = root.path().join("lineage-1");
    create_dir_all(&output).unwrap();
    (root, output)
}

fn step(picked: &Picked) -> Option<i64> {
    picked.choice.as_ref().map(|choice| choice.step)
}

/// Puts a checkpoint folder, and its manifest where it has one, into the store.
async fn upload(bucket: &Bucket, output: &Path, step: i64) {
    let name = folder(step);
    let prefix = format!("tiny-01234567/lineage-1/{name}");
    let dir = output.join(&name);
    let files: Vec<_> = read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    bucket.upload_dir(&dir, &prefix, &files).await.unwrap();
    if let Ok(manifest) = std::fs::read(output.join(manifest_name(&name))) {
        bucket.put(&format!("{prefix}.finetune.json"), manifest).await.unwrap();
    }
}

#[tokio::test]
async fn the_newest_checkpoint_is_picked_recorded_or_not() {
    let (_root, output) = output();
    write_checkpoint(&output, 5);
    write_manifest(&output, 5, UID);
    write_checkpoint(&output, 10);
    let picked = pick(&config(), &output, None).await.unwrap();
    assert_eq!(picked.choice, Some(Choice { step: 10, path: output.join("checkpoint-10") }));
    assert!(picked.refused.is_empty());
}

#[tokio::test]
async fn one_changed_byte_is_refused_and_the_one_before_it_is_picked() {
    let (_root, output) = output();
    for step in [5, 10] {
        write_checkpoint(&output, step);
        write_manifest(&output, step, UID);
    }
    damage(&output, 10);
    let picked = pick(&config(), &output, None).await.unwrap();
    assert_eq!(step(&picked), Some(5));
    assert!(picked.refused.get(&10).unwrap().starts_with("hash-differs"), "{:?}", picked.refused);
}

#[tokio::test]
async fn an_unfinished_save_is_refused_and_a_save_without_training_state_is_passed_over() {
    let (_root, output) = output();
    for step in [5, 10, 15] {
        write_checkpoint(&output, step);
    }
    std::fs::remove_file(output.join("checkpoint-10/optimizer.pt")).unwrap();
    std::fs::remove_file(output.join("checkpoint-15/trainer_state.json")).unwrap();
    let picked = pick(&config(), &output, None).await.unwrap();
    assert_eq!(step(&picked), Some(5));
    assert_eq!(picked.refused.keys().copied().collect::<Vec<_>>(), [15]);
}

#[tokio::test]
async fn a_checkpoint_of_another_run_is_never_resumed() {
    let (_root, output) = output();
    write_checkpoint(&output, 5);
    write_manifest(&output, 5, "another");
    let picked = pick(&config(), &output, None).await.unwrap();
    assert_eq!(step(&picked), None);
    assert!(picked.refused.get(&5).unwrap().contains("another run"));
}

#[tokio::test]
async fn scratch_begins_with_the_base_model_whatever_lies_there() {
    let (_root, output) = output();
    write_checkpoint(&output, 5);
    let config = RunConfig { start: Start::Scratch, ..config() };
    assert_eq!(pick(&config, &output, None).await.unwrap(), Picked::default());
}

#[tokio::test]
async fn a_checkpoint_of_another_run_is_started_from_only_while_the_lineage_has_none() {
    let (root, output) = output();
    let other = root.path().join("other");
    write_checkpoint(&other, 40);
    write_manifest(&other, 40, "another");
    let from = Input::Path {
        path: other.join("checkpoint-40").to_str().unwrap().to_owned(),
        label: "volume://models/checkpoint-40".to_owned(),
        field: "spec.startFrom.checkpoint".to_owned(),
    };
    let config = RunConfig { start: Start::Warm { from, step: 40 }, ..config() };
    let picked = pick(&config, &output, None).await.unwrap();
    assert_eq!(picked.choice, Some(Choice { step: 40, path: other.join("checkpoint-40") }));
    write_checkpoint(&output, 5);
    assert_eq!(step(&pick(&config, &output, None).await.unwrap()), Some(5));
    std::fs::remove_dir_all(output.join("checkpoint-5")).unwrap();
    damage(&other, 40);
    let error = pick(&config, &output, None).await.unwrap_err();
    assert!(error.to_string().contains("volume://models/checkpoint-40"), "{error}");
}

#[tokio::test]
async fn a_checkpoint_in_the_store_is_downloaded_and_proven() {
    let (_from, there) = output();
    let bucket = bucket();
    for step in [5, 10] {
        write_checkpoint(&there, u64::try_from(step).unwrap());
        write_manifest(&there, u64::try_from(step).unwrap(), UID);
        upload(&bucket, &there, step).await;
    }
    let (_to, output) = output();
    let picked = pick(&config(), &output, Some(&bucket)).await.unwrap();
    assert_eq!(step(&picked), Some(10));
    assert!(output.join("checkpoint-10/adapter_model.safetensors").is_file());
    assert!(output.join("checkpoint-10.finetune.json").is_file());
    assert!(!output.join("checkpoint-5").exists());
}

#[tokio::test]
async fn what_is_damaged_in_the_store_is_refused_and_its_copy_removed() {
    let (_from, there) = output();
    let bucket = bucket();
    for step in [5, 10, 15, 20] {
        write_checkpoint(&there, u64::try_from(step).unwrap());
    }
    write_manifest(&there, 10, UID);
    damage(&there, 10);
    write_manifest(&there, 15, "another");
    std::fs::remove_file(there.join("checkpoint-20/scheduler.pt")).unwrap();
    for step in [5, 10, 15, 20] {
        upload(&bucket, &there, step).await;
    }
    let (_to, output) = output();
    let picked = pick(&config(), &output, Some(&bucket)).await.unwrap();
    assert_eq!(step(&picked), Some(5));
    assert_eq!(picked.refused.keys().copied().collect::<Vec<_>>(), [10, 15, 20]);
    let left: Vec<_> = read_dir(&output).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["checkpoint-5"]);
}

#[tokio::test]
async fn a_good_copy_in_the_store_replaces_a_damaged_one_on_the_disk() {
    let (_from, output) = output();
    let bucket = bucket();
    write_checkpoint(&output, 5);
    write_manifest(&output, 5, UID);
    upload(&bucket, &output, 5).await;
    damage(&output, 5);
    let picked = pick(&config(), &output, Some(&bucket)).await.unwrap();
    assert_eq!(step(&picked), Some(5));
    assert!(picked.refused.is_empty());
}

#[tokio::test]
async fn an_empty_or_missing_output_has_nothing_to_resume() {
    let (root, output) = output();
    write(output.join("checkpoint-7"), "a file").unwrap();
    assert_eq!(step(&pick(&config(), &output, Some(&bucket())).await.unwrap()), None);
    assert_eq!(step(&pick(&config(), &root.path().join("none"), None).await.unwrap()), None);
}
