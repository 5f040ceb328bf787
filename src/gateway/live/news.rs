//! What a stream tells, and how it follows from what a watch says. Pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use crate::gateway::errors::{Kind, Refusal};

/// Which objects news are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The runs of a project.
    Runs,
    /// The one run a stream is of.
    Run,
    /// Its checkpoints.
    Checkpoints,
    /// Its history.
    History,
    /// What serves its checkpoints.
    Deployments,
}

impl Section {
    /// Its name in news.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Run => "run",
            Self::Checkpoints => "checkpoints",
            Self::History => "history",
            Self::Deployments => "deployments",
        }
    }

    /// Whether there is nothing to tell without it.
    const fn is_main(self) -> bool {
        matches!(self, Self::Runs | Self::Run)
    }
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The run is gone.
    Gone,
    /// The key is not good any more.
    Unauthorized,
    /// The caller may not see it any more.
    Forbidden,
    /// It has lasted long enough: whoever asks again goes on.
    Renew,
    /// The gateway stops: another one answers.
    Stopping,
}

impl Why {
    const fn word(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Renew => "renew",
            Self::Stopping => "stopping",
        }
    }
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// All objects of a section, in place of what was told of it before.
    Snapshot(Section, Vec<Value>),
    /// One object, new or as it is now.
    Change(Section, Value),
    /// The object of that name is not of this section any more.
    Gone(Section, String),
    /// The caller may not see a section; nothing more is told of it.
    Denied(Section, String),
    /// The cluster does not answer just now; what was told may be behind until a snapshot comes.
    Behind(Section, String),
    /// Nothing more comes.
    End(Why),
}

impl News {
    /// Its name, and what it says.
    #[must_use]
    pub fn told(&self) -> (&'static str, Value) {
        match self {
            Self::Snapshot(section, items) => ("snapshot", json!({"section": section.name(), "items": items})),
            Self::Change(section, item) => ("change", json!({"section": section.name(), "item": item})),
            Self::Gone(section, name) => ("gone", json!({"section": section.name(), "name": name})),
            Self::Denied(section, message) => ("denied", json!({"section": section.name(), "message": message})),
            Self::Behind(section, message) => ("behind", json!({"section": section.name(), "message": message})),
            Self::End(why) => ("end", json!({"reason": why.word()})),
        }
    }
}

/// What is shown of an object, and its rank among the others of its section.
pub type Shown = ((i64, i64), Value);

/// Turns what a watch says of one section into news. It keeps no object but those of a snapshot that is not told yet, and of these the highest.
pub struct Follower<K> {
    section: Section,
    most: usize,
    show: Box<dyn Fn(K) -> Option<Shown> + Send>,
    gathered: BTreeMap<((i64, i64), String), Value>,
}

impl<K: ResourceExt> Follower<K> {
    /// Tells of at most `most` objects at once, and of those that `show` shows.
    #[must_use]
    pub fn new(section: Section, most: usize, show: impl Fn(K) -> Option<Shown> + Send + 'static) -> Self {
        Self { section, most, show: Box::new(show), gathered: BTreeMap::new() }
    }

    /// What there is to tell now.
    pub fn hear(&mut self, said: Result<Event<K>, Refusal>) -> Option<News> {
        match said {
            Ok(Event::Init) => {
                self.gathered.clear();
                None
            }
            Ok(Event::InitApply(object)) => {
                self.gather(object);
                None
            }
            Ok(Event::InitDone) => Some(self.snapshot()),
            Ok(Event::Apply(object)) => {
                let name = object.name_any();
                let shown = (self.show)(object);
                Some(shown.map_or_else(|| self.gone(name), |(_, item)| News::Change(self.section, item)))
            }
            Ok(Event::Delete(object)) => Some(self.gone(object.name_any())),
            Err(refusal) => Some(self.refused(refusal)),
        }
    }

    fn gather(&mut self, object: K) {
        let name = object.name_any();
        let Some((rank, item)) = (self.show)(object) else { return };
        self.gathered.insert((rank, name), item);
        if self.gathered.len() > self.most {
            self.gathered.pop_first();
        }
    }

    fn snapshot(&mut self) -> News {
        let items: Vec<Value> = std::mem::take(&mut self.gathered).into_values().collect();
        if self.section == Section::Run && items.is_empty() { News::End(Why::Gone) } else { News::Snapshot(self.section, items) }
    }

    fn gone(&self, name: String) -> News {
        if self.section == Section::Run { News::End(Why::Gone) } else { News::Gone(self.section, name) }
    }

    fn refused(&self, refusal: Refusal) -> News {
        match refusal.kind {
            Kind::Unauthorized => News::End(Why::Unauthorized),
            Kind::Forbidden if self.section.is_main() => News::End(Why::Forbidden),
            Kind::Forbidden => News::Denied(self.section, refusal.message),
            _ => News::Behind(self.section, refusal.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixtures::deployment;
    use crate::gateway::identity::Scope;

    type Follows = Follower<crate::api::ModelDeployment>;

    /// Shows the steps above 100.
    fn follower(section: Section) -> Follows {
        Follower::new(section, 2, |object: crate::api::ModelDeployment| {
            let step: i64 = object.name_any().rsplit('-').next()?.parse().ok()?;
            (step > 100).then(|| ((0, step), json!(step)))
        })
    }

    fn of(step: i64) -> crate::api::ModelDeployment {
        deployment(step, "Ready")
    }

    #[test]
    fn what_is_there_comes_at_once_the_highest_only_and_then_what_changes() {
        let mut follower = follower(Section::Deployments);
        let early = [
            Event::Init,
            Event::InitApply(of(300)),
            Event::InitApply(of(50)),
            Event::InitApply(of(200)),
            Event::InitApply(of(400)),
        ];
        for event in early {
            assert_eq!(follower.hear(Ok(event)), None);
        }
        let snapshot = News::Snapshot(Section::Deployments, vec![json!(300), json!(400)]);
        assert_eq!(follower.hear(Ok(Event::InitDone)), Some(snapshot));
        assert!(follower.gathered.is_empty());
        assert_eq!(follower.hear(Ok(Event::Apply(of(500)))), Some(News::Change(Section::Deployments, json!(500))));
        let gone = |name: &str| Some(News::Gone(Section::Deployments, name.into()));
        assert_eq!(follower.hear(Ok(Event::Apply(of(50)))), gone("bot-step-50"), "it may have been shown before");
        assert_eq!(follower.hear(Ok(Event::Delete(of(300)))), gone("bot-step-300"));
    }

    #[test]
    fn a_watch_that_begins_again_begins_with_nothing() {
        let mut follower = follower(Section::Deployments);
        for event in [Event::Init, Event::InitApply(of(300)), Event::Init] {
            follower.hear(Ok(event));
        }
        assert_eq!(follower.hear(Ok(Event::InitDone)), Some(News::Snapshot(Section::Deployments, vec![])));
    }

    #[test]
    fn a_run_that_goes_ends_its_stream_however_that_is_seen() {
        for event in [Event::Delete(of(300)), Event::Apply(of(50)), Event::InitDone] {
            assert_eq!(follower(Section::Run).hear(Ok(event)), Some(News::End(Why::Gone)));
        }
    }

    #[test]
    fn a_section_one_may_not_see_is_told_and_the_rest_goes_on() {
        let said = |section, refusal| follower(section).hear(Err(refusal)).unwrap();
        let missing = || Refusal::missing(Scope::Read, Some("team"));
        assert!(
            matches!(said(Section::History, missing()), News::Denied(Section::History, why) if why.contains("fine-tuning:read"))
        );
        assert_eq!(said(Section::Run, missing()), News::End(Why::Forbidden));
        assert_eq!(said(Section::History, Refusal::unauthorized("x")), News::End(Why::Unauthorized));
        assert!(matches!(said(Section::Run, Refusal::unavailable()), News::Behind(Section::Run, _)));
    }

    #[test]
    fn news_have_a_name_and_say_of_what_they_are() {
        let (name, said) = News::Snapshot(Section::Run, vec![json!(1)]).told();
        assert_eq!((name, said), ("snapshot", json!({"section": "run", "items": [1]})));
        assert_eq!(News::End(Why::Renew).told(), ("end", json!({"reason": "renew"})));
    }
}
