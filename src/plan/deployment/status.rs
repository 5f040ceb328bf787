//! The status a Deployment of ours is to have. Pure.

use jiff::Timestamp;

use super::{
    ObservedDeployment, children, permission,
    resolution::Resolution,
    stage::{Census, Stage},
};
use crate::{
    api::{DeploymentPhase, Failure, ModelDeploymentStatus, condition},
    plan::{
        Notice, Problem,
        condition::{State, conditions},
        status_text::cut,
    },
};

/// Longest message of a condition.
const MOST_TEXT: usize = 8192;

/// The status for `stage`.
pub fn status(
    observed: &ObservedDeployment,
    stage: &Stage,
    resolution: Option<&Resolution>,
    now: Timestamp,
) -> ModelDeploymentStatus {
    let before = observed.status();
    let census = Census::of(observed.workload.as_deref());
    let generation = observed.deployment.metadata.generation;
    let phase = phase(stage, census);
    let mut status = ModelDeploymentStatus {
        observed_generation: generation,
        conditions: conditions(&before.conditions, &beside(state(stage), stage, observed, census), generation, now),
        phase,
        url: resolution.map(children::url).or_else(|| before.url.filter(|_| permission::refusal(observed).is_none())),
        model_name: model_name(stage, resolution, before.model_name),
        checkpoint: match stage {
            Stage::Serving => Some(observed.deployment.spec.checkpoint.clone()),
            Stage::Asleep => None,
            _ => before.checkpoint.filter(|_| observed.workload.is_some()),
        },
        replicas: census.replicas,
        ready_replicas: census.ready,
        selector: Some(selector(observed.uid())),
        failure: failure(stage),
    };
    // How many pods there are is no news while they start: what counts is how many serve.
    let starts = phase == DeploymentPhase::Progressing && before.phase == phase;
    if starts && before.ready_replicas == census.ready {
        status.replicas = before.replicas;
    }
    status
}

/// While an earlier revision still serves, it is its name that is listed.
fn model_name(stage: &Stage, resolution: Option<&Resolution>, before: Option<String>) -> Option<String> {
    let wanted = resolution.map(Resolution::model_name);
    match stage {
        Stage::Serving | Stage::Asleep => wanted,
        _ => before.or(wanted),
    }
}

/// Where an earlier version still serves, what is wrong with the new one is told beside it.
fn beside(told: State, stage: &Stage, observed: &ObservedDeployment, census: Census) -> State {
    let earlier = observed.status().checkpoint.filter(|_| census.ready > 0);
    let wanted = &observed.deployment.spec.checkpoint;
    match (stage, earlier) {
        (Stage::Failing(_) | Stage::Blocked(_), Some(earlier)) if earlier != *wanted => {
            let (new, old) = (&wanted.name, &earlier.name);
            let message = format!("checkpoint {new:?} is not served: {}; checkpoint {old:?} still is", told.message);
            State { message: cut(&message, MOST_TEXT), ..told }
        }
        _ => told,
    }
}

fn selector(uid: &str) -> String {
    children::our_selector(uid).iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn phase(stage: &Stage, census: Census) -> DeploymentPhase {
    let serves = census.ready > 0;
    match stage {
        Stage::Serving => DeploymentPhase::Ready,
        Stage::Failing(trouble) if !trouble.lasts => DeploymentPhase::Progressing,
        Stage::Blocked(_) | Stage::Failing(_) | Stage::Impaired if serves => DeploymentPhase::Degraded,
        Stage::Rolling | Stage::Impaired => DeploymentPhase::Progressing,
        Stage::Failing(_) => DeploymentPhase::Failed,
        Stage::Blocked(problems) if first_that_lasts(problems).is_some() => DeploymentPhase::Failed,
        Stage::Asleep | Stage::Blocked(_) => DeploymentPhase::Pending,
    }
}

fn first_that_lasts(problems: &[Problem]) -> Option<&Problem> {
    problems.iter().find(|problem| !problem.waits)
}

fn state(stage: &Stage) -> State {
    match stage {
        Stage::Serving => State::ready("Serving", "every replica serves the model by its name"),
        Stage::Asleep => State::resting("ScaledToZero", "raise spec.replicas to serve the model"),
        Stage::Rolling => State::reconciling("Starting", "the servers load the model; what served before serves until they do"),
        Stage::Impaired => State::reconciling("Impaired", "some replicas have stopped serving the model"),
        Stage::Failing(trouble) => {
            let Failure { reason, message, hint, .. } = trouble.failure.clone();
            let message = cut(&if hint.is_empty() { message } else { format!("{message}: {hint}") }, MOST_TEXT);
            if trouble.lasts { State::stalled(reason, message) } else { State::reconciling(reason, message) }
        }
        Stage::Blocked(problems) => {
            let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            let message = cut(&message, MOST_TEXT);
            match first_that_lasts(problems).or_else(|| problems.first()) {
                Some(problem) if !problem.waits => State::stalled(problem.reason, message),
                problem => State::reconciling(problem.map_or("Pending", |problem| problem.reason), message),
            }
        }
    }
}

fn failure(stage: &Stage) -> Option<Failure> {
    match stage {
        Stage::Failing(trouble) => Some(trouble.failure.clone()),
        Stage::Blocked(problems) => first_that_lasts(problems).map(|problem| Failure {
            reason: problem.reason.into(),
            message: cut(&problem.message, 4096),
            hint: format!("see {}", problem.field),
            field: Some(problem.field.clone()),
            exit_code: None,
            user_error: true,
        }),
        _ => None,
    }
}

/// What changed for people: one notice where the reason of Ready changed to something worth telling.
pub fn notices(observed: &ObservedDeployment, after: &ModelDeploymentStatus) -> Vec<Notice> {
    let before = observed.status();
    let was = condition::find(&before.conditions, condition::READY).map(|ready| ready.reason.clone());
    let Some(ready) = condition::find(&after.conditions, condition::READY).filter(|ready| Some(&ready.reason) != was.as_ref())
    else {
        return Vec::new();
    };
    let message = ready.message.clone();
    match after.phase {
        DeploymentPhase::Ready => vec![Notice { warning: false, reason: "Serving", message }],
        _ if after.failure.is_some() => vec![Notice { warning: true, reason: "NotServing", message }],
        DeploymentPhase::Degraded => vec![Notice { warning: true, reason: "Degraded", message }],
        _ => Vec::new(),
    }
}
