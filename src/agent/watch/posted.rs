//! What a progress post adds to the one before, and the step it was logged at. Hugging Face's callback posts when a step ends, before
//! that step is logged: every post repeats the newest values logged before it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::callback::Post;
use super::lines::Said;
use super::metric;

/// Names under which scripts are told how often to log.
const EVERY: [&str; 2] = ["logging_steps", "log_every_n_steps"];
/// The epoch a point was logged at: it tells points of equal values apart.
const EPOCH: &str = "epoch";

/// The posts of an attempt so far.
#[derive(Clone, Debug, Default)]
pub struct Posted {
    every: Option<i64>,
    step: i64,
    known: Said,
}

impl Posted {
    /// Before the first post of a run with these parameters.
    #[must_use]
    pub fn new(parameters: &BTreeMap<String, Value>) -> Self {
        let every = EVERY.iter().find_map(|name| parameters.get(*name)?.as_i64()).filter(|every| *every > 0);
        Self { every, ..Self::default() }
    }

    /// The point logged since the last post, with the step it was logged at; of several, the newest. Nothing where none is new.
    pub fn fresh(&mut self, post: &Post) -> Option<Said> {
        let step = post.said.step?;
        let before = std::mem::replace(&mut self.known, post.said.clone());
        let posted_before = std::mem::replace(&mut self.step, step);
        let eval = differs(&before, &post.said, metric::is_eval);
        let values = differs(&before, &post.said, |name| name != EPOCH && !metric::is_eval(name));
        // Equal values once more: only the epoch has moved, and no evaluation has moved it.
        let train = values || (!eval && differs(&before, &post.said, |name| name == EPOCH));
        let is_fresh = |name: &String| *name != EPOCH && if metric::is_eval(name) { eval } else { train };
        let said = Said {
            step: Some(self.logged_at(step, posted_before)),
            epoch: post.said.metrics.get(EPOCH).copied().or(post.said.epoch),
            metrics: post
                .said
                .metrics
                .iter()
                .filter(|(name, _)| is_fresh(name))
                .map(|(name, value)| (name.clone(), *value))
                .collect(),
            non_finite: post.said.non_finite.iter().filter(|name| is_fresh(name)).cloned().collect(),
            ..Said::default()
        };
        (!said.metrics.is_empty() || !said.non_finite.is_empty()).then_some(said)
    }

    /// The last step before the post at which the script was to log; where that was told before, or nobody knows how often it logs,
    /// the step before the post.
    fn logged_at(&self, step: i64, posted_before: i64) -> i64 {
        let newest = step.saturating_sub(1).max(0);
        let aligned = self.every.map(|every| newest - newest % every);
        aligned.filter(|at| *at >= posted_before && *at > 0).unwrap_or(newest)
    }
}

/// Whether any value differs whose name passes.
fn differs(before: &Said, now: &Said, test: impl Fn(&str) -> bool) -> bool {
    let names: BTreeSet<_> = now.metrics.keys().chain(&now.non_finite).filter(|name| test(name)).collect();
    names.into_iter().any(|name| {
        before.metrics.get(name) != now.metrics.get(name) || before.non_finite.contains(name) != now.non_finite.contains(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(step: i64, metrics: &[(&str, f64)]) -> Post {
        let mut said = Said { step: Some(step), ..Said::default() };
        for (name, value) in metrics {
            said.take(name, *value);
        }
        Post { said, ..Post::default() }
    }

    fn every(steps: i64) -> Posted {
        Posted::new(&BTreeMap::from([("logging_steps".to_owned(), steps.into())]))
    }

    fn names(said: &Said) -> Vec<&str> {
        said.metrics.keys().chain(&said.non_finite).map(String::as_str).collect()
    }

    #[test]
    fn a_point_is_placed_at_the_step_it_was_logged_at_and_told_once() {
        let mut posted = every(5);
        assert_eq!(posted.fresh(&post(3, &[])), None);
        let said = posted.fresh(&post(6, &[("loss", 2.0), ("epoch", 0.05)])).unwrap();
        assert_eq!((said.step, said.epoch, names(&said)), (Some(5), Some(0.05), vec!["loss"]));
        assert_eq!(posted.fresh(&post(9, &[("loss", 2.0), ("epoch", 0.05)])), None);
        assert_eq!(posted.fresh(&post(13, &[("loss", 1.0), ("epoch", 0.1)])).unwrap().step, Some(10));
    }

    #[test]
    fn equal_values_at_another_step_are_another_point() {
        let mut posted = every(5);
        posted.fresh(&post(6, &[("loss", 2.0), ("learning_rate", 0.1), ("epoch", 0.05)]));
        let said = posted.fresh(&post(11, &[("loss", 1.0), ("learning_rate", 0.1), ("epoch", 0.1)])).unwrap();
        assert_eq!(names(&said), ["learning_rate", "loss"]);
        let said = posted.fresh(&post(16, &[("loss", f64::NAN), ("learning_rate", 0.1), ("epoch", 0.15)])).unwrap();
        assert_eq!(names(&said), ["learning_rate", "loss"]);
        let said = posted.fresh(&post(21, &[("loss", f64::NAN), ("learning_rate", 0.1), ("epoch", 0.2)])).unwrap();
        assert_eq!((said.step, names(&said)), (Some(20), vec!["learning_rate", "loss"]));
    }

    #[test]
    fn an_evaluation_repeats_no_losses_and_losses_no_evaluation() {
        let mut posted = every(10);
        posted.fresh(&post(11, &[("loss", 2.0), ("epoch", 0.1)]));
        let said = posted.fresh(&post(12, &[("loss", 2.0), ("eval_loss", 1.5), ("epoch", 0.1)])).unwrap();
        assert_eq!((said.step, names(&said)), (Some(11), vec!["eval_loss"]));
        let said = posted.fresh(&post(21, &[("loss", 1.0), ("eval_loss", 1.5), ("epoch", 0.2)])).unwrap();
        assert_eq!((said.step, names(&said)), (Some(20), vec!["loss"]));
    }

    #[test]
    fn without_knowing_how_often_a_script_logs_the_step_before_the_post_is_taken() {
        for parameters in [BTreeMap::new(), BTreeMap::from([("logging_steps".to_owned(), serde_json::json!(0.1))])] {
            let mut posted = Posted::new(&parameters);
            assert_eq!(posted.fresh(&post(8, &[("loss", 2.0)])).unwrap().step, Some(7));
        }
        assert_eq!(every(5).fresh(&post(3, &[("loss", 2.0)])).unwrap().step, Some(2), "logged at the first step");
    }
}
