//! The report server: takes what agents report, on every replica, and writes Checkpoints, progress and history.
//!
//! A report passes through `authentication` (whose token), `authorization` (whose pod), `validation` (every bound), `merge` (what it changes; pure)
//! and `write` (one request an object). Everything known comes from watches; what was just written is remembered in `recent`.

mod authentication;
mod authorization;
mod figures;
mod handler;
mod limits;
mod listener;
mod merge;
mod metrics;
mod naming;
mod pacing;
mod recent;
mod refusal;
mod sharing;
mod stores;
mod tls;
mod validation;
mod write;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::routing::post;
use jiff::Timestamp;
use kube::Client;

pub use metrics::ReportMetrics;
pub use naming::checkpoint_storage;
pub use stores::Stores;
pub use tls::{Authority, ensure_authority};
pub use write::{PROGRESS_MANAGER, REPORTS_MANAGER};

use crate::api::Output;
use crate::protocol::REPORT_PATH;
use authentication::Authenticator;
use handler::Handler;
use recent::Recent;
use stores::Lookup;
use write::Writer;

/// Why the report server cannot run.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The Secret of the certificate authority cannot be read or written.
    #[error("cannot get at Secret {namespace}/{} of the certificate authority", crate::access::REPORTS_CA_SECRET)]
    Secret {
        /// Namespace of the Secret.
        namespace: String,
        /// What the API server says.
        #[source]
        source: Box<kube::Error>,
    },
    /// The Secret holds no certificate authority.
    #[error("Secret {} holds no certificate authority: delete it, a new one is made", crate::access::REPORTS_CA_SECRET)]
    BrokenAuthority,
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// How the report server is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on.
    pub address: SocketAddr,
    /// DNS names and IP addresses agents reach it by.
    pub hosts: Vec<String>,
    /// The output of runs that name none: their Checkpoints take secret and endpoint from it.
    pub default_output: Option<Output>,
}

impl Settings {
    /// Listens on `port` of all addresses, reached by `hosts`.
    #[must_use]
    pub fn new(port: u16, hosts: Vec<String>) -> Self {
        Self { address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), hosts, default_output: None }
    }

    /// The same with the output of runs that name none.
    #[must_use]
    pub fn with_default_output(self, default_output: Option<Output>) -> Self {
        Self { default_output, ..self }
    }
}

/// The report server.
pub struct Reports {
    handler: Arc<Handler>,
    settings: Settings,
}

impl Reports {
    /// A server that looks things up in `stores` and writes with `client`.
    #[must_use]
    pub fn new(client: Client, stores: Stores, settings: Settings) -> Self {
        let (metrics, recent) = (ReportMetrics::default(), Recent::default());
        let mut handler = Handler::new(
            Authenticator::new(client.clone(), metrics.clone()),
            Lookup::new(client.clone(), stores, recent.clone()),
            Writer::new(client, recent, metrics.clone()),
            metrics,
        );
        handler.default_output.clone_from(&settings.default_output);
        Self { handler: Arc::new(handler), settings }
    }

    /// What the server counts.
    #[must_use]
    pub fn metrics(&self) -> &ReportMetrics {
        &self.handler.metrics
    }

    /// The server without the TLS around it.
    pub fn router(&self) -> Router {
        let answer = |State(handler): State<Arc<Handler>>, request: Request<Body>| async move { handler.handle(request).await };
        Router::new().route(REPORT_PATH, post(answer)).with_state(Arc::clone(&self.handler))
    }
}

/// Serves reports over TLS until `shutdown`, with a certificate signed by `authority`.
///
/// # Errors
/// The address cannot be bound, or no certificate can be made.
pub async fn serve(reports: Reports, authority: Authority, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let router = reports.router().merge(sharing::router(Arc::clone(&reports.handler), authority.clone()));
    let certificates = tls::Certificates::new(authority, reports.settings.hosts.clone(), Timestamp::now())?;
    let tls = listener::tls(Arc::new(certificates))?;
    let listener = listener::bind(reports.settings.address).await?;
    tracing::info!(address = %reports.settings.address, "taking reports");
    listener::serve(listener, tls, router, shutdown).await;
    Ok(())
}
