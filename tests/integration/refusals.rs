//! What a run or a Deployment is to have beside it, where the cluster's own policies refuse it: that is told once, and holds nothing back.

use k8s_openapi::api::{admissionregistration::v1 as admission, events::v1 as events};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use finetune_operator::api::{FineTune, FineTunePhase, ModelDeployment, condition};

use crate::{
    harness::{Sandbox, audit::of_operator, in_sandbox},
    run::train,
    serving::until_serving,
};

/// Refuses every Deployment of ours in the sandbox, until it is deleted.
struct Policy(String);

impl Policy {
    async fn put(sandbox: &Sandbox) -> Self {
        let name = format!("no-deployments-{}", sandbox.namespace);
        let rule =
            json!({"apiGroups": ["finetune.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["deployments"]});
        let spec = json!({"matchConstraints": {"resourceRules": [rule]}, "failurePolicy": "Fail",
            "validations": [{"expression": "false", "message": "serving is closed today"}]});
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": sandbox.namespace}});
        let binding =
            json!({"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector}});
        let (policies, bindings) = Self::api(sandbox);
        let of = |spec| json!({"metadata": {"name": name}, "spec": spec});
        policies.create(&PostParams::default(), &serde_json::from_value(of(spec)).unwrap()).await.unwrap();
        bindings.create(&PostParams::default(), &serde_json::from_value(of(binding)).unwrap()).await.unwrap();
        let policy = Self(name);
        while policy.lets_through(sandbox).await {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        policy
    }

    fn api(sandbox: &Sandbox) -> (Api<admission::ValidatingAdmissionPolicy>, Api<admission::ValidatingAdmissionPolicyBinding>) {
        (Api::all(sandbox.client.clone()), Api::all(sandbox.client.clone()))
    }

    /// When a policy is in force cannot be watched.
    async fn lets_through(&self, sandbox: &Sandbox) -> bool {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let trial = ModelDeployment::new("trial", serde_json::from_value(json!({"checkpoint": {"name": "c"}})).unwrap());
        sandbox.api::<ModelDeployment>().create(&params, &trial).await.is_ok()
    }

    async fn lift(self, sandbox: &Sandbox) {
        let (policies, bindings) = Self::api(sandbox);
        bindings.delete(&self.0, &DeleteParams::default()).await.unwrap();
        policies.delete(&self.0, &DeleteParams::default()).await.unwrap();
        while !self.lets_through(sandbox).await {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
}

fn tries(sandbox: &Sandbox) -> usize {
    let tries = of_operator().into_iter().filter(|request| {
        let object = &request.object_ref;
        object.namespace == sandbox.namespace
            && object.resource == "deployments"
            && object.api_group == "finetune.dev"
            && request.verb == "create"
    });
    tries.count()
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_deployment_that_is_refused_is_told_once_and_made_when_the_run_is_edited_after_the_policy_is_gone() {
    in_sandbox(|sandbox| async move {
        let policy = Policy::put(&sandbox).await;
        let run = sandbox.run("bot", json!({"autoDeploy": {"checkpoint": "Best"}, "visibility": "Public"})).await;
        train(&sandbox, &run, 1).await;
        let refused = sandbox
            .until_run("bot", "it has succeeded and Deployed is Refused", |status| {
                let deployed = condition::find(&status.conditions, condition::DEPLOYED);
                status.phase == FineTunePhase::Succeeded && deployed.is_some_and(|deployed| deployed.reason == "Refused")
            })
            .await;
        let said = condition::find(&refused.status.unwrap().conditions, condition::DEPLOYED).unwrap().message.clone();
        assert!(said.contains("serving is closed today"), "{said}");
        let told: Vec<events::Event> = sandbox.api().list(&ListParams::default()).await.unwrap().items;
        let told: Vec<_> = told.into_iter().filter(|event| event.reason.as_deref() == Some("WriteRefused")).collect();
        assert!(told.len() == 1 && told[0].series.is_none(), "{told:#?}");
        assert_eq!(tries(&sandbox), 1, "the news of four saves and an end are no reason to try again");

        policy.lift(&sandbox).await;
        sandbox.edit("bot", json!({"description": "once more"})).await.unwrap();
        until_serving(&sandbox).await;
        let served = sandbox
            .until_run("bot", "Deployed is Serving", |status| {
                condition::find(&status.conditions, condition::DEPLOYED).is_some_and(|deployed| deployed.reason == "Serving")
            })
            .await;
        let bot: FineTune = sandbox.api().get("bot").await.unwrap();
        assert_eq!(bot.uid(), served.uid());
    })
    .await;
}
