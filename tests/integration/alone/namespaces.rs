//! An operator that is told where to work: with the Roles the chart makes for that, and no right anywhere else. A namespace that is gone is left out.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use kube::ResourceExt;
use serde_json::json;
use tempfile::TempDir;

use finetune_operator::api::FineTunePhase;

use crate::harness::{
    Sandbox,
    cluster::{ADMIN, NAMESPACE, setting},
    operator::Operator,
    sandbox::with_sandbox,
};

/// Runs a program of the cluster with that input; what it says.
fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("KUBECONFIG", setting(ADMIN)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An account with the rights the chart gives an operator of some namespaces, and a kubeconfig of it.
struct Account {
    manifest: String,
    directory: TempDir,
}

impl Account {
    fn of(name: &str, namespaces: &[&str]) -> Self {
        let named = format!("fullnameOverride={name},operator.watchNamespaces={{{}}}", namespaces.join(","));
        let system = setting(NAMESPACE);
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/finetune-operator");
        let rendered = ["template", name, chart, "--namespace", &system, "--set", &named, "--show-only", "templates/rbac.yaml"];
        let manifest = run("helm", &rendered, "");
        run("kubectl", &["apply", "--filename=-"], &manifest);
        let token = run("kubectl", &["create", "token", name, "--namespace", &system], "");
        let config = run("kubectl", &["config", "view", "--raw", "--minify", "--flatten", "--output=json"], "");
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("kubeconfig"), config.to_string()).unwrap();
        Self { manifest, directory }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        run("kubectl", &["delete", "--wait=false", "--filename=-"], &self.manifest);
    }
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn an_operator_of_two_namespaces_works_in_both_and_in_no_other_with_no_right_there() {
    with_sandbox(|one| with_sandbox(|two| with_sandbox(|other| works_in_two(one, two, other)))).await;
}

async fn works_in_two(one: Sandbox, two: Sandbox, other: Sandbox) {
    let left = other.run("bot", json!({})).await;
    let account = Account::of(&one.namespace, &[&one.namespace, &two.namespace]);
    let several = format!("{},{},gone-with-its-role", one.namespace, two.namespace);
    let arguments = ["--leader-election", "false", "--watch-namespaces", &several];
    let operator = Operator::new(&account.directory.path().join("kubeconfig"), &arguments);
    operator.start().await;
    for sandbox in [&one, &two] {
        let run = sandbox.run("bot", json!({})).await;
        sandbox.until_phase("bot", FineTunePhase::Preparing).await;
        assert_eq!(sandbox.jobs(&run).await.len(), 1);
    }
    let found = other.api::<finetune_operator::api::FineTune>().get("bot").await.unwrap();
    assert_eq!((found.status.is_none(), found.resource_version()), (true, left.resource_version()));
}
