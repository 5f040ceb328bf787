//! A run that is Public lets every namespace use its checkpoints: by one permission, which goes when it is Private again. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{ObservedFineTune, job, resolution::run_labels};
use crate::{
    api::{CheckpointPermission, CheckpointPermissionSpec, EVERY_PROJECT, NameReference, Visibility},
    plan::{Change, Child, ChildKind, ChildReference, names},
};

/// Makes or takes back the permission, where that differs from what is wanted.
pub fn writes(observed: &ObservedFineTune) -> Option<Change> {
    match (observed.fine_tune.spec.visibility, &observed.permission) {
        (Visibility::Public, None) => Some(Change::CreateOnce(Child::Permission(Box::new(permission(observed))))),
        (Visibility::Private, Some(permission)) if permission.metadata.deletion_timestamp.is_none() => {
            Some(Change::Delete(ChildReference::of(ChildKind::Permission, &permission.metadata)))
        }
        _ => None,
    }
}

fn permission(observed: &ObservedFineTune) -> CheckpointPermission {
    let (name, uid) = (observed.name(), observed.uid());
    CheckpointPermission {
        metadata: ObjectMeta {
            name: Some(names::permission(name, uid)),
            namespace: Some(observed.namespace().to_owned()),
            labels: Some(run_labels(name, uid)),
            owner_references: Some(vec![job::owner(name, uid)]),
            ..ObjectMeta::default()
        },
        spec: CheckpointPermissionSpec {
            checkpoint: None,
            fine_tune: Some(NameReference { name: name.to_owned() }),
            project: EVERY_PROJECT.into(),
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::plan::fixtures::object;

    #[test]
    fn a_public_run_has_one_permission_and_a_private_one_none() {
        let run = |visibility: &str| ObservedFineTune {
            fine_tune: object(json!({
                "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune",
                "metadata": {"name": "bot", "namespace": "ns", "uid": "0b9f6a1e-0000"},
                "spec": {"baseModel": {"name": "m"}, "dataset": {"name": "d"}, "visibility": visibility},
            })),
            ..ObservedFineTune::default()
        };
        let (mut public, mut private) = (run("Public"), run("Private"));
        assert_eq!(writes(&private), None);
        let Some(Change::CreateOnce(Child::Permission(mut made))) = writes(&public) else { panic!("no permission") };
        assert!(made.spec.allows(("bot-step-5", Some("bot")), "anybody") && !made.spec.allows(("x", Some("other")), "anybody"));
        assert_eq!(made.metadata.owner_references.as_ref().unwrap()[0].uid, "0b9f6a1e-0000");
        made.metadata.uid = Some("p".into());
        let made = Arc::new(*made);
        (public.permission, private.permission) = (Some(Arc::clone(&made)), Some(made));
        assert_eq!(writes(&public), None);
        assert!(matches!(writes(&private), Some(Change::Delete(gone)) if gone.kind == ChildKind::Permission && gone.uid == "p"));
    }
}
