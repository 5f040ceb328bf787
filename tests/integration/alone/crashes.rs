//! A run under an operator that dies at every one of its writes, just before it and just after it, and at odd moments: it ends as an undisturbed
//! one does, with the same objects made and deleted.

use std::{sync::Arc, time::Duration};

use kube::ResourceExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

use finetune_operator::api::{Checkpoint, FineTune};

use crate::{
    harness::{
        Sandbox, audit,
        normal::normal,
        proxy::{Fault, Moment, Proxied},
        sandbox::with_sandbox,
        wait::until,
    },
    run::{delete, nothing_is_left, train},
};

/// Every how many writes the operator dies, unless all points are asked for.
const SAMPLE: usize = 5;
/// Runs with deaths at odd moments: all, and in a sample.
const ODD: (u64, u64) = (20, 2);

/// What a run leaves behind, and what was made and deleted for it.
#[derive(Debug, PartialEq, Eq)]
struct Story {
    end: String,
    writes: Vec<String>,
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_death_at_any_write_changes_nothing_in_the_end() {
    let (expected, writes) = undisturbed().await;
    println!("an undisturbed run takes {} writes:\n{}", writes.len(), writes.join("\n"));
    let step = if all() { 1 } else { SAMPLE };
    let mut wrong = Vec::new();
    for request in 1..=writes.len() {
        for (offset, moment) in [(1, Moment::Before), (2 % step, Moment::After)] {
            if request % step != offset % step {
                continue;
            }
            let fault = Fault { request, moment };
            let proxied = Arc::new(Proxied::start(Some(fault)).await);
            let story = tokio::time::timeout(Duration::from_mins(4), tell(&proxied)).await;
            assert!(proxied.has_died(), "{fault:?} was never reached");
            let what = format!("{moment:?} write {request}, {}", writes[request - 1]);
            println!("died {what}");
            match story {
                Ok(story) => wrong.extend(difference(&expected, &story).map(|difference| format!("{what}:\n{difference}"))),
                Err(_) => wrong.push(format!("{what}: it does not end")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn deaths_at_odd_moments_change_nothing_in_the_end() {
    let (expected, _) = undisturbed().await;
    for seed in 0..if all() { ODD.0 } else { ODD.1 } {
        let proxied = Arc::new(Proxied::start(None).await);
        let operator = proxied.operator.clone();
        let deaths = tokio::spawn(async move {
            let mut chance = StdRng::seed_from_u64(seed);
            loop {
                tokio::time::sleep(Duration::from_millis(chance.random_range(300..4000))).await;
                let operator = operator.clone();
                tokio::task::spawn_blocking(move || operator.crash()).await.unwrap();
            }
        });
        let story = tell(&proxied).await;
        deaths.abort();
        let difference = difference(&expected, &story);
        assert!(difference.is_none(), "seed {seed}: {}", difference.unwrap_or_default());
    }
}

fn all() -> bool {
    std::env::var("FINETUNE_IT_ALL").is_ok_and(|value| value == "1")
}

/// The story nobody disturbs, and the writes it takes.
async fn undisturbed() -> (Story, Vec<String>) {
    let proxied = Arc::new(Proxied::start(None).await);
    let story = tell(&proxied).await;
    (story, proxied.seen())
}

/// One run from its creation to its end, and its deletion.
async fn tell(proxied: &Arc<Proxied>) -> Story {
    let (sender, story) = tokio::sync::oneshot::channel();
    let proxied = Arc::clone(proxied);
    with_sandbox(|sandbox| async move {
        proxied.count_in(&sandbox.namespace);
        let run = sandbox.run("bot", json!({})).await;
        train(&sandbox, &run, 1).await;
        let is_best = |checkpoint: &Checkpoint| checkpoint.status.as_ref().is_some_and(|status| status.best);
        until(&sandbox.api(), "bot-step-100", "it is marked as the best", is_best).await;
        let run = sandbox.until_run("bot", "all are counted", |status| status.checkpoint_count == 4).await;
        let end = end(&sandbox, &run).await;
        delete(&sandbox, &run).await;
        nothing_is_left(&sandbox, &run).await;
        let writes = made_and_deleted(&sandbox.namespace, &run);
        sender.send(Story { end, writes }).unwrap();
    })
    .await;
    story.await.unwrap()
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

/// What the operator made and deleted in a namespace, each with its name, in order of name.
fn made_and_deleted(namespace: &str, run: &FineTune) -> Vec<String> {
    let uid = run.uid().unwrap();
    let counts = |request: &&audit::Request| {
        let object = &request.object_ref;
        object.namespace == namespace
            && ["create", "delete"].contains(&request.verb.as_str())
            && object.resource != "events"
            && request.succeeded()
    };
    let name = |request: &audit::Request| {
        format!("{} {} {}", request.verb, request.resource(), request.object_ref.name.replace(&uid[..8], "UID8"))
    };
    let mut all: Vec<_> = audit::of_operator().iter().filter(counts).map(name).collect();
    all.sort();
    all
}

/// What differs, the first lines of it.
fn difference(expected: &Story, told: &Story) -> Option<String> {
    if expected == told {
        return None;
    }
    let lines = expected.end.lines().zip(told.end.lines()).filter(|(left, right)| left != right).take(8);
    let lines: Vec<_> = lines.map(|(left, right)| format!("- {left}\n+ {right}")).collect();
    let lengths = (expected.end.lines().count(), told.end.lines().count());
    let objects = format!("{}\n{lengths:?} lines\n", lines.join("\n"));
    let writes = if expected.writes == told.writes {
        String::new()
    } else {
        format!("{:#?}\ninstead of\n{:#?}", told.writes, expected.writes)
    };
    Some(objects + &writes)
}
