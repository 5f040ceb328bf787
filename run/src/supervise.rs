//! The course of a run: start, watch over, end, hand over, answer.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::args::Options;
use crate::child::{self, Child, Ended};
use crate::handover;
use crate::log::Log;
use crate::memory;
use crate::tee;

/// How often files and processes are looked at where nothing announces them.
const TICK: Duration = Duration::from_millis(50);
/// How long what the trainer has left behind may take to end.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// The signals that are passed on. SIGTERM asks to stop, and so do SIGINT and SIGQUIT, which images
/// can name as their stop signal.
const PASSED_ON: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2];
const ASKS_TO_STOP: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];

/// Runs the trainer to its end and returns the exit code of the container.
pub(crate) fn run(options: &Options) -> u8 {
    handover::clear(&options.dir);
    let log = Arc::new(Mutex::new(Log::open(&options.dir)));
    // Before the trainer starts, so that no signal and no end of it is missed.
    let mut signals = match Signals::new(PASSED_ON.iter().chain(&[SIGCHLD])) {
        Ok(signals) => signals,
        Err(error) => {
            tee::tell(&format!("finetune-run: signals cannot be received: {error}"));
            return 1;
        }
    };
    let mut asked = false;
    let kills_before = memory::kills(&options.memory_events);
    let ended = match child::start(options) {
        Ok((child, outputs)) => match copy(outputs, &log) {
            Ok(copied) => {
                let ended = watch_over(&child, options, &mut signals, &mut asked);
                end_leftovers(&child, &copied);
                ended
            }
            Err(error) => {
                child.signal(SIGKILL);
                say(&log, &format!("finetune-run: output cannot be copied: {error}"));
                Ended::exit(1)
            }
        },
        Err(error) => {
            let (code, words) = child::not_started(options, &error);
            say(&log, &words);
            Ended::exit(code)
        }
    };
    let out_of_memory = memory::kills(&options.memory_events) > kills_before;
    hand_over(options, Ended { out_of_memory, ..ended }, &mut signals, asked)
}

/// Words of our own, where the trainer's would be.
fn say(log: &Mutex<Log>, words: &str) {
    tee::tell(words);
    log.lock().unwrap_or_else(PoisonError::into_inner).line(words, SystemTime::now());
}

fn copy(outputs: child::Outputs, log: &Arc<Mutex<Log>>) -> io::Result<Receiver<()>> {
    let (ended, copied) = channel();
    tee::start(outputs.stdout, io::stdout(), log, ended.clone())?;
    tee::start(outputs.stderr, io::stderr(), log, ended)?;
    Ok(copied)
}

/// Passes signals on until the trainer has ended. One the sidecar has given up is ended too, politely first.
fn watch_over(child: &Child, options: &Options, signals: &mut Signals, asked: &mut bool) -> Ended {
    let mut given_up: Option<Instant> = None;
    loop {
        for signal in signals.pending() {
            if signal != SIGCHLD {
                *asked |= ASKS_TO_STOP.contains(&signal);
                child.signal(signal);
            }
        }
        if let Some(ended) = child.reap() {
            return ended;
        }
        match given_up {
            None if handover::is_given_up(&options.dir) => {
                tee::tell("finetune-run: the sidecar has given this attempt up; ending the trainer");
                child.signal(SIGTERM);
                given_up = Some(Instant::now());
            }
            Some(since) if since.elapsed() >= options.stop_drain_timeout => child.signal(SIGKILL),
            _ => {}
        }
        sleep(TICK);
    }
}

/// Ends what the trainer has left running in its group, politely first: nothing may write into the
/// output any more once it is handed over. Returns when the last output is copied.
fn end_leftovers(child: &Child, copied: &Receiver<()>) {
    child.signal(SIGTERM);
    let deadline = Instant::now() + LEFTOVERS;
    while child.group_is_alive() && Instant::now() < deadline {
        sleep(TICK);
        child.reap();
    }
    child.signal(SIGKILL);
    // Both outputs end with the last process that holds them; one that left the group may not.
    for _ in 0..2 {
        let left = deadline.saturating_duration_since(Instant::now()).max(TICK);
        // An error means that there is nothing more to wait for.
        let _ = copied.recv_timeout(left);
    }
}

/// Tells the sidecar, waits for its answer, and turns it into the exit code.
fn hand_over(options: &Options, ended: Ended, signals: &mut Signals, asked: bool) -> u8 {
    if let Err(error) = handover::write_ended(&options.dir, ended, asked) {
        let dir = options.dir.display();
        tee::tell(&format!("finetune-run: {dir} cannot be written: {error}"));
        return handover::fallback(ended, asked, options.completion);
    }
    let start = Instant::now();
    let mut asked_at = asked.then_some(start);
    loop {
        if let Some(answer) = handover::answer(&options.dir) {
            if let Some(message) = &answer.message {
                handover::write_message(&options.termination_log, message);
            }
            return answer.exit;
        }
        for signal in signals.pending() {
            if ASKS_TO_STOP.contains(&signal) {
                asked_at.get_or_insert_with(Instant::now);
            }
        }
        let waited = start.elapsed() >= options.drain_timeout;
        let stop_waited = asked_at.is_some_and(|at| at.elapsed() >= options.stop_drain_timeout);
        if waited || stop_waited {
            tee::tell("finetune-run: the sidecar has not answered; ending without it");
            return handover::fallback(ended, asked, options.completion);
        }
        sleep(TICK);
    }
}
