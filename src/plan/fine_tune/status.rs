//! The status a FineTune is to have. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rust_decimal::Decimal;

use super::{
    ObservedFineTune,
    attempt::{AttemptFacts, NextAttempt},
    group, lost, news, outcome,
    resolution::Resolution,
    stage::{self, Stage},
    turn::{self, Books, Turn},
};
use crate::{
    api::{Attempt, Cost, DesiredState, Failure, FineTunePhase, FineTuneStatus, QueueStatus, condition},
    plan::{
        Notice, Problem,
        condition::{Course, State, conditions},
        cost, names, ranking,
        status_text::cut,
    },
};

/// Most attempts a status tells of.
const MOST_ATTEMPTS: usize = 20;

/// The status for `stage`. `progress` is never ours: it is carried over untouched, and left out when the status is written.
pub fn status(
    observed: &ObservedFineTune,
    facts: &AttemptFacts,
    (stage, launch): (&Stage, Option<&Resolution>),
    now: Timestamp,
) -> FineTuneStatus {
    let before = observed.status();
    let mut status = before.clone();
    let desired = observed.fine_tune.spec.desired_state;
    status.observed_generation = observed.fine_tune.metadata.generation;
    if *stage == Stage::Over {
        refresh_checkpoints(observed, &mut status);
        keep_conditions(&before, &mut status);
        return status;
    }
    status.phase = stage::phase(stage, desired, before.phase);
    status.failure = failure(stage);
    status.queue = place(observed, facts, stage);
    let next = facts.next_attempt(observed);
    let recorded = AttemptFacts::on_record(observed);
    if launch.is_none() || next.number > recorded.number {
        follow(&recorded, stage, &mut status, now);
    }
    if let Some(resolution) = launch {
        begin(observed, resolution, next, &mut status);
    }
    refresh_checkpoints(observed, &mut status);
    let stands = state(stage, desired, edited(observed, &status));
    let stands = lost::node_lost(observed, now).filter(|_| stands.course == Course::Reconciling).unwrap_or(stands);
    status.completion_time = stands.finished.then(|| before.completion_time.clone().unwrap_or(Time(now)));
    status.conditions = conditions(&before.conditions, &stands, status.observed_generation, now);
    status
}

/// Whether the spec was edited since the running attempt was started.
fn edited(observed: &ObservedFineTune, status: &FineTuneStatus) -> bool {
    status.resolved.as_ref().is_some_and(|resolved| Some(resolved.generation) != observed.fine_tune.metadata.generation)
}

/// Ends a terminal state only in name: the generation moves on, nothing else.
fn keep_conditions(before: &FineTuneStatus, status: &mut FineTuneStatus) {
    status.conditions.clone_from(&before.conditions);
    for condition in &mut status.conditions {
        condition.observed_generation = status.observed_generation;
    }
}

/// A new attempt begins.
fn begin(observed: &ObservedFineTune, resolution: &Resolution, next: NextAttempt, status: &mut FineTuneStatus) {
    if observed.fine_tune.spec.restarts > status.restarts {
        status.failures = 0;
    }
    status.attempt = next.number;
    status.lineage = next.lineage;
    status.restarts = observed.fine_tune.spec.restarts;
    status.job_name = Some(names::job(observed.name(), observed.uid(), next.number));
    status.resolved = Some(resolution.resolved());
    status.resumed_from = None;
    if status.attempts.iter().all(|attempt| attempt.number != next.number) {
        status.attempts.push(Attempt { number: next.number, lineage: next.lineage, ..Attempt::default() });
    }
    let surplus = status.attempts.len().saturating_sub(MOST_ATTEMPTS);
    status.attempts.drain(..surplus);
    status.cost = Some(price(resolution.hardware.spec.cost_per_hour.as_deref(), resolution, status));
}

fn price(per_hour: Option<&str>, resolution: &Resolution, status: &FineTuneStatus) -> Cost {
    let of_node = per_hour.map(cost::decimal).unwrap_or_default();
    let before = status.cost.clone().unwrap_or_default();
    Cost {
        per_hour: of_node.saturating_mul(Decimal::from(resolution.nodes)).normalize().to_string(),
        currency: resolution.hardware.spec.currency.clone(),
        accrued: if before.accrued.is_empty() { "0".into() } else { before.accrued },
        ..before
    }
}

/// The current attempt goes on or ends.
fn follow(facts: &AttemptFacts, stage: &Stage, status: &mut FineTuneStatus, now: Timestamp) {
    let progress = status.progress.clone().filter(|progress| progress.attempt == facts.number);
    status.attempt = facts.number.max(status.attempt);
    if let Some(progress) = &progress {
        status.resumed_from = progress.resumed_from;
    }
    let over = stage.end_of_attempt();
    let attempt = status.attempts.iter_mut().find(|attempt| attempt.number == facts.number);
    if let Some(attempt) = attempt.filter(|_| *stage == Stage::Falling && group::is_disrupted(&facts.pods)) {
        // The pod that is taken away is gone when its group has fallen: what it tells is kept here.
        attempt.reason = Some(outcome::INTERRUPTED.into());
    }
    let Some(books) = Books::of(status, facts) else { return };
    let turn = if over.is_some() { Some(Turn::Ends(now)) } else { books.turn(stage, now) };
    let Some(turn) = turn else { return };
    let held = books.held(turn.at());
    let (nodes, gpus) = (turn::nodes(status), status.resolved.as_ref().map_or(0, |resolved| i64::from(resolved.gpus)));
    status.failures += i32::from(matches!(stage, Stage::Fallen(fall) if fall.counted));
    let began = facts.pods.iter().filter_map(|pod| pod.status.as_ref()?.start_time.clone()).min_by_key(|time| time.0);
    let Some(attempt) = status.attempts.iter_mut().find(|attempt| attempt.number == facts.number) else { return };
    attempt.start_time = attempt.start_time.take().or(began);
    attempt.turn_start = turn.start().map(Time);
    if matches!(turn, Turn::Begins(_)) {
        return;
    }
    let is_first_turn = attempt.gpu_seconds == 0 && attempt.to_step == 0;
    if is_first_turn {
        attempt.from_step = progress.as_ref().and_then(|progress| progress.resumed_from).unwrap_or(0);
    }
    attempt.to_step = progress.map_or_else(|| attempt.from_step.max(attempt.to_step), |progress| progress.step);
    attempt.gpu_seconds = attempt.gpu_seconds.saturating_add(cost::gpu_seconds(held, nodes, gpus));
    attempt.end_time = over.is_some().then_some(Time(now));
    attempt.reason = over.or_else(|| attempt.reason.take());
    if status.start_time.is_none() {
        status.start_time.clone_from(&attempt.start_time);
    }
    if let Some(cost) = &mut status.cost {
        cost::charge(cost, held, nodes, gpus);
        cost.as_of = Some(Time(turn.at()));
    }
}

/// The place in the queue. Before Kueue was asked about a Job, what was known still counts: this process may have just begun to lead.
fn place(observed: &ObservedFineTune, facts: &AttemptFacts, stage: &Stage) -> Option<QueueStatus> {
    let Stage::Queued(waiting) = stage else { return None };
    if waiting.reason != stage::QUEUED {
        return Some(QueueStatus { position: None, reason: Some(cut(&waiting.message, 1024)) });
    }
    let job = facts.job.as_ref()?.metadata.uid.as_deref()?;
    let known = || observed.status().queue.filter(|_| observed.status().phase == FineTunePhase::Queued);
    observed.places.get(job).map_or_else(known, |place| Some(place.clone()).filter(|place| *place != QueueStatus::default()))
}

fn refresh_checkpoints(observed: &ObservedFineTune, status: &mut FineTuneStatus) {
    let name = |checkpoint: &std::sync::Arc<crate::api::Checkpoint>| checkpoint.metadata.name.clone();
    status.checkpoint_count = i64::try_from(ranking::usable(&observed.checkpoints).count()).unwrap_or(i64::MAX);
    status.latest_checkpoint = ranking::latest(&observed.checkpoints).and_then(name);
    status.best_checkpoint = ranking::best(&observed.checkpoints, &observed.fine_tune.spec.checkpoints).and_then(name);
}

fn failure(stage: &Stage) -> Option<Failure> {
    match stage {
        Stage::Failed(failure) => Some(failure.clone()),
        Stage::Blocked(problems) => problems.iter().find(|problem| !problem.waits).map(|problem| Failure {
            reason: problem.reason.into(),
            message: problem.message.clone(),
            hint: format!("edit {}", problem.field),
            field: Some(problem.field.clone()),
            exit_code: None,
            user_error: true,
        }),
        _ => None,
    }
}

fn state(stage: &Stage, desired: DesiredState, edited: bool) -> State {
    let note = if edited { "; the spec was edited since: that takes effect with the next attempt" } else { "" };
    match stage {
        Stage::Blocked(problems) => blocked(problems),
        Stage::Queued(waiting) | Stage::Starting(waiting) => {
            State::reconciling(waiting.reason.clone(), format!("{}{note}", waiting.message))
        }
        Stage::Launch => State::reconciling("Starting", "the pod starts, loads its data and checks what it can resume from"),
        Stage::Training | Stage::Ended | Stage::Over => {
            State::reconciling("Training", format!("the trainer trains; see status.progress{note}"))
        }
        Stage::Collecting => State::reconciling("Collecting", "training has ended; what it left is being read from the output"),
        Stage::Falling => State::reconciling("NodeFailed", "one node failed or is taken away: the pods of the others end"),
        Stage::Fallen(fall) => State::reconciling(
            "Restarting",
            format!("all nodes begin again from the last good checkpoint, since one ended: {}", fall.failure.message),
        ),
        Stage::Exceeding(exceeded) => {
            State::reconciling(exceeded.reason, "the budget is spent: the pods are given time to save and end")
        }
        Stage::Ending if desired == DesiredState::Running => State::reconciling("Ending", "the pods of the last attempt end"),
        Stage::Ending => State::reconciling(
            format!("{desired:?}").replace("ped", "ping").replace("sed", "sing"),
            "the pods are given time to save and end",
        ),
        Stage::Paused => State::resting("Paused", "set spec.desiredState to Running to go on from the last checkpoint"),
        Stage::Stopped => State::resting("Stopped", "raise spec.restarts with spec.desiredState Running to go on").finished(),
        Stage::Succeeded => State::ready("Succeeded", "trained to the end").finished(),
        Stage::Failed(failure) => State::stalled(failure.reason.clone(), failure.message.clone()).finished(),
    }
}

/// Waits when everything wrong may mend itself, else stalled.
fn blocked(problems: &[Problem]) -> State {
    let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let first = problems.iter().find(|problem| !problem.waits).or_else(|| problems.first());
    match first {
        Some(problem) if problem.waits => State::reconciling(problem.reason, message),
        Some(problem) => State::stalled(problem.reason, message),
        None => State::reconciling("Pending", message),
    }
}

/// What changed for people between the status before and `after`: one notice a transition.
pub fn notices(observed: &ObservedFineTune, after: &FineTuneStatus) -> Vec<Notice> {
    let before = observed.status();
    let ready = condition::find(&after.conditions, condition::READY);
    let message = ready.map(|condition| condition.message.clone()).unwrap_or_default();
    if after.attempt > before.attempt {
        let job = after.job_name.clone().unwrap_or_default();
        return vec![news("AttemptStarted", format!("attempt {} started as Job {job}", after.attempt))];
    }
    let was = condition::find(&before.conditions, condition::READY).map(|condition| condition.reason.as_str());
    let is = ready.map(|condition| condition.reason.as_str());
    if let Some(reason) = ["NodeLost", "Restarting"].into_iter().find(|reason| was != is && is == Some(reason)) {
        return vec![Notice { warning: true, reason, message }];
    }
    if before.phase == after.phase {
        let blocked = was != is && after.phase == FineTunePhase::Pending;
        return if blocked { vec![Notice { warning: true, reason: "NotReady", message }] } else { Vec::new() };
    }
    match after.phase {
        FineTunePhase::Pending => vec![Notice { warning: true, reason: "NotReady", message }],
        FineTunePhase::Succeeded => vec![news("Succeeded", message)],
        FineTunePhase::Failed => vec![Notice { warning: true, reason: "Failed", message }],
        FineTunePhase::Stopped => vec![news("Stopped", message)],
        FineTunePhase::Paused => vec![news("Paused", message)],
        FineTunePhase::Queued => vec![news("Queued", message)],
        FineTunePhase::Running => vec![news("Training", "the trainer trains")],
        FineTunePhase::Preparing | FineTunePhase::Pausing | FineTunePhase::Stopping => Vec::new(),
    }
}
