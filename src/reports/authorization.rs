//! For whom a pod speaks: ties the pod to its Job and the Job to its FineTune or Checkpoint, always by uid. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as corev1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::authentication::PodIdentity;
use super::refusal::Refusal;
use crate::api::{Checkpoint, FineTune, names};

/// What the Job of a pod belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'a> {
    /// A run.
    FineTune(&'a FineTune),
    /// A hand-written checkpoint.
    Checkpoint(&'a Checkpoint),
}

/// For whom a pod speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// For a run.
    Run(RunSpeaker),
    /// For one hand-written checkpoint.
    Import {
        /// Name of the Checkpoint.
        checkpoint: String,
        /// Uid of the Checkpoint.
        uid: String,
    },
}

/// A pod that speaks for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunSpeaker {
    /// Name of the FineTune.
    pub fine_tune: String,
    /// Uid of the FineTune.
    pub uid: String,
    /// Attempt the pod belongs to.
    pub attempt: i64,
    /// Uid of the pod.
    pub pod: String,
    /// What the pod is for.
    pub role: RunRole,
    /// Rank of the pod among the nodes of the attempt.
    pub node: u32,
}

/// What a pod of a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunRole {
    /// Trains, and holds the volume.
    Train,
    /// Reads what a finished attempt left.
    Collect,
}

/// The controller owner of an object, when it is of `kind`.
#[must_use]
pub(crate) fn controller_of<'a>(metadata: &'a ObjectMeta, group: &str, kind: &str) -> Option<&'a OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| {
        let owner_group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        owner.controller == Some(true) && owner.kind == kind && owner_group == group
    })
}

/// For whom the pod speaks.
///
/// # Errors
/// Labels, owners or uids do not fit together.
pub(crate) fn speaker(identity: &PodIdentity, pod: &corev1::Pod, job: &batch::Job, owner: Owner<'_>) -> Result<Speaker, Refusal> {
    let refuse = |why: &str| Err(Refusal::Forbidden(format!("pod {}/{} {why}", identity.namespace, identity.name)));
    if pod.metadata.uid.as_deref() != Some(&identity.uid) {
        return refuse("is not the one the token was given to");
    }
    if !owns(controller_of(&pod.metadata, "batch", "Job"), job.metadata.uid.as_deref()) {
        return refuse("does not belong to its Job");
    }
    let (pod_labels, job_labels) = (labels(&pod.metadata), labels(&job.metadata));
    let same = |key| pod_labels.get(key).filter(|value| job_labels.get(key) == Some(*value)).map(String::as_str);
    match (same(names::ROLE), owner) {
        (Some(names::ROLE_IMPORT), Owner::Checkpoint(checkpoint)) => {
            let uid = checkpoint.metadata.uid.as_deref().unwrap_or_default();
            let job_owner = controller_of(&job.metadata, crate::api::GROUP, "Checkpoint");
            if !owns(job_owner, Some(uid)) || same(names::CHECKPOINT_UID) != Some(uid) {
                return refuse("does not belong to its Checkpoint");
            }
            let name = checkpoint.metadata.name.clone().unwrap_or_default();
            Ok(Speaker::Import { checkpoint: name, uid: uid.into() })
        }
        (Some(role @ (names::ROLE_TRAIN | names::ROLE_COLLECT)), Owner::FineTune(fine_tune)) => {
            let uid = fine_tune.metadata.uid.as_deref().unwrap_or_default();
            let job_owner = controller_of(&job.metadata, crate::api::GROUP, "FineTune");
            if !owns(job_owner, Some(uid)) || same(names::FINE_TUNE_UID) != Some(uid) {
                return refuse("does not belong to its FineTune");
            }
            let attempt = same(names::ATTEMPT).and_then(|value| value.parse().ok()).unwrap_or(0);
            let role = if role == names::ROLE_TRAIN { RunRole::Train } else { RunRole::Collect };
            if !is_attempt(fine_tune, job, attempt, role) {
                return refuse("does not belong to an attempt of its FineTune");
            }
            let fine_tune = fine_tune.metadata.name.clone().unwrap_or_default();
            Ok(Speaker::Run(RunSpeaker {
                fine_tune,
                uid: uid.into(),
                attempt,
                pod: identity.uid.clone(),
                role,
                node: names::rank(pod),
            }))
        }
        _ => refuse("has no role that reports"),
    }
}

/// An attempt is at most one ahead of the status, since its Job is made first; that of the status has the Job named there.
fn is_attempt(fine_tune: &FineTune, job: &batch::Job, attempt: i64, role: RunRole) -> bool {
    let (newest, name) = fine_tune.status.as_ref().map_or((0, None), |status| (status.attempt, status.job_name.as_deref()));
    let named = role == RunRole::Collect || attempt != newest || name.is_none() || name == job.metadata.name.as_deref();
    named && attempt >= 1 && attempt <= newest.saturating_add(1)
}

fn owns(owner: Option<&OwnerReference>, uid: Option<&str>) -> bool {
    owner.is_some_and(|owner| !owner.uid.is_empty() && Some(owner.uid.as_str()) == uid)
}

fn labels(metadata: &ObjectMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    metadata.labels.as_ref().unwrap_or(&NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::FineTuneStatus;
    use crate::reports::fixtures;

    fn said(change: impl FnOnce(&mut corev1::Pod, &mut batch::Job, &mut FineTune)) -> Result<Speaker, u16> {
        let (mut pod, mut job, mut fine_tune) = (fixtures::pod(), fixtures::job(), fixtures::fine_tune());
        change(&mut pod, &mut job, &mut fine_tune);
        speaker(&fixtures::identity(), &pod, &job, Owner::FineTune(&fine_tune)).map_err(|refusal| refusal.code())
    }

    fn label(metadata: &mut ObjectMeta, key: &str, value: &str) {
        metadata.labels.get_or_insert_default().insert(key.into(), value.into());
    }

    #[test]
    fn a_training_pod_speaks_for_its_run_and_attempt() {
        assert_eq!(said(|_, _, _| ()), Ok(Speaker::Run(fixtures::speaker())));
    }

    #[test]
    fn the_rank_comes_from_the_completion_index() {
        let said = said(|pod, _, _| {
            pod.metadata.annotations.get_or_insert_default().insert(names::COMPLETION_INDEX.into(), "3".into());
        });
        assert_eq!(said, Ok(Speaker::Run(RunSpeaker { node: 3, ..fixtures::speaker() })));
    }

    #[test]
    fn anything_that_does_not_fit_together_is_forbidden() {
        type Change = fn(&mut corev1::Pod, &mut batch::Job, &mut FineTune);
        let changes: &[(&str, Change)] = &[
            ("another pod of the name", |pod, _, _| pod.metadata.uid = Some("other".into())),
            ("a pod of its own", |pod, _, _| pod.metadata.owner_references = None),
            ("a pod of another Job", |_, job, _| job.metadata.uid = Some("other".into())),
            ("a Job of its own", |_, job, _| job.metadata.owner_references = None),
            ("a Job of an earlier run", |_, _, run| run.metadata.uid = Some("other".into())),
            ("another role", |pod, _, _| label(&mut pod.metadata, names::ROLE, names::ROLE_COLLECT)),
            ("a role that only deletes", |pod, job, _| {
                label(&mut pod.metadata, names::ROLE, names::ROLE_DELETE);
                label(&mut job.metadata, names::ROLE, names::ROLE_DELETE);
            }),
            ("an import without Checkpoint", |pod, job, _| {
                label(&mut pod.metadata, names::ROLE, names::ROLE_IMPORT);
                label(&mut job.metadata, names::ROLE, names::ROLE_IMPORT);
            }),
            ("a pod that raised its attempt", |pod, _, _| label(&mut pod.metadata, names::ATTEMPT, "2")),
            ("an attempt that is no number", |pod, job, _| {
                label(&mut pod.metadata, names::ATTEMPT, "x");
                label(&mut job.metadata, names::ATTEMPT, "x");
            }),
            ("an attempt that cannot be yet", |pod, job, _| {
                label(&mut pod.metadata, names::ATTEMPT, "3");
                label(&mut job.metadata, names::ATTEMPT, "3");
            }),
            ("a second Job of the attempt", |_, job, _| job.metadata.name = Some("other".into())),
        ];
        for (what, change) in changes {
            assert_eq!(said(*change), Err(403), "{what}");
        }
    }

    #[test]
    fn an_attempt_may_speak_before_the_status_knows_it() {
        let said = said(|_, _, run| run.status = Some(FineTuneStatus::default()));
        assert_eq!(said, Ok(Speaker::Run(fixtures::speaker())));
    }

    #[test]
    fn an_import_speaks_for_its_checkpoint_alone() {
        let (pod, job, checkpoint) = fixtures::import();
        let said = speaker(&fixtures::identity(), &pod, &job, Owner::Checkpoint(&checkpoint));
        assert_eq!(said, Ok(Speaker::Import { checkpoint: "imported".into(), uid: "ckpt-uid".into() }));
        let mut other = checkpoint;
        other.metadata.uid = Some("other".into());
        assert!(speaker(&fixtures::identity(), &pod, &job, Owner::Checkpoint(&other)).is_err());
    }
}
