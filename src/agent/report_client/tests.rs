use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use tempfile::tempdir;

use super::*;
use crate::agent::fixture::serve;

type Seen = Arc<Mutex<Vec<String>>>;

struct Server {
    url: String,
    ca: String,
    seen: Seen,
}

/// A report server that answers with each status in turn, the last one for ever.
async fn server(statuses: &'static [u16]) -> Server {
    let seen = Seen::default();
    let app = Router::new()
        .route(
            REPORT_PATH,
            post(move |State(seen): State<Seen>, headers: HeaderMap| async move {
                let token = headers.get("authorization").unwrap().to_str().unwrap().to_owned();
                let mut seen = seen.lock().unwrap();
                seen.push(token);
                let at = seen.len().min(statuses.len()) - 1;
                let status = StatusCode::from_u16(statuses[at]).unwrap();
                (status, r#"{"intervalSeconds":30}"#)
            }),
        )
        .with_state(seen.clone());
    let (url, ca) = serve(app).await;
    Server { url, ca, seen }
}

#[tokio::test]
async fn a_report_arrives_with_the_token_of_the_moment() {
    let server = server(&[200]).await;
    let dir = tempdir().unwrap();
    let token = dir.path().join("token");
    let client = ReportClient::new(&server.url, &server.ca, &token).unwrap();
    for content in ["first\n", "second"] {
        std::fs::write(&token, content).unwrap();
        let answer = client.post(&Report::default()).await.unwrap();
        assert_eq!(answer.interval_seconds, 30);
    }
    assert_eq!(*server.seen.lock().unwrap(), ["Bearer first", "Bearer second"]);
}

#[tokio::test]
async fn only_the_controllers_own_ca_is_trusted() {
    let (real, other) = (server(&[200]).await, server(&[200]).await);
    let dir = tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    let client = ReportClient::new(&real.url, &other.ca, &token).unwrap();
    let error = client.post(&Report::default()).await.unwrap_err();
    assert!(matches!(error, ReportError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(real.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_a_refusal_is_not() {
    let server1 = server(&[503, 200]).await;
    let dir = tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "t").unwrap();
    let client = ReportClient::new(&server1.url, &server1.ca, &token).unwrap();
    client.post_within(&Report::default(), Duration::from_secs(30)).await.unwrap();
    assert_eq!(server1.seen.lock().unwrap().len(), 2);

    let server2 = server(&[403]).await;
    let client = ReportClient::new(&server2.url, &server2.ca, &token).unwrap();
    let error = client.post_within(&Report::default(), Duration::from_secs(30)).await.unwrap_err();
    assert!(matches!(error, ReportError::Refused { status: 403, .. }), "{error}");
    assert_eq!(server2.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_report_that_is_too_large_or_would_go_in_the_clear_is_not_sent() {
    let server = server(&[200]).await;
    let dir = tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "t").unwrap();
    let client = ReportClient::new(&server.url, &server.ca, &token).unwrap();
    let large = Report { log: vec!["x".repeat(MAX_REPORT_BYTES)], ..Report::default() };
    assert!(matches!(client.post(&large).await, Err(ReportError::TooLarge { .. })));
    let clear = server.url.replace("https", "http");
    let client = ReportClient::new(&clear, &server.ca, &token).unwrap();
    assert!(matches!(client.post(&Report::default()).await, Err(ReportError::Unreachable(_))));
    assert!(server.seen.lock().unwrap().is_empty());
}

#[test]
fn a_ca_that_is_no_certificate_is_refused_by_name() {
    let error = ReportClient::new("https://x", "", "/t").unwrap_err();
    assert!(error.to_string().contains(env::REPORT_CA), "{error}");
}
