//! Where the operator works: the watch of one kind everywhere, in one namespace, or in several as though they were one.

use std::collections::HashSet;

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream, select_all},
};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        reflector::Store,
        watcher::{self, Event},
    },
};

use super::follow::{Watched, interruptions};
use crate::watches::{following, is_refused};

/// The namespaces to work in; all when empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(Vec<String>);

impl Namespaces {
    /// Of names as a person gives them: empty ones and repetitions count for nothing.
    pub fn of(names: &[String]) -> Self {
        let mut known = HashSet::new();
        let names = names.iter().map(|name| name.trim()).filter(|name| !name.is_empty() && known.insert(name.to_owned()));
        Self(names.map(str::to_owned).collect())
    }

    /// Their names; none where they are all.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// What happens to objects of a kind there; `store` holds what was told so far.
    pub fn events<K: Watched<Scope = NamespaceResourceScope>>(
        &self,
        client: &Client,
        config: &watcher::Config,
        store: Store<K>,
    ) -> BoxStream<'static, watcher::Result<Event<K>>> {
        let watched = |api: Api<K>, place: Option<&String>| {
            following(api, config.clone(), is_refused).inspect(interruptions::<K>(place.cloned()))
        };
        match self.0.as_slice() {
            [] => watched(Api::all(client.clone()), None).boxed(),
            [one] => watched(Api::namespaced(client.clone(), one), Some(one)).boxed(),
            several => {
                let part = |(index, name): (usize, &String)| {
                    watched(Api::namespaced(client.clone(), name), Some(name)).map(move |event| (index, event)).boxed()
                };
                as_one(select_all(several.iter().enumerate().map(part)), Merged::new(several.to_vec(), store)).boxed()
            }
        }
    }
}

fn as_one<K: Watched>(
    parts: impl Stream<Item = (usize, watcher::Result<Event<K>>)> + Send,
    mut merged: Merged<K>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send {
    parts.flat_map(move |(index, event)| {
        stream::iter(match event {
            Ok(event) => merged.take(index, event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    })
}

/// Makes one sequence of events of those of several namespaces: one first list once each namespace has given its own, then changes; where a
/// namespace is listed anew, the changes it comes to.
struct Merged<K: Watched> {
    parts: Vec<Part<K>>,
    store: Store<K>,
    begun: bool,
}

struct Part<K> {
    namespace: String,
    listed: Vec<K>,
    complete: bool,
}

impl<K: Watched> Merged<K> {
    fn new(namespaces: Vec<String>, store: Store<K>) -> Self {
        let parts = namespaces.into_iter().map(|namespace| Part { namespace, listed: Vec::new(), complete: false });
        Self { parts: parts.collect(), store, begun: false }
    }

    fn take(&mut self, index: usize, event: Event<K>) -> Vec<Event<K>> {
        let Some(part) = self.parts.get_mut(index) else { return Vec::new() };
        match event {
            Event::Init => (part.complete, part.listed) = (false, Vec::new()),
            Event::InitApply(object) => part.listed.push(object),
            Event::InitDone => {
                part.complete = true;
                return if self.begun { self.anew(index) } else { self.first() };
            }
            Event::Apply(_) | Event::Delete(_) if self.begun => return vec![event],
            Event::Apply(object) => {
                part.forget(&object);
                part.listed.push(object);
            }
            Event::Delete(object) => part.forget(&object),
        }
        Vec::new()
    }

    /// The one first list, once all have given theirs.
    fn first(&mut self) -> Vec<Event<K>> {
        if !self.parts.iter().all(|part| part.complete) {
            return Vec::new();
        }
        self.begun = true;
        let listed = self.parts.iter_mut().flat_map(|part| std::mem::take(&mut part.listed));
        let listed = listed.map(Event::InitApply);
        [Event::Init].into_iter().chain(listed).chain([Event::InitDone]).collect()
    }

    /// What a new list of one namespace comes to: what it lacks, or holds anew under the same name, is gone.
    fn anew(&mut self, index: usize) -> Vec<Event<K>> {
        let Some(part) = self.parts.get_mut(index) else { return Vec::new() };
        let listed = std::mem::take(&mut part.listed);
        let there: HashSet<_> = listed.iter().map(|object| (object.name_any(), object.uid())).collect();
        let is_gone = |object: &K| {
            object.namespace().as_deref() == Some(&part.namespace) && !there.contains(&(object.name_any(), object.uid()))
        };
        let gone = self.store.state_filter(is_gone);
        gone.into_iter().map(|object| Event::Delete(K::clone(&object))).chain(listed.into_iter().map(Event::Apply)).collect()
    }
}

impl<K: Watched> Part<K> {
    fn forget(&mut self, object: &K) {
        self.listed.retain(|known| known.name_any() != object.name_any());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector::store::Writer;

    use super::*;

    fn object(namespace: &str, name: &str, uid: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.into());
        object.metadata.name = Some(name.into());
        object.metadata.uid = Some(uid.into());
        object
    }

    struct World {
        merged: Merged<ConfigMap>,
        writer: Writer<ConfigMap>,
    }

    impl World {
        fn of_two() -> Self {
            let writer = Writer::default();
            Self { merged: Merged::new(vec!["a".into(), "b".into()], writer.as_reader()), writer }
        }

        /// What comes of events of a namespace, as kind and name; the store follows.
        fn hear(&mut self, index: usize, events: Vec<Event<ConfigMap>>) -> Vec<String> {
            let mut told = Vec::new();
            for event in events {
                for event in self.merged.take(index, event) {
                    self.writer.apply_watcher_event(&event);
                    told.push(match event {
                        Event::Init => "init".to_owned(),
                        Event::InitDone => "done".to_owned(),
                        Event::Delete(object) => format!("-{}", object.name_any()),
                        Event::Apply(object) | Event::InitApply(object) => format!("+{}", object.name_any()),
                    });
                }
            }
            told
        }

        fn listed(&mut self, index: usize, objects: Vec<ConfigMap>) -> Vec<String> {
            let all = objects.into_iter().map(Event::InitApply);
            self.hear(index, [Event::Init].into_iter().chain(all).chain([Event::InitDone]).collect())
        }

        fn stored(&self) -> Vec<String> {
            let mut names: Vec<_> = self.merged.store.state().iter().map(|object| object.name_any()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn names_are_counted_once() {
        let of = |names: &[&str]| Namespaces::of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["", " a", "b", "a "]), Namespaces(vec!["a".into(), "b".into()]));
        assert_eq!(of(&[""]), Namespaces::default());
    }

    #[test]
    fn there_is_one_first_list_with_what_changed_until_it_was_whole() {
        let mut world = World::of_two();
        assert!(world.listed(0, vec![object("a", "one", "1"), object("a", "two", "2")]).is_empty());
        assert!(world.hear(0, vec![Event::Delete(object("a", "one", "1")), Event::Apply(object("a", "three", "3"))]).is_empty());
        assert_eq!(world.listed(1, vec![object("b", "four", "4")]), ["init", "+two", "+three", "+four", "done"]);
        assert_eq!(world.hear(1, vec![Event::Apply(object("b", "five", "5"))]), ["+five"]);
        assert_eq!(world.stored(), ["five", "four", "three", "two"]);
    }

    #[test]
    fn a_first_list_that_breaks_off_begins_again() {
        let mut world = World::of_two();
        world.listed(0, vec![object("a", "one", "1")]);
        world.hear(0, vec![Event::Init, Event::InitApply(object("a", "two", "2"))]);
        assert!(world.listed(1, Vec::new()).is_empty(), "one of the two is being listed");
        assert_eq!(world.hear(0, vec![Event::InitDone]), ["init", "+two", "done"]);
    }

    #[test]
    fn a_namespace_listed_anew_takes_away_its_own_and_leaves_the_others() {
        let mut world = World::of_two();
        world.listed(0, vec![object("a", "one", "1"), object("a", "two", "2"), object("a", "three", "3")]);
        world.listed(1, vec![object("b", "four", "4")]);
        let mut told = world.listed(0, vec![object("a", "two", "2"), object("a", "three", "another")]);
        told.sort();
        assert_eq!(told, ["+three", "+two", "-one", "-three"]);
        assert_eq!(world.stored(), ["four", "three", "two"]);
    }
}
