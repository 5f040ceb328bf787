//! Runs under an operator that dies at its writes, just before the server gets one, while it works on it, or just after it has done it, and at
//! odd moments: each ends as an undisturbed one does, with the same objects made and deleted.
//!
//! `FINETUNE_IT_ALL=1` takes every point, `FINETUNE_IT_SEED` chooses another sample, `FINETUNE_IT_SCENARIO` one scenario alone.

mod scenarios;
mod story;

use std::{fmt::Display, time::Duration};

use futures::{StreamExt, stream};
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IteratorRandom, SliceRandom},
};

use crate::harness::{
    proxy::{Fault, Moment},
    sandbox::with_sandbox,
};
use scenarios::{SCENARIOS, Scenario};
use story::{Story, Told, tell};

/// Stories told at once. Each has an operator and a namespace of its own, and the operator sees no other.
const AT_ONCE: usize = 4;
/// Longest a story may take.
const PATIENCE: Duration = Duration::from_mins(4);
/// The moments of a death.
const MOMENTS: [Moment; 3] = [Moment::Before, Moment::During, Moment::After];
/// Runs with deaths at odd moments: all, and in a sample.
const ODD: (u64, u64) = (20, 2);
/// Of how many points one may lie beyond the last write of its run: what is written by the way is not the same each time.
const BEYOND: usize = 10;

/// A scenario undisturbed.
struct Expected {
    scenario: &'static Scenario,
    story: Story,
    writes: Vec<String>,
}

/// A death in a scenario.
#[derive(Clone, Copy)]
struct Point<'a> {
    expected: &'a Expected,
    fault: Fault,
}

/// How a run with a death went.
enum Verdict {
    Equal,
    Beyond,
    Wrong(String),
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_death_at_any_write_changes_nothing_in_the_end() {
    let expected: Vec<_> = stream::iter(scenarios()).map(undisturbed).buffered(AT_ONCE).collect().await;
    for Expected { scenario, writes, .. } in &expected {
        println!("{}: {} writes undisturbed", scenario.name, writes.len());
    }
    let points = points(&expected);
    let (run, mut beyond, mut wrong) = (points.len(), 0, Vec::new());
    let mut verdicts = stream::iter(points).map(|point| async move { (point, verdict(point).await) }).buffer_unordered(AT_ONCE);
    while let Some((point, verdict)) = verdicts.next().await {
        match verdict {
            Verdict::Equal => println!("ok {point}"),
            Verdict::Beyond => {
                println!("beyond the last write: {point}");
                beyond += 1;
            }
            Verdict::Wrong(why) => {
                println!("WRONG {point}");
                wrong.push(format!("{point}:\n{why}"));
            }
        }
    }
    println!("{run} crash points run, {} failed ({beyond} beyond the last write)", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(beyond * BEYOND <= run, "too many points were never reached to call this a sweep");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn deaths_at_odd_moments_change_nothing_in_the_end() {
    let success = &SCENARIOS[0];
    let expected = undisturbed(success).await;
    let seeds = 0..if all() { ODD.0 } else { ODD.1 };
    let told = |seed| async move { (seed, with_sandbox(move |sandbox| story::tell_while_dying(success, sandbox, seed)).await) };
    let mut stories = stream::iter(seeds).map(told).buffer_unordered(AT_ONCE);
    while let Some((seed, story)) = stories.next().await {
        let difference = expected.story.difference(&story);
        assert!(difference.is_none(), "seed {seed}: {}", difference.unwrap_or_default());
    }
}

fn all() -> bool {
    std::env::var("FINETUNE_IT_ALL").is_ok_and(|value| value == "1")
}

/// All scenarios, or the one that is asked for.
fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    let wanted = std::env::var("FINETUNE_IT_SCENARIO").ok();
    SCENARIOS.iter().filter(move |scenario| wanted.as_ref().is_none_or(|wanted| wanted == scenario.name))
}

/// The story nobody disturbs, and the writes it takes.
async fn undisturbed(scenario: &'static Scenario) -> Expected {
    let Told { story, writes, .. } = with_sandbox(move |sandbox| tell(scenario, sandbox, None)).await;
    Expected { scenario, story, writes }
}

/// Every point, of each scenario and moment one unless all are asked for; in no order, so that a sweep that is cut short has seen something of each.
fn points(expected: &[Expected]) -> Vec<Point<'_>> {
    let seed = std::env::var("FINETUNE_IT_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut chance = StdRng::seed_from_u64(seed);
    let mut points = Vec::new();
    for expected in expected {
        for moment in MOMENTS {
            let requests = 1..=expected.writes.len();
            let chosen = if all() { requests.collect() } else { requests.choose_multiple(&mut chance, 1) };
            points.extend(chosen.into_iter().map(|request| Point { expected, fault: Fault { request, moment } }));
        }
    }
    points.shuffle(&mut chance);
    points
}

/// Tells the story with a death in it.
async fn verdict(Point { expected, fault }: Point<'_>) -> Verdict {
    let scenario = expected.scenario;
    let telling = tokio::spawn(tokio::time::timeout(PATIENCE, with_sandbox(move |sandbox| tell(scenario, sandbox, Some(fault)))));
    match telling.await {
        Ok(Ok(told)) => match expected.story.difference(&told.story) {
            Some(difference) => Verdict::Wrong(difference),
            None if told.died => Verdict::Equal,
            None => Verdict::Beyond,
        },
        Ok(Err(_)) => Verdict::Wrong("it does not end".to_owned()),
        Err(panic) => Verdict::Wrong(why(panic)),
    }
}

/// The words of a panic.
fn why(panic: tokio::task::JoinError) -> String {
    let words = panic.into_panic();
    words.downcast::<String>().map_or_else(|_| "it panicked".to_owned(), |words| *words)
}

impl Display for Point<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { expected, fault } = self;
        let write = &expected.writes[fault.request - 1];
        write!(formatter, "{}, {:?} write {}, {write}", expected.scenario.name, fault.moment, fault.request)
    }
}

/// Milliseconds until the next death.
fn odd_pause(chance: &mut StdRng) -> Duration {
    Duration::from_millis(chance.random_range(300..4000))
}
