//! How `trainer_state.json` is read: strict about `global_step`, lenient about all else, and without
//! ever holding more than the newest log entries. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::json::{Object, Scalar};
use super::{Point, TrainerState, cut, limits};

impl<'de> Deserialize<'de> for TrainerState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Raw::deserialize(deserializer)?;
        let global_step = raw.global_step.count();
        let callbacks = raw.stateful_callbacks.0.trainer_control.0.args.0;
        Ok(Self {
            global_step: global_step.ok_or_else(|| D::Error::custom("global_step is no count"))?,
            max_steps: raw.max_steps.count().filter(|max| *max > 0),
            epoch: raw.epoch.number(),
            num_train_epochs: raw.num_train_epochs.number(),
            num_input_tokens_seen: raw.num_input_tokens_seen.count(),
            should_training_stop: callbacks.should_training_stop.truth(),
            history: raw.log_history.0,
        })
    }
}

#[derive(Deserialize)]
struct Raw {
    global_step: Scalar,
    #[serde(default)]
    max_steps: Scalar,
    #[serde(default)]
    epoch: Scalar,
    #[serde(default)]
    num_train_epochs: Scalar,
    #[serde(default)]
    num_input_tokens_seen: Scalar,
    #[serde(default)]
    stateful_callbacks: Object<Callbacks>,
    #[serde(default)]
    log_history: History,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Callbacks {
    #[serde(rename = "TrainerControl")]
    trainer_control: Object<Control>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Control {
    args: Object<ControlArgs>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ControlArgs {
    should_training_stop: Scalar,
}

#[derive(Default)]
struct History(Vec<Point>);

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HistoryVisitor).map(Self)
    }
}

struct HistoryVisitor;

impl<'de> Visitor<'de> for HistoryVisitor {
    type Value = Vec<Point>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of log entries")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut points = Vec::new();
        while let Some(Object(Entry(entry))) = list.next_element()? {
            points.extend(entry);
            // Dropped in halves, so that a long log costs no more than a short one per entry.
            if points.len() >= 2 * limits::POINTS {
                points.drain(..limits::POINTS);
            }
        }
        points.drain(..points.len().saturating_sub(limits::POINTS));
        Ok(points)
    }
}

/// A log entry; nothing where it names no step.
#[derive(Default)]
struct Entry(Option<Point>);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a log entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut values = BTreeMap::new();
        let mut step = None;
        let mut epoch = None;
        while let Some(name) = map.next_key::<String>()? {
            if values.len() >= limits::METRICS {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: Scalar = map.next_value()?;
            match name.as_str() {
                "step" => step = value.count(),
                "epoch" => epoch = value.number(),
                _ if is_metric_name(&name) => {
                    values.insert(name, value);
                }
                _ => {}
            }
        }
        Ok(Entry(step.map(|step| point(step, epoch, values))))
    }
}

fn point(step: u64, epoch: Option<f64>, values: BTreeMap<String, Scalar>) -> Point {
    let mut point = Point { step, epoch, ..Point::default() };
    for (name, value) in values {
        match value.number() {
            Some(number) if number.is_finite() => {
                point.values.insert(name, number);
            }
            // What Python wrote as NaN arrives as null.
            None if value == Scalar::Null => {
                point.non_finite.insert(name);
            }
            _ => {}
        }
    }
    point
}

fn is_metric_name(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    plain && !name.is_empty() && cut(name, limits::METRIC_NAME) == name
}
