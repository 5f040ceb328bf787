//! When a checkpoint has stopped changing: the same files, sizes and times over a whole period. Pure;
//! time comes in from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use super::FileFact;

/// What successive scans of several directories have shown.
#[derive(Debug, Clone)]
pub struct Settling {
    period: Duration,
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    since: Duration,
    files: Vec<FileFact>,
}

impl Settling {
    /// Waits for `period` without a change.
    #[must_use]
    pub const fn new(period: Duration) -> Self {
        Self { period, seen: BTreeMap::new() }
    }

    /// Takes one scan of `dir` at `now`, on any clock that only goes forward, and says whether nothing
    /// has changed for the whole period. One scan alone never settles a directory, unless the period
    /// is zero.
    pub fn observe(&mut self, dir: &str, now: Duration, files: &[FileFact]) -> bool {
        match self.seen.get(dir) {
            Some(seen) if seen.files == files => now.saturating_sub(seen.since) >= self.period,
            _ => {
                self.seen.insert(dir.to_owned(), Seen { since: now, files: files.to_vec() });
                self.period.is_zero()
            }
        }
    }

    /// Forgets every directory that `keep` does not name.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.seen.retain(|dir, _| keep(dir));
    }
}
