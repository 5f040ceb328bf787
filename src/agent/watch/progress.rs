//! How far the trainer is, from all it says and leaves: progress posts, its saved states, its own log
//! records, and what it prints. The newest step wins; among equals posts come before saved states, saved
//! states before log records, and those before printed lines. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::callback::Post;
use super::lines::Said;
use super::metric;
use crate::checkpoint_files::{Point, TrainerState, decimal};
use crate::protocol::ReportedProgress;

/// Most metrics told with the progress.
const MAX_METRICS: usize = 64;

/// All that is known of an attempt's progress.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    resumed_from: Option<i64>,
    posted: Said,
    state: Said,
    records: Said,
    printed: Said,
    bar: Option<Said>,
    planned_epochs: Option<f64>,
    time: Option<Timestamp>,
    ended: bool,
    saved_ended: bool,
}

impl Tracker {
    /// An attempt of which nothing is known but where it resumes.
    #[must_use]
    pub fn new(resumed_from: Option<i64>) -> Self {
        Self { resumed_from, ..Self::default() }
    }

    /// Takes where the attempt resumes, once that is known.
    pub const fn resume_from(&mut self, step: Option<i64>) {
        self.resumed_from = step;
    }

    /// Takes a progress post.
    pub fn post(&mut self, post: &Post, now: Timestamp) {
        absorb(&mut self.posted, &post.said);
        self.posted.remaining = post.said.remaining;
        self.ended |= post.is_last();
        self.time = Some(now);
    }

    /// Takes a state this attempt has saved.
    pub fn state(&mut self, state: &TrainerState, now: Timestamp) {
        let said = said_by(state);
        if said.step < self.state.step {
            return;
        }
        self.state = said;
        self.saved_ended = state.learned_end() || state.history.iter().any(Point::is_summary);
        self.planned_epochs = state.num_train_epochs.or(self.planned_epochs);
        self.time = Some(now);
    }

    /// Takes a record of the trainer's own log file.
    pub fn record(&mut self, said: &Said, now: Timestamp) {
        absorb(&mut self.records, said);
        self.time = Some(now);
    }

    /// Takes a printed dict of metrics.
    pub fn printed(&mut self, said: &Said, now: Timestamp) {
        absorb(&mut self.printed, said);
        // Printed once, when the training loop has come to its end.
        self.ended |= said.metrics.contains_key("train_runtime");
        self.time = Some(now);
    }

    /// Takes a progress bar. Evaluations draw bars too, so one of another length is believed only once
    /// the first is full, and none where the planned steps are known to differ.
    pub fn bar(&mut self, said: &Said, now: Timestamp) {
        let planned = self.total();
        let current = self.bar.as_ref();
        let same = current.is_none_or(|bar| bar.total == said.total);
        let full = current.is_some_and(|bar| bar.step == bar.total) && self.printed.metrics.is_empty();
        let fits = if planned.is_some() { planned == said.total } else { same || full };
        if fits && (same || full || planned.is_some()) {
            self.bar = Some(said.clone());
            self.time = Some(now);
        }
    }

    /// The sources that count steps themselves, newest first.
    fn counting(&self) -> [&Said; 3] {
        let mut sources = [&self.posted, &self.state, &self.records];
        sources.sort_by_key(|said| std::cmp::Reverse(said.step));
        sources
    }

    /// Steps done as this attempt's posts, saved states and records say; progress bars do not count.
    #[must_use]
    pub fn proven_step(&self) -> Option<i64> {
        self.counting().iter().find_map(|said| said.step)
    }

    /// Steps planned as this attempt's posts, saved states and records say.
    #[must_use]
    pub fn total(&self) -> Option<i64> {
        self.counting().iter().find_map(|said| said.total)
    }

    /// Steps done, as well as they are known.
    #[must_use]
    pub fn step(&self) -> Option<i64> {
        self.proven_step().max(self.bar.as_ref().and_then(|bar| bar.step))
    }

    /// Whether the trainer counts its steps in posts or records, so that printed lines add nothing.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.posted.step.is_some() || self.records.step.is_some()
    }

    /// Whether the trainer has said, or recorded in its newest state, that its training loop is over.
    #[must_use]
    pub fn recorded_end(&self) -> bool {
        self.ended || (self.saved_ended && self.state.step >= self.proven_step())
    }

    /// The progress as it is reported; nothing before the trainer's first word.
    #[must_use]
    pub fn reported(&self) -> Option<ReportedProgress> {
        let time = self.time?;
        let quiet = Said::default();
        let [first, second, third] = self.counting();
        let sources = [first, second, third, &self.printed, self.bar.as_ref().unwrap_or(&quiet)];
        let total_steps = sources.iter().find_map(|said| said.total);
        Some(ReportedProgress {
            step: self.step().max(self.resumed_from).unwrap_or_default(),
            total_steps,
            epoch: sources.iter().find_map(|said| said.epoch).map(decimal),
            total_epochs: self.planned_epochs.map(decimal),
            trained_tokens: sources.iter().find_map(|said| said.tokens),
            estimated_remaining_seconds: sources.iter().find_map(|said| said.remaining),
            metrics: metrics(&sources),
            time: Some(time),
        })
    }
}

/// The newest value of each metric; where there are too many, the ones people look at.
fn metrics(sources: &[&Said]) -> BTreeMap<String, String> {
    let mut newest = BTreeMap::new();
    for said in sources {
        for name in &said.non_finite {
            newest.entry(name.as_str()).or_insert(None);
        }
        for (name, value) in &said.metrics {
            newest.entry(name.as_str()).or_insert(Some(*value));
        }
    }
    let mut known: Vec<_> = newest.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    known.sort_by_key(|(name, _)| metric::rank(name));
    known.truncate(MAX_METRICS);
    known.into_iter().map(|(name, value)| (name.to_owned(), decimal(value))).collect()
}

/// Lays newer words over older ones.
fn absorb(known: &mut Said, newer: &Said) {
    known.step = newer.step.or(known.step);
    known.total = newer.total.or(known.total);
    known.epoch = newer.epoch.or(known.epoch);
    known.tokens = newer.tokens.or(known.tokens);
    known.remaining = newer.remaining.or(known.remaining);
    known.metrics.retain(|name, _| !newer.non_finite.contains(name));
    known.non_finite.retain(|name| !newer.metrics.contains_key(name));
    for (name, value) in &newer.metrics {
        known.take(name, *value);
    }
    for name in &newer.non_finite {
        known.take(name, f64::NAN);
    }
}

fn said_by(state: &TrainerState) -> Said {
    let steps = |count: u64| i64::try_from(count).ok();
    let numbers = state.metrics_at(state.global_step);
    let mut said =
        Said { step: steps(state.global_step), total: state.max_steps.and_then(steps), epoch: state.epoch, ..Said::default() };
    for (name, value) in &numbers {
        if let Ok(number) = value.parse() {
            said.take(name, number);
        }
    }
    let newest_loss =
        state.history.iter().rev().find(|point| point.values.contains_key("loss") || point.non_finite.contains("loss"));
    if newest_loss.is_some_and(|point| point.non_finite.contains("loss")) {
        said.take("loss", f64::NAN);
        said.metrics.remove("loss");
    }
    let counted = state.num_input_tokens_seen.filter(|count| *count > 0).and_then(steps);
    let logged = said.metrics.get("num_tokens").and_then(|number| super::lines::count(number.round()));
    said.tokens = counted.max(logged);
    said
}

#[cfg(test)]
mod tests {
    use super::super::{callback, lines};
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn post(percent: u8, metrics: &[(&str, &str)]) -> Post {
        let metrics: Vec<_> = metrics.iter().map(|(name, value)| serde_json::json!({"name": name, "value": value})).collect();
        let body = serde_json::json!({"trainerStatus": {"progressPercentage": percent,
            "estimatedRemainingSeconds": 0, "metrics": metrics, "lastUpdatedTime": "2026-01-01T00:00:00Z"}});
        callback::parse(body.to_string().as_bytes()).unwrap()
    }

    fn state(json: &str) -> TrainerState {
        TrainerState::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn nothing_is_reported_before_the_first_word() {
        assert_eq!(Tracker::new(Some(40)).reported(), None);
    }

    #[test]
    fn the_first_post_tells_the_plan_and_a_resumed_run_begins_where_it_resumed() {
        let mut tracker = Tracker::new(Some(40));
        tracker.post(&post(0, &[("total_steps", "100")]), NOW);
        let progress = tracker.reported().unwrap();
        assert_eq!((progress.step, progress.total_steps), (40, Some(100)));
        assert_eq!(tracker.proven_step(), None);
    }

    #[test]
    fn a_hundred_percent_moves_no_step() {
        let mut tracker = Tracker::default();
        tracker.post(&post(40, &[("current_step", "40"), ("total_steps", "100")]), NOW);
        tracker.post(&post(100, &[("current_step", "40"), ("total_steps", "100")]), NOW);
        assert_eq!((tracker.step(), tracker.total()), (Some(40), Some(100)));
        assert!(tracker.recorded_end());
    }

    #[test]
    fn the_newest_step_wins_and_posts_win_among_equals() {
        let mut tracker = Tracker::default();
        tracker.post(&post(1, &[("current_step", "10"), ("total_steps", "90"), ("loss", "3")]), NOW);
        tracker.state(
            &state(
                r#"{"global_step":10,"max_steps":90,"epoch":0.1,"num_train_epochs":3,
            "log_history":[{"step":10,"loss":9,"eval_loss":4}]}"#,
            ),
            NOW,
        );
        let progress = tracker.reported().unwrap();
        assert_eq!(progress.metrics["loss"], "3");
        assert_eq!(progress.metrics["eval_loss"], "4");
        assert_eq!((progress.epoch.as_deref(), progress.total_epochs.as_deref()), (Some("0.1"), Some("3")));
        tracker.state(&state(r#"{"global_step":20,"max_steps":90,"log_history":[{"step":20,"loss":2}]}"#), NOW);
        let progress = tracker.reported().unwrap();
        assert_eq!((progress.step, progress.metrics["loss"].as_str()), (20, "2"));
    }

    #[test]
    fn an_old_image_is_followed_by_bar_and_printed_dicts() {
        let mut tracker = Tracker::default();
        tracker.bar(&lines::bar("  5%|▌ | 5/100 [00:10<03:10, 2s/it]").unwrap(), NOW);
        tracker.printed(&lines::python_dict("{'loss': 1.5, 'epoch': 0.05}").unwrap(), NOW);
        tracker.bar(&lines::bar(" 50%|▌ | 2/4 [00:10<00:10, 2s/it]").unwrap(), NOW);
        let progress = tracker.reported().unwrap();
        assert_eq!((progress.step, progress.total_steps), (5, Some(100)));
        assert_eq!((progress.estimated_remaining_seconds, progress.epoch.as_deref()), (Some(190), Some("0.05")));
        assert_eq!(tracker.proven_step(), None);
        assert!(!tracker.recorded_end());
        tracker.printed(&lines::python_dict("{'train_runtime': 10.0, 'train_loss': 1.0, 'epoch': 1.0}").unwrap(), NOW);
        assert!(tracker.recorded_end());
    }

    #[test]
    fn a_loss_that_is_not_a_number_is_not_shown() {
        let mut tracker = Tracker::default();
        tracker.post(&post(1, &[("current_step", "7"), ("loss", "1")]), NOW);
        tracker.post(&post(1, &[("current_step", "8"), ("loss", "nan")]), NOW);
        assert!(!tracker.reported().unwrap().metrics.contains_key("loss"));
    }

    #[test]
    fn a_decision_to_stop_counts_only_in_the_newest_state() {
        let stopped = |step: u32| {
            state(&format!(
                r#"{{"global_step":{step},"max_steps":100,"stateful_callbacks":{{"TrainerControl":{{"args":{{"should_training_stop":true}}}}}}}}"#
            ))
        };
        let mut tracker = Tracker::default();
        tracker.state(&stopped(40), NOW);
        assert!(tracker.recorded_end());
        tracker.post(&post(50, &[("current_step", "50"), ("total_steps", "100")]), NOW);
        assert!(!tracker.recorded_end());
        tracker.state(&stopped(50), NOW);
        assert!(tracker.recorded_end());
    }
}
