//! The operator as a process, and what it and the API server use of the machine.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::harness::cluster::{ADMIN, AUDIT_LOG, NAMESPACE, OPERATOR, setting};

/// The operator's binary; the one this benchmark was built with when it is not set.
const BINARY: &str = "FINETUNE_BENCH_OPERATOR";
/// How long a start may take.
const START: Duration = Duration::from_mins(1);
/// Milliseconds of a clock tick in /proc, on every Linux.
const TICK: u64 = 10;

/// A running operator, as it is run in production but for its ports and log.
pub struct Operator {
    child: Child,
    binary: PathBuf,
}

/// What a process has used so far, or between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Milliseconds of CPU, in user space and in the kernel.
    pub cpu: u64,
    /// Most memory it ever had, in KiB.
    pub memory: u64,
}

impl Usage {
    /// This, and what was used between `before` and `after`.
    pub fn plus(self, before: Self, after: Self) -> Self {
        Self { cpu: self.cpu + after.cpu - before.cpu, memory: after.memory.max(self.memory) }
    }
}

impl Operator {
    /// Starts it and waits until its watches are complete.
    pub async fn start() -> Self {
        let binary = binary();
        let (http_port, report_port) = (free_port(), free_port());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-operator.log");
        let log = File::create(&path).unwrap();
        let child = Command::new(&binary)
            .args(["controller", "--image", "registry.test/operator:1", "--namespace", &setting(NAMESPACE)])
            .args(["--http-port", &http_port.to_string(), "--report-port", &report_port.to_string()])
            .args(["--report-url", &format!("https://127.0.0.1:{report_port}")])
            .env("KUBECONFIG", setting(OPERATOR))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let operator = Self { child, binary };
        until_ready(http_port, &path).await;
        operator
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        usage(self.child.id())
    }

    /// How it was built, as far as its path tells.
    pub fn build(&self) -> &'static str {
        if self.binary.components().any(|part| part.as_os_str() == "release") { "release" } else { "dev (unoptimised)" }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn binary() -> PathBuf {
    std::env::var_os(BINARY).map_or_else(|| env!("CARGO_BIN_EXE_finetune-operator").into(), PathBuf::from)
}

async fn until_ready(http_port: u16, log: &Path) {
    let (http, begin) = (reqwest::Client::new(), Instant::now());
    let url = format!("http://127.0.0.1:{http_port}/readyz");
    while !http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
        assert!(begin.elapsed() < START, "it does not get ready: see {}", log.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A running REST gateway, as it is run in production but for its ports, log and pace.
pub struct Gateway {
    child: Child,
    /// Where it is reached.
    pub url: String,
}

impl Gateway {
    /// Starts it and waits until it is ready.
    pub async fn start() -> Self {
        let (http_port, port) = (free_port(), free_port());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-gateway.log");
        let log = File::create(&path).unwrap();
        let child = Command::new(binary())
            .args(["gateway", "--port", &port.to_string(), "--http-port", &http_port.to_string()])
            .args(["--rate", "100000", "--burst", "100000"])
            .env("KUBECONFIG", setting(ADMIN))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let gateway = Self { child, url: format!("http://127.0.0.1:{port}") };
        until_ready(http_port, &path).await;
        gateway
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        usage(self.child.id())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What the API server has used so far.
pub fn api_server() -> Usage {
    let pids = Path::new(&setting(AUDIT_LOG)).with_file_name("pids");
    let line = std::fs::read_to_string(pids.join("kube-apiserver")).unwrap();
    usage(line.split_whitespace().next().unwrap().parse().unwrap())
}

fn usage(pid: u32) -> Usage {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let stat = read("stat");
    // The second field is a name that may hold spaces; utime and stime are the 12th and 13th after it.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    let status = read("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    Usage { cpu: ticks * TICK, memory: peak.trim().trim_end_matches(" kB").parse().unwrap() }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
