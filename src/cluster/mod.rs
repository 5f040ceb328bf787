//! The only writer to Kubernetes beside the report server: carries out changes, writes a status, tells people.

mod error;
mod events;
mod review;
mod verbs;

pub use error::{Class, Error};
pub use review::may_list;

use events::Events;
use verbs::{apply, create, delete, ignore_gone};

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1 as apps, batch::v1 as batch, core::v1 as corev1, policy::v1 as policy},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use moka::future::Cache;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    api::{Checkpoint, CheckpointPermission, HttpRoute, ModelDeployment, is_owned_by, names},
    plan::{Change, Child, ChildKind, ChildReference, Known, Notice, Redeployment},
};

/// Field manager of what the controller writes.
const MANAGER: &str = "finetune-operator-controller";

/// How many deletions are remembered, and how long; and as many versions.
const REMEMBERED: (u64, Duration) = (10_000, Duration::from_secs(10));
/// How long versions are remembered: no watch lags for so long.
const VERSIONS: Duration = Duration::from_mins(10);

/// An object plans are made for.
pub trait Subject:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync
{
}
impl<K> Subject for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync
{
}

/// An object after a write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// It has this version.
    Version(String),
    /// It is let go: the server needs no finalizer of it any more.
    Gone,
}

/// The cluster, as something to write to.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    events: Events,
    /// Uids deleted a moment ago: a watch that lags asks for the same deletion again.
    deleted: Cache<String, ()>,
    /// Children written to a while ago, by uid: the version they had afterwards. Who has seen an older one does not know of that write.
    written: Cache<String, u64>,
}

impl Cluster {
    /// A writer that uses `client`; `instance` is the name of this process in Events.
    #[must_use]
    pub fn new(client: Client, instance: Option<String>) -> Self {
        let events = Events::start(client.clone(), instance);
        let deleted = Cache::builder().max_capacity(REMEMBERED.0).time_to_live(REMEMBERED.1).build();
        let written = Cache::builder().max_capacity(REMEMBERED.0).time_to_live(VERSIONS).build();
        Self { client, events, deleted, written }
    }

    /// Carries out `changes` in order; stops at the first that fails. Returns the subject after the last write to it.
    ///
    /// # Errors
    /// The first write that failed, with the object it was about.
    pub async fn apply<K: Subject>(&self, subject: &K, changes: &[Change]) -> Result<Option<After>, Error> {
        let mut after = None;
        for change in changes {
            match change {
                Change::AddFinalizer(finalizer) => after = Some(self.write_finalizer(subject, finalizer, true).await?),
                Change::RemoveFinalizer(finalizer) => after = Some(self.write_finalizer(subject, finalizer, false).await?),
                Change::CreateOnce(child) => self.create_once(subject, child).await?,
                Change::Apply { known: Some(known), .. } | Change::Scale { known, .. } if self.is_stale(known).await => {}
                Change::Apply { child, known } => self.apply_child(subject, child, known.as_ref()).await?,
                Change::Scale { name, known, replicas } => self.scale(subject, (name, known), *replicas).await?,
                Change::Redeploy(wanted) => self.redeploy(subject, wanted).await?,
                Change::Delete(reference) => self.delete(subject, reference).await?,
                Change::MarkBest { name, uid, best } => self.mark_best(subject, (name, uid), *best).await?,
                Change::ReleaseCheckpoint { name, uid, finalizers } => {
                    self.release_checkpoint(subject, (name, uid), finalizers).await?;
                }
            }
        }
        Ok(after)
    }

    /// Writes the status; returns the object after it. `owned` is the status without the fields that are not ours; where `over` is a version, it is
    /// written over that one only.
    ///
    /// # Errors
    /// When the API server refuses it, or the object is gone, another one by now, or of another version.
    pub async fn write_status<K: Subject>(
        &self,
        subject: &K,
        owned: serde_json::Value,
        over: Option<String>,
    ) -> Result<After, Error> {
        let mut body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": subject.name_any(), "uid": subject.uid()},
            "status": owned,
        });
        if let Some(version) = over {
            body["metadata"]["resourceVersion"] = version.into();
        }
        let params = PatchParams::apply(MANAGER).force();
        let written = self
            .subject_api(subject)
            .patch_status(&subject.name_any(), &params, &Patch::Apply(body))
            .await
            .map_err(|source| Error::write("status of", subject, source))?;
        Ok(After::Version(written.resource_version().unwrap_or_default()))
    }

    /// Tells people, without making anybody wait: what cannot be told is logged and forgotten.
    pub fn publish<K: Subject>(&self, subject: &K, notices: &[Notice]) {
        for notice in notices {
            self.events.tell(subject.object_ref(&()), notice);
        }
    }

    fn subject_api<K: Subject>(&self, subject: &K) -> Api<K> {
        Api::namespaced(self.client.clone(), &subject.namespace().unwrap_or_default())
    }

    fn beside<C: Subject, K: Subject>(&self, subject: &K) -> Api<C> {
        Api::namespaced(self.client.clone(), &subject.namespace().unwrap_or_default())
    }

    async fn write_finalizer<K: Subject>(&self, subject: &K, finalizer: &str, wanted: bool) -> Result<After, Error> {
        let mut all: Vec<String> = subject.finalizers().iter().filter(|known| *known != finalizer).cloned().collect();
        if wanted {
            all.push(finalizer.to_owned());
        }
        // With the version, so that a finalizer somebody else put there meanwhile is never dropped.
        let metadata = json!({"finalizers": all, "uid": subject.uid(), "resourceVersion": subject.resource_version()});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let written = self.subject_api(subject).patch(&subject.name_any(), &params, &patch).await;
        match written {
            // The last finalizer of an object that is being deleted ends it; the answer carries the version from before.
            Ok(object) if object.finalizers().is_empty() && object.meta().deletion_timestamp.is_some() => Ok(After::Gone),
            Ok(object) => Ok(After::Version(object.resource_version().unwrap_or_default())),
            Err(kube::Error::Api(status)) if !wanted && status.is_not_found() => Ok(After::Gone),
            Err(source) => Err(Error::write("finalizer of", subject, source)),
        }
    }

    async fn create_once<K: Subject>(&self, subject: &K, child: &Child) -> Result<(), Error> {
        let uid = subject.uid().unwrap_or_default();
        match child {
            Child::Job(job) => {
                let api: Api<batch::Job> = self.beside(subject);
                create(&api, job.as_ref(), |found| is_owned_by(found, &uid)).await
            }
            Child::Claim(claim) => {
                let api: Api<corev1::PersistentVolumeClaim> = self.beside(subject);
                create(&api, claim.as_ref(), |found| found.labels().get(names::FINE_TUNE_UID) == Some(&uid)).await
            }
            Child::Service(service) => {
                let api: Api<corev1::Service> = self.beside(subject);
                create(&api, service.as_ref(), |found| is_owned_by(found, &uid)).await
            }
            Child::Served(deployment) => {
                let api: Api<ModelDeployment> = self.beside(subject);
                create(&api, deployment.as_ref(), |found| is_owned_by(found, &uid)).await
            }
            Child::Permission(permission) => {
                let api: Api<CheckpointPermission> = self.beside(subject);
                create(&api, permission.as_ref(), |found| is_owned_by(found, &uid)).await
            }
            Child::Workload(_) | Child::Budget(_) | Child::Route(_) => self.apply_child(subject, child, None).await,
        }
    }

    async fn apply_child<K: Subject>(&self, subject: &K, child: &Child, known: Option<&Known>) -> Result<(), Error> {
        let owner = subject.uid().unwrap_or_default();
        let uid = known.map(|known| known.uid.as_str());
        let version = match child {
            Child::Workload(workload) => {
                apply(&self.beside::<apps::Deployment, K>(subject), workload.as_ref(), (uid, &owner)).await
            }
            Child::Service(service) => apply(&self.beside::<corev1::Service, K>(subject), service.as_ref(), (uid, &owner)).await,
            Child::Budget(budget) => {
                apply(&self.beside::<policy::PodDisruptionBudget, K>(subject), budget.as_ref(), (uid, &owner)).await
            }
            Child::Route(route) => apply(&self.beside::<HttpRoute, K>(subject), route.as_ref(), (uid, &owner)).await,
            Child::Job(_) | Child::Claim(_) | Child::Permission(_) | Child::Served(_) => {
                return Box::pin(self.create_once(subject, child)).await;
            }
        }?;
        self.wrote(known, version).await;
        Ok(())
    }

    /// Whether a child was seen as it was before our last write to it: the newer one is on its way and will wake its owner.
    async fn is_stale(&self, known: &Known) -> bool {
        let written = self.written.get(&known.uid).await;
        written.is_some_and(|written| known.version.parse::<u64>().is_ok_and(|seen| seen < written))
    }

    async fn wrote(&self, known: Option<&Known>, version: Option<String>) {
        if let (Some(known), Some(version)) = (known, version.and_then(|version| version.parse().ok())) {
            self.written.insert(known.uid.clone(), version).await;
        }
    }

    async fn delete<K: Subject>(&self, subject: &K, reference: &ChildReference) -> Result<(), Error> {
        if self.deleted.contains_key(&reference.uid) {
            return Ok(());
        }
        match reference.kind {
            ChildKind::Job => delete(&self.beside::<batch::Job, K>(subject), reference).await,
            ChildKind::Claim => delete(&self.beside::<corev1::PersistentVolumeClaim, K>(subject), reference).await,
            ChildKind::Checkpoint => delete(&self.beside::<Checkpoint, K>(subject), reference).await,
            ChildKind::Served => delete(&self.beside::<ModelDeployment, K>(subject), reference).await,
            ChildKind::Budget => delete(&self.beside::<policy::PodDisruptionBudget, K>(subject), reference).await,
            ChildKind::Permission => delete(&self.beside::<CheckpointPermission, K>(subject), reference).await,
            ChildKind::Workload => delete(&self.beside::<apps::Deployment, K>(subject), reference).await,
            ChildKind::Service => delete(&self.beside::<corev1::Service, K>(subject), reference).await,
            ChildKind::Route => delete(&self.beside::<HttpRoute, K>(subject), reference).await,
        }?;
        self.deleted.insert(reference.uid.clone(), ()).await;
        Ok(())
    }

    async fn scale<K: Subject>(&self, subject: &K, (name, known): (&str, &Known), replicas: i32) -> Result<(), Error> {
        let patch: Patch<serde_json::Value> =
            Patch::Merge(json!({"metadata": {"uid": known.uid}, "spec": {"replicas": replicas}}));
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let written = self.beside::<apps::Deployment, K>(subject).patch(name, &params, &patch).await;
        if let Ok(workload) = &written {
            self.wrote(Some(known), workload.resource_version()).await;
        }
        ignore_gone(written.map(|_| ()), "replicas of Deployment", name)
    }

    async fn mark_best<K: Subject>(&self, subject: &K, (name, uid): (&str, &str), best: bool) -> Result<(), Error> {
        let api: Api<Checkpoint> = self.beside(subject);
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "status": {"best": best}}));
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        ignore_gone(api.patch_status(name, &params, &patch).await.map(|_| ()), "status of Checkpoint", name)
    }

    /// With the version it was decided from, so that an edit of a person that comes between is seen first.
    async fn redeploy<K: Subject>(&self, subject: &K, wanted: &Redeployment) -> Result<(), Error> {
        let mut spec = json!({"checkpoint": {"name": wanted.checkpoint, "namespace": null}, "type": wanted.type_});
        if let Some(replicas) = wanted.replicas {
            spec["replicas"] = replicas.into();
        }
        let annotations = json!({names::AUTO_DEPLOY: wanted.note});
        let metadata = json!({"uid": wanted.uid, "resourceVersion": wanted.version, "annotations": annotations});
        let patch: Patch<serde_json::Value> = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let written = self.beside::<ModelDeployment, K>(subject).patch(&wanted.name, &params, &patch).await;
        ignore_gone(written.map(|_| ()), "spec of Deployment", &wanted.name)
    }

    async fn release_checkpoint<K: Subject>(
        &self,
        subject: &K,
        (name, uid): (&str, &str),
        finalizers: &[String],
    ) -> Result<(), Error> {
        let api: Api<Checkpoint> = self.beside(subject);
        let left: Vec<_> = finalizers.iter().filter(|finalizer| *finalizer != names::CHECKPOINT_FINALIZER).collect();
        let patch: Patch<serde_json::Value> = Patch::Merge(json!({"metadata": {"uid": uid, "finalizers": left}}));
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        ignore_gone(api.patch(name, &params, &patch).await.map(|_| ()), "finalizer of Checkpoint", name)
    }
}
