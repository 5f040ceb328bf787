//! What all tests before us have made the operator ask for: nothing it may not have, and everything it may.

use std::collections::BTreeSet;

use finetune_operator::access::grants;

use crate::harness::audit::of_operator;

/// What these tests may not make the operator ask for, and why it has it all the same: verb, resources, reason.
const MAY_BE_UNUSED: &[(&str, &[&str], &str)] = &[
    (
        "get",
        &[
            "checkpointpermissions",
            "checkpoints",
            "deployments",
            "httproutes",
            "jobs",
            "persistentvolumeclaims",
            "poddisruptionbudgets",
            "services",
        ],
        "asked for only where a create finds the name taken, to see whose the object is",
    ),
    (
        "update",
        &["checkpoints/finalizers", "deployments/finalizers", "finetunes/finalizers"],
        "asked of admission by clusters that enforce it, never of the API server by us",
    ),
    ("get", &["pods"], "asked for only where the first report of a pod is faster than the watch of pods"),
    (
        "create",
        &["deployments", "httproutes", "poddisruptionbudgets", "services"],
        "an apply that makes an object is recorded as a patch, and allowed as both",
    ),
    ("patch", &["secrets"], "the certificate authority is renewed in its last year"),
];

#[test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
fn the_operator_asked_for_nothing_it_may_not_have() {
    let refused: BTreeSet<_> = of_operator()
        .iter()
        .filter(|request| request.was_forbidden())
        .map(|request| format!("{} {} in group {:?}", request.verb, request.resource(), request.object_ref.api_group))
        .collect();
    assert!(refused.is_empty(), "RBAC refused {refused:#?}");
}

#[test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
fn every_permission_of_the_operator_was_used() {
    let used: BTreeSet<_> = of_operator()
        .iter()
        .filter(|request| request.succeeded())
        .map(|request| (request.object_ref.api_group.clone(), request.resource(), request.verb.clone()))
        .collect();
    let mut unused = Vec::new();
    for grant in grants() {
        for (resource, verb) in grant.resources.iter().flat_map(|resource| grant.verbs.iter().map(move |verb| (*resource, *verb)))
        {
            let was_used = used.contains(&(grant.group.to_owned(), resource.to_owned(), verb.to_owned()));
            let excused = MAY_BE_UNUSED.iter().any(|(excused, of, _)| *excused == verb && of.contains(&resource));
            if !was_used && !excused {
                unused.push(format!("{verb} {resource} in group {:?}", grant.group));
            }
        }
    }
    assert!(unused.is_empty(), "granted and never used: {unused:#?}");
}
