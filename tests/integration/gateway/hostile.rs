//! What people send who mean no good, or know no better: always an answer below 500, in the words of the dialect.

use axum::{body::Body, http::Request};
use finetune_operator::listener;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::api::{Gate, WRITE, router};
use crate::harness::in_sandbox;

/// Paths below which each dialect takes a create, and where its refusal has its text.
fn creates(namespace: &str) -> Vec<(String, &'static str)> {
    vec![
        ("/v1/fine_tuning/jobs".into(), "/error/message"),
        ("/api/v1/fine-tuning/jobs".into(), "/error/message"),
        (format!("/api/repos/{namespace}/models/fine_tunes"), "/status_message"),
    ]
}

fn is_refusal(body: &Value, pointer: &str) -> bool {
    body.pointer(pointer).is_some_and(|text| text.as_str().is_some_and(|text| !text.is_empty()))
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn bodies_that_are_none_are_refused() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let deep = "[".repeat(100_000);
        let nested = format!("{{\"model\": {}", "{\"a\":".repeat(100_000));
        let huge = format!("{{\"model\": \"{}\"}}", "a".repeat(2 * 1024 * 1024));
        let bodies: Vec<(&[u8], u16)> = vec![
            (b"", 400),
            (b"{", 400),
            (b"[]", 400),
            (b"null", 400),
            (b"\"text\"", 400),
            (b"\xff\xfe", 400),
            (b"{} {}", 400),
            (b"{\"model\": 3}", 400),
            (deep.as_bytes(), 400),
            (nested.as_bytes(), 400),
            (huge.as_bytes(), 413),
        ];
        for (path, pointer) in creates(&sandbox.namespace) {
            for (body, code) in &bodies {
                let request = Request::post(&path).header("x-api-key", &gate.key).body(Body::from(body.to_vec())).unwrap();
                let refused = gate.send(request).await.with(*code);
                assert!(is_refusal(&refused, pointer), "{path}: {refused}");
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn ids_lead_nowhere_else() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        sandbox.run("bot", json!({})).await;
        let ids = [
            "..",
            ".",
            "..%2Fbot",
            "%2e%2e%2f%2e%2e%2fsecrets",
            "bot%2F..%2Fbot",
            "bot%00",
            "bot%3Fwatch%3Dtrue",
            "bot%23",
            "BOT",
            "%20bot",
            "ftjob-",
            "ftjob-ftjob-bot",
            "b%C3%B6t",
            "%ff",
            "bot%0d%0aX-Evil%3A1",
            "*",
            "ftckpt-bot",
            "cp_bot",
        ];
        for id in ids {
            for path in [
                format!("/v1/fine_tuning/jobs/{id}"),
                format!("/v1/fine_tuning/checkpoints/{id}/permissions"),
                format!("/api/v1/fine-tuning/jobs/{id}"),
                format!("/api/v1/fine-tuning/jobs/{id}/logs"),
                format!("/api/repos/{}/models/fine_tunes/{id}", sandbox.namespace),
                format!("/api/repos/{}/models/fine_tunes/{id}/checkpoints", sandbox.namespace),
            ] {
                let answer = gate.get(&path).await;
                assert!([400, 404].contains(&answer.code), "{path}: {} {}", answer.code, answer.body);
                let pointer = if path.starts_with("/api/repos") { "/status_message" } else { "/error/message" };
                assert!(is_refusal(&answer.body, pointer), "{path}: {}", answer.body);
            }
        }
        for namespace in ["..", "..%2F..", "kube-system%2Fx", "A", "%20"] {
            let answer = gate.get(&format!("/api/repos/{namespace}/models/fine_tunes")).await;
            assert!([400, 404].contains(&answer.code), "{namespace}: {}", answer.code);
        }
        let made = gate.post("/v1/fine_tuning/checkpoints/bot/permissions", json!({"project_ids": ["a"]})).await;
        made.with(404);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn unknown_urls_and_methods_are_told_in_the_dialect() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        for (path, pointer) in [
            ("/", "/error/message"),
            ("/v1/files", "/error/message"),
            ("/v1/fine_tuning/jobs/", "/error/message"),
            ("/api/v1/fine-tuning/nothing", "/error/message"),
            ("/api/repos/a/b/nothing", "/status_message"),
        ] {
            let refused = gate.get(path).await.with(404);
            assert!(is_refusal(&refused, pointer), "{path}: {refused}");
        }
        let openai = gate.get("/v1/nothing").await.with(404);
        let keys: Vec<_> = openai["error"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        gate.delete("/v1/fine_tuning/jobs").await.with(405);
        gate.post("/api/v1/fine-tuning/stats", json!({})).await.with(405);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn what_is_no_http_ends_its_own_connection_and_nothing_else() {
    let bound = listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.local_addr().unwrap();
    let limits = listener::Limits { head_bytes: 64 * 1024, headers: 64, ..listener::Limits::AMONG_US };
    let server = tokio::spawn(listener::serve(bound, None, limits, router().await, std::future::pending()));
    let get = "GET /v1/models HTTP/1.1\r\nHost: a\r\n";
    let many = "X: a\r\n".repeat(100);
    for said in [
        "\r\n\r\n\r\nnonsense\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET /v1/models HTTP/9.9\r\n\r\n".to_owned(),
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /\u{0} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(128 * 1024)),
        format!("{get}X: {}\r\n\r\n", "a".repeat(128 * 1024)),
        format!("{get}{many}\r\n"),
        format!("{get}Bad Header\r\n\r\n"),
        format!("{get}Content-Length: 3\r\nContent-Length: 4\r\n\r\n"),
        format!("{get}Content-Length: -1\r\n\r\n"),
        "POST /v1/fine_tuning/jobs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
    ] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let _ = connection.write_all(said.as_bytes()).await;
        let _ = connection.shutdown().await;
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let start: String = said.chars().take(60).collect();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{start:?}: {answer}");
    }
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(format!("{get}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("no key was sent"), "{answer}");
    server.abort();
}
