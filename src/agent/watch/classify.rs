//! Why a trainer failed, as far as its exit and the end of its log tell: reason, message, hint, and whose
//! fault it is. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::diverge::Row;
use super::log::message;
use crate::api::Failure;
use crate::protocol::exit;

/// Most lines and bytes of the log a message quotes.
const QUOTED_LINES: usize = 12;
const QUOTED_BYTES: usize = 1500;

/// What a failed trainer leaves.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Exit code, 128 and more for a signal.
    pub exit_code: i32,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel is known to have ended it for want of memory.
    pub out_of_memory: bool,
    /// End of the log.
    pub log: &'a [String],
    /// Parameters it was given.
    pub parameters: &'a BTreeMap<String, Value>,
    /// The newest loss and those before it that were no numbers.
    pub lost: Option<Row>,
    /// The learning rate it last logged.
    pub learning_rate: Option<&'a str>,
}

/// One class of failure: the texts that prove it, of which one must be there.
struct Class {
    reason: &'static str,
    signs: &'static [&'static str],
}

const CLASSES: [Class; 4] = [
    Class {
        reason: "GpuOutOfMemory",
        signs: &["torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError", "CUDA out of memory", "HIP out of memory"],
    },
    Class { reason: "StorageFull", signs: &["No space left on device", "[Errno 28]", "Disk quota exceeded", "[Errno 122]"] },
    Class {
        reason: "ModelAccessDenied",
        signs: &[
            "GatedRepoError",
            "Cannot access gated repo",
            "is a gated repo",
            "401 Client Error",
            "403 Client Error",
            "Access to model",
            "Invalid user token",
            "Invalid username or password",
        ],
    },
    Class {
        reason: "DatasetInvalid",
        signs: &[
            "DatasetNotFoundError",
            "EmptyDatasetError",
            "DataFilesNotFoundError",
            "DatasetGenerationError",
            "Couldn't find any data file",
            "doesn't exist on the Hub or cannot be accessed",
            "DatasetGenerationCastError",
            "got num_samples=0",
            "not in the dataset. Current columns",
            "No columns in the dataset match",
        ],
    },
];

/// Why the trainer failed; nothing where it ended with 0.
#[must_use]
pub fn failure(evidence: &Evidence<'_>) -> Option<Failure> {
    if evidence.exit_code == 0 {
        return None;
    }
    let sign = CLASSES.iter().find_map(|class| Some((class.reason, line_with(evidence.log, class.signs)?)));
    let ended = matches!(evidence.exit_code, 137 | 143) || matches!(evidence.signal, Some(9 | 15));
    let (reason, said, user_error) = match sign {
        // Memory comes first: a trainer that was killed may have said all kinds of things before.
        _ if evidence.out_of_memory => ("OutOfMemory", "the kernel ended the trainer: its memory limit was reached".into(), true),
        Some((reason, line)) => (reason, quoted(line), true),
        None if stopped_by_launcher(evidence.log) || ended => ("Interrupted", killed(evidence), false),
        None if evidence.lost.is_some() => return Some(diverged(evidence)),
        None => ("ScriptError", script_error(evidence), true),
    };
    Some(classed(reason, said, user_error, evidence))
}

fn classed(reason: &str, message: String, user_error: bool, evidence: &Evidence<'_>) -> Failure {
    Failure {
        reason: reason.to_owned(),
        message,
        hint: hint(reason, evidence),
        field: field(reason).map(str::to_owned),
        exit_code: Some(evidence.exit_code),
        user_error,
    }
}

/// The failure of a run whose loss has ceased to be a number.
#[must_use]
pub fn diverged(evidence: &Evidence<'_>) -> Failure {
    let Row { since, count } = evidence.lost.unwrap_or_default();
    let message = match count {
        0 | 1 => format!("the loss was not a number at step {since}"),
        _ => format!("the loss was not a number at {count} logged points in a row, from step {since} on"),
    };
    classed("Diverged", message, true, evidence)
}

/// The code the container ends with. A class that only the user can mend is never retried; a script error
/// may pass, so it keeps its own code unless that is one of ours.
#[must_use]
pub fn exit_code(failure: &Failure, own: i32) -> i32 {
    let reserved = [exit::USER_ERROR, exit::INTERRUPTED, exit::INCOMPLETE];
    match failure.reason.as_str() {
        "ScriptError" | "Interrupted" if reserved.contains(&own) => 1,
        "ScriptError" | "Interrupted" => own,
        _ => exit::USER_ERROR,
    }
}

/// The last line that holds one of the signs.
fn line_with<'a>(log: &'a [String], signs: &[&str]) -> Option<&'a str> {
    let lines = log.iter().rev().map(|line| message(line));
    lines.into_iter().find(|line| signs.iter().any(|sign| line.contains(sign)))
}

/// What a launcher of several processes says when it was asked to stop: it then ends with 1.
fn stopped_by_launcher(log: &[String]) -> bool {
    line_with(log, &["SignalException: Process", "got signal: 15"]).is_some()
}

fn killed(evidence: &Evidence<'_>) -> String {
    match evidence.signal {
        Some(signal) => format!("the trainer was ended by signal {signal}"),
        None => format!("the trainer ended with code {}", evidence.exit_code),
    }
}

fn script_error(evidence: &Evidence<'_>) -> String {
    let lines: Vec<_> = evidence.log.iter().map(|line| without_rank(message(line)).trim_end()).collect();
    let lines = before_launcher(&lines);
    let start = lines.len().saturating_sub(QUOTED_LINES);
    let last = lines.get(start..).unwrap_or_default().join("\n");
    let cut = last.ceil_char_boundary(last.len().saturating_sub(QUOTED_BYTES));
    let last = last.get(cut..).unwrap_or_default();
    let ending = match evidence.signal {
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("ended with code {}", evidence.exit_code),
    };
    match lines.iter().rev().find(|line| is_exception(line)) {
        Some(error) => format!("the trainer {ending}: {}\n{last}", quoted(error)),
        None if last.is_empty() => format!("the trainer {ending} and logged nothing"),
        None => format!("the trainer {ending}; its last lines:\n{last}"),
    }
}

/// A line as its process wrote it: of several, each puts its rank before what ends it (`[rank0]: ValueError: no rows`).
fn without_rank(line: &str) -> &str {
    let prefixed = line.strip_prefix("[rank").and_then(|rest| rest.split_once("]: "));
    prefixed.filter(|(rank, _)| rank.bytes().all(|byte| byte.is_ascii_digit())).map_or(line, |(_, line)| line)
}

/// The lines before a launcher of several processes tells at length that one of them has failed.
fn before_launcher<'a, 'b>(lines: &'a [&'b str]) -> &'a [&'b str] {
    let told = lines.iter().position(|line| line.contains("failed (exitcode: ") && line.contains("local_rank: "));
    told.and_then(|told| lines.get(..told)).filter(|lines| !lines.is_empty()).unwrap_or(lines)
}

/// Whether a line is the last of a Python traceback, such as `ValueError: no rows`.
fn is_exception(line: &str) -> bool {
    let name = line.split_once(':').map_or(line, |(name, _)| name);
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'));
    plain && (name.ends_with("Error") || name.ends_with("Exception"))
}

fn quoted(line: &str) -> String {
    let line = line.trim();
    line.get(..line.floor_char_boundary(QUOTED_BYTES)).unwrap_or_default().to_owned()
}

fn hint(reason: &str, evidence: &Evidence<'_>) -> String {
    let value = |name: &'static str| Some(format!("{name} (now {})", evidence.parameters.get(name)?));
    let named = |names: &[&'static str]| names.iter().find_map(|name| value(name));
    match reason {
        "GpuOutOfMemory" => {
            let sizes = ["per_device_train_batch_size", "batch_size", "micro_batch_size", "train_batch_size"];
            let batch = named(&sizes).unwrap_or_else(|| "batch_size".to_owned());
            format!("halve {batch}, turn gradient checkpointing on, or choose a hardware profile with more GPU memory")
        }
        "OutOfMemory" => "choose a hardware profile with more memory, or load the data in smaller pieces".to_owned(),
        "StorageFull" => "give the output a larger volume, or keep fewer checkpoints (spec.checkpoints.keepLast)".to_owned(),
        "ModelAccessDenied" => {
            "accept the licence on the hub, and set huggingFace.secretName to a Secret whose key HF_TOKEN may read it".to_owned()
        }
        "DatasetInvalid" => "check that the dataset exists, has rows, and has the columns the script asks for".to_owned(),
        "Diverged" => {
            let logged = || evidence.learning_rate.map(|rate| format!("learning_rate (last logged as {rate})"));
            let pace = named(&["learning_rate", "lr"]).or_else(logged).unwrap_or_else(|| "learning_rate".to_owned());
            format!("lower {pace}, or clip gradients harder; with restarts raised it goes on from the last good checkpoint")
        }
        "ScriptError" => "read the end of the log; an error that passes by itself is retried".to_owned(),
        _ => String::new(),
    }
}

fn field(reason: &str) -> Option<&'static str> {
    match reason {
        "GpuOutOfMemory" | "Diverged" => Some("spec.parameters"),
        "OutOfMemory" => Some("spec.hardware.profile"),
        "StorageFull" => Some("spec.output"),
        "ModelAccessDenied" => Some("spec.baseModel"),
        "DatasetInvalid" => Some("spec.dataset"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(parameters: &BTreeMap<String, Value>) -> Evidence<'_> {
        Evidence { exit_code: 1, signal: None, out_of_memory: false, log: &[], parameters, lost: None, learning_rate: None }
    }

    fn classified(exit_code: i32, lines: &[&str]) -> Failure {
        let log: Vec<_> = lines.iter().map(|line| format!("2026-01-01T00:00:00Z {line}")).collect();
        let parameters = BTreeMap::from([
            ("per_device_train_batch_size".to_owned(), 8.into()),
            ("learning_rate".to_owned(), serde_json::json!(0.01)),
        ]);
        failure(&Evidence { exit_code, log: &log, parameters: &parameters, ..silent(&BTreeMap::new()) }).unwrap()
    }

    #[test]
    fn each_row_that_a_log_can_tell_is_told() {
        let rows: [(i32, &str, &str, bool, i32); 10] = [
            (1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "GpuOutOfMemory", true, 78),
            (1, "huggingface_hub.errors.GatedRepoError: 401 Client Error.", "ModelAccessDenied", true, 78),
            (1, "requests.exceptions.HTTPError: 403 Client Error: Forbidden for url", "ModelAccessDenied", true, 78),
            (1, "OSError: [Errno 28] No space left on device", "StorageFull", true, 78),
            (1, "datasets.exceptions.DatasetNotFoundError: Dataset 'x' doesn't exist", "DatasetInvalid", true, 78),
            (1, "ValueError: num_samples should be a positive integer value, but got num_samples=0", "DatasetInvalid", true, 78),
            (137, "working", "Interrupted", false, 137),
            (143, "working", "Interrupted", false, 143),
            (1, "SignalException: Process 7 got signal: 15", "Interrupted", false, 1),
            (3, "ValueError: nonsense", "ScriptError", true, 3),
        ];
        for (code, line, reason, user_error, mapped) in rows {
            let failure = classified(code, &["starting", line, "bye"]);
            assert_eq!((failure.reason.as_str(), failure.user_error), (reason, user_error), "{line}");
            assert_eq!(exit_code(&failure, code), mapped, "{line}");
            assert_eq!(failure.exit_code, Some(code));
        }
    }

    #[test]
    fn hints_name_the_value_that_is_too_large() {
        let memory = classified(1, &["RuntimeError: CUDA out of memory"]);
        assert!(memory.hint.contains("per_device_train_batch_size (now 8)"), "{}", memory.hint);
    }

    #[test]
    fn a_divergence_names_its_step_and_the_learning_rate() {
        let parameters = BTreeMap::from([("learning_rate".to_owned(), serde_json::json!(0.01))]);
        let lost = Some(Row { since: 7, count: 1 });
        let told = failure(&Evidence { lost, learning_rate: Some("0.003"), ..silent(&parameters) }).unwrap();
        assert_eq!((told.reason.as_str(), told.user_error, exit_code(&told, 1)), ("Diverged", true, 78));
        assert!(told.message.ends_with("at step 7") && told.hint.starts_with("lower learning_rate (now 0.01)"), "{told:?}");
        let lost = Some(Row { since: 40, count: 3 });
        let told = diverged(&Evidence { lost, learning_rate: Some("0.003"), ..silent(&BTreeMap::new()) });
        assert!(told.message.contains("3 logged points in a row, from step 40 on"), "{}", told.message);
        assert!(told.hint.starts_with("lower learning_rate (last logged as 0.003)"), "{}", told.hint);
    }

    #[test]
    fn a_script_error_quotes_the_exception_and_the_last_lines_within_bounds() {
        let long = "é".repeat(5000);
        let failure = classified(1, &["Traceback:", "my.pkg.CustomError: it broke", &long]);
        assert!(failure.message.starts_with("the trainer ended with code 1: my.pkg.CustomError: it broke"));
        assert!(failure.message.len() <= 4096);
        assert!(classified(1, &[]).message.ends_with("logged nothing"));
    }

    #[test]
    fn what_a_launcher_says_of_its_processes_does_not_hide_what_they_said() {
        let failure = classified(
            1,
            &[
                "[rank1]: Traceback (most recent call last):",
                "[rank1]: my.pkg.CustomError: it broke",
                "E1121 14:17:29.294000 12264 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 0 (pid: 7)",
                "Traceback (most recent call last):",
                "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
            ],
        );
        let said = "the trainer ended with code 1: my.pkg.CustomError: it broke\nTraceback (most recent call last):\nmy.pkg.CustomError: it broke";
        assert_eq!(failure.message, said);
    }

    #[test]
    fn codes_of_ours_are_never_taken_over_from_a_script() {
        for code in [78, 85, 86] {
            assert_eq!(exit_code(&classified(code, &["?"]), code), 1);
        }
    }

    #[test]
    fn a_kill_for_want_of_memory_beats_what_the_log_says() {
        let log = ["CUDA out of memory".to_owned()];
        let parameters = BTreeMap::new();
        let evidence = Evidence { exit_code: 137, signal: Some(9), out_of_memory: true, log: &log, ..silent(&parameters) };
        assert_eq!(failure(&evidence).unwrap().reason, "OutOfMemory");
        assert_eq!(failure(&Evidence { exit_code: 0, ..evidence }), None);
    }
}
