//! The whole metric history of a lineage, and its downsampled form. What saved states record replaces
//! what was only sampled from progress posts. Pure; the file is written by [`super::disk`].

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::metric;
use crate::api::Series;
use crate::checkpoint_files::{Point, TrainerState, decimal};

/// Most steps kept; beyond it every second one without an evaluation goes.
const MAX_STEPS: usize = 50_000;
/// Most series that are shown.
const MAX_SERIES: usize = 64;
/// Points an evaluation keeps while others are thinned.
const EVAL_POINTS: usize = 64;
/// Longest text of a value.
const MAX_VALUE: usize = 32;

#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    epoch: Option<f64>,
    values: BTreeMap<String, f64>,
}

/// Metrics by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    recorded: BTreeMap<i64, Entry>,
    sampled: BTreeMap<i64, Entry>,
    /// The step of the newest saved state: what lies before it is told.
    saved: i64,
}

impl History {
    /// Reads a history file; lines that are damaged are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut history = Self::default();
        for line in text.lines() {
            let Ok(Value::Object(record)) = serde_json::from_str(line) else { continue };
            let Some(step) = record.get("step").and_then(Value::as_i64) else { continue };
            let entry = history.recorded.entry(step).or_default();
            entry.epoch = record.get("epoch").and_then(Value::as_f64).or(entry.epoch);
            let numbers = record.iter().filter(|(name, _)| !matches!(name.as_str(), "step" | "epoch"));
            let numbers = numbers.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
            entry.values.extend(numbers);
        }
        history.bound();
        history
    }

    /// The history as a file: one JSON object a step.
    #[must_use]
    pub fn to_lines(&self) -> String {
        let mut text = String::new();
        for (step, entry) in self.merged() {
            let mut record = Map::new();
            record.insert("step".to_owned(), step.into());
            entry.epoch.and_then(|epoch| record.insert("epoch".to_owned(), epoch.into()));
            record.extend(entry.values.into_iter().map(|(name, value)| (name, value.into())));
            text.push_str(&Value::Object(record).to_string());
            text.push('\n');
        }
        text
    }

    /// Forgets what lies beyond the step an attempt resumes from: it will be trained again. Says whether there was anything.
    pub fn resume_from(&mut self, step: i64) -> bool {
        let newest = self.recorded.keys().chain(self.sampled.keys()).max().copied();
        self.recorded.retain(|at, _| *at <= step);
        self.sampled.retain(|at, _| *at <= step);
        self.saved = self.saved.min(step);
        newest > Some(step)
    }

    /// Takes the log of a saved state: it is what counts up to its step.
    pub fn record(&mut self, state: &TrainerState) {
        let Ok(saved) = i64::try_from(state.global_step) else { return };
        self.sampled.retain(|at, _| *at > saved);
        self.saved = self.saved.max(saved);
        let oldest = state.history.first().and_then(|point| i64::try_from(point.step).ok());
        if let Some(oldest) = oldest {
            self.recorded.retain(|at, _| *at < oldest || *at > saved);
        }
        for point in &state.history {
            if let Ok(step) = i64::try_from(point.step) {
                self.recorded.entry(step).or_default().add(point);
            }
        }
        self.bound();
    }

    /// Takes what was logged at a step, until a saved state tells the same; what comes after that state, as the post at the end of training may,
    /// is known by then. Says whether an evaluation was among it.
    pub fn sample(&mut self, step: i64, epoch: Option<f64>, metrics: &BTreeMap<String, f64>) -> bool {
        if !metrics.is_empty() && step >= self.saved {
            let entry = self.sampled.entry(step).or_default();
            entry.epoch = epoch.or(entry.epoch);
            entry.values.extend(metrics.iter().map(|(name, value)| (name.clone(), *value)));
            self.bound();
        }
        metrics.keys().any(|name| metric::is_eval(name))
    }

    fn merged(&self) -> BTreeMap<i64, Entry> {
        let mut merged = self.sampled.clone();
        for (step, entry) in &self.recorded {
            let into = merged.entry(*step).or_default();
            into.epoch = entry.epoch.or(into.epoch);
            into.values.extend(entry.values.iter().map(|(name, value)| (name.clone(), *value)));
        }
        merged
    }

    fn bound(&mut self) {
        for steps in [&mut self.recorded, &mut self.sampled] {
            if steps.len() > MAX_STEPS {
                let mut odd = false;
                steps.retain(|_, entry| {
                    odd = !odd;
                    odd || entry.values.keys().any(|name| metric::is_eval(name))
                });
            }
            while steps.len() > MAX_STEPS {
                steps.pop_first();
            }
        }
    }

    /// At most 64 series of at most `max_points` points, together at most `max_bytes` as JSON: the ones
    /// people look at first, each with its first, last, smallest and greatest values.
    #[must_use]
    pub fn downsampled(&self, max_points: usize, max_bytes: usize) -> Vec<Series> {
        let mut by_name: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
        for (step, entry) in self.merged() {
            for (name, value) in entry.values {
                by_name.entry(name).or_default().push((step, value));
            }
        }
        let mut names: Vec<_> = by_name.iter().collect();
        names.sort_by_key(|(name, _)| (metric::rank(name), name.as_str()));
        names.truncate(MAX_SERIES);
        let mut points = max_points;
        loop {
            let thin = |(name, all): &(&String, &Vec<(i64, f64)>)| {
                let roomy = metric::is_eval(name) && points >= EVAL_POINTS / 4;
                series(name, all, if roomy { points.max(EVAL_POINTS).min(max_points) } else { points })
            };
            let all: Vec<_> = names.iter().map(thin).collect();
            let size = serde_json::to_vec(&all).map_or(usize::MAX, |json| json.len());
            if size <= max_bytes || names.is_empty() {
                return all;
            }
            if points > 4 {
                points = (points * 3 / 4).max(4);
            } else {
                names.pop();
            }
        }
    }
}

impl Entry {
    fn add(&mut self, point: &Point) {
        self.epoch = point.epoch.or(self.epoch);
        self.values.extend(point.values.iter().map(|(name, value)| (name.clone(), *value)));
    }
}

fn series(name: &str, all: &[(i64, f64)], limit: usize) -> Series {
    let kept = thinned(all, limit);
    Series {
        name: name.to_owned(),
        steps: kept.iter().map(|(step, _)| *step).collect(),
        values: kept.iter().map(|(_, value)| rounded(*value)).collect(),
    }
}

/// At most `limit` points (at least the first and the last): of each stretch in between, the smallest
/// and the greatest.
fn thinned(all: &[(i64, f64)], limit: usize) -> Vec<(i64, f64)> {
    let ([first, middle @ .., last], true) = (all, all.len() > limit) else { return all.to_vec() };
    let buckets = limit.saturating_sub(2) / 2;
    let mut kept = vec![*first];
    if let Some(size) = middle.len().checked_div(buckets) {
        let size = if middle.len().is_multiple_of(buckets) { size } else { size + 1 };
        for bucket in middle.chunks(size.max(1)) {
            let low = bucket.iter().min_by(|a, b| a.1.total_cmp(&b.1));
            let high = bucket.iter().max_by(|a, b| a.1.total_cmp(&b.1));
            let mut ends: Vec<_> = low.into_iter().chain(high).copied().collect();
            ends.sort_by_key(|(step, _)| *step);
            ends.dedup_by_key(|(step, _)| *step);
            kept.extend(ends);
        }
    }
    kept.push(*last);
    kept
}

/// Six significant digits: what a chart can show.
fn rounded(value: f64) -> String {
    let text = decimal(format!("{value:.5e}").parse().unwrap_or(value));
    if text.len() > MAX_VALUE { format!("{value:.5e}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(json: &str) -> TrainerState {
        TrainerState::parse(json.as_bytes()).unwrap()
    }

    fn loss(value: f64) -> BTreeMap<String, f64> {
        BTreeMap::from([("loss".to_owned(), value)])
    }

    #[test]
    fn saved_states_replace_samples_and_train_and_eval_share_a_step() {
        let mut history = History::default();
        history.sample(9, Some(0.1), &loss(7.0));
        history.sample(12, None, &loss(6.0));
        history
            .record(&state(r#"{"global_step":10,"log_history":[{"step":10,"loss":5,"epoch":0.2},{"step":10,"eval_loss":4}]}"#));
        let lines = history.to_lines();
        assert_eq!(lines, "{\"epoch\":0.2,\"eval_loss\":4.0,\"loss\":5.0,\"step\":10}\n{\"loss\":6.0,\"step\":12}\n");
        assert_eq!(History::parse(&lines).to_lines(), lines);
    }

    #[test]
    fn points_beyond_the_step_resumed_from_are_replaced() {
        let mut history = History::parse("{\"step\":10,\"loss\":1}\nbroken\n{\"step\":20,\"loss\":2}\n");
        history.resume_from(10);
        history.sample(20, None, &loss(3.0));
        let series = history.downsampled(10, 10_000);
        assert_eq!(
            (series[0].steps.as_slice(), series[0].values.as_slice()),
            (&[10, 20][..], &["1".to_owned(), "3".to_owned()][..])
        );
    }

    #[test]
    fn a_sample_that_comes_after_the_state_that_tells_it_adds_no_point() {
        let mut history = History::default();
        history.record(&state(r#"{"global_step":20,"log_history":[{"step":10,"loss":5},{"step":20,"loss":4}]}"#));
        // The post at the end of training tells the values of step 20, and not that they are of step 20.
        history.sample(19, None, &loss(4.0));
        history.sample(21, None, &loss(3.0));
        assert_eq!(history.downsampled(10, 10_000)[0].steps, [10, 20, 21]);
        history.resume_from(10);
        history.sample(15, None, &loss(4.5));
        assert_eq!(history.downsampled(10, 10_000)[0].steps, [10, 15]);
    }

    #[test]
    fn a_state_of_another_attempt_drops_what_it_does_not_know() {
        let mut history = History::parse("{\"step\":10,\"loss\":1}\n{\"step\":15,\"loss\":2}\n");
        history.record(&state(r#"{"global_step":20,"log_history":[{"step":10,"loss":1},{"step":20,"loss":3}]}"#));
        assert_eq!(history.downsampled(10, 10_000)[0].steps, [10, 20]);
    }

    #[test]
    fn downsampling_keeps_first_last_and_extremes_within_the_bytes() {
        let mut history = History::default();
        for step in 0..5000_i64 {
            let value = if step == 2500 { 99.0 } else { 1.0 + f64::from(i32::try_from(step).unwrap()) * 1e-4 };
            let mut metrics = loss(value);
            for other in 0..70 {
                metrics.insert(format!("other_{other}"), value + f64::from(other));
            }
            if step % 100 == 0 {
                metrics.insert("eval_loss".to_owned(), value);
            }
            history.sample(step, None, &metrics);
        }
        let series = history.downsampled(1000, 40 << 10);
        assert!(serde_json::to_vec(&series).unwrap().len() <= 40 << 10);
        assert!(series.len() <= MAX_SERIES);
        let find = |name: &str| series.iter().find(|series| series.name == name).unwrap();
        let loss = find("loss");
        assert_eq!((loss.steps.first(), loss.steps.last()), (Some(&0), Some(&4999)));
        assert!(loss.steps.contains(&2500));
        assert!(loss.steps.is_sorted());
        assert!(find("eval_loss").steps.len() >= loss.steps.len().min(50));
        assert!(History::default().downsampled(10, 10).is_empty());
    }

    #[test]
    fn values_are_short_decimals() {
        assert_eq!(rounded(0.300_000_000_000_04), "0.3");
        assert_eq!(rounded(2e-5), "0.00002");
        assert!(rounded(1.234_567e-300).len() <= MAX_VALUE);
        assert!(rounded(-1.234_567e300).len() <= MAX_VALUE);
    }

    #[test]
    fn thinning_never_exceeds_its_limit() {
        let all: Vec<_> = (0..1000).map(|step| (step, f64::from(i32::try_from(step % 17).unwrap()))).collect();
        for limit in [2, 3, 4, 5, 10, 99, 500, 999, 1000, 2000] {
            let kept = thinned(&all, limit);
            assert!(kept.len() <= limit.max(2), "{limit}: {}", kept.len());
            assert_eq!((kept.first(), kept.last()), (all.first(), all.last()));
        }
        assert!(thinned(&[], 5).is_empty());
    }
}
