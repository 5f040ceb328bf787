//! A way to the API server that can fail: it counts mutating requests and kills the operator at one of them, answers chosen requests with an
//! error, holds one until it is let go, and can be shut altogether. It remembers what was asked and what the server did.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use kube::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{
    cluster::{OPERATOR, config},
    gate::Gate,
    operator::Operator,
    sandbox::Sandbox,
};

/// When the operator dies, relative to the API server's work on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The server never hears of the request.
    Before,
    /// The server gets the request while the operator dies and the next one starts.
    During,
    /// The server has done it; the operator never hears so.
    After,
}

/// Which mutating request the operator dies at, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number of the request.
    pub request: usize,
    /// Before, during or after it.
    pub moment: Moment,
}

/// Requests that are answered with an error and never reach the server.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Their method.
    pub method: Method,
    /// What their path contains.
    pub path: &'static str,
    /// The answer.
    pub code: StatusCode,
    /// How many more of them.
    pub times: usize,
}

/// A request that is kept from the server until it is let go.
pub struct Held {
    /// Says when it is here.
    pub here: oneshot::Receiver<()>,
    /// Lets it go.
    pub go_on: oneshot::Sender<()>,
    /// Says what the server has answered.
    pub answer: oneshot::Receiver<StatusCode>,
}

/// What is to be held, by a part of its URI, and how that is told.
struct Hold {
    uri: &'static str,
    here: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
    answer: oneshot::Sender<StatusCode>,
}

struct Way {
    client: Client,
    operator: OnceLock<Arc<Operator>>,
    namespace: String,
    fault: Mutex<Option<Fault>>,
    refusal: Mutex<Option<Refusal>>,
    hold: Mutex<Option<Hold>>,
    unavailable: Mutex<bool>,
    asked: Mutex<Vec<(Instant, String)>>,
    writes: Mutex<Vec<String>>,
    done: Mutex<BTreeSet<(String, String)>>,
}

/// An operator that sees one namespace, behind a way that can fail.
pub struct Proxied {
    /// The operator.
    pub operator: Arc<Operator>,
    way: Arc<Way>,
    gate: Gate,
    server: tokio::task::JoinHandle<()>,
    _kubeconfig: TempDir,
}

impl Proxied {
    /// Starts an operator for a sandbox; it dies at `fault` and is started again at once.
    pub async fn start(sandbox: &Sandbox, fault: Option<Fault>) -> Self {
        let mut config = config(OPERATOR).await;
        config.default_retry = false;
        let way = Arc::new(Way {
            client: Client::try_from(config).unwrap(),
            operator: OnceLock::new(),
            namespace: sandbox.namespace.clone(),
            fault: Mutex::new(fault),
            refusal: Mutex::default(),
            hold: Mutex::default(),
            unavailable: Mutex::default(),
            asked: Mutex::default(),
            writes: Mutex::default(),
            done: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let gate = Gate::before(listener.local_addr().unwrap()).await;
        let router = Router::new().fallback(forward).with_state(Arc::clone(&way));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let (directory, kubeconfig) = kubeconfig(gate.port);
        let arguments = ["--leader-election", "false", "--watch-namespaces", &sandbox.namespace];
        let operator = Arc::new(Operator::new(&kubeconfig, &arguments));
        way.operator.set(Arc::clone(&operator)).ok().unwrap();
        operator.start().await;
        Self { operator, way, gate, server, _kubeconfig: directory }
    }

    /// The mutating requests so far, each as method and path. Events are not among them: they are written beside the work, in no fixed order.
    pub fn writes(&self) -> Vec<String> {
        self.way.writes.lock().unwrap().clone()
    }

    /// What the server has created and deleted, in order of name. One object deleted twice is deleted once.
    pub fn made_and_deleted(&self) -> Vec<String> {
        self.way.done.lock().unwrap().iter().map(|(what, _)| what.clone()).collect()
    }

    /// Whether the operator has died as it was to.
    pub fn has_died(&self) -> bool {
        self.way.fault.lock().unwrap().is_none()
    }

    /// Refuses requests from now on.
    pub fn refuse(&self, refusal: Refusal) {
        *self.way.refusal.lock().unwrap() = Some(refusal);
    }

    /// Holds the next request whose URI contains a text.
    pub fn hold(&self, uri: &'static str) -> Held {
        let ((arrived, here), (go_on, gone), (told, answer)) = (oneshot::channel(), oneshot::channel(), oneshot::channel());
        *self.way.hold.lock().unwrap() = Some(Hold { uri, here: arrived, go_on: gone, answer: told });
        Held { here, go_on, answer }
    }

    /// How many requests are still to be refused.
    pub fn refusals_left(&self) -> usize {
        self.way.refusal.lock().unwrap().as_ref().map_or(0, |refusal| refusal.times)
    }

    /// Cuts every connection and refuses new ones for a while.
    pub async fn hang_up(&self, pause: Duration) {
        self.gate.shut(true);
        tokio::time::sleep(pause).await;
        self.gate.shut(false);
    }

    /// Cuts every connection and answers 503 to everything for a while.
    pub async fn be_unavailable(&self, pause: Duration) {
        *self.way.unavailable.lock().unwrap() = true;
        self.gate.shut(true);
        self.gate.shut(false);
        tokio::time::sleep(pause).await;
        *self.way.unavailable.lock().unwrap() = false;
    }

    /// How often the server was asked whatever a text contains.
    pub fn times_asked(&self, text: &str) -> usize {
        self.way.asked.lock().unwrap().iter().filter(|(_, request)| request.contains(text)).count()
    }

    /// The requests and refused connections of the busiest second since a moment.
    pub fn busiest_second(&self, since: Instant) -> Vec<String> {
        let refused = self.gate.turned_away().into_iter().map(|time| (time, "a connection".to_owned()));
        let mut all: Vec<_> = self.way.asked.lock().unwrap().iter().cloned().chain(refused).collect();
        all.retain(|(time, _)| *time >= since);
        all.sort();
        let second = |begin: usize| {
            let end = all[begin].0 + Duration::from_secs(1);
            &all[begin..all.partition_point(|(time, _)| *time < end)]
        };
        let busiest = (0..all.len()).map(second).max_by_key(|second| second.len()).unwrap_or_default();
        busiest.iter().map(|(_, request)| request.clone()).collect()
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
    way.asked.lock().unwrap().push((Instant::now(), format!("{} {}", request.method(), request.uri().path())));
    if *way.unavailable.lock().unwrap() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if let Some(code) = way.refuses(&request) {
        return code.into_response();
    }
    if let Some(Hold { here, go_on, answer, .. }) = way.holds(&request) {
        let _ = (here.send(()), go_on.await);
        let said = way.pass_on(request).await;
        let _ = answer.send(said.status());
        return said;
    }
    let death = way.count(&request);
    if death == Some(Moment::Before) {
        way.crash().await;
        return StatusCode::BAD_GATEWAY.into_response();
    }
    // In a task of its own, so that the server is heard out though the operator has hung up: nobody would know what it did otherwise.
    let passing = tokio::spawn({
        let way = Arc::clone(&way);
        async move { way.pass_on(request).await }
    });
    if death == Some(Moment::During) {
        way.crash().await;
    }
    let answer = passing.await.unwrap();
    if death == Some(Moment::After) {
        way.crash().await;
    }
    if death.is_some() { StatusCode::BAD_GATEWAY.into_response() } else { answer }
}

impl Way {
    fn refuses(&self, request: &Request) -> Option<StatusCode> {
        let mut refusal = self.refusal.lock().unwrap();
        let due = refusal.as_mut().filter(|due| due.times > 0)?;
        let is_meant = *request.method() == due.method && request.uri().path().contains(due.path);
        due.times -= usize::from(is_meant);
        is_meant.then_some(due.code)
    }

    fn holds(&self, request: &Request) -> Option<Hold> {
        self.hold.lock().unwrap().take_if(|hold| request.uri().to_string().contains(hold.uri))
    }

    /// Counts the request, and says whether the operator is to die at it.
    fn count(&self, request: &Request) -> Option<Moment> {
        let path = request.uri().path();
        let is_ours = path.contains(&format!("/namespaces/{}/", self.namespace)) && !path.contains("/events");
        if !is_ours || [Method::GET, Method::HEAD].contains(request.method()) {
            return None;
        }
        let (_, what) = path.split_once(&self.namespace)?;
        let mut writes = self.writes.lock().unwrap();
        writes.push(format!("{} {}", request.method(), what.trim_start_matches('/')));
        let mut fault = self.fault.lock().unwrap();
        let due = fault.filter(|fault| fault.request == writes.len())?;
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
        let deed = self.deed(&parts.method, parts.uri.path(), &body);
        let request = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
        match self.client.send(request).await {
            Ok(answer) => {
                if answer.status().is_success() {
                    self.done.lock().unwrap().extend(deed);
                }
                let (mut parts, body) = answer.into_parts();
                parts.headers.remove(header::TRANSFER_ENCODING);
                parts.headers.remove(header::CONNECTION);
                Response::from_parts(parts, Body::new(body))
            }
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        }
    }

    /// What a request creates or deletes in the namespace, and what tells it from another of that name.
    fn deed(&self, method: &Method, path: &str, body: &[u8]) -> Option<(String, String)> {
        let (_, rest) = path.split_once(&format!("/namespaces/{}/", self.namespace))?;
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match (method.as_str(), &rest.split('/').collect::<Vec<_>>()[..]) {
            ("POST", [resource]) if *resource != "events" => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                Some((format!("create {resource} {name}"), uuid::Uuid::new_v4().to_string()))
            }
            ("DELETE", [resource, name]) => Some((format!("delete {resource} {name}"), body["preconditions"]["uid"].to_string())),
            _ => None,
        }
    }

    async fn crash(&self) {
        if let Some(operator) = self.operator.get().cloned() {
            tokio::task::spawn_blocking(move || operator.crash()).await.unwrap();
        }
    }
}
