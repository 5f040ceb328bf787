//! What runs cost: requests to the API server, wall time beside plain Jobs, CPU and memory of the operator. Needs a cluster: run `make bench`.
//!
//! Rounds of runs and of plain Jobs with the same pods take turns. Both are acted out the same way: when a pod runs, its agent gets a token,
//! pauses as often as it saves, and ends the pod. The agents of runs also report. Then other runs are taken through pause, resume, stop and restart, and a checkpoint is
//! deployed many times. Before all that, while no operator runs, the REST gateway lists many jobs and makes some.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on stops by panicking")]

mod contract;
mod gateway;
#[path = "../../tests/integration/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use the rest")]
mod harness;
mod lifecycle;
mod load;
mod process;
mod requests;
mod serving;
mod table;

use std::{process::ExitCode, str::FromStr, time::Duration};

use finetune_operator::api::HardwareProfile;
use serde_json::json;

use harness::{
    Sandbox,
    cluster::{ADMIN, admin, put},
};
use load::{Load, Shape};
use process::{Operator, Usage};
use requests::AuditLog;

/// Longest wait for the operator to fall silent after the last run.
const SILENCE: Duration = Duration::from_secs(30);

/// What a person may set in the environment.
struct Options {
    runs: usize,
    rounds: usize,
    lives: usize,
    jobs: usize,
    pause: Duration,
    idle: Duration,
}

impl Options {
    fn from_environment() -> Self {
        Self {
            runs: variable("RUNS", 100),
            rounds: variable("ROUNDS", 3),
            lives: variable("LIVES", 100),
            jobs: variable("JOBS", 10_000),
            pause: Duration::from_secs_f64(variable("PAUSE", 20.0)),
            idle: Duration::from_secs(variable("IDLE", 60)),
        }
    }
}

fn variable<T: FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() { default } else { text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")) }
}

/// What was seen.
#[derive(Default)]
struct Seen {
    requests: Vec<requests::Request>,
    idle: Vec<requests::Request>,
    usage: Usage,
    server_in_runs: Usage,
    server_in_jobs: Usage,
    runs: Vec<Duration>,
    jobs: Vec<Duration>,
    lives: Vec<lifecycle::Passed>,
    deployed: serving::Deployed,
    listed: gateway::Listed,
}

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::var(ADMIN).is_err() {
        eprintln!("this benchmark needs a cluster: run `make bench`");
        return ExitCode::from(2);
    }
    let options = Options::from_environment();
    let client = admin().await;
    let hardware = json!({"gpu": {"count": 0}, "cpu": "100m", "memory": "64Mi", "costPerHour": "3.60"});
    put::<HardwareProfile>(&client, load::HARDWARE, hardware).await;
    let listed = gateway::measure(options.jobs, &sandbox().await).await;
    // Said at once: what comes after may break off.
    table::show(&listed.rows());
    let operator = Operator::start().await;
    let seen = Seen { listed, ..measure(&options, &operator).await };
    if table::print(&options, &operator, &seen) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One run and one Job to warm up, then the rounds, then runs that are paused, resumed, stopped and restarted, then Deployments, then
/// silence.
async fn measure(options: &Options, operator: &Operator) -> Seen {
    let mut log = AuditLog::from_now_on();
    let first = Load { count: 1, pause: Duration::from_millis(100), sandbox: sandbox().await };
    first.runs().await;
    let shape = Shape::of_the_only_job(&first.sandbox).await;
    Load { sandbox: sandbox().await, ..first }.jobs(&shape).await;
    let mut seen = Seen::default();
    for round in 0..options.rounds {
        // What comes second finds a busier cluster, so they take turns.
        for runs in [round % 2 == 0, round % 2 == 1] {
            let load = Load { count: options.runs, pause: options.pause, sandbox: sandbox().await };
            log.until_silent(SILENCE).await;
            let before = (operator.usage(), process::api_server());
            if runs {
                seen.runs.push(load.runs().await);
                seen.requests.extend(log.until_silent(SILENCE).await);
                seen.usage = seen.usage.plus(before.0, operator.usage());
                seen.server_in_runs = seen.server_in_runs.plus(before.1, process::api_server());
            } else {
                seen.jobs.push(load.jobs(&shape).await);
                log.until_silent(SILENCE).await;
                seen.server_in_jobs = seen.server_in_jobs.plus(before.1, process::api_server());
            }
        }
        eprintln!("round {}: runs {:.1?}, plain Jobs {:.1?}", round + 1, seen.runs[round], seen.jobs[round]);
    }
    seen.lives = lifecycle::measure(options.lives, &sandbox().await, &mut log, SILENCE).await;
    seen.deployed = serving::measure(options.lives, &sandbox().await, &mut log, SILENCE).await;
    log.until_silent(SILENCE).await;
    tokio::time::sleep(options.idle).await;
    seen.idle = log.news();
    seen
}

async fn sandbox() -> Sandbox {
    Sandbox::new(admin().await).await
}
