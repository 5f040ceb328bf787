//! The list of conditions an object is to have. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::condition::{FINISHED, READY, RECONCILING, STALLED, find};

/// What is true of an object, in the terms of kstatus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Where it is headed.
    pub course: Course,
    /// `Finished` is there.
    pub finished: bool,
    /// Reason of all of them, in CamelCase.
    pub reason: String,
    /// Message of all of them.
    pub message: String,
}

/// Where an object is headed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It is as it should be: `Ready` is True.
    Ready,
    /// It is on its way: `Reconciling` is there.
    Reconciling,
    /// It waits for somebody to change something: `Stalled` is there.
    Stalled,
    /// Neither: paused, or stopped.
    Resting,
}

impl State {
    fn on(course: Course, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { course, finished: false, reason: reason.into(), message: message.into() }
    }

    /// On its way.
    #[must_use]
    pub fn reconciling(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::on(Course::Reconciling, reason, message)
    }

    /// Waits for somebody to change something.
    #[must_use]
    pub fn stalled(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::on(Course::Stalled, reason, message)
    }

    /// As it should be.
    #[must_use]
    pub fn ready(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::on(Course::Ready, reason, message)
    }

    /// Neither on its way nor ready: paused.
    #[must_use]
    pub fn resting(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::on(Course::Resting, reason, message)
    }

    /// The same, over for good.
    #[must_use]
    pub fn finished(self) -> Self {
        Self { finished: true, ..self }
    }
}

/// The conditions for `state`; the time of a condition moves only when its status flips.
#[must_use]
pub fn conditions(before: &[Condition], state: &State, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let wanted = [
        (READY, state.course == Course::Ready, true),
        (RECONCILING, state.course == Course::Reconciling, false),
        (STALLED, state.course == Course::Stalled, false),
        (FINISHED, state.finished, false),
    ];
    wanted
        .into_iter()
        .filter(|(_, value, always)| *value || *always)
        .map(|(kind, value, _)| {
            let status = if value { "True" } else { "False" };
            let since = find(before, kind)
                .filter(|condition| condition.status == status)
                .map_or(Time(now), |condition| condition.last_transition_time.clone());
            Condition {
                type_: kind.into(),
                status: status.into(),
                reason: state.reason.clone(),
                message: state.message.clone(),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// What else is true of an object, beside what kstatus knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Further {
    /// Type of the condition.
    pub kind: &'static str,
    /// Whether it is True.
    pub holds: bool,
    /// Reason, in CamelCase.
    pub reason: String,
    /// Message for people.
    pub message: String,
}

impl Further {
    /// The condition; its time moves only when its status flips.
    #[must_use]
    pub fn condition(self, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let known = find(before, self.kind).filter(|condition| condition.status == status);
        Condition {
            type_: self.kind.into(),
            status: status.into(),
            reason: self.reason,
            message: self.message,
            observed_generation: generation,
            last_transition_time: known.map_or(Time(now), |condition| condition.last_transition_time.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    #[test]
    fn the_time_moves_only_when_the_status_flips() {
        let first = conditions(&[], &State::reconciling("Training", "the trainer trains"), Some(1), at(10));
        let second = conditions(&first, &State::reconciling("Starting", "the pod starts"), Some(1), at(20));
        assert_eq!(second.iter().map(|c| c.last_transition_time.0).collect::<Vec<_>>(), vec![at(10), at(10)]);
        let third = conditions(&second, &State::ready("Succeeded", "done").finished(), Some(1), at(30));
        assert_eq!(find(&third, READY).map(|c| c.last_transition_time.0), Some(at(30)));
        assert!(find(&third, RECONCILING).is_none(), "an abnormal-true condition goes away");
    }
}
