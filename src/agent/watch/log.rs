//! The trainer's log as the wrapper keeps it (one file and the one rotated before it): the last lines for
//! reports, new lines as they come, and a copy beside the checkpoints. Reads and writes files.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::protocol::redact::redact;

/// Lines of a tail, bytes of a line, and bytes of a tail.
const MAX_LINES: usize = 200;
const MAX_LINE: usize = 2048;
const MAX_TAIL: usize = 32 << 10;
/// Bytes read at a time: more than a tail can show.
const READ: u64 = 512 << 10;
/// Bytes of a copy.
const MAX_COPY: u64 = 256 << 20;

/// Where the wrapper moves the log when it has grown too large.
#[must_use]
pub fn rotated(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// The last lines, oldest first, without credentials; none where there is no log.
#[must_use]
pub fn tail(log: &Path) -> Vec<String> {
    let mut bytes = end_of(log).unwrap_or_default();
    if bytes.split(|byte| *byte == b'\n').count() <= MAX_LINES {
        let mut older = end_of(&rotated(log)).unwrap_or_default();
        older.append(&mut bytes);
        bytes = older;
    }
    last_lines(&String::from_utf8_lossy(&bytes))
}

fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(READ);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(READ).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The last lines of a text within all bounds. Pure.
fn last_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut size = 0;
    for line in text.lines().rev().filter(|line| !line.trim().is_empty()).take(MAX_LINES) {
        let line = redact(shown(line)).into_owned();
        let line = line.get(..line.floor_char_boundary(MAX_LINE)).unwrap_or_default().to_owned();
        size += line.len() + 1;
        if size > MAX_TAIL {
            break;
        }
        lines.push(line);
    }
    lines.reverse();
    lines
}

/// A line without what a terminal would have overwritten: of a progress bar, its last state. Pure.
fn shown(line: &str) -> &str {
    let line = line.trim_end_matches('\r');
    line.rsplit_once('\r').map_or(line, |(_, last)| last)
}

/// What the trainer wrote: a line of the log without the time the wrapper puts before it. Pure.
#[must_use]
pub fn message(line: &str) -> &str {
    match line.split_once(' ') {
        Some((time, rest)) if time.parse::<Timestamp>().is_ok() => rest,
        _ => line,
    }
}

/// Reads lines as they are written.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    inode: Option<u64>,
    offset: u64,
    open_line: Vec<u8>,
}

impl Follow {
    /// Follows a log from its beginning.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, inode: None, offset: 0, open_line: Vec::new() }
    }

    /// Follows a file of the trainer's from its end: what is there is of an earlier attempt.
    #[must_use]
    pub fn from_end(path: PathBuf) -> Self {
        let found = fs::metadata(&path).ok();
        let offset = found.as_ref().map_or(0, fs::Metadata::len);
        Self { path, inode: found.map(|found| found.ino()), offset, open_line: Vec::new() }
    }

    /// The lines completed since the last call; of very much, only the newest.
    pub fn new_lines(&mut self) -> Vec<String> {
        let Ok(mut file) = File::open(&self.path) else { return Vec::new() };
        let Ok(found) = file.metadata() else { return Vec::new() };
        if self.inode != Some(found.ino()) || found.len() < self.offset {
            self.rest_of_rotated();
            self.inode = Some(found.ino());
            self.offset = 0;
        }
        self.take(&mut file, found.len());
        let Some(end) = self.open_line.iter().rposition(|byte| *byte == b'\n') else {
            self.open_line.drain(..self.open_line.len().saturating_sub(MAX_LINE));
            return Vec::new();
        };
        let whole: Vec<u8> = self.open_line.drain(..=end).collect();
        String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
    }

    /// What was written before the file was moved away.
    fn rest_of_rotated(&mut self) {
        let moved = File::open(rotated(&self.path)).and_then(|file| Ok((file.metadata()?, file)));
        if let Ok((found, mut file)) = moved
            && self.inode == Some(found.ino())
        {
            self.take(&mut file, found.len());
        }
    }

    fn take(&mut self, file: &mut File, size: u64) {
        let from = self.offset.max(size.saturating_sub(READ));
        if from > self.offset {
            self.open_line.clear();
        }
        let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.take(READ).read_to_end(&mut self.open_line));
        self.offset = from.saturating_add(read.map_or(0, |count| count as u64));
    }
}

/// Copies the whole log, without credentials, to a file of an attempt.
///
/// # Errors
/// When the copy cannot be written.
pub fn copy(log: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut out = BufWriter::new(File::create(to)?);
    for path in [rotated(log), log.to_owned()] {
        let Ok(file) = File::open(path) else { continue };
        let mut lines = BufReader::new(file.take(MAX_COPY));
        let mut line = Vec::new();
        while (&mut lines).take(READ).read_until(b'\n', &mut line)? > 0 {
            out.write_all(redact(&String::from_utf8_lossy(&line)).as_bytes())?;
            line.clear();
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_bounded_in_lines_and_bytes_and_spans_the_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("trainer.log");
        assert!(tail(&log).is_empty());
        fs::write(rotated(&log), "one\ntwo\n").unwrap();
        fs::write(&log, "three\n\n  9%| | 9/9\r 10%| | 10/10\nfour hf_abcdefghijklmnopqrstuvwxyz\n").unwrap();
        assert_eq!(tail(&log), ["one", "two", "three", " 10%| | 10/10", "four hf_[redacted]"]);
        fs::write(&log, "x".repeat(5000) + "\n" + &"line\n".repeat(500)).unwrap();
        assert_eq!(tail(&log).len(), MAX_LINES);
        fs::write(&log, ("y".repeat(5000) + "\n").repeat(50)).unwrap();
        let lines = tail(&log);
        assert!(lines.iter().all(|line| line.len() == MAX_LINE));
        assert!(lines.iter().map(|line| line.len() + 1).sum::<usize>() <= MAX_TAIL);
    }

    #[test]
    fn lines_are_followed_through_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("trainer.log");
        let mut follow = Follow::new(log.clone());
        assert!(follow.new_lines().is_empty());
        fs::write(&log, "a\nb").unwrap();
        assert_eq!(follow.new_lines(), ["a"]);
        fs::write(&log, "a\nbc\nd\n").unwrap();
        assert_eq!(follow.new_lines(), ["bc", "d"]);
        fs::write(&log, "a\nbc\nd\ne\n").unwrap();
        fs::rename(&log, rotated(&log)).unwrap();
        fs::write(&log, "f\n").unwrap();
        assert_eq!(follow.new_lines(), ["e", "f"]);
        assert!(follow.new_lines().is_empty());
        assert!(Follow::from_end(log).new_lines().is_empty());
    }

    #[test]
    fn a_line_is_known_without_its_time() {
        assert_eq!(message("2026-01-01T00:00:00.123Z {'loss': 1}"), "{'loss': 1}");
        assert_eq!(message("Traceback (most recent call last):"), "Traceback (most recent call last):");
    }

    #[test]
    fn the_copy_holds_both_files_without_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("trainer.log");
        fs::write(rotated(&log), "one\n").unwrap();
        fs::write(&log, "two hf_abcdefghijklmnopqrstuvwxyz").unwrap();
        let to = dir.path().join("logs/attempt-1.log");
        copy(&log, &to).unwrap();
        assert_eq!(fs::read_to_string(to).unwrap(), "one\ntwo hf_[redacted]");
    }
}
