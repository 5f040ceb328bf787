//! When the next report is due: at once where there is news, else at the interval the server asks for,
//! and later and later while it does not answer. Pure; time and chance come in from outside.

use std::time::Duration;

/// Interval until the server has named one.
const INTERVAL: Duration = Duration::from_secs(30);
/// Bounds of what a server may ask for.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(10);
/// Pauses after a failure: the first, the longest, and the one after a refusal that will not pass.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
const REFUSED: Duration = Duration::from_mins(5);

/// When to report.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval: Duration,
    next: Duration,
    not_before: Duration,
    pause: Duration,
}

impl Schedule {
    /// The first report is due at `now`.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        Self { interval: INTERVAL, next: now, not_before: now, pause: FIRST_PAUSE }
    }

    /// There is news: as soon as the server may be asked again.
    pub fn hasten(&mut self, now: Duration) {
        self.next = self.next.min(now);
    }

    /// The moment the next report is due.
    #[must_use]
    pub fn due(&self) -> Duration {
        self.next.max(self.not_before)
    }

    /// A report is on its way. What happens from now on is not in it.
    pub const fn sent(&mut self) {
        self.next = Duration::MAX;
    }

    /// The report on its way arrived; the answer asks for `seconds` between two of them.
    pub fn arrived(&mut self, seconds: u32, now: Duration) {
        if seconds > 0 {
            self.interval = Duration::from_secs(seconds.into()).clamp(SHORTEST, LONGEST);
        }
        self.next = self.next.min(now + self.interval);
        self.not_before = now;
        self.pause = FIRST_PAUSE;
    }

    /// A report was lost. `chance`, from 0 to 1, spreads the agents of a cluster.
    pub fn lost(&mut self, chance: f64, now: Duration) {
        self.next = now;
        self.not_before = now + self.pause.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// A report was refused for good: the next one may fare better, but not soon.
    pub fn refused(&mut self, now: Duration) {
        self.next = now;
        self.not_before = now + REFUSED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn progress_keeps_to_the_interval_and_news_do_not() {
        let mut schedule = Schedule::new(at(5));
        assert_eq!(schedule.due(), at(5));
        schedule.sent();
        schedule.arrived(20, at(6));
        assert_eq!(schedule.due(), at(26));
        schedule.hasten(at(10));
        assert_eq!(schedule.due(), at(10));
        schedule.sent();
        schedule.arrived(0, at(11));
        assert_eq!(schedule.due(), at(31));
        schedule.sent();
        schedule.arrived(u32::MAX, at(31));
        assert_eq!(schedule.due(), at(631));
    }

    #[test]
    fn news_that_come_while_a_report_is_on_its_way_are_told_next() {
        let mut schedule = Schedule::new(at(0));
        schedule.sent();
        schedule.hasten(at(1));
        schedule.arrived(30, at(2));
        assert_eq!(schedule.due(), at(2));
        schedule.sent();
        schedule.arrived(30, at(3));
        assert_eq!(schedule.due(), at(33));
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_news_wait_for_them() {
        let mut schedule = Schedule::new(at(0));
        let mut waits = Vec::new();
        for _ in 0..8 {
            schedule.sent();
            schedule.lost(1.0, at(0));
            schedule.hasten(at(0));
            waits.push(schedule.due().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        schedule.sent();
        schedule.arrived(0, at(100));
        schedule.lost(0.0, at(100));
        assert_eq!(schedule.due(), at(100) + Duration::from_millis(500));
    }

    #[test]
    fn a_refusal_is_not_repeated_hot() {
        let mut schedule = Schedule::new(at(0));
        schedule.refused(at(0));
        schedule.hasten(at(1));
        assert_eq!(schedule.due(), REFUSED);
    }
}
