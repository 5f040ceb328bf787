//! What the operator may do in a cluster, and why: the one list that RBAC of chart and kustomize is generated from. Pure data.

/// Where a grant holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Kinds without a namespace: always granted in the whole cluster.
    Cluster,
    /// Namespaced kinds: in the whole cluster, or in each watched namespace when the operator is told to watch only some.
    Watched,
    /// Like [`Scope::Watched`], and only where the installation names a Gateway.
    Routes,
    /// The operator's own namespace.
    Operator,
}

/// One permission and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where it holds.
    pub scope: Scope,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resources and subresources, in the plural.
    pub resources: &'static [&'static str],
    /// Names of the objects it is limited to; all when empty.
    pub names: &'static [&'static str],
    /// Verbs of the API.
    pub verbs: &'static [&'static str],
    /// Why the operator cannot do without it.
    pub why: &'static str,
}

/// Name of the Secret that holds the certificate authority of the report server.
pub const REPORTS_CA_SECRET: &str = "finetune-operator-reports-ca";

const OURS: &str = "finetune.dev";
const FOLLOW: &[&str] = &["list", "watch"];

const fn grant(
    scope: Scope,
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> Grant {
    Grant { scope, group, resources, names: &[], verbs, why }
}

const GRANTS: &[Grant] = &[
    grant(
        Scope::Cluster,
        OURS,
        &["basemodels", "hardwareprofiles", "servingruntimes", "trainingruntimes"],
        FOLLOW,
        "the catalogue that runs refer to; it is never written",
    ),
    grant(
        Scope::Cluster,
        "authentication.k8s.io",
        &["tokenreviews"],
        &["create"],
        "the report server asks whose token an agent presents",
    ),
    grant(
        Scope::Watched,
        OURS,
        &["checkpointpermissions", "checkpoints", "datasets", "deployments", "finetunehistories", "finetunes"],
        FOLLOW,
        "the objects users write and the ones reported about them are followed by watch",
    ),
    grant(
        Scope::Watched,
        OURS,
        &["finetunes", "checkpoints"],
        &["patch"],
        "their finalizers are set and released; best, retention and ownership are kept up to date",
    ),
    grant(
        Scope::Watched,
        OURS,
        &["checkpoints/status", "deployments/status", "finetunes/status"],
        &["patch"],
        "what is known of an object is written to its status",
    ),
    grant(
        Scope::Watched,
        OURS,
        &["checkpoints"],
        &["create", "delete", "get"],
        "a Checkpoint appears for every complete save and goes with its run or by retention; where its name is taken, one look tells by whom",
    ),
    grant(
        Scope::Watched,
        OURS,
        &["deployments"],
        &["create", "delete", "get", "patch"],
        "spec.autoDeploy of a run makes one Deployment and lets it serve the newest good checkpoint; it goes with its run, before the files do",
    ),
    grant(
        Scope::Watched,
        OURS,
        &["checkpointpermissions"],
        &["create", "delete", "get"],
        "a run that is Public gets one for every namespace, which goes when it is Private again; where its name is taken, one look tells by whom",
    ),
    grant(
        Scope::Watched,
        OURS,
        &["finetunehistories"],
        &["create", "patch"],
        "series, events and log tails of a run are kept when its pods are gone",
    ),
    grant(
        Scope::Watched,
        OURS,
        &["checkpoints/finalizers", "deployments/finalizers", "finetunes/finalizers"],
        &["update"],
        "clusters that enforce it ask for this before an object may be named as owner that blocks deletion",
    ),
    grant(
        Scope::Watched,
        "batch",
        &["jobs"],
        &["get", "list", "watch", "create", "delete"],
        "an attempt is a Job, made once, never changed, and deleted to pause or stop",
    ),
    grant(
        Scope::Watched,
        "apps",
        &["deployments"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "a served model is a Deployment of apps, made and brought up to date by apply, and so is the pod that hands a checkpoint to other namespaces; both go with their owner, or with the permission",
    ),
    grant(
        Scope::Watched,
        "",
        &["services"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "a served model and the pod that hands a checkpoint out are found by a Service, made and brought up to date by apply, and so are the nodes of a run, by one made once; it goes with its owner, or with the permission",
    ),
    grant(
        Scope::Watched,
        "policy",
        &["poddisruptionbudgets"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "a model with several replicas keeps serving while nodes are drained; with one replica there is no such budget",
    ),
    grant(
        Scope::Routes,
        "gateway.networking.k8s.io",
        &["httproutes"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "an installation that names a Gateway leads it to every served model, until its permission ends; without one nothing of this is granted",
    ),
    grant(
        Scope::Watched,
        "",
        &["pods"],
        &["get", "list", "watch"],
        "failures are read from pods, of runs and of servers, and no attempt starts while one still runs",
    ),
    grant(
        Scope::Watched,
        "",
        &["persistentvolumeclaims"],
        &["get", "list", "watch", "create", "delete"],
        "a run may ask for a claim of its own, which goes with its last Checkpoint",
    ),
    grant(
        Scope::Watched,
        "visibility.kueue.x-k8s.io",
        &["localqueues/pendingworkloads"],
        &["get"],
        "where a run that waits stands in its Kueue queue; asked only while one waits",
    ),
    grant(
        Scope::Watched,
        "kueue.x-k8s.io",
        &["workloads"],
        &["list"],
        "what a run that waits in a Kueue queue lacks; asked only while one waits",
    ),
    grant(
        Scope::Watched,
        "events.k8s.io",
        &["events"],
        &["create", "patch"],
        "what happened is told beside the object it happened to",
    ),
    grant(Scope::Operator, "coordination.k8s.io", &["leases"], &["get", "create", "patch"], "one replica leads at a time"),
    grant(
        Scope::Operator,
        "",
        &["secrets"],
        &["create"],
        "the certificate authority of the report server is made on first start; a create cannot be limited by name",
    ),
    Grant {
        scope: Scope::Operator,
        group: "",
        resources: &["secrets"],
        names: &[REPORTS_CA_SECRET],
        verbs: &["get", "patch"],
        why: "every replica reads the certificate authority of the report server, and renews it before it expires",
    },
];

/// Every permission of the operator.
#[must_use]
pub fn grants() -> Vec<Grant> {
    GRANTS.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grant_says_why_and_none_is_wild() {
        for grant in grants() {
            assert!(grant.why.len() > 20, "{grant:?} does not say why");
            assert!(!grant.resources.is_empty() && !grant.verbs.is_empty(), "{grant:?} grants nothing");
            let words = grant.resources.iter().chain(grant.verbs).chain([&grant.group]);
            assert!(words.into_iter().all(|word| !word.contains('*')), "{grant:?} has a wildcard");
        }
    }

    #[test]
    fn secrets_are_read_only_by_name_and_only_in_the_operators_namespace() {
        for grant in grants().iter().filter(|grant| grant.resources.contains(&"secrets")) {
            assert_eq!(grant.scope, Scope::Operator);
            assert!(grant.verbs == ["create"] || grant.names == [REPORTS_CA_SECRET], "{grant:?}");
        }
    }

    #[test]
    fn no_verb_on_a_resource_is_granted_twice_in_one_scope() {
        let mut seen = std::collections::BTreeSet::new();
        for grant in grants() {
            for resource in grant.resources {
                for verb in grant.verbs {
                    assert!(seen.insert((grant.scope, grant.group, *resource, grant.names, *verb)), "{verb} {resource} twice");
                }
            }
        }
    }
}
