//! `agent serve`: the sidecar of a serving pod. Says whether the server beside it serves the model, by asking it: for its list of models,
//! which must hold the exact name, or for a path where the server keeps no list.

use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;
use reqwest::{Client, redirect};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::agent::drain::drained;
use crate::checkpoint_files::cut;
use crate::protocol::{SERVE_ALIVE, SERVE_DRAINED, SERVE_PORT, SERVE_READY};
use crate::signals::asked_to_stop;

/// How long the server is waited for: less than a probe waits for us.
const PATIENCE: Duration = Duration::from_secs(4);
/// For so long an answer is given again, so that many who ask are one who asks the server.
const FRESH: Duration = Duration::from_secs(1);
/// Largest model list read.
const MAX_LIST: usize = 4 << 20;
/// Names shown of a list that lacks the model.
const SHOWN: usize = 10;

/// What `agent serve` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Port the answer is given on.
    #[arg(long, default_value_t = SERVE_PORT)]
    pub port: u16,
    /// The server, as `http://host:port`.
    #[arg(long)]
    pub server: String,
    /// Path of the server's model list.
    #[arg(long, requires = "model", required_unless_present = "path")]
    pub models_path: Option<String>,
    /// Name that must be in the list.
    #[arg(long)]
    pub model: Option<String>,
    /// Path that answers 200 once the model is served, for servers without a list.
    #[arg(long, conflicts_with = "models_path")]
    pub path: Option<String>,
}

/// Runs `agent serve` until asked to stop.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, arguments.port))).await;
    // A node without IPv6 has no such address.
    let listener = match listener {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(("0.0.0.0", arguments.port)).await,
    };
    let served = match (listener, Question::new(arguments)) {
        (Ok(listener), Ok(question)) => {
            tracing::info!(port = arguments.port, server = arguments.server, model = arguments.model, "asking the server");
            axum::serve(listener, router(question)).with_graceful_shutdown(asked_to_stop()).await.map_err(|e| e.to_string())
        }
        (Err(error), _) => Err(error.to_string()),
        (_, Err(error)) => Err(error.to_string()),
    };
    let Err(error) = served else { return ExitCode::SUCCESS };
    tracing::error!(error, "readiness cannot be served");
    ExitCode::FAILURE
}

fn router(question: Question) -> Router {
    let ready = |State(question): State<Arc<Question>>| async move {
        match question.answer().await {
            Ok(()) => (StatusCode::OK, "the server serves the model\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        }
    };
    let alive = || async { "alive\n" };
    let until_drained = |State(question): State<Arc<Question>>| async move {
        drained(question.port).await;
        "drained\n"
    };
    let router =
        Router::new().route(SERVE_READY, get(ready)).route(SERVE_ALIVE, get(alive)).route(SERVE_DRAINED, get(until_drained));
    router.with_state(Arc::new(question))
}

type Answer = Result<(), String>;

/// What the server is asked.
struct Question {
    http: Client,
    url: String,
    port: u16,
    model: Option<String>,
    last: Mutex<Option<(Instant, Answer)>>,
}

impl Question {
    fn new(arguments: &Arguments) -> reqwest::Result<Self> {
        let http = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(PATIENCE).build()?;
        let path = arguments.path.as_ref().or(arguments.models_path.as_ref());
        let path = path.map_or("", |path| path.trim_start_matches('/'));
        let url = format!("{}/{path}", arguments.server.trim_end_matches('/'));
        let model = arguments.model.clone().filter(|_| arguments.path.is_none());
        let port = reqwest::Url::parse(&url).ok().and_then(|url| url.port_or_known_default()).unwrap_or_default();
        Ok(Self { http, url, port, model, last: Mutex::default() })
    }

    /// Whether the model is served, as the server said a moment ago at most.
    async fn answer(&self) -> Answer {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = self.ask().await;
        let was_ready = matches!(last.as_ref(), Some((_, Ok(()))));
        match &answer {
            Ok(()) if !was_ready => tracing::info!("the server serves the model"),
            Err(why) if was_ready => tracing::warn!(why, "the server no longer serves the model"),
            _ => {}
        }
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn ask(&self) -> Answer {
        let unreachable = |error: reqwest::Error| format!("the server does not answer: {}", error.without_url());
        let mut response = self.http.get(&self.url).send().await.map_err(unreachable)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("the server answers {}", response.status()));
        }
        let Some(model) = &self.model else { return Ok(()) };
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_LIST {
                return Err("the server's model list is too long".to_owned());
            }
        }
        lists(&body, model)
    }
}

#[derive(Deserialize)]
struct List {
    data: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

/// Whether an OpenAI model list holds exactly that name.
fn lists(body: &[u8], model: &str) -> Answer {
    let list: List = serde_json::from_slice(body).map_err(|_| "the server's answer is no model list".to_owned())?;
    if list.data.iter().any(|listed| listed.id == model) {
        return Ok(());
    }
    let names: Vec<_> = list.data.iter().take(SHOWN).map(|listed| cut(&listed.id, 128)).collect();
    Err(format!("the server lists [{}], not {model}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn only_the_exact_name_counts() {
        let list = |names: &[&str]| {
            let data: Vec<_> = names.iter().map(|name| serde_json::json!({"id": name, "object": "model"})).collect();
            serde_json::json!({"object": "list", "data": data}).to_string().into_bytes()
        };
        assert_eq!(lists(&list(&["base", "bot-step-3"]), "bot-step-3"), Ok(()));
        let refused = lists(&list(&["bot-step-30", "Bot-step-3", "bot-step-3-base"]), "bot-step-3").unwrap_err();
        assert!(refused.contains("bot-step-30"), "{refused}");
        assert!(lists(&list(&[]), "bot").is_err() && lists(b"<html>", "bot").is_err());
    }

    /// A server that lists nothing at first, and the sidecar beside it.
    async fn pair(path: Option<&str>) -> (String, Arc<AtomicUsize>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let models = move || {
            let name = if count.fetch_add(1, Ordering::Relaxed) == 0 { "base" } else { "bot" };
            async move { axum::Json(serde_json::json!({"data": [{"id": name}]})) }
        };
        let server = Router::new().route("/v1/models", get(models)).route("/health", get(|| async { "" }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let arguments = Arguments {
            port: 0,
            server: format!("http://{}", listener.local_addr().unwrap()),
            models_path: path.is_none().then(|| "/v1/models".to_owned()),
            model: Some("bot".to_owned()),
            path: path.map(ToOwned::to_owned),
        };
        tokio::spawn(async move { axum::serve(listener, server).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router(Question::new(&arguments).unwrap())).await });
        (url, asked)
    }

    async fn code(url: &str, path: &str) -> u16 {
        Client::builder().no_proxy().build().unwrap().get(format!("{url}{path}")).send().await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn it_is_ready_when_the_server_lists_the_model_and_many_who_ask_are_one() {
        let (url, asked) = pair(None).await;
        assert_eq!(code(&url, SERVE_ALIVE).await, 200);
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        while code(&url, SERVE_READY).await != 200 {
            tokio::task::yield_now().await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2, "an answer is good for a moment");
    }

    #[tokio::test]
    async fn a_server_without_a_list_is_ready_when_its_path_answers() {
        assert_eq!(code(&pair(Some("/health")).await.0, SERVE_READY).await, 200);
        assert_eq!(code(&pair(Some("/none")).await.0, SERVE_READY).await, 503);
    }
}
