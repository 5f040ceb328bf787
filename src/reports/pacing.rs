//! How often progress may be written, so that the whole cluster stays below ten writes a second. Pure.

use std::time::{Duration, Instant};

/// Least seconds between two writes of progress of a run.
const LEAST_SECONDS: u32 = 30;
/// Writes of progress a second the whole cluster may make.
const WRITES_PER_SECOND: u32 = 10;

/// Seconds every run leaves between two writes of progress while `active_runs` train.
#[must_use]
pub(crate) fn interval_seconds(active_runs: usize) -> u32 {
    let runs = u32::try_from(active_runs).unwrap_or(u32::MAX);
    runs.div_ceil(WRITES_PER_SECOND).max(LEAST_SECONDS)
}

/// Seconds the agent is told: never less than the interval, a little more by `chance` (0 to 1) so that runs spread out.
#[must_use]
pub(crate) fn told_seconds(interval: u32, chance: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1 of a u32")]
    let extra = (f64::from(interval / 10) * chance.clamp(0.0, 1.0)).round() as u32;
    interval.saturating_add(1).saturating_add(extra)
}

/// Whether progress may be written again, `last` being the previous write of this run.
#[must_use]
pub(crate) fn is_due(last: Option<Instant>, now: Instant, interval: u32) -> bool {
    last.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(u64::from(interval)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_stretches_with_the_number_of_runs() {
        for (runs, seconds) in [(0, 30), (1, 30), (300, 30), (301, 31), (1000, 100), (10_000, 1000)] {
            assert_eq!(interval_seconds(runs), seconds, "{runs} runs");
        }
    }

    #[test]
    fn what_agents_are_told_is_later_than_the_interval_and_at_most_a_tenth_more() {
        assert_eq!(told_seconds(30, 0.0), 31);
        assert_eq!(told_seconds(30, 1.0), 34);
        assert_eq!(told_seconds(1000, 7.0), 1101);
    }

    #[test]
    fn progress_is_written_once_an_interval() {
        let start = Instant::now();
        assert!(is_due(None, start, 30));
        assert!(!is_due(Some(start), start + Duration::from_secs(29), 30));
        assert!(is_due(Some(start), start + Duration::from_secs(30), 30));
        assert!(!is_due(Some(start + Duration::from_secs(5)), start, 30), "a clock that stands still writes nothing");
    }
}
