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

    /// Whether the loss logged here was lost, as [`loss_is_lost`] has it; nothing where none was logged.
    #[must_use]
    pub fn is_lost(&self) -> Option<bool> {
        loss_is_lost(&self.values, &self.non_finite)
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

    /// The step of the newest loss logged up to `step`, where that loss was lost and no evaluation since then gave a number: what
    /// was saved there is of no use.
    #[must_use]
    pub fn lost_at(&self, step: u64) -> Option<u64> {
        let known = || self.history.iter().filter(|point| point.step <= step);
        let (at, _) = known().rev().find_map(|point| Some((point.step, point.is_lost()?))).filter(|(_, lost)| *lost)?;
        let is_eval_loss = |name: &String| name.starts_with("eval_") && name.ends_with("loss");
        let evaluated = known().any(|point| point.step >= at && point.values.keys().any(is_eval_loss));
        (!evaluated).then_some(at)
    }

    /// The losses at the end of the log that were lost one after another: the step of the first, and how many.
    #[must_use]
    pub fn lost_row(&self) -> Option<(u64, u32)> {
        let losses = self.history.iter().rev().filter_map(|point| Some((point.step, point.is_lost()?)));
        let row = losses.take_while(|(_, lost)| *lost);
        row.fold(None, |row, (step, _)| Some((step, row.map_or(1, |(_, count): (u64, u32)| count.saturating_add(1)))))
    }

    /// Whether the state records an end of training: all planned steps done, or the decision to stop.
    #[must_use]
    pub fn learned_end(&self) -> bool {
        let all_done = self.max_steps.is_some_and(|max| self.global_step >= max);
        all_done || self.should_training_stop == Some(true)
    }
}

/// Whether a logged loss was lost: it was no finite number, or it is the 0 that Hugging Face's trainer logs in the place of one
/// (`logging_nan_inf_filter`, on by default), which a gradient norm that is no number gives away. Such a norm beside a real loss is
/// a step that fp16 loss scaling has skipped. Nothing where no loss was logged.
#[must_use]
pub fn loss_is_lost(values: &BTreeMap<String, f64>, non_finite: &BTreeSet<String>) -> Option<bool> {
    match values.get("loss") {
        _ if non_finite.contains("loss") => Some(true),
        Some(loss) => Some(*loss == 0.0 && non_finite.contains("grad_norm")),
        None => None,
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
