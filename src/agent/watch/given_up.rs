//! Why `watch` gives an attempt up, as it is written for the wrapper and for a `watch` that is started again. Pure.

use jiff::Timestamp;

use super::diverge::Row;

/// Why an attempt is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// It did not get on.
    Stalled {
        /// Seconds nothing came.
        seconds: u32,
        /// The last step.
        step: Option<i64>,
        /// When the last sign of life came.
        at: Option<Timestamp>,
    },
    /// Its loss has ceased to be a number.
    Diverged(Row),
}

impl GivenUp {
    /// As `key=value` lines; that there are any is what counts for the wrapper.
    #[must_use]
    pub fn to_text(&self) -> String {
        let line = |key: &str, value: Option<String>| value.map(|value| format!("{key}={value}\n")).unwrap_or_default();
        match self {
            Self::Stalled { seconds, step, at } => {
                let (step, at) = (step.map(|step| step.to_string()), at.map(|at| at.to_string()));
                format!("reason=Stalled\nseconds={seconds}\n{}{}", line("step", step), line("at", at))
            }
            Self::Diverged(Row { since, count }) => format!("reason=Diverged\nstep={since}\npoints={count}\n"),
        }
    }

    /// Reads what [`Self::to_text`] wrote; what cannot be read is a stall of which nothing is known.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once('='));
            pairs.find_map(|(name, value)| (name == key).then_some(value))
        };
        let step = value("step").and_then(|step| step.parse().ok());
        let count = value("points").and_then(|points| points.parse().ok());
        match (value("reason"), step, count) {
            (Some("Diverged"), Some(since), Some(count)) => Self::Diverged(Row { since, count }),
            _ => Self::Stalled {
                seconds: value("seconds").and_then(|seconds| seconds.parse().ok()).unwrap_or_default(),
                step,
                at: value("at").and_then(|at| at.parse().ok()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let at = "2026-01-01T10:00:00Z".parse().ok();
        for given_up in [
            GivenUp::Stalled { seconds: 600, step: Some(7), at },
            GivenUp::Stalled { seconds: 600, step: None, at: None },
            GivenUp::Diverged(Row { since: 40, count: 3 }),
        ] {
            assert_eq!(GivenUp::parse(&given_up.to_text()), given_up);
        }
        assert_eq!(GivenUp::parse("?"), GivenUp::Stalled { seconds: 0, step: None, at: None });
    }
}
