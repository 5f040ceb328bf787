//! How one watch is kept: its store current, and the world told of every object that comes, changes or goes.

use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt, reflector::store::Writer, watcher},
};
use serde::de::DeserializeOwned;

use super::world::World;
use crate::api::names;

/// What runs a watch.
pub type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How watches are made.
pub struct Follow<'a> {
    /// Client of the watches.
    pub client: &'a Client,
    /// The one namespace to see; all when absent.
    pub namespace: Option<&'a str>,
    /// Who is told.
    pub world: &'a Arc<World>,
}

impl Follow<'_> {
    /// Every object of a namespaced kind.
    pub fn every<K: Watched<Scope = NamespaceResourceScope>>(
        &self,
        writer: Writer<K>,
        touch: impl Fn(&World, &K, bool) + Send + 'static,
    ) -> Driver {
        follow(self.api(), watcher::Config::default(), writer, self.world, touch)
    }

    /// The objects of a namespaced kind that we made.
    pub fn ours<K: Watched<Scope = NamespaceResourceScope>>(
        &self,
        writer: Writer<K>,
        touch: impl Fn(&World, &K, bool) + Send + 'static,
    ) -> Driver {
        follow(self.api(), Self::of_us(), writer, self.world, touch)
    }

    /// Picks the objects we made.
    pub fn of_us() -> watcher::Config {
        watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::MANAGER))
    }

    /// Every object of a kind without a namespace.
    pub fn catalogue<K: Watched>(&self, writer: Writer<K>, touch: impl Fn(&World, &K, bool) + Send + 'static) -> Driver {
        follow(Api::all(self.client.clone()), watcher::Config::default(), writer, self.world, touch)
    }

    /// Where to look for a namespaced kind.
    pub fn api<K: Watched<Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        self.namespace.map_or_else(|| Api::all(self.client.clone()), |namespace| Api::namespaced(self.client.clone(), namespace))
    }
}

/// A kind that can be watched.
pub trait Watched: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K> Watched for K where K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}

/// Keeps one store current and tells `world` of every object that changed.
fn follow<K: Watched>(
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    world: &Arc<World>,
    touch: impl Fn(&World, &K, bool) + Send + 'static,
) -> Driver {
    let events = watcher(api, config).default_backoff().modify(|object| object.managed_fields_mut().clear()).reflect(writer);
    let world = Arc::clone(world);
    Box::pin(async move {
        let mut events = std::pin::pin!(events.into_stream());
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => touch(&world, &object, true),
                Ok(watcher::Event::Delete(object)) => touch(&world, &object, false),
                Ok(watcher::Event::InitDone) if world.is_ready() => world.look_at_everything(),
                Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "a watch was interrupted"),
            }
        }
    })
}
