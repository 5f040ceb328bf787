//! Copies one output of the trainer to our own, byte by byte as it comes, and its lines to the log.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

use crate::lines::Lines;
use crate::log::Log;

/// Starts copying; `ended` hears of it when the source has ended.
pub(crate) fn start(
    source: impl Read + Send + 'static,
    own: impl AsFd,
    log: &Arc<Mutex<Log>>,
    ended: Sender<()>,
) -> io::Result<()> {
    // A duplicate of our own output, as a plain file: the standard library's handle would buffer.
    let own = File::from(own.as_fd().try_clone_to_owned()?);
    let log = Arc::clone(log);
    thread::Builder::new().name("tee".to_owned()).spawn(move || {
        copy(source, own, &log);
        // The receiver may have stopped waiting.
        let _ = ended.send(());
    })?;
    Ok(())
}

fn copy(mut source: impl Read, own: File, log: &Mutex<Log>) {
    let started = Instant::now();
    let mut own = Some(own);
    let mut lines = Lines::default();
    let mut buffer = vec![0; 64 << 10];
    let mut keep = |line: &str| {
        log.lock().unwrap_or_else(PoisonError::into_inner).line(line, SystemTime::now());
    };
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        // Nobody reads our output any more: the trainer must not notice.
        if own.as_mut().is_some_and(|own| own.write_all(&buffer[..count]).is_err()) {
            own = None;
        }
        lines.feed(&buffer[..count], started.elapsed(), &mut keep);
    }
    lines.finish(&mut keep);
}

/// Words of our own on standard error. Nobody may be listening there any more.
pub(crate) fn tell(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}
