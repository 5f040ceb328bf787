//! What is to be done about a Checkpoint: verify one written by hand, remove the bytes of one that goes. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as corev1};

use super::{
    Change, Child, Next, Notice, Plan,
    condition::{State, conditions},
    exporter,
    fine_tune::{Place, Removal, checkpoint_identity, delete_job, import_job, outcome},
    names,
};
use crate::{
    api::{Checkpoint, CheckpointPhase, CheckpointStatus, DeletionPolicy, FineTune, ObjectStore, names as labels},
    settings::Settings,
};

/// Everything known that bears on one Checkpoint.
#[derive(Clone, Debug, Default)]
pub struct ObservedCheckpoint {
    /// The Checkpoint itself.
    pub checkpoint: Arc<Checkpoint>,
    /// The run that wrote it (by uid), while it exists.
    pub fine_tune: Option<Arc<FineTune>>,
    /// Jobs that work for it (by uid).
    pub jobs: Vec<Arc<batch::Job>>,
    /// Whether a training pod of its run holds the volume: then `watch` does the deleting.
    pub run_is_live: bool,
    /// The claim it lies on, when it lies on one.
    pub claim: Option<Arc<corev1::PersistentVolumeClaim>>,
    /// Who uses it: names of runs and deployments.
    pub users: Vec<String>,
    /// Deployments of other namespaces that serve it and may, as `namespace/name`.
    pub consumers: Vec<String>,
    /// Whether its run holds its volume, which no second node can mount.
    pub held: bool,
    /// The pod that hands it out to them (by uid of the owner).
    pub exporter: Option<Arc<apps::Deployment>>,
    /// The Service of that pod (by uid of the owner).
    pub exporter_service: Option<Arc<corev1::Service>>,
    /// Nothing can be created any more in its namespace.
    pub namespace_terminating: bool,
}

/// What is to be done about a Checkpoint.
#[must_use]
pub fn plan(observed: &ObservedCheckpoint, settings: &Settings, now: Timestamp) -> Plan<CheckpointStatus> {
    let mut plan = life(observed, settings, now);
    plan.changes.splice(0..0, exporter::writes(observed, settings));
    plan
}

/// What there is to do whether anybody else uses it or not.
fn life(observed: &ObservedCheckpoint, settings: &Settings, now: Timestamp) -> Plan<CheckpointStatus> {
    let checkpoint = &observed.checkpoint;
    if checkpoint.metadata.deletion_timestamp.is_some() {
        return removal(observed, settings, now);
    }
    if is_reported(checkpoint) { Plan::nothing() } else { import(observed, settings, now) }
}

/// Made by the report server, which says all there is to say about it.
fn is_reported(checkpoint: &Checkpoint) -> bool {
    checkpoint.metadata.labels.iter().flatten().any(|(key, value)| key == labels::MANAGED_BY && value == labels::MANAGER)
}

/// A Checkpoint written by hand is verified by a small Job before it is Ready.
fn import(observed: &ObservedCheckpoint, settings: &Settings, now: Timestamp) -> Plan<CheckpointStatus> {
    let checkpoint = &observed.checkpoint;
    let before = checkpoint.status.clone().unwrap_or_default();
    if before.phase != CheckpointPhase::Pending || before.digest.is_some() {
        return Plan::nothing();
    }
    let mut changes = Vec::new();
    let job = observed.jobs.iter().find(|job| role(job) == Some(labels::ROLE_IMPORT));
    let state = match (job.map(|job| outcome(job, &[])), missing_claim(observed)) {
        (None, Some(claim)) => State::reconciling(
            "ClaimNotFound",
            format!("spec.storage.volume.claimName: there is no PersistentVolumeClaim {claim:?} in this namespace: create it"),
        ),
        (None, None) => {
            changes.push(Change::CreateOnce(Child::Job(Box::new(import_job(checkpoint, settings)))));
            State::reconciling("Verifying", "a Job reads the files")
        }
        (Some(None), _) => State::reconciling("Verifying", "a Job reads the files"),
        (Some(Some(_)), _) => State::stalled(
            "VerificationFailed",
            "the Job that reads the files failed; see its log, then make the Checkpoint anew",
        ),
    };
    let generation = checkpoint.metadata.generation;
    let conditions = conditions(&before.conditions, &state, generation, now);
    let status = CheckpointStatus { observed_generation: generation, conditions, ..before };
    Plan { changes, status: Some(status), notices: Vec::new(), next: Next::OnChange }
}

fn missing_claim(observed: &ObservedCheckpoint) -> Option<&str> {
    let volume = observed.checkpoint.spec.storage.volume.as_ref()?;
    observed.claim.is_none().then_some(volume.claim_name.as_str())
}

/// The bytes go first, then the finalizer.
fn removal(observed: &ObservedCheckpoint, settings: &Settings, now: Timestamp) -> Plan<CheckpointStatus> {
    let checkpoint = &observed.checkpoint;
    let held = checkpoint.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == labels::CHECKPOINT_FINALIZER);
    let run_is_leaving = observed.fine_tune.as_ref().is_some_and(|run| run.metadata.deletion_timestamp.is_some());
    if !held || run_is_leaving {
        // A run on its way out removes its folder in one go and releases its checkpoints itself.
        return Plan::nothing();
    }
    if !observed.users.is_empty() {
        let message = format!("used by {}: it goes when they do", observed.users.join(", "));
        return deleting(observed, Vec::new(), "InUse", &message, now);
    }
    let gone = checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Missing);
    let nothing_to_do = gone
        || checkpoint.spec.deletion_policy == DeletionPolicy::Retain
        || missing_claim(observed).is_some()
        || observed.namespace_terminating;
    if nothing_to_do {
        return released(None);
    }
    if observed.run_is_live {
        return deleting(observed, Vec::new(), "Deleting", "the pod that holds the volume removes the files", now);
    }
    let job = observed.jobs.iter().find(|job| role(job) == Some(labels::ROLE_DELETE));
    match job.map(|job| outcome(job, &[])) {
        None => {
            let job = removal_job(checkpoint, settings);
            let create = job.map(|job| Change::CreateOnce(Child::Job(Box::new(job))));
            deleting(observed, create.into_iter().collect(), "Deleting", "a Job removes the files", now)
        }
        Some(None) => Plan::nothing(),
        Some(Some(super::fine_tune::Outcome::Succeeded)) => released(None),
        Some(Some(super::fine_tune::Outcome::Failed(failure))) => {
            let message = format!(
                "the files could not be removed ({}): mend that and delete the Job, or set spec.deletionPolicy to Retain",
                failure.message
            );
            deleting(observed, Vec::new(), "DeletionFailed", &message, now)
        }
    }
}

fn removal_job(checkpoint: &Checkpoint, settings: &Settings) -> Option<batch::Job> {
    let storage = &checkpoint.spec.storage;
    let (place, path) = match (&storage.volume, &storage.object_store) {
        (Some(volume), _) => (Place::Claim(volume.claim_name.clone()), volume.path.clone()),
        (None, Some(store)) => {
            let (parent, folder) = store.uri.trim_end_matches('/').rsplit_once('/')?;
            (Place::Store(ObjectStore { uri: parent.to_owned(), ..store.clone() }), folder.to_owned())
        }
        (None, None) => return None,
    };
    let uid = checkpoint.metadata.uid.as_deref().unwrap_or_default();
    let namespace = checkpoint.metadata.namespace.as_deref().unwrap_or_default();
    let name = (names::checkpoint_job("delete", uid), namespace);
    Some(delete_job(name, checkpoint_identity(checkpoint, labels::ROLE_DELETE), &Removal { place, paths: vec![path] }, settings))
}

fn released(notice: Option<Notice>) -> Plan<CheckpointStatus> {
    Plan {
        changes: vec![Change::RemoveFinalizer(labels::CHECKPOINT_FINALIZER)],
        status: None,
        notices: notice.into_iter().collect(),
        next: Next::OnChange,
    }
}

fn deleting(
    observed: &ObservedCheckpoint,
    changes: Vec<Change>,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Plan<CheckpointStatus> {
    let before = observed.checkpoint.status.clone().unwrap_or_default();
    let generation = observed.checkpoint.metadata.generation;
    let conditions = conditions(&before.conditions, &State::reconciling(reason, message), generation, now);
    let status = CheckpointStatus { observed_generation: generation, phase: CheckpointPhase::Deleting, conditions, ..before };
    Plan { changes, status: Some(status), notices: Vec::new(), next: Next::OnChange }
}

fn role(job: &batch::Job) -> Option<&str> {
    job.metadata.labels.as_ref()?.get(labels::ROLE).map(String::as_str)
}

#[cfg(test)]
mod tests;
