//! An operator with nothing to do does nothing.

use std::time::Duration;

use k8s_openapi::api::core::v1 as corev1;
use kube::{Api, api::DeleteParams};
use serde_json::json;

use finetune_operator::api::FineTunePhase;

use crate::{
    harness::{
        Agent, Operator, Sandbox,
        agent::so_far,
        audit,
        cluster::{OPERATOR, admin, setting},
        sandbox::with_sandbox,
        wait::{list, until_gone},
    },
    run::{SAVES, train},
};

/// How long nothing may happen. That nothing comes cannot be awaited, so this is a wait of a fixed length: longer than every pause the operator
/// itself knows of (5 s for a last report, a renewal of its lease every 10 s), and short enough for every run of the tests.
const WINDOW: Duration = Duration::from_secs(12);

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn after_convergence_nothing_is_written_but_the_lease() {
    let operator = Operator::new(setting(OPERATOR).as_ref(), &["--leader-election", "true"]);
    operator.start().await;
    others_are_gone().await;
    with_sandbox(|sandbox| async move {
        let done = sandbox.run("done", json!({})).await;
        train(&sandbox, &done, 1).await;
        sandbox.run("waiting", json!({"baseModel": {"name": "no-such-model"}})).await;
        sandbox.until_reason("waiting", "BaseModelNotFound").await;
        let training = sandbox.run("training", json!({})).await;
        let mut agent = Agent::training(&sandbox, &training, 1).await;
        sandbox.until_phase("training", FineTunePhase::Running).await;
        let report = so_far(1, &SAVES[..1], 100);
        agent.report(report.clone()).await;
        sandbox.until_run("training", "its progress is there", |status| status.progress.is_some()).await;
        settled(&sandbox).await;

        let writes = written_during(&sandbox, async {
            // A report without news is no reason to write either.
            agent.report(report).await;
            tokio::time::sleep(WINDOW).await;
        })
        .await;
        assert_eq!(writes, Vec::<String>::new());
    })
    .await;
}

/// The objects of tests before us are still being cleared away by our operator.
async fn others_are_gone() {
    let namespaces: Api<corev1::Namespace> = Api::all(admin().await);
    for namespace in list(&namespaces, "test.finetune.dev/sandbox=true").await {
        let _ = namespaces.delete(namespace.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await;
        until_gone(&namespaces, &namespace).await;
    }
}

/// The marks and events that follow a status have been written once the operator has answered something new.
async fn settled(sandbox: &Sandbox) {
    sandbox.run("probe", json!({"desiredState": "Stopped"})).await;
    sandbox.until_phase("probe", FineTunePhase::Stopped).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// What the operator writes while something goes on, but for its lease: read from the audit log between two marks.
async fn written_during(sandbox: &Sandbox, during: impl Future<Output = ()>) -> Vec<String> {
    let mark = |name: &'static str| sandbox.create::<corev1::ConfigMap>(json!({"metadata": {"name": name}}));
    mark("before").await;
    during.await;
    mark("after").await;
    let is_mark = |request: &audit::Request, name: &str| {
        let object = &request.object_ref;
        object.resource == "configmaps"
            && object.name == name
            && object.namespace == sandbox.namespace
            && request.verb == "create"
    };
    let operator = audit::operator();
    let all = audit::requests(|_| true);
    let between = all.iter().skip_while(|request| !is_mark(request, "before")).take_while(|request| !is_mark(request, "after"));
    let writes = between.filter(|request| request.user.username == operator && request.is_mutating());
    writes
        .filter(|request| request.object_ref.resource != "leases")
        .map(|request| format!("{} {}", request.verb, request.uri))
        .collect()
}
