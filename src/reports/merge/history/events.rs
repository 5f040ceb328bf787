//! Events of a run: what was saved, resumed and ended, each told once. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::News;
use crate::api::{AttemptLog, EarlierSaves, FineTuneHistorySpec, HistoryEvent};
use crate::protocol::{CheckpointKey, FilesState, Report, ReportedCheckpoint, exit};

const MAX_EVENTS: usize = 100;
const MAX_EARLIER_SAVES: usize = 32;
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
pub(in crate::reports::merge) fn has_save(history: &FineTuneHistorySpec, reported: &ReportedCheckpoint) -> bool {
    let key = CheckpointKey { lineage: reported.lineage.max(1), step: reported.step };
    let told = history.events.iter().filter_map(saved_by).any(|save| save == (reported.attempt, key));
    told || history.earlier_saves.iter().any(|saves| covers(saves, reported.attempt, key))
}

const fn covers(saves: &EarlierSaves, attempt: i64, key: CheckpointKey) -> bool {
    saves.lineage == key.lineage && attempt <= saves.attempt && key.step <= saves.up_to_step
}

/// Drops the oldest events; their saves stay known, or the next report would make the Checkpoints again that somebody has deleted.
pub(super) fn forget(history: &mut FineTuneHistorySpec, count: usize) {
    let gone = history.events.drain(..count.min(history.events.len()));
    for (attempt, key) in gone.as_slice().iter().filter_map(saved_by).collect::<Vec<_>>() {
        remember(&mut history.earlier_saves, attempt, key);
    }
}

/// Adds a save. Of too many attempts, the two oldest of one lineage become one.
fn remember(all: &mut Vec<EarlierSaves>, attempt: i64, CheckpointKey { lineage, step }: CheckpointKey) {
    match all.iter_mut().find(|saves| saves.lineage == lineage && saves.attempt == attempt) {
        Some(saves) => saves.up_to_step = saves.up_to_step.max(step),
        None => all.push(EarlierSaves { lineage, attempt, up_to_step: step }),
    }
    if all.len() <= MAX_EARLIER_SAVES {
        return;
    }
    all.sort_by_key(|saves| (saves.lineage, saves.attempt));
    let pair = all.windows(2).position(|pair| pair[0].lineage == pair[1].lineage);
    let older = all.remove(pair.unwrap_or(0));
    if let Some(next) = pair.and_then(|at| all.get_mut(at)) {
        next.up_to_step = next.up_to_step.max(older.up_to_step);
    }
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
pub(super) fn append(history: &mut FineTuneHistorySpec, fresh: Vec<HistoryEvent>) {
    history.events.extend(fresh);
    forget(history, history.events.len().saturating_sub(MAX_EVENTS));
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

    fn save(attempt: i64, key: CheckpointKey) -> HistoryEvent {
        HistoryEvent { reason: SAVED.into(), message: saved_message(attempt, key, "run"), ..HistoryEvent::default() }
    }

    fn has(history: &FineTuneHistorySpec, attempt: i64, lineage: i64, step: i64) -> bool {
        has_save(history, &ReportedCheckpoint { lineage, attempt, ..crate::reports::fixtures::reported(step) })
    }

    #[test]
    fn the_last_hundred_events_stay_and_saves_before_them_are_known() {
        let mut history = FineTuneHistorySpec::default();
        for round in 1..=150 {
            append(&mut history, vec![save(1, CheckpointKey { lineage: 1, step: round * 10 }), HistoryEvent::default()]);
        }
        assert_eq!(history.events.len(), 100);
        assert_eq!(history.earlier_saves, [EarlierSaves { lineage: 1, attempt: 1, up_to_step: 1000 }]);
        assert!((1..=150).all(|round| has(&history, 1, 1, round * 10)));
        assert!(!has(&history, 1, 1, 1510) && !has(&history, 2, 1, 10) && !has(&history, 1, 2, 10));
    }

    #[test]
    fn very_many_attempts_are_summed_up_without_forgetting_a_save() {
        let mut history = FineTuneHistorySpec::default();
        let steps = |attempt: i64| 1000 - attempt;
        for attempt in 1..=300 {
            let lineage = 1 + attempt / 200;
            append(&mut history, vec![save(attempt, CheckpointKey { lineage, step: steps(attempt) })]);
        }
        assert_eq!(history.earlier_saves.len(), MAX_EARLIER_SAVES);
        assert!((1..=300).all(|attempt| has(&history, attempt, 1 + attempt / 200, steps(attempt))));
        assert!(!has(&history, 301, 2, 700));
    }
}
