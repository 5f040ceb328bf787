//! RBAC as text: the operator's own rights with their reasons, and the roles for people. Pure.

use std::fmt::Write;
use std::path::PathBuf;

use super::definitions::HEADER;
use crate::access::{Grant, Scope, grants};
use crate::api::GROUP;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

/// Namespaced kinds people write.
const WRITTEN: &[&str] = &["checkpointpermissions", "checkpoints", "datasets", "deployments", "finetunes"];

/// Namespaced kinds people read.
const SEEN: &[&str] = &["checkpointpermissions", "checkpoints", "datasets", "deployments", "finetunehistories", "finetunes"];

/// Namespace of the operator where kustomize installs it.
const NAMESPACE: &str = "finetune-system";

/// Kinds of the catalogue: without a namespace.
const CATALOGUE: &[&str] = &["basemodels", "hardwareprofiles", "servingruntimes", "trainingruntimes"];

const READ_OURS: Rule = rule(GROUP, SEEN, READ, "runs, what they left, and what is served");
const READ_LOGS: Rule = rule("", &["pods", "pods/log"], READ, "the log of a run while its pod is there");
const WRITE_OURS: Rule = rule(GROUP, WRITTEN, WRITE, "start, change and end runs; serve and share checkpoints");
const SCALE: Rule = rule(GROUP, &["deployments/scale"], &["get", "patch", "update"], "kubectl scale and autoscalers");
const PRUNE: Rule = rule(GROUP, &["finetunehistories"], WRITE, "remove or mend what a run left to read");
const READ_CATALOGUE: Rule = rule(GROUP, CATALOGUE, READ, "what a run may name");

/// One rule as RBAC writes it.
#[derive(Clone, Copy)]
struct Rule {
    group: &'static str,
    resources: &'static [&'static str],
    names: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
}

const fn rule(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> Rule {
    Rule { group, resources, names: &[], verbs, why }
}

impl From<&Grant> for Rule {
    fn from(grant: &Grant) -> Self {
        Self { group: grant.group, resources: grant.resources, names: grant.names, verbs: grant.verbs, why: grant.why }
    }
}

/// A role for people: its suffix, the built-in role it is added to, its rules.
const ROLES: &[(&str, Option<&str>, &[Rule])] = &[
    ("view", Some("view"), &[READ_OURS, READ_LOGS]),
    ("edit", Some("edit"), &[READ_OURS, READ_LOGS, WRITE_OURS, SCALE]),
    ("admin", Some("admin"), &[READ_OURS, READ_LOGS, WRITE_OURS, SCALE, PRUNE]),
    ("catalogue-viewer", None, &[READ_CATALOGUE]),
];

/// The rules the chart reads, and the roles and bindings of kustomize.
pub(super) fn files() -> Vec<(PathBuf, String)> {
    vec![("charts/finetune-operator/files/rules.yaml".into(), chart_rules()), ("deploy/base/rbac.yaml".into(), kustomize_roles())]
}

fn granted(scopes: &[Scope]) -> Vec<Rule> {
    grants().iter().filter(|grant| scopes.contains(&grant.scope)).map(Rule::from).collect()
}

fn chart_rules() -> String {
    let mut text = HEADER.to_owned();
    let scopes =
        [("cluster", Scope::Cluster), ("watched", Scope::Watched), ("routes", Scope::Routes), ("operator", Scope::Operator)];
    for (key, scope) in scopes {
        let _ = write!(text, "{key}:\n{}", rules(&granted(&[scope])));
    }
    for (suffix, _, list) in ROLES {
        let _ = write!(text, "{suffix}:\n{}", rules(list));
    }
    text
}

fn kustomize_roles() -> String {
    let name = "finetune-operator";
    let operator = subject("ServiceAccount", "", name, Some(NAMESPACE));
    let everybody = subject("Group", "rbac.authorization.k8s.io", "system:authenticated", None);
    let cluster = granted(&[Scope::Cluster, Scope::Watched]);
    let mut documents = vec![
        format!("{}rules:\n{}", head("ClusterRole", name, false, None), rules(&cluster)),
        binding("ClusterRoleBinding", name, false, &operator),
        format!("{}rules:\n{}", head("Role", name, true, None), rules(&granted(&[Scope::Operator]))),
        binding("RoleBinding", name, true, &operator),
    ];
    for (suffix, aggregate, list) in ROLES {
        let name = format!("finetune-operator-{suffix}");
        documents.push(format!("{}rules:\n{}", head("ClusterRole", &name, false, *aggregate), rules(list)));
    }
    documents.push(binding("ClusterRoleBinding", "finetune-operator-catalogue-viewer", false, &everybody));
    format!("{HEADER}{}", documents.join("---\n"))
}

fn rules(rules: &[Rule]) -> String {
    let mut text = String::new();
    for rule in rules {
        let _ = writeln!(text, "  # {}", rule.why);
        let _ = writeln!(text, "  - apiGroups: {}", list(&[rule.group]));
        let _ = writeln!(text, "    resources: {}", list(rule.resources));
        if !rule.names.is_empty() {
            let _ = writeln!(text, "    resourceNames: {}", list(rule.names));
        }
        let _ = writeln!(text, "    verbs: {}", list(rule.verbs));
    }
    text
}

fn head(kind: &str, name: &str, namespaced: bool, aggregate: Option<&str>) -> String {
    let mut text = format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n");
    if namespaced {
        let _ = writeln!(text, "  namespace: {NAMESPACE}");
    }
    text.push_str("  labels:\n    app.kubernetes.io/name: finetune-operator\n");
    text.push_str("    app.kubernetes.io/instance: finetune-operator\n");
    if let Some(role) = aggregate {
        let _ = writeln!(text, "    rbac.authorization.k8s.io/aggregate-to-{role}: \"true\"");
    }
    text
}

fn binding(kind: &str, name: &str, namespaced: bool, subject: &str) -> String {
    let role = kind.trim_end_matches("Binding");
    format!(
        "{}roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {role}\n  name: {name}\nsubjects:\n{subject}",
        head(kind, name, namespaced, None)
    )
}

fn subject(kind: &str, group: &str, name: &str, namespace: Option<&str>) -> String {
    let mut text = format!("  - kind: {kind}\n");
    if !group.is_empty() {
        let _ = writeln!(text, "    apiGroup: {group}");
    }
    let _ = writeln!(text, "    name: {name}");
    if let Some(namespace) = namespace {
        let _ = writeln!(text, "    namespace: {namespace}");
    }
    text
}

fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api;

    #[test]
    fn the_roles_for_people_cover_every_kind() {
        let named: BTreeSet<&str> = SEEN.iter().chain(CATALOGUE).copied().collect();
        let defined: Vec<String> = api::definitions().into_iter().map(|definition| definition.spec.names.plural).collect();
        assert_eq!(named, defined.iter().map(String::as_str).collect());
    }

    #[test]
    fn kinds_without_a_namespace_are_in_the_catalogue_and_only_they() {
        for definition in api::definitions() {
            let plural = definition.spec.names.plural.as_str();
            assert_eq!(definition.spec.scope == "Cluster", CATALOGUE.contains(&plural), "{plural}");
        }
    }

    #[test]
    fn a_rule_is_written_with_its_reason() {
        let text = rules(&[rule("batch", &["jobs"], &["get", "list"], "an attempt is a Job")]);
        let expected =
            "  # an attempt is a Job\n  - apiGroups: [\"batch\"]\n    resources: [\"jobs\"]\n    verbs: [\"get\", \"list\"]\n";
        assert_eq!(text, expected);
    }
}
