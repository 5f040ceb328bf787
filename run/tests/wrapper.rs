//! The real binary around real commands: signals, exit codes, the handover and the log.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running wrapper and the directory it shares with its sidecar, which the test plays.
struct Wrapped {
    dir: TempDir,
    child: Child,
}

impl Wrapped {
    fn start(options: &[&str], script: &str) -> Self {
        Self::command(options, &["sh", "-c", script])
    }

    fn command(options: &[&str], command: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_finetune-run"))
            .arg("--dir")
            .arg(dir.path())
            .args(["--termination-log", dir.path().join("message").to_str().unwrap()])
            .args(options)
            .arg("--")
            .args(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { dir, child }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What the trainer's end was, once it is told.
    fn ended(&self) -> String {
        let path = self.path("ended");
        wait_for("the trainer's end", || fs::read_to_string(&path).ok())
    }

    /// The log, once it holds `text`.
    fn log_with(&self, text: &str) -> String {
        let path = self.path("log/trainer.log");
        wait_for(text, || fs::read_to_string(&path).ok().filter(|log| log.contains(text)))
    }

    fn answer(&self, text: &str) {
        let temporary = self.path("drained.tmp");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.path("drained")).unwrap();
    }

    /// The exit code, standard output and standard error.
    fn finish(&mut self) -> (i32, String, String) {
        let mut texts = [String::new(), String::new()];
        self.child.stdout.take().unwrap().read_to_string(&mut texts[0]).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut texts[1]).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), None, "the wrapper itself was killed");
        let [stdout, stderr] = texts;
        (status.code().unwrap(), stdout, stderr)
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn value<'a>(ended: &'a str, key: &str) -> &'a str {
    ended.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap()
}

const NO_SIDECAR: &[&str] = &["--drain-timeout", "0"];

#[test]
fn the_answer_of_the_sidecar_decides() {
    let mut run = Wrapped::start(&[], "echo out; echo err >&2; exit 3");
    fs::write(run.path("message"), "older and longer than what comes").unwrap();
    let ended = run.ended();
    assert_eq!((value(&ended, "exit"), value(&ended, "signal")), ("3", "0"));
    assert_eq!(value(&ended, "asked"), "0");
    assert!(value(&ended, "time").ends_with('Z'));
    run.answer("exit=42\nmessage=step 4 of 10\n");
    let (code, stdout, stderr) = run.finish();
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (42, "out\n", "err\n"));
    assert_eq!(fs::read_to_string(run.path("message")).unwrap(), "step 4 of 10");
}

#[test]
fn a_missing_termination_log_is_not_made() {
    let mut run = Wrapped::start(&[], "exit 0");
    run.ended();
    run.answer("exit=0\nmessage=done\n");
    assert_eq!(run.finish().0, 0);
    assert!(!run.path("message").exists());
}

#[test]
fn without_an_answer_an_exit_code_is_passed_on_but_success_is_not_believed() {
    assert_eq!(Wrapped::start(NO_SIDECAR, "exit 3").finish().0, 3);
    assert_eq!(Wrapped::start(NO_SIDECAR, "exit 0").finish().0, 86);
    let lenient = ["--drain-timeout", "0", "--completion", "exit-code"];
    assert_eq!(Wrapped::start(&lenient, "exit 0").finish().0, 0);
}

#[test]
fn a_trainer_killed_by_a_signal_ends_as_a_shell_would_say() {
    let mut run = Wrapped::start(&[], "kill -KILL $$");
    let ended = run.ended();
    assert_eq!((value(&ended, "exit"), value(&ended, "signal")), ("137", "9"));
    run.answer("exit=137\n");
    assert_eq!(run.finish().0, 137);
}

#[test]
fn being_asked_to_stop_reaches_the_trainer_and_is_remembered() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut run = Wrapped::start(
            &["--stop-drain-timeout", "0"],
            "trap 'echo saving; exit 0' TERM INT; echo ready; while :; do sleep 0.05; done",
        );
        run.log_with("ready");
        run.signal(signal);
        assert_eq!(value(&run.ended(), "asked"), "1");
        let (code, stdout, _) = run.finish();
        assert_eq!((code, stdout.as_str()), (85, "ready\nsaving\n"));
    }
}

#[test]
fn other_signals_are_passed_on_and_do_not_ask_to_stop() {
    let script = "trap 'echo one' USR1; trap 'echo two' USR2; trap 'exit 7' HUP; echo ready
        while :; do sleep 0.05; done";
    let mut run = Wrapped::start(NO_SIDECAR, script);
    run.log_with("ready");
    for (signal, word) in [(Signal::USR1, "one"), (Signal::USR2, "two")] {
        run.signal(signal);
        run.log_with(word);
    }
    run.signal(Signal::HUP);
    assert_eq!(value(&run.ended(), "asked"), "0");
    assert_eq!(run.finish().0, 7);
}

#[test]
fn signals_reach_the_whole_group() {
    let script = "sh -c 'trap \"echo worker stopped; exit 0\" TERM; echo ready
        while :; do sleep 0.05; done' & wait; wait";
    let mut run = Wrapped::start(NO_SIDECAR, script);
    run.log_with("ready");
    run.signal(Signal::TERM);
    let (code, stdout, _) = run.finish();
    assert_eq!(code, 143, "the shell itself has no trap");
    assert!(stdout.contains("worker stopped"), "{stdout}");
}

#[test]
fn a_stop_while_the_sidecar_still_works_shortens_the_wait() {
    let mut run = Wrapped::start(&["--stop-drain-timeout", "0"], "exit 4");
    run.ended();
    run.signal(Signal::TERM);
    assert_eq!(run.finish().0, 4);
}

#[test]
fn what_the_trainer_leaves_running_is_ended_before_the_handover() {
    let script = "sh -c 'trap \"\" TERM; echo $$ > \"$0\"; while :; do sleep 0.05; done' \"$F\" &
        while [ ! -s \"$F\" ]; do sleep 0.05; done; exit 0";
    let file = tempfile::NamedTempFile::new().unwrap();
    let script = format!("F={}; export F; {script}", file.path().display());
    let mut run = Wrapped::start(&[], &script);
    run.ended();
    let pid: i32 = fs::read_to_string(file.path()).unwrap().trim().parse().unwrap();
    wait_for("the end of what was left", || is_dead(pid).then_some(()));
    run.answer("exit=0\n");
    assert_eq!(run.finish().0, 0);
}

/// Whether a process is gone or at most not collected yet by whoever is its parent now.
fn is_dead(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

#[test]
fn a_command_that_is_not_there_or_not_executable_is_named() {
    let mut run = Wrapped::command(NO_SIDECAR, &["/no/such/trainer"]);
    assert_eq!(value(&run.ended(), "exit"), "127");
    run.log_with("/no/such/trainer: command not found");
    let (code, _, stderr) = run.finish();
    assert!(code == 127 && stderr.contains("/no/such/trainer: command not found"), "{stderr}");

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let mut run = Wrapped::command(NO_SIDECAR, &[file.path().to_str().unwrap()]);
    let (code, _, stderr) = run.finish();
    assert!(code == 126 && stderr.contains("not executable"), "{stderr}");
}

#[test]
fn the_log_has_a_time_on_every_line_and_one_state_of_a_progress_bar() {
    let mut run = Wrapped::start(NO_SIDECAR, "printf 'a\\n\\r 1%%\\r 2%%\\r 3%%\\nlast'");
    run.ended();
    let log = run.log_with("last");
    let lines: Vec<_> = log.lines().map(|line| line.split_at(25)).collect();
    let texts: Vec<_> = lines.iter().map(|(_, text)| *text).collect();
    assert_eq!(texts, ["a", " 1%", " 3%", "last"]);
    for (time, _) in lines {
        assert!(time.starts_with("20") && time.ends_with("Z "), "{time:?}");
    }
    let (_, stdout, _) = run.finish();
    assert_eq!(stdout, "a\n\r 1%\r 2%\r 3%\nlast", "our own output is what the trainer wrote");
}

#[test]
fn the_log_is_rotated_and_bounded() {
    // 3 × 7 MiB of lines of 1 KiB.
    let script = "line=$(head -c 1023 /dev/zero | tr '\\0' x)
        yes $line | head -n 21504 | cat; echo done";
    let mut run = Wrapped::start(&[], script);
    let mut stdout = run.child.stdout.take().unwrap();
    let copied = std::io::copy(&mut stdout.by_ref().take(21 << 20), &mut std::io::sink()).unwrap();
    run.child.stdout = Some(stdout);
    assert_eq!(copied, 21 << 20);
    run.log_with("done");
    run.ended();
    let size = |name: &str| fs::metadata(run.path(name)).unwrap().len();
    let (now, before) = (size("log/trainer.log"), size("log/trainer.log.1"));
    assert!(now <= 8 << 20 && before <= 8 << 20 && before > 7 << 20, "{now} {before}");
    let names = fs::read_dir(run.path("log")).unwrap().count();
    assert_eq!(names, 2);
    run.answer("exit=0\n");
    assert_eq!(run.finish().0, 0);
}

#[test]
fn a_log_that_cannot_be_written_does_not_stop_training() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log"), "a file where the directory should be").unwrap();
    let output = wrapper(dir.path(), "echo trained; exit 5");
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(output.stdout, b"trained\n");
}

#[test]
fn an_answer_left_by_an_earlier_container_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("drained"), "exit=0\n").unwrap();
    assert_eq!(wrapper(dir.path(), "exit 5").status.code(), Some(5));
}

fn wrapper(dir: &Path, script: &str) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_finetune-run"))
        .arg(format!("--dir={}", dir.display()))
        .args(["--drain-timeout", "0", "--", "sh", "-c", script])
        .output()
        .unwrap()
}

#[test]
fn a_wrong_command_line_is_explained() {
    let output = Command::new(env!("CARGO_BIN_EXE_finetune-run")).arg("--colour=red").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("unknown option --colour") && words.contains("usage:"), "{words}");
}

#[test]
fn an_attempt_the_sidecar_gives_up_is_ended_without_having_been_asked_to_stop() {
    let mut wrapped = Wrapped::start(&[], "echo ready; sleep 600 & wait");
    wrapped.log_with("ready");
    fs::write(wrapped.path("terminate"), "reason=Stalled\n").unwrap();
    let ended = wrapped.ended();
    assert_eq!((value(&ended, "asked"), value(&ended, "signal")), ("0", "15"));
    wrapped.answer("exit=86\n");
    assert_eq!(wrapped.finish().0, 86);
}

#[test]
fn a_trainer_that_is_given_up_and_does_not_heed_it_is_killed_with_all_it_has_started() {
    let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.05; done' & wait";
    let mut wrapped = Wrapped::start(&["--stop-drain-timeout", "0"], script);
    let log = wrapped.log_with("\n");
    let worker: i32 = log.split_whitespace().last().unwrap().parse().unwrap();
    fs::write(wrapped.path("terminate"), "reason=Stalled\n").unwrap();
    let ended = wrapped.ended();
    assert_eq!((value(&ended, "asked"), value(&ended, "signal")), ("0", "9"));
    assert!(is_dead(worker), "what holds the GPU is gone before the end is told");
    wrapped.answer("exit=86\n");
    assert_eq!(wrapped.finish().0, 86);
}

#[test]
fn a_kill_for_want_of_memory_during_the_run_is_told_and_earlier_ones_are_not() {
    let events = tempfile::NamedTempFile::new().unwrap();
    let path = events.path().to_str().unwrap();
    let count = |kills: u32| format!("oom {kills}\noom_kill {kills}\noom_group_kill 0\n");
    for (before, after, told) in [(0, 1, "1"), (2, 2, "0"), (2, 3, "1")] {
        fs::write(path, count(before)).unwrap();
        let script = format!("printf '{}' > {path}; kill -KILL $$", count(after).replace('\n', "\\n"));
        let mut run = Wrapped::start(&["--memory-events", path], &script);
        let ended = run.ended();
        assert_eq!((value(&ended, "oom"), value(&ended, "exit")), (told, "137"), "from {before} to {after}");
        run.answer("exit=78\n");
        assert_eq!(run.finish().0, 78);
    }
}
