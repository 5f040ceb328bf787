//! `finetune-operator check`: whether an installation works, as `helm test` asks.

use std::time::Duration;

use kube::{Api, Client, api::PostParams};
use serde_json::json;

use crate::api::{FineTune, GROUP, VERSION};

/// How long a process may take to say that it is ready.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Flags of `finetune-operator check`.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// URL of /readyz of a process that has to be ready; may be given several times
    #[arg(long = "ready")]
    ready: Vec<String>,
    /// Namespace in which a sample FineTune is put to the API server; nothing is kept
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
}

/// What does not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A process is not ready.
    #[error("{url} does not say that it is ready: {why}")]
    NotReady {
        /// Whom was asked.
        url: String,
        /// What it said.
        why: String,
    },
    /// No cluster to talk to.
    #[error("cannot find a cluster: run in a pod, or set KUBECONFIG")]
    NoCluster(#[source] kube::Error),
    /// The API server does not take a FineTune.
    #[error(
        "the API server does not take a FineTune: are the kinds installed (chart value crds.install), and may this account create finetunes?"
    )]
    Refused(#[source] kube::Error),
}

/// Checks one thing after the other and says what holds.
///
/// # Errors
/// The first that does not.
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for url in arguments.ready {
        is_ready(&url).await.map_err(|why| Error::NotReady { url: url.clone(), why })?;
        println!("{url} is ready");
    }
    let client = Client::try_default().await.map_err(Error::NoCluster)?;
    let api: Api<FineTune> = Api::namespaced(client, &arguments.namespace);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&dry_run, &sample()).await.map_err(Error::Refused)?;
    println!("the API server takes a FineTune in namespace {}", arguments.namespace);
    Ok(())
}

async fn is_ready(url: &str) -> Result<(), String> {
    let asked = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build();
    let answer = asked.map_err(|error| error.to_string())?.get(url).send().await.map_err(|error| error.to_string())?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answers {}", answer.status())) }
}

/// A run as a person might write it.
fn sample() -> FineTune {
    let sample = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "FineTune",
        "metadata": {"generateName": "check-"},
        "spec": {
            "baseModel": {"name": "any"},
            "dataset": {"training": {"huggingFace": {"repo": "any/data"}}},
            "output": {"volumeTemplate": {"size": "1Gi"}},
        },
    });
    #[expect(clippy::expect_used, reason = "it is a constant, and a test reads it")]
    serde_json::from_value(sample).expect("the sample is a FineTune")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_a_fine_tune() {
        assert_eq!(sample().metadata.generate_name.as_deref(), Some("check-"));
    }

    #[tokio::test]
    async fn a_process_that_is_not_there_or_not_ready_is_named_with_the_reason() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().route("/readyz", axum::routing::get(|| async { "ready" }));
        tokio::spawn(axum::serve(listener, router).into_future());
        is_ready(&format!("http://{address}/readyz")).await.unwrap();
        let why = is_ready(&format!("http://{address}/other")).await.unwrap_err();
        assert!(why.contains("404"), "{why}");
        is_ready("http://127.0.0.1:1/readyz").await.unwrap_err();
    }
}
