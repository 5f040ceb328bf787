//! The routes of all dialects over one state.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use kube::{Client, Config};
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;

use super::identity::Identities;
use super::limits::{self, Rate, Rates};
use super::metrics::GatewayMetrics;
use super::observe::observe;
use super::service::recent::Recent;
use super::service::room::Room;
use super::{live, openai, oxen, reference, strongly};

/// The gateway: what all requests share. It holds no credential.
#[derive(Clone)]
pub struct Gateway {
    pub(super) identities: Identities,
    pub(super) rates: Rates,
    pub(super) running: Arc<Semaphore>,
    pub(super) metrics: GatewayMetrics,
    pub(super) recent: Recent,
    pub(super) lists: Room,
    pub(super) servers: openai::Servers,
    pub(super) streams: live::Streams,
}

impl Gateway {
    /// A gateway to the API server of `config`. Every credential in it is dropped: callers bring their own.
    ///
    /// # Errors
    /// The TLS of the configuration cannot be set up.
    pub fn new(mut config: Config, rate: Rate) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        config.auth_info = kube::config::AuthInfo::default();
        // Callers see an error at once and decide themselves whether to try again.
        config.default_retry = false;
        let base = Client::try_from(config)?;
        let metrics = GatewayMetrics::default();
        Ok(Self {
            identities: Identities::new(base),
            rates: Rates::new(rate),
            running: Arc::new(Semaphore::new(limits::REQUESTS)),
            recent: Recent::default(),
            lists: Room::default(),
            servers: openai::Servers::new()?,
            streams: live::Streams::new(metrics.clone()),
            metrics,
        })
    }

    /// Every route.
    pub fn router(&self) -> Router {
        let aliases = ALIASES.iter().fold(Router::new(), |router, (alias, routes)| router.nest(alias, routes().into()));
        Router::from(routes())
            .merge(aliases)
            .nest("/live/v1", live::router())
            .merge(live::page())
            .fallback(|| async { axum::http::StatusCode::NOT_FOUND })
            .method_not_allowed_fallback(|| async { axum::http::StatusCode::METHOD_NOT_ALLOWED })
            .layer(from_fn_with_state(self.clone(), observe))
            .with_state(self.clone())
    }

    /// Ends what would go on for as long as somebody listens.
    pub fn end_streams(&self) {
        self.streams.end();
    }

    /// What it counts.
    #[must_use]
    pub const fn metrics(&self) -> &GatewayMetrics {
        &self.metrics
    }
}

type Routes = fn() -> OpenApiRouter<Gateway>;

/// Routes that are there under a shorter path too, for clients whose base URL ends without `/v1`.
const ALIASES: [(&str, Routes); 2] = [("/fine_tuning", openai::router), ("/models", openai::models)];

/// Every route by its one documented path, and what is documented of it.
pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .nest("/v1/fine_tuning", openai::router())
        .nest("/v1/models", openai::models())
        .merge(openai::completions())
        .nest("/api/repos/{namespace}/{repository}/fine_tunes", oxen::router())
        .nest("/api/v1/fine-tuning", strongly::router())
        .merge(reference::router())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::body::{Body, to_bytes};
    use axum::http::{HeaderMap, Request, StatusCode, header};
    use axum::routing::any;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    /// A gateway to an API server that takes no token, and the tokens that server was shown.
    async fn gateway(rate: Rate) -> (Router, Arc<Mutex<Vec<String>>>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let shown = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&shown);
        let refuse = move |headers: HeaderMap| {
            let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned();
            seen.lock().unwrap().push(token);
            async {
                (StatusCode::UNAUTHORIZED, axum::Json(kube::core::Status::failure("Unauthorized", "Unauthorized").with_code(401)))
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        config.auth_info.token = Some("the-gateways-own".to_owned().into());
        tokio::spawn(axum::serve(listener, Router::new().fallback(any(refuse))).into_future());
        (Gateway::new(config, rate).unwrap().router(), shown)
    }

    async fn ask(router: &Router, path: &str, key: Option<&str>) -> (StatusCode, HeaderMap, Value) {
        let mut request = Request::get(path);
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        (parts.status, parts.headers, serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap())
    }

    const GENEROUS: Rate = Rate { per_second: 1000.0, burst: 1000.0 };

    #[tokio::test]
    async fn the_callers_own_token_is_forwarded_and_no_other() {
        let (router, shown) = gateway(GENEROUS).await;
        let (code, headers, body) = ask(&router, "/v1/fine_tuning/jobs", Some("callers-key")).await;
        assert_eq!((code, body["error"]["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("invalid_api_key")));
        assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
        assert_eq!(*shown.lock().unwrap(), ["Bearer callers-key"]);
    }

    #[tokio::test]
    async fn without_a_key_nothing_is_asked_and_each_dialect_says_so() {
        let (router, shown) = gateway(GENEROUS).await;
        for (path, pointer) in [
            ("/v1/fine_tuning/jobs", "/error/message"),
            ("/api/v1/fine-tuning/stats", "/error/message"),
            ("/api/repos/team/repo/fine_tunes", "/status_message"),
            ("/live/v1/runs/events", "/error/message"),
        ] {
            let (code, _, body) = ask(&router, path, None).await;
            assert_eq!(code, StatusCode::UNAUTHORIZED, "{path}");
            assert!(body.pointer(pointer).and_then(Value::as_str).is_some_and(|text| text.contains("no key")), "{path}: {body}");
        }
        assert!(shown.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_caller_who_asks_too_often_is_told_when_to_come_back() {
        let (router, shown) = gateway(Rate { per_second: 0.001, burst: 2.0 }).await;
        for _ in 0..2 {
            assert_eq!(ask(&router, "/v1/fine_tuning/jobs", Some("busy")).await.0, StatusCode::UNAUTHORIZED);
        }
        let (code, headers, body) = ask(&router, "/v1/fine_tuning/jobs", Some("busy")).await;
        assert_eq!((code, body["error"]["type"].as_str()), (StatusCode::TOO_MANY_REQUESTS, Some("rate_limit_error")));
        assert!(headers.contains_key(header::RETRY_AFTER) && headers.contains_key("x-request-id"));
        assert_eq!(shown.lock().unwrap().len(), 2);
        assert_eq!(
            ask(&router, "/v1/fine_tuning/jobs", Some("calm")).await.0,
            StatusCode::UNAUTHORIZED,
            "others are not touched"
        );
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_nobody_elses_fault() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let router = Gateway::new(Config::new("http://127.0.0.1:1".parse().unwrap()), GENEROUS).unwrap().router();
        let (code, headers, body) = ask(&router, "/v1/fine_tuning/jobs", Some("key")).await;
        assert_eq!((code, body["error"]["type"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("server_error")));
        assert!(headers.contains_key(header::RETRY_AFTER));
    }
}
