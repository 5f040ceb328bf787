//! When a trainer has stopped getting on. Pure; time comes in from outside.

use std::time::Duration;

/// Watches for new steps. Before the first step any sign of life counts, since loading may take long and
/// some trainers tell no steps at all.
#[derive(Clone, Debug)]
pub struct Stall {
    limit: Option<Duration>,
    step: Option<i64>,
    since: Duration,
}

impl Stall {
    /// Begins at `now`, on any clock that only goes forward; without a limit nothing ever stalls.
    #[must_use]
    pub const fn new(limit: Option<Duration>, now: Duration) -> Self {
        Self { limit, step: None, since: now }
    }

    /// Takes the newest step, and whether there was a sign of life; says whether the trainer has stalled.
    pub fn observe(&mut self, step: Option<i64>, alive: bool, now: Duration) -> bool {
        if step > self.step || (self.step.is_none() && alive) {
            self.step = step.max(self.step);
            self.since = now;
        }
        self.limit.is_some_and(|limit| now.saturating_sub(self.since) >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn after_the_first_step_only_steps_count() {
        let mut stall = Stall::new(Some(at(60)), at(0));
        assert!(!stall.observe(None, true, at(50)));
        assert!(!stall.observe(None, false, at(100)));
        assert!(!stall.observe(Some(1), true, at(105)));
        assert!(!stall.observe(Some(1), true, at(160)));
        assert!(stall.observe(Some(1), true, at(165)));
        assert!(!stall.observe(Some(2), false, at(166)));
    }

    #[test]
    fn silence_from_the_start_is_a_stall_and_no_limit_is_none() {
        assert!(Stall::new(Some(at(60)), at(0)).observe(None, false, at(60)));
        assert!(!Stall::new(None, at(0)).observe(None, false, at(1_000_000)));
    }
}
