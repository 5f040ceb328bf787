//! CheckpointPermission: another project may use a checkpoint, or all of a run's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::NameReference;

/// CheckpointPermission lets another project use a checkpoint, or all of a run's.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "finetune.dev",
    version = "v1alpha1",
    kind = "CheckpointPermission",
    plural = "checkpointpermissions",
    shortname = "ckptperm",
    category = "finetuning",
    namespaced,
    derive = "PartialEq",
    cel,
    status = "CheckpointPermissionStatus",
    doc = "CheckpointPermission lets another project use a checkpoint, or all of a run's. A project is a namespace.",
    printcolumn(name = "CHECKPOINT", type_ = "string", json_path = ".spec.checkpoint.name"),
    printcolumn(name = "RUN", type_ = "string", json_path = ".spec.fineTune.name"),
    printcolumn(name = "PROJECT", type_ = "string", json_path = ".spec.project"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.checkpoint) != has(self.fineTune)", "give exactly one of checkpoint and fineTune"))]
#[x_kube(validation = ("self == oldSelf", "a permission is immutable: delete it and make another"))]
pub struct CheckpointPermissionSpec {
    /// checkpoint that may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<NameReference>,
    /// fineTune whose checkpoints may all be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<NameReference>,
    /// project is the namespace that may use it, or `*` for every namespace of the cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"))]
    pub project: String,
}

/// Every namespace, as a project.
pub const EVERY_PROJECT: &str = "*";

impl CheckpointPermissionSpec {
    /// Whether the Checkpoint of that name, saved by the run of that name, may be used by `project`. The Checkpoint has to be of the
    /// permission's own namespace: whoever asks looks for permissions only there.
    #[must_use]
    pub fn allows(&self, (checkpoint, run): (&str, Option<&str>), project: &str) -> bool {
        let is_for = self.project == EVERY_PROJECT || self.project == project;
        let is_about = match (&self.checkpoint, &self.fine_tune) {
            (Some(named), None) => named.name == checkpoint,
            (None, Some(named)) => run == Some(&named.name),
            _ => false,
        };
        is_for && is_about
    }
}

/// What is known of a permission.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointPermissionStatus {
    /// observedGeneration is the generation of the spec this status was concluded from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// conditions: Ready, Reconciling, Stalled (kstatus).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::condition::schema")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_covers_what_it_names_for_whom_it_names_and_nothing_else() {
        let named = |name: &str| Some(NameReference { name: name.into() });
        let one = CheckpointPermissionSpec { checkpoint: named("bot-step-5"), project: "team-b".into(), ..Default::default() };
        let all = CheckpointPermissionSpec { fine_tune: named("bot"), project: EVERY_PROJECT.into(), ..Default::default() };
        let five = ("bot-step-5", Some("bot"));
        assert!(one.allows(five, "team-b") && all.allows(five, "team-b") && all.allows(five, "anybody"));
        for (permission, checkpoint, project) in [
            (&one, five, "team-c"),
            (&one, five, "*"),
            (&one, ("bot-step-50", Some("bot")), "team-b"),
            (&all, ("bot-step-5", Some("bot2")), "team-b"),
            (&all, ("bot", None), "team-b"),
            (&CheckpointPermissionSpec { project: "*".into(), ..Default::default() }, five, "team-b"),
        ] {
            assert!(!permission.allows(checkpoint, project), "{permission:?} {checkpoint:?} {project}");
        }
    }
}
