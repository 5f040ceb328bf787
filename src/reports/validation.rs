//! Whether every field of a report is within bounds; the first that is not is named by its JSON path. Pure.

use std::collections::BTreeMap;

use super::authorization::RunSpeaker;
use super::refusal::Refusal;
use crate::api::{AdapterFacts, Failure, FineTune, Series};
use crate::protocol::{MAX_REPORTED_CHECKPOINTS, Report, ReportedCheckpoint, ReportedProgress};

/// Greatest number of optimizer updates believed.
const MAX_STEP: i64 = 1_000_000_000_000;
/// Greatest size, count or duration believed.
const MAX_COUNT: i64 = 1 << 60;
const MAX_METRICS: usize = 64;
const MAX_SERIES: usize = 64;
const MAX_POINTS: usize = 1000;
const MAX_LOG_LINES: usize = 200;

/// What a speaker may speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Greatest lineage of a checkpoint.
    pub lineage: i64,
    /// Greatest attempt of a checkpoint.
    pub attempt: i64,
    /// Most checkpoints.
    pub checkpoints: usize,
}

impl Bounds {
    /// Bounds of a pod of a run. A lineage may be one ahead of the status, together with its attempt.
    #[must_use]
    pub(crate) fn of_run(speaker: &RunSpeaker, fine_tune: &FineTune) -> Self {
        let (attempt, lineage) = fine_tune.status.as_ref().map_or((0, 0), |status| (status.attempt, status.lineage));
        let ahead = i64::from(speaker.attempt > attempt);
        Self { lineage: lineage.saturating_add(ahead).max(1), attempt: speaker.attempt, checkpoints: MAX_REPORTED_CHECKPOINTS }
    }

    /// Bounds of an import: one checkpoint, whose place in a run means nothing.
    #[must_use]
    pub(crate) const fn of_import() -> Self {
        Self { lineage: MAX_STEP, attempt: MAX_STEP, checkpoints: 1 }
    }
}

/// Checks a report.
///
/// # Errors
/// The first field that is out of bounds.
pub(crate) fn validate(report: &Report, bounds: Bounds) -> Result<(), Refusal> {
    if let Some(step) = report.resumed_from {
        within("resumedFrom", step, MAX_STEP)?;
    }
    if let Some(progress) = &report.progress {
        validate_progress(progress)?;
    }
    at_most("checkpoints", report.checkpoints.len(), bounds.checkpoints)?;
    for (index, checkpoint) in report.checkpoints.iter().enumerate() {
        validate_checkpoint(&format!("checkpoints[{index}]"), checkpoint, bounds)?;
    }
    at_most("series", report.series.len(), MAX_SERIES)?;
    for (index, series) in report.series.iter().enumerate() {
        validate_series(&format!("series[{index}]"), series)?;
    }
    if let Some(index) = repeated(&report.series) {
        return Err(Refusal::invalid(format!("series[{index}].name"), "is there twice"));
    }
    at_most("log", report.log.len(), MAX_LOG_LINES)?;
    for (index, line) in report.log.iter().enumerate() {
        text(&format!("log[{index}]"), line, 2048)?;
    }
    match report.end.as_ref().and_then(|end| end.failure.as_ref()) {
        Some(failure) => validate_failure("end.failure", failure),
        None => Ok(()),
    }
}

fn validate_progress(progress: &ReportedProgress) -> Result<(), Refusal> {
    within("progress.step", progress.step, MAX_STEP)?;
    for (field, value, most) in [
        ("progress.totalSteps", progress.total_steps, MAX_STEP),
        ("progress.trainedTokens", progress.trained_tokens, MAX_COUNT),
        ("progress.estimatedRemainingSeconds", progress.estimated_remaining_seconds, MAX_COUNT),
    ] {
        if let Some(value) = value {
            within(field, value, most)?;
        }
    }
    for (field, value) in [("progress.epoch", &progress.epoch), ("progress.totalEpochs", &progress.total_epochs)] {
        if let Some(value) = value {
            decimal(field, value, 32)?;
        }
    }
    metrics("progress.metrics", &progress.metrics)
}

fn validate_checkpoint(at: &str, checkpoint: &ReportedCheckpoint, bounds: Bounds) -> Result<(), Refusal> {
    within(&format!("{at}.step"), checkpoint.step, MAX_STEP)?;
    within(&format!("{at}.lineage"), checkpoint.lineage, bounds.lineage)?;
    within(&format!("{at}.attempt"), checkpoint.attempt, bounds.attempt)?;
    within(&format!("{at}.sizeBytes"), checkpoint.size_bytes, MAX_COUNT)?;
    within(&format!("{at}.fileCount"), checkpoint.file_count, MAX_COUNT)?;
    text(&format!("{at}.message"), &checkpoint.message, 1024)?;
    if let Some(digest) = &checkpoint.digest {
        text(&format!("{at}.digest"), digest, 80)?;
    }
    metrics(&format!("{at}.metrics"), &checkpoint.metrics)?;
    at_most(&format!("{at}.samples"), checkpoint.samples.len(), 20)?;
    for (index, sample) in checkpoint.samples.iter().enumerate() {
        text(&format!("{at}.samples[{index}]"), sample, 1024)?;
    }
    checkpoint.adapter.as_ref().map_or(Ok(()), |adapter| validate_adapter(&format!("{at}.adapter"), adapter))
}

fn validate_adapter(at: &str, adapter: &AdapterFacts) -> Result<(), Refusal> {
    within(&format!("{at}.rank"), adapter.rank, MAX_STEP)?;
    for (field, modules) in [("targetModules", &adapter.target_modules), ("modulesToSave", &adapter.modules_to_save)] {
        at_most(&format!("{at}.{field}"), modules.len(), 256)?;
        for (index, module) in modules.iter().enumerate() {
            text(&format!("{at}.{field}[{index}]"), module, 256)?;
        }
    }
    adapter.base_model.as_ref().map_or(Ok(()), |base| text(&format!("{at}.baseModel"), base, 512))
}

fn validate_series(at: &str, series: &Series) -> Result<(), Refusal> {
    name(&format!("{at}.name"), &series.name)?;
    at_most(&format!("{at}.steps"), series.steps.len(), MAX_POINTS)?;
    if series.values.len() != series.steps.len() {
        return Err(Refusal::invalid(format!("{at}.values"), "must have one value a step"));
    }
    for (index, step) in series.steps.iter().enumerate() {
        within(&format!("{at}.steps[{index}]"), *step, MAX_STEP)?;
    }
    if let Some(index) = series.steps.iter().zip(series.steps.iter().skip(1)).position(|(one, next)| one >= next) {
        return Err(Refusal::invalid(format!("{at}.steps[{}]", index + 1), "must be greater than the one before"));
    }
    series.values.iter().enumerate().try_for_each(|(index, value)| decimal(&format!("{at}.values[{index}]"), value, 32))
}

fn validate_failure(at: &str, failure: &Failure) -> Result<(), Refusal> {
    text(&format!("{at}.reason"), &failure.reason, 64)?;
    text(&format!("{at}.message"), &failure.message, 4096)?;
    text(&format!("{at}.hint"), &failure.hint, 1024)?;
    failure.field.as_ref().map_or(Ok(()), |field| text(&format!("{at}.field"), field, 256))
}

fn metrics(at: &str, metrics: &BTreeMap<String, String>) -> Result<(), Refusal> {
    at_most(at, metrics.len(), MAX_METRICS)?;
    for (index, (key, value)) in metrics.iter().enumerate() {
        name(&format!("{at}.keys[{index}]"), key)?;
        decimal(&format!("{at}.{key}"), value, 64)?;
    }
    Ok(())
}

fn repeated(series: &[Series]) -> Option<usize> {
    let mut seen = std::collections::BTreeSet::new();
    series.iter().position(|series| !seen.insert(series.name.as_str()))
}

fn within(field: &str, value: i64, most: i64) -> Result<(), Refusal> {
    if (0..=most).contains(&value) {
        return Ok(());
    }
    Err(Refusal::invalid(field, format!("must be between 0 and {most}")))
}

fn at_most(field: &str, count: usize, most: usize) -> Result<(), Refusal> {
    if count <= most {
        return Ok(());
    }
    Err(Refusal::invalid(field, format!("must have at most {most} entries")))
}

fn text(field: &str, value: &str, most: usize) -> Result<(), Refusal> {
    if value.chars().count() <= most {
        return Ok(());
    }
    Err(Refusal::invalid(field, format!("must have at most {most} characters")))
}

/// Names of metrics are what trainers log under, such as `rewards/chosen`.
fn name(field: &str, value: &str) -> Result<(), Refusal> {
    let printable = !value.is_empty() && value.chars().all(|letter| letter.is_ascii_graphic() || letter == ' ');
    if printable && value.len() <= 64 {
        return Ok(());
    }
    Err(Refusal::invalid(field, "must be 1 to 64 printable ASCII characters"))
}

fn decimal(field: &str, value: &str, most: usize) -> Result<(), Refusal> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if digits && value.len() <= most && value.parse::<f64>().is_ok_and(f64::is_finite) {
        return Ok(());
    }
    Err(Refusal::invalid(field, format!("must be a finite decimal of at most {most} characters")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::fixtures;

    const BOUNDS: Bounds = Bounds { lineage: 2, attempt: 3, checkpoints: 1000 };

    fn field(change: impl FnOnce(&mut Report)) -> Option<String> {
        let mut report = fixtures::report();
        change(&mut report);
        match validate(&report, BOUNDS) {
            Err(Refusal::Invalid { field, .. }) => Some(field),
            Err(other) => Some(other.to_string()),
            Ok(()) => None,
        }
    }

    #[test]
    fn an_ordinary_report_passes() {
        assert_eq!(field(|_| ()), None);
        assert_eq!(field(|report| *report = Report::default()), None);
    }

    #[test]
    fn every_field_out_of_bounds_is_named() {
        type Change = fn(&mut Report);
        fn progress(report: &mut Report) -> &mut ReportedProgress {
            report.progress.get_or_insert_default()
        }
        let changes: &[(&str, Change)] = &[
            ("resumedFrom", |report| report.resumed_from = Some(-1)),
            ("progress.step", |report| progress(report).step = MAX_STEP + 1),
            ("progress.totalSteps", |report| progress(report).total_steps = Some(-1)),
            ("progress.epoch", |report| progress(report).epoch = Some("one".into())),
            ("progress.metrics.loss", |report| {
                progress(report).metrics.insert("loss".into(), "NaN".into());
            }),
            ("progress.metrics.big", |report| {
                progress(report).metrics.insert("big".into(), "1e999".into());
            }),
            ("progress.metrics.keys[0]", |report| {
                progress(report).metrics.insert("\u{7}".into(), "1".into());
            }),
            ("progress.metrics", |report| {
                progress(report).metrics = (0..65).map(|n| (n.to_string(), "1".into())).collect();
            }),
            ("checkpoints", |report| {
                let one = report.checkpoints[0].clone();
                report.checkpoints = vec![one; 1001];
            }),
            ("checkpoints[0].step", |report| report.checkpoints[0].step = -1),
            ("checkpoints[0].lineage", |report| report.checkpoints[0].lineage = 3),
            ("checkpoints[0].attempt", |report| report.checkpoints[0].attempt = 4),
            ("checkpoints[0].sizeBytes", |report| report.checkpoints[0].size_bytes = -1),
            ("checkpoints[0].digest", |report| report.checkpoints[0].digest = Some("d".repeat(81))),
            ("checkpoints[0].samples[0]", |report| report.checkpoints[0].samples = vec!["s".repeat(1025)]),
            ("checkpoints[0].samples", |report| report.checkpoints[0].samples = vec![String::new(); 21]),
            ("checkpoints[0].adapter.targetModules", |report| {
                let modules = vec!["q".into(); 257];
                report.checkpoints[0].adapter = Some(AdapterFacts { target_modules: modules, ..AdapterFacts::default() });
            }),
            ("series[0].values", |report| report.series[0].values.clear()),
            ("series[0].steps[1]", |report| report.series[0].steps = vec![5, 5]),
            ("series[0].values[1]", |report| report.series[0].values[1] = "x".into()),
            ("series[1].name", |report| report.series = vec![report.series[0].clone(), report.series[0].clone()]),
            ("log", |report| report.log = vec![String::new(); 201]),
            ("log[0]", |report| report.log = vec!["l".repeat(2049)]),
            ("end.failure.message", |report| {
                let failure = Failure { message: "m".repeat(4097), ..Failure::default() };
                report.end = Some(crate::protocol::End { exit_code: 1, failure: Some(failure) });
            }),
        ];
        for (expected, change) in changes {
            assert_eq!(field(*change).as_deref(), Some(*expected));
        }
    }

    #[test]
    fn numbers_as_trainers_print_them_are_decimals() {
        for value in ["0", "-0.5", "1e-05", "2.93e+17", "123456789.123456789"] {
            assert_eq!(decimal("f", value, 32), Ok(()), "{value}");
        }
        for value in ["", "inf", "-Infinity", "nan", "0x1", "1 ", "1_000"] {
            assert!(decimal("f", value, 32).is_err(), "{value}");
        }
    }

    #[test]
    fn a_lineage_may_be_one_ahead_together_with_its_attempt() {
        let fine_tune = fixtures::fine_tune();
        let speaker = fixtures::speaker();
        assert_eq!(Bounds::of_run(&speaker, &fine_tune).lineage, 1);
        let next = RunSpeaker { attempt: 2, ..speaker };
        assert_eq!(Bounds::of_run(&next, &fine_tune).lineage, 2);
    }
}
