//! The caller's requests to the API server.

use std::fmt::Debug;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1 as corev1;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, Error, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{chunks, ids, room::Room};
use crate::gateway::errors::{Kind, Refusal};
use crate::gateway::identity::Scope;
use crate::watches::following;

/// Field manager of what callers write by the gateway.
const MANAGER: &str = "finetune-operator-gateway";

/// Objects that those kinds are taken to have at most of which all are read at once.
const FEW: usize = 500;
/// Objects that a stream reads at a time when it begins.
const PAGE_OF_STREAM: u32 = 100;

/// A kind the gateway reads.
pub trait Kinded: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K> Kinded for K where K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}

/// Which objects of a kind are meant.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// By label.
    pub labels: Option<String>,
    /// By field.
    pub fields: Option<String>,
}

impl Selection {
    /// Those of which a field has a value.
    #[must_use]
    pub fn field(name: &str, value: &str) -> Self {
        Self { fields: Some(format!("{name}={value}")), labels: None }
    }

    fn params(&self) -> ListParams {
        ListParams { label_selector: self.labels.clone(), field_selector: self.fields.clone(), ..ListParams::default() }
    }
}

/// The cluster as the caller may see it, in one project.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    project: String,
    room: Room,
}

impl Cluster {
    /// What `client` may do in `project`, which must be a valid namespace; its lists share `room`.
    #[must_use]
    pub const fn new(client: Client, project: String, room: Room) -> Self {
        Self { client, project, room }
    }

    fn api<K: Kinded + Resource<Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.project)
    }

    fn refused(&self, error: &kube::Error, scope: Scope) -> Refusal {
        Refusal::of(error, scope, Some(&self.project))
    }

    /// The object of that name, if there is one. What cannot be a name is not asked for.
    ///
    /// # Errors
    /// The caller may not, or the API server does not answer.
    pub async fn get<K: Kinded + Resource<Scope = NamespaceResourceScope>>(&self, name: &str) -> Result<Option<K>, Refusal> {
        if !ids::is_name(name) {
            return Ok(None);
        }
        self.api().get_opt(name).await.map_err(|error| self.refused(&error, Scope::Read))
    }

    /// The same of a kind without namespace.
    ///
    /// # Errors
    /// The caller may not, or the API server does not answer.
    pub async fn get_global<K: Kinded + Resource<Scope = ClusterResourceScope>>(&self, name: &str) -> Result<Option<K>, Refusal> {
        if !ids::is_name(name) {
            return Ok(None);
        }
        let api: Api<K> = Api::all(self.client.clone());
        api.get_opt(name).await.map_err(|error| Refusal::of(&error, Scope::Read, None))
    }

    /// Hands every selected object to `see`, which keeps no more than `kept` of them.
    ///
    /// # Errors
    /// The caller may not, or the API server does not answer.
    pub async fn each<K>(&self, selection: &Selection, kept: usize, see: impl FnMut(K) + Send) -> Result<(), Refusal>
    where
        K: Kinded + Resource<Scope = NamespaceResourceScope>,
    {
        let _share = self.room.share(kept).await?;
        let url = K::url_path(&(), Some(&self.project));
        chunks::each(&self.client, &url, selection.params(), see).await.map_err(|error| self.refused(&error, Scope::Read))
    }

    /// Every selected object; of kinds of which there are few.
    ///
    /// # Errors
    /// The caller may not, or the API server does not answer.
    pub async fn list<K>(&self, selection: &Selection) -> Result<Vec<K>, Refusal>
    where
        K: Kinded + Resource<Scope = NamespaceResourceScope>,
    {
        let mut all = Vec::new();
        self.each(selection, FEW, |object| all.push(object)).await?;
        Ok(all)
    }

    /// Every object of a kind without namespace; of kinds of which there are few.
    ///
    /// # Errors
    /// The caller may not, or the API server does not answer.
    pub async fn list_global<K: Kinded + Resource<Scope = ClusterResourceScope>>(&self) -> Result<Vec<K>, Refusal> {
        let mut all = Vec::new();
        let _share = self.room.share(FEW).await?;
        let listed = chunks::each(&self.client, &K::url_path(&(), None), ListParams::default(), |object| all.push(object)).await;
        listed.map(|()| all).map_err(|error| Refusal::of(&error, Scope::Read, None))
    }

    /// Creates an object. `None`: the name is taken.
    ///
    /// # Errors
    /// The API server refuses it, in its own words.
    pub async fn create<K>(&self, object: &K) -> Result<Option<K>, Refusal>
    where
        K: Kinded + Serialize + Resource<Scope = NamespaceResourceScope>,
    {
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match self.api().create(&params, object).await {
            Ok(created) => Ok(Some(created)),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(None),
            Err(error) => Err(self.refused(&error, Scope::Write)),
        }
    }

    /// Changes exactly the version of the object that was read. `None`: it has changed since, or is gone.
    ///
    /// # Errors
    /// The API server refuses it, in its own words.
    pub async fn edit<K>(&self, read: &K, mut patch: Value) -> Result<Option<K>, Refusal>
    where
        K: Kinded + Resource<Scope = NamespaceResourceScope>,
    {
        patch["metadata"]["uid"] = read.uid().into();
        patch["metadata"]["resourceVersion"] = read.resource_version().into();
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        match self.api().patch(&read.name_any(), &params, &Patch::Merge(patch)).await {
            Ok(changed) => Ok(Some(changed)),
            Err(kube::Error::Api(status)) if matches!(status.reason.as_str(), "Conflict" | "NotFound") => Ok(None),
            Err(error) => Err(self.refused(&error, Scope::Write)),
        }
    }

    /// Deletes exactly the object that was read; what is gone already is fine. `false`: it is another one by now, or has changed.
    ///
    /// # Errors
    /// The caller may not, or the API server does not answer.
    pub async fn delete<K>(&self, read: &K, unchanged: bool) -> Result<bool, Refusal>
    where
        K: Kinded + Resource<Scope = NamespaceResourceScope>,
    {
        let version = read.resource_version().filter(|_| unchanged);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: read.uid(), resource_version: version }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.api::<K>().delete(&read.name_any(), &params).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.reason == "NotFound" => Ok(true),
            Err(kube::Error::Api(status)) if status.reason == "Conflict" => Ok(false),
            Err(error) => Err(self.refused(&error, Scope::Write)),
        }
    }

    /// Waits until the object is gone, or another one.
    ///
    /// # Errors
    /// It does not go in time.
    pub async fn until_gone<K>(&self, object: &K, patience: Duration) -> Result<(), Refusal>
    where
        K: Kinded + Resource<Scope = NamespaceResourceScope>,
    {
        let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
        let gone = await_condition(self.api::<K>(), &name, conditions::is_deleted(&uid));
        match tokio::time::timeout(patience, gone).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Refusal::unavailable()),
            Err(_) => Err(Refusal::conflict("what was there before is still being removed: try again")),
        }
    }

    /// The object once it `holds`, or as it is when patience ends; `None` when it is gone.
    ///
    /// # Errors
    /// The caller may not, or the API server does not answer.
    pub async fn wait<K>(
        &self,
        name: &str,
        patience: Duration,
        holds: impl Fn(&K) -> bool + Send + Sync,
    ) -> Result<Option<K>, Refusal>
    where
        K: Kinded + Resource<Scope = NamespaceResourceScope>,
    {
        if !patience.is_zero() {
            let condition = |object: Option<&K>| object.is_none_or(&holds);
            let waited = tokio::time::timeout(patience, await_condition(self.api::<K>(), name, condition)).await;
            if let Ok(Ok(found)) = waited {
                return Ok(found);
            }
        }
        self.get(name).await
    }

    /// The selected objects, and what becomes of them, for as long as somebody listens. A connection that breaks goes on where it was; what is not
    /// to be had is told, tried again ever more slowly, and listed anew as soon as that works.
    pub fn follow<K>(&self, selection: &Selection) -> impl Stream<Item = Result<Event<K>, Refusal>> + Send + use<K>
    where
        K: Kinded + Resource<Scope = NamespaceResourceScope>,
    {
        let Selection { labels, fields } = selection.clone();
        let config = watcher::Config { label_selector: labels, field_selector: fields, ..watcher::Config::default() };
        let told = following(self.api(), config.page_size(PAGE_OF_STREAM), |error| matches!(error, Error::WatchStartFailed(_)));
        let refused = self.clone();
        self.room.in_turn(told.boxed()).filter_map(move |said| {
            let said = match said {
                Ok(event) => Some(Ok(event)),
                Err(Error::InitialListFailed(error) | Error::WatchStartFailed(error)) => {
                    Some(Err(refused.refused(&error, Scope::Read)))
                }
                Err(_) => None,
            };
            std::future::ready(said)
        })
    }

    /// The end of the log of a container, each line with its time. `None`: there is none to be had.
    ///
    /// # Errors
    /// The API server does not answer, or the caller may not.
    pub async fn log(&self, pod: &str, params: &LogParams) -> Result<Option<String>, Refusal> {
        match self.api::<corev1::Pod>().logs(pod, params).await {
            Ok(text) => Ok(Some(text)),
            // The container has not begun, its pod is gone by now, or its node does not answer.
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404 | 500..) => Ok(None),
            Err(error) => Err(self.refused(&error, Scope::Read)),
        }
    }
}

/// What a denial says `nothing` of.
///
/// # Errors
/// Any other refusal.
pub fn or_nothing<T: Default>(read: Result<T, Refusal>) -> Result<T, Refusal> {
    match read {
        Err(refusal) if refusal.kind == Kind::Forbidden => Ok(T::default()),
        read => read,
    }
}
