//! What Hugging Face's `trainer_state.json` says: progress, metric history and whether training has
//! ended. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::{FileSystem, Reason, RelPath, json, limits};

/// The state a trainer saves with every checkpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainerState {
    /// The optimizer steps done.
    pub global_step: u64,
    /// The optimizer steps planned; none where the trainer does not say or says no positive number.
    pub max_steps: Option<u64>,
    /// The epochs done, with a fraction.
    pub epoch: Option<f64>,
    /// The epochs planned.
    pub num_train_epochs: Option<f64>,
    /// The input tokens seen; many trainers leave it at 0.
    pub num_input_tokens_seen: Option<u64>,
    /// Whether the trainer had decided to stop when it saved.
    pub should_training_stop: Option<bool>,
    /// The log, oldest first; only the newest [`limits::POINTS`] entries.
    pub history: Vec<Point>,
}

/// One entry of a trainer's log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point {
    /// The step it was logged at.
    pub step: u64,
    /// The epoch it was logged at.
    pub epoch: Option<f64>,
    /// The finite values by name.
    pub values: BTreeMap<String, f64>,
    /// The names whose value was not a finite number: a diverged run shows `loss` here.
    pub non_finite: BTreeSet<String>,
}

impl Point {
    fn has(&self, test: impl Fn(&str) -> bool) -> bool {
        self.values.keys().chain(&self.non_finite).any(|name| test(name))
    }

    /// Whether this is the result of an evaluation.
    #[must_use]
    pub fn is_eval(&self) -> bool {
        self.has(|name| name.starts_with("eval_"))
    }

    /// Whether this is the summary a trainer logs once, at the very end.
    #[must_use]
    pub fn is_summary(&self) -> bool {
        self.has(|name| name == "train_runtime" || name == "train_loss")
    }

    /// Whether this was logged by a training step.
    #[must_use]
    pub fn is_train(&self) -> bool {
        !self.is_eval() && !self.is_summary() && self.has(|_| true)
    }
}

impl TrainerState {
    /// Parses a state as Python writes it, with `NaN` and `Infinity`.
    ///
    /// # Errors
    /// When it is not a JSON object with a `global_step`.
    pub fn parse(source: impl Read) -> serde_json::Result<Self> {
        json::parse(source)
    }

    /// Parses a state file of at most [`limits::TRAINER_STATE_BYTES`].
    ///
    /// # Errors
    /// The reason it cannot be used, naming the file.
    pub fn read<F: FileSystem + ?Sized>(fs: &F, path: &RelPath) -> Result<Self, Reason> {
        let found = fs.metadata(path).map_err(|error| Reason::of_error(path, &error))?;
        json::parse_file(fs, path, found.size, limits::TRAINER_STATE_BYTES)
    }

    /// The metrics that belong to the checkpoint of `step`: those of the newest training entry and the
    /// newest evaluation up to it, as decimal strings. What was not finite is left out, never replaced
    /// by an older value.
    #[must_use]
    pub fn metrics_at(&self, step: u64) -> BTreeMap<String, String> {
        let with_loss = |point: &Point| point.is_train() && point.has(|name| name == "loss");
        let train = self.newest(step, with_loss).or_else(|| self.newest(step, Point::is_train));
        let eval = self.newest(step, Point::is_eval);
        let mut metrics = BTreeMap::new();
        for point in &self.history {
            let of_train = Some(point.step) == train && point.is_train();
            let of_eval = Some(point.step) == eval && point.is_eval();
            if of_train || of_eval {
                point.non_finite.iter().for_each(|name| {
                    metrics.remove(name);
                });
                metrics.extend(point.values.iter().map(|(k, v)| (k.clone(), decimal(*v))));
            }
        }
        while metrics.len() > limits::METRICS {
            metrics.pop_last();
        }
        metrics
    }

    /// The greatest step up to `step` of an entry that passes `test`.
    fn newest(&self, step: u64, test: impl Fn(&Point) -> bool) -> Option<u64> {
        let fits = |point: &&Point| point.step <= step && test(point);
        self.history.iter().filter(fits).map(|point| point.step).max()
    }

    /// Whether the state records an end of training: all planned steps done, or the decision to stop.
    #[must_use]
    pub fn learned_end(&self) -> bool {
        let all_done = self.max_steps.is_some_and(|max| self.global_step >= max);
        all_done || self.should_training_stop == Some(true)
    }
}

/// A finite number as the shortest decimal text that reads back as the same number. Numbers that would
/// need more than 40 characters are written with an exponent.
#[must_use]
pub fn decimal(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let plain = number.to_string();
    if plain.len() > 40 { format!("{number:e}") } else { plain }
}
