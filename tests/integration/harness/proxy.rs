//! A way to the API server that counts mutating requests, and kills the operator at one of them: just before the server gets it, or just
//! after the server has done it and before the operator hears so.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use kube::Client;
use tempfile::TempDir;

use super::{
    cluster::{OPERATOR, config},
    operator::Operator,
};

/// When the operator dies, relative to the API server's work on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The server never hears of the request.
    Before,
    /// The server has done it; the operator never hears so.
    After,
}

/// Which mutating request the operator dies at, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number of the request.
    pub request: usize,
    /// Before or after it.
    pub moment: Moment,
}

struct Way {
    client: Client,
    operator: OnceLock<Arc<Operator>>,
    namespace: OnceLock<String>,
    fault: Mutex<Option<Fault>>,
    seen: Mutex<Vec<String>>,
}

/// An operator behind a way that can fail.
pub struct Proxied {
    /// The operator.
    pub operator: Arc<Operator>,
    way: Arc<Way>,
    server: tokio::task::JoinHandle<()>,
    _kubeconfig: TempDir,
}

impl Proxied {
    /// Starts an operator that dies at `fault`, and is started again at once.
    pub async fn start(fault: Option<Fault>) -> Self {
        let mut config = config(OPERATOR).await;
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let (operator, namespace) = (OnceLock::new(), OnceLock::new());
        let way = Arc::new(Way { client, operator, namespace, fault: Mutex::new(fault), seen: Mutex::default() });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(forward).with_state(Arc::clone(&way));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let (directory, kubeconfig) = kubeconfig(port);
        let operator = Arc::new(Operator::new(&kubeconfig, &["--leader-election", "false"]));
        way.operator.set(Arc::clone(&operator)).ok().unwrap();
        operator.start().await;
        Self { operator, way, server, _kubeconfig: directory }
    }

    /// Counts the requests in this namespace from now on; what other tests left is cleared away uncounted.
    pub fn count_in(&self, namespace: &str) {
        self.way.namespace.set(namespace.to_owned()).unwrap();
    }

    /// The mutating requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.way.seen.lock().unwrap().clone()
    }

    /// Whether the operator has died as it was to.
    pub fn has_died(&self) -> bool {
        self.way.fault.lock().unwrap().is_none()
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        self.server.abort();
        self.operator.kill();
    }
}

fn kubeconfig(port: u16) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        "current-context": "proxy",
    });
    std::fs::write(&path, config.to_string()).unwrap();
    (directory, path)
}

async fn forward(State(way): State<Arc<Way>>, request: Request) -> Response {
    let now = way.count(&request);
    if now == Some(Moment::Before) {
        way.crash().await;
        return StatusCode::BAD_GATEWAY.into_response();
    }
    // In a task of its own, so that the server is heard out though the operator has hung up: the audit log would call it failed otherwise.
    let passing = Arc::clone(&way);
    let answer = tokio::spawn(async move { passing.pass_on(request).await }).await.unwrap();
    if now == Some(Moment::After) {
        way.crash().await;
        return StatusCode::BAD_GATEWAY.into_response();
    }
    answer
}

impl Way {
    /// Counts a request, and says whether the operator is to die at it.
    fn count(&self, request: &Request) -> Option<Moment> {
        let path = request.uri().path();
        let is_counted = self.namespace.get().is_some_and(|namespace| path.contains(&format!("/namespaces/{namespace}/")));
        if !is_counted || [Method::GET, Method::HEAD].contains(request.method()) {
            return None;
        }
        let mut seen = self.seen.lock().unwrap();
        seen.push(format!("{} {path}", request.method()));
        let mut fault = self.fault.lock().unwrap();
        let due = fault.filter(|fault| fault.request == seen.len())?;
        *fault = None;
        Some(due.moment)
    }

    async fn pass_on(&self, request: Request) -> Response {
        let (mut parts, body) = request.into_parts();
        let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        parts.headers.remove(header::HOST);
        parts.headers.remove(header::CONTENT_LENGTH);
        let request = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
        match self.client.send(request).await {
            Ok(answer) => {
                let (mut parts, body) = answer.into_parts();
                parts.headers.remove(header::TRANSFER_ENCODING);
                parts.headers.remove(header::CONNECTION);
                Response::from_parts(parts, Body::new(body))
            }
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        }
    }

    async fn crash(&self) {
        if let Some(operator) = self.operator.get().cloned() {
            tokio::task::spawn_blocking(move || operator.crash()).await.unwrap();
        }
    }
}
