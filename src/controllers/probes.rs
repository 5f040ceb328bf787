//! /livez, /readyz and /metrics.

use std::{net::Ipv6Addr, sync::Arc};

use axum::{Router, http::StatusCode, routing::get};

use super::world::World;
use crate::telemetry::Metrics;

/// Serves the probes until `stop`.
///
/// # Errors
/// When the port is taken.
pub async fn serve(
    port: u16,
    world: Arc<World>,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let ready = move || {
        let ready = world.is_ready();
        async move {
            if ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "the watches are not complete yet") }
        }
    };
    let text = move || {
        let text = metrics.text();
        async move { text.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR) }
    };
    let router = Router::new().route("/livez", get(|| async { "ok" })).route("/readyz", get(ready)).route("/metrics", get(text));
    let listener = tokio::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}
