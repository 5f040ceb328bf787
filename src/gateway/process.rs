//! The gateway process: its flags, and what runs in it from start to shutdown.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use axum::{Router, http::StatusCode, routing::get};
use kube::Config;
use tokio::sync::watch;

use super::app::Gateway;
use super::limits::{self, Rate};
use super::metrics::GatewayMetrics;
use crate::signals::asked_to_stop;
use crate::{listener, telemetry};

/// Flags of `finetune-operator gateway`. Every flag can be given by its environment variable.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Port of the API
    #[arg(long, env = "FINETUNE_GATEWAY_PORT", default_value_t = 8090)]
    port: u16,
    /// Port of /livez, /readyz and /metrics
    #[arg(long, env = "FINETUNE_HTTP_PORT", default_value_t = 8080)]
    http_port: u16,
    /// URL of the Kubernetes API server; that of the kubeconfig when absent. No credential of a kubeconfig is ever used
    #[arg(long, env = "FINETUNE_API_SERVER")]
    api_server: Option<http::Uri>,
    /// File with the certificate authority of the API server
    #[arg(long, env = "FINETUNE_API_SERVER_CA")]
    api_server_ca: Option<PathBuf>,
    /// Requests a second one key may make in the long run
    #[arg(long, env = "FINETUNE_RATE", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Requests one key may make at once
    #[arg(long, env = "FINETUNE_BURST", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    burst: u32,
    /// Seconds between the end of readiness and the end of listening, so that nobody is sent here any more
    #[arg(long, env = "FINETUNE_DRAIN_SECONDS", default_value_t = 5)]
    drain_seconds: u32,
    /// How log lines look
    #[arg(long, env = "FINETUNE_LOG_FORMAT", value_enum, default_value_t)]
    log_format: telemetry::Format,
    /// What is logged, as a tracing filter
    #[arg(long, env = "RUST_LOG", default_value = "info,kube=warn")]
    log: String,
}

/// Why the process cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No API server is named.
    #[error("no API server is known: give --api-server, or set KUBECONFIG")]
    NoServer(#[source] kube::config::KubeconfigError),
    /// The connection to the API server cannot be set up.
    #[error("the connection to the API server cannot be set up")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A port cannot be listened on.
    #[error("cannot listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// Runs until the process is asked to stop.
///
/// # Errors
/// Why it cannot start.
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    telemetry::init(arguments.log_format, &arguments.log);
    let config = arguments.config().await?;
    let rate = Rate { per_second: arguments.rate.into(), burst: arguments.burst.into() };
    let gateway = Gateway::new(config, rate).map_err(Error::Connection)?;
    let (draining, drains) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let api = listen(arguments.port).await?;
    let probes = listen(arguments.http_port).await?;
    let probe_routes = probe_routes(drains, gateway.metrics().clone());
    let api = tokio::spawn(listener::serve(api, None, limits::OF_LISTENERS, gateway.router(), said(stopped.clone())));
    let probes = tokio::spawn(listener::serve(probes, None, limits::OF_LISTENERS, probe_routes, said(stopped)));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), port = arguments.port, "started");
    asked_to_stop().await;
    tracing::info!("stopping");
    let _ = draining.send(true);
    tokio::time::sleep(Duration::from_secs(arguments.drain_seconds.into())).await;
    let _ = stop.send(true);
    gateway.end_streams();
    let _ = tokio::join!(api, probes);
    Ok(())
}

async fn said(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn listen(port: u16) -> Result<tokio::net::TcpListener, Error> {
    listener::bind((Ipv6Addr::UNSPECIFIED, port).into()).await.map_err(|source| Error::Listen { port, source })
}

/// Alive as long as it answers; ready until it is asked to stop. Whether the API server is there is for each request to say.
fn probe_routes(drains: watch::Receiver<bool>, metrics: GatewayMetrics) -> Router {
    let ready = move || {
        let draining = *drains.borrow();
        async move { if draining { (StatusCode::SERVICE_UNAVAILABLE, "stopping") } else { (StatusCode::OK, "ok") } }
    };
    let text = move || {
        let text = metrics.text();
        async move { text.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR) }
    };
    Router::new().route("/livez", get(|| async { "ok" })).route("/readyz", get(ready)).route("/metrics", get(text))
}

impl Arguments {
    async fn config(&self) -> Result<Config, Error> {
        let mut config = match &self.api_server {
            Some(url) => Config::new(url.clone()),
            None => Config::from_kubeconfig(&kube::config::KubeConfigOptions::default()).await.map_err(Error::NoServer)?,
        };
        if let Some(file) = &self.api_server_ca {
            config.root_cert = None;
            config.root_cert_file = Some(file.clone());
        }
        Ok(config)
    }
}
