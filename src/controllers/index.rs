//! Finds objects by the uid of the run they belong to, without looking through all of them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use kube::{
    Resource,
    runtime::reflector::{ObjectRef, Store},
};

/// A store with a second key.
pub struct Indexed<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    by_key: RwLock<HashMap<String, HashSet<ObjectRef<K>>>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Indexed<K> {
    /// An index over `store`, empty until told of objects.
    pub fn new(store: Store<K>) -> Self {
        Self { store, by_key: RwLock::default() }
    }

    /// The store itself.
    pub const fn store(&self) -> &Store<K> {
        &self.store
    }

    /// Takes note of an object that is there, or no longer is.
    pub fn touch(&self, key: &str, object: &K, is_there: bool) {
        let reference = ObjectRef::from_obj(object);
        let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        if is_there {
            by_key.entry(key.to_owned()).or_default().insert(reference);
        } else if let Some(references) = by_key.get_mut(key) {
            references.remove(&reference);
            if references.is_empty() {
                by_key.remove(key);
            }
        }
    }

    /// Forgets what the store no longer holds: after a watch was broken, nobody says what was deleted meanwhile.
    pub fn prune(&self) {
        let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        by_key.retain(|_, references| {
            references.retain(|reference| self.store.get(reference).is_some());
            !references.is_empty()
        });
    }

    /// The objects of `key`, by name.
    pub fn get(&self, key: &str) -> Vec<Arc<K>> {
        let references: Vec<_> = {
            let by_key = self.by_key.read().unwrap_or_else(PoisonError::into_inner);
            by_key.get(key).into_iter().flatten().cloned().collect()
        };
        let mut found: Vec<_> = references.iter().filter_map(|reference| self.store.get(reference)).collect();
        found.sort_by(|left, right| left.meta().name.cmp(&right.meta().name));
        found
    }
}
