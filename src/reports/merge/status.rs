//! The status of a Checkpoint from what the agent found on disk. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::super::figures;
use crate::api::condition::{READY, RECONCILING, STALLED};
use crate::api::{CheckpointPhase, CheckpointStatus};
use crate::protocol::{FilesState, ReportedCheckpoint};

/// The status after a report: what is whole is described anew, what is damaged or gone keeps what was known of it.
pub(super) fn checkpoint_status(
    reported: &ReportedCheckpoint,
    stored: Option<&CheckpointStatus>,
    generation: Option<i64>,
    now: Timestamp,
) -> CheckpointStatus {
    let mut status = stored.cloned().unwrap_or_default();
    status.observed_generation = generation;
    status.phase = match reported.state {
        FilesState::Ready => CheckpointPhase::Ready,
        FilesState::Corrupt => CheckpointPhase::Corrupt,
        FilesState::Missing => CheckpointPhase::Missing,
    };
    if reported.state == FilesState::Ready {
        status.saved_at = reported.saved_at.map(Time);
        status.metrics = figures::rounded(&reported.metrics);
        status.size_bytes = reported.size_bytes;
        status.file_count = reported.file_count;
        status.digest.clone_from(&reported.digest);
        status.resumable = reported.resumable;
        status.adapter.clone_from(&reported.adapter);
        status.samples.clone_from(&reported.samples);
    }
    let said = Said { reported, generation, now };
    status.conditions = said.conditions(&status.conditions);
    status
}

struct Said<'a> {
    reported: &'a ReportedCheckpoint,
    generation: Option<i64>,
    now: Timestamp,
}

impl Said<'_> {
    fn reason(&self) -> &'static str {
        match self.reported.state {
            FilesState::Ready => "Verified",
            FilesState::Corrupt => "FilesCorrupt",
            FilesState::Missing => "FilesMissing",
        }
    }

    fn message(&self) -> String {
        match self.reported.state {
            FilesState::Ready => "all files are there and verified".into(),
            _ if !self.reported.message.is_empty() => self.reported.message.clone(),
            FilesState::Corrupt => "its files are damaged: delete it, or put the files back".into(),
            FilesState::Missing => "its files are gone: delete it, or put the files back".into(),
        }
    }

    /// Ready always; Stalled while the files are not whole. Stalled and Reconciling that somebody else has set cannot be taken away by
    /// server-side apply, so they are made False. Other conditions are left as they are.
    fn conditions(&self, stored: &[Condition]) -> Vec<Condition> {
        let whole = self.reported.state == FilesState::Ready;
        let mut conditions = stored.to_vec();
        for (kind, status, always) in [(READY, whole, true), (STALLED, !whole, !whole), (RECONCILING, false, false)] {
            let place = conditions.iter_mut().find(|condition| condition.type_ == kind);
            match place {
                Some(condition) => *condition = self.condition(kind, status, Some(condition)),
                None if always => conditions.push(self.condition(kind, status, None)),
                None => {}
            }
        }
        conditions
    }

    fn condition(&self, kind: &str, status: bool, stored: Option<&Condition>) -> Condition {
        let status = if status { "True" } else { "False" };
        let unchanged = stored.filter(|stored| stored.status == status);
        Condition {
            type_: kind.into(),
            status: status.into(),
            reason: self.reason().into(),
            message: self.message(),
            last_transition_time: unchanged.map_or(Time(self.now), |stored| stored.last_transition_time.clone()),
            observed_generation: self.generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::condition;
    use crate::reports::fixtures;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn reported(state: FilesState) -> ReportedCheckpoint {
        ReportedCheckpoint { state, ..fixtures::reported(100) }
    }

    #[test]
    fn a_whole_checkpoint_is_ready_and_described() {
        let status = checkpoint_status(&reported(FilesState::Ready), None, Some(1), at(1));
        assert_eq!(status.phase, CheckpointPhase::Ready);
        assert!(condition::is_true(&status.conditions, READY));
        assert_eq!(condition::find(&status.conditions, STALLED), None);
        assert_eq!(status.digest.as_deref(), Some("sha256:aa"));
        assert_eq!(status.observed_generation, Some(1));
    }

    #[test]
    fn transition_times_move_only_when_the_status_flips() {
        let first = checkpoint_status(&reported(FilesState::Ready), None, Some(1), at(1));
        let again = checkpoint_status(&reported(FilesState::Ready), Some(&first), Some(1), at(9));
        assert_eq!(first, again);
        let gone = checkpoint_status(&reported(FilesState::Missing), Some(&again), Some(1), at(20));
        let ready = condition::find(&gone.conditions, READY).expect("Ready");
        assert_eq!((ready.status.as_str(), &ready.last_transition_time), ("False", &Time(at(20))));
        assert_eq!(ready.reason, "FilesMissing");
        assert!(condition::is_true(&gone.conditions, STALLED));
    }

    #[test]
    fn what_was_known_and_the_mark_of_the_best_survive_a_loss() {
        let mut first = checkpoint_status(&reported(FilesState::Ready), None, Some(1), at(1));
        first.best = true;
        let mut damaged = reported(FilesState::Corrupt);
        damaged.metrics.clear();
        damaged.size_bytes = 0;
        damaged.message = "model.safetensors is cut short".into();
        let status = checkpoint_status(&damaged, Some(&first), Some(1), at(2));
        assert_eq!((status.phase, status.best, status.size_bytes), (CheckpointPhase::Corrupt, true, 1024));
        assert_eq!(status.metrics, first.metrics);
        let stalled = condition::find(&status.conditions, STALLED).expect("Stalled");
        assert_eq!(stalled.message, "model.safetensors is cut short");
    }

    #[test]
    fn a_condition_somebody_else_left_ends_up_false_and_then_stays() {
        let lost = checkpoint_status(&reported(FilesState::Missing), None, Some(1), at(1));
        let found = checkpoint_status(&reported(FilesState::Ready), Some(&lost), Some(1), at(2));
        assert_eq!(condition::find(&found.conditions, STALLED).map(|stalled| stalled.status.as_str()), Some("False"));
        assert_eq!(checkpoint_status(&reported(FilesState::Ready), Some(&found), Some(1), at(3)), found);
    }
}
