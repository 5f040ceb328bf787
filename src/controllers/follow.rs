//! How one watch is kept: its store current, and the world told of every object that comes, changes or goes.

use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt, reflector::store::Writer, watcher},
};
use serde::de::DeserializeOwned;

use super::{namespaces::Namespaces, world::World};
use crate::{
    api::names,
    watches::{following, is_refused},
};

/// What runs a watch.
pub type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How watches are made.
pub struct Follow<'a> {
    /// Client of the watches.
    pub client: &'a Client,
    /// Where namespaced kinds are watched.
    pub namespaces: &'a Namespaces,
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
        follow(self.events(&watcher::Config::default(), &writer), writer, self.world, touch)
    }

    /// The objects of a namespaced kind that we made.
    pub fn ours<K: Watched<Scope = NamespaceResourceScope>>(
        &self,
        writer: Writer<K>,
        touch: impl Fn(&World, &K, bool) + Send + 'static,
    ) -> Driver {
        follow(self.events(&Self::of_us(), &writer), writer, self.world, touch)
    }

    /// Picks the objects we made.
    pub fn of_us() -> watcher::Config {
        watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::MANAGER))
    }

    /// Every object of a kind without a namespace.
    pub fn catalogue<K: Watched>(&self, writer: Writer<K>, touch: impl Fn(&World, &K, bool) + Send + 'static) -> Driver {
        let events = following(Api::all(self.client.clone()), watcher::Config::default(), is_refused);
        let events = events.inspect(interruptions::<K>(None));
        follow(events.boxed(), writer, self.world, touch)
    }

    /// What happens to objects of a namespaced kind.
    pub fn events<K: Watched<Scope = NamespaceResourceScope>>(&self, config: &watcher::Config, writer: &Writer<K>) -> Events<K> {
        self.namespaces.events(self.client, config, writer.as_reader())
    }
}

/// What happens to objects of a kind.
pub type Events<K> = BoxStream<'static, watcher::Result<watcher::Event<K>>>;

/// A kind that can be watched.
pub trait Watched: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K> Watched for K where K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}

/// Keeps one store current and tells `world` of every object that changed.
fn follow<K: Watched>(
    events: Events<K>,
    writer: Writer<K>,
    world: &Arc<World>,
    touch: impl Fn(&World, &K, bool) + Send + 'static,
) -> Driver {
    let events = events.modify(|object| object.managed_fields_mut().clear()).reflect(writer);
    let world = Arc::clone(world);
    Box::pin(async move {
        let mut events = std::pin::pin!(events.into_stream());
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => touch(&world, &object, true),
                Ok(watcher::Event::Delete(object)) => touch(&world, &object, false),
                Ok(watcher::Event::InitDone) if world.is_ready() => world.look_at_everything(),
                Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => {}
            }
        }
    })
}

/// Says when a watch is interrupted; once, until something is heard again.
pub fn interruptions<K: Watched>(namespace: Option<String>) -> impl FnMut(&watcher::Result<watcher::Event<K>>) + Send {
    let mut is_told = false;
    move |said| match said {
        Ok(watcher::Event::Init) => {}
        Ok(_) => is_told = false,
        Err(error) if is_told => tracing::debug!(kind = %K::kind(&()), namespace, %error, "a watch is still interrupted"),
        Err(error) => {
            is_told = true;
            tracing::warn!(kind = %K::kind(&()), namespace, %error, "a watch was interrupted; it is tried again until it works");
        }
    }
}
