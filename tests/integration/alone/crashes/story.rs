//! What a run leaves behind, and what was made and deleted for it.

use std::sync::Arc;

use kube::ResourceExt;
use rand::{SeedableRng, rngs::StdRng};

use finetune_operator::api::FineTune;

use super::{
    odd_pause,
    scenarios::{Ending, Scenario},
};
use crate::{
    harness::{
        Sandbox,
        normal::normal,
        proxy::{Fault, Proxied},
    },
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
    let run = (scenario.play)(sandbox.clone()).await;
    let end = if scenario.ending == Ending::Deleted { String::new() } else { end(sandbox, &run).await };
    if scenario.ending != Ending::Left {
        delete(sandbox, &run).await;
        nothing_is_left(sandbox, &run).await;
    }
    let uid = run.uid().unwrap();
    let mut writes: Vec<_> = proxied.made_and_deleted().iter().map(|write| write.replace(&uid[..8], "UID8")).collect();
    writes.sort();
    Story { end, writes }
}

/// Every object of the run, without what is chance.
async fn end(sandbox: &Sandbox, run: &FineTune) -> String {
    let (namespace, uid) = (&sandbox.namespace, run.uid().unwrap());
    [
        normal(&[run], namespace, &uid),
        normal(&sandbox.checkpoints(run).await, namespace, &uid),
        normal(&[sandbox.history(run).await], namespace, &uid),
        normal(&sandbox.jobs(run).await, namespace, &uid),
    ]
    .join("---\n")
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
