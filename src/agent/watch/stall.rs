//! When a trainer has stopped getting on. Pure; time comes in from outside.

use std::time::Duration;

/// Watches for new steps and other signs of life. Loading, evaluating and saving take no step, but they print, post or write files:
/// a trainer is stalled only when none of it happens.
#[derive(Clone, Debug)]
pub struct Stall {
    limit: Option<Duration>,
    step: Option<i64>,
    since: Option<Duration>,
}

impl Stall {
    /// Before the trainer runs; without a limit nothing ever stalls.
    #[must_use]
    pub const fn new(limit: Option<Duration>) -> Self {
        Self { limit, step: None, since: None }
    }

    /// The trainer runs. Before that nothing counts: its image may still be fetched. Time is that of any clock that only goes forward.
    pub fn begin(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// Takes the newest step, and whether there was another sign of life; says whether the trainer has stalled.
    pub fn observe(&mut self, step: Option<i64>, alive: bool, now: Duration) -> bool {
        if (step > self.step || alive) && self.since.is_some() {
            self.step = step.max(self.step);
            self.since = Some(now);
        }
        self.limit.is_some_and(|limit| self.quiet(now) >= limit)
    }

    /// For how long there was no sign of life.
    #[must_use]
    pub fn quiet(&self, now: Duration) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn begun(limit: Option<u64>) -> Stall {
        let mut stall = Stall::new(limit.map(at));
        stall.begin(at(0));
        stall
    }

    #[test]
    fn steps_and_every_other_sign_of_life_count() {
        let mut stall = begun(Some(60));
        assert!(!stall.observe(None, true, at(50)));
        assert!(!stall.observe(Some(1), false, at(105)));
        assert!(!stall.observe(Some(1), false, at(160)));
        assert!(!stall.observe(Some(1), true, at(164)), "an evaluation prints its bar");
        assert!(!stall.observe(Some(1), false, at(223)));
        assert!(stall.observe(Some(1), false, at(224)));
        assert_eq!(stall.quiet(at(224)), at(60));
        assert!(!stall.observe(Some(2), false, at(225)));
    }

    #[test]
    fn silence_from_the_start_is_a_stall_and_no_limit_is_none() {
        assert!(begun(Some(60)).observe(None, false, at(60)));
        assert!(!begun(None).observe(None, false, at(1_000_000)));
    }

    #[test]
    fn the_time_before_the_trainer_runs_does_not_count() {
        let mut stall = Stall::new(Some(at(60)));
        assert!(!stall.observe(None, true, at(0)) && !stall.observe(None, false, at(10_000)));
        stall.begin(at(10_000));
        assert!(!stall.observe(None, false, at(10_059)));
        stall.begin(at(10_059));
        assert!(stall.observe(None, false, at(10_060)));
    }
}
