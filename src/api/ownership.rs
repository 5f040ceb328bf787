//! Whose an object is: by the uid of its owner, never by name.

use kube::{Resource, ResourceExt};

/// Whether the object of that uid is an owner.
#[must_use]
pub fn is_owned_by(object: &impl Resource, uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.uid == uid)
}

/// Whether the object of that uid is the owner that controls it: the one for which it was made, whoever else it is to go with.
#[must_use]
pub fn is_controlled_by(object: &impl Resource, uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.uid == uid && owner.controller == Some(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::CheckpointPermission;

    #[test]
    fn who_wants_it_to_go_with_a_run_has_not_made_it_the_runs_own() {
        let owned = |controller: Option<bool>| -> CheckpointPermission {
            let owner = json!({"apiVersion": "x/v1", "kind": "FineTune", "name": "a", "uid": "one", "controller": controller});
            let spec = json!({"project": "web", "fineTune": {"name": "a"}});
            let metadata = json!({"name": "a", "ownerReferences": [owner]});
            serde_json::from_value(json!({
                "apiVersion": "finetune.dev/v1alpha1", "kind": "CheckpointPermission", "metadata": metadata, "spec": spec,
            }))
            .unwrap()
        };
        let ours = owned(Some(true));
        assert_eq!((is_owned_by(&ours, "one"), is_controlled_by(&ours, "one"), is_owned_by(&ours, "two")), (true, true, false));
        for theirs in [owned(None), owned(Some(false))] {
            assert_eq!((is_owned_by(&theirs, "one"), is_controlled_by(&theirs, "one")), (true, false));
        }
    }
}
