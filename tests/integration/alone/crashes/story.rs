//! What a run, or a checkpoint that is served, leaves behind, and what was made and deleted for it.

use std::sync::Arc;

use rand::{SeedableRng, rngs::StdRng};

use finetune_operator::api::ModelDeployment;
use k8s_openapi::api::{apps::v1 as apps, core::v1 as corev1, policy::v1 as policy};

use super::{
    odd_pause,
    scenarios::{Ending, Played, Scenario},
};
use crate::{
    harness::{
        Sandbox,
        normal::normal,
        proxy::{Fault, Proxied},
        wait::list,
    },
    rollouts,
    run::{delete, nothing_is_left},
};

/// What a run leaves behind, and what was made and deleted for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Story {
    end: String,
    writes: Vec<String>,
}

/// A story, and what the operator went through.
pub struct Told {
    /// What came of it.
    pub story: Story,
    /// Its mutating requests, in order.
    pub writes: Vec<String>,
    /// Whether it died as it was to.
    pub died: bool,
}

/// Plays a scenario under an operator of its own, which dies at `fault`.
pub async fn tell(scenario: &Scenario, sandbox: Sandbox, fault: Option<Fault>) -> Told {
    let proxied = Proxied::start(&sandbox, fault).await;
    let story = play(scenario, &sandbox, &proxied).await;
    Told { story, writes: proxied.writes(), died: proxied.has_died() }
}

/// Plays a scenario under an operator that dies every now and then.
pub async fn tell_while_dying(scenario: &Scenario, sandbox: Sandbox, seed: u64) -> Story {
    let proxied = Proxied::start(&sandbox, None).await;
    let operator = Arc::clone(&proxied.operator);
    let deaths = tokio::spawn(async move {
        let mut chance = StdRng::seed_from_u64(seed);
        loop {
            tokio::time::sleep(odd_pause(&mut chance)).await;
            let operator = Arc::clone(&operator);
            tokio::task::spawn_blocking(move || operator.crash()).await.unwrap();
        }
    });
    let story = play(scenario, &sandbox, &proxied).await;
    deaths.abort();
    story
}

async fn play(scenario: &Scenario, sandbox: &Sandbox, proxied: &Proxied) -> Story {
    let played = (scenario.play)(sandbox.clone()).await;
    let uid = played.uid();
    let end = if scenario.ending == Ending::Deleted { String::new() } else { end(sandbox, &played, &uid).await };
    if scenario.ending != Ending::Left {
        match &played {
            Played::Run(run) => {
                delete(sandbox, run).await;
                nothing_is_left(sandbox, run).await;
            }
            Played::Served(deployment) => rollouts::delete(sandbox, deployment).await,
        }
        rollouts::nothing_serves(sandbox).await;
    }
    let mut writes: Vec<_> = proxied.made_and_deleted().iter().map(|write| named_alike(write, &uid)).collect();
    writes.sort();
    Story { end, writes }
}

/// A deed without the uids in it: that of the subject, and that of a Checkpoint whose Job has it in its name.
fn named_alike(deed: &str, uid: &str) -> String {
    const IMPORT: &str = "ckpt-import-";
    let text = deed.replace(&uid[..8], "UID8");
    text.split_once(IMPORT).map(|(before, _)| format!("{before}{IMPORT}UID")).unwrap_or(text)
}

/// Every object of the story, without what is chance.
async fn end(sandbox: &Sandbox, played: &Played, uid: &str) -> String {
    let namespace = &sandbox.namespace;
    let mut parts = Vec::new();
    if let Played::Run(run) = played {
        parts.extend([
            normal(&[run], namespace, uid),
            normal(&sandbox.checkpoints(run).await, namespace, uid),
            normal(&[sandbox.history(run).await], namespace, uid),
            normal(&sandbox.jobs(run).await, namespace, uid),
        ]);
    }
    parts.extend(serving(sandbox, uid).await);
    parts.join("---\n")
}

/// What serves models in the namespace.
async fn serving(sandbox: &Sandbox, uid: &str) -> Vec<String> {
    let namespace = &sandbox.namespace;
    let mut workloads: Vec<apps::Deployment> = list(&sandbox.api(), "").await;
    for status in workloads.iter_mut().filter_map(|workload| workload.status.as_mut()) {
        // Conditions name a replica set by a hash of the uid, and pods of the version before may still be ending.
        (status.conditions, status.terminating_replicas) = (None, None);
    }
    vec![
        normal(&list::<ModelDeployment>(&sandbox.api(), "").await, namespace, uid),
        normal(&workloads, namespace, uid),
        normal(&list::<corev1::Service>(&sandbox.api(), "").await, namespace, uid),
        normal(&list::<policy::PodDisruptionBudget>(&sandbox.api(), "").await, namespace, uid),
    ]
}

impl Story {
    /// What differs in another story, the first lines of it.
    pub fn difference(&self, told: &Self) -> Option<String> {
        if self == told {
            return None;
        }
        let lines = self.end.lines().zip(told.end.lines()).filter(|(left, right)| left != right).take(8);
        let lines: Vec<_> = lines.map(|(left, right)| format!("- {left}\n+ {right}")).collect();
        let lengths = (self.end.lines().count(), told.end.lines().count());
        let objects = format!("{}\n{lengths:?} lines\n", lines.join("\n"));
        let writes = if self.writes == told.writes {
            String::new()
        } else {
            format!("{:#?}\ninstead of\n{:#?}", told.writes, self.writes)
        };
        Some(objects + &writes)
    }
}
