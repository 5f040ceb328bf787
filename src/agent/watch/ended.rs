//! What the wrapper says of the trainer's end, and what it is answered. Pure.

use crate::api::Failure;
use crate::checkpoint_files::cut;
use crate::protocol::{End, FilesState, ReportedCheckpoint, TerminationMessage};

/// Most bytes of the answer's message.
const MAX_MESSAGE: usize = 3 << 10;

/// How the trainer exited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Exit code, 128 and more for a signal.
    pub exit: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it had been asked to stop.
    pub asked: bool,
    /// Whether the kernel ended it for want of memory, where the wrapper knows.
    pub out_of_memory: bool,
}

impl Ended {
    /// Reads `key=value` lines; nothing without an exit code. Keys that are not known are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once('='));
            pairs.find_map(|(name, value)| (name.trim() == key).then(|| value.trim()))
        };
        let truth = |key| matches!(value(key), Some("1" | "true"));
        Some(Self {
            exit: value("exit")?.parse().ok()?,
            signal: value("signal").and_then(|signal| signal.parse().ok()).filter(|signal| *signal > 0),
            asked: truth("asked"),
            out_of_memory: truth("oom"),
        })
    }
}

/// The answer the wrapper waits for: the exit code, and what is left to say where no report arrives.
#[must_use]
pub fn answer(end: &End, checkpoints: &[ReportedCheckpoint], lineage: i64, delivered: bool) -> String {
    let ready = |it: &&ReportedCheckpoint| it.lineage == lineage && it.state == FilesState::Ready;
    let mut steps: Vec<_> = checkpoints.iter().filter(ready).map(|it| it.step).collect();
    steps.sort_unstable();
    let mut message = TerminationMessage { failure: end.failure.clone(), lineage, steps, delivered };
    let mut text = serde_json::to_string(&message).unwrap_or_default();
    while text.len() > MAX_MESSAGE {
        shorten(&mut message);
        text = serde_json::to_string(&message).unwrap_or_default();
    }
    // The container can end only with a code of 8 bits.
    let exit = u8::try_from(end.exit_code).unwrap_or(1);
    format!("exit={exit}\nmessage={text}\n")
}

/// Leaves out the oldest half of many steps, else half of the longest text.
fn shorten(message: &mut TerminationMessage) {
    const FEW: usize = 64;
    match &mut message.failure {
        Some(failure) if message.steps.len() <= FEW => halve(failure),
        _ => {
            message.steps.drain(..message.steps.len().div_ceil(2));
        }
    }
}

fn halve(failure: &mut Failure) {
    let text = if failure.hint.len() > failure.message.len() { &mut failure.hint } else { &mut failure.message };
    *text = cut(text, text.len() / 2).to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::fixtures::reported;

    #[test]
    fn the_wrappers_words_are_read() {
        let text = "exit=137\nsignal=9\nasked=1\ntime=2026-01-01T00:00:00Z\nmore=x\noom=1\n";
        let expected = Ended { exit: 137, signal: Some(9), asked: true, out_of_memory: true };
        assert_eq!(Ended::parse(text), Some(expected));
        assert_eq!(Ended::parse("exit=0\nsignal=0\nasked=0\n"), Some(Ended::default()));
        assert_eq!(Ended::parse("signal=9\n"), None);
    }

    #[test]
    fn the_answer_fits_whatever_there_is_to_say() {
        let checkpoints: Vec<_> = (0..1000).map(|at| reported(at * 1_000_000)).collect();
        let failure = Failure { message: "\u{1}\n".repeat(2000), hint: "x".repeat(900), ..Failure::default() };
        let end = End { exit_code: 78, failure: Some(failure) };
        let text = answer(&end, &checkpoints, 1, true);
        let message = text.strip_prefix("exit=78\nmessage=").unwrap().trim_end();
        assert!(message.len() <= MAX_MESSAGE && !message.contains('\n'));
        let message: TerminationMessage = serde_json::from_str(message).unwrap();
        assert!(message.delivered && message.failure.is_some());
        assert_eq!(message.steps.last(), Some(&999_000_000));
        assert!(answer(&End { exit_code: 300, failure: None }, &[], 1, false).starts_with("exit=1\n"));
    }
}
