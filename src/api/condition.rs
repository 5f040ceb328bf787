//! Conditions as kstatus reads them: `Ready`, and the abnormal-true `Reconciling` and `Stalled`, which exist only while true.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{Schema, SchemaGenerator, json_schema};

/// The object does what its spec asks.
pub const READY: &str = "Ready";
/// The controller is working towards the spec.
pub const RECONCILING: &str = "Reconciling";
/// Nothing will happen until somebody changes something.
pub const STALLED: &str = "Stalled";
/// The run has ended: succeeded, failed or stopped.
pub const FINISHED: &str = "Finished";

/// A checkpoint of the run is served by the Deployment that spec.autoDeploy made.
pub const DEPLOYED: &str = "Deployed";
/// An HTTPRoute leads from the installation's Gateway to the model.
pub const ROUTED: &str = "Routed";

/// Schema of a `conditions` list: keyed by type, at most 16.
#[must_use]
pub fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "description": "conditions tell what is true of the object, one entry a type (Ready, Reconciling, Stalled, Finished).",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One observation about the object.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 64, "description": "type of the condition, in CamelCase."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "status is True, False or Unknown."},
                "reason": {"type": "string", "maxLength": 64, "description": "reason is the machine-readable cause, in CamelCase."},
                "message": {"type": "string", "maxLength": 8192, "description": "message says the same to a person, and what to do about it."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "lastTransitionTime is when status last changed."},
                "observedGeneration": {"type": "integer", "format": "int64", "description": "observedGeneration is the metadata.generation this was concluded from."}
            }
        }
    })
}

/// The condition of type `kind`, if it is there.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of type `kind` is True.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}
