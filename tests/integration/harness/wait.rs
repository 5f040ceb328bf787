//! Waiting for the cluster, always by watch.

use std::{fmt::Debug, time::Duration};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        wait::{await_condition, conditions},
        watcher,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// Longest wait for anything. The Job controller alone may let 20 s pass before it replaces a failed pod.
const PATIENCE: Duration = Duration::from_secs(90);

/// What can be waited for.
pub trait Object:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + Unpin + 'static
{
}
impl<K> Object for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + Unpin + 'static
{
}

/// The object of that name, once it is there and `holds`.
pub async fn until<K: Object>(api: &Api<K>, name: &str, what: &str, holds: impl Fn(&K) -> bool + Send + Sync) -> K {
    let condition = |object: Option<&K>| object.is_some_and(&holds);
    let Ok(found) = tokio::time::timeout(PATIENCE, await_condition(api.clone(), name, condition)).await else {
        panic!("waited in vain until {what}; {} {name} is\n{}", K::kind(&()), yaml(&api.get_opt(name).await.unwrap()));
    };
    found.unwrap().unwrap()
}

/// The first object that a selector finds and that `holds`.
pub async fn until_some<K: Object>(api: &Api<K>, selector: &str, what: &str, holds: impl Fn(&K) -> bool + Send + Sync) -> K {
    let config = watcher::Config::default().labels(selector);
    let mut objects =
        watcher(api.clone(), config).applied_objects().try_filter(|object| std::future::ready(holds(object))).boxed();
    let Ok(found) = tokio::time::timeout(PATIENCE, objects.next()).await else {
        panic!("waited in vain until {what}; {selector} finds\n{}", yaml(&list(api, selector).await));
    };
    found.unwrap().unwrap()
}

/// Waits until an object is gone, or another of its name has come.
pub async fn until_gone<K: Object>(api: &Api<K>, object: &K) {
    let (name, uid) = (object.name_any(), object.uid().unwrap());
    let gone = await_condition(api.clone(), &name, conditions::is_deleted(&uid));
    let Ok(gone) = tokio::time::timeout(PATIENCE, gone).await else {
        panic!("{} {name} does not go:\n{}", K::kind(&()), yaml(&api.get_opt(&name).await.unwrap()));
    };
    gone.unwrap();
}

/// Everything a selector finds, by name.
pub async fn list<K: Object>(api: &Api<K>, selector: &str) -> Vec<K> {
    let mut found = api.list(&kube::api::ListParams::default().labels(selector)).await.unwrap().items;
    found.sort_by_key(ResourceExt::name_any);
    found
}

/// An object for people to read.
pub fn yaml<T: Serialize>(value: &T) -> String {
    let mut value = serde_json::to_value(value).unwrap();
    forget(&mut value, "managedFields");
    serde_saphyr::to_string(&value).unwrap()
}

/// Takes a key out wherever it is.
pub fn forget(value: &mut serde_json::Value, key: &str) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.remove(key);
            fields.values_mut().for_each(|inner| forget(inner, key));
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|inner| forget(inner, key)),
        _ => {}
    }
}
