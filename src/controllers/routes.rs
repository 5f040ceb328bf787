//! The watch of our HTTPRoutes. The Gateway API is optional: a cluster without it is no reason to wait, and it may come later.

use std::sync::{Mutex, PoisonError};

use futures::{FutureExt, StreamExt, TryStreamExt};
use kube::runtime::{
    WatchStreamExt,
    reflector::{Store, store::Writer},
    watcher,
};

use super::follow::{Driver, Follow};
use crate::{api::HttpRoute, plan::deployment::Route};

/// Our HTTPRoutes, as far as the cluster knows them.
pub struct Routes {
    store: Store<HttpRoute>,
    unavailable: Mutex<Option<String>>,
}

impl Routes {
    /// What is known by that store.
    pub const fn of(store: Store<HttpRoute>) -> Self {
        Self { store, unavailable: Mutex::new(None) }
    }

    /// What is known of a route; `find` looks it up.
    pub fn look(&self, find: impl FnOnce(&Store<HttpRoute>) -> Option<std::sync::Arc<HttpRoute>>) -> Route {
        let unavailable = self.unavailable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match unavailable {
            Some(cause) => Route::Unavailable(cause),
            None if self.store.wait_until_ready().now_or_never().is_some() => Route::Known(find(&self.store)),
            None => Route::Unknown,
        }
    }

    /// Notes whether the cluster can be asked; returns whether that is news.
    fn note(&self, cause: Option<String>) -> bool {
        let mut unavailable = self.unavailable.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *unavailable != cause;
        *unavailable = cause;
        is_news
    }
}

/// Keeps the store current, and everybody told when the cluster begins or ceases to know HTTPRoutes.
pub fn follow(follow: &Follow<'_>, writer: Writer<HttpRoute>) -> Driver {
    let events = follow.events(&Follow::of_us(), &writer).reflect(writer);
    let world = std::sync::Arc::clone(follow.world);
    Box::pin(async move {
        let mut events = std::pin::pin!(events.into_stream());
        while let Some(event) = events.next().await {
            let routes = &world.serving.routes;
            match event {
                Ok(watcher::Event::Apply(route) | watcher::Event::InitApply(route) | watcher::Event::Delete(route)) => {
                    world.wake_deployment_of(&route);
                }
                Ok(watcher::Event::InitDone) => {
                    routes.note(None);
                    world.wake_deployments(|_| true);
                }
                Ok(watcher::Event::Init) => {}
                Err(error) => {
                    if let Some(cause) = refusal(&error).filter(|cause| routes.note(Some(cause.clone()))) {
                        tracing::warn!(cause, "HTTPRoutes cannot be watched; it is tried again now and then");
                        world.wake_deployments(|_| true);
                    }
                }
            }
        }
    })
}

/// Why the cluster cannot be asked; nothing for what passes by itself.
fn refusal(error: &watcher::Error) -> Option<String> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))) = error
    else {
        return None;
    };
    match status.code {
        404 => Some("the cluster has no such kind".to_owned()),
        403 => Some("the operator may not see them (its role needs the rules for routes)".to_owned()),
        _ => None,
    }
}
