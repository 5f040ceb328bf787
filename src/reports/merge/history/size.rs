//! Keeps a history within its 64 KiB: long logs are cut at their beginning first, then the longest series lose every second point. Pure.

use serde::Serialize;

use super::events;
use crate::api::{AttemptLog, FineTuneHistorySpec, Series};

/// Most bytes of the serialized spec; the rest up to 64 KiB is left for metadata.
const MAX_BYTES: usize = 62 * 1024;
/// Bytes the log of the newest attempt keeps when there is too much.
const NEWEST_LOG_BYTES: usize = 24 * 1024;
/// Bytes the logs of all earlier attempts keep together.
const EARLIER_LOG_BYTES: usize = 8 * 1024;
/// Bytes the events keep.
const EVENT_BYTES: usize = 16 * 1024;
const MAX_POINTS: usize = 1000;

/// Takes away until the spec fits.
pub(super) fn fit(spec: &mut FineTuneHistorySpec) {
    if bytes(spec) <= MAX_BYTES {
        return;
    }
    cut_logs(&mut spec.logs);
    let (kept, _) = last_that_fit(&spec.events, EVENT_BYTES);
    events::forget(spec, spec.events.len().saturating_sub(kept));
    let mut size = bytes(spec);
    while size > MAX_BYTES {
        let longest = spec.series.iter_mut().max_by_key(|series| series.steps.len());
        let Some(series) = longest.filter(|series| series.steps.len() > 1) else { return };
        let before = bytes(series);
        thin(series);
        size = size.saturating_sub(before.saturating_sub(bytes(series)));
    }
}

fn bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}

/// The newest attempt has a share of its own; the earlier ones share the other, the later of them first.
fn cut_logs(logs: &mut [AttemptLog]) {
    let mut share = NEWEST_LOG_BYTES;
    for (index, log) in logs.iter_mut().rev().enumerate() {
        if index == 1 {
            share = EARLIER_LOG_BYTES;
        }
        let (kept, left) = last_that_fit(&log.lines, share);
        log.lines.drain(..log.lines.len().saturating_sub(kept));
        share = left;
    }
}

/// How many of the last items fit into `share` bytes, and what is left of it.
fn last_that_fit<T: Serialize>(items: &[T], share: usize) -> (usize, usize) {
    let (mut left, mut count) = (share, 0);
    for item in items.iter().rev() {
        let Some(rest) = left.checked_sub(bytes(item) + 1) else { break };
        left = rest;
        count += 1;
    }
    (count, left)
}

/// Every second point goes; the last one stays.
fn thin(series: &mut Series) {
    let last = series.steps.len().saturating_sub(1);
    let keep = |index: usize| (last - index).is_multiple_of(2);
    let mut index = 0..=last;
    series.steps.retain(|_| index.next().is_some_and(keep));
    let mut index = 0..=last;
    series.values.retain(|_| index.next().is_some_and(keep));
}

/// The series with at most as many points as the schema allows.
pub(super) fn at_most_1000(mut series: Series) -> Series {
    while series.steps.len() > MAX_POINTS {
        thin(&mut series);
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{AttemptLog, HistoryEvent};

    fn full() -> FineTuneHistorySpec {
        let series = |n: usize| Series {
            name: format!("metric-{n}"),
            steps: (1..=1000).collect(),
            values: vec!["0.123456789".into(); 1000],
        };
        FineTuneHistorySpec {
            series: (0..64).map(series).collect(),
            events: vec![HistoryEvent { message: "m".repeat(200), ..HistoryEvent::default() }; 100],
            earlier_saves: Vec::new(),
            logs: (1..=20).map(|attempt| AttemptLog { attempt, lines: vec!["l".repeat(2048); 200] }).collect(),
        }
    }

    #[test]
    fn a_full_history_is_made_to_fit() {
        let mut spec = full();
        fit(&mut spec);
        assert!(bytes(&spec) <= MAX_BYTES, "{}", bytes(&spec));
        assert_eq!(spec.series.len(), 64);
        assert!(spec.series.iter().all(|series| series.steps.last() == Some(&1000)), "the last point stays");
        assert!(spec.series.iter().all(|series| series.steps.len() == series.values.len()));
        assert!(spec.events.len() > 50);
        let again = spec.clone();
        fit(&mut spec);
        assert_eq!(spec, again);
    }

    #[test]
    fn long_logs_are_cut_before_points_are_lost() {
        let mut spec = full();
        spec.series.truncate(1);
        spec.events.clear();
        fit(&mut spec);
        assert_eq!(spec.series.first().map(|series| series.steps.len()), Some(1000));
        let lines: Vec<_> = spec.logs.iter().map(|log| log.lines.len()).collect();
        assert_eq!((lines.last(), lines.iter().rev().nth(1), lines.first()), (Some(&11), Some(&3), Some(&0)));
    }

    #[test]
    fn a_small_history_is_left_alone() {
        let mut spec = full();
        spec.series.truncate(1);
        spec.logs.clear();
        let before = spec.clone();
        fit(&mut spec);
        assert_eq!(spec, before);
    }
}
