//! A namespace for one test, and short words for what most tests do in it.

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use finetune_operator::api::{Checkpoint, FineTune, FineTuneHistory, FineTunePhase, FineTuneStatus, condition, names};

use super::{
    cluster::{admin, put_catalogue},
    operator::Operator,
    wait::{Object, list, until},
};

/// A namespace with a claim named `models`.
#[derive(Clone)]
pub struct Sandbox {
    /// Client of an administrator.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

/// Runs a test in a namespace of its own, under the shared operator.
pub async fn in_sandbox<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Sandbox) -> F) {
    Operator::shared().await;
    with_sandbox(test).await;
}

/// Runs a test in a namespace of its own, and deletes the namespace however the test ends.
pub async fn with_sandbox<F>(test: impl FnOnce(Sandbox) -> F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    let sandbox = Sandbox::new(admin().await).await;
    let result = tokio::spawn(test(sandbox.clone())).await;
    let namespaces: Api<corev1::Namespace> = Api::all(sandbox.client.clone());
    namespaces.delete(&sandbox.namespace, &DeleteParams::default()).await.unwrap();
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

impl Sandbox {
    /// A new namespace in which pods can be made.
    pub async fn new(client: Client) -> Self {
        put_catalogue(&client).await;
        let namespaces: Api<corev1::Namespace> = Api::all(client.clone());
        let name = format!("it-{}", uuid::Uuid::new_v4().simple());
        let namespace = json!({"metadata": {"name": name, "labels": {"test.finetune.dev/sandbox": "true"}}});
        let namespace = namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
        let sandbox = Self { client, namespace: namespace.name_any() };
        until(&sandbox.api::<corev1::ServiceAccount>(), "default", "the namespace has its ServiceAccount", |_| true).await;
        sandbox.claim("models").await;
        sandbox
    }

    /// The objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object from its fields.
    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Object + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    {
        self.try_create(object).await.unwrap()
    }

    /// Creates an object from its fields, or says why not. What goes over the wire is what is given, not what our types make of it.
    pub async fn try_create<K>(&self, mut object: Value) -> Result<K, kube::Error>
    where
        K: Object + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    {
        object["apiVersion"] = K::api_version(&()).into();
        object["kind"] = K::kind(&()).into();
        let url = K::url_path(&(), Some(&self.namespace));
        let request = http::Request::post(url).header("content-type", "application/json");
        self.client.request(request.body(serde_json::to_vec(&object).unwrap()).unwrap()).await
    }

    /// Makes a claim.
    pub async fn claim(&self, name: &str) {
        let spec = json!({"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}});
        self.create::<corev1::PersistentVolumeClaim>(json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    /// Starts a run of the shared catalogue; `changes` replace fields of its spec, null takes one out.
    pub async fn run(&self, name: &str, changes: Value) -> FineTune {
        self.try_run(name, changes).await.unwrap()
    }

    /// The same, or why it was refused.
    pub async fn try_run(&self, name: &str, changes: Value) -> Result<FineTune, kube::Error> {
        let mut spec = json!({
            "baseModel": {"name": "it-tiny"},
            "dataset": {"training": {"huggingFace": {"repo": "org/rows"}}},
            "runtime": {"name": "it-sft"},
            "hardware": {"profile": "it-gpu"},
            "output": {"volume": {"claimName": "models"}},
        });
        for (field, value) in changes.as_object().unwrap() {
            spec[field] = value.clone();
        }
        spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.try_create(json!({"metadata": {"name": name}, "spec": spec})).await
    }

    /// Edits the spec of a run.
    pub async fn edit(&self, name: &str, changes: Value) -> Result<FineTune, kube::Error> {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": changes}))).await
    }

    /// A run, once its status `holds`.
    pub async fn until_run(&self, name: &str, what: &str, holds: impl Fn(&FineTuneStatus) -> bool + Send + Sync) -> FineTune {
        until(&self.api::<FineTune>(), name, what, |run| run.status.as_ref().is_some_and(&holds)).await
    }

    /// A run, once it is in a phase and its status is of its newest spec.
    pub async fn until_phase(&self, name: &str, phase: FineTunePhase) -> FineTune {
        until(&self.api::<FineTune>(), name, &format!("it is {phase:?}"), |run| {
            let status = run.status.clone().unwrap_or_default();
            status.phase == phase && status.observed_generation == run.metadata.generation
        })
        .await
    }

    /// A run, once its condition Ready has a reason.
    pub async fn until_reason(&self, name: &str, reason: &str) -> FineTune {
        let holds = |status: &FineTuneStatus| {
            condition::find(&status.conditions, condition::READY).is_some_and(|ready| ready.reason == reason)
        };
        self.until_run(name, &format!("the reason is {reason}"), holds).await
    }

    /// The Jobs of a run.
    pub async fn jobs(&self, run: &FineTune) -> Vec<batch::Job> {
        list(&self.api(), &of(run)).await
    }

    /// The pods of a run.
    pub async fn pods(&self, run: &FineTune) -> Vec<corev1::Pod> {
        list(&self.api(), &of(run)).await
    }

    /// The Checkpoints of a run.
    pub async fn checkpoints(&self, run: &FineTune) -> Vec<Checkpoint> {
        list(&self.api(), &of(run)).await
    }

    /// The history of a run.
    pub async fn history(&self, run: &FineTune) -> Option<FineTuneHistory> {
        self.api().get_opt(&run.name_any()).await.unwrap()
    }
}

/// Selects what belongs to a run.
pub fn of(run: &FineTune) -> String {
    format!("{}={}", names::FINE_TUNE_UID, run.uid().unwrap())
}

/// Message of the condition Ready.
pub fn message(run: &FineTune) -> String {
    let conditions = &run.status.as_ref().unwrap().conditions;
    condition::find(conditions, condition::READY).unwrap().message.clone()
}
