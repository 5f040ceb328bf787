//! What serves the checkpoints of a run without being asked: one Deployment of ours, that has the name of the run and is owned by it. Pure.
//!
//! What was last written there, and what could not be served, is noted on the Deployment itself, in the same write: no death can part them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::{Deserialize, Serialize};

use super::{ObservedFineTune, job};
use crate::{
    api::{
        AutoDeploy, CheckpointReference, DeployWhich, DeploymentPhase, FineTunePhase, ModelDeployment, ModelDeploymentSpec,
        ServingType, condition, names as labels,
    },
    plan::{Change, Child, DEPLOYMENT, Redeployment, condition::Further, deployment::cannot_serve, ranking, status_text::cut},
};

/// So many checkpoints that could not be served are remembered.
const MOST_FAILED: usize = 10;
/// Longest message of the condition.
const MOST_SAID: usize = 8192;
/// Longest reason that is remembered.
const MOST_TEXT: usize = 512;

/// The note on the Deployment.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
struct Note {
    /// What the run last told it to serve.
    checkpoint: String,
    /// How.
    #[serde(rename = "type", default)]
    type_: ServingType,
    /// How often.
    #[serde(default)]
    replicas: i32,
    /// What could not be served, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
}

/// A checkpoint that could not be served, and why.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
struct Failed {
    checkpoint: String,
    why: String,
}

/// The write that is due for a run in `phase`, and what is said of it.
pub fn plan(observed: &ObservedFineTune, phase: FineTunePhase, now: Timestamp) -> (Option<Change>, Option<Condition>) {
    let Some(wish) = &observed.fine_tune.spec.auto_deploy else { return (None, None) };
    let wanted = wanted(observed, wish.checkpoint, phase);
    let (change, further) = match (&observed.deployment, observed.own_deployment()) {
        (None, _) => match wanted {
            Some(checkpoint) => (Some(create(observed, wish, &checkpoint)), Some(deploying(&checkpoint))),
            None => (None, None),
        },
        (Some(_), None) => (None, wanted.map(|_| name_taken(observed.name()))),
        (Some(_), Some(ours)) => match read(ours).filter(|_| ours.metadata.deletion_timestamp.is_none()) {
            Some(note) => {
                let after = next(observed, ours, &note, wish, wanted);
                let change = (after != note).then(|| write(ours, &note, &after));
                let further = if after.checkpoint == note.checkpoint {
                    stands(observed, ours, &note)
                } else {
                    deploying(&after.checkpoint)
                };
                (change, Some(further))
            }
            None => (None, None),
        },
    };
    let refused = observed.refused.get(DEPLOYMENT).filter(|_| change.is_some()).map(|why| cut(why, MOST_SAID));
    let further = refused.map_or(further, |why| Some(self::further(false, "Refused", why)));
    let before = observed.status().conditions;
    let condition = further.map(|further| further.condition(&before, observed.fine_tune.metadata.generation, now));
    (change, condition)
}

/// The checkpoint that is to be served: of a run without the metric the newest stands in for the best once it is over.
fn wanted(observed: &ObservedFineTune, which: DeployWhich, phase: FineTunePhase) -> Option<String> {
    let best = || ranking::best(&observed.checkpoints, &observed.fine_tune.spec.checkpoints);
    let last = || ranking::latest(&observed.checkpoints).filter(|_| phase == FineTunePhase::Succeeded);
    let found = match which {
        DeployWhich::Best => best().or_else(last),
        DeployWhich::Last => last(),
    };
    found?.metadata.name.clone()
}

/// The note as it is to be, which says all: what is served, how, and what failed.
fn next(observed: &ObservedFineTune, ours: &ModelDeployment, note: &Note, wish: &AutoDeploy, wanted: Option<String>) -> Note {
    let mut after = Note { type_: wish.type_, replicas: wish.replicas, ..note.clone() };
    let is_failed = |name: &str| note.failed.iter().any(|failed| failed.checkpoint == name);
    let course = Course::of(observed, ours, note);
    match (course, wanted) {
        // One at a time: what appears while another is rolled out has its turn afterwards.
        (Course::Rolling, _) => {}
        (Course::Failed(why), wanted) if wanted.as_deref().is_none_or(|wanted| wanted == note.checkpoint) => {
            if let Some(good) = good(observed, ours).filter(|good| *good != note.checkpoint) {
                after.failed.push(Failed { checkpoint: note.checkpoint.clone(), why: cut(&why, MOST_TEXT) });
                let surplus = after.failed.len().saturating_sub(MOST_FAILED);
                after.failed.drain(..surplus);
                after.checkpoint = good;
            }
        }
        (_, Some(wanted)) if !is_failed(&wanted) => after.checkpoint = wanted,
        _ => {}
    }
    after
}

/// How what the run last asked for fares.
enum Course {
    /// Nobody knows yet.
    Rolling,
    /// It could not be served, and why.
    Failed(String),
    /// It is served, waits for something, or a person has put something else there.
    Settled,
}

impl Course {
    fn of(observed: &ObservedFineTune, ours: &ModelDeployment, note: &Note) -> Self {
        let status = ours.status.clone().unwrap_or_default();
        let is_seen = status.observed_generation == ours.metadata.generation;
        let was_served = status.checkpoint.as_ref().is_some_and(|served| served.name == ours.spec.checkpoint.name);
        let name = &ours.spec.checkpoint.name;
        let is_theirs = *name != note.checkpoint;
        if !is_seen {
            return Self::Rolling;
        }
        if was_served || is_theirs {
            return Self::Settled;
        }
        match status.failure.filter(|_| condition::is_true(&status.conditions, condition::STALLED)) {
            // A server may end once and serve the next time: that is told at once, and no reason yet to give the version up.
            Some(failure) if failure.exit_code.is_some() && !cannot_serve(&observed.servers, name) => Self::Rolling,
            Some(failure) => Self::Failed(format!("{}: {}", failure.reason, failure.message)),
            None if matches!(status.phase, DeploymentPhase::Progressing | DeploymentPhase::Degraded) => Self::Rolling,
            None => Self::Settled,
        }
    }
}

/// The checkpoint of this run that was served before, as far as it is still good.
fn good(observed: &ObservedFineTune, ours: &ModelDeployment) -> Option<String> {
    let served = ours.status.as_ref()?.checkpoint.clone()?.name;
    ranking::usable(&observed.checkpoints).any(|known| known.metadata.name.as_ref() == Some(&served)).then_some(served)
}

fn read(ours: &ModelDeployment) -> Option<Note> {
    serde_json::from_str(ours.metadata.annotations.as_ref()?.get(labels::AUTO_DEPLOY)?).ok()
}

fn text(note: &Note) -> String {
    serde_json::to_string(note).unwrap_or_default()
}

fn create(observed: &ObservedFineTune, wish: &AutoDeploy, checkpoint: &str) -> Change {
    let note = Note { checkpoint: checkpoint.to_owned(), type_: wish.type_, replicas: wish.replicas, failed: Vec::new() };
    let spec = ModelDeploymentSpec {
        checkpoint: CheckpointReference { name: checkpoint.to_owned(), namespace: None },
        type_: wish.type_,
        replicas: wish.replicas,
        // The same whichever checkpoint is served, so that those who ask for it never have to change.
        model_name: Some(observed.name().to_owned()),
        ..ModelDeploymentSpec::default()
    };
    let metadata = ObjectMeta {
        name: Some(observed.name().to_owned()),
        namespace: Some(observed.namespace().to_owned()),
        labels: Some([(labels::FINE_TUNE.to_owned(), observed.name().to_owned())].into()),
        annotations: Some([(labels::AUTO_DEPLOY.to_owned(), text(&note))].into()),
        owner_references: Some(vec![job::owner(observed.name(), observed.uid())]),
        ..ObjectMeta::default()
    };
    Change::CreateOnce(Child::Served(Box::new(ModelDeployment { metadata, spec, status: None })))
}

/// Replicas are written only when the wish for them has changed: until then they belong to whoever scales.
fn write(ours: &ModelDeployment, before: &Note, after: &Note) -> Change {
    let metadata = &ours.metadata;
    Change::Redeploy(Redeployment {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        version: metadata.resource_version.clone().unwrap_or_default(),
        note: text(after),
        checkpoint: after.checkpoint.clone(),
        type_: after.type_,
        replicas: (before.replicas != after.replicas).then_some(after.replicas),
    })
}

fn deploying(checkpoint: &str) -> Further {
    further(false, "Deploying", format!("checkpoint {checkpoint:?} is being deployed"))
}

fn name_taken(name: &str) -> Further {
    let remedy = "delete it, or take spec.autoDeploy out and deploy by hand";
    further(false, "NameTaken", format!("Deployment {name:?} exists and was not made by this run: {remedy}"))
}

/// What is said of a Deployment that is as the note says.
fn stands(observed: &ObservedFineTune, ours: &ModelDeployment, note: &Note) -> Further {
    let status = ours.status.clone().unwrap_or_default();
    let name = &ours.spec.checkpoint.name;
    let serves = status.checkpoint.as_ref().is_some_and(|served| served.name == *name);
    let failed = note.failed.last().filter(|failed| failed.checkpoint != *name);
    match (Course::of(observed, ours, note), failed) {
        (Course::Failed(why), _) => further(false, "NotServing", format!("checkpoint {name:?} cannot be served: {why}")),
        (_, Some(Failed { checkpoint, why })) if serves => further(
            true,
            "RolledBack",
            format!("checkpoint {checkpoint:?} could not be served ({why}): {name:?} is served in its place"),
        ),
        _ if serves => further(true, "Serving", format!("checkpoint {name:?} is served")),
        _ => deploying(name),
    }
}

fn further(holds: bool, reason: &str, message: String) -> Further {
    Further { kind: condition::DEPLOYED, holds, reason: reason.into(), message }
}
