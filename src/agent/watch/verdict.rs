//! What an exited trainer's attempt counts as: trained to the end, interrupted, incomplete or failed.
//! Steps decide, never percentages: a trainer that was stopped says 100 % as well. Pure.

use jiff::Timestamp;

use crate::api::{Completion, Failure};
use crate::protocol::{End, exit};

use super::classify;
use super::given_up::GivenUp;

/// What is known when the trainer has exited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Exit code of the trainer, 128 and more for a signal.
    pub exit_code: i32,
    /// Whether it had been asked to stop.
    pub asked: bool,
    /// Why it was given up.
    pub given_up: Option<GivenUp>,
    /// What the runtime takes as the end of training.
    pub completion: Completion,
    /// Steps done in this attempt, as posts and saved states say.
    pub step: Option<i64>,
    /// Steps planned, as this attempt says.
    pub total: Option<i64>,
    /// Step of the newest verified checkpoint of the lineage.
    pub saved: Option<i64>,
    /// Whether this attempt recorded an end of training.
    pub recorded_end: bool,
    /// Why it failed, where it has diverged or exited with something else than 0.
    pub failure: Option<Failure>,
}

/// How the attempt ended.
#[must_use]
pub fn verdict(facts: &Facts) -> End {
    // Whatever step it has reached: what it has trained since is of no use, and more of the same brings no other.
    if matches!(facts.given_up, Some(GivenUp::Diverged(_))) {
        return End { exit_code: exit::USER_ERROR, failure: facts.failure.clone() };
    }
    let reached = |step: Option<i64>| facts.total.is_some_and(|total| total > 0 && step >= Some(total));
    // A trainer that fails at its last step has trained to the end only if that step is on record.
    let done = if facts.exit_code == 0 { reached(facts.step.max(facts.saved)) } else { reached(facts.saved) };
    if done {
        return End::default();
    }
    if let Some(GivenUp::Stalled { seconds, step, at }) = facts.given_up {
        return End { exit_code: exit::INCOMPLETE, failure: Some(stalled(facts, seconds, step, at)) };
    }
    if facts.exit_code != 0 {
        return failed(facts);
    }
    if facts.asked {
        return End { exit_code: exit::INTERRUPTED, failure: None };
    }
    if facts.recorded_end || facts.completion == Completion::ExitCode {
        return End::default();
    }
    End { exit_code: exit::INCOMPLETE, failure: Some(incomplete(facts)) }
}

fn failed(facts: &Facts) -> End {
    let Some(failure) = &facts.failure else {
        return End { exit_code: facts.exit_code, failure: None };
    };
    let exit_code = classify::exit_code(failure, facts.exit_code);
    // Whatever a script says while it is being stopped, the stop is why it ended.
    if facts.asked && exit_code != exit::USER_ERROR {
        return End { exit_code: exit::INTERRUPTED, failure: None };
    }
    End { exit_code, failure: Some(failure.clone()) }
}

fn incomplete(facts: &Facts) -> Failure {
    let place = match (facts.step, facts.total) {
        (Some(step), Some(total)) => format!("at step {step} of {total}"),
        (Some(step), None) => format!("at step {step} and recorded no end of training"),
        _ => "and recorded no end of training".to_owned(),
    };
    Failure {
        reason: "IncompleteRun".to_owned(),
        message: format!("the trainer ended with code 0 {place}"),
        hint: "it resumes by itself; if exit code 0 is all that this script says, set completion: ExitCode in its \
               TrainingRuntime"
            .to_owned(),
        exit_code: Some(0),
        ..Failure::default()
    }
}

fn stalled(facts: &Facts, seconds: u32, step: Option<i64>, at: Option<Timestamp>) -> Failure {
    let place = step.map_or_else(|| "before its first step".to_owned(), |step| format!("after step {step}"));
    let time = at.map(|at| format!("; the last sign of life came at {at:.0}")).unwrap_or_default();
    Failure {
        reason: "Stalled".to_owned(),
        message: format!("no new step, line or file came for {seconds} seconds {place}{time}"),
        hint: "it resumes by itself; if it is silent for that long at work, have the operator's stall timeout raised".to_owned(),
        exit_code: Some(facts.exit_code),
        ..Failure::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::diverge::Row;
    use super::*;

    fn facts(exit_code: i32, asked: bool, step: i64, recorded_end: bool) -> Facts {
        Facts { exit_code, asked, step: Some(step), total: Some(100), recorded_end, ..Facts::default() }
    }

    fn failure(reason: &str) -> Failure {
        Failure { reason: reason.to_owned(), ..Failure::default() }
    }

    const STALLED: GivenUp = GivenUp::Stalled { seconds: 600, step: Some(40), at: None };

    fn diverged(exit_code: i32, step: i64) -> Facts {
        let given_up = Some(GivenUp::Diverged(Row { since: 30, count: 3 }));
        Facts { given_up, failure: Some(failure("Diverged")), saved: Some(step), ..facts(exit_code, true, step, false) }
    }

    #[test]
    fn every_way_to_end_has_its_code() {
        let script = Facts { failure: Some(failure("ScriptError")), ..facts(1, false, 40, false) };
        let gpu = Facts { failure: Some(failure("GpuOutOfMemory")), ..facts(1, false, 40, false) };
        let killed = Facts { failure: Some(failure("Interrupted")), ..facts(137, false, 40, false) };
        let rows = [
            ("trained to the end", facts(0, false, 100, false), 0, None),
            ("asked to stop just after the last step", facts(0, true, 100, true), 0, None),
            ("asked to stop at 40 %, exits 0 and posts 100 %", facts(0, true, 40, true), 85, None),
            ("stopped early by its own rule", facts(0, false, 40, true), 0, None),
            ("exits 0 without a word", facts(0, false, 40, false), 86, Some("IncompleteRun")),
            (
                "a runtime where exit 0 is enough",
                Facts { completion: Completion::ExitCode, ..facts(0, false, 40, false) },
                0,
                None,
            ),
            (
                "such a runtime, but asked to stop",
                Facts { completion: Completion::ExitCode, ..facts(0, true, 40, false) },
                85,
                None,
            ),
            ("a script error", script.clone(), 1, Some("ScriptError")),
            ("a script error after being asked", Facts { asked: true, ..script.clone() }, 85, None),
            ("a certain user error", gpu.clone(), 78, Some("GpuOutOfMemory")),
            ("a certain user error although asked", Facts { asked: true, ..gpu }, 78, Some("GpuOutOfMemory")),
            ("killed from outside", killed.clone(), 137, Some("Interrupted")),
            ("asked and then killed", Facts { asked: true, ..killed }, 85, None),
            ("fails at the last step, which was saved", Facts { saved: Some(100), ..script.clone() }, 0, None),
            (
                "fails at the last step, which was not saved",
                Facts { step: Some(100), saved: Some(80), ..script },
                1,
                Some("ScriptError"),
            ),
            ("given up for want of steps", Facts { given_up: Some(STALLED), ..facts(0, true, 40, false) }, 86, Some("Stalled")),
            ("given up just as it came to its end", Facts { given_up: Some(STALLED), ..facts(0, false, 100, true) }, 0, None),
            ("diverged, and ended for it", diverged(143, 40), 78, Some("Diverged")),
            ("diverged to the very end", diverged(0, 100), 78, Some("Diverged")),
            (
                "asked to stop at its last step, but killed before that was saved",
                Facts { failure: Some(failure("Interrupted")), saved: Some(80), ..facts(143, true, 100, false) },
                85,
                None,
            ),
            ("nothing known at all", Facts::default(), 86, Some("IncompleteRun")),
            ("nothing known, asked", Facts { asked: true, ..Facts::default() }, 85, None),
            (
                "a plan of no steps proves nothing",
                Facts { total: Some(0), ..facts(0, false, 0, false) },
                86,
                Some("IncompleteRun"),
            ),
        ];
        for (what, facts, code, reason) in rows {
            let end = verdict(&facts);
            assert_eq!(end.exit_code, code, "{what}");
            assert_eq!(end.failure.as_ref().map(|failure| failure.reason.as_str()), reason, "{what}");
        }
    }
}
