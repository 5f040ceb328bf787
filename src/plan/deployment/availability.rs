//! What keeps a model with several replicas serving while nodes are drained. Pure.

use k8s_openapi::{
    api::policy::v1 as policy,
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{ObservedDeployment, children, differs};
use crate::plan::{Change, Child, ChildKind, ChildReference, Known};

/// The write that is due: a budget for several replicas, and none for one, which could never be drained otherwise.
pub fn change(observed: &ObservedDeployment) -> Option<Change> {
    let known = observed.budget.as_ref().map(|known| &known.metadata);
    if observed.deployment.spec.replicas < 2 {
        let gone = known.filter(|metadata| metadata.deletion_timestamp.is_none())?;
        return Some(Change::Delete(ChildReference::of(ChildKind::Budget, gone)));
    }
    let wanted = budget(observed);
    differs(known, &wanted.metadata)
        .then(|| Change::Apply { child: Child::Budget(Box::new(wanted)), known: known.map(Known::of) })
}

/// One pod at a time may be drained.
fn budget(observed: &ObservedDeployment) -> policy::PodDisruptionBudget {
    let spec = policy::PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(1)),
        selector: Some(LabelSelector { match_labels: Some(children::our_selector(observed.uid())), ..LabelSelector::default() }),
        // A pod that does not serve need not be spared.
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
        ..policy::PodDisruptionBudgetSpec::default()
    };
    let metadata = children::metadata(&observed.owner(), children::fingerprint(&spec));
    policy::PodDisruptionBudget { metadata, spec: Some(spec), status: None }
}
