//! What it costs to pause, resume, stop and restart a run that trains: requests and time, one transition after the other, all runs at once.

use std::time::{Duration, Instant};

use finetune_operator::api::FineTunePhase;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::{
    contract::writes_and_reads,
    harness::{Agent, Sandbox, agent::so_far},
    load::HARDWARE,
    requests::{AuditLog, Request},
    table::{Row, TOLERANCE, per_run, row},
};

/// What the agents have saved before the first transition.
const SAVES: [(i64, &str); 2] = [(25, "3.5"), (50, "2.5")];

/// A change a user asks for.
struct Transition {
    name: &'static str,
    spec: fn() -> Value,
    /// Where it leads.
    phase: FineTunePhase,
    /// Mutating requests it may cost a run, and what they are.
    wanted: usize,
    what_for: &'static str,
}

const TRANSITIONS: [Transition; 4] = [
    Transition {
        name: "pause",
        spec: || json!({"desiredState": "Paused"}),
        phase: FineTunePhase::Paused,
        wanted: 5,
        what_for: "the Job's deletion, three statuses, the mark of the best",
    },
    Transition {
        name: "resume",
        spec: || json!({"desiredState": "Running"}),
        phase: FineTunePhase::Running,
        wanted: 3,
        what_for: "a Job, two statuses",
    },
    Transition {
        name: "stop",
        spec: || json!({"desiredState": "Stopped"}),
        phase: FineTunePhase::Stopped,
        wanted: 4,
        what_for: "the Job's deletion, three statuses",
    },
    Transition {
        name: "restart",
        spec: || json!({"desiredState": "Running", "restarts": 1}),
        phase: FineTunePhase::Running,
        wanted: 3,
        what_for: "a Job, two statuses",
    },
];

/// What a transition of all runs was seen to cost.
pub struct Passed {
    transition: &'static Transition,
    runs: usize,
    time: Duration,
    requests: Vec<Request>,
}

/// Starts runs, and takes them through every transition; `patience` is how long the operator may take to fall silent after each.
pub async fn measure(runs: usize, sandbox: &Sandbox, log: &mut AuditLog, patience: Duration) -> Vec<Passed> {
    let names: Vec<_> = (0..runs).map(|number| format!("life-{number}")).collect();
    join_all(names.iter().map(|name| train(sandbox, name))).await;
    log.until_silent(patience).await;
    let mut passed = Vec::new();
    for transition in &TRANSITIONS {
        let begin = Instant::now();
        join_all(names.iter().map(|name| async move {
            sandbox.edit(name, (transition.spec)()).await.unwrap();
            sandbox.until_phase(name, transition.phase).await;
        }))
        .await;
        let time = begin.elapsed();
        passed.push(Passed { transition, runs, time, requests: log.until_silent(patience).await });
    }
    passed
}

/// A run that has saved twice and trains on.
async fn train(sandbox: &Sandbox, name: &str) {
    let run = sandbox.run(name, json!({"hardware": {"profile": HARDWARE}})).await;
    let mut agent = Agent::training(sandbox, &run, 1).await;
    agent.report(so_far(1, &SAVES, 100)).await;
    sandbox.until_phase(name, FineTunePhase::Running).await;
}

/// One row for the writes of each transition and its time, one for its reads.
pub fn rows(passed: &[Passed]) -> Vec<Row> {
    passed.iter().flat_map(Passed::rows).collect()
}

impl Passed {
    fn rows(&self) -> [Row; 2] {
        let Transition { name, wanted, what_for, .. } = self.transition;
        let (writes, reads) = writes_and_reads(&self.requests);
        let within = per_run(writes, self.runs) <= per_run(*wanted, 1) * TOLERANCE;
        let text = format!("{:.2} in {:.1} s", per_run(writes, self.runs), self.time.as_secs_f64());
        [
            row(&format!("**{name}**, writes a run: {what_for}"), text, wanted.to_string(), within),
            row(&format!("**{name}**, reads a run"), format!("{:.2}", per_run(reads, self.runs)), "0".into(), reads == 0),
        ]
    }
}
