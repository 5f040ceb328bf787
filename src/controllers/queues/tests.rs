use std::sync::Mutex;

use http::{Request, Response};
use kube::{
    Client,
    client::Body,
    runtime::{
        reflector::{self, store::Writer},
        watcher,
    },
};
use serde_json::{Value, json};

use super::*;

/// Start of a path, code and body of the answer.
type Answer = (&'static str, u16, Value);

/// Kueue behind an API server: answers by the start of a path, and a record of what was asked.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<Vec<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn says(&self, path: &'static str, code: u16, answer: Value) {
        let mut answers = self.answers.lock().unwrap();
        answers.retain(|(known, ..)| *known != path);
        answers.push((path, code, answer));
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let uri = request.uri().to_string();
            let answers = server.answers.lock().unwrap();
            let answer = answers.iter().find(|(path, ..)| uri.starts_with(path));
            let (code, body) =
                answer.map_or_else(|| (404, "404 page not found".to_owned()), |(_, code, body)| (*code, body.to_string()));
            server.asked.lock().unwrap().push(uri);
            let answer = Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap();
            std::future::ready(Ok::<_, std::convert::Infallible>(answer))
        });
        Client::new(service, "default")
    }
}

const PENDING: &str = "/apis/visibility.kueue.x-k8s.io/v1beta2/namespaces/ns/localqueues/team/pendingworkloads?limit=100";
const PENDING_BEFORE: &str = "/apis/visibility.kueue.x-k8s.io/v1beta1/namespaces/ns/localqueues/team/pendingworkloads?limit=100";
const WORKLOADS: &str =
    "/apis/kueue.x-k8s.io/v1beta2/namespaces/ns/workloads?limit=100&labelSelector=kueue.x-k8s.io/job-uid%20in%20(";
const WORKLOADS_BEFORE: &str = "/apis/kueue.x-k8s.io/v1beta1/namespaces/ns/workloads?limit=100&labelSelector=";

fn pending(jobs: &[&str]) -> Value {
    let item = |(place, job): (usize, &&str)| {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": job});
        json!({"metadata": {"name": job, "ownerReferences": [owner]}, "positionInClusterQueue": place, "positionInLocalQueue": 0})
    };
    json!({"items": jobs.iter().enumerate().map(item).collect::<Vec<_>>()})
}

fn workloads(jobs: &[&str]) -> Value {
    let lacks = json!({"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "one GPU is missing",
        "lastTransitionTime": "2027-01-15T08:00:00Z"});
    let item = |job: &&str| json!({"metadata": {"labels": {"kueue.x-k8s.io/job-uid": job}}, "status": {"conditions": [lacks]}});
    json!({"items": jobs.iter().map(item).collect::<Vec<_>>()})
}

/// The Job of a run of the same name, in a queue.
fn job(name: &str, queue: &str, suspended: bool) -> batch::Job {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name,
            "labels": {"kueue.x-k8s.io/queue-name": queue, "finetune.dev/fine-tune": name},
        },
        "spec": {"suspend": suspended, "template": {}},
    }))
    .unwrap()
}

/// A lookout over these Jobs, which may look again at once or not for long.
fn lookout(server: &Server, interval: Duration, jobs: &[batch::Job]) -> (Lookout, Writer<batch::Job>) {
    let (store, mut writer) = reflector::store();
    for job in jobs {
        writer.apply_watcher_event(&watcher::Event::Apply(job.clone()));
    }
    (Lookout::new(Kueue::new(server.client(), interval), store, Arc::default()), writer)
}

fn place(lookout: &Lookout, job: &str) -> (Option<i64>, Option<String>) {
    let place = lookout.queues.place(job).unwrap();
    (place.position, place.reason)
}

async fn news(lookout: &mut Lookout) -> Vec<String> {
    lookout.look().await.into_iter().map(|run| run.name).collect()
}

const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn kueue_is_asked_once_a_queue_however_many_wait_and_not_again_before_its_time() {
    let server = Server::default();
    server.says(PENDING, 200, pending(&["b", "a"]));
    server.says(WORKLOADS, 200, workloads(&["a", "b"]));
    let jobs = [job("a", "team", true), job("b", "team", true), job("c", "team", true), job("runs", "team", false)];
    let (mut lookout, mut jobs) = lookout(&server, LONG, &jobs);
    assert_eq!(news(&mut lookout).await, ["b", "a", "c"]);
    let missing = Some("one GPU is missing".to_owned());
    assert_eq!(place(&lookout, "a"), (Some(2), missing.clone()));
    assert_eq!(place(&lookout, "b"), (Some(1), missing));
    assert_eq!(place(&lookout, "c"), (None, None), "it was asked about, and nothing is known");
    assert_eq!(lookout.queues.place("runs"), None);
    assert_eq!(server.asked(), [PENDING.to_owned(), format!("{WORKLOADS}b,a,c)")]);

    jobs.apply_watcher_event(&watcher::Event::Apply(job("d", "team", true)));
    assert_eq!((news(&mut lookout).await, server.asked()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn nobody_waiting_nothing_is_asked_and_who_leaves_is_forgotten() {
    let server = Server::default();
    let (mut lookout, mut jobs) = lookout(&server, Duration::ZERO, &[job("a", "team", false)]);
    assert_eq!((news(&mut lookout).await, server.asked()), (Vec::new(), Vec::new()));
    server.says(PENDING, 200, pending(&["a"]));
    jobs.apply_watcher_event(&watcher::Event::Apply(job("a", "team", true)));
    assert_eq!(news(&mut lookout).await, ["a"]);
    jobs.apply_watcher_event(&watcher::Event::Apply(job("a", "team", false)));
    server.asked();
    assert_eq!((news(&mut lookout).await, server.asked()), (Vec::new(), Vec::new()));
    assert_eq!(lookout.queues.place("a"), None);
}

#[tokio::test]
async fn only_runs_whose_place_changed_are_woken() {
    let server = Server::default();
    server.says(PENDING, 200, pending(&["a", "b"]));
    let (mut lookout, _jobs) = lookout(&server, Duration::ZERO, &[job("a", "team", true), job("b", "team", true)]);
    assert_eq!(news(&mut lookout).await, ["a", "b"]);
    assert_eq!(news(&mut lookout).await, Vec::<String>::new());
    server.says(PENDING, 200, pending(&["a", "x", "b"]));
    assert_eq!(news(&mut lookout).await, ["b"]);
    assert_eq!(place(&lookout, "b").0, Some(3));
}

#[tokio::test]
async fn the_version_before_serves_as_well_and_is_remembered() {
    let server = Server::default();
    server.says(PENDING_BEFORE, 200, pending(&["a"]));
    server.says(WORKLOADS_BEFORE, 200, workloads(&["a"]));
    let (mut lookout, _jobs) = lookout(&server, Duration::ZERO, &[job("a", "team", true)]);
    news(&mut lookout).await;
    assert_eq!(place(&lookout, "a"), (Some(1), Some("one GPU is missing".to_owned())));
    assert_eq!(server.asked().len(), 4);
    news(&mut lookout).await;
    assert!(server.asked().iter().all(|asked| asked.contains("/v1beta1/")));
}

#[tokio::test]
async fn an_api_that_is_not_there_takes_the_place_away_and_is_left_alone() {
    for code in [404, 403, 503] {
        let server = Server::default();
        server.says(PENDING, 200, pending(&["a"]));
        let (mut lookout, _jobs) = lookout(&server, Duration::ZERO, &[job("a", "team", true)]);
        assert_eq!((news(&mut lookout).await, place(&lookout, "a").0), (vec!["a".to_owned()], Some(1)));
        server.says(PENDING, code, json!("gone"));
        lookout.kueue = Kueue::new(server.client(), LONG);
        assert_eq!((news(&mut lookout).await, place(&lookout, "a").0), (vec!["a".to_owned()], None), "{code}");
        lookout.due.clear();
        server.asked();
        assert_eq!((news(&mut lookout).await, server.asked()), (Vec::new(), Vec::new()), "{code}");
    }
}

#[tokio::test]
async fn a_queue_that_does_not_exist_says_nothing_about_the_others() {
    let server = Server::default();
    let details = json!({"name": "nope", "group": "visibility.kueue.x-k8s.io", "kind": "localqueue"});
    let unknown = json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found", "details": details});
    server.says("/apis/visibility.kueue.x-k8s.io/v1beta2/namespaces/ns/localqueues/nope/", 404, unknown);
    server.says(PENDING, 200, pending(&["a"]));
    let (mut lookout, _jobs) = lookout(&server, LONG, &[job("a", "team", true), job("b", "nope", true)]);
    news(&mut lookout).await;
    assert_eq!((place(&lookout, "a").0, place(&lookout, "b").0), (Some(1), None));
    assert!(server.asked().iter().all(|asked| !asked.contains("visibility.kueue.x-k8s.io/v1beta1")));
}

#[tokio::test]
async fn of_more_than_a_hundred_the_first_are_asked_about() {
    let server = Server::default();
    server.says(PENDING, 200, pending(&["j149"]));
    let jobs: Vec<_> = (0..150).map(|number| job(&format!("j{number:03}"), "team", true)).collect();
    let (mut lookout, _jobs) = lookout(&server, LONG, &jobs);
    news(&mut lookout).await;
    let asked = server.asked();
    let named = asked.iter().find(|asked| asked.starts_with(WORKLOADS)).unwrap();
    assert_eq!(named.matches(',').count() + 1, 100);
    assert!(named.contains("in%20(j149,"), "the first of the queue is the first to be asked about: {named}");
}
