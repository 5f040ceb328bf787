//! What it costs to deploy a checkpoint: requests and time, many Deployments at once.

use std::time::{Duration, Instant};

use finetune_operator::{
    api::{Checkpoint, CheckpointPhase, DeploymentPhase, ModelDeployment, names},
    protocol::Report,
};
use futures::future::join_all;
use kube::ResourceExt;
use serde_json::json;

use crate::{
    contract::writes_and_reads,
    harness::{Agent, Sandbox, saved, wait::until},
    load::HARDWARE,
    requests::{AuditLog, Request},
    table::{Row, TOLERANCE, per_run, row},
};

/// Mutating requests a Deployment may cost.
const WRITES: usize = 4;
/// Reads a Deployment may cost: the names of its two children are looked up before they are made, so that nothing of others is touched.
const READS: usize = 2;

/// What deploying was seen to cost.
#[derive(Default)]
pub struct Deployed {
    count: usize,
    time: Duration,
    requests: Vec<Request>,
}

/// Deploys one checkpoint that many times at once; `patience` is how long the operator may take to fall silent.
pub async fn measure(count: usize, sandbox: &Sandbox, log: &mut AuditLog, patience: Duration) -> Deployed {
    checkpoint(sandbox).await;
    log.until_silent(patience).await;
    let begin = Instant::now();
    join_all((0..count).map(|number| async move {
        let name = format!("bot-{number}");
        let spec = json!({"checkpoint": {"name": "saved"}, "runtime": {"name": "it-server"}, "hardware": {"profile": HARDWARE}});
        sandbox.create::<ModelDeployment>(json!({"metadata": {"name": name}, "spec": spec})).await;
        until(&sandbox.api::<ModelDeployment>(), &name, "it serves", |deployment| {
            deployment.status.as_ref().is_some_and(|status| status.phase == DeploymentPhase::Ready)
        })
        .await;
    }))
    .await;
    let time = begin.elapsed();
    Deployed { count, time, requests: log.until_silent(patience).await }
}

/// A verified checkpoint.
async fn checkpoint(sandbox: &Sandbox) {
    let storage = json!({"volume": {"claimName": "models", "path": "old/saved"}});
    let spec = json!({"baseModel": {"name": "it-tiny"}, "format": "Adapter", "step": 7, "storage": storage});
    let made: Checkpoint = sandbox.create(json!({"metadata": {"name": "saved"}, "spec": spec})).await;
    let selector = format!("{}={}", names::CHECKPOINT_UID, made.uid().unwrap());
    let mut reader = Agent::of_role(sandbox, &selector, names::ROLE_IMPORT).await;
    reader.report(Report { checkpoints: vec![saved(0, 7, "1.0")], ..Report::default() }).await;
    reader.end("succeed", "").await;
    until(&sandbox.api::<Checkpoint>(), "saved", "it is Ready", |checkpoint| {
        checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Ready)
    })
    .await;
}

impl Deployed {
    /// One row for the writes of a Deployment and the time of all, one for its reads.
    pub fn rows(&self) -> Vec<Row> {
        if self.count == 0 {
            return Vec::new();
        }
        let (writes, reads) = writes_and_reads(&self.requests);
        let (writes, reads) = (per_run(writes, self.count), per_run(reads, self.count));
        let within = |seen: f64, wanted: usize| seen <= per_run(wanted, 1) * TOLERANCE;
        let text = format!("{writes:.2} in {:.1} s", self.time.as_secs_f64());
        let what = "a workload, a Service, two statuses";
        vec![
            row(&format!("**deploy**, writes a Deployment: {what}"), text, WRITES.to_string(), within(writes, WRITES)),
            row("**deploy**, reads a Deployment", format!("{reads:.2}"), READS.to_string(), within(reads, READS)),
        ]
    }
}
