//! When a run has diverged: its loss was no number at several logged points in a row. One such point alone may pass. Pure.

use std::collections::BTreeMap;

use super::lines::Said;
use crate::checkpoint_files::{TrainerState, loss_is_lost};

/// Who tells of logged points. All tell of the same ones, so each is counted for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Progress posts.
    Posts,
    /// Records of the trainer's own log file.
    Records,
    /// Printed lines.
    Lines,
    /// Saved states.
    States,
}

/// Lost losses, one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Step of the first.
    pub since: i64,
    /// How many there are.
    pub count: u32,
}

/// Watches the losses of an attempt.
#[derive(Clone, Debug, Default)]
pub struct Divergence {
    limit: Option<u32>,
    rows: BTreeMap<Source, Row>,
    newest: Option<Source>,
}

impl Divergence {
    /// So many lost losses in a row are too many; without a limit no number is.
    #[must_use]
    pub fn new(limit: Option<u32>) -> Self {
        Self { limit: limit.filter(|limit| *limit > 0), ..Self::default() }
    }

    /// Takes a logged point; one without a loss changes nothing.
    pub fn logged(&mut self, source: Source, step: i64, said: &Said) {
        match loss_is_lost(&said.metrics, &said.non_finite) {
            Some(true) => {
                self.rows.entry(source).or_insert(Row { since: step, count: 0 }).count += 1;
                self.newest = Some(source);
            }
            Some(false) => {
                self.rows.remove(&source);
                self.newest = None;
            }
            None => {}
        }
    }

    /// Takes the log in a saved state.
    pub fn saved(&mut self, state: &TrainerState) {
        if let Some((since, count)) = state.lost_row() {
            let since = i64::try_from(since).unwrap_or(i64::MAX);
            self.rows.insert(Source::States, Row { since, count });
            self.newest = Some(Source::States);
        } else {
            self.rows.remove(&Source::States);
            self.newest = None;
        }
    }

    /// The row that is too long, if there is one: the one that began first.
    #[must_use]
    pub fn row(&self) -> Option<Row> {
        let limit = self.limit?;
        self.rows.values().filter(|row| row.count >= limit).min_by_key(|row| row.since).copied()
    }

    /// The newest loss and those before it, where it was lost.
    #[must_use]
    pub fn newest(&self) -> Option<Row> {
        self.rows.get(&self.newest?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::python_dict;
    use super::*;

    fn logged(divergence: &mut Divergence, step: i64, line: &str) {
        divergence.logged(Source::Lines, step, &python_dict(line).unwrap());
    }

    const NAN: &str = "{'loss': nan, 'grad_norm': nan, 'epoch': 0.5}";

    #[test]
    fn several_lost_losses_in_a_row_are_a_divergence_and_one_is_not() {
        let mut divergence = Divergence::new(Some(3));
        logged(&mut divergence, 5, NAN);
        assert_eq!((divergence.row(), divergence.newest()), (None, Some(Row { since: 5, count: 1 })));
        logged(&mut divergence, 10, "{'loss': 1.5, 'grad_norm': nan}");
        assert_eq!(divergence.newest(), None);
        for step in [15, 20] {
            logged(&mut divergence, step, NAN);
            logged(&mut divergence, step, "{'eval_loss': nan, 'eval_runtime': 3.0}");
        }
        assert_eq!(divergence.row(), None);
        logged(&mut divergence, 25, "{'loss': '0', 'grad_norm': 'nan', 'learning_rate': '2e-05'}");
        assert_eq!(divergence.row(), Some(Row { since: 15, count: 3 }));
    }

    #[test]
    fn skipped_steps_of_fp16_and_a_loss_of_nothing_are_no_divergence() {
        let mut divergence = Divergence::new(Some(1));
        logged(&mut divergence, 5, "{'loss': 2.5, 'grad_norm': inf}");
        logged(&mut divergence, 10, "{'loss': 0.0, 'grad_norm': 0.0}");
        assert_eq!(divergence.row(), None);
    }

    #[test]
    fn the_same_points_told_twice_count_once() {
        let mut divergence = Divergence::new(Some(3));
        let said = python_dict(NAN).unwrap();
        for step in [5, 10] {
            divergence.logged(Source::Posts, step, &said);
            divergence.logged(Source::Lines, step, &said);
        }
        assert_eq!(divergence.row(), None);
    }

    #[test]
    fn a_saved_log_that_ends_in_lost_losses_tells_where_they_began() {
        let state = |log: &str| TrainerState::parse(format!(r#"{{"global_step":40,"log_history":[{log}]}}"#).as_bytes()).unwrap();
        let lost = r#"{"step":20,"loss":NaN},{"step":30,"loss":0.0,"grad_norm":NaN},{"step":40,"loss":Infinity},{"step":40,"eval_loss":NaN}"#;
        let mut divergence = Divergence::new(Some(3));
        divergence.saved(&state(&format!(r#"{{"step":10,"loss":1.0}},{lost}"#)));
        assert_eq!(divergence.row(), Some(Row { since: 20, count: 3 }));
        divergence.saved(&state(&format!(r#"{lost},{{"step":40,"loss":1.0}}"#)));
        assert_eq!((divergence.row(), divergence.newest()), (None, None));
    }

    #[test]
    fn without_a_limit_nothing_is_too_much() {
        for limit in [None, Some(0)] {
            let mut divergence = Divergence::new(limit);
            (0..100).for_each(|step| logged(&mut divergence, step, NAN));
            assert_eq!((divergence.row(), divergence.newest()), (None, Some(Row { since: 0, count: 100 })));
        }
    }
}
