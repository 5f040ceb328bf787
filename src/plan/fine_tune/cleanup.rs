//! What is to be done about a FineTune that is being deleted: end the pods, remove what policy does not keep, let go. Pure.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    ObservedFineTune,
    agent_job::{self, Place, Removal},
    attempt::is_live,
    job, lost, outcome,
};
use crate::{
    api::{Checkpoint, DeletionPolicy, FineTuneStatus, Output, names as labels},
    plan::{Change, Child, ChildKind, ChildReference, Next, Notice, Plan, condition::conditions, names},
    settings::Settings,
};

/// The next thing to do on the way out; each waits for the one before.
pub fn plan(observed: &ObservedFineTune, settings: &Settings, now: Timestamp) -> Plan<FineTuneStatus> {
    if !observed.has_finalizer() {
        return Plan::nothing();
    }
    let delete_name = names::delete_job(observed.name(), observed.uid());
    let working: Vec<_> = observed.jobs.iter().filter(|job| job.metadata.name.as_deref() != Some(&delete_name)).collect();
    if !working.is_empty() || observed.pods.iter().any(|pod| is_live(pod) && !belongs_to(pod, &delete_name)) {
        let doomed = working.into_iter().filter(|job| job.metadata.deletion_timestamp.is_none());
        let doomed = doomed.map(|job| Change::Delete(ChildReference::of(ChildKind::Job, &job.metadata))).collect();
        let next = lost::deadline(observed, now);
        return Plan { status: waits_for_node(observed, now), next, ..changes(doomed) };
    }
    if let Some(deployment) = observed.own_deployment() {
        // What it serves is in use until its pods are gone.
        let doomed = Some(deployment).filter(|deployment| deployment.metadata.deletion_timestamp.is_none());
        let doomed = doomed.map(|deployment| Change::Delete(ChildReference::of(ChildKind::Served, &deployment.metadata)));
        return changes(doomed.into_iter().collect());
    }
    if let Some(permission) = &observed.permission {
        // Whom it lets use checkpoints uses them no more before it is asked which are used.
        let doomed = Some(permission).filter(|permission| permission.metadata.deletion_timestamp.is_none());
        let doomed = doomed.map(|permission| Change::Delete(ChildReference::of(ChildKind::Permission, &permission.metadata)));
        return changes(doomed.into_iter().collect());
    }
    let (kept, doomed): (Vec<_>, Vec<_>) = observed.checkpoints.iter().partition(|checkpoint| is_kept(observed, checkpoint));
    let to_delete: Vec<_> = doomed
        .iter()
        .filter(|checkpoint| checkpoint.metadata.deletion_timestamp.is_none())
        .map(|checkpoint| Change::Delete(ChildReference::of(ChildKind::Checkpoint, &checkpoint.metadata)))
        .collect();
    if !to_delete.is_empty() {
        return changes(to_delete);
    }
    match removal(observed, &kept, &doomed, settings) {
        Some(removal) if !observed.namespace_terminating => remove(observed, (&delete_name, &removal), &doomed, settings),
        _ => release(observed, &kept, &doomed, None),
    }
}

/// The status that says for which node a deletion waits.
fn waits_for_node(observed: &ObservedFineTune, now: Timestamp) -> Option<FineTuneStatus> {
    let state = lost::node_lost(observed, now)?;
    let mut status = observed.status();
    status.conditions = conditions(&status.conditions, &state, status.observed_generation, now);
    Some(status)
}

/// Removes the files, then lets go.
fn remove(
    observed: &ObservedFineTune,
    (name, removal): (&str, &Removal),
    doomed: &[&Arc<Checkpoint>],
    settings: &Settings,
) -> Plan<FineTuneStatus> {
    let Some(job) = observed.jobs.iter().find(|job| job.metadata.name.as_deref() == Some(name)) else {
        let identity = (
            agent_job::run_labels(observed.name(), observed.uid(), labels::ROLE_DELETE),
            job::owner(observed.name(), observed.uid()),
        );
        let job = agent_job::delete_job((name.to_owned(), observed.namespace()), identity, removal, settings);
        return changes(vec![Change::CreateOnce(Child::Job(Box::new(job)))]);
    };
    let kept: Vec<_> = observed.checkpoints.iter().filter(|checkpoint| is_kept(observed, checkpoint)).collect();
    match outcome::outcome(job, &[]) {
        None => Plan::nothing(),
        Some(outcome::Outcome::Succeeded) => release(observed, &kept, doomed, None),
        Some(outcome::Outcome::Failed(failure)) => release(
            observed,
            &kept,
            doomed,
            Some(Notice {
                warning: true,
                reason: "FilesLeftBehind",
                message: format!("files of this run could not be removed from {}: {}", removal.paths.join(", "), failure.message),
            }),
        ),
    }
}

/// Lets every Checkpoint go, then the template's claim, then the FineTune itself.
fn release(
    observed: &ObservedFineTune,
    kept: &[&Arc<Checkpoint>],
    doomed: &[&Arc<Checkpoint>],
    notice: Option<Notice>,
) -> Plan<FineTuneStatus> {
    let held: Vec<_> = doomed
        .iter()
        .filter(|checkpoint| holds_finalizer(checkpoint))
        .map(|checkpoint| Change::ReleaseCheckpoint {
            name: checkpoint.metadata.name.clone().unwrap_or_default(),
            uid: checkpoint.metadata.uid.clone().unwrap_or_default(),
            finalizers: checkpoint.metadata.finalizers.clone().unwrap_or_default(),
        })
        .collect();
    let claim_name = names::claim(observed.name(), observed.uid());
    let claim = observed
        .claims
        .get(&claim_name)
        .filter(|claim| kept.is_empty() && claim.metadata.deletion_timestamp.is_none() && is_ours(claim, observed.uid()))
        .map(|claim| Change::Delete(ChildReference::of(ChildKind::Claim, &claim.metadata)));
    let all = held.into_iter().chain(claim).chain([Change::RemoveFinalizer(labels::FINE_TUNE_FINALIZER)]).collect();
    Plan { notices: notice.into_iter().collect(), ..changes(all) }
}

/// The files to remove: the run's whole folder when nothing of it stays, else the folders of the checkpoints that go.
fn removal(
    observed: &ObservedFineTune,
    kept: &[&Arc<Checkpoint>],
    doomed: &[&Arc<Checkpoint>],
    settings: &Settings,
) -> Option<Removal> {
    let never_ran = observed.status().attempt == 0;
    let output = observed.fine_tune.spec.output.clone().or_else(|| settings.default_output.clone())?;
    if never_ran || (output.volume_template.is_some() && kept.is_empty()) {
        return None;
    }
    let place = place(observed, &output)?;
    let paths = if kept.is_empty() {
        vec![run_folder(observed, &output)]
    } else {
        doomed.iter().filter_map(|checkpoint| checkpoint_folder(checkpoint, &output)).collect()
    };
    (!paths.is_empty()).then_some(Removal { place, paths })
}

/// The claim or store of the output; none when the claim is gone.
fn place(observed: &ObservedFineTune, output: &Output) -> Option<Place> {
    if let Some(store) = &output.object_store {
        return Some(Place::Store(store.clone()));
    }
    let name =
        output.volume.as_ref().map_or_else(|| names::claim(observed.name(), observed.uid()), |volume| volume.claim_name.clone());
    observed.has_claim(Some(&name)).then_some(Place::Claim(name))
}

/// The folder of the run, relative to its claim or store.
fn run_folder(observed: &ObservedFineTune, output: &Output) -> String {
    match output.object_store {
        Some(_) => crate::protocol::run_folder(observed.name(), observed.uid()),
        None => names::run_path(output, observed.name(), observed.uid()),
    }
}

/// The folder of a checkpoint, relative to the claim or store of its run.
fn checkpoint_folder(checkpoint: &Checkpoint, output: &Output) -> Option<String> {
    let place = names::place(&checkpoint.spec);
    match &output.object_store {
        Some(store) => Some(place.strip_prefix(store.uri.trim_end_matches('/'))?.trim_matches('/').to_owned()),
        None => Some(place),
    }
}

/// Whether a Checkpoint outlives its run: its policy says so, or somebody uses it.
fn is_kept(observed: &ObservedFineTune, checkpoint: &Checkpoint) -> bool {
    let used = checkpoint.metadata.name.as_ref().is_some_and(|name| observed.used_checkpoints.contains(name));
    used || checkpoint.spec.deletion_policy == DeletionPolicy::Retain
}

fn holds_finalizer(checkpoint: &Checkpoint) -> bool {
    checkpoint.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == labels::CHECKPOINT_FINALIZER)
}

fn is_ours(claim: &k8s_openapi::api::core::v1::PersistentVolumeClaim, uid: &str) -> bool {
    claim.metadata.labels.iter().flatten().any(|(key, value)| key == labels::FINE_TUNE_UID && value == uid)
}

fn belongs_to(pod: &k8s_openapi::api::core::v1::Pod, job: &str) -> bool {
    pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Job" && owner.name == job)
}

const fn changes(changes: Vec<Change>) -> Plan<FineTuneStatus> {
    Plan { changes, status: None, notices: Vec::new(), next: Next::OnChange }
}
