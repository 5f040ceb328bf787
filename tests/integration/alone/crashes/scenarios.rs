//! What is played under an operator that dies: the user, the agents and the order of things. Nobody here takes note of the operator: they wait
//! for what must come in any case.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use kube::ResourceExt;
use serde_json::json;

use finetune_operator::{
    api::{Checkpoint, Failure, FineTune, FineTunePhase, ModelDeployment},
    protocol::{End, FilesState, Report},
};

use crate::{
    harness::{
        Agent, Sandbox,
        agent::so_far,
        wait::{until, until_gone},
    },
    rollouts,
    run::{SAVES, train},
    serving,
};

/// Tries of a report until the order that is due comes with its answer.
const TRIES: usize = 20;

/// One course of events.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Plays it, and returns what it is about once nothing moves any more, or it is to be deleted.
    pub play: fn(Sandbox) -> BoxFuture<'static, Played>,
    /// What is compared in the end.
    pub ending: Ending,
}

/// What a scenario is about.
pub enum Played {
    /// A run, and what serves its checkpoints.
    Run(Box<FineTune>),
    /// A checkpoint that is served by hand.
    Served(Box<ModelDeployment>),
}

impl Played {
    fn run(run: FineTune) -> Self {
        Self::Run(Box::new(run))
    }

    fn served(deployment: ModelDeployment) -> Self {
        Self::Served(Box::new(deployment))
    }

    /// Its uid.
    pub fn uid(&self) -> String {
        match self {
            Self::Run(run) => run.uid(),
            Self::Served(deployment) => deployment.uid(),
        }
        .unwrap()
    }
}

/// What is compared in the end, beside what was made and deleted on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// What the run leaves.
    Left,
    /// The same, and that nothing is left once it is deleted.
    LeftThenDeleted,
    /// That nothing is left once it is deleted.
    Deleted,
}

/// All of them, the plainest first. A new one is a function below and an entry here.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "success", play: |sandbox| success(sandbox).map(Played::run).boxed(), ending: Ending::LeftThenDeleted },
    Scenario { name: "failure", play: |sandbox| failure(sandbox).map(Played::run).boxed(), ending: Ending::Left },
    Scenario { name: "stop", play: |sandbox| stop(sandbox).map(Played::run).boxed(), ending: Ending::Left },
    Scenario {
        name: "pause-and-resume",
        play: |sandbox| pause_and_resume(sandbox).map(Played::run).boxed(),
        ending: Ending::Left,
    },
    Scenario {
        name: "scratch-after-success",
        play: |sandbox| scratch_after_success(sandbox).map(Played::run).boxed(),
        ending: Ending::Left,
    },
    Scenario {
        name: "scratch-after-stop",
        play: |sandbox| scratch_after_stop(sandbox).map(Played::run).boxed(),
        ending: Ending::Left,
    },
    Scenario {
        name: "deletion-while-training",
        play: |sandbox| training(sandbox).map(Played::run).boxed(),
        ending: Ending::Deleted,
    },
    Scenario { name: "budget", play: |sandbox| budget(sandbox).map(Played::run).boxed(), ending: Ending::Left },
    Scenario { name: "deploy", play: |sandbox| deploy(sandbox).map(Played::served).boxed(), ending: Ending::LeftThenDeleted },
    Scenario { name: "rollout", play: |sandbox| rollout(sandbox).map(Played::served).boxed(), ending: Ending::Left },
    Scenario {
        name: "deletion-while-serving",
        play: |sandbox| deploy(sandbox).map(Played::served).boxed(),
        ending: Ending::Deleted,
    },
    Scenario {
        name: "auto-deploy",
        play: |sandbox| auto_deploy(sandbox).map(Played::run).boxed(),
        ending: Ending::LeftThenDeleted,
    },
    Scenario { name: "roll-back", play: |sandbox| roll_back(sandbox).map(Played::run).boxed(), ending: Ending::Left },
    Scenario { name: "retention", play: |sandbox| retention(sandbox).map(Played::run).boxed(), ending: Ending::Left },
];

async fn success(sandbox: Sandbox) -> FineTune {
    let run = sandbox.run("bot", json!({})).await;
    train(&sandbox, &run, 1).await;
    settled(&sandbox, 4).await
}

async fn failure(sandbox: Sandbox) -> FineTune {
    let run = sandbox.run("bot", json!({"retries": 0})).await;
    let mut agent = Agent::training(&sandbox, &run, 1).await;
    agent.report(so_far(1, &SAVES[..2], 100)).await;
    let failure = Failure { reason: "ScriptError".into(), message: "ValueError: no".into(), ..Failure::default() };
    agent.fail(1, Some(failure)).await;
    sandbox.until_phase("bot", FineTunePhase::Failed).await;
    settled(&sandbox, 2).await
}

/// A run that has saved twice and goes on training.
async fn training(sandbox: Sandbox) -> FineTune {
    let run = sandbox.run("bot", json!({})).await;
    let mut agent = Agent::training(&sandbox, &run, 1).await;
    agent.report(so_far(1, &SAVES[..2], 100)).await;
    sandbox.until_run("bot", "its progress is there", |status| status.progress.is_some()).await;
    sandbox.until_phase("bot", FineTunePhase::Running).await
}

async fn stop(sandbox: Sandbox) -> FineTune {
    training(sandbox.clone()).await;
    sandbox.edit("bot", json!({"desiredState": "Stopped"})).await.unwrap();
    sandbox.until_phase("bot", FineTunePhase::Stopped).await;
    settled(&sandbox, 2).await
}

async fn pause_and_resume(sandbox: Sandbox) -> FineTune {
    let run = training(sandbox.clone()).await;
    sandbox.edit("bot", json!({"desiredState": "Paused"})).await.unwrap();
    sandbox.until_phase("bot", FineTunePhase::Paused).await;
    settled(&sandbox, 2).await;
    sandbox.edit("bot", json!({"desiredState": "Running"})).await.unwrap();
    train(&sandbox, &run, 2).await;
    settled(&sandbox, 4).await
}

async fn scratch_after_success(sandbox: Sandbox) -> FineTune {
    let run = success(sandbox.clone()).await;
    train_from_scratch(&sandbox, &run).await;
    settled(&sandbox, 8).await
}

async fn scratch_after_stop(sandbox: Sandbox) -> FineTune {
    let run = stop(sandbox.clone()).await;
    train_from_scratch(&sandbox, &run).await;
    settled(&sandbox, 6).await
}

/// Asks for a second attempt that begins anew, and trains it to its end. What the first has saved stays.
async fn train_from_scratch(sandbox: &Sandbox, run: &FineTune) {
    let anew = json!({"desiredState": "Running", "restarts": 1, "startFrom": {"policy": "Scratch"}});
    sandbox.edit("bot", anew).await.unwrap();
    let mut agent = Agent::training(sandbox, run, 2).await;
    let mut report = so_far(2, SAVES, 100);
    report.checkpoints.iter_mut().for_each(|checkpoint| checkpoint.lineage = 2);
    report.end = Some(End::default());
    agent.report(report).await;
    agent.end("succeed", "").await;
    sandbox.until_phase("bot", FineTunePhase::Succeeded).await;
}

async fn deploy(sandbox: Sandbox) -> ModelDeployment {
    serving::checkpoint(&sandbox, "first").await;
    serving::serve(&sandbox, "first").await;
    serving::until_serving(&sandbox).await
}

/// Another checkpoint, and more of it.
async fn rollout(sandbox: Sandbox) -> ModelDeployment {
    deploy(sandbox.clone()).await;
    serving::checkpoint(&sandbox, "second").await;
    serving::edit(&sandbox, json!({"checkpoint": {"name": "second"}, "replicas": 2})).await;
    serving::until_serving(&sandbox).await
}

/// A run whose last checkpoint is served once it has succeeded.
async fn auto_deploy(sandbox: Sandbox) -> FineTune {
    let run = sandbox.run("bot", json!({"autoDeploy": {"checkpoint": "Last", "type": "fast"}})).await;
    train(&sandbox, &run, 1).await;
    rollouts::until_deployed(&sandbox, "Serving").await;
    settled(&sandbox, 4).await
}

/// A run whose second checkpoint is better, and cannot be served.
async fn roll_back(sandbox: Sandbox) -> FineTune {
    let run = sandbox.run("bot", json!({"autoDeploy": {"checkpoint": "Best"}})).await;
    let mut agent = Agent::training(&sandbox, &run, 1).await;
    agent.report(so_far(1, &[(10, "3.0")], 13)).await;
    rollouts::until_deployed(&sandbox, "Serving").await;
    let saves = [(10, "3.0"), (13, "1.0")];
    agent.report(so_far(1, &saves, 13)).await;
    rollouts::until_deployed(&sandbox, "RolledBack").await;
    agent.report(Report { end: Some(End::default()), ..so_far(1, &saves, 13) }).await;
    agent.end("succeed", "").await;
    sandbox.until_phase("bot", FineTunePhase::Succeeded).await;
    settled(&sandbox, 2).await
}

/// The budget of a run that trains is cut to less than it has spent.
async fn budget(sandbox: Sandbox) -> FineTune {
    training(sandbox.clone()).await;
    sandbox.edit("bot", json!({"budget": {"maxDuration": "1s"}})).await.unwrap();
    sandbox.until_phase("bot", FineTunePhase::Failed).await;
    settled(&sandbox, 2).await
}

/// The newest and the best stay; the others go while the run trains, by the hand of its agent.
async fn retention(sandbox: Sandbox) -> FineTune {
    let saves = [(10, "3.0"), (20, "1.0"), (30, "2.0"), (40, "1.5")];
    let goes_after = [None, Some(10), None, Some(30)];
    let run = sandbox.run("bot", json!({"checkpoints": {"keepLast": 1, "keepBest": 1}})).await;
    let mut agent = Agent::training(&sandbox, &run, 1).await;
    let mut there = Vec::new();
    for (save, goes) in saves.into_iter().zip(goes_after) {
        there.push(save);
        agent.report(so_far(1, &there, 40)).await;
        if let Some(step) = goes {
            remove(&sandbox, &mut agent, &there, step).await;
            there.retain(|(saved, _)| *saved != step);
        }
    }
    agent.report(Report { end: Some(End::default()), ..so_far(1, &there, 40) }).await;
    agent.end("succeed", "").await;
    sandbox.until_phase("bot", FineTunePhase::Succeeded).await;
    settled(&sandbox, 2).await
}

/// Waits until a checkpoint is to go, gets the order with the answer to a report, and says that it is done.
async fn remove(sandbox: &Sandbox, agent: &mut Agent, there: &[(i64, &str)], step: i64) {
    let leaves = |checkpoint: &Checkpoint| checkpoint.metadata.deletion_timestamp.is_some();
    let checkpoint = until(&sandbox.api(), &format!("bot-step-{step}"), "it is to go", leaves).await;
    let mut report = so_far(1, there, 40);
    // The operator's own watch may be a moment behind ours.
    let mut orders = Vec::new();
    for _ in 0..TRIES {
        orders = agent.report(report.clone()).await.delete;
        if !orders.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(orders.iter().map(|key| key.step).collect::<Vec<_>>(), [step]);
    let gone = report.checkpoints.iter_mut().find(|saved| saved.step == step).unwrap();
    gone.state = FilesState::Missing;
    agent.report(report).await;
    until_gone(&sandbox.api(), &checkpoint).await;
}

/// The run, once its status counts all checkpoints and the best of them alone carries the mark.
async fn settled(sandbox: &Sandbox, checkpoints: i64) -> FineTune {
    let run = sandbox.until_run("bot", "all are counted", |status| status.checkpoint_count == checkpoints).await;
    let best = run.status.as_ref().unwrap().best_checkpoint.clone();
    for checkpoint in sandbox.checkpoints(&run).await {
        let name = checkpoint.name_any();
        let is_marked_rightly = |checkpoint: &Checkpoint| {
            let marked = checkpoint.status.as_ref().is_some_and(|status| status.best);
            marked == (checkpoint.metadata.name == best)
        };
        until(&sandbox.api(), &name, "the best alone is marked", is_marked_rightly).await;
    }
    sandbox.api().get("bot").await.unwrap()
}
