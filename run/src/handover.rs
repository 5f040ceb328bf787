//! The handover to the sidecar: `ended` tells it that the trainer has ended, `drained` is its answer; by `terminate` it gives an
//! attempt up before that.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::SystemTime;

use crate::args::Completion;
use crate::child::Ended;
use crate::time::rfc3339;

/// Exit 0 after having been asked to stop: not counted, resumes.
const STOPPED: u8 = 85;
/// Exit 0 that nobody can explain: counted, resumes.
const UNEXPLAINED: u8 = 86;
/// The most Kubernetes keeps of a termination message.
const LONGEST_MESSAGE: usize = 4096;
/// The most that is read of an answer.
const LONGEST_ANSWER: u64 = 64 << 10;

/// The file by which the sidecar gives an attempt up.
const GIVEN_UP: &str = "terminate";

/// Whether the sidecar has given the attempt up.
pub(crate) fn is_given_up(dir: &Path) -> bool {
    dir.join(GIVEN_UP).exists()
}

/// What the sidecar decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) exit: u8,
    pub(crate) message: Option<String>,
}

/// Removes what an earlier container of the same pod has left.
pub(crate) fn clear(dir: &Path) {
    for name in ["ended", "drained", GIVEN_UP] {
        // Most often there is nothing to remove.
        let _ = fs::remove_file(dir.join(name));
    }
}

/// The text of `ended`.
fn ended_text(ended: Ended, asked: bool, now: SystemTime) -> String {
    let Ended { exit, signal, out_of_memory } = ended;
    let (asked, oom) = (u8::from(asked), u8::from(out_of_memory));
    format!("exit={exit}\nsignal={signal}\nasked={asked}\noom={oom}\ntime={}\n", rfc3339(now))
}

/// Writes `ended`, whole or not at all.
pub(crate) fn write_ended(dir: &Path, ended: Ended, asked: bool) -> io::Result<()> {
    let temporary = dir.join("ended.tmp");
    fs::create_dir_all(dir)?;
    fs::write(&temporary, ended_text(ended, asked, SystemTime::now()))?;
    fs::rename(temporary, dir.join("ended"))
}

/// The sidecar's answer, once it is there.
pub(crate) fn answer(dir: &Path) -> Option<Answer> {
    let path = dir.join("drained");
    if fs::metadata(&path).ok()?.len() > LONGEST_ANSWER {
        return None;
    }
    parse_answer(&String::from_utf8_lossy(&fs::read(path).ok()?))
}

/// An answer is whole once its exit code is a line of its own; other keys are passed over.
fn parse_answer(text: &str) -> Option<Answer> {
    let mut exit = None;
    let mut message = None;
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        match line.trim_end().split_once('=') {
            Some(("exit", code)) => exit = code.parse().ok(),
            Some(("message", text)) if !text.is_empty() => message = Some(text.to_owned()),
            _ => {}
        }
    }
    exit.map(|exit| Answer { exit, message })
}

/// The exit code where the sidecar gave no answer.
pub(crate) const fn fallback(ended: Ended, asked: bool, completion: Completion) -> u8 {
    match (ended.exit, asked, completion) {
        (0, true, _) => STOPPED,
        (0, false, Completion::Verified) => UNEXPLAINED,
        (exit, _, _) => exit,
    }
}

/// Writes the last message where Kubernetes looks for it, if it does.
pub(crate) fn write_message(path: &Path, message: &str) {
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    if let Ok(mut file) = OpenOptions::new().write(true).truncate(true).open(path) {
        // The message is a help for people; the exit code is what counts.
        let _ = file.write_all(&message.as_bytes()[..end]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_answer_only_an_unexplained_success_is_changed() {
        use Completion::{ExitCode, Verified};
        let cases = [
            (0, true, Verified, 85),
            (0, true, ExitCode, 85),
            (0, false, Verified, 86),
            (0, false, ExitCode, 0),
            (1, true, Verified, 1),
            (137, false, Verified, 137),
            (3, false, ExitCode, 3),
        ];
        for (exit, asked, completion, expected) in cases {
            assert_eq!(fallback(Ended::exit(exit), asked, completion), expected);
        }
    }

    #[test]
    fn an_answer_is_whole_lines_with_an_exit_code() {
        let answer = |exit, message: Option<&str>| Some(Answer { exit, message: message.map(str::to_owned) });
        assert_eq!(parse_answer("exit=0\n"), answer(0, None));
        assert_eq!(parse_answer("exit=85\nmessage=a=b c\n"), answer(85, Some("a=b c")));
        assert_eq!(parse_answer("message=x\nmore=y\nexit=3\r\n"), answer(3, Some("x")));
        for torn in ["", "exit=1", "exit=\n", "exit=256\n", "exit=-1\n", "message=x\n"] {
            assert_eq!(parse_answer(torn), None, "{torn:?}");
        }
    }

    #[test]
    fn the_end_is_told_as_lines_of_keys_and_values() {
        let text = ended_text(Ended { exit: 137, signal: 9, out_of_memory: true }, true, std::time::UNIX_EPOCH);
        assert_eq!(text, "exit=137\nsignal=9\nasked=1\noom=1\ntime=1970-01-01T00:00:00.000Z\n");
    }
}
