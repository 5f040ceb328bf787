//! Objects the tests of this folder share: a run named `run`, its Job, its pod, and what its agent says.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as corev1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use serde_json::json;

use super::authentication::PodIdentity;
use super::authorization::RunRole;
pub(crate) use super::authorization::RunSpeaker;
use super::merge::{Observed, Writes};
use crate::api::{Checkpoint, FineTune, FineTuneHistory, Series, WeightsFormat, names};
use crate::protocol::{FilesState, Report, ReportedCheckpoint, ReportedProgress};

/// Uid of the run.
pub(crate) const UID: &str = "0a1b2c3d-0000-4000-8000-000000000001";

pub(crate) fn identity() -> PodIdentity {
    PodIdentity { namespace: "team".into(), name: "run-1-abc".into(), uid: "pod-uid".into() }
}

pub(crate) fn speaker() -> RunSpeaker {
    RunSpeaker { fine_tune: "run".into(), uid: UID.into(), attempt: 1, pod: "pod-uid".into(), role: RunRole::Train, node: 0 }
}

fn owner(api_version: &str, kind: &str, name: &str, uid: &str) -> Vec<OwnerReference> {
    vec![OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: uid.into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]
}

fn labels(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

const RUN_LABELS: &[(&str, &str)] = &[(names::FINE_TUNE_UID, UID), (names::ATTEMPT, "1"), (names::ROLE, names::ROLE_TRAIN)];

pub(crate) fn pod() -> corev1::Pod {
    corev1::Pod {
        metadata: ObjectMeta {
            name: Some("run-1-abc".into()),
            namespace: Some("team".into()),
            uid: Some("pod-uid".into()),
            labels: Some(labels(RUN_LABELS)),
            owner_references: Some(owner("batch/v1", "Job", "run-1", "job-uid")),
            ..ObjectMeta::default()
        },
        ..corev1::Pod::default()
    }
}

pub(crate) fn job() -> batch::Job {
    batch::Job {
        metadata: ObjectMeta {
            name: Some("run-1".into()),
            namespace: Some("team".into()),
            uid: Some("job-uid".into()),
            labels: Some(labels(RUN_LABELS)),
            owner_references: Some(owner("finetune.dev/v1alpha1", "FineTune", "run", UID)),
            ..ObjectMeta::default()
        },
        ..batch::Job::default()
    }
}

pub(crate) fn fine_tune() -> FineTune {
    serde_json::from_value(json!({
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTune",
        "metadata": {"name": "run", "namespace": "team", "uid": UID, "resourceVersion": "10", "generation": 1},
        "spec": {"baseModel": {"name": "llama"}, "dataset": {"name": "ds"}},
        "status": {
            "phase": "Running", "attempt": 1, "lineage": 1, "jobName": "run-1",
            "resolved": {"runtime": "trl", "hardware": "gpu", "image": "i", "output": "volume://claim/out", "parametersDigest": "d"}
        }
    }))
    .expect("a FineTune")
}

pub(crate) fn reported(step: i64) -> ReportedCheckpoint {
    ReportedCheckpoint {
        step,
        lineage: 1,
        attempt: 1,
        state: FilesState::Ready,
        message: String::new(),
        format: WeightsFormat::Adapter,
        saved_at: "2026-11-20T10:00:00Z".parse().ok(),
        metrics: [("loss".to_owned(), "0.5".to_owned())].into(),
        size_bytes: 1024,
        file_count: 7,
        digest: Some("sha256:aa".into()),
        resumable: true,
        adapter: None,
        samples: vec![],
    }
}

pub(crate) fn report() -> Report {
    Report {
        sequence: 1,
        progress: Some(ReportedProgress {
            step: 120,
            total_steps: Some(300),
            estimated_remaining_seconds: Some(720),
            metrics: [("loss".to_owned(), "0.4".to_owned())].into(),
            time: "2026-11-20T10:00:30Z".parse().ok(),
            ..ReportedProgress::default()
        }),
        checkpoints: vec![reported(100)],
        series: vec![Series { name: "loss".into(), steps: vec![10, 100], values: vec!["0.9".into(), "0.5".into()] }],
        log: vec!["2026-11-20T10:00:00Z training".into()],
        ..Report::default()
    }
}

/// A Checkpoint as the API server would hold it.
pub(crate) fn stored(step: i64) -> Checkpoint {
    let mut checkpoint =
        super::naming::new_checkpoint(&fine_tune(), None, &reported(step), format!("run-step-{step}")).expect("a checkpoint");
    checkpoint.metadata.uid = Some(format!("uid-{step}"));
    checkpoint.metadata.generation = Some(1);
    checkpoint.metadata.resource_version = Some("20".into());
    checkpoint
}

/// Pod, Job and Checkpoint of an import.
pub(crate) fn import() -> (corev1::Pod, batch::Job, Checkpoint) {
    let import = &[(names::CHECKPOINT_UID, "ckpt-uid"), (names::ROLE, names::ROLE_IMPORT)];
    let (mut pod, mut job) = (pod(), job());
    pod.metadata.labels = Some(labels(import));
    job.metadata.labels = Some(labels(import));
    job.metadata.owner_references = Some(owner("finetune.dev/v1alpha1", "Checkpoint", "imported", "ckpt-uid"));
    let checkpoint = serde_json::from_value(json!({
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "Checkpoint",
        "metadata": {"name": "imported", "namespace": "team", "uid": "ckpt-uid", "resourceVersion": "5", "generation": 1},
        "spec": {"baseModel": {"name": "llama"}, "storage": {"volume": {"claimName": "c", "path": "p"}}}
    }))
    .expect("a Checkpoint");
    (pod, job, checkpoint)
}

/// What is stored about a run, with everything a test may want to change.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) fine_tune: FineTune,
    pub(crate) checkpoints: Vec<Arc<Checkpoint>>,
    pub(crate) taken: BTreeSet<String>,
    pub(crate) history: Option<FineTuneHistory>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { fine_tune: fine_tune(), checkpoints: vec![], taken: BTreeSet::new(), history: None }
    }

    pub(crate) fn observed(&self) -> Observed<'_> {
        Observed {
            fine_tune: &self.fine_tune,
            checkpoints: &self.checkpoints,
            taken: &self.taken,
            history: self.history.as_ref(),
            default_output: None,
        }
    }

    pub(crate) fn merge(&self, speaker: &RunSpeaker, report: &Report) -> Writes {
        super::merge::merge(speaker, &self.observed(), report, now()).expect("writes")
    }

    /// The world after the API server has taken the writes.
    pub(crate) fn after(&self, writes: Writes) -> Self {
        let mut world = self.clone();
        for mut made in writes.create {
            made.metadata.uid = Some(format!("uid-{}", made.spec.step));
            made.metadata.generation = Some(1);
            world.checkpoints.push(Arc::new(made));
        }
        for write in writes.statuses {
            let place = world.checkpoints.iter_mut().find(|made| made.metadata.name.as_ref() == Some(&write.name));
            Arc::make_mut(place.expect("the Checkpoint")).status = Some(write.status);
        }
        if let Some(history) = writes.history {
            world.history = Some(history);
        }
        if let Some(write) = writes.progress {
            world.fine_tune.status.get_or_insert_default().progress = Some(write.progress);
        }
        world
    }
}

pub(crate) fn now() -> Timestamp {
    "2026-11-20T10:01:00Z".parse().expect("a time")
}
