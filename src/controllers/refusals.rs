//! Writes beside an object that the API server refused: told once, tried again now and then, and at once when the object is edited.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt;

use super::runner::key;
use crate::cluster::Subject;

/// What was refused is tried again after this long, or when the object has been edited: what makes the server refuse it is not watched.
const AGAIN: Duration = Duration::from_secs(90);

/// What was refused, by object and by what it was.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<(String, &'static str), Refusal>>);

#[derive(Clone)]
struct Refusal {
    uid: Option<String>,
    generation: Option<i64>,
    message: String,
    at: Timestamp,
}

impl Refusals {
    /// Remembers that `what` beside `object` was refused, and returns whether that is news. Another figure in the same words is none.
    pub fn note<K: Subject>(&self, object: &K, what: &'static str, message: &str, at: Timestamp) -> bool {
        let generation = object.meta().generation;
        let is_same = |before: &Refusal| before.generation == generation && gist(&before.message) == gist(message);
        let told = self.of(object, what).filter(is_same);
        let is_news = told.is_none();
        let message = told.map_or_else(|| message.to_owned(), |told| told.message);
        let refusal = Refusal { uid: object.uid(), generation, message, at };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((key(object), what), refusal);
        is_news
    }

    /// Why `what` was refused, as long as it has not been taken since.
    pub fn why<K: Subject>(&self, object: &K, what: &'static str) -> Option<String> {
        self.of(object, what).map(|refusal| refusal.message)
    }

    /// How long `what` is not tried again.
    pub fn rest<K: Subject>(&self, object: &K, what: &'static str, now: Timestamp) -> Option<Duration> {
        let refusal = self.of(object, what).filter(|refusal| refusal.generation == object.meta().generation)?;
        let passed = Duration::try_from(now.duration_since(refusal.at)).unwrap_or_default();
        AGAIN.checked_sub(passed).filter(|rest| !rest.is_zero())
    }

    /// Forgets what is not refused, or not wanted, any more.
    pub fn forget<K: Subject>(&self, object: &K, what: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(key(object), what));
    }

    /// Forgets an object that is gone.
    pub fn forget_all(&self, gone: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(key, _), _| key != gone);
    }

    fn of<K: Subject>(&self, object: &K, what: &'static str) -> Option<Refusal> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(key(object), what)).filter(|refusal| refusal.uid == object.uid()).cloned()
    }
}

/// A message without its quantities, as in `used: memory=900Mi`: how much of a quota is used changes from one try to the next.
fn gist(message: &str) -> Vec<&str> {
    let of = |word: &'_ str| match word.split_once('=') {
        Some((name, quantity)) if quantity.starts_with(|first: char| first.is_ascii_digit()) => name.len(),
        _ => word.len(),
    };
    message.split([' ', ',']).map(|word| &word[..of(word)]).collect()
}

#[cfg(test)]
mod tests {
    use kube::Resource;

    use super::*;
    use crate::api::{ModelDeployment, ModelDeploymentSpec};

    #[test]
    fn figures_that_change_are_no_news() {
        let refusals = Refusals::default();
        let bot = ModelDeployment::new("bot", ModelDeploymentSpec::default());
        let message =
            |used: &str, of: &str| format!("exceeded quota: gpus, requested: {of}=1, used: {of}={used}, limited: {of}=2Gi");
        let note = |message: &str| refusals.note(&bot, "children", message, Timestamp::UNIX_EPOCH);
        assert!(note(&message("900Mi", "memory")) && !note(&message("1Gi", "memory")));
        assert_eq!(refusals.why(&bot, "children"), Some(message("900Mi", "memory")), "nor a reason to write a status again");
        assert!(note(&message("1Gi", "pods")), "what is missing is");
        assert!(note("deployments bot-step-100 is forbidden") && note("deployments bot-step-200 is forbidden"));
        let mut edited = bot.clone();
        edited.metadata.generation = Some(2);
        assert!(note(&message("1Gi", "memory")));
        assert!(
            refusals.note(&edited, "children", &message("2Gi", "memory"), Timestamp::UNIX_EPOCH),
            "what is asked for has changed"
        );
    }

    #[test]
    fn what_is_refused_is_told_once_and_rests_until_the_object_is_edited() {
        let (refusals, begin) = (Refusals::default(), Timestamp::UNIX_EPOCH);
        let mut bot = ModelDeployment::new("bot", ModelDeploymentSpec::default());
        bot.meta_mut().generation = Some(1);
        assert!(refusals.note(&bot, "replicas", "no", begin) && !refusals.note(&bot, "replicas", "no", begin));
        assert!(refusals.note(&bot, "replicas", "not at all", begin), "another reason is news");
        assert_eq!((refusals.why(&bot, "replicas").as_deref(), refusals.why(&bot, "other")), (Some("not at all"), None));
        let later = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(refusals.rest(&bot, "replicas", later(60)), Some(Duration::from_secs(30)));
        assert_eq!(refusals.rest(&bot, "replicas", later(90)), None);
        bot.meta_mut().generation = Some(2);
        assert_eq!(refusals.rest(&bot, "replicas", later(60)), None);
        bot.meta_mut().uid = Some("a namesake".into());
        assert_eq!(refusals.why(&bot, "replicas"), None);
        bot.meta_mut().uid = None;
        refusals.forget(&bot, "replicas");
        assert_eq!(refusals.why(&bot, "replicas"), None);
        refusals.note(&bot, "replicas", "no", begin);
        refusals.forget_all(&key(&bot));
        assert!(refusals.0.lock().unwrap().is_empty());
    }
}
