//! What single lines tell of training: the dicts Hugging Face's `Trainer` prints, progress bars, and the
//! records of LLaMA-Factory's `trainer_log.jsonl`. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Most entries one record may have.
const MAX_ENTRIES: usize = 256;
/// Longest name of a metric.
const MAX_NAME: usize = 64;

/// What one line says. A number that is not finite is named, but has no value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Optimizer updates done.
    pub step: Option<i64>,
    /// Optimizer updates planned.
    pub total: Option<i64>,
    /// Epoch reached.
    pub epoch: Option<f64>,
    /// Tokens trained on.
    pub tokens: Option<i64>,
    /// Seconds to go.
    pub remaining: Option<i64>,
    /// Finite metrics by name.
    pub metrics: BTreeMap<String, f64>,
    /// Metrics that were not finite.
    pub non_finite: BTreeSet<String>,
}

impl Said {
    /// Takes a number under its name, where the name is one a metric can have.
    pub fn take(&mut self, name: &str, value: f64) {
        let plain = name.bytes().all(|byte| byte.is_ascii_graphic());
        let full = self.metrics.len() + self.non_finite.len() >= MAX_ENTRIES;
        if !plain || name.is_empty() || name.len() > MAX_NAME || full {
        } else if value.is_finite() {
            self.metrics.insert(name.to_owned(), value);
        } else {
            self.non_finite.insert(name.to_owned());
        }
    }
}

/// A number as a count of steps or tokens: whole, not negative, exactly representable.
#[must_use]
pub fn count(number: f64) -> Option<i64> {
    let whole = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    whole.then_some(number as i64)
}

/// The dict of a line such as `{'loss': 1.2, 'grad_norm': '0.5', 'epoch': 0.5}`.
#[must_use]
pub fn python_dict(line: &str) -> Option<Said> {
    let start = line.find("{'")?;
    let inner = line.get(start + 1..)?.trim_end().strip_suffix('}')?;
    let mut said = Said::default();
    for pair in inner.split(", ").take(MAX_ENTRIES) {
        let Some((name, value)) = pair.split_once(": ") else { continue };
        let name = name.trim_matches('\'');
        let Ok(number) = value.trim_matches('\'').parse::<f64>() else { continue };
        match name {
            "epoch" => said.epoch = Some(number).filter(|number| number.is_finite()),
            "step" => said.step = count(number),
            _ => said.take(name, number),
        }
    }
    let any = !said.metrics.is_empty() || !said.non_finite.is_empty();
    any.then_some(said)
}

/// The newest state of an unlabelled progress bar such as ` 42%|███ | 42/100 [00:10<00:14, 4.1it/s]`.
/// Bars with a label count other things (shards, rows), so they are passed over.
#[must_use]
pub fn bar(line: &str) -> Option<Said> {
    line.rsplit('\r').find_map(one_bar)
}

fn one_bar(text: &str) -> Option<Said> {
    let (percent, rest) = text.trim_start().split_once('%')?;
    percent.parse::<u8>().ok()?;
    let (_, counts) = rest.strip_prefix('|')?.split_once('|')?;
    let (counts, times) = counts.split_once('[')?;
    let (done, total) = counts.trim().split_once('/')?;
    let (step, total) = (done.parse::<i64>().ok()?, total.parse::<i64>().ok()?);
    let remaining = times.split_once('<').and_then(|(_, rest)| duration(rest.split([',', ']']).next()?));
    let sound = step >= 0 && total > 0 && step <= total;
    sound.then(|| Said { step: Some(step), total: Some(total), remaining, ..Said::default() })
}

/// A record of `trainer_log.jsonl`.
#[must_use]
pub fn trainer_log(line: &str) -> Option<Said> {
    let Value::Object(record) = serde_json::from_str(line).ok()? else { return None };
    let whole = |name: &str| record.get(name).and_then(Value::as_i64).filter(|number| *number >= 0);
    let mut said = Said {
        step: Some(whole("current_steps")?),
        total: whole("total_steps").filter(|total| *total > 0),
        epoch: record.get("epoch").and_then(Value::as_f64),
        tokens: whole("total_tokens"),
        remaining: record.get("remaining_time").and_then(Value::as_str).and_then(duration),
        ..Said::default()
    };
    for (name, value) in record.iter().take(MAX_ENTRIES) {
        let name = if name == "lr" { "learning_rate" } else { name };
        let told_above = ["current_steps", "total_steps", "epoch", "total_tokens", "percentage"];
        if let (Some(number), false) = (value.as_f64(), told_above.contains(&name)) {
            said.take(name, number);
        }
    }
    Some(said)
}

/// Seconds of `1:02:03`, `02:03` or `1 day, 1:02:03`.
fn duration(text: &str) -> Option<i64> {
    let (days, clock) = match text.split_once(" day") {
        Some((days, rest)) => (days.trim().parse::<i64>().ok()?, rest.rsplit(' ').next()?),
        None => (0, text.trim()),
    };
    let mut seconds = 0_i64;
    for part in clock.split(':') {
        let part = part.parse::<u32>().ok()?;
        seconds = seconds.checked_mul(60)?.checked_add(i64::from(part))?;
    }
    days.checked_mul(86_400)?.checked_add(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dicts_are_read_with_plain_and_with_quoted_numbers() {
        let said = python_dict("{'loss': 1.25, 'grad_norm': nan, 'learning_rate': 2e-05, 'epoch': 0.5}").unwrap();
        assert_eq!(said.epoch, Some(0.5));
        assert_eq!(said.metrics.get("loss"), Some(&1.25));
        assert_eq!(said.metrics.get("learning_rate"), Some(&2e-5));
        assert!(said.non_finite.contains("grad_norm"));
        let said = python_dict("  3%|▎ | 3/100 [00:01<00:30]{'loss': '0.7', 'epoch': '0.1'}").unwrap();
        assert_eq!((said.metrics.get("loss"), said.epoch), (Some(&0.7), Some(0.1)));
    }

    #[test]
    fn other_dicts_and_text_are_no_metrics() {
        for line in ["", "{}", "{'a'}", "{'model': 'llama'}", "loading {'loss': ", "{'loss' 3}"] {
            assert_eq!(python_dict(line), None, "{line}");
        }
    }

    #[test]
    fn bars_without_a_label_count_steps() {
        let said = bar(" 42%|████▏     | 42/100 [00:10<01:14,  4.10it/s]").unwrap();
        assert_eq!((said.step, said.total, said.remaining), (Some(42), Some(100), Some(74)));
        let said = bar("  1%|▏ | 1/100 [00:01<?, ?it/s]\r  2%|▏ | 2/100 [00:01<02:00:00, 1it/s]").unwrap();
        assert_eq!((said.step, said.remaining), (Some(2), Some(7200)));
    }

    #[test]
    fn labelled_bars_and_nonsense_count_nothing() {
        let shards = "Loading checkpoint shards: 100%|██████████| 4/4 [00:01<00:00]";
        let rows = "Map:  10%|█ | 100/1000 [00:00<00:01, 900 examples/s]";
        for line in [shards, rows, "100%", "50%|x", "50%|x| 9/3 [", "5%|x| -1/3 [0", "5%|x| 1/0 [0"] {
            assert_eq!(bar(line), None, "{line}");
        }
    }

    #[test]
    fn trainer_log_records_carry_steps_tokens_and_time() {
        let line = r#"{"current_steps": 10, "total_steps": 40, "loss": 1.5, "lr": 0.0001, "epoch": 0.25,
            "percentage": 25.0, "elapsed_time": "0:01:00", "remaining_time": "1 day, 0:03:00", "total_tokens": 512}"#;
        let said = trainer_log(line).unwrap();
        assert_eq!((said.step, said.total, said.tokens), (Some(10), Some(40), Some(512)));
        assert_eq!(said.remaining, Some(86_400 + 180));
        assert_eq!(said.metrics.keys().collect::<Vec<_>>(), ["learning_rate", "loss"]);
        assert_eq!(trainer_log(r#"{"loss": 1}"#), None);
        assert_eq!(trainer_log("[1]"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_fail(line in ".{0,200}") {
            let _ = (python_dict(&line), bar(&line), trainer_log(&line));
        }
    }
}
