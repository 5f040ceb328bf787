//! Ten thousand requests that are almost right, or not at all: each is answered below 500 and as documented, and no secret gets into a log.
//!
//! `FINETUNE_IT_SEED` chooses others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    body::Body,
    http::{HeaderValue, Request},
};
use finetune_operator::api::Dataset;
use futures::StreamExt;
use k8s_openapi::api::core::v1 as corev1;
use kube::{Api, api::DeleteParams};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{
    api::{Gate, READ, WRITE, token},
    mutate::{Keys, Mutant, World, mutant},
};
use crate::{
    harness::{Sandbox, in_sandbox, sandbox::with_sandbox},
    run::train,
};

const REQUESTS: usize = 10_000;
const AT_ONCE: usize = 8;
/// Runs the requests may make by luck, beside the one there is.
const MOST_RUNS: usize = 40;

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn whatever_is_sent_is_answered_in_the_words_of_the_dialect() {
    in_sandbox(|sandbox| async move {
        with_sandbox(|other| async move {
            let world = world(&sandbox, &other).await;
            let seed = std::env::var("FINETUNE_IT_SEED").map_or(20_270_115, |seed| seed.parse().unwrap());
            let mut random = StdRng::seed_from_u64(seed);
            let mutants: Vec<Mutant> = (0..REQUESTS).map(|_| mutant(&world, &mut random)).collect();
            let log = Log::default();
            let writer = tracing_subscriber::fmt().with_env_filter(EnvFilter::new("debug")).with_writer(log.clone()).finish();
            let gate = Gate::new(&sandbox, READ).await;
            let codes = answered(&gate, mutants).with_subscriber(writer).await;
            println!("seed {seed}: {codes:?}");
            let refused: usize = codes.iter().filter(|(code, _)| **code >= 400).map(|(_, count)| count).sum();
            assert!(refused > REQUESTS / 2 && refused < REQUESTS, "some get through, most do not: {codes:?}");
            for code in [200, 400, 401, 403, 404, 405, 409, 413] {
                assert!(codes.contains_key(&code), "nothing was answered {code}: {codes:?}");
            }
            let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            assert!(log.matches("answered").count() >= REQUESTS, "{} lines", log.lines().count());
            for (line, secret) in log.lines().flat_map(|line| world.secrets.iter().map(move |secret| (line, secret))) {
                assert!(!line.contains(secret.as_str()), "a secret is in the log: {}", line.replace(secret.as_str(), "SECRET"));
            }
        })
        .await;
    })
    .await;
}

/// Sends them all, and counts the codes of their answers.
async fn answered(gate: &Gate, mutants: Vec<Mutant>) -> BTreeMap<u16, usize> {
    let send = |mutant: Mutant| async move {
        let request = request(&mutant)?;
        let answer = gate.send(request).await;
        assert!(answer.code < 500, "{} to {mutant:?}: {}", answer.code, answer.body);
        assert!(answer.headers.contains_key("x-request-id"), "{mutant:?}");
        Some(answer.code)
    };
    let mut codes = BTreeMap::new();
    let mut answers = futures::stream::iter(mutants.into_iter().map(send)).buffer_unordered(AT_ONCE);
    while let Some(code) = answers.next().await {
        *codes.entry(code.unwrap_or_default()).or_default() += 1;
    }
    codes
}

/// The request, if it can be one: what no client could send at all is left out.
fn request(mutant: &Mutant) -> Option<Request<Body>> {
    let mut request = Request::builder().method(mutant.method.as_str()).uri(&mutant.uri);
    for (name, value) in &mutant.headers {
        request = request.header(*name, HeaderValue::from_bytes(value).ok()?);
    }
    request.body(Body::from(mutant.body.clone())).ok()
}

/// A run with checkpoints in one namespace, another one in a namespace that is none of the caller's business, and keys of all kinds.
async fn world(sandbox: &Sandbox, other: &Sandbox) -> World {
    let write = Gate::new(sandbox, WRITE).await.key;
    let read = Gate::new(sandbox, READ).await.key;
    let rows = json!({"training": {"huggingFace": {"repo": "org/rows"}}});
    sandbox.create::<Dataset>(json!({"metadata": {"name": "rows"}, "spec": rows})).await;
    let run = sandbox.run("bot", json!({"metadata": {"team": "a"}})).await;
    train(sandbox, &run, 1).await;
    other.run("theirs", json!({"desiredState": "Paused"})).await;
    let quota = json!({"hard": {"count/finetunes.finetune.dev": MOST_RUNS.to_string()}});
    sandbox.create::<corev1::ResourceQuota>(json!({"metadata": {"name": "runs"}, "spec": quota})).await;
    sandbox.create::<corev1::ServiceAccount>(json!({"metadata": {"name": "gone"}})).await;
    let gone = token(sandbox, "gone").await;
    let accounts: Api<corev1::ServiceAccount> = sandbox.api();
    accounts.delete("gone", &DeleteParams::default()).await.unwrap();
    let keys = Keys::new(write, read, gone);
    World {
        document: serde_json::from_str(&finetune_operator::gateway::document()).unwrap(),
        namespace: sandbox.namespace.clone(),
        other: other.namespace.clone(),
        secrets: keys.secrets(),
        keys,
    }
}
