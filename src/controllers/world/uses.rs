//! Which checkpoints each object was last seen to use: when one of them is used no more, the run that saved it is looked at, since its policy
//! may not keep it any longer.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};

use super::World;
use crate::api::{CheckpointReference, FineTune, ModelDeployment, condition};

/// A Checkpoint by namespace and name.
type Named = (String, String);

/// What the objects of a kind use.
pub struct Uses<K: Resource>(Mutex<HashMap<ObjectRef<K>, BTreeSet<Named>>>)
where
    K::DynamicType: Eq + Hash;

impl<K: Resource<DynamicType = ()>> Default for Uses<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Resource<DynamicType = ()>> Uses<K> {
    /// Remembers what `user` uses from now on, and returns what it has used until now and uses no more.
    fn note(&self, user: ObjectRef<K>, now: &BTreeSet<Named>) -> Vec<Named> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = if now.is_empty() { all.remove(&user) } else { all.insert(user, now.clone()) };
        known.into_iter().flatten().filter(|named| !now.contains(named)).collect()
    }

    /// Forgets the users that are gone.
    pub fn prune(&self, is_there: impl Fn(&ObjectRef<K>) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|user, _| is_there(user));
    }
}

impl World {
    /// A Deployment of ours came, changed or went.
    pub(super) fn note_served(&self, deployment: &ModelDeployment, is_there: bool) {
        let served = deployment.status.as_ref().and_then(|status| status.checkpoint.as_ref());
        let used = [Some(&deployment.spec.checkpoint), served].into_iter().flatten().filter(|_| is_there);
        let used = used.map(|reference| named(reference, deployment)).collect();
        self.wake_keepers(self.served.note(ObjectRef::from_obj(deployment), &used));
    }

    /// A run came, changed or went.
    pub(super) fn touch_fine_tune(&self, run: &FineTune, is_there: bool) {
        let finished = run.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, condition::FINISHED));
        let used = run.spec.start_from.checkpoint.iter().filter(|_| is_there && !finished);
        let used = used.map(|reference| named(reference, run)).collect();
        self.wake_keepers(self.started.note(ObjectRef::from_obj(run), &used));
        self.wake_fine_tune_of(run);
    }

    /// Forgets the users whose end nobody told.
    pub(super) fn prune_uses(&self) {
        self.served.prune(|deployment| self.deployments.get(deployment).is_some());
        self.started.prune(|run| self.fine_tunes.get(run).is_some());
    }

    /// Looks at the runs that saved these checkpoints.
    pub(super) fn wake_keepers(&self, released: impl IntoIterator<Item = Named>) {
        for (namespace, name) in released {
            let checkpoint = self.checkpoints.store().get(&ObjectRef::new(&name).within(&namespace));
            if let Some(run) = checkpoint.as_ref().and_then(|checkpoint| checkpoint.spec.fine_tune.as_ref()) {
                self.wake(ObjectRef::new(&run.name).within(&namespace));
            }
        }
    }
}

fn named(reference: &CheckpointReference, user: &impl ResourceExt) -> Named {
    let namespace = reference.namespace.clone().or_else(|| user.namespace()).unwrap_or_default();
    (namespace, reference.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_no_more_is_told_once_and_what_uses_nothing_is_forgotten() {
        let uses = Uses::<FineTune>::default();
        let run = || ObjectRef::new("a").within("ns");
        let named = |names: &[&str]| names.iter().map(|name| ("ns".to_owned(), (*name).to_owned())).collect::<BTreeSet<_>>();
        let note = |names: &[&str]| uses.note(run(), &named(names)).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(note(&["one"]), Vec::<String>::new());
        assert_eq!(note(&["one", "two"]), Vec::<String>::new());
        assert_eq!(note(&["two"]), ["one"]);
        assert_eq!(note(&["two"]), Vec::<String>::new());
        assert_eq!(note(&[]), ["two"]);
        assert!(uses.0.lock().unwrap().is_empty());
        uses.note(run(), &named(&["one"]));
        uses.prune(|_| false);
        assert!(uses.0.lock().unwrap().is_empty());
    }
}
