//! Clients of the cluster the script made, and the objects without a namespace that all tests share.

use kube::{
    Api, Client, Config, Resource,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use finetune_operator::api::{BaseModel, HardwareProfile, ServingRuntime, TrainingRuntime};

/// Kubeconfig of an administrator.
pub const ADMIN: &str = "FINETUNE_IT_KUBECONFIG";
/// Kubeconfig of the operator: a token of its ServiceAccount, and with it the RBAC that ships.
pub const OPERATOR: &str = "FINETUNE_IT_OPERATOR_KUBECONFIG";
/// The audit log of the API server.
pub const AUDIT_LOG: &str = "FINETUNE_IT_AUDIT_LOG";
/// Namespace of the operator.
pub const NAMESPACE: &str = "FINETUNE_IT_NAMESPACE";

/// What the script says.
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run hack/test/integration.sh"))
}

/// How to reach the cluster as the user of the kubeconfig a variable names.
pub async fn config(variable: &str) -> Config {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(setting(variable)).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// A client of an administrator.
pub async fn admin() -> Client {
    Client::try_from(config(ADMIN).await).unwrap()
}

/// Puts an object without namespace where it is not yet.
pub async fn put<K>(client: &Client, name: &str, spec: Value)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let object = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec});
    let params = PatchParams::apply("integration-tests").force();
    Api::<K>::all(client.clone()).patch(name, &params, &Patch::Apply(object)).await.unwrap();
}

/// The catalogue every test may refer to.
pub async fn put_catalogue(client: &Client) {
    put::<BaseModel>(client, "it-tiny", json!({"source": {"huggingFace": {"repo": "org/tiny"}}})).await;
    put::<TrainingRuntime>(client, "it-sft", runtime()).await;
    let server = json!({
        "image": "registry.test/server:1",
        "hardware": "it-gpu",
        "deploymentTypes": ["fast", "normal"],
        "adapter": {"args": ["--lora=$(MODEL_NAME)=$(ADAPTER_PATH)"], "ranks": [8, 16, 32]},
    });
    put::<ServingRuntime>(client, "it-server", server).await;
    let hardware = json!({"gpu": {"count": 1}, "cpu": "1", "memory": "1Gi", "costPerHour": "3.60"});
    put::<HardwareProfile>(client, "it-gpu", hardware).await;
}

/// A runtime whose script wants a learning rate that is a number and has one by default.
pub fn runtime() -> Value {
    json!({
        "image": "registry.test/trainer:1",
        "command": ["train"],
        "parameters": {
            "schema": {"type": "object", "properties": {"learning_rate": {"type": "number"}}, "required": ["learning_rate"]},
            "defaults": {"learning_rate": 0.001},
        },
    })
}
