//! Reports over HTTP against a small API server that records every request.

use std::sync::{Arc, Mutex, atomic::AtomicBool};

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as corev1;
use kube::Client;
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::fixtures;
use super::{Reports, Settings, Stores};
use crate::api::{Checkpoint, FineTune, FineTuneHistory};
use crate::protocol::{AUDIENCE, Answer, FilesState, REPORT_PATH, Report};

/// Start of a request line, code and body of the answer.
type Instead = (&'static str, u16, Value);

type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// An API server that says yes, but for the answers it is told to give instead.
#[derive(Clone, Default)]
struct Server {
    requests: Requests,
    instead: Arc<Mutex<Vec<Instead>>>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body");
                let path = parts.uri.path().trim_start_matches("/apis/").to_owned();
                let line = format!("{} {path}", parts.method);
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (code, answer) = server.answer(&line, &body);
                server.requests.lock().expect("a lock").push((line, body));
                let answer = Response::builder().status(code).body(Body::from(answer.to_string()));
                Ok::<_, std::convert::Infallible>(answer.expect("an answer"))
            }
        });
        Client::new(service, "team")
    }

    fn answer(&self, line: &str, body: &Value) -> (u16, Value) {
        let mut instead = self.instead.lock().expect("a lock");
        if let Some(place) = instead.iter().position(|(start, ..)| line.starts_with(start)) {
            let (_, code, answer) = instead.remove(place);
            return (code, answer);
        }
        if line.ends_with("/tokenreviews") {
            return (201, review(body["spec"]["token"].as_str().unwrap_or_default()));
        }
        let mut object = body.clone();
        if line.contains("/finetunes/") {
            object = serde_json::to_value(fixtures::fine_tune()).expect("an object");
            object["status"]["progress"] = body["status"]["progress"].clone();
        } else if line.starts_with("PATCH") && line.contains("/checkpoints/") {
            let stored = Checkpoint { metadata: fixtures::stored(100).metadata, ..fixtures::stored(100) };
            object = serde_json::to_value(stored).expect("an object");
            object["status"] = body["status"].clone();
        }
        object["metadata"]["namespace"] = json!("team");
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["resourceVersion"] = json!((100 + self.requests.lock().expect("a lock").len()).to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!("uid-100");
        }
        (200, object)
    }

    fn refuse_once(&self, start: &'static str, code: u16, reason: &str) {
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code});
        self.answer_once(start, code, status);
    }

    fn answer_once(&self, start: &'static str, code: u16, answer: Value) {
        self.instead.lock().expect("a lock").push((start, code, answer));
    }

    /// The requests since the last look.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().expect("a lock")).into_iter().map(|(line, _)| line).collect()
    }

    fn bodies(&self) -> Vec<Value> {
        std::mem::take(&mut *self.requests.lock().expect("a lock")).into_iter().map(|(_, body)| body).collect()
    }
}

fn review(token: &str) -> Value {
    let user = |pod: &str, uid: &str| {
        json!({
            "username": "system:serviceaccount:team:default",
            "extra": {"authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [uid]},
        })
    };
    let status = match token {
        "good" => json!({"authenticated": true, "audiences": [AUDIENCE], "user": user("run-1-abc", "pod-uid")}),
        "foreign" => json!({"authenticated": true, "audiences": [AUDIENCE], "user": user("run-1-abc", "another-uid")}),
        _ => json!({"authenticated": false}),
    };
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": status})
}

/// A report server beside its stores.
struct World {
    server: Server,
    reports: Reports,
    checkpoints: Writer<Checkpoint>,
    _kept: Writer<FineTuneHistory>,
}

fn put<K>(writer: &mut Writer<K>, object: K)
where
    K: kube::runtime::reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    fill(writer);
    writer.apply_watcher_event(&watcher::Event::Apply(object));
}

/// Marks a store as complete.
fn fill<K>(writer: &mut Writer<K>)
where
    K: kube::runtime::reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    writer.apply_watcher_event(&watcher::Event::Init);
    writer.apply_watcher_event(&watcher::Event::InitDone);
}

impl World {
    fn new() -> Self {
        Self::of(fixtures::pod(), fixtures::job(), None)
    }

    fn of(pod: corev1::Pod, job: batch::Job, checkpoint: Option<Checkpoint>) -> Self {
        let (fine_tunes, mut fine_tune_writer) = reflector::store::<FineTune>();
        let (checkpoints, mut checkpoint_writer) = reflector::store::<Checkpoint>();
        let (pods, mut pod_writer) = reflector::store::<corev1::Pod>();
        let (jobs, mut job_writer) = reflector::store::<batch::Job>();
        let (histories, mut history_writer) = reflector::store::<FineTuneHistory>();
        fill(&mut checkpoint_writer);
        fill(&mut history_writer);
        put(&mut fine_tune_writer, fixtures::fine_tune());
        put(&mut pod_writer, pod);
        put(&mut job_writer, job);
        if let Some(checkpoint) = checkpoint {
            put(&mut checkpoint_writer, checkpoint);
        }
        let server = Server::default();
        let (permissions, deployments) = (reflector::store().0, reflector::store().0);
        let complete = Arc::new(AtomicBool::new(true));
        let stores = Stores { fine_tunes, checkpoints, pods, jobs, histories, permissions, deployments, complete };
        let reports = Reports::new(server.client(), stores, Settings::new(0, vec![]));
        Self { server, reports, checkpoints: checkpoint_writer, _kept: history_writer }
    }

    async fn post(&self, token: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = Request::post(REPORT_PATH).header("authorization", format!("Bearer {token}"));
        let request = request.body(body.into()).expect("a request");
        let response = self.reports.router().oneshot(request).await.expect("a response");
        let code = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (code, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn report(&self, report: &Report) -> StatusCode {
        self.post("good", serde_json::to_vec(report).expect("a report")).await.0
    }
}

const REVIEW: &str = "POST authentication.k8s.io/v1/tokenreviews";
const CREATE: &str = "POST finetune.dev/v1alpha1/namespaces/team/checkpoints";
const STATUS: &str = "PATCH finetune.dev/v1alpha1/namespaces/team/checkpoints/run-step-100/status";
const HISTORY: &str = "POST finetune.dev/v1alpha1/namespaces/team/finetunehistories";
const PROGRESS: &str = "PATCH finetune.dev/v1alpha1/namespaces/team/finetunes/run/status";

#[tokio::test]
async fn a_report_costs_one_request_an_object_and_the_same_again_none() {
    let world = World::new();
    assert_eq!(world.report(&fixtures::report()).await, StatusCode::OK);
    assert_eq!(world.server.seen(), [REVIEW, CREATE, STATUS, HISTORY, PROGRESS]);
    assert_eq!(world.report(&fixtures::report()).await, StatusCode::OK);
    let later = Report { sequence: 2, ..fixtures::report() };
    assert_eq!(world.report(&later).await, StatusCode::OK);
    assert_eq!(world.server.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_written_carries_uids_and_only_our_own_fields() {
    let world = World::new();
    assert_eq!(world.report(&fixtures::report()).await, StatusCode::OK);
    let bodies = world.server.bodies();
    let [_, create, status, history, progress] = bodies.as_slice() else { panic!("{bodies:?}") };
    assert_eq!(create["spec"]["storage"]["volume"]["path"], "out/run-0a1b2c3d/lineage-1/checkpoint-100");
    assert!(create.get("status").is_none(), "{create}");
    assert_eq!(status["metadata"], json!({"name": "run-step-100", "uid": "uid-100"}));
    assert_eq!(status["status"]["phase"], "Ready");
    assert!(status["status"].get("best").is_none());
    assert_eq!(history["metadata"]["ownerReferences"][0]["uid"], fixtures::UID);
    assert_eq!(progress["metadata"], json!({"name": "run", "uid": fixtures::UID}));
    let fields: Vec<_> = progress["status"].as_object().expect("a status").keys().collect();
    assert_eq!(fields, ["progress"]);
}

#[tokio::test]
async fn progress_is_paced_but_the_end_is_not() {
    let world = World::new();
    let step = |sequence, step| {
        let mut report = Report { sequence, checkpoints: vec![], series: vec![], log: vec![], ..fixtures::report() };
        report.progress.get_or_insert_default().step = step;
        report
    };
    world.report(&step(1, 120)).await;
    world.report(&step(2, 130)).await;
    assert_eq!(world.server.seen(), [REVIEW, PROGRESS]);
    let end = Report { end: Some(crate::protocol::End::default()), ..step(3, 300) };
    world.report(&end).await;
    assert_eq!(world.server.seen(), [HISTORY, PROGRESS]);
    world.report(&Report { sequence: 4, ..end }).await;
    assert_eq!(world.server.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn an_old_report_that_is_replayed_changes_nothing() {
    let world = World::new();
    world.report(&Report { sequence: 7, ..fixtures::report() }).await;
    world.server.seen();
    let mut old = Report { sequence: 6, ..fixtures::report() };
    old.checkpoints[0].state = FilesState::Missing;
    assert_eq!(world.report(&old).await, StatusCode::OK);
    assert_eq!(world.server.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn a_forged_token_is_asked_about_once_and_refused() {
    let world = World::new();
    for _ in 0..3 {
        let (code, body) = world.post("forged", "{}").await;
        assert_eq!((code, body["kind"].as_str()), (StatusCode::UNAUTHORIZED, Some("Status")));
    }
    assert_eq!(world.server.seen(), [REVIEW]);
}

#[tokio::test]
async fn a_pod_that_only_has_the_name_is_forbidden() {
    let world = World::new();
    world.server.refuse_once("GET /api/v1/namespaces/team/pods/run-1-abc", 404, "NotFound");
    for _ in 0..2 {
        assert_eq!(world.post("foreign", "{}").await.0, StatusCode::FORBIDDEN);
    }
    assert_eq!(world.server.seen(), [REVIEW, "GET /api/v1/namespaces/team/pods/run-1-abc"]);
}

#[tokio::test]
async fn bodies_that_are_too_large_or_out_of_bounds_are_refused_with_the_reason() {
    let world = World::new();
    let (code, _) = world.post("good", vec![b' '; crate::protocol::MAX_REPORT_BYTES + 1]).await;
    assert_eq!(code, StatusCode::PAYLOAD_TOO_LARGE);
    let mut report = fixtures::report();
    report.checkpoints[0].lineage = 9;
    let (code, body) = world.post("good", serde_json::to_vec(&report).expect("a report")).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(body["details"]["causes"][0]["field"], "checkpoints[0].lineage");
    let (code, body) = world.post("good", r#"{"sequence":1,"surprise":true}"#).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert_eq!(world.server.seen(), [REVIEW]);
}

#[tokio::test]
async fn a_pod_that_reports_too_often_is_told_to_wait() {
    let world = World::new();
    let mut codes = Vec::new();
    for _ in 0..7 {
        codes.push(world.report(&fixtures::report()).await.as_u16());
    }
    assert_eq!(codes, [200, 200, 200, 200, 200, 429, 429]);
}

#[tokio::test]
async fn a_checkpoint_that_is_there_already_is_taken_when_it_is_ours() {
    let world = World::new();
    world.server.refuse_once(CREATE, 409, "AlreadyExists");
    let stored = serde_json::to_value(fixtures::stored(100)).expect("an object");
    world.server.answer_once("GET finetune.dev/v1alpha1/namespaces/team/checkpoints/run-step-100", 200, stored);
    assert_eq!(world.report(&fixtures::report()).await, StatusCode::OK);
    let get = "GET finetune.dev/v1alpha1/namespaces/team/checkpoints/run-step-100";
    assert_eq!(world.server.seen(), [REVIEW, CREATE, get, STATUS, HISTORY, PROGRESS]);
}

#[tokio::test]
async fn a_name_of_another_run_is_stepped_around() {
    let world = World::new();
    world.server.refuse_once(CREATE, 409, "AlreadyExists");
    let mut other = fixtures::stored(100);
    other.spec.fine_tune.get_or_insert_default().uid = "older".into();
    let other = serde_json::to_value(other).expect("an object");
    world.server.answer_once("GET finetune.dev/v1alpha1/namespaces/team/checkpoints/run-step-100", 200, other);
    assert_eq!(world.report(&fixtures::report()).await, StatusCode::OK);
    let seen = world.server.seen();
    assert_eq!(seen[3], CREATE);
    assert!(seen[4].ends_with("/checkpoints/run-0a1b2c3d-step-100/status"), "{seen:?}");
}

#[tokio::test]
async fn a_failed_write_is_told_and_made_up_for_by_the_next_report() {
    let world = World::new();
    world.server.refuse_once(STATUS, 500, "InternalError");
    assert_eq!(world.report(&fixtures::report()).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(world.server.seen(), [REVIEW, CREATE, STATUS]);
    assert_eq!(world.report(&fixtures::report()).await, StatusCode::OK);
    assert_eq!(world.server.seen(), [STATUS, HISTORY, PROGRESS]);
}

#[tokio::test]
async fn a_checkpoint_that_has_gone_meanwhile_is_no_failure() {
    let mut world = World::new();
    put(&mut world.checkpoints, fixtures::stored(100));
    world.server.refuse_once(STATUS, 409, "Conflict");
    assert_eq!(world.report(&fixtures::report()).await, StatusCode::OK);
    assert_eq!(world.server.seen(), [REVIEW, STATUS, HISTORY, PROGRESS]);
}

#[tokio::test]
async fn an_import_writes_one_status() {
    let (pod, job, checkpoint) = fixtures::import();
    let world = World::of(pod, job, Some(checkpoint));
    assert_eq!(world.report(&fixtures::report()).await, StatusCode::OK);
    let status = "PATCH finetune.dev/v1alpha1/namespaces/team/checkpoints/imported/status";
    assert_eq!(world.server.seen(), [REVIEW, status]);
}

#[tokio::test]
async fn the_answer_says_when_to_report_again() {
    let world = World::new();
    let (_, body) = world.post("good", serde_json::to_vec(&fixtures::report()).expect("a report")).await;
    let answer: Answer = serde_json::from_value(body).expect("an answer");
    assert!((31..=34).contains(&answer.interval_seconds), "{}", answer.interval_seconds);
    assert!(answer.delete.is_empty());
}

#[tokio::test]
async fn a_replica_that_does_not_know_everything_yet_asks_to_come_again() {
    let mut world = World::new();
    let (histories, _writer) = reflector::store::<FineTuneHistory>();
    let (fine_tunes, _fine_tunes) = reflector::store::<FineTune>();
    let (checkpoints, _checkpoints) = reflector::store::<Checkpoint>();
    let (pods, _pods) = reflector::store::<corev1::Pod>();
    let (jobs, _jobs) = reflector::store::<batch::Job>();
    let (permissions, deployments) = (reflector::store().0, reflector::store().0);
    let complete = Arc::default();
    let stores = Stores { fine_tunes, checkpoints, pods, jobs, histories, permissions, deployments, complete };
    world.reports = Reports::new(world.server.client(), stores, Settings::new(0, vec![]));
    assert_eq!(world.report(&fixtures::report()).await, StatusCode::SERVICE_UNAVAILABLE);
}
