//! Events of a run: what was saved, resumed and ended, each told once. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::News;
use crate::api::{AttemptLog, FineTuneHistory, HistoryEvent};
use crate::protocol::{CheckpointKey, FilesState, Report, ReportedCheckpoint, exit};

const MAX_EVENTS: usize = 100;
const SAVED: &str = "CheckpointSaved";
const RESUMED: &str = "Resumed";
const ENDED: &str = "AttemptEnded";

fn saved_message(attempt: i64, key: CheckpointKey, name: &str) -> String {
    format!("attempt {attempt} saved step {} of lineage {} as {name}", key.step, key.lineage)
}

fn saved_by(event: &HistoryEvent) -> Option<(i64, CheckpointKey)> {
    if event.reason != SAVED {
        return None;
    }
    let mut words = event.message.split(' ');
    let mut number = || words.find_map(|word| word.parse::<i64>().ok());
    let (attempt, step, lineage) = (number()?, number()?, number()?);
    Some((attempt, CheckpointKey { lineage, step }))
}

/// Whether the history tells of this very save: then its object has been there, and somebody has deleted it.
pub(in crate::reports::merge) fn has_save(history: Option<&FineTuneHistory>, reported: &ReportedCheckpoint) -> bool {
    let key = CheckpointKey { lineage: reported.lineage.max(1), step: reported.step };
    let saved = history.map(|history| history.spec.events.as_slice()).unwrap_or_default();
    saved.iter().filter_map(saved_by).any(|save| save == (reported.attempt, key))
}

/// Saves the history does not tell of: those made now, and those beyond the last it tells of (whose write was lost).
pub(super) fn saved(stored: &[HistoryEvent], report: &Report, news: &News<'_>) -> Vec<HistoryEvent> {
    let told: Vec<_> = stored.iter().filter_map(saved_by).collect();
    let last = told.iter().map(|(_, key)| *key).max();
    let mut fresh: Vec<(CheckpointKey, HistoryEvent)> = Vec::new();
    for reported in report.checkpoints.iter().filter(|reported| reported.state == FilesState::Ready) {
        let key = CheckpointKey { lineage: reported.lineage.max(1), step: reported.step };
        let untold = last.is_none_or(|last| key > last);
        let name = news.known.get(&key).and_then(|checkpoint| checkpoint.metadata.name.as_deref());
        if let Some(name) = name.filter(|_| untold || (news.is_new)(key)) {
            fresh.push((
                key,
                HistoryEvent {
                    time: Some(Time(reported.saved_at.unwrap_or(news.now))),
                    level: "info".into(),
                    reason: SAVED.into(),
                    message: saved_message(reported.attempt, key, name),
                },
            ));
        }
    }
    fresh.sort_by_key(|(key, _)| *key);
    fresh.into_iter().map(|(_, event)| event).collect()
}

/// The end of the attempt, unless it is told already.
pub(super) fn ended(stored: &[HistoryEvent], attempt: i64, report: &Report, now: Timestamp) -> Option<HistoryEvent> {
    let end = report.end.as_ref()?;
    let start = format!("attempt {attempt} ended ");
    if stored.iter().any(|event| event.reason == ENDED && event.message.starts_with(&start)) {
        return None;
    }
    let (level, how) = match (&end.failure, end.exit_code) {
        (Some(failure), code) => ("error", format!("with exit code {code}, {}: {}", failure.reason, failure.message)),
        (None, 0) => ("info", "well".into()),
        (None, exit::INTERRUPTED) => ("info", "early, as asked; it can go on".into()),
        (None, code) => ("warn", format!("with exit code {code}")),
    };
    let message = format!("{start}{how}").chars().take(1024).collect();
    Some(HistoryEvent { time: Some(Time(now)), level: level.into(), reason: ENDED.into(), message })
}

/// The resumption of the attempt, told with the first of its news.
pub(super) fn resumed(logs: &[AttemptLog], attempt: i64, report: &Report, now: Timestamp) -> Option<HistoryEvent> {
    let step = report.resumed_from?;
    if logs.iter().any(|log| log.attempt == attempt) {
        return None;
    }
    let message = format!("attempt {attempt} resumed from step {step}");
    Some(HistoryEvent { time: Some(Time(now)), level: "info".into(), reason: RESUMED.into(), message })
}

/// Appends events; the last hundred stay.
pub(super) fn append(events: &mut Vec<HistoryEvent>, fresh: Vec<HistoryEvent>) {
    events.extend(fresh);
    let excess = events.len().saturating_sub(MAX_EVENTS);
    events.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_tells_of_can_be_read_back() {
        let key = CheckpointKey { lineage: 2, step: 300 };
        let event =
            HistoryEvent { reason: SAVED.into(), message: saved_message(4, key, "run-v2-step-300"), ..HistoryEvent::default() };
        assert_eq!(saved_by(&event), Some((4, key)));
        assert_eq!(saved_by(&HistoryEvent { reason: ENDED.into(), ..event }), None);
    }

    #[test]
    fn the_last_hundred_events_stay() {
        let mut events = Vec::new();
        for round in 0..30 {
            let event = HistoryEvent { message: round.to_string(), ..HistoryEvent::default() };
            append(&mut events, vec![event; 5]);
        }
        assert_eq!(events.len(), 100);
        assert_eq!(events.first().map(|event| event.message.as_str()), Some("10"));
    }
}
