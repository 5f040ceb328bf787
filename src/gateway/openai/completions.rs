//! Passes completions on to the server of the model they name. Only these paths, so that nobody administers a server by way of us.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::Response;
use kube::ResourceExt;
use moka::future::Cache;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::api::ModelDeployment;
use crate::gateway::app::Gateway;
use crate::gateway::errors::{Kind, Refusal};
use crate::gateway::extract::parse;
use crate::gateway::identity::CallerKey;
use crate::gateway::limits;
use crate::gateway::service::cluster::Selection;
use crate::gateway::service::{Session, ids, runs, standing};

/// How long it is remembered that a caller may use a model, and where it is: no longer than the API server remembers a token.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Header fields a server gets to see. Never the key.
const PASSED: [HeaderName; 3] = [header::CONTENT_TYPE, header::ACCEPT, HeaderName::from_static("x-request-id")];

/// The routes of what served models do.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(chat)).routes(routes!(complete)).routes(routes!(embed))
}

/// Knows the servers of models, and talks to them.
#[derive(Clone)]
pub struct Servers {
    http: reqwest::Client,
    known: Cache<(CallerKey, String, String), String>,
    /// A permit for each KiB that a request may take until its server has it.
    room: Arc<Semaphore>,
}

impl Servers {
    /// Remembers nothing yet.
    ///
    /// # Errors
    /// The client cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .build()?;
        let known = Cache::builder().max_capacity(10_000).time_to_live(REMEMBERED).build();
        Ok(Self { http, known, room: Arc::new(Semaphore::new(limits::COMPLETIONS_KIB)) })
    }

    /// Room for the body of a request; one that does not say its length may be as large as any.
    fn room(&self, headers: &HeaderMap) -> Result<SemaphorePermit<'_>, Refusal> {
        let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let kib = kib(said.unwrap_or(limits::COMPLETION_BYTES).min(limits::COMPLETION_BYTES));
        let full = || Refusal {
            retry_after: Some(1),
            ..Refusal::new(Kind::Unavailable, "too many large requests are on their way: try again")
        };
        self.room.try_acquire_many(u32::try_from(kib).unwrap_or(u32::MAX)).map_err(|_| full())
    }
}

/// As much of the room as so many bytes take; the rest is for others again.
fn fitted(mut room: SemaphorePermit<'_>, bytes: usize) -> SemaphorePermit<'_> {
    room.split(kib(bytes)).unwrap_or(room)
}

/// The permits that so many bytes take.
const fn kib(bytes: usize) -> usize {
    bytes / 1024 + 1
}

/// What the server of a model is asked. Only the name of the model is looked at; everything else is for the server.
#[derive(Deserialize, ToSchema)]
#[schema(as = openai::Asked)]
struct Named {
    /// Name of a model that is served: see the list of models.
    model: String,
}

/// Chat with a model
///
/// Passed on to the server of the model; what it answers comes back as it is, piece by piece where it is streamed.
#[utoipa::path(
    post, path = "/v1/chat/completions", request_body = Named, security(("bearer" = ["fine-tuning:read"]), ("key" = ["fine-tuning:read"])),
    responses(
        (status = 200, description = "What the server says", content((Object = "application/json"), (String = "text/event-stream"))),
        (status = "default", description = "What the server says", body = Object),
    )
)]
async fn chat(gateway: State<Gateway>, session: Session, request: Request) -> Result<Response, Refusal> {
    pass(gateway, session, request, "chat/completions").await
}

/// Complete a text
///
/// Passed on to the server of the model, as a chat is.
#[utoipa::path(
    post, path = "/v1/completions", request_body = Named, security(("bearer" = ["fine-tuning:read"]), ("key" = ["fine-tuning:read"])),
    responses(
        (status = 200, description = "What the server says", content((Object = "application/json"), (String = "text/event-stream"))),
        (status = "default", description = "What the server says", body = Object),
    )
)]
async fn complete(gateway: State<Gateway>, session: Session, request: Request) -> Result<Response, Refusal> {
    pass(gateway, session, request, "completions").await
}

/// Embed texts
///
/// Passed on to the server of the model, as a chat is.
#[utoipa::path(
    post, path = "/v1/embeddings", request_body = Named, security(("bearer" = ["fine-tuning:read"]), ("key" = ["fine-tuning:read"])),
    responses(
        (status = 200, description = "What the server says", body = Object),
        (status = "default", description = "What the server says", body = Object),
    )
)]
async fn embed(gateway: State<Gateway>, session: Session, request: Request) -> Result<Response, Refusal> {
    pass(gateway, session, request, "embeddings").await
}

async fn pass(State(gateway): State<Gateway>, session: Session, request: Request, path: &str) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let too_large = |_| Refusal::new(Kind::TooLarge, format!("the body is larger than {} bytes", limits::COMPLETION_BYTES));
    let room = gateway.servers.room(&parts.headers)?;
    let body = to_bytes(body, limits::COMPLETION_BYTES).await.map_err(too_large)?;
    let room = fitted(room, body.len());
    let Named { model } = parse(&body)?;
    let key = (session.key, session.project.clone(), model.clone());
    let server =
        gateway.servers.known.try_get_with(key, server_of(&session, &model)).await.map_err(|refusal| (*refusal).clone())?;
    let mut passed = gateway.servers.http.post(format!("{server}/{path}")).body(body);
    for name in PASSED {
        if let Some(value) = parts.headers.get(&name) {
            passed = passed.header(name, value);
        }
    }
    let answer = passed.send().await.map_err(|error| {
        tracing::warn!(%server, error = &error as &dyn std::error::Error, "the server of a model does not answer");
        Refusal { retry_after: Some(1), ..Refusal::new(Kind::Unavailable, "the server of the model does not answer: try again") }
    })?;
    drop(room);
    Ok(streamed(answer))
}

/// The answer of a server, as it comes.
fn streamed(answer: reqwest::Response) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    if let Some(type_) = answer.headers().get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, type_.clone());
    }
    let chunks = futures::stream::try_unfold(answer, |mut answer| async move {
        let chunk = answer.chunk().await?;
        Ok::<_, reqwest::Error>(chunk.map(|chunk| (chunk, answer)))
    });
    *response.body_mut() = Body::from_stream(chunks);
    response
}

/// Where a model of the project is served, for a caller who may see that.
async fn server_of(session: &Session, model: &str) -> Result<String, Refusal> {
    let mut all: Vec<ModelDeployment> = session.cluster.list(&Selection::default()).await?;
    all.retain(|deployment| standing::model_name(deployment) == model);
    let there = !all.is_empty();
    let ready = all.into_iter().find(runs::is_ready);
    match ready.as_ref().and_then(address) {
        Some(address) => Ok(address),
        None if there => {
            let message = format!("the model {model:?} is not served yet: try again");
            Err(Refusal { code: Some("model_not_ready"), retry_after: Some(5), ..Refusal::new(Kind::Unavailable, message) })
        }
        None => Err(Refusal {
            param: Some("model".into()),
            code: Some("model_not_found"),
            ..Refusal::not_found("a model that is served", model)
        }),
    }
}

/// Address of what serves a model. Only its port is taken from the status: the host is always that of its own Service.
fn address(deployment: &ModelDeployment) -> Option<String> {
    let url: http::Uri = deployment.status.as_ref()?.url.as_ref()?.parse().ok()?;
    let (name, namespace) = (deployment.name_any(), deployment.namespace()?);
    let is_name = |host: &str| host.parse::<IpAddr>().is_err() && ids::is_label(host);
    (is_name(&name) && is_name(&namespace)).then(|| format!("http://{name}.{namespace}.svc:{}/v1", url.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::post};
    use serde_json::json;

    use super::*;
    use crate::gateway::fixtures::deployment;

    #[test]
    fn a_model_is_asked_for_at_its_own_service_whatever_its_status_says() {
        let mut served = deployment(200, "Ready");
        assert_eq!(address(&served).as_deref(), Some("http://bot-step-200.team.svc:8000/v1"));
        for url in ["http://169.254.169.254:8000/latest", "http://evil.example:8000/v1"] {
            served.status.as_mut().unwrap().url = Some(url.into());
            assert_eq!(address(&served).as_deref(), Some("http://bot-step-200.team.svc:8000/v1"));
        }
        served.status.as_mut().unwrap().url = None;
        assert_eq!(address(&served), None);
    }

    #[test]
    fn a_request_that_does_not_say_its_length_gives_back_what_it_does_not_need() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let servers = Servers::new().unwrap();
        let taken = || limits::COMPLETIONS_KIB - servers.room.available_permits();
        let room = servers.room(&HeaderMap::new()).unwrap();
        assert_eq!(taken(), kib(limits::COMPLETION_BYTES));
        let room = fitted(room, 5_000);
        assert_eq!(taken(), 5);
        drop(room);
        assert_eq!(taken(), 0);
    }

    #[tokio::test]
    async fn what_a_server_says_comes_through_piece_by_piece() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (more, next) = tokio::sync::mpsc::channel::<&'static str>(1);
        let next = std::sync::Arc::new(tokio::sync::Mutex::new(Some(next)));
        let speak = move || {
            let next = next.clone();
            async move {
                let next = next.lock().await.take().unwrap();
                let words = futures::stream::unfold(next, |mut next| async move {
                    next.recv().await.map(|word| (Ok::<_, std::io::Error>(word), next))
                });
                ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(words))
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/chat/completions", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/chat/completions", post(speak));
        tokio::spawn(axum::serve(listener, router).into_future());
        let servers = Servers::new().unwrap();
        let answer = servers.http.post(url).json(&json!({"model": "x"})).send().await.unwrap();
        let response = streamed(answer);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        let mut words = response.into_body().into_data_stream();
        // Each word arrives before the next is spoken.
        for word in ["data: one\n\n", "data: two\n\n"] {
            more.send(word).await.unwrap();
            assert_eq!(futures::StreamExt::next(&mut words).await.unwrap().unwrap(), word);
        }
        drop(more);
        assert!(futures::StreamExt::next(&mut words).await.is_none());
    }
}
