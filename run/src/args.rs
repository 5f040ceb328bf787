//! What the command line asks for. Pure.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How the command is used.
pub(crate) const USAGE: &str = "\
usage: finetune-run [OPTIONS] -- COMMAND [ARGUMENT…]
  --dir DIR                  shared with the sidecar (default /var/run/finetune)
  --drain-timeout SECONDS    how long the sidecar may take to save everything (default 600)
  --stop-drain-timeout SECONDS   the same once the pod was asked to stop (default 60)
  --termination-log FILE     where the last message goes (default /dev/termination-log)
  --completion verified|exit-code   whether exit 0 alone is success, should the sidecar not answer
                             (default verified)
  --memory-events FILE       where the kernel counts what it ends for want of memory
                             (default /sys/fs/cgroup/memory.events)";

/// The exit code of a command line that cannot be used (`EX_USAGE`).
pub(crate) const BAD_USAGE: u8 = 64;

/// What success needs when the sidecar does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    /// A recorded end of training, which only the sidecar can confirm.
    Verified,
    /// Exit code 0.
    ExitCode,
}

/// How to run the trainer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The directory shared with the sidecar.
    pub(crate) dir: PathBuf,
    /// How long the sidecar may take.
    pub(crate) drain_timeout: Duration,
    /// The same once the pod was asked to stop.
    pub(crate) stop_drain_timeout: Duration,
    /// Where the last message goes.
    pub(crate) termination_log: PathBuf,
    /// What success needs without the sidecar.
    pub(crate) completion: Completion,
    /// Where the kernel counts what it ends for want of memory.
    pub(crate) memory_events: PathBuf,
    /// The command.
    pub(crate) program: OsString,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Run the trainer.
    Run(Options),
    /// Print a text and end.
    Say(String),
}

/// Reads the arguments after the program's own name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut rest = arguments.into_iter();
    let mut options = Options {
        dir: "/var/run/finetune".into(),
        drain_timeout: Duration::from_mins(10),
        stop_drain_timeout: Duration::from_mins(1),
        termination_log: "/dev/termination-log".into(),
        completion: Completion::Verified,
        memory_events: "/sys/fs/cgroup/memory.events".into(),
        program: OsString::new(),
        arguments: Vec::new(),
    };
    while let Some(argument) = rest.next() {
        let text = argument.to_str().ok_or("options must be text")?;
        match text {
            "--" => break,
            "--help" | "-h" => return Ok(Request::Say(USAGE.to_owned())),
            "--version" | "-V" => {
                return Ok(Request::Say(format!("finetune-run {}", env!("CARGO_PKG_VERSION"))));
            }
            _ => {}
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.into())),
            None => (text, None),
        };
        if !name.starts_with("--") {
            return Err(format!("the command must follow `--`, found {name:?}"));
        }
        let value = value.or_else(|| rest.next()).ok_or_else(|| format!("{name} needs a value"))?;
        set(&mut options, name, value)?;
    }
    options.program = rest.next().ok_or("no command after `--`")?;
    options.arguments = rest.collect();
    Ok(Request::Run(options))
}

fn set(options: &mut Options, name: &str, value: OsString) -> Result<(), String> {
    match name {
        "--dir" => options.dir = value.into(),
        "--termination-log" => options.termination_log = value.into(),
        "--memory-events" => options.memory_events = value.into(),
        "--drain-timeout" => options.drain_timeout = seconds(name, &value)?,
        "--stop-drain-timeout" => options.stop_drain_timeout = seconds(name, &value)?,
        "--completion" => {
            options.completion = match value.to_str() {
                Some("verified") => Completion::Verified,
                Some("exit-code") => Completion::ExitCode,
                _ => return Err(format!("{name} is `verified` or `exit-code`")),
            }
        }
        _ => return Err(format!("unknown option {name}")),
    }
    Ok(())
}

fn seconds(name: &str, value: &OsString) -> Result<Duration, String> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.map(Duration::from_secs).ok_or_else(|| format!("{name} is a number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, String> {
        match parse(arguments.iter().map(OsString::from))? {
            Request::Run(options) => Ok(options),
            Request::Say(text) => Err(text),
        }
    }

    #[test]
    fn options_end_at_the_two_dashes() {
        let found = options(&["--dir=/d", "--drain-timeout", "5", "--", "trl", "--dir", "x"]).unwrap();
        assert_eq!(found.dir, PathBuf::from("/d"));
        assert_eq!(found.drain_timeout, Duration::from_secs(5));
        assert_eq!(found.completion, Completion::Verified);
        assert_eq!((found.program, found.arguments), ("trl".into(), vec!["--dir".into(), "x".into()]));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let bad: [&[&str]; 7] = [
            &[],
            &["--"],
            &["sh"],
            &["--dir"],
            &["--drain-timeout", "soon", "--", "sh"],
            &["--completion", "maybe", "--", "sh"],
            &["--colour", "red", "--", "sh"],
        ];
        for arguments in bad {
            assert!(options(arguments).is_err(), "{arguments:?}");
        }
    }
}
