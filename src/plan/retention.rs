//! Which checkpoints of a run its policy no longer keeps. Pure.

use std::{collections::BTreeSet, sync::Arc};

use super::ranking;
use crate::api::{Checkpoint, CheckpointPolicy};

/// The usable checkpoints that are neither among the newest nor among the best the policy keeps. Without keepLast and keepBest everything
/// is kept; the newest of all is kept always, since a run resumes from it, and so is what somebody uses.
#[must_use]
pub fn surplus<'a>(
    checkpoints: &'a [Arc<Checkpoint>],
    policy: &CheckpointPolicy,
    used: &BTreeSet<String>,
) -> Vec<&'a Arc<Checkpoint>> {
    if policy.keep_last.is_none() && policy.keep_best.is_none() {
        return Vec::new();
    }
    let count = |keep: Option<i32>| usize::try_from(keep.unwrap_or(0)).unwrap_or(0);
    let kept: BTreeSet<_> = ranking::newest_first(checkpoints)
        .into_iter()
        .take(count(policy.keep_last).max(1))
        .chain(ranking::best_first(checkpoints, policy).into_iter().take(count(policy.keep_best)))
        .filter_map(|checkpoint| checkpoint.metadata.name.clone())
        .collect();
    let stays = |checkpoint: &Checkpoint| {
        let name = checkpoint.metadata.name.as_ref();
        name.is_none_or(|name| kept.contains(name) || used.contains(name))
    };
    ranking::usable(checkpoints).filter(|checkpoint| !stays(checkpoint)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CheckpointPhase, CheckpointStatus};

    /// Checkpoints of steps 1, 2, 3 … with these losses.
    fn saved(losses: &[&str]) -> Vec<Arc<Checkpoint>> {
        let checkpoints = losses.iter().zip(1..).map(|(loss, step)| {
            let mut checkpoint = Checkpoint::default();
            checkpoint.metadata.name = Some(format!("s{step}"));
            checkpoint.spec.step = step;
            let metrics = [("eval_loss".to_owned(), (*loss).to_owned())].into();
            checkpoint.status = Some(CheckpointStatus { phase: CheckpointPhase::Ready, metrics, ..CheckpointStatus::default() });
            Arc::new(checkpoint)
        });
        checkpoints.collect()
    }

    fn goes(policy: &CheckpointPolicy, used: &[&str]) -> Vec<i64> {
        let all = saved(&["0.5", "0.1", "0.9", "0.3", "0.4"]);
        let used = used.iter().map(|name| (*name).to_owned()).collect();
        surplus(&all, policy, &used).into_iter().map(|checkpoint| checkpoint.spec.step).collect()
    }

    #[test]
    fn what_the_trainer_has_rotated_away_neither_goes_nor_takes_a_place() {
        let mut all = saved(&["0.5", "0.1", "0.9", "0.3", "0.4"]);
        for rotated in [1, 4] {
            if let Some(status) = &mut Arc::make_mut(&mut all[rotated]).status {
                status.phase = CheckpointPhase::Missing;
            }
        }
        let steps = |policy: &CheckpointPolicy| -> Vec<_> {
            surplus(&all, policy, &BTreeSet::new()).into_iter().map(|checkpoint| checkpoint.spec.step).collect()
        };
        let policy = CheckpointPolicy { keep_last: Some(1), keep_best: Some(1), ..CheckpointPolicy::default() };
        assert_eq!(steps(&policy), [1, 3], "the newest and best that is left is 4");
        assert_eq!(steps(&CheckpointPolicy { keep_last: Some(2), ..CheckpointPolicy::default() }), [1]);
    }

    #[test]
    fn the_newest_and_the_best_stay() {
        let policy = |keep_last, keep_best| CheckpointPolicy { keep_last, keep_best, ..CheckpointPolicy::default() };
        assert_eq!(goes(&policy(None, None), &[]), Vec::<i64>::new());
        assert_eq!(goes(&policy(Some(2), None), &[]), [1, 2, 3]);
        assert_eq!(goes(&policy(Some(1), Some(2)), &[]), [1, 3]);
        assert_eq!(goes(&policy(None, Some(1)), &[]), [1, 3, 4], "the newest is what a run resumes from");
        assert_eq!(goes(&policy(Some(1), None), &["s1"]), [2, 3, 4], "what is used stays");
    }
}
