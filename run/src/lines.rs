//! From a stream of bytes to the lines worth keeping: long lines are cut, and of a progress bar, which
//! overwrites its line again and again, only the last state is kept, at most one a second. Pure.

use std::time::Duration;

/// Bytes kept of a line.
pub(crate) const LONGEST: usize = 16 << 10;

/// What a cut line ends with.
const CUT: &str = " [cut]";

/// The least time between two kept states of a progress bar.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// One stream, cut into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    too_long: bool,
    /// A carriage return has come; what follows decides whether it ends or overwrites the line.
    returned: bool,
    /// The state of a progress bar that has been overwritten, not kept yet.
    overwritten: Option<String>,
    last_progress: Option<Duration>,
}

impl Lines {
    /// Takes what came at `now`, on any clock that goes forward, and hands each line to keep to `keep`.
    pub(crate) fn feed(&mut self, bytes: &[u8], now: Duration, keep: &mut impl FnMut(&str)) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(keep),
                b'\r' => self.returned = true,
                _ => {
                    if self.returned {
                        self.overwrite(now, keep);
                    }
                    self.push(byte);
                }
            }
        }
    }

    /// Hands over what is left when the stream has ended.
    pub(crate) fn finish(&mut self, keep: &mut impl FnMut(&str)) {
        if !self.line.is_empty() || self.overwritten.is_some() {
            self.end_line(keep);
        }
    }

    fn push(&mut self, byte: u8) {
        if self.line.len() < LONGEST {
            self.line.push(byte);
        } else {
            self.too_long = true;
        }
    }

    /// The line so far, as text; the next begins empty.
    fn take(&mut self) -> String {
        let whole = if self.too_long { without_half_character(&self.line) } else { &self.line };
        let mut text = String::from_utf8_lossy(whole).into_owned();
        if self.too_long {
            text.push_str(CUT);
        }
        self.line.clear();
        self.too_long = false;
        self.returned = false;
        text
    }

    fn overwrite(&mut self, now: Duration, keep: &mut impl FnMut(&str)) {
        let state = self.take();
        // Spaces wipe a progress bar out; they are no state.
        if !state.trim().is_empty() {
            self.overwritten = Some(state);
        }
        let due = |last: Duration| now.saturating_sub(last) >= PROGRESS_EVERY;
        if self.last_progress.is_none_or(due)
            && let Some(state) = self.overwritten.take()
        {
            self.last_progress = Some(now);
            keep(&state);
        }
    }

    fn end_line(&mut self, keep: &mut impl FnMut(&str)) {
        let line = self.take();
        match self.overwritten.take() {
            // A line that ends blank still shows its last state.
            Some(state) if line.trim().is_empty() => keep(&state),
            _ => keep(&line),
        }
    }
}

/// The bytes without a character that a cut has left incomplete at the end.
fn without_half_character(bytes: &[u8]) -> &[u8] {
    let tail = bytes.len().saturating_sub(4);
    let start = bytes[tail..].iter().rposition(|byte| byte & 0xc0 != 0x80).map(|at| tail + at);
    match start {
        Some(at) if bytes[at] >= 0xc0 && std::str::from_utf8(&bytes[at..]).is_err() => &bytes[..at],
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds pieces, each with the milliseconds at which it comes.
    fn kept(pieces: &[(u64, &[u8])]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut kept = Vec::new();
        let mut keep = |line: &str| kept.push(line.to_owned());
        for (millis, bytes) in pieces {
            lines.feed(bytes, Duration::from_millis(*millis), &mut keep);
        }
        lines.finish(&mut keep);
        kept
    }

    #[test]
    fn lines_are_split_wherever_the_pieces_end() {
        assert_eq!(kept(&[(0, b"on"), (0, b"e\ntw"), (0, b"o\n\nlast")]), ["one", "two", "", "last"]);
        assert_eq!(kept(&[(0, b"one\r\ntwo\r"), (0, b"\n")]), ["one", "two"]);
        assert_eq!(kept(&[]), [""; 0]);
        assert_eq!(kept(&[(0, b"a\xff\n")]), ["a\u{fffd}"]);
    }

    #[test]
    fn a_progress_bar_is_kept_once_a_second_and_at_its_end() {
        let pieces: [(u64, &[u8]); 6] =
            [(0, b"\r 0%"), (100, b"\r 1%"), (200, b"\r 2%"), (1100, b"\r 3%"), (1200, b"\r 4%"), (1300, b"\r100%\n")];
        assert_eq!(kept(&pieces), [" 0%", " 2%", "100%"]);
    }

    #[test]
    fn a_line_written_over_a_progress_bar_is_kept() {
        let pieces: [(u64, &[u8]); 2] = [(0, b"\r 10%|#"), (10, b"\r       \r{'loss': 0.5}\n\r 10%|#")];
        assert_eq!(kept(&pieces), [" 10%|#", "{'loss': 0.5}", " 10%|#"]);
    }

    #[test]
    fn the_last_state_of_a_bar_that_just_stops_is_kept() {
        assert_eq!(kept(&[(0, b"\r1%\r2%\r3%\r")]), ["1%", "3%"]);
        assert_eq!(kept(&[(0, b"\r1%\r2%\r   \n")]), ["1%", "2%"]);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let long = format!("a{}\nnext\n", "é".repeat(LONGEST));
        let found = kept(&[(0, long.as_bytes())]);
        assert_eq!(found[0], format!("a{}{CUT}", "é".repeat((LONGEST - 1) / 2)));
        assert_eq!(found[1], "next");
        let exact = "x".repeat(LONGEST);
        assert_eq!(kept(&[(0, exact.as_bytes())]), [exact]);
    }
}
