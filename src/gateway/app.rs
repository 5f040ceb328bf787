//! The routes of all dialects over one state.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use kube::{Client, Config};
use tokio::sync::Semaphore;

use super::identity::Identities;
use super::limits::{self, Rate, Rates};
use super::metrics::GatewayMetrics;
use super::observe::observe;
use super::{openai, oxen, strongly};

/// The gateway: what all requests share. It holds no credential.
#[derive(Clone)]
pub struct Gateway {
    pub(super) identities: Identities,
    pub(super) rates: Rates,
    pub(super) running: Arc<Semaphore>,
    pub(super) metrics: GatewayMetrics,
}

impl Gateway {
    /// A gateway to the API server of `config`. Every credential in it is dropped: callers bring their own.
    ///
    /// # Errors
    /// The TLS of the configuration cannot be set up.
    pub fn new(mut config: Config, rate: Rate) -> Result<Self, Box<kube::Error>> {
        config.auth_info = kube::config::AuthInfo::default();
        // Callers see an error at once and decide themselves whether to try again.
        config.default_retry = false;
        let base = Client::try_from(config)?;
        Ok(Self {
            identities: Identities::new(base),
            rates: Rates::new(rate),
            running: Arc::new(Semaphore::new(limits::REQUESTS)),
            metrics: GatewayMetrics::default(),
        })
    }

    /// Every route.
    pub fn router(&self) -> Router {
        Router::new()
            .nest("/v1/fine_tuning", openai::router())
            .nest("/fine_tuning", openai::router())
            .nest("/v1/models", openai::models())
            .nest("/models", openai::models())
            .nest("/api/repos/{namespace}/{repository}/fine_tunes", oxen::router())
            .nest("/api/v1/fine-tuning", strongly::router())
            .fallback(|| async { axum::http::StatusCode::NOT_FOUND })
            .method_not_allowed_fallback(|| async { axum::http::StatusCode::METHOD_NOT_ALLOWED })
            .layer(from_fn_with_state(self.clone(), observe))
            .with_state(self.clone())
    }

    /// What it counts.
    #[must_use]
    pub const fn metrics(&self) -> &GatewayMetrics {
        &self.metrics
    }
}
