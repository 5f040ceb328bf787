//! `trainer_state.json`: what is read, what is left out, and the metrics of a step.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{TrainerState, decimal};

const STATE: &str = r#"{
  "best_global_step": 200, "best_metric": 0.3892, "best_model_checkpoint": "/out/\"NaN\"-200",
  "epoch": 2.0, "eval_steps": 100, "global_step": 200,
  "log_history": [
    {"entropy": 0.7235, "epoch": 1.0, "grad_norm": 0.4636, "learning_rate": 0.0002, "loss": 0.85, "num_tokens": 52250.0, "step": 100},
    {"epoch": 1.0, "eval_loss": 0.91, "eval_runtime": 22.13, "step": 100},
    {"epoch": 2.0, "grad_norm": NaN, "learning_rate": 1e-05, "loss": 0.54, "num_tokens": 104500.0, "step": 200},
    {"epoch": 2.0, "eval_a_loss": 0.3892, "eval_b_loss": -Infinity, "step": 200},
    {"epoch": 2.0, "eval_b_loss": 0.5, "step": 200},
    {"no": "step"}, 7, null,
    {"epoch": 2.5, "step": 250, "loss": 0.1},
    {"train_loss": 0.6, "train_runtime": 12.0, "step": 250}
  ],
  "max_steps": 300, "num_input_tokens_seen": 123, "num_train_epochs": 3,
  "stateful_callbacks": {"TrainerControl": {"args": {"should_training_stop": false}}, "X": [1, {}]},
  "total_flos": 2.93e17, "trial_params": null
}
"#;

fn parse(text: &str) -> TrainerState {
    TrainerState::parse(text.as_bytes()).unwrap()
}

fn metrics(of: &TrainerState, step: u64) -> Vec<(String, String)> {
    of.metrics_at(step).into_iter().collect()
}

#[test]
fn progress_is_read() {
    let state = parse(STATE);
    assert_eq!((state.global_step, state.max_steps), (200, Some(300)));
    assert_eq!((state.epoch, state.num_train_epochs), (Some(2.0), Some(3.0)));
    assert_eq!((state.num_input_tokens_seen, state.should_training_stop), (Some(123), Some(false)));
    assert_eq!(state.history.len(), 7, "entries without a step are no points");
    assert!(state.history[2].non_finite.contains("grad_norm"));
}

#[test]
fn metrics_of_a_step_come_from_the_newest_entries_up_to_it() {
    let state = parse(STATE);
    let expected = [
        ("eval_a_loss", "0.3892"),
        ("eval_b_loss", "0.5"),
        ("learning_rate", "0.00001"),
        ("loss", "0.54"),
        ("num_tokens", "104500"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(metrics(&state, 200), expected);
    let earlier = state.metrics_at(150);
    assert_eq!((earlier["loss"].as_str(), earlier["eval_loss"].as_str()), ("0.85", "0.91"));
    let later = state.metrics_at(300);
    assert_eq!((later["loss"].as_str(), later["eval_a_loss"].as_str()), ("0.1", "0.3892"));
    assert!(!later.contains_key("train_loss"), "the summary belongs to no step");
    assert_eq!(state.metrics_at(99), BTreeMap::new());
}

#[test]
fn a_loss_that_is_no_number_is_not_replaced_by_an_older_one() {
    let state =
        parse(r#"{"global_step": 2, "log_history": [{"step": 1, "loss": 0.5}, {"step": 2, "loss": NaN, "grad_norm": 1.5}]}"#);
    assert_eq!(metrics(&state, 2), [("grad_norm".to_owned(), "1.5".to_owned())]);
}

#[test]
fn the_end_of_training_is_recorded_by_steps_or_by_decision() {
    let end = |text: &str| parse(text).learned_end();
    let stopped = r#""stateful_callbacks": {"TrainerControl": {"args": {"should_training_stop": true}}}"#;
    assert!(end(r#"{"global_step": 300, "max_steps": 300}"#));
    assert!(end(&format!(r#"{{"global_step": 7, "max_steps": 300, {stopped}}}"#)));
    assert!(!end(r#"{"global_step": 299, "max_steps": 300}"#));
    assert!(!end(r#"{"global_step": 299, "max_steps": -1}"#));
    assert!(!end(r#"{"global_step": 0, "max_steps": 0}"#));
    assert!(!end(r#"{"global_step": 5}"#));
}

#[test]
fn odd_types_are_passed_over_but_the_step_must_be_a_count() {
    let odd = r#"{"global_step": 5.0, "max_steps": "many", "epoch": null, "num_train_epochs": [],
        "log_history": [{"step": 1.5, "loss": 1}, {"step": 3, "loss": "0.5", "x": {"y": [1]}, "ok": true}],
        "stateful_callbacks": {"TrainerControl": [{"args": 1}]}}"#;
    let state = parse(odd);
    assert_eq!((state.global_step, state.max_steps, state.history.len()), (5, None, 1));
    assert!(state.history[0].values.is_empty());
    for bad in ["", "null", "[]", "[4]", "{}", r#"{"global_step": -1}"#, r#"{"global_step": NaN}"#] {
        assert!(TrainerState::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(TrainerState::parse(&b"{\"global_step\": 4} x"[..]).is_err(), "nothing may follow");
}

#[test]
fn only_the_newest_entries_of_a_long_log_are_kept() {
    use std::fmt::Write as _;
    let mut text = r#"{"global_step": 1, "log_history": ["#.to_owned();
    let count = 130_000;
    for step in 0..count {
        write!(text, r#"{}{{"step": {step}}}"#, if step == 0 { "" } else { "," }).unwrap();
    }
    text.push_str("]}");
    let history = parse(&text).history;
    assert_eq!(history.len(), super::super::limits::POINTS);
    assert_eq!(history.last().unwrap().step, count - 1);
}

#[test]
fn decimals_are_plain_short_and_exact() {
    let cases = [
        (0.0, "0"),
        (-0.0, "0"),
        (52250.0, "52250"),
        (1e-5, "0.00001"),
        (-0.25, "-0.25"),
        (2.93e17, "293000000000000000"),
        (1e-50, "1e-50"),
        (1e300, "1e300"),
    ];
    for (number, text) in cases {
        assert_eq!(decimal(number), text);
    }
}

#[test]
fn all_digits_that_python_writes_are_kept() {
    // Needs serde_json's float_roundtrip, without which the last digit can be lost.
    for digits in [
        "0.30000000000000004",
        "3.2956212316547955",
        "7.84866200421318",
        "0.0006864336754504866",
        "0.9039853383018717",
        "0.0072624958009159905",
    ] {
        let text = format!(r#"{{"global_step": 1, "log_history": [{{"step": 1, "loss": {digits}}}]}}"#);
        assert_eq!(parse(&text).metrics_at(1)["loss"], digits);
    }
}

proptest! {
    #[test]
    fn every_finite_number_survives_being_written(number in any::<f64>()) {
        prop_assume!(number.is_finite());
        let read: f64 = decimal(number).parse().unwrap();
        prop_assert_eq!(read.abs().to_bits(), number.abs().to_bits());
        let text = format!(r#"{{"global_step": 1, "log_history": [{{"step": 1, "x": {number:?}}}]}}"#);
        prop_assert_eq!(&parse(&text).metrics_at(1)["x"], &decimal(number));
    }

    #[test]
    fn parsing_any_text_never_panics(text in "[-NaInfity0-9eE.,:\"\\\\{}\\[\\] a-z]{0,200}") {
        let _ = TrainerState::parse(text.as_bytes());
    }

    #[test]
    fn words_in_strings_stay_and_do_not_break_the_rest(text in "[NaInfity\\-\"\\\\]{0,20}") {
        let quoted = serde_json::to_string(&text).unwrap();
        let state = parse(&format!(r#"{{{quoted}: {quoted}, "global_step": 3, "epoch": -Infinity}}"#));
        prop_assert_eq!(state.global_step, 3);
    }
}

#[test]
fn a_lost_loss_is_known_in_both_forms_and_an_evaluation_that_is_a_number_outweighs_it() {
    let lost_at = |log: &str, step| {
        let state = TrainerState::parse(format!(r#"{{"global_step": 40, "log_history": [{log}]}}"#).as_bytes()).unwrap();
        state.lost_at(step)
    };
    let good = r#"{"step": 10, "loss": 1.0, "grad_norm": NaN}"#;
    for lost in
        [r#"{"step": 20, "loss": NaN}"#, r#"{"step": 20, "loss": -Infinity}"#, r#"{"step": 20, "loss": 0.0, "grad_norm": NaN}"#]
    {
        let log = format!("{good}, {lost}");
        assert_eq!((lost_at(&log, 40), lost_at(&log, 20), lost_at(&log, 15)), (Some(20), Some(20), None), "{lost}");
        assert_eq!(lost_at(&format!(r#"{log}, {{"step": 20, "eval_loss": NaN}}"#), 40), Some(20));
        assert_eq!(lost_at(&format!(r#"{log}, {{"step": 20, "eval_loss": 1.5}}"#), 40), None);
        assert_eq!(lost_at(&format!(r#"{log}, {{"step": 30, "loss": 2.0}}"#), 40), None, "it has passed");
    }
    assert_eq!(lost_at(r#"{"step": 10, "loss": 0.0, "grad_norm": 0.0}"#, 40), None);
}
