//! Whether a run has spent its budget, and when it will have. Pure.
//!
//! Nothing is kept to remember that it was the budget that ended a run: the books say so, since what is on record never shrinks.

use std::time::Duration;

use jiff::Timestamp;
use rust_decimal::{Decimal, prelude::ToPrimitive};

use super::{
    ObservedFineTune,
    attempt::AttemptFacts,
    ends,
    turn::{self, Books},
};
use crate::{
    api::{Budget, Failure, FineTunePhase, FineTuneStatus},
    plan::{Next, Problem, cost},
};

/// A limit that is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Reason in CamelCase.
    pub reason: &'static str,
    field: &'static str,
    figures: String,
}

impl Exceeded {
    /// As the end of a run.
    pub fn failure(&self) -> Failure {
        Failure {
            reason: self.reason.into(),
            message: format!("{}: {}", self.field, self.figures),
            hint: format!("raise {}, and spec.restarts to go on from the last checkpoint", self.field),
            field: Some(self.field.into()),
            exit_code: None,
            user_error: true,
        }
    }

    /// As what keeps an attempt from beginning.
    pub fn problem(&self) -> Problem {
        Problem {
            reason: self.reason,
            field: self.field.into(),
            message: format!("{}: raise it to go on", self.figures),
            waits: false,
        }
    }
}

const COST: &str = "spec.budget.maxCost";
const DURATION: &str = "spec.budget.maxDuration";

/// What a run has spent of what it may spend.
struct Account {
    spent: Decimal,
    allowed: Decimal,
    /// What each second adds now.
    per_second: Decimal,
    exceeded: Exceeded,
}

impl Account {
    fn is_spent(&self) -> bool {
        self.spent >= self.allowed
    }

    /// Spent for each unit allowed: of two limits that are reached the first to be reached has more.
    fn share(&self) -> Decimal {
        self.spent.checked_div(self.allowed).unwrap_or(Decimal::MAX)
    }

    fn seconds_left(&self) -> Option<u64> {
        (self.allowed - self.spent).checked_div(self.per_second)?.ceil().to_u64()
    }
}

/// The limit the run has reached, if any.
pub fn exceeded(observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> Option<Exceeded> {
    let ends_for_it = is_ending_for_it(observed);
    let reached = accounts(observed, facts, now).into_iter().filter(|account| ends_for_it || account.is_spent());
    reached.max_by_key(Account::share).map(|account| account.exceeded)
}

/// When the run reaches a limit if nothing changes until then.
pub fn deadline(observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> Next {
    let left = accounts(observed, facts, now).iter().filter_map(Account::seconds_left).min();
    left.map_or(Next::OnChange, |seconds| Next::After(Duration::from_secs(seconds.max(1))))
}

/// What is wrong with a budget. Admission refuses these; an object that was not asked about is refused here.
pub fn malformed(budget: Option<&Budget>) -> Vec<Problem> {
    let problem = |field: &str, example: &str| Problem {
        reason: "InvalidBudget",
        field: field.into(),
        message: format!("cannot be read: write it as in {example}"),
        waits: false,
    };
    let cost = budget.and_then(|budget| budget.max_cost.as_deref()).filter(|text| decimal(text).is_none());
    let duration = budget.and_then(|budget| budget.max_duration.as_deref()).filter(|text| seconds(text).is_none());
    let problems = [cost.map(|_| problem(COST, "\"25.00\"")), duration.map(|_| problem(DURATION, "6h or 1h30m"))];
    problems.into_iter().flatten().collect()
}

/// A profile priced in another currency than the run has been charged in: what it has cost is one sum.
pub fn other_currency(observed: &ObservedFineTune) -> Option<Problem> {
    let (profile, status) = (observed.hardware.as_ref()?, observed.status());
    let began = status.attempts.iter().any(|attempt| attempt.start_time.is_some());
    let cost = status.cost?;
    let is_charged = cost::decimal(&cost.accrued) > Decimal::ZERO || began && cost::decimal(&cost.per_hour) > Decimal::ZERO;
    (is_charged && profile.spec.cost_per_hour.is_some() && cost.currency != profile.spec.currency).then(|| Problem {
        reason: "CurrencyDiffers",
        field: "spec.hardware.profile".into(),
        message: format!(
            "the run has cost {} {:?} so far, and this profile is priced in {:?}: name one that is priced in the same currency, or start a new run from the last checkpoint",
            cost.accrued, cost.currency, profile.spec.currency
        ),
        waits: false,
    })
}

/// Whether the last word on record is that its pods end for the budget. What they held may look shorter once they have told when they
/// ended: the clocks of nodes and operator differ. An edit makes it a question again.
fn is_ending_for_it(observed: &ObservedFineTune) -> bool {
    let status = observed.status();
    status.phase == FineTunePhase::Stopping
        && !ends(observed.fine_tune.spec.desired_state)
        && status.observed_generation == observed.fine_tune.metadata.generation
}

fn accounts(observed: &ObservedFineTune, facts: &AttemptFacts, now: Timestamp) -> Vec<Account> {
    let Some(budget) = &observed.fine_tune.spec.budget else { return Vec::new() };
    let status = observed.status();
    let books = Books::of(&status, facts);
    let held = books.as_ref().map(|books| books.held(now)).unwrap_or_default();
    let holding = books.map_or(0, |books| books.holding());
    let max_duration = budget.max_duration.as_deref().and_then(|text| Some((text, seconds(text)?)));
    let max_cost = budget.max_cost.as_deref().and_then(|text| Some((text, decimal(text)?)));
    let duration = max_duration.map(|(text, allowed)| {
        let spent = status.cost.as_ref().map_or(0, |cost| cost.seconds).saturating_add(held.seconds);
        let figures = format!("{} of {text} are spent", words(spent));
        Account {
            spent: spent.into(),
            allowed: allowed.into(),
            per_second: i32::from(holding > 0).into(),
            exceeded: Exceeded { reason: "DeadlineExceeded", field: DURATION, figures },
        }
    });
    let cost = max_cost.map(|(text, allowed)| of_cost((text, allowed), &status, held.node_seconds, holding));
    duration.into_iter().chain(cost).collect()
}

fn of_cost((text, allowed): (&str, Decimal), status: &FineTuneStatus, node_seconds: i64, holding: usize) -> Account {
    let known = status.cost.clone().unwrap_or_default();
    let (per_hour, nodes) = (cost::decimal(&known.per_hour), turn::nodes(status));
    let spent = cost::decimal(&known.accrued).saturating_add(cost::amount(per_hour, node_seconds, nodes));
    let of_all = Decimal::from(3600).saturating_mul(nodes.into());
    Account {
        spent,
        allowed,
        per_second: per_hour.saturating_mul(holding.into()).checked_div(of_all).unwrap_or_default(),
        exceeded: Exceeded {
            reason: "BudgetExceeded",
            field: COST,
            figures: format!("{} of {text} {} are spent", spent.normalize(), known.currency).replace("  ", " "),
        },
    }
}

fn decimal(text: &str) -> Option<Decimal> {
    text.parse().ok().filter(|amount| *amount >= Decimal::ZERO)
}

/// Seconds of a duration such as `1h30m`, each unit at most once; what is longer than can be counted is as long as can be counted.
fn seconds(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        let Some((digits, after)) = rest.split_once(unit) else { continue };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let count = digits.parse().unwrap_or(i64::MAX);
        total = total.saturating_add(count.saturating_mul(length));
        rest = after;
    }
    (rest.is_empty() && !text.is_empty()).then_some(total)
}

/// A number of seconds as durations are written.
fn words(seconds: i64) -> String {
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let told = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}"));
    let text = told.collect::<Vec<_>>().concat();
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for (text, expected) in [("6h", 21_600), ("90m", 5400), ("1h30m", 5400), ("5s", 5), ("1h1m1s", 3661), ("0s", 0)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "6", "h", "6 h", "6d", "1m1h", "1h1h", "-1h", "1.5h", "+1h"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert_eq!(seconds(&format!("{}h", "9".repeat(31))), Some(i64::MAX));
        assert_eq!([0, 59, 60, 5400, 14_412].map(words), ["0s", "59s", "1m", "1h30m", "4h12s"]);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_never_a_limit() {
        let budget = |cost: &str, duration: &str| Budget { max_cost: Some(cost.into()), max_duration: Some(duration.into()) };
        let fields = |budget: &Budget| malformed(Some(budget)).into_iter().map(|problem| problem.field).collect::<Vec<_>>();
        assert_eq!(fields(&budget("ten", "tomorrow")), [COST, DURATION]);
        assert_eq!(fields(&budget("-1", "")), [COST, DURATION]);
        assert!(fields(&budget("10", "6h")).is_empty() && malformed(None).is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_budget_panic_and_words_are_read_back(text in "\\PC{0,40}", length in 1_i64..i64::MAX / 2) {
            let budget = Budget { max_cost: Some(text.clone()), max_duration: Some(text) };
            prop_assert!(malformed(Some(&budget)).len() <= 2);
            prop_assert_eq!(seconds(&words(length)), Some(length));
        }
    }
}
