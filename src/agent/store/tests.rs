use std::collections::BTreeMap;

use object_store::memory::InMemory;
use tempfile::tempdir;

use super::*;

fn bucket() -> Bucket {
    Bucket::over(Arc::new(InMemory::new()), "s3://models/base/").unwrap()
}

fn store(endpoint: Option<&str>) -> Store {
    Store { uri: "s3://models/base".to_owned(), endpoint: endpoint.map(str::to_owned), credentials: "OUTPUT_".to_owned() }
}

#[test]
fn missing_credentials_name_the_variable_and_the_field_that_mends_it() {
    let error = Bucket::open_with(&store(None), |_| None).unwrap_err().to_string();
    assert!(error.contains("OUTPUT_AWS_ACCESS_KEY_ID") && error.contains("secretName"), "{error}");
    let half = |name: &str| (name == "OUTPUT_AWS_ACCESS_KEY_ID").then(|| "id".to_owned());
    let error = Bucket::open_with(&store(None), half).unwrap_err().to_string();
    assert!(error.contains("OUTPUT_AWS_SECRET_ACCESS_KEY") && !error.contains("\"id\""), "{error}");
}

#[tokio::test]
async fn a_store_that_refuses_the_credentials_is_access_denied_and_is_not_asked_again() {
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = calls.clone();
    let refuse = move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let body = "<Error><Code>AccessDenied</Code><Message>no</Message><AWSAccessKeyId>the-id\
                    </AWSAccessKeyId></Error>";
        async move { (http::StatusCode::FORBIDDEN, body) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = axum::Router::new().fallback(refuse);
    tokio::spawn(async move { axum::serve(listener, server).await });
    let set = |name: &str| name.contains("KEY").then(|| "the-id".to_owned());
    let bucket = Bucket::open_with(&store(Some(&endpoint)), set).unwrap();
    for error in [
        bucket.list("").await.unwrap_err(),
        bucket.get("x", 1).await.unwrap_err(),
        bucket.put("x", "y").await.unwrap_err(),
        bucket.delete_prefix("x").await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::AccessDenied { .. }), "{error:?}");
        assert!(!error.to_string().contains("the-id"), "{error}");
    }
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 4);
}

#[tokio::test]
async fn keys_are_relative_to_the_uri_and_a_prefix_ends_at_a_slash() {
    let bucket = bucket();
    bucket.put("run/checkpoint-1/a", "12").await.unwrap();
    bucket.put("run/checkpoint-10/b", "123").await.unwrap();
    let listed = bucket.list("run/checkpoint-1").await.unwrap();
    assert_eq!(listed, [("run/checkpoint-1/a".to_owned(), 2)]);
    assert_eq!(bucket.list("").await.unwrap().len(), 2);
    assert_eq!(bucket.get("run/checkpoint-1/a", 2).await.unwrap().unwrap(), "12");
    assert_eq!(bucket.get("run/none", 2).await.unwrap(), None);
    assert!(matches!(bucket.get("run/checkpoint-10/b", 2).await, Err(StoreError::TooLarge { .. })));
    assert_eq!(bucket.delete_prefix("run/checkpoint-1").await.unwrap(), 1);
    assert_eq!(bucket.list("").await.unwrap(), [("run/checkpoint-10/b".to_owned(), 3)]);
    assert_eq!(bucket.delete_prefix("run/checkpoint-1").await.unwrap(), 0);
}

#[tokio::test]
async fn a_whole_bucket_is_never_removed() {
    let all = Bucket::over(Arc::new(InMemory::new()), "s3://models").unwrap();
    assert!(matches!(all.delete_prefix("").await, Err(StoreError::WholeBucket { .. })));
}

#[tokio::test]
async fn a_file_of_several_parts_comes_back_as_it_was_and_nothing_half_written_stays() {
    let bucket = bucket();
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    let content: Vec<u8> = (0..20_000_001_u32).map(|i| (i % 251) as u8).collect();
    std::fs::create_dir(from.path().join("sub")).unwrap();
    std::fs::write(from.path().join("sub/large"), &content).unwrap();
    std::fs::write(from.path().join("empty"), "").unwrap();
    let names = ["sub/large".to_owned(), "empty".to_owned()];
    assert_eq!(bucket.upload_dir(from.path(), "x", &names).await.unwrap(), 20_000_001);
    let got = bucket.download_prefix("x", to.path(), "test").await.unwrap();
    assert_eq!(got, Downloaded { files: 2, bytes: 20_000_001 });
    assert!(std::fs::read(to.path().join("sub/large")).unwrap() == content);
    let names = std::fs::read_dir(to.path().join("sub")).unwrap().count();
    assert_eq!(names, 1);
}

#[tokio::test]
async fn what_stands_for_a_directory_is_not_downloaded_as_a_file() {
    let inner = Arc::new(InMemory::new());
    for (key, content) in [("base", ""), ("base/sub", ""), ("base/sub/file", "x")] {
        inner.put(&Path::from(key), content.into()).await.unwrap();
    }
    let bucket = Bucket::over(inner, "s3://models/base").unwrap();
    let to = tempdir().unwrap();
    let got = bucket.download_prefix("", to.path(), "test").await.unwrap();
    assert_eq!(got.files, 1);
    assert_eq!(std::fs::read_to_string(to.path().join("sub/file")).unwrap(), "x");
}

#[tokio::test]
async fn an_empty_prefix_is_an_error_that_names_it() {
    let to = tempdir().unwrap();
    let error = bucket().download_prefix("none", to.path(), "test").await.unwrap_err();
    assert!(error.to_string().starts_with("nothing under s3://models/base/none"), "{error}");
}

#[tokio::test]
async fn a_key_that_would_lead_out_is_refused_before_anything_is_written() {
    let inner = Arc::new(InMemory::new());
    inner.put(&Path::from("base/ok"), "x".into()).await.unwrap();
    let odd = Path::parse("base/a\\..\\b").unwrap();
    inner.put(&odd, "x".into()).await.unwrap();
    let bucket = Bucket::over(inner, "s3://models/base").unwrap();
    let to = tempdir().unwrap();
    let error = bucket.download_prefix("", to.path(), "test").await.unwrap_err();
    assert!(matches!(error, StoreError::BadKey { .. }), "{error}");
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
    assert!(matches!(bucket.put("a/../b", "x").await, Err(StoreError::BadKey { .. })));
}

#[test]
fn a_uri_needs_scheme_and_bucket() {
    let over = |uri: &str| Bucket::over(Arc::new(InMemory::new()), uri).map(|it| it.uri_of("k"));
    let cases: BTreeMap<_, _> = [("s3://b", "s3://b/k"), ("s3://b/", "s3://b/k"), ("s3://b/p/", "s3://b/p/k")].into();
    for (uri, expected) in cases {
        assert_eq!(over(uri).unwrap(), expected);
    }
    assert!(over("gs://b/p").is_err() && over("s3:///p").is_err() && over("s3://b/a//b").is_err());
}
