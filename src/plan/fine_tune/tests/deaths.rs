//! Any course of a run under a process that dies between its writes: it never does what must never be done.

use std::collections::BTreeSet;

use super::*;

/// What can happen here, beside what can happen to any run.
#[derive(Clone, Debug)]
enum Event {
    Any(Happening),
    /// A pod fails, and the Job will make another.
    PodFails,
    FromScratch,
    StartGone,
    StartBack,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => happening().prop_map(Event::Any),
        2 => Just(Event::Any(Happening::Runs)),
        1 => Just(Event::PodFails),
        1 => Just(Event::FromScratch),
        1 => Just(Event::StartGone),
        1 => Just(Event::StartBack),
    ]
}

fn spec() -> impl Strategy<Value = Value> {
    let few = || proptest::option::of(1..3);
    (0..3, few(), few(), any::<bool>()).prop_map(|(retries, keep_last, keep_best, warm)| {
        let checkpoints = json!({"keepLast": keep_last, "keepBest": keep_best});
        let start = if warm { json!({"checkpoint": {"name": "other-step-5"}}) } else { json!({}) };
        json!({"retries": retries, "checkpoints": checkpoints, "startFrom": start})
    })
}

fn begin(spec: Value) -> ObservedFineTune {
    ObservedFineTune { start_checkpoint: Some(start()), ..world(spec) }
}

/// A checkpoint of another run.
fn start() -> Arc<Checkpoint> {
    let mut start = checkpoint(5, "0.7", CheckpointPhase::Ready);
    let other = Arc::make_mut(&mut start);
    other.metadata.name = Some("other-step-5".into());
    other.spec.base_model.name = "tiny".into();
    start
}

fn take_place(world: &mut ObservedFineTune, event: &Event) {
    let at_work = world.jobs.last().is_some_and(|job| outcome(job, &[]).is_none()) && !world.pods.is_empty();
    match event {
        Event::Any(Happening::Saved(step)) => {
            let lineage = world.status().lineage.max(1);
            let mut saved =
                checkpoint(*step, ["0.5", "0.2", "0.9", "0.4"][usize::try_from(*step).unwrap() % 4], CheckpointPhase::Ready);
            let new = Arc::make_mut(&mut saved);
            new.spec.lineage = lineage;
            new.metadata.name = Some(format!("a-v{lineage}-step-{step}"));
            new.metadata.uid = new.metadata.name.clone();
            world.checkpoints.retain(|known| known.metadata.name != new.metadata.name);
            world.checkpoints.push(saved);
        }
        Event::Any(happening) => happen(world, happening.clone()),
        Event::PodFails if at_work => job_becomes(world, "Failed", None),
        Event::PodFails => {}
        Event::FromScratch => edit(world, |run| {
            run.spec.restarts += 1;
            run.spec.start_from.policy = crate::api::StartPolicy::Scratch;
        }),
        Event::StartGone => world.start_checkpoint = None,
        Event::StartBack => world.start_checkpoint = Some(start()),
    }
}

/// What is never done, whatever the world.
fn is_allowed(world: &ObservedFineTune, plan: &Plan<FineTuneStatus>, worked: &BTreeSet<String>) -> Result<(), TestCaseError> {
    for job in jobs_made(plan) {
        prop_assert!(!worked.contains(job), "{job} has been at work and is made again");
    }
    let policy = &world.fine_tune.spec.checkpoints;
    let best = ranking::best(&world.checkpoints, policy).filter(|_| policy.keep_best.is_some());
    let precious: Vec<_> = best.into_iter().chain(ranking::latest(&world.checkpoints)).collect();
    for change in &plan.changes {
        if let Change::Delete(ChildReference { kind: ChildKind::Checkpoint, uid, .. }) = change {
            prop_assert!(precious.iter().all(|kept| kept.metadata.uid.as_ref() != Some(uid)), "{uid} goes");
        }
    }
    if let Some(status) = &plan.status {
        let before = world.status();
        prop_assert!((status.attempt, status.lineage) >= (before.attempt, before.lineage), "{:?}", status);
        prop_assert!(status.lineage <= before.lineage + 1);
    }
    Ok(())
}

/// Looks until nothing is left to do, which must be soon.
fn settle(world: &mut ObservedFineTune, worked: &BTreeSet<String>) -> Result<(), TestCaseError> {
    for _ in 0..4 {
        let plan = plan(world, &settings(), now());
        is_allowed(world, &plan, worked)?;
        carry_out(world, &plan);
        // The Checkpoints have a controller of their own, which lets them go.
        world.checkpoints.retain(|checkpoint| checkpoint.metadata.deletion_timestamp.is_none());
        prop_assert!(active_jobs(world) <= 1, "two active jobs");
    }
    let settled = plan(world, &settings(), now());
    prop_assert_eq!(&settled.changes, &Vec::new());
    prop_assert_eq!(settled.status.as_ref(), Some(&world.status()));
    let policy = &world.fine_tune.spec.checkpoints;
    if let Some(most) =
        policy.keep_last.or(policy.keep_best).map(|_| policy.keep_last.unwrap_or(1) + policy.keep_best.unwrap_or(0))
    {
        prop_assert!(ranking::usable(&world.checkpoints).count() <= usize::try_from(most).unwrap());
    }
    Ok(())
}

/// The process dies after its first `writes`, and before the status.
fn die(world: &mut ObservedFineTune, writes: usize, worked: &BTreeSet<String>) -> Result<(), TestCaseError> {
    let mut plan = plan(world, &settings(), now());
    is_allowed(world, &plan, worked)?;
    plan.changes.truncate(writes);
    carry_out(world, &Plan { status: None, ..plan });
    Ok(())
}

fn job_names(world: &ObservedFineTune) -> BTreeSet<Option<String>> {
    world.jobs.iter().map(|job| job.metadata.name.clone()).collect()
}

fn checkpoint_names(world: &ObservedFineTune) -> BTreeSet<Option<String>> {
    world.checkpoints.iter().map(|checkpoint| checkpoint.metadata.name.clone()).collect()
}

/// Names of the Jobs whose attempts are known to have been at work. Of others nobody knows, when they vanish between two deaths.
fn known_at_work(world: &ObservedFineTune) -> impl Iterator<Item = String> {
    let attempts = world.status().attempts.into_iter();
    let known = attempts.filter(|attempt| attempt.start_time.is_some() || attempt.end_time.is_some());
    known.map(|attempt| format!("a-0b9f6a1e-{}", attempt.number))
}

proptest! {
    #[test]
    fn no_attempt_is_made_twice_though_the_process_hardly_ever_lives(
        spec in spec(),
        course in proptest::collection::vec((event(), 0_usize..6), 0..25),
    ) {
        let (mut world, mut worked) = (begin(spec), BTreeSet::new());
        for (event, writes) in course {
            take_place(&mut world, &event);
            worked.extend(known_at_work(&world));
            match writes {
                4 => settle(&mut world, &worked)?,
                5 => {}
                writes => die(&mut world, writes, &worked)?,
            }
            prop_assert!(active_jobs(&world) <= 1, "two active jobs");
        }
    }

    #[test]
    fn a_process_that_dies_between_its_writes_ends_where_one_that_lives_does(
        spec in spec(),
        course in proptest::collection::vec((event(), proptest::collection::vec(0_usize..4, 0..3)), 0..25),
    ) {
        let (mut living, mut dying) = (begin(spec.clone()), begin(spec));
        let mut worked = BTreeSet::new();
        for (event, deaths) in course {
            take_place(&mut living, &event);
            take_place(&mut dying, &event);
            worked.extend(known_at_work(&living));
            settle(&mut living, &worked)?;
            for writes in deaths {
                die(&mut dying, writes, &worked)?;
            }
            settle(&mut dying, &worked)?;
            prop_assert_eq!(dying.status(), living.status());
            prop_assert_eq!(job_names(&dying), job_names(&living));
            prop_assert_eq!(checkpoint_names(&dying), checkpoint_names(&living));
            prop_assert_eq!(&dying.fine_tune.metadata.finalizers, &living.fine_tune.metadata.finalizers);
        }
    }
}
