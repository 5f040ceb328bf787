//! The API document as a foreign tool reads it: schemathesis makes requests of it and looks whether the answers are as it says.

use std::process::Stdio;

use finetune_operator::api::{Dataset, FineTune};
use k8s_openapi::api::core::v1 as corev1;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::process::Command;

use super::api::{Gate, WRITE, router};
use crate::{harness::in_sandbox, run::train};

/// Where a schemathesis is named by `FINETUNE_IT_SCHEMATHESIS`; see hack/test/schemathesis.sh.
#[tokio::test]
#[ignore = "needs a cluster: run hack/test/integration.sh"]
async fn the_document_holds_under_schemathesis() {
    let Ok(schemathesis) = std::env::var("FINETUNE_IT_SCHEMATHESIS") else {
        println!("skipped: FINETUNE_IT_SCHEMATHESIS names no schemathesis");
        return;
    };
    in_sandbox(|sandbox| async move {
        let gate = Gate::new(&sandbox, WRITE).await;
        let rows = json!({"training": {"huggingFace": {"repo": "org/rows"}}});
        sandbox.create::<Dataset>(json!({"metadata": {"name": "rows"}, "spec": rows})).await;
        let run = sandbox.run("bot", json!({})).await;
        train(&sandbox, &run, 1).await;
        let labelled = Patch::Merge(json!({"metadata": {"labels": {"finetune.dev/repository": "models"}}}));
        let runs: Api<FineTune> = sandbox.api();
        runs.patch("bot", &PatchParams::default(), &labelled).await.unwrap();
        let quota = json!({"hard": {"count/finetunes.finetune.dev": "40"}});
        sandbox.create::<corev1::ResourceQuota>(json!({"metadata": {"name": "runs"}, "spec": quota})).await;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(axum::serve(listener, router().await).into_future());
        let seed = std::env::var("FINETUNE_IT_SEED").unwrap_or_else(|_| "20270115".to_owned());
        let ended = Command::new(schemathesis)
            .args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/hack/test/schemathesis.toml"), "run", "--seed", &seed])
            .args(["--url", &url, &format!("{url}/openapi.json")])
            .env("FINETUNE_KEY", &gate.key)
            .env("FINETUNE_NAMESPACE", &sandbox.namespace)
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await;
        server.abort();
        assert!(ended.unwrap().success());
    })
    .await;
}
