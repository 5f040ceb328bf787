//! The history of a run after a report: series, events and log tails, bounded as a whole. Pure.

mod events;
mod size;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use super::{Observed, RunSpeaker};
use crate::api::{
    AttemptLog, Checkpoint, FineTune, FineTuneHistory, FineTuneHistorySpec, GROUP, Series, VERSION, is_owned_by, names,
};
use crate::protocol::{CheckpointKey, Report, ReportedCheckpoint};

const MAX_SERIES: usize = 64;
const MAX_LOGS: usize = 20;

/// Whether the history of this run tells of a save.
pub(super) fn has_save(observed: &Observed<'_>, uid: &str, reported: &ReportedCheckpoint) -> bool {
    observed.history.is_some_and(|history| is_owned_by(history, uid) && events::has_save(&history.spec, reported))
}

/// What is new with a report.
pub(super) struct News<'a> {
    /// The time of the report.
    pub(super) now: Timestamp,
    /// Checkpoints of the run, those to be created included.
    pub(super) known: &'a BTreeMap<CheckpointKey, Arc<Checkpoint>>,
    /// Whether a checkpoint is created with this report.
    pub(super) is_new: &'a dyn Fn(CheckpointKey) -> bool,
}

/// The history to write; none unless the report carries something to keep and a checkpoint or the end is new.
pub(super) fn history(
    speaker: &RunSpeaker,
    observed: &Observed<'_>,
    report: &Report,
    news: &News<'_>,
) -> Option<FineTuneHistory> {
    if report.series.is_empty() && report.log.is_empty() && report.end.is_none() {
        return None;
    }
    let mut history = match observed.history {
        Some(stored) if is_owned_by(stored, &speaker.uid) => stored.clone(),
        Some(_) => return None,
        None => FineTuneHistory { metadata: metadata(observed.fine_tune)?, spec: FineTuneHistorySpec::default() },
    };
    let mut fresh = events::saved(&history.spec.events, report, news);
    fresh.extend(events::ended(&history.spec.events, speaker.attempt, report, news.now));
    if fresh.is_empty() {
        return None;
    }
    if let Some(resumed) = events::resumed(&history.spec.logs, speaker.attempt, report, news.now) {
        fresh.insert(0, resumed);
    }
    events::append(&mut history.spec, fresh);
    if !report.series.is_empty() {
        history.spec.series = merged_series(&history.spec.series, report);
    }
    keep_log(&mut history.spec.logs, speaker.attempt, &report.log);
    size::fit(&mut history.spec);
    (observed.history.map(|stored| &stored.spec) != Some(&history.spec)).then_some(history)
}

fn metadata(fine_tune: &FineTune) -> Option<ObjectMeta> {
    let (name, uid) = (fine_tune.metadata.name.clone()?, fine_tune.metadata.uid.clone()?);
    let labels = [(names::FINE_TUNE_UID, uid.as_str()), (names::FINE_TUNE, name.as_str()), (names::MANAGED_BY, names::MANAGER)];
    Some(ObjectMeta {
        name: Some(name.clone()),
        namespace: fine_tune.metadata.namespace.clone(),
        labels: Some(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "FineTune".into(),
            name,
            uid,
            controller: Some(false),
            block_owner_deletion: Some(false),
        }]),
        ..ObjectMeta::default()
    })
}

/// Stored points up to the step the attempt resumed from, then what it reports itself. An attempt that began at the base model replaces all.
fn merged_series(stored: &[Series], report: &Report) -> Vec<Series> {
    let resumed = report.resumed_from.unwrap_or(-1);
    let order: Vec<&str> = {
        let mut seen = BTreeSet::new();
        let all = stored.iter().chain(&report.series).map(|series| series.name.as_str());
        all.filter(|name| seen.insert(*name)).collect()
    };
    let find = |list: &[Series], name: &str| list.iter().find(|series| series.name == name).cloned().unwrap_or_default();
    let mut merged = Vec::new();
    for name in order {
        let (old, new) = (find(stored, name), find(&report.series, name));
        let first = new.steps.first().copied().unwrap_or(i64::MAX);
        let kept = old.steps.into_iter().zip(old.values).filter(|(step, _)| *step <= resumed && *step < first);
        let (steps, values): (Vec<_>, Vec<_>) = kept.chain(new.steps.into_iter().zip(new.values)).unzip();
        if !steps.is_empty() {
            merged.push(size::at_most_1000(Series { name: name.into(), steps, values }));
        }
    }
    merged.truncate(MAX_SERIES);
    merged
}

/// The log of an attempt replaces the one it had; an entry without lines marks that the attempt has spoken.
fn keep_log(logs: &mut Vec<AttemptLog>, attempt: i64, lines: &[String]) {
    match logs.iter_mut().find(|log| log.attempt == attempt) {
        Some(log) if !lines.is_empty() => log.lines = lines.to_vec(),
        Some(_) => {}
        None => logs.push(AttemptLog { attempt, lines: lines.to_vec() }),
    }
    let excess = logs.len().saturating_sub(MAX_LOGS);
    logs.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, points: &[(i64, &str)]) -> Series {
        let (steps, values) = points.iter().map(|(step, value)| (*step, (*value).to_owned())).unzip();
        Series { name: name.into(), steps, values }
    }

    #[test]
    fn points_after_the_step_resumed_from_are_replaced() {
        let stored = [series("loss", &[(10, "3"), (20, "2"), (30, "1")]), series("eval_loss", &[(20, "2"), (30, "1")])];
        let report = Report { resumed_from: Some(20), series: vec![series("loss", &[(25, "1.5")])], ..Report::default() };
        let merged = merged_series(&stored, &report);
        assert_eq!(merged, [series("loss", &[(10, "3"), (20, "2"), (25, "1.5")]), series("eval_loss", &[(20, "2")])]);
    }

    #[test]
    fn a_start_from_scratch_replaces_everything() {
        let stored = [series("loss", &[(10, "3")]), series("old", &[(10, "3")])];
        let report = Report { series: vec![series("loss", &[(5, "4")])], ..Report::default() };
        assert_eq!(merged_series(&stored, &report), [series("loss", &[(5, "4")])]);
    }

    #[test]
    fn reported_points_win_over_stored_ones() {
        let stored = [series("loss", &[(10, "3"), (15, "9"), (20, "2")])];
        let report = Report {
            resumed_from: Some(20),
            series: vec![series("loss", &[(10, "3"), (20, "2"), (30, "1")])],
            ..Report::default()
        };
        assert_eq!(merged_series(&stored, &report), [series("loss", &[(10, "3"), (20, "2"), (30, "1")])]);
    }

    #[test]
    fn each_attempt_keeps_its_own_log_and_the_last_twenty_stay() {
        let mut logs = Vec::new();
        for attempt in 1..=25 {
            keep_log(&mut logs, attempt, &[format!("{attempt}")]);
        }
        assert_eq!(logs.len(), 20);
        assert_eq!(logs.first().map(|log| log.attempt), Some(6));
        keep_log(&mut logs, 25, &[]);
        assert_eq!(logs.last().map(|log| log.lines.clone()), Some(vec!["25".to_owned()]));
    }
}
