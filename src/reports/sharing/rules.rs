//! Whose pod asks for the way to a checkpoint, and whether it may have it. Ties the pod to its workload and that to its owner by uid. Pure.

use k8s_openapi::api::core::v1 as corev1;

use crate::api::{Checkpoint, CheckpointPermission, CheckpointReference, ModelDeployment, names};
use crate::protocol::sharing::{Grant, exporter_name};
use crate::reports::authentication::PodIdentity;
use crate::reports::authorization::controller_of;
use crate::reports::refusal::Refusal;

/// What a pod says it works for: name and uid.
pub(super) type Work = (String, String);

/// The Deployment of ours a serving pod works for.
///
/// # Errors
/// It is no serving pod, or not the one the token was given to.
pub(super) fn serves(identity: &PodIdentity, pod: &corev1::Pod) -> Result<Work, Refusal> {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let work = labels.get(names::DEPLOYMENT).cloned().zip(labels.get(names::DEPLOYMENT_UID).cloned());
    let (name, uid) = work.ok_or_else(|| refused(identity, "serves no Deployment"))?;
    made_by(identity, pod, (names::ROLE_SERVE, &name))?;
    Ok((name, uid))
}

/// The Checkpoint an exporter hands out.
///
/// # Errors
/// It is no exporter, or not the one the token was given to.
pub(super) fn exports(identity: &PodIdentity, pod: &corev1::Pod) -> Result<Work, Refusal> {
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(names::CHECKPOINT).cloned());
    let label = pod.metadata.labels.as_ref().and_then(|all| all.get(names::CHECKPOINT_UID).cloned());
    let (name, uid) = annotation.zip(label).ok_or_else(|| refused(identity, "exports no Checkpoint"))?;
    made_by(identity, pod, (names::ROLE_EXPORT, &exporter_name(&uid)))?;
    Ok((name, uid))
}

/// Whether the pod has that role and comes from the workload of that name.
fn made_by(identity: &PodIdentity, pod: &corev1::Pod, (role, workload): (&str, &str)) -> Result<(), Refusal> {
    let metadata = &pod.metadata;
    let replica_set = controller_of(metadata, "apps", "ReplicaSet").map(|owner| owner.name.as_str());
    let hash = replica_set.and_then(|name| name.strip_prefix(workload)?.strip_prefix('-'));
    let has_role = metadata.labels.iter().flatten().any(|(key, value)| key == names::ROLE && value == role);
    if metadata.uid.as_deref() != Some(&identity.uid) {
        Err(refused(identity, "is not the one the token was given to"))
    } else if metadata.deletion_timestamp.is_some() {
        Err(refused(identity, "is on its way out"))
    } else if !has_role || !hash.is_some_and(|hash| !hash.is_empty() && !hash.contains('-')) {
        Err(refused(identity, "does not belong to its workload"))
    } else {
        Ok(())
    }
}

/// What the pods of `deployment` may read of `checkpoint`, of which `wanted` is the uid they were made for. What does not exist and what is
/// not permitted is refused in the same words.
///
/// # Errors
/// It may not be read, or not any more.
pub(super) fn grant(
    (deployment, uid): (&ModelDeployment, &str),
    (reference, checkpoint, wanted): (&CheckpointReference, Option<&Checkpoint>, &str),
    permissions: &[std::sync::Arc<CheckpointPermission>],
) -> Result<Grant, Refusal> {
    let project = deployment.metadata.namespace.as_deref().unwrap_or_default();
    let same = deployment.metadata.uid.as_deref() == Some(uid) && deployment.metadata.deletion_timestamp.is_none();
    let found = checkpoint.filter(|found| {
        found.metadata.uid.as_deref() == Some(wanted)
            && found.metadata.name.as_ref() == Some(&reference.name)
            && found.metadata.namespace == reference.namespace
    });
    let permitted = found.is_some_and(|found| {
        let run = found.spec.fine_tune.as_ref().map(|run| run.name.as_str());
        permissions.iter().any(|permission| {
            permission.metadata.namespace == reference.namespace
                && permission.metadata.deletion_timestamp.is_none()
                && permission.spec.allows((&reference.name, run), project)
        })
    });
    if !same || !permitted {
        return Err(Refusal::Forbidden("the checkpoint may not be used from this namespace, or not any more".into()));
    }
    Ok(Grant { checkpoint: wanted.into(), namespace: project.into(), deployment: uid.into() })
}

fn refused(identity: &PodIdentity, why: &str) -> Refusal {
    Refusal::Forbidden(format!("pod {}/{} {why}", identity.namespace, identity.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity() -> PodIdentity {
        PodIdentity { namespace: "team-b".into(), name: "bot-7d9f-abc".into(), uid: "pod-uid".into() }
    }

    fn pod(change: impl FnOnce(&mut serde_json::Value)) -> corev1::Pod {
        let mut pod = json!({"metadata": {
            "name": "bot-7d9f-abc", "namespace": "team-b", "uid": "pod-uid",
            "labels": {names::ROLE: names::ROLE_SERVE, names::DEPLOYMENT: "bot", names::DEPLOYMENT_UID: "d-1"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "bot-7d9f", "uid": "rs", "controller": true}],
        }});
        change(&mut pod["metadata"]);
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_pod_of_a_served_model_speaks_for_its_deployment() {
        assert_eq!(serves(&identity(), &pod(|_| ())), Ok(("bot".into(), "d-1".into())));
        assert!(exports(&identity(), &pod(|_| ())).is_err());
        let exporter = pod(|metadata| {
            metadata["labels"] = json!({names::ROLE: names::ROLE_EXPORT, names::CHECKPOINT_UID: "c-1"});
            metadata["annotations"] = json!({names::CHECKPOINT: "bot-step-5"});
            metadata["ownerReferences"][0]["name"] = json!("ckpt-export-c-1-7d9f");
        });
        assert_eq!(exports(&identity(), &exporter), Ok(("bot-step-5".into(), "c-1".into())));
        assert!(serves(&identity(), &exporter).is_err());
    }

    #[test]
    fn any_other_pod_speaks_for_none() {
        type Change = fn(&mut serde_json::Value);
        let changes: &[(&str, Change)] = &[
            ("another pod of the name", |pod| pod["uid"] = json!("other")),
            ("one that goes", |pod| pod["deletionTimestamp"] = json!("2027-01-15T08:00:00Z")),
            ("one of no workload", |pod| pod["ownerReferences"] = json!([])),
            ("one of a Job", |pod| pod["ownerReferences"][0]["kind"] = json!("Job")),
            ("one of another workload", |pod| pod["ownerReferences"][0]["name"] = json!("bots-7d9f")),
            ("one of a workload with a longer name", |pod| pod["ownerReferences"][0]["name"] = json!("bot-two-7d9f")),
            ("one with another role", |pod| pod["labels"][names::ROLE] = json!(names::ROLE_TRAIN)),
            ("one without Deployment", |pod| drop(pod["labels"].as_object_mut().unwrap().remove(names::DEPLOYMENT_UID))),
        ];
        for (what, change) in changes {
            assert_eq!(serves(&identity(), &pod(change)).map_err(|refusal| refusal.code()), Err(403), "{what}");
        }
    }

    /// The code of a refusal, for worlds that differ from a permitted one by `change`.
    fn asked(change: impl FnOnce(&mut serde_json::Value)) -> Result<Grant, Refusal> {
        let mut world = json!({
            "deployment": {"apiVersion": "finetune.dev/v1alpha1", "kind": "Deployment",
                "metadata": {"name": "bot", "namespace": "team-b", "uid": "d-1"},
                "spec": {"checkpoint": {"name": "bot-step-5", "namespace": "team-a"}}},
            "checkpoint": {"apiVersion": "finetune.dev/v1alpha1", "kind": "Checkpoint",
                "metadata": {"name": "bot-step-5", "namespace": "team-a", "uid": "c-1"},
                "spec": {"baseModel": {"name": "m"}, "fineTune": {"name": "bot", "uid": "r"}, "storage": {"volume": {"claimName": "out"}}}},
            "permission": {"apiVersion": "finetune.dev/v1alpha1", "kind": "CheckpointPermission",
                "metadata": {"name": "p", "namespace": "team-a"},
                "spec": {"fineTune": {"name": "bot"}, "project": "team-b"}},
            "uid": "d-1", "wanted": "c-1",
        });
        change(&mut world);
        let checkpoint: Option<Checkpoint> = serde_json::from_value(world["checkpoint"].clone()).unwrap();
        let permission: CheckpointPermission = serde_json::from_value(world["permission"].clone()).unwrap();
        let deployment: ModelDeployment = serde_json::from_value(world["deployment"].clone()).unwrap();
        let text = |key: &str| world[key].as_str().unwrap().to_owned();
        let reference = &deployment.spec.checkpoint;
        grant((&deployment, &text("uid")), (reference, checkpoint.as_ref(), &text("wanted")), &[permission.into()])
    }

    #[test]
    fn who_is_permitted_is_granted_exactly_that() {
        let grant = Grant { checkpoint: "c-1".into(), namespace: "team-b".into(), deployment: "d-1".into() };
        assert_eq!(asked(|_| ()), Ok(grant.clone()));
        assert_eq!(asked(|world| world["permission"]["spec"]["project"] = json!("*")), Ok(grant));
    }

    #[test]
    fn everything_else_is_refused_in_the_same_words_as_what_does_not_exist() {
        type Change = fn(&mut serde_json::Value);
        let changes: &[(&str, Change)] = &[
            ("no such checkpoint", |world| world["checkpoint"] = json!(null)),
            ("a later checkpoint of the name", |world| world["checkpoint"]["metadata"]["uid"] = json!("c-2")),
            ("pods made for another checkpoint", |world| world["wanted"] = json!("c-0")),
            ("a permission for another project", |world| world["permission"]["spec"]["project"] = json!("team-c")),
            ("a permission for another run", |world| world["permission"]["spec"]["fineTune"]["name"] = json!("other")),
            ("a permission of another namespace", |world| world["permission"]["metadata"]["namespace"] = json!("team-b")),
            ("a permission that goes", |world| {
                world["permission"]["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
            }),
            ("a deployment that goes", |world| {
                world["deployment"]["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
            }),
            ("a later deployment of the name", |world| world["uid"] = json!("d-0")),
            ("a deployment of another checkpoint", |world| {
                world["deployment"]["spec"]["checkpoint"]["name"] = json!("bot-step-6");
            }),
            ("a checkpoint of its own namespace", |world| {
                drop(world["deployment"]["spec"]["checkpoint"].as_object_mut().unwrap().remove("namespace"));
            }),
        ];
        let words = asked(|world| world["checkpoint"] = json!(null)).unwrap_err();
        for (what, change) in changes {
            assert_eq!(asked(change), Err(words.clone()), "{what}");
        }
    }
}
