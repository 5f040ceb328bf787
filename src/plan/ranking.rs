//! Which checkpoint of a run is the newest and which the best. Pure.

use std::{str::FromStr, sync::Arc};

use rust_decimal::Decimal;

use crate::api::{Checkpoint, CheckpointPhase, CheckpointPolicy, Goal};

/// The checkpoints of a run that can be used: Ready and not on their way out.
pub fn usable(checkpoints: &[Arc<Checkpoint>]) -> impl Iterator<Item = &Arc<Checkpoint>> {
    checkpoints.iter().filter(|checkpoint| {
        checkpoint.metadata.deletion_timestamp.is_none()
            && checkpoint.status.as_ref().is_some_and(|status| status.phase == CheckpointPhase::Ready)
    })
}

/// The usable checkpoints, newest first: highest lineage, then highest step.
#[must_use]
pub fn newest_first(checkpoints: &[Arc<Checkpoint>]) -> Vec<&Arc<Checkpoint>> {
    let mut all: Vec<_> = usable(checkpoints).collect();
    all.sort_by_key(|checkpoint| std::cmp::Reverse((checkpoint.spec.lineage, checkpoint.spec.step)));
    all
}

/// The usable checkpoints of the newest lineage that have the policy's metric, best first; of equals the older comes first.
#[must_use]
pub fn best_first<'a>(checkpoints: &'a [Arc<Checkpoint>], policy: &CheckpointPolicy) -> Vec<&'a Arc<Checkpoint>> {
    let lineage = usable(checkpoints).map(|checkpoint| checkpoint.spec.lineage).max();
    let mut scored: Vec<_> = usable(checkpoints)
        .filter(|checkpoint| Some(checkpoint.spec.lineage) == lineage)
        .filter_map(|checkpoint| Some((score(checkpoint, policy)?, checkpoint)))
        .collect();
    scored.sort_by_key(|(score, checkpoint)| (*score, checkpoint.spec.step));
    scored.into_iter().map(|(_, checkpoint)| checkpoint).collect()
}

/// The newest usable checkpoint.
#[must_use]
pub fn latest(checkpoints: &[Arc<Checkpoint>]) -> Option<&Arc<Checkpoint>> {
    usable(checkpoints).max_by_key(|checkpoint| (checkpoint.spec.lineage, checkpoint.spec.step))
}

/// The best usable checkpoint of the newest lineage by the policy's metric; without any such metric, none.
#[must_use]
pub fn best<'a>(checkpoints: &'a [Arc<Checkpoint>], policy: &CheckpointPolicy) -> Option<&'a Arc<Checkpoint>> {
    best_first(checkpoints, policy).into_iter().next()
}

/// The metric as a number of which less is better.
fn score(checkpoint: &Checkpoint, policy: &CheckpointPolicy) -> Option<Decimal> {
    let text = checkpoint.status.as_ref()?.metrics.get(&policy.metric)?;
    let value = Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text)).ok()?;
    Some(match policy.goal {
        Goal::Minimize => value,
        Goal::Maximize => -value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CheckpointStatus;

    fn checkpoint(lineage: i64, step: i64, eval_loss: &str, phase: CheckpointPhase) -> Arc<Checkpoint> {
        let mut checkpoint = Checkpoint::default();
        checkpoint.spec.lineage = lineage;
        checkpoint.spec.step = step;
        let metrics = [("eval_loss".to_owned(), eval_loss.to_owned())].into();
        checkpoint.status = Some(CheckpointStatus { phase, metrics, ..CheckpointStatus::default() });
        Arc::new(checkpoint)
    }

    #[test]
    fn the_best_is_ready_and_of_the_newest_lineage() {
        let all = [
            checkpoint(1, 50, "0.1", CheckpointPhase::Ready),
            checkpoint(2, 10, "0.9", CheckpointPhase::Ready),
            checkpoint(2, 20, "5e-1", CheckpointPhase::Ready),
            checkpoint(2, 30, "0.7", CheckpointPhase::Ready),
            checkpoint(2, 40, "0.2", CheckpointPhase::Corrupt),
            checkpoint(2, 50, "0.1", CheckpointPhase::Missing),
        ];
        let policy = CheckpointPolicy::default();
        assert_eq!(best(&all, &policy).map(|c| c.spec.step), Some(20));
        assert_eq!(usable(&all).count(), 4);
        assert_eq!(latest(&all).map(|c| c.spec.step), Some(30));
        let largest = CheckpointPolicy { goal: Goal::Maximize, ..policy };
        assert_eq!(best(&all, &largest).map(|c| c.spec.step), Some(10));
    }
}
