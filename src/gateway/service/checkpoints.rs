//! The checkpoints of a run that can be used.

use kube::ResourceExt;

use super::cluster::Selection;
use super::{Session, ids, standing};
use crate::api::{Checkpoint, CheckpointPhase, FineTune};
use crate::gateway::errors::Refusal;

/// The usable checkpoints of a run's current lineage, by step.
///
/// # Errors
/// The caller may not.
pub async fn of_run(session: &Session, run: &FineTune) -> Result<Vec<Checkpoint>, Refusal> {
    let all = session.cluster.list(&Selection::field("spec.fineTune.name", &run.name_any())).await?;
    Ok(usable(all, run))
}

/// Those that are verified, of this very run and of its current lineage, by step.
fn usable(all: Vec<Checkpoint>, run: &FineTune) -> Vec<Checkpoint> {
    let (uid, lineage) = (run.uid(), standing::lineage(run));
    let ours = |checkpoint: &Checkpoint| {
        checkpoint.spec.fine_tune.as_ref().is_some_and(|owner| Some(&owner.uid) == uid.as_ref())
            && checkpoint.spec.lineage.max(1) == lineage
    };
    let mut usable: Vec<_> = all.into_iter().filter(|checkpoint| ours(checkpoint) && is_usable(checkpoint)).collect();
    usable.sort_by_key(|checkpoint| checkpoint.spec.step);
    usable
}

/// Whether it is verified and stays.
#[must_use]
pub fn is_usable(checkpoint: &Checkpoint) -> bool {
    let ready = checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Ready);
    ready && checkpoint.metadata.deletion_timestamp.is_none()
}

/// The checkpoint of a run at a step.
///
/// # Errors
/// There is none, or it cannot be used.
pub async fn at_step(session: &Session, run: &FineTune, step: i64) -> Result<Checkpoint, Refusal> {
    let found = of_run(session, run).await?.into_iter().find(|checkpoint| checkpoint.spec.step == step);
    found.ok_or_else(|| Refusal::not_found("a verified checkpoint at step", &step.to_string()))
}

/// The checkpoint that speaks for a run: the best, or else the last.
///
/// # Errors
/// There is none.
pub async fn result(session: &Session, run: &FineTune) -> Result<Checkpoint, Refusal> {
    let mut all = of_run(session, run).await?;
    let best = all.iter().position(|checkpoint| Some(checkpoint.name_any().as_str()) == standing::result(run));
    let chosen = best.map(|at| all.swap_remove(at)).or_else(|| all.pop());
    chosen.ok_or_else(|| Refusal::conflict("the fine-tune has no verified checkpoint"))
}

/// The checkpoint of an id.
///
/// # Errors
/// There is none.
pub async fn get(session: &Session, id: &str) -> Result<Checkpoint, Refusal> {
    for name in ids::checkpoints(id) {
        if let Some(checkpoint) = session.cluster.get(&name).await? {
            return Ok(checkpoint);
        }
    }
    Err(Refusal { param: Some("fine_tuned_model_checkpoint".into()), ..Refusal::not_found("checkpoint", id) })
}

/// When its last file was written.
#[must_use]
pub fn saved_at(checkpoint: &Checkpoint) -> Option<jiff::Timestamp> {
    let said = checkpoint.status.as_ref().and_then(|status| status.saved_at.as_ref());
    said.or(checkpoint.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checkpoint(uid: &str, lineage: i64, step: i64, phase: &str) -> Checkpoint {
        serde_json::from_value(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "Checkpoint", "metadata": {"name": format!("bot-step-{step}")},
            "spec": {
                "fineTune": {"name": "bot", "uid": uid}, "lineage": lineage, "step": step, "baseModel": {"name": "m"},
                "storage": {"volume": {"claimName": "c"}},
            },
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn only_verified_checkpoints_of_this_very_run_and_its_current_lineage_are_shown() {
        let mut run = FineTune::default();
        run.metadata.uid = Some("mine".into());
        run.status.get_or_insert_default().lineage = 2;
        let all = vec![
            checkpoint("mine", 2, 300, "Ready"),
            checkpoint("mine", 2, 20, "Ready"),
            checkpoint("mine", 1, 30, "Ready"),
            checkpoint("mine", 2, 40, "Corrupt"),
            checkpoint("theirs", 2, 50, "Ready"),
        ];
        let steps: Vec<i64> = usable(all, &run).iter().map(|checkpoint| checkpoint.spec.step).collect();
        assert_eq!(steps, [20, 300]);
    }
}
