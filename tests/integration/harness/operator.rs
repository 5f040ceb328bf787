//! The operator as a process that can be killed and started again.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

use super::cluster::{NAMESPACE, OPERATOR, setting};

/// Runs what follows and kills it when our end of its input closes, so that it never outlives the test.
const UNTIL_INPUT_ENDS: &str = r#""$@" </dev/null & child=$!; cat >/dev/null; kill -9 "$child"; wait "$child""#;
/// How long a start may take.
const START: Duration = Duration::from_mins(1);

/// One operator; its ports and log stay the same however often it is started.
pub struct Operator {
    kubeconfig: PathBuf,
    arguments: Vec<String>,
    http_port: u16,
    log: PathBuf,
    process: Mutex<Option<Child>>,
}

static SHARED: OnceCell<Arc<Operator>> = OnceCell::const_new();
static COUNT: AtomicUsize = AtomicUsize::new(1);

impl Operator {
    /// The one that tests share.
    pub async fn shared() -> Arc<Self> {
        let start = || async {
            let operator = Arc::new(Self::new(Path::new(&setting(OPERATOR)), &["--leader-election", "false"]));
            operator.start().await;
            operator
        };
        Arc::clone(SHARED.get_or_init(start).await)
    }

    /// One that reaches the cluster by `kubeconfig`, not started yet.
    pub fn new(kubeconfig: &Path, extra: &[&str]) -> Self {
        let (http_port, report_port) = (free_port(), free_port());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("operator-{}-{number}.log", std::process::id()));
        let arguments = [
            ("--namespace", setting(NAMESPACE)),
            ("--image", "registry.test/operator:1".to_owned()),
            ("--report-url", format!("https://127.0.0.1:{report_port}")),
            ("--report-port", report_port.to_string()),
            ("--http-port", http_port.to_string()),
            ("--settle-seconds", "1".to_owned()),
            ("--queue-seconds", "1".to_owned()),
            // A namespace is said to go only after the longest grace of its pods, though simulated ones end at once.
            ("--grace-period", "1".to_owned()),
            ("--log", "debug,hyper=info,hyper_util=info,h2=info,rustls=info,tower=info,kube_runtime=info".to_owned()),
        ];
        let arguments = arguments.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        let arguments = arguments.chain(extra.iter().map(|argument| (*argument).to_owned())).collect();
        Self { kubeconfig: kubeconfig.to_owned(), arguments, http_port, log, process: Mutex::default() }
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts it.
    pub fn spawn(&self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new("sh")
            .args(["-c", UNTIL_INPUT_ENDS, "sh", env!("CARGO_BIN_EXE_finetune-operator"), "controller"])
            .args(&self.arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let before = self.process.lock().unwrap().replace(child);
        assert!(before.is_none(), "the operator runs already");
    }

    /// Kills it as a lost node would; returns when it is gone.
    pub fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap().take() {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

    /// Kills it and starts it again.
    pub fn crash(&self) {
        self.kill();
        self.spawn();
    }

    /// Waits until its watches are complete. A start cannot be watched, so it is asked every now and then.
    pub async fn ready(&self) {
        let (http, begin) = (reqwest::Client::new(), Instant::now());
        let url = format!("http://127.0.0.1:{}/readyz", self.http_port);
        while !http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(begin.elapsed() < START, "the operator does not get ready; its log ends with\n{}", self.last_words());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many files and connections it has open.
    pub fn descriptors(&self) -> usize {
        let shell = self.process.lock().unwrap().as_ref().unwrap().id();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        let is_operator = |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().starts_with("finetune");
        let pid = children.split_whitespace().find(is_operator).unwrap();
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port nobody listens on, below those that connections to others begin at: one of these may be taken before the operator has it.
fn free_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let begin = std::process::id() as usize * 64;
    let ports = std::iter::repeat_with(|| 20_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000);
    let mut free = ports.map(|port| u16::try_from(port).unwrap()).filter(|port| TcpListener::bind(("::", *port)).is_ok());
    free.next().unwrap()
}
