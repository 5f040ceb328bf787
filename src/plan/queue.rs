//! What Kueue says of runs that wait in its queues: the place of each, and what it waits for. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::batch::v1 as batch,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use serde::Deserialize;

use super::status_text::cut;
use crate::api::QueueStatus;

/// Label of a Job: the queue it is to wait in.
pub const QUEUE: &str = "kueue.x-k8s.io/queue-name";
/// Label of a Job: its priority among those that wait.
pub const PRIORITY_CLASS: &str = "kueue.x-k8s.io/priority-class";
/// Label of a Workload: uid of the Job it stands for.
pub const JOB_UID: &str = "kueue.x-k8s.io/job-uid";

/// Longest reason a status holds, in bytes.
const LONGEST_REASON: usize = 1024;

/// The queue a Job of ours waits in, if it waits in one.
#[must_use]
pub fn waits_in(job: &batch::Job) -> Option<&str> {
    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
    let queue = job.metadata.labels.as_ref().and_then(|labels| labels.get(QUEUE));
    queue.filter(|_| suspended && job.metadata.deletion_timestamp.is_none()).map(String::as_str)
}

/// The first of those that wait in a queue, as the visibility API lists them.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct PendingWorkloads {
    #[serde(default)]
    items: Vec<PendingWorkload>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
struct PendingWorkload {
    metadata: ObjectMeta,
    position_in_cluster_queue: i64,
}

impl PendingWorkloads {
    /// The place of a Job, 1 = next. Queues of several namespaces share one quota, so the place among all of them tells of the wait.
    #[must_use]
    pub fn position(&self, job: &str) -> Option<i64> {
        let stands_for = |item: &&PendingWorkload| item.metadata.owner_references.iter().flatten().any(|owner| owner.uid == job);
        Some(self.items.iter().find(stands_for)?.position_in_cluster_queue + 1)
    }
}

/// Workloads: what Kueue decides about, one for a Job.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct Workloads {
    #[serde(default)]
    items: Vec<Workload>,
}

#[derive(Deserialize, Clone, Debug)]
struct Workload {
    metadata: ObjectMeta,
    #[serde(default)]
    status: WorkloadStatus,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct WorkloadStatus {
    conditions: Vec<Condition>,
    admission_checks: Vec<AdmissionCheck>,
}

#[derive(Deserialize, Clone, Debug)]
struct AdmissionCheck {
    name: String,
    state: String,
}

impl Workloads {
    /// What the Job waits for.
    fn reason(&self, job: &str) -> Option<String> {
        let stands_for =
            |workload: &&Workload| workload.metadata.labels.iter().flatten().any(|(name, uid)| name == JOB_UID && uid == job);
        let status = &self.items.iter().find(stands_for)?.status;
        let reason = match lack(status)? {
            Lack::Known(reason) => reason,
            Lack::Unknown => self.lack_of_another().unwrap_or_else(|| "Kueue has not weighed it yet".to_owned()),
        };
        Some(cut(&reason, LONGEST_REASON))
    }

    /// Kueue weighs one of several that ask for the same, and says nothing of the others.
    fn lack_of_another(&self) -> Option<String> {
        let known = self.items.iter().find_map(|workload| match lack(&workload.status)? {
            Lack::Known(reason) => Some(reason),
            Lack::Unknown => None,
        })?;
        Some(format!("Kueue has not weighed it by itself; another in its queue waits for this: {known}"))
    }
}

/// What Kueue says of each of these Jobs, which all wait.
#[must_use]
pub fn places(jobs: &[&str], pending: &PendingWorkloads, workloads: &Workloads) -> BTreeMap<String, QueueStatus> {
    let place = |job: &&str| QueueStatus { position: pending.position(job), reason: workloads.reason(job) };
    jobs.iter().map(|job| ((*job).to_owned(), place(job))).collect()
}

/// What a workload lacks.
enum Lack {
    Known(String),
    /// Kueue has said nothing of it.
    Unknown,
}

/// What a workload lacks: a quota, the word of a check, or nothing any more.
fn lack(status: &WorkloadStatus) -> Option<Lack> {
    let find = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    let holds = |kind: &str| find(kind).filter(|condition| condition.status == "True");
    if holds("Admitted").is_some() {
        return None;
    }
    let lacks = if holds("QuotaReserved").is_some() {
        let waits = status.admission_checks.iter().filter(|check| check.state != "Ready");
        let names: Vec<_> = waits.map(|check| check.name.as_str()).collect();
        format!("has its quota and waits for admission checks: {}", names.join(", "))
    } else if let Some(lacks_quota) = find("QuotaReserved") {
        lacks_quota.message.clone()
    } else {
        return Some(Lack::Unknown);
    };
    Some(Lack::Known(match holds("Evicted") {
        Some(evicted) if evicted.message == lacks => format!("evicted ({}): {lacks}", evicted.reason),
        Some(evicted) => format!("evicted ({}: {}); now: {lacks}", evicted.reason, cut(&evicted.message, LONGEST_REASON / 2)),
        None => lacks,
    }))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "test data reads better by value")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pending(items: Value) -> PendingWorkloads {
        serde_json::from_value(json!({"kind": "PendingWorkloadsSummary", "items": items})).unwrap()
    }

    fn item(job: &str, position: i64) -> Value {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": job});
        json!({
            "metadata": {"name": format!("job-{job}"), "ownerReferences": [owner]},
            "priority": 0, "localQueueName": "team", "positionInClusterQueue": position, "positionInLocalQueue": 0,
        })
    }

    fn workloads(conditions: Value, checks: Value) -> Workloads {
        serde_json::from_value(json!({"items": [{
            "metadata": {"name": "job-a", "labels": {JOB_UID: "a"}},
            "status": {"conditions": conditions, "admissionChecks": checks},
        }]}))
        .unwrap()
    }

    fn said(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        let time = "2027-01-15T08:00:00Z";
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time})
    }

    fn reason_of(conditions: Value, checks: Value) -> Option<String> {
        let places = places(&["a"], &PendingWorkloads::default(), &workloads(conditions, checks));
        places["a"].reason.clone()
    }

    #[test]
    fn the_place_is_the_one_among_all_that_share_the_quota_counted_from_one() {
        let pending = pending(json!([item("a", 0), item("b", 4)]));
        let places = places(&["a", "b", "c"], &pending, &Workloads::default());
        let positions: Vec<_> = places.values().map(|place| place.position).collect();
        assert_eq!(positions, [Some(1), Some(5), None], "one that is not listed has no place that anybody knows");
    }

    #[test]
    fn the_reason_says_what_is_missing() {
        let lacks = said("QuotaReserved", "False", "Pending", "insufficient unused quota for nvidia.com/gpu, 1 more needed");
        let cases = [
            (json!([]), json!([]), Some("Kueue has not weighed it yet")),
            (json!([lacks]), json!([]), Some("insufficient unused quota for nvidia.com/gpu, 1 more needed")),
            (
                json!([said("QuotaReserved", "True", "QuotaReserved", "")]),
                json!([{"name": "budget", "state": "Pending"}, {"name": "site", "state": "Ready"}]),
                Some("has its quota and waits for admission checks: budget"),
            ),
            (json!([said("QuotaReserved", "True", "", ""), said("Admitted", "True", "Admitted", "")]), json!([]), None),
            (
                json!([lacks, said("Evicted", "True", "Preempted", "preempted by job-x")]),
                json!([]),
                Some("evicted (Preempted: preempted by job-x); now: insufficient unused quota for nvidia.com/gpu, 1 more needed"),
            ),
            (
                json!([said("QuotaReserved", "False", "Pending", "out"), said("Evicted", "True", "Preempted", "out")]),
                json!([]),
                Some("evicted (Preempted): out"),
            ),
            (
                json!([lacks, said("Evicted", "False", "Preempted", "long ago")]),
                json!([]),
                Some("insufficient unused quota for nvidia.com/gpu, 1 more needed"),
            ),
        ];
        for (conditions, checks, wanted) in cases {
            assert_eq!(reason_of(conditions.clone(), checks).as_deref(), wanted, "{conditions}");
        }
    }

    #[test]
    fn one_that_kueue_has_not_weighed_tells_what_another_of_its_queue_waits_for() {
        let mut both = workloads(json!([said("QuotaReserved", "False", "Pending", "one GPU is missing")]), json!([]));
        let mut second = both.items[0].clone();
        second.metadata.labels = Some([(JOB_UID.to_owned(), "b".to_owned())].into());
        second.status = WorkloadStatus::default();
        both.items.push(second);
        let places = places(&["a", "b"], &PendingWorkloads::default(), &both);
        assert_eq!(places["a"].reason.as_deref(), Some("one GPU is missing"));
        let told = "Kueue has not weighed it by itself; another in its queue waits for this: one GPU is missing";
        assert_eq!(places["b"].reason.as_deref(), Some(told));
    }

    #[test]
    fn a_reason_has_an_end() {
        let long = "x".repeat(5000);
        let both =
            json!([said("QuotaReserved", "False", "Pending", &long), said("Evicted", "True", "Preempted", &"y".repeat(5000))]);
        assert_eq!(reason_of(both, json!([])).unwrap().len(), LONGEST_REASON);
    }

    #[test]
    fn a_job_without_a_workload_has_neither_place_nor_reason() {
        assert_eq!(places(&["a"], &PendingWorkloads::default(), &Workloads::default())["a"], QueueStatus::default());
    }
}
