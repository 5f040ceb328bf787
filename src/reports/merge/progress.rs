//! The progress of a run from what its trainer says: it never goes back, and the end stays the end. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::authorization::RunSpeaker;
use super::super::figures;
use crate::api::Progress;
use crate::protocol::{Report, ReportedProgress};

/// Progress to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ProgressWrite {
    /// The whole progress.
    pub progress: Progress,
    /// Whether it may not wait for its turn: the first word of an attempt, or its end.
    pub urgent: bool,
}

/// The progress after a report, when more than time differs from what is stored.
pub(super) fn progress(
    speaker: &RunSpeaker,
    stored: Option<&Progress>,
    report: &Report,
    now: Timestamp,
) -> Option<ProgressWrite> {
    let attempt = speaker.attempt;
    if stored.is_some_and(|stored| stored.attempt > attempt) {
        return None;
    }
    let stored = stored.filter(|stored| stored.attempt == attempt);
    let fresh = report.progress.as_ref().filter(|reported| !is_stale(stored, reported));
    let reopened = stored.is_some_and(|stored| reopens(stored, &speaker.pod, report, now));
    if (fresh.is_none() && report.end.is_none()) || stored.is_some_and(|stored| stored.ended_by.is_some() && !reopened) {
        return None;
    }
    let mut progress = stored.cloned().unwrap_or_else(|| Progress { attempt, ..Progress::default() });
    progress.ended_by = None;
    if let Some(reported) = fresh {
        take_over(&mut progress, reported, now);
    }
    progress.resumed_from = report.resumed_from.or(progress.resumed_from);
    if report.end.is_some() {
        progress.ended_by = Some(speaker.pod.clone());
        progress.estimated_remaining_seconds = None;
        progress.last_report_time = progress.last_report_time.or(Some(Time(now)));
    }
    progress.percent = percent(progress.step, progress.total_steps);
    progress.summary = Some(summary(&progress));
    progress.eta = progress.estimated_remaining_seconds.map(eta);
    let urgent = stored.is_none() || report.end.is_some();
    (stored.map(without_time) != Some(without_time(&progress))).then_some(ProgressWrite { progress, urgent })
}

fn is_stale(stored: Option<&Progress>, reported: &ReportedProgress) -> bool {
    let Some(stored) = stored else { return false };
    let older = reported.time.zip(stored.last_report_time.as_ref()).is_some_and(|(new, Time(old))| new < *old);
    older || (reported.step < stored.step && stored.ended_by.is_none())
}

/// Whether an attempt that had ended goes on: its Job has made another pod, which says something newer. It may begin at an earlier step.
/// A pod without progress says its end alone, and is newer too: that of an earlier one was heard before.
fn reopens(stored: &Progress, pod: &str, report: &Report, now: Timestamp) -> bool {
    let said = report.progress.as_ref().map_or(now, |reported| reported.time.unwrap_or(now));
    let newer = stored.last_report_time.as_ref().is_none_or(|Time(old)| said > *old);
    stored.ended_by.as_deref().is_some_and(|ended| ended != pod) && newer
}

fn take_over(progress: &mut Progress, reported: &ReportedProgress, now: Timestamp) {
    progress.step = reported.step;
    progress.total_steps = reported.total_steps.or(progress.total_steps);
    progress.epoch = reported.epoch.clone().or_else(|| progress.epoch.take());
    progress.total_epochs = reported.total_epochs.clone().or_else(|| progress.total_epochs.take());
    progress.trained_tokens = reported.trained_tokens.max(progress.trained_tokens);
    progress.estimated_remaining_seconds = reported.estimated_remaining_seconds;
    progress.last_report_time = Some(Time(reported.time.map_or(now, |time| time.min(now))));
    if !reported.metrics.is_empty() {
        progress.metrics = figures::rounded(&reported.metrics);
    }
}

/// What is left when everything that moves with the clock alone is taken out.
fn without_time(progress: &Progress) -> Progress {
    Progress { last_report_time: None, estimated_remaining_seconds: None, eta: None, ..progress.clone() }
}

fn percent(step: i64, total: Option<i64>) -> Option<i32> {
    let total = total.filter(|total| *total > 0)?;
    i32::try_from((i128::from(step) * 100 / i128::from(total)).clamp(0, 100)).ok()
}

fn summary(progress: &Progress) -> String {
    match (progress.percent, progress.total_steps) {
        (Some(percent), Some(total)) => format!("{percent}% {}/{total}", progress.step),
        _ => format!("step {}", progress.step),
    }
}

fn eta(seconds: i64) -> String {
    let minutes = seconds.max(0) / 60;
    let pair = |large: i64, one: &str, small: i64, other: &str| match small {
        0 => format!("{large}{one}"),
        small => format!("{large}{one} {small}{other}"),
    };
    match minutes {
        0 => "<1m".into(),
        1..60 => format!("{minutes}m"),
        60..1440 => pair(minutes / 60, "h", minutes % 60, "m"),
        _ => pair(minutes / 1440, "d", minutes % 1440 / 60, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::End;
    use crate::reports::fixtures;

    fn now() -> Timestamp {
        "2026-11-20T10:01:00Z".parse().expect("a time")
    }

    fn of_attempt(attempt: i64) -> RunSpeaker {
        RunSpeaker { attempt, ..fixtures::speaker() }
    }

    fn first() -> Progress {
        progress(&of_attempt(1), None, &fixtures::report(), now()).expect("the first word").progress
    }

    fn later(change: impl FnOnce(&mut ReportedProgress)) -> Report {
        let mut report = fixtures::report();
        let reported = report.progress.get_or_insert_default();
        reported.time = "2026-11-20T10:00:59Z".parse().ok();
        change(reported);
        report
    }

    #[test]
    fn the_first_word_is_urgent_and_filled_in() {
        let write = progress(&of_attempt(1), None, &fixtures::report(), now()).expect("a write");
        assert!(write.urgent);
        assert_eq!(write.progress.summary.as_deref(), Some("40% 120/300"));
        assert_eq!(write.progress.eta.as_deref(), Some("12m"));
        assert_eq!((write.progress.percent, write.progress.attempt), (Some(40), 1));
    }

    #[test]
    fn nothing_is_written_when_only_time_differs() {
        let report = later(|reported| reported.estimated_remaining_seconds = Some(700));
        assert_eq!(progress(&of_attempt(1), Some(&first()), &report, now()), None);
    }

    #[test]
    fn steps_forward_are_written_and_steps_back_are_not() {
        let forward = progress(&of_attempt(1), Some(&first()), &later(|reported| reported.step = 121), now()).expect("a write");
        assert_eq!((forward.progress.step, forward.urgent), (121, false));
        assert_eq!(progress(&of_attempt(1), Some(&first()), &later(|reported| reported.step = 119), now()), None);
        let old = later(|reported| {
            reported.step = 130;
            reported.time = "2026-11-20T09:00:00Z".parse().ok();
        });
        assert_eq!(progress(&of_attempt(1), Some(&first()), &old, now()), None, "an older word");
    }

    #[test]
    fn an_older_attempt_changes_nothing_and_a_newer_one_begins_anew() {
        assert_eq!(progress(&of_attempt(1), Some(&Progress { attempt: 2, ..first() }), &later(|r| r.step = 200), now()), None);
        let next = progress(&of_attempt(2), Some(&first()), &later(|reported| reported.step = 100), now()).expect("a write");
        assert_eq!((next.progress.attempt, next.progress.step, next.urgent), (2, 100, true));
    }

    #[test]
    fn the_end_is_urgent_and_stays() {
        let report = Report { end: Some(End::default()), progress: None, ..Report::default() };
        let write = progress(&of_attempt(1), Some(&first()), &report, now()).expect("a write");
        assert!(write.urgent && write.progress.ended_by.as_deref() == Some(fixtures::speaker().pod.as_str()));
        assert_eq!((write.progress.step, write.progress.eta), (120, None));
        let ended = Progress { ended_by: Some("an earlier pod".into()), ..first() };
        let repeated = later(|reported| reported.time = ended.last_report_time.as_ref().map(|time| time.0));
        assert_eq!(progress(&of_attempt(1), Some(&ended), &repeated, now()), None, "nothing newer is said");
        let next_pod =
            progress(&of_attempt(1), Some(&ended), &later(|reported| reported.step = 1), now()).expect("a write").progress;
        assert_eq!((next_pod.step, next_pod.ended_by), (1, None), "another pod of the attempt goes on, from an earlier step");
        let both = progress(&of_attempt(1), Some(&ended), &report, now()).expect("a write").progress;
        assert_eq!(both.ended_by, Some(fixtures::speaker().pod), "the end of another pod is another end");
        assert_eq!(progress(&of_attempt(1), Some(&both), &report, now()), None, "the same end again");
    }

    #[test]
    fn an_end_without_any_progress_is_written_too() {
        let report = Report { end: Some(End::default()), ..Report::default() };
        let write = progress(&of_attempt(1), None, &report, now()).expect("a write");
        assert!(write.progress.ended_by.is_some() && write.urgent);
    }

    #[test]
    fn a_clock_ahead_of_ours_does_not_silence_the_run() {
        let report = later(|reported| reported.time = "2027-01-01T00:00:00Z".parse().ok());
        let write = progress(&of_attempt(1), None, &report, now()).expect("a write");
        assert_eq!(write.progress.last_report_time, Some(Time(now())));
    }

    #[test]
    fn times_are_short() {
        for (seconds, text) in
            [(0, "<1m"), (59, "<1m"), (60, "1m"), (720, "12m"), (3900, "1h 5m"), (7200, "2h"), (90_000, "1d 1h"), (-5, "<1m")]
        {
            assert_eq!(eta(seconds), text);
        }
    }

    #[test]
    fn percent_needs_a_total_and_stays_in_bounds() {
        assert_eq!(percent(5, None), None);
        assert_eq!(percent(5, Some(0)), None);
        assert_eq!(percent(299, Some(300)), Some(99));
        assert_eq!(percent(400, Some(300)), Some(100));
        let unknown = Progress { step: 7, ..Progress::default() };
        assert_eq!(summary(&unknown), "step 7");
    }
}
