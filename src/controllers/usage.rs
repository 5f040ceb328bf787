//! Who uses a checkpoint, and so keeps it from going; and who may.

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::world::World;
use crate::{
    api::{Checkpoint, CheckpointReference, ModelDeployment, NameReference, condition, is_controlled_by, names},
    plan::{deployment::claims_of, fine_tune::outcome},
};

/// Deployments that are to serve a checkpoint, or do so until another one is served, and unfinished runs that start from it, as `kind/name`, or
/// `kind/namespace/name` where that is another.
pub fn users(world: &World, checkpoint: &Checkpoint) -> Vec<String> {
    let namespace = checkpoint.namespace();
    let serving = world.deployments.state().into_iter().filter_map(|deployment| {
        let used = deployment.namespace() == namespace && serves(checkpoint, &deployment);
        used.then(|| format!("deployments.finetune.dev/{}", deployment.name_any()))
    });
    let elsewhere = consumers(world, checkpoint).into_iter().map(|name| format!("deployments.finetune.dev/{name}"));
    let starting = world.fine_tunes.state().into_iter().filter_map(|run| {
        let finished = run.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, condition::FINISHED));
        let reference = run.spec.start_from.checkpoint.as_ref()?;
        let used = !finished && run.namespace() == namespace && is_meant(checkpoint, reference, namespace.clone());
        used.then(|| format!("finetunes/{}", run.name_any()))
    });
    serving.chain(elsewhere).chain(starting).collect()
}

/// Deployments of other namespaces that serve a checkpoint and may, as `namespace/name`. One that may not holds nothing of somebody else.
pub fn consumers(world: &World, checkpoint: &Checkpoint) -> Vec<String> {
    let (name, namespace) = (checkpoint.name_any(), checkpoint.namespace().unwrap_or_default());
    let asks = |deployment: &ModelDeployment| {
        deployment.metadata.deletion_timestamp.is_none()
            && deployment.metadata.namespace.as_ref() != Some(&namespace)
            && serves(checkpoint, deployment)
    };
    let asking = world.deployments.state_filter(asks).into_iter();
    let mut permitted: Vec<_> = asking
        .filter_map(|deployment| Some((deployment.namespace()?, deployment.name_any())))
        .filter(|(project, _)| may_use(world, (&namespace, &name), project))
        .map(|(project, name)| format!("{project}/{name}"))
        .collect();
    permitted.sort_unstable();
    permitted
}

/// Whether a checkpoint is shared by a permission that names it, used or not. With `by_run`, one for all checkpoints of its run counts as well,
/// but for the one a Public run makes, which goes with the run.
pub fn is_shared(world: &World, checkpoint: &Checkpoint, by_run: bool) -> bool {
    let (name, namespace) = (checkpoint.name_any(), checkpoint.namespace());
    let run = checkpoint.spec.fine_tune.as_ref();
    let shares = world.serving.permissions.find(|permission| {
        let is_own = run.is_some_and(|run| is_controlled_by(permission, &run.uid));
        let names = |named: &NameReference| run.is_some_and(|run| run.name == named.name);
        let is_about = permission.spec.checkpoint.as_ref().is_some_and(|named| named.name == name)
            || by_run && !is_own && permission.spec.fine_tune.as_ref().is_some_and(names);
        permission.namespace() == namespace
            && permission.metadata.deletion_timestamp.is_none()
            && Some(&permission.spec.project) != namespace.as_ref()
            && is_about
    });
    shares.is_some()
}

/// Whether `project` may use the checkpoint of that namespace and name: its own always, those of others with a permission of theirs.
pub fn may_use(world: &World, (namespace, name): (&str, &str), project: &str) -> bool {
    if namespace == project {
        return true;
    }
    let checkpoint = world.checkpoints.store().get(&ObjectRef::new(name).within(namespace));
    let run = checkpoint.as_ref().and_then(|checkpoint| checkpoint.spec.fine_tune.as_ref()).map(|run| run.name.as_str());
    let permits = world.serving.permissions.find(|permission| {
        permission.metadata.namespace.as_deref() == Some(namespace)
            && permission.metadata.deletion_timestamp.is_none()
            && permission.spec.allows((name, run), project)
    });
    permits.is_some()
}

/// Whether a run holds the volume of a checkpoint, and no second node can mount it.
pub fn is_held(world: &World, checkpoint: &Checkpoint) -> bool {
    let namespace = checkpoint.namespace().unwrap_or_default();
    let Some(volume) = &checkpoint.spec.storage.volume else { return false };
    let claim = world.claims.get(&ObjectRef::new(&volume.claim_name).within(&namespace));
    let modes = claim.and_then(|claim| claim.spec.as_ref()?.access_modes.clone()).unwrap_or_default();
    let single = !modes.is_empty() && modes.iter().all(|mode| mode.starts_with("ReadWriteOnce"));
    let holds = |pod: &corev1::Pod| {
        let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        is_training(pod, &namespace) && claims_of(&mut volumes).any(|held| held == volume.claim_name)
    };
    let will_hold =
        |job: &batch::Job| is_at_work(job, &namespace) && claims_of(volumes_of(job)).any(|held| held == volume.claim_name);
    single && (world.pods.store().find(holds).is_some() || world.jobs.store().find(will_hold).is_some())
}

/// Whether a Job trains, or is to, in that namespace: between two pods of its it holds its volumes as well. One that waits in a queue does not.
pub fn is_at_work(job: &batch::Job, namespace: &str) -> bool {
    let waits = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
    job.namespace().as_deref() == Some(namespace)
        && job.labels().get(names::ROLE).is_some_and(|role| role == names::ROLE_TRAIN)
        && !waits
        && outcome(job, &[]).is_none()
}

fn volumes_of(job: &batch::Job) -> impl Iterator<Item = &corev1::Volume> {
    job.spec.iter().flat_map(|spec| spec.template.spec.iter().flat_map(|pod| pod.volumes.iter().flatten()))
}

/// Whether a pod trains, or is about to, in that namespace.
pub fn is_training(pod: &corev1::Pod, namespace: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.namespace().as_deref() == Some(namespace)
        && pod.labels().get(names::ROLE).is_some_and(|role| role == names::ROLE_TRAIN)
        && matches!(phase, Some("Pending" | "Running"))
}

/// Whether a Deployment is to serve the checkpoint, or does so until another one is served.
fn serves(checkpoint: &Checkpoint, deployment: &ModelDeployment) -> bool {
    let served = deployment.status.as_ref().and_then(|status| status.checkpoint.as_ref());
    let mut references = [Some(&deployment.spec.checkpoint), served].into_iter().flatten();
    references.any(|reference| is_meant(checkpoint, reference, deployment.namespace()))
}

fn is_meant(checkpoint: &Checkpoint, reference: &CheckpointReference, theirs: Option<String>) -> bool {
    reference.name == checkpoint.name_any() && reference.namespace.clone().or(theirs) == checkpoint.namespace()
}
