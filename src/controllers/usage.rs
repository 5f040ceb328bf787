//! Who uses a checkpoint, and so keeps it from going.

use kube::ResourceExt;

use super::world::World;
use crate::api::{Checkpoint, CheckpointReference, condition};

/// Deployments that are to serve a checkpoint, or do so until another one is served, and unfinished runs that start from it, as `kind/name`.
pub fn users(world: &World, checkpoint: &Checkpoint) -> Vec<String> {
    let (name, namespace) = (checkpoint.name_any(), checkpoint.namespace());
    let is_meant = |reference: &CheckpointReference, theirs: Option<String>| {
        reference.name == name && reference.namespace.clone().or(theirs) == namespace
    };
    let serving = world.deployments.state().into_iter().filter_map(|deployment| {
        let served = deployment.status.as_ref().and_then(|status| status.checkpoint.as_ref());
        let used = [Some(&deployment.spec.checkpoint), served]
            .into_iter()
            .flatten()
            .any(|reference| is_meant(reference, deployment.namespace()));
        used.then(|| format!("deployments.finetune.dev/{}", deployment.name_any()))
    });
    let starting = world.fine_tunes.state().into_iter().filter_map(|run| {
        let finished = run.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, condition::FINISHED));
        let reference = run.spec.start_from.checkpoint.as_ref()?;
        (!finished && is_meant(reference, run.namespace())).then(|| format!("finetunes/{}", run.name_any()))
    });
    serving.chain(starting).collect()
}
