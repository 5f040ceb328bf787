//! The log of a run: what it left, and what its pod says now.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as corev1;
use kube::{ResourceExt, api::LogParams};
use serde::Serialize;
use utoipa::ToSchema;

use super::cluster::{Selection, or_nothing};
use super::{Session, runs};
use crate::api::{FineTune, FineTuneHistory, names};
use crate::gateway::errors::Refusal;

/// Most lines of one answer.
pub const MOST_LINES: usize = 5000;
/// Most bytes read from a pod.
const MOST_BYTES: i64 = 4 * 1024 * 1024;
/// The container that trains.
const TRAINER: &str = "trainer";

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LogLine)]
pub struct Line {
    /// When it was written.
    #[serde(rename = "timestamp")]
    pub time: Option<Timestamp>,
    /// How bad it is, as far as it can be told.
    pub level: Level,
    /// The text.
    pub message: String,
}

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LogLevel)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
}

/// The last `lines` lines since a time.
///
/// # Errors
/// The caller may not, or the API server does not answer.
pub async fn read(session: &Session, run: &FineTune, lines: usize, since: Option<Timestamp>) -> Result<Vec<Line>, Refusal> {
    let lines = lines.min(MOST_LINES);
    let history = runs::history(session, run).await?;
    let live = live(session, run, lines, since).await?;
    let kept = left(history.as_ref(), live.as_ref().map(|(attempt, _)| *attempt));
    let now = live.into_iter().flat_map(|(_, text)| text.lines().map(line).collect::<Vec<_>>());
    let all: Vec<Line> = kept.into_iter().chain(now).filter(|line| is_since(line, since)).collect();
    Ok(all[all.len().saturating_sub(lines)..].to_vec())
}

/// What the pod of the newest attempt says, and the number of that attempt; nothing where there is no pod or the caller may not see it.
async fn live(
    session: &Session,
    run: &FineTune,
    lines: usize,
    since: Option<Timestamp>,
) -> Result<Option<(i64, String)>, Refusal> {
    let uid = run.uid().unwrap_or_default();
    let ours = format!("{}={},{}={}", names::FINE_TUNE_UID, uid, names::ROLE, names::ROLE_TRAIN);
    let pods: Vec<corev1::Pod> = or_nothing(session.cluster.list(&Selection { labels: Some(ours), fields: None }).await)?;
    let first_node = |pod: &&corev1::Pod| pod.annotations().get(names::COMPLETION_INDEX).is_none_or(|rank| rank == "0");
    let newest = pods.iter().filter(first_node).max_by_key(|pod| pod.creation_timestamp().map(|time| time.0));
    let Some(pod) = newest else { return Ok(None) };
    let attempt = pod.labels().get(names::ATTEMPT).and_then(|attempt| attempt.parse().ok()).unwrap_or_default();
    let params = LogParams {
        container: Some(TRAINER.into()),
        tail_lines: i64::try_from(lines).ok(),
        limit_bytes: Some(MOST_BYTES),
        since_time: since,
        timestamps: true,
        ..LogParams::default()
    };
    let text = or_nothing(session.cluster.log(&pod.name_any(), &params).await)?;
    Ok(text.filter(|text| !text.is_empty()).map(|text| (attempt, text)))
}

/// What earlier attempts left, oldest first; the one that speaks for itself is left out.
fn left(history: Option<&FineTuneHistory>, live: Option<i64>) -> Vec<Line> {
    let mut logs: Vec<_> =
        history.iter().flat_map(|history| &history.spec.logs).filter(|log| Some(log.attempt) != live).collect();
    logs.sort_by_key(|log| log.attempt);
    logs.into_iter().flat_map(|log| log.lines.iter().map(|text| line(text))).collect()
}

fn is_since(line: &Line, since: Option<Timestamp>) -> bool {
    since.is_none_or(|since| line.time.is_some_and(|time| time > since))
}

/// A line that begins with its time.
fn line(text: &str) -> Line {
    let timed = text.split_once(' ').and_then(|(time, rest)| Some((time.parse::<Timestamp>().ok()?, rest)));
    let (time, message) = timed.map_or((None, text), |(time, rest)| (Some(time), rest));
    Line { time, level: level(message), message: message.to_owned() }
}

/// The level a line speaks of: trainers name it in many ways, and errors of Python end in a word.
fn level(message: &str) -> Level {
    let head = message.get(..message.len().min(200)).unwrap_or(message).to_ascii_uppercase();
    let words = |wanted: &[&str]| head.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| wanted.contains(&word));
    let raised = head.split(':').next().is_some_and(|first| !first.contains(' ') && first.ends_with("ERROR"));
    if words(&["ERROR", "CRITICAL", "FATAL", "TRACEBACK"]) || raised {
        Level::Error
    } else if words(&["WARNING", "WARN", "FUTUREWARNING", "USERWARNING", "DEPRECATIONWARNING"]) {
        Level::Warn
    } else {
        Level::Info
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_has_its_time_and_a_level() {
        let read = line("2027-01-15T07:00:00.123456789Z WARNING: low disk");
        assert_eq!(read.time, "2027-01-15T07:00:00.123456789Z".parse().ok());
        assert_eq!((read.level, read.message.as_str()), (Level::Warn, "WARNING: low disk"));
        let cases = [
            ("torch.OutOfMemoryError: CUDA out of memory", Level::Error),
            ("Traceback (most recent call last):", Level::Error),
            ("[rank0]: ERROR something", Level::Error),
            ("x.py:3: FutureWarning: y", Level::Warn),
            ("{'loss': 0.3, 'errors': 0}", Level::Info),
            ("terror and forewarning", Level::Info),
            ("", Level::Info),
        ];
        for (text, expected) in cases {
            assert_eq!(line(text).level, expected, "{text}");
        }
        assert_eq!(line("no time here").time, None);
    }

    #[test]
    fn the_attempt_that_speaks_for_itself_is_not_told_twice() {
        let history: FineTuneHistory = serde_json::from_value(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneHistory", "metadata": {"name": "bot"},
            "spec": {"logs": [{"attempt": 2, "lines": ["2027-01-15T08:00:00Z b"]}, {"attempt": 1, "lines": ["2027-01-15T07:00:00Z a"]}]},
        }))
        .unwrap();
        let texts = |live| left(Some(&history), live).into_iter().map(|line| line.message).collect::<Vec<_>>();
        assert_eq!(texts(None), ["a", "b"]);
        assert_eq!(texts(Some(2)), ["a"]);
    }
}
