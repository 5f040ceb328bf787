//! The trainer as a process group: started, signalled, awaited.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions};

use crate::args::Options;

/// How the trainer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The exit code, as a shell would say it: 128 and the signal's number for a killed process.
    pub(crate) exit: u8,
    /// The signal that killed it; 0 for none.
    pub(crate) signal: u8,
    /// Whether the kernel has ended it, or a part of it, for want of memory.
    pub(crate) out_of_memory: bool,
}

impl Ended {
    /// An end by itself.
    pub(crate) const fn exit(code: u8) -> Self {
        Self { exit: code, signal: 0, out_of_memory: false }
    }
}

/// The running trainer.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
}

/// The trainer's outputs.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// Starts the trainer in a process group of its own.
pub(crate) fn start(options: &Options) -> io::Result<(Child, Outputs)> {
    let mut child = Command::new(&options.program)
        .args(&options.arguments)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let outputs = child.stdout.take().zip(child.stderr.take());
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match (pid, outputs) {
        (Some(pid), Some((stdout, stderr))) => Ok((Child { pid }, Outputs { stdout, stderr })),
        _ => Err(io::Error::other("the system gave no process id or no pipes")),
    }
}

impl Child {
    /// Sends a signal to the whole group; nothing happens where nobody is left.
    pub(crate) fn signal(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            // The only error that can come is that the group is gone.
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }

    /// Whether any process of the group is left.
    pub(crate) fn group_is_alive(&self) -> bool {
        rustix::process::test_kill_process_group(self.pid).is_ok()
    }

    /// Collects every process that has ended, as the first process of a container must, and says how
    /// the trainer ended if it was among them.
    pub(crate) fn reap(&self) -> Option<Ended> {
        let mut ended = None;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => {
                    let small = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
                    if let Some(signal) = status.terminating_signal().map(small) {
                        ended = Some(Ended { exit: signal.saturating_add(128), signal, out_of_memory: false });
                    } else if let Some(code) = status.exit_status() {
                        ended = Some(Ended::exit(small(code)));
                    }
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(_) => return ended,
            }
        }
    }
}

/// The exit code and the words for a command that could not be started.
pub(crate) fn not_started(options: &Options, error: &io::Error) -> (u8, String) {
    let program = options.program.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            (127, format!("finetune-run: {program}: command not found, or the interpreter it names is not"))
        }
        io::ErrorKind::PermissionDenied => {
            (126, format!("finetune-run: {program}: permission denied: the file is not executable"))
        }
        _ => (126, format!("finetune-run: {program}: cannot be started: {error}")),
    }
}
