//! The caller's own key decides, and nothing else.

use finetune_operator::api::{FineTune, names};
use k8s_openapi::api::{admissionregistration::v1 as admission, core::v1 as corev1};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::api::{Gate, READ, WRITE, bind, token};
use crate::harness::{audit::requests, in_sandbox, sandbox::with_sandbox};

const JOBS: &str = "/v1/fine_tuning/jobs";

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn without_a_good_key_there_is_nothing_to_see() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, READ).await;
        gate.get(JOBS).await.with(200);
        let forged = format!("{}x", gate.key);
        for key in ["", "nonsense", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.", forged.as_str()] {
            for path in [JOBS, "/api/v1/fine-tuning/jobs", "/api/repos/kube-system/x/fine_tunes"] {
                let answer = gate.with(key).get(path).await;
                assert_eq!(answer.headers["www-authenticate"], "Bearer");
                answer.with(401);
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_key_that_reads_does_not_write_and_is_told_which_scope_it_lacks() {
    in_sandbox(|sandbox| async move {
        let reader = Gate::new(&sandbox, READ).await;
        sandbox.run("bot", json!({})).await;
        sandbox.run("idle", json!({"desiredState": "Paused"})).await;
        reader.get(&format!("{JOBS}/ftjob-bot")).await.with(200);
        let body = json!({"model": "it-tiny", "training_file": "s3://bucket/rows"});
        for answer in [
            reader.post(JOBS, body).await,
            reader.post(&format!("{JOBS}/ftjob-bot/cancel"), json!(null)).await,
            reader.delete("/api/v1/fine-tuning/jobs/ftjob-idle").await,
        ] {
            let refused = answer.with(403);
            assert!(refused["error"]["message"].as_str().unwrap().contains("fine-tuning:write"), "{refused}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_project_is_the_accounts_own_or_one_it_has_rights_in() {
    in_sandbox(|sandbox| async move {
        with_sandbox(|other| async move {
            let gate = Gate::new(&sandbox, WRITE).await;
            other.run("theirs", json!({})).await;
            let asked = |project: &str, path: &str| {
                let request = axum::http::Request::get(path).header("x-api-key", &gate.key).header("openai-project", project);
                request.body(axum::body::Body::empty()).unwrap()
            };
            gate.get(&format!("{JOBS}/ftjob-theirs")).await.with(404);
            // What is there and what is not look alike to one who may see neither.
            let mut told = Vec::new();
            for (project, id) in
                [(other.namespace.as_str(), "theirs"), (&other.namespace, "nobody"), ("no-such-namespace", "theirs")]
            {
                let refused = gate.send(asked(project, &format!("{JOBS}/{id}"))).await.with(403);
                told.push(refused.to_string().replace(project, "PROJECT"));
            }
            assert!(told.iter().all(|words| *words == told[0] && words.contains("fine-tuning:read")), "{told:?}");
            gate.send(asked("../kube-system", JOBS)).await.with(400);

            let account = gate_account(&sandbox, &gate).await;
            bind(&sandbox, &account, &other.namespace, READ).await;
            let shared = gate.send(asked(&other.namespace, &format!("{JOBS}/theirs"))).await.with(200);
            assert_eq!(shared["organization_id"], json!(other.namespace));
        })
        .await;
    })
    .await;
}

/// Name of the account a key belongs to.
async fn gate_account(sandbox: &crate::harness::Sandbox, gate: &Gate) -> String {
    let accounts: Vec<corev1::ServiceAccount> = crate::harness::wait::list(&sandbox.api(), "").await;
    let names = accounts.into_iter().filter_map(|account| account.metadata.name);
    let mut ours: Vec<_> = names.filter(|name| name.starts_with("it-")).collect();
    assert_eq!(ours.len(), 1, "{} keys", gate.key.len());
    ours.remove(0)
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn a_key_whose_account_is_gone_is_good_for_nothing() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, READ).await;
        gate.get(JOBS).await.with(200);
        let account = gate_account(&sandbox, &gate).await;
        let accounts: Api<corev1::ServiceAccount> = sandbox.api();
        accounts.delete(&account, &DeleteParams::default()).await.unwrap();
        // The API server remembers tokens for ten seconds; then it is the one that refuses, though the name is still remembered here.
        let begin = std::time::Instant::now();
        while gate.get(JOBS).await.code != 401 {
            assert!(begin.elapsed().as_secs() < 60, "the key is still good");
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_audit_log_names_the_caller() {
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let body = json!({"model": "it-tiny", "training_file": "s3://bucket/rows"});
        gate.post(JOBS, body).await.with(200);
        let account = gate_account(&sandbox, &gate).await;
        let name = format!("system:serviceaccount:{}:{account}", sandbox.namespace);
        let namespace = sandbox.namespace.clone();
        let creates = requests(|request| {
            request.object_ref.namespace == namespace && request.object_ref.resource == "finetunes" && request.verb == "create"
        });
        assert!(creates.iter().all(|request| request.user.username == name) && creates.len() == 1, "{creates:#?}");
        // The roles that ship are enough: nothing the caller's requests needed was refused.
        let refused = requests(|request| request.user.username == name && request.was_forbidden());
        assert!(refused.is_empty(), "{refused:#?}");
        bind(&sandbox, "default", &sandbox.namespace, READ).await;
        gate.with(token(&sandbox, "default").await).get(JOBS).await.with(200);
    })
    .await;
}

/// The policy that comes with the gateway.
const POLICY: &str = include_str!("../../../charts/finetune-operator/policies/created-by.yaml");

async fn put_policy(client: &kube::Client) {
    let documents: Vec<Value> = serde_saphyr::from_multiple(POLICY).unwrap();
    let params = PatchParams::apply("integration-tests").force();
    let name = documents[0]["metadata"]["name"].as_str().unwrap();
    let policies: Api<admission::ValidatingAdmissionPolicy> = Api::all(client.clone());
    policies.patch(name, &params, &Patch::Apply(&documents[0])).await.unwrap();
    let bindings: Api<admission::ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    bindings.patch(name, &params, &Patch::Apply(&documents[1])).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn nobody_signs_with_anothers_name() {
    in_sandbox(|sandbox| async move {
        put_policy(&sandbox.client).await;
        let gate = Gate::new(&sandbox, WRITE).await;
        let forge = |name: String| {
            let spec = json!({"baseModel": {"name": "it-tiny"}, "dataset": {"name": "d"}, "desiredState": "Paused"});
            json!({"metadata": {"name": name, "annotations": {names::CREATED_BY: "somebody-else"}}, "spec": spec})
        };
        // A policy is in force a moment after it is there, which cannot be watched.
        let begin = std::time::Instant::now();
        let mut tries = 0;
        let refused = loop {
            tries += 1;
            match sandbox.try_create::<FineTune>(forge(format!("forged-{tries}"))).await {
                Err(error) => break error.to_string(),
                Ok(_) => assert!(begin.elapsed().as_secs() < 60, "the policy is not in force"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        };
        assert!(refused.contains("created-by"), "{refused}");
        let made = gate.post(JOBS, json!({"model": "it-tiny", "training_file": "s3://bucket/rows"})).await.with(200);
        let name = made["id"].as_str().unwrap().strip_prefix("ftjob-").unwrap();
        let runs: Api<FineTune> = sandbox.api();
        let owner = runs.get(name).await.unwrap().annotations().get(names::CREATED_BY).cloned().unwrap();
        assert!(owner.contains(&sandbox.namespace), "{owner}");
        for value in [json!("somebody-else"), Value::Null] {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {names::CREATED_BY: value}}}));
            assert!(runs.patch(name, &PatchParams::default(), &patch).await.is_err(), "{value}");
        }
        gate.post(&format!("{JOBS}/{name}/cancel"), Value::Null).await.with(200);
    })
    .await;
}
