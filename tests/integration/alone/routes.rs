//! A Gateway that leads to served models, in a cluster that gets the Gateway API only later.

use std::path::Path;

use k8s_openapi::{
    api::{apps::v1 as apps, core::v1 as corev1, rbac::v1 as rbac},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use finetune_operator::{
    access::{Scope, grants},
    api::{DeploymentPhase, HttpRoute, ModelDeployment, condition},
};

use crate::{
    harness::{
        Sandbox,
        cluster::{NAMESPACE, OPERATOR, setting},
        operator::Operator,
        sandbox::with_sandbox,
        wait::{until, until_gone},
    },
    serving::{checkpoint, edit, serve, until_reason},
};

/// What an installation with a Gateway may do beside all else.
async fn allow_routes(sandbox: &Sandbox) {
    let rules: Vec<_> = grants().into_iter().filter(|grant| grant.scope == Scope::Routes).collect();
    let rules: Vec<_> = rules
        .iter()
        .map(|grant| json!({"apiGroups": [grant.group], "resources": grant.resources, "verbs": grant.verbs}))
        .collect();
    sandbox.create::<rbac::Role>(json!({"metadata": {"name": "routes"}, "rules": rules})).await;
    let subject = json!({"kind": "ServiceAccount", "name": "finetune-operator", "namespace": setting(NAMESPACE)});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "routes"});
    sandbox.create::<rbac::RoleBinding>(json!({"metadata": {"name": "routes"}, "roleRef": role, "subjects": [subject]})).await;
}

/// As much of the Gateway API as it takes to keep an HTTPRoute.
async fn install_routes(sandbox: &Sandbox) -> CustomResourceDefinition {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({
        "metadata": {"name": "httproutes.gateway.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"}},
        "spec": {
            "group": "gateway.networking.k8s.io", "scope": "Namespaced",
            "names": {"kind": "HTTPRoute", "plural": "httproutes", "singular": "httproute"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    let definitions: Api<CustomResourceDefinition> = Api::all(sandbox.client.clone());
    definitions.create(&PostParams::default(), &serde_json::from_value(definition).unwrap()).await.unwrap()
}

async fn until_routed(sandbox: &Sandbox, reason: &str) -> ModelDeployment {
    until(&sandbox.api::<ModelDeployment>(), "bot", &format!("Routed is {reason}"), |bot| {
        let status = bot.status.clone().unwrap_or_default();
        let said = condition::find(&status.conditions, condition::ROUTED).is_some_and(|routed| routed.reason == reason);
        said && status.phase == DeploymentPhase::Ready
    })
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_gateway_leads_to_the_model_as_soon_as_the_cluster_knows_routes() {
    with_sandbox(|sandbox| async move {
        allow_routes(&sandbox).await;
        let arguments = ["--leader-election", "false", "--watch-namespaces", &sandbox.namespace, "--gateway", "infra/main"];
        let operator = Operator::new(Path::new(&setting(OPERATOR)), &arguments);
        operator.start().await;
        checkpoint(&sandbox, "first").await;
        serve(&sandbox, "first").await;
        until_routed(&sandbox, "GatewayApiUnavailable").await;
        let definition = install_routes(&sandbox).await;
        let bot = until_routed(&sandbox, "Routed").await;
        let route: HttpRoute = sandbox.api().get("bot").await.unwrap();
        assert_eq!(route.owner_references()[0].uid, bot.uid().unwrap());
        assert_eq!(route.spec.parent_refs[0].namespace.as_deref(), Some("infra"));
        let service: corev1::Service = sandbox.api().get("bot").await.unwrap();
        let backend = &route.spec.rules[0]["backendRefs"][0];
        assert_eq!((backend["name"].as_str(), backend["port"].as_i64()), (Some("bot"), Some(8000)));
        assert_eq!(service.spec.clone().unwrap().ports.unwrap()[0].port, 8000);
        // What is not permitted leads nowhere, once nothing serves any more.
        edit(&sandbox, json!({"checkpoint": {"name": "theirs", "namespace": "elsewhere"}})).await;
        until_reason(&sandbox, "NotPermitted").await;
        sandbox.api::<apps::Deployment>().delete("bot", &DeleteParams::default()).await.unwrap();
        until_gone(&sandbox.api(), &route).await;
        until_gone(&sandbox.api(), &service).await;
        until(&sandbox.api::<ModelDeployment>(), "bot", "that is said", |bot| {
            let conditions = bot.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            condition::find(&conditions, condition::ROUTED).is_some_and(|routed| routed.reason == "NothingServed")
        })
        .await;
        edit(&sandbox, json!({"checkpoint": {"name": "first", "namespace": null}})).await;
        until_routed(&sandbox, "Routed").await;
        let route: HttpRoute = sandbox.api().get("bot").await.unwrap();
        sandbox.api::<ModelDeployment>().delete("bot", &DeleteParams::default()).await.unwrap();
        until_gone(&sandbox.api(), &route).await;
        let definitions: Api<CustomResourceDefinition> = Api::all(sandbox.client.clone());
        definitions.delete(&definition.name_any(), &DeleteParams::default()).await.unwrap();
    })
    .await;
}
