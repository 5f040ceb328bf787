//! A trainer is played in a directory, a report server answers over TLS, and `watch` runs in between.

mod interruptions;
mod metrics;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use object_store::memory::InMemory;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc::UnboundedReceiver};
use tokio::task::JoinHandle;

use super::*;
use crate::agent::fixture::{UID, config, serve, write_checkpoint, write_manifest};
use crate::protocol::{Answer, CheckpointKey, FilesState, REPORT_PATH, Report, ReportedCheckpoint, Store, TerminationMessage};

const WAIT: Duration = Duration::from_secs(30);

struct Server {
    url: String,
    ca: String,
    reports: UnboundedReceiver<Report>,
    /// All that were looked at so far.
    seen: Vec<Report>,
    delete: Arc<Mutex<Vec<CheckpointKey>>>,
    /// A report is answered while there is a permit.
    answers: Arc<Semaphore>,
    /// Seconds between two reports, as agents are told.
    interval: Arc<AtomicU32>,
    /// Seconds an agent gives its last report.
    grace: u64,
    /// Rank of the pod that is watched.
    node: u32,
}

#[derive(Clone)]
struct Shared {
    reports: mpsc::UnboundedSender<Report>,
    delete: Arc<Mutex<Vec<CheckpointKey>>>,
    answers: Arc<Semaphore>,
    interval: Arc<AtomicU32>,
}

async fn take(State(shared): State<Shared>, body: axum::Json<Report>) -> axum::Json<Answer> {
    let _ = shared.reports.send(body.0);
    let _answer = shared.answers.acquire().await;
    let delete = shared.delete.lock().unwrap().drain(..).collect();
    axum::Json(Answer { interval_seconds: shared.interval.load(Ordering::Relaxed), delete })
}

async fn server() -> Server {
    let (sender, reports) = mpsc::unbounded_channel();
    let (delete, answers, interval) = (Arc::default(), Arc::new(Semaphore::new(1)), Arc::new(AtomicU32::new(1)));
    let shared =
        Shared { reports: sender, delete: Arc::clone(&delete), answers: Arc::clone(&answers), interval: Arc::clone(&interval) };
    let (url, ca) = serve(Router::new().route(REPORT_PATH, post(take)).with_state(shared)).await;
    Server { url, ca, reports, seen: Vec::new(), delete, answers, interval, grace: 30, node: 0 }
}

impl Server {
    /// The first report from now on that passes the test.
    async fn until(&mut self, what: &str, test: impl Fn(&Report) -> bool) -> Report {
        let found = async {
            let mut sequence = 0;
            loop {
                let report = self.reports.recv().await.unwrap();
                assert!(report.sequence > sequence);
                sequence = report.sequence;
                self.seen.push(report.clone());
                if test(&report) {
                    return report;
                }
            }
        };
        tokio::time::timeout(WAIT, found).await.unwrap_or_else(|_| panic!("no report: {what}"))
    }
}

struct Pod {
    dir: TempDir,
    places: Places,
    callback: String,
    stop: watch::Sender<bool>,
    watching: JoinHandle<Result<(), WatchError>>,
}

impl Pod {
    async fn start(dir: TempDir, mut config: RunConfig, server: &Server, bucket: Option<Bucket>) -> Self {
        config.settle_seconds = 0;
        let places = Places::below(dir.path());
        fs::write(&places.token, "token").unwrap();
        fs::create_dir_all(places.lineage(&config)).unwrap();
        let client = ReportClient::new(&server.url, &server.ca, &places.token).unwrap();
        let arguments = Arguments {
            places: places.clone(),
            scan_interval: 20,
            poll_interval: 20,
            grace: server.grace,
            node: server.node,
            no_reports: false,
        };
        let listener = TcpListener::bind(places.callback_address).await.unwrap();
        let callback = format!("http://{}/any/status", listener.local_addr().unwrap());
        let (stop, stopped) = watch::channel(false);
        let watching =
            tokio::spawn(
                async move { watch_with(Arc::new(config), &arguments, (Some(client), bucket, listener), stopped).await },
            );
        Self { dir, places, callback, stop, watching }
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("output/lineage-1")
    }

    fn prepared(&self, resumed_from: Option<i64>) {
        self.prepared_refusing(resumed_from, &[]);
    }

    fn prepared_refusing(&self, resumed_from: Option<i64>, refused: &[(i64, &str)]) {
        let refused = refused.iter().map(|(step, why)| (*step, (*why).to_owned())).collect();
        let prepared = Prepared { resumed_from, refused };
        disk::write_whole(&self.places.prepared(), &serde_json::to_vec(&prepared).unwrap()).unwrap();
    }

    /// Saves as a trainer would, but in one moment.
    fn save(&self, step: u64) {
        let aside = self.dir.path().join("aside");
        write_checkpoint(&aside, step);
        let name = format!("checkpoint-{step}");
        fs::rename(aside.join(&name), self.output().join(&name)).unwrap();
    }

    async fn post(&self, percent: u8, metrics: &[(&str, &str)]) {
        let metrics: Vec<_> = metrics.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let body = json!({"trainerStatus": {"progressPercentage": percent, "estimatedRemainingSeconds": 0,
            "metrics": metrics, "lastUpdatedTime": "2026-01-01T00:00:00Z"}});
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(&self.callback).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// Saves with this log in its state.
    fn save_with_log(&self, step: u64, log: &str) {
        let aside = self.dir.path().join("aside");
        write_checkpoint(&aside, step);
        let name = format!("checkpoint-{step}");
        let state = format!(r#"{{"global_step":{step},"max_steps":200,"log_history":[{log}]}}"#);
        fs::write(aside.join(&name).join("trainer_state.json"), state).unwrap();
        fs::rename(aside.join(&name), self.output().join(&name)).unwrap();
    }

    /// Prints as the trainer under the wrapper does.
    fn print(&self, line: &str) {
        fs::create_dir_all(self.places.log().parent().unwrap()).unwrap();
        let mut log = fs::OpenOptions::new().create(true).append(true).open(self.places.log()).unwrap();
        writeln!(log, "2026-01-01T00:00:00Z {line}").unwrap();
    }

    /// Waits until the trainer is to be ended; why.
    async fn given_up(&self) -> String {
        written(&self.places.terminate()).await
    }

    /// Waits until the verdict of attempt 2 stands, which is before anybody is told.
    async fn decided(&self) {
        written(&self.output().join("logs/attempt-2.end.json")).await;
    }

    fn end(&self, exit: i32, asked: bool) {
        let text = format!("exit={exit}\nsignal=0\nasked={}\ntime=2026-01-01T00:00:00Z\n", u8::from(asked));
        disk::write_whole(&self.places.ended(), text.as_bytes()).unwrap();
    }

    async fn drained(&self) -> (i32, TerminationMessage) {
        let text = written(&self.places.drained()).await;
        let (exit, message) = text.split_once('\n').unwrap();
        let message = message.strip_prefix("message=").unwrap();
        let exit = exit.strip_prefix("exit=").unwrap().parse().unwrap();
        (exit, serde_json::from_str(message).unwrap())
    }

    async fn stopped(self) {
        if self.places.prepared().exists() && !self.places.drained().exists() {
            self.end(0, true);
            self.drained().await;
        }
        self.stop.send_replace(true);
        tokio::time::timeout(WAIT, self.watching).await.unwrap().unwrap().unwrap();
    }
}

/// Waits until a file is there; its text.
async fn written(path: &Path) -> String {
    let text = async {
        loop {
            if let Some(text) = disk::read_text(path, 1 << 20) {
                return text;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, text).await.unwrap_or_else(|_| panic!("{} is not there", path.display()))
}

fn find(report: &Report, step: i64) -> Option<&ReportedCheckpoint> {
    report.checkpoints.iter().find(|it| it.step == step && it.lineage == 1)
}

fn is(report: &Report, step: i64, state: FilesState) -> bool {
    find(report, step).is_some_and(|it| it.state == state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_attempt_is_told_from_the_first_post_to_the_end() {
    let mut server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let earlier = dir.path().join("output/lineage-1");
    for (step, uid) in [(10, UID), (11, "another-run")] {
        write_checkpoint(&earlier, step);
        write_manifest(&earlier, step, uid);
    }
    let pod = Pod::start(dir, config(), &server, None).await;
    pod.prepared(Some(10));
    let report = server.until("what was there", |it| is(it, 10, FilesState::Ready)).await;
    assert_eq!((find(&report, 10).unwrap().attempt, report.resumed_from), (1, Some(10)));
    assert_eq!((report.progress, report.end), (None, None));

    pod.post(0, &[("total_steps", "100")]).await;
    let report = server.until("the plan", |it| it.progress.is_some()).await;
    let progress = report.progress.unwrap();
    assert_eq!((progress.step, progress.total_steps), (10, Some(100)));

    pod.save(20);
    let report = server.until("a checkpoint", |it| is(it, 20, FilesState::Ready)).await;
    let saved = find(&report, 20).unwrap();
    assert_eq!((saved.attempt, saved.metrics["loss"].as_str(), saved.file_count), (2, "0.5", 5));
    assert!(saved.digest.is_some() && !report.series.is_empty());
    assert!(pod.output().join("checkpoint-20.finetune.json").exists());

    // The one resumed from may go once there is a newer one.
    server.delete.lock().unwrap().push(CheckpointKey { lineage: 1, step: 10 });
    server.until("a removal", |it| is(it, 10, FilesState::Missing)).await;
    assert!(!pod.output().join("checkpoint-10").exists() && pod.output().join("checkpoint-11").exists());

    // A save that was cut off is corrupt only once the next one is whole.
    pod.save(30);
    server.until("another checkpoint", |it| is(it, 30, FilesState::Ready)).await;
    fs::create_dir(pod.output().join("checkpoint-40")).unwrap();
    pod.save(50);
    let report = server.until("a torn save", |it| is(it, 40, FilesState::Corrupt)).await;
    assert!(is(&report, 50, FilesState::Ready) && !find(&report, 40).unwrap().message.is_empty());

    fs::remove_dir_all(pod.output().join("checkpoint-20")).unwrap();
    server.until("a rotation", |it| is(it, 20, FilesState::Missing)).await;

    disk::write_whole(&pod.places.log(), b"2026-01-01T00:00:00Z hello hf_abcdefghijklmnopqrstuvwxyz\n").unwrap();
    pod.post(50, &[("current_step", "55"), ("total_steps", "100"), ("loss", "0.25")]).await;
    pod.post(100, &[("current_step", "100"), ("total_steps", "100"), ("loss", "0.125")]).await;
    pod.save(100);
    pod.end(0, false);
    let report = server.until("the end", |it| it.end.is_some()).await;
    assert_eq!(report.end.as_ref().map(|end| (end.exit_code, end.failure.is_none())), Some((0, true)));
    assert!(is(&report, 100, FilesState::Ready));
    assert_eq!(report.log, ["2026-01-01T00:00:00Z hello hf_[redacted]"]);
    let (exit, message) = pod.drained().await;
    assert_eq!((exit, message.steps, message.delivered), (0, vec![30, 50, 100], true));
    let history = fs::read_to_string(pod.output().join("history.jsonl")).unwrap();
    assert!(history.lines().count() >= 1 && history.contains("\"step\":100"), "{history}");
    assert!(pod.output().join("logs/attempt-2.log").exists());
    let end: crate::protocol::End =
        serde_json::from_slice(&fs::read(pod.output().join("logs/attempt-2.end.json")).unwrap()).unwrap();
    assert_eq!(end.exit_code, 0);
    pod.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_comes_while_a_report_is_on_its_way_is_told_next() {
    let mut server = server().await;
    server.interval.store(600, Ordering::Relaxed);
    let pod = Pod::start(tempfile::tempdir().unwrap(), config(), &server, None).await;
    let answer = Arc::clone(&server.answers).acquire_owned().await.unwrap();
    pod.prepared(None);
    server.until("the first report, which is not answered yet", |_| true).await;
    disk::write_whole(&pod.places.log(), b"2026-01-01T00:00:00Z ValueError: no such column\n").unwrap();
    pod.end(1, false);
    pod.decided().await;
    drop(answer);
    server.until("the end", |it| it.end.is_some()).await;
    assert!(pod.drained().await.1.delivered);
    pod.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_is_let_go_when_nobody_takes_reports() {
    let server = Server { url: "https://localhost:9".to_owned(), grace: 1, ..server().await };
    let pod = Pod::start(tempfile::tempdir().unwrap(), config(), &server, None).await;
    pod.prepared(None);
    disk::write_whole(&pod.places.log(), b"2026-01-01T00:00:00Z ValueError: no such column\n").unwrap();
    pod.save(10);
    pod.end(1, false);
    let (exit, message) = pod.drained().await;
    assert_eq!((exit, message.steps.as_slice(), message.delivered), (1, &[10][..], false));
    let failure = message.failure.unwrap();
    assert_eq!(failure.reason, "ScriptError");
    assert!(failure.message.contains("no such column"));
    pod.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_outlive_the_folder_and_are_found_again() {
    let mut server = server().await;
    let bucket = Bucket::over(Arc::new(InMemory::new()), "s3://bucket/out").unwrap();
    let store = Store { uri: "s3://bucket/out".to_owned(), endpoint: None, credentials: "OUTPUT_".to_owned() };
    let config = RunConfig { upload: Some(store), ..config() };
    let pod = Pod::start(tempfile::tempdir().unwrap(), config.clone(), &server, Some(bucket.clone())).await;
    pod.prepared(None);
    pod.save(10);
    server.until("an upload", |it| is(it, 10, FilesState::Ready)).await;
    let keys: Vec<_> = bucket.list("").await.unwrap().into_iter().map(|(key, _)| key).collect();
    let prefix = "tiny-01234567/lineage-1";
    for name in ["checkpoint-10/adapter_model.safetensors", "checkpoint-10.finetune.json"] {
        assert!(keys.contains(&format!("{prefix}/{name}")), "{keys:?}");
    }
    fs::remove_dir_all(pod.output().join("checkpoint-10")).unwrap();
    pod.save(20);
    let report = server.until("the next", |it| is(it, 20, FilesState::Ready)).await;
    assert!(is(&report, 10, FilesState::Ready));
    pod.end(0, true);
    assert_eq!(pod.drained().await.1.steps, [10, 20]);
    let keys: Vec<_> = bucket.list("").await.unwrap().into_iter().map(|(key, _)| key).collect();
    for name in ["history.jsonl", "logs/attempt-2.end.json", "logs/attempt-2.log"] {
        assert!(keys.contains(&format!("{prefix}/{name}")), "{name}");
    }
    pod.stopped().await;

    let mut server = self::server().await;
    let next = RunConfig { attempt: 3, ..config };
    let pod = Pod::start(tempfile::tempdir().unwrap(), next, &server, Some(bucket.clone())).await;
    pod.prepared(Some(20));
    let report = server.until("both", |it| is(it, 10, FilesState::Ready) && is(it, 20, FilesState::Ready)).await;
    assert_eq!(find(&report, 10).unwrap().attempt, 2);
    pod.save(20);
    server.until("saved again", |it| find(it, 20).is_some_and(|it| it.attempt == 3 && it.state == FilesState::Ready)).await;
    server.delete.lock().unwrap().push(CheckpointKey { lineage: 1, step: 10 });
    server.until("removed", |it| is(it, 10, FilesState::Missing)).await;
    assert!(bucket.list(&format!("{prefix}/checkpoint-10")).await.unwrap().is_empty());
    pod.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_trainer_never_started_ends_at_once() {
    let server = server().await;
    let pod = Pod::start(tempfile::tempdir().unwrap(), config(), &server, None).await;
    pod.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_leaves_checkpoints_and_reports_to_the_first_and_tells_only_how_its_trainer_ended() {
    let mut server = server().await;
    server.node = 1;
    for (exit, asked, code) in [(0, false, 0), (0, true, 85), (3, false, 3)] {
        let config = RunConfig { nodes: 2, stall_seconds: Some(1), ..config() };
        let pod = Pod::start(tempfile::tempdir().unwrap(), config, &server, None).await;
        pod.prepared(None);
        pod.save(20);
        pod.end(exit, asked);
        assert_eq!(pod.drained().await.0, code, "exit {exit}, asked: {asked}");
        let mut left: Vec<_> = fs::read_dir(pod.output()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["checkpoint-20", "logs"], "neither manifest nor history");
        assert!(pod.output().join("logs/attempt-2-node-1.end.json").exists());
        pod.stopped().await;
    }
    assert!(server.reports.try_recv().is_err(), "it reports nothing");
}
