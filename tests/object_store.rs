//! The bucket against a real S3 server: `hack/s3.sh start`, then `S3_ENDPOINT=… cargo test --test object_store`.
//! Says so and passes where no server is named.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use finetune_operator::agent::resume;
use finetune_operator::agent::store::{Bucket, StoreError};
use finetune_operator::api::{Bindings, Completion};
use finetune_operator::protocol::{Input, RunConfig, Start, Store};
use tempfile::tempdir;

/// A prefix of its own for each test, or nothing where no server is named.
fn store(test: &str) -> Option<Store> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Ok(endpoint) = std::env::var("S3_ENDPOINT") else {
        eprintln!("SKIPPED {test}: S3_ENDPOINT is not set");
        return None;
    };
    let bucket = std::env::var("S3_BUCKET").unwrap_or_else(|_| "finetune".to_owned());
    let unique = format!("{test}-{}", uuid::Uuid::new_v4());
    Some(Store { uri: format!("s3://{bucket}/{unique}"), endpoint: Some(endpoint), credentials: "TEST_".to_owned() })
}

/// Opens a store with made-up credentials: the test server wants some and takes any.
fn open(store: &Store) -> Bucket {
    Bucket::open_with(store, |name| name.contains("KEY").then(|| "any".to_owned())).unwrap()
}

#[tokio::test]
async fn a_large_file_goes_up_in_parts_and_comes_back_as_it_was() {
    let Some(store) = store("parts") else { return };
    let bucket = open(&store);
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    let content: Vec<u8> = (0..5_u32 << 20).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::create_dir(from.path().join("sub dir")).unwrap();
    std::fs::write(from.path().join("model.safetensors"), &content).unwrap();
    std::fs::write(from.path().join("sub dir/größe+1.txt"), "odd name").unwrap();
    std::fs::write(from.path().join("empty"), "").unwrap();
    let names = ["model.safetensors", "sub dir/größe+1.txt", "empty"].map(str::to_owned);
    let sent = bucket.upload_dir(from.path(), "a/checkpoint-1", &names).await.unwrap();
    assert_eq!(sent, content.len() as u64 + 8);
    bucket.put("a/checkpoint-10/x", "other").await.unwrap();
    assert_eq!(bucket.list("a/checkpoint-1").await.unwrap().len(), 3);

    let got = bucket.download_prefix("a/checkpoint-1", to.path(), "test").await.unwrap();
    assert_eq!((got.files, got.bytes), (3, sent));
    for name in &names {
        let (there, here) = (from.path().join(name), to.path().join(name));
        assert!(std::fs::read(there).unwrap() == std::fs::read(here).unwrap(), "{name}");
    }
    assert_eq!(bucket.tail("a/checkpoint-10/x", 3).await.unwrap().unwrap(), "her");

    assert_eq!(bucket.delete_prefix("a/checkpoint-1").await.unwrap(), 3);
    assert_eq!(bucket.list("a").await.unwrap(), [("a/checkpoint-10/x".to_owned(), 5)]);
    assert_eq!(bucket.delete_prefix("a").await.unwrap(), 1);
    bucket.delete("a/none").await.unwrap();
    let gone = bucket.download_prefix("a/checkpoint-1", to.path(), "test").await;
    assert!(matches!(gone, Err(StoreError::Nothing { .. })), "{gone:?}");
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_said_to_be_missing() {
    let Some(mut store) = store("missing") else { return };
    store.uri = format!("s3://missing-{}/x", uuid::Uuid::new_v4());
    let bucket = open(&store);
    let error = bucket.list("").await.unwrap_err();
    assert!(matches!(error, StoreError::NoBucket { .. }), "{error:?}");
    let error = bucket.put("x", "y").await.unwrap_err();
    assert!(matches!(error, StoreError::NoBucket { .. }), "{error:?}");
}

#[tokio::test]
async fn a_lineage_without_checkpoints_in_the_store_begins_with_the_base_model() {
    let Some(store) = store("resume") else { return };
    let bucket = open(&store);
    let hub = |repo: &str| Input::Hub { repo: repo.to_owned(), revision: None };
    let config = RunConfig {
        name: "tiny".to_owned(),
        namespace: "team".to_owned(),
        uid: "0123456789abcdef".to_owned(),
        attempt: 1,
        lineage: 1,
        nodes: 1,
        base_model: hub("org/model"),
        dataset: hub("org/data"),
        validation_dataset: None,
        upload: Some(store.clone()),
        start: Start::LastCheckpoint,
        parameters: BTreeMap::new(),
        bind: Bindings::default(),
        seed: 1,
        completion: Completion::Verified,
        settle_seconds: 10,
        stall_seconds: None,
        divergence_points: None,
    };
    let output = tempdir().unwrap();
    let picked = resume::pick(&config, output.path(), Some(&bucket)).await.unwrap();
    assert_eq!(picked, resume::Picked::default());
    bucket.put("tiny-01234567/lineage-1/checkpoint-5/trainer_state.json", "{}").await.unwrap();
    let picked = resume::pick(&config, output.path(), Some(&bucket)).await.unwrap();
    assert_eq!(picked.refused.keys().copied().collect::<Vec<_>>(), [5]);
    bucket.delete_prefix("tiny-01234567").await.unwrap();
}
