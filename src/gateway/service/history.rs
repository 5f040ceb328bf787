//! What a run has left to read, put in order: points by step, and events. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use super::{ids, parameters};
use crate::api::{FineTune, FineTuneHistory};

/// Metrics at one step, by the trainer's names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// The step.
    pub step: i64,
    /// Numbers by name; null where the trainer gave none.
    pub metrics: BTreeMap<String, Value>,
}

/// All points of a run, by step.
#[must_use]
pub fn points(history: Option<&FineTuneHistory>) -> Vec<Point> {
    let mut by_step: BTreeMap<i64, BTreeMap<String, Value>> = BTreeMap::new();
    for series in history.iter().flat_map(|history| &history.spec.series) {
        for (step, value) in series.steps.iter().zip(&series.values) {
            by_step.entry(*step).or_default().insert(series.name.clone(), parameters::number(value));
        }
    }
    by_step.into_iter().map(|(step, metrics)| Point { step, metrics }).collect()
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Stays the same as long as the event is there.
    pub id: String,
    /// When.
    pub time: Option<Timestamp>,
    /// info, warn or error.
    pub level: String,
    /// In CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What happened to a run, newest first; its creation is the oldest.
#[must_use]
pub fn events(run: &FineTune, history: Option<&FineTuneHistory>) -> Vec<Event> {
    let (name, uid) = (run.name_any(), run.uid().unwrap_or_default());
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut event = |time: Option<Timestamp>, level: &str, reason: &str, message: &str| {
        let at = time.map_or_else(String::new, |time| time.to_string());
        let same = ids::hash(&[&uid, &at, reason, message], 20);
        let count = seen.entry(same.clone()).or_default();
        *count += 1;
        let id = if *count == 1 { format!("ftevent-{same}") } else { format!("ftevent-{same}-{count}") };
        Event { id, time, level: level.to_owned(), reason: reason.to_owned(), message: message.to_owned() }
    };
    let created = run.creation_timestamp().map(|time| time.0);
    let mut events = vec![event(created, "info", "Created", &format!("Created fine-tuning job: {}", ids::run_id(&name)))];
    for said in history.iter().flat_map(|history| &history.spec.events) {
        events.push(event(said.time.as_ref().map(|time| time.0), &said.level, &said.reason, &said.message));
    }
    events.reverse();
    events
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn history() -> FineTuneHistory {
        serde_json::from_value(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneHistory", "metadata": {"name": "bot"},
            "spec": {
                "series": [
                    {"name": "loss", "steps": [100, 200], "values": ["0.85", "nan"]},
                    {"name": "eval_loss", "steps": [200], "values": ["0.62"]},
                ],
                "events": [
                    {"time": "2027-01-15T07:00:00Z", "level": "info", "reason": "Started", "message": "x"},
                    {"time": "2027-01-15T07:00:00Z", "level": "info", "reason": "Started", "message": "x"},
                ],
            },
        }))
        .unwrap()
    }

    #[test]
    fn series_become_points_and_what_is_no_number_is_null() {
        let points = points(Some(&history()));
        assert_eq!(points.iter().map(|point| point.step).collect::<Vec<_>>(), [100, 200]);
        assert_eq!(points[1].metrics, [("loss".to_owned(), Value::Null), ("eval_loss".to_owned(), json!(0.62))].into());
        assert!(super::points(None).is_empty());
    }

    #[test]
    fn events_are_newest_first_and_each_has_an_id_of_its_own() {
        let events = events(&FineTune::default(), Some(&history()));
        let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).collect();
        assert_eq!(reasons, ["Started", "Started", "Created"]);
        assert_ne!(events[0].id, events[1].id);
    }
}
