//! Which attempt is the current one, and what of it is there. Pure.

use std::sync::Arc;

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::ResourceExt;

use super::ObservedFineTune;
use crate::api::{StartPolicy, names};

/// The current attempt, as the world shows it.
#[derive(Clone, Debug, Default)]
pub struct AttemptFacts {
    /// Its number; 0 before the first.
    pub number: i64,
    /// Its training Job.
    pub job: Option<Arc<batch::Job>>,
    /// The Job that collects what it left.
    pub collect: Option<Arc<batch::Job>>,
    /// Its training pods.
    pub pods: Vec<Arc<corev1::Pod>>,
    /// Training pods of any attempt that still hold a node.
    pub live_pods: usize,
}

impl AttemptFacts {
    /// Reads them from the world: the newest attempt the status or any Job of the run knows.
    pub fn of(observed: &ObservedFineTune) -> Self {
        let newest = observed.jobs.iter().filter(|job| trains(job)).map(|job| attempt(job.labels())).max().unwrap_or(0);
        Self::of_number(observed, observed.status().attempt.max(newest))
    }

    /// The same of the attempt the status tells of, which is an older one while the newest is not on record.
    pub fn on_record(observed: &ObservedFineTune) -> Self {
        Self::of_number(observed, observed.status().attempt)
    }

    fn of_number(observed: &ObservedFineTune, number: i64) -> Self {
        let of_attempt = |job: &&Arc<batch::Job>| attempt(job.labels()) == number;
        let training: Vec<_> =
            observed.pods.iter().filter(|pod| role(pod.labels()) == Some(names::ROLE_TRAIN)).cloned().collect();
        Self {
            number,
            job: observed.jobs.iter().filter(|job| trains(job)).find(of_attempt).cloned(),
            collect: observed.jobs.iter().filter(|job| role(job.labels()) == Some(names::ROLE_COLLECT)).find(of_attempt).cloned(),
            live_pods: training.iter().filter(|pod| is_live(pod)).count(),
            pods: training.into_iter().filter(|pod| attempt(pod.labels()) == number).collect(),
        }
    }

    /// Whether the newest Job was made, but the status that tells of it never written: the process ended in between.
    pub fn is_unrecorded(&self, observed: &ObservedFineTune) -> bool {
        self.job.is_some() && self.number > observed.status().attempt
    }

    /// Whether the user has asked for an attempt that has no Job yet.
    pub fn is_restarted(&self, observed: &ObservedFineTune) -> bool {
        observed.fine_tune.spec.restarts > observed.status().restarts && !self.is_unrecorded(observed)
    }

    /// Whether the current attempt was at work and its end is not on record.
    pub fn is_open(&self, observed: &ObservedFineTune) -> bool {
        let status = observed.status();
        let recorded = status.attempts.iter().find(|attempt| attempt.number == self.number);
        recorded.is_some_and(|attempt| attempt.start_time.is_some() && attempt.end_time.is_none())
    }

    /// Number of the attempt a launch now would be.
    ///
    /// An attempt whose Job was never seen at work is launched under its own number again: creating the same Job twice is harmless,
    /// and a cache that lags never makes a second one.
    pub fn next_attempt(&self, observed: &ObservedFineTune) -> NextAttempt {
        let status = observed.status();
        let recorded = status.attempts.iter().find(|attempt| attempt.number == self.number);
        let never_at_work = recorded.is_some_and(|attempt| attempt.start_time.is_none() && attempt.end_time.is_none());
        let restarted = observed.fine_tune.spec.restarts > status.restarts;
        let again = self.number > 0 && never_at_work && !restarted;
        let number = if again || self.is_unrecorded(observed) { self.number } else { self.number + 1 };
        let scratch = restarted && observed.fine_tune.spec.start_from.policy == StartPolicy::Scratch;
        let lineage = if scratch { status.lineage + 1 } else { status.lineage.max(1) };
        NextAttempt { number, lineage }
    }
}

/// What a launch would make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextAttempt {
    /// Its number.
    pub number: i64,
    /// The lineage it writes to.
    pub lineage: i64,
}

/// Number of the attempt a Job or pod belongs to; 0 when it does not say.
pub fn attempt(labels: &std::collections::BTreeMap<String, String>) -> i64 {
    labels.get(names::ATTEMPT).and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn trains(job: &batch::Job) -> bool {
    role(job.labels()) == Some(names::ROLE_TRAIN)
}

fn role(labels: &std::collections::BTreeMap<String, String>) -> Option<&str> {
    labels.get(names::ROLE).map(String::as_str)
}

/// Whether a pod may still be writing: anything but finished.
pub fn is_live(pod: &corev1::Pod) -> bool {
    !matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}
