//! What node time costs: exact decimals that can overflow nowhere. Pure.

use std::str::FromStr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as corev1;
use rust_decimal::{Decimal, RoundingStrategy};

use super::fine_tune::Held;
use crate::api::Cost;

/// Decimals of an amount. What lies below is rounded up, so that amounts charged in parts never add up to less than charged at once.
const DECIMALS: u32 = 6;

/// When the last container of a finished pod ended; where none says so (an eviction before the first began), when its conditions last changed.
#[must_use]
pub fn ended_at(pod: &corev1::Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let containers = status.container_statuses.iter().flatten();
    let sidecars = status.init_container_statuses.iter().flatten();
    let last_end = containers
        .chain(sidecars)
        .filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|time| time.0)
        .max();
    let changes = status.conditions.iter().flatten().filter_map(|condition| condition.last_transition_time.as_ref());
    last_end.or_else(|| changes.map(|time| time.0).max())
}

/// A decimal as people and the API write it; zero when it is none.
#[must_use]
pub fn decimal(text: &str) -> Decimal {
    Decimal::from_str(text).unwrap_or_default()
}

/// Price of what was held of `nodes` nodes that cost `per_hour` together.
#[must_use]
pub fn amount(per_hour: Decimal, node_seconds: i64, nodes: i32) -> Decimal {
    let hour = Decimal::from(3600).saturating_mul(Decimal::from(nodes.max(1)));
    let exact = per_hour.saturating_mul(Decimal::from(node_seconds)) / hour;
    exact.round_dp_with_strategy(DECIMALS, RoundingStrategy::ToPositiveInfinity).normalize()
}

/// Puts what was held of `nodes` nodes with `gpus` GPUs together on record.
pub fn charge(cost: &mut Cost, held: Held, nodes: i32, gpus: i64) {
    let amount = amount(decimal(&cost.per_hour), held.node_seconds, nodes);
    cost.accrued = decimal(&cost.accrued).saturating_add(amount).normalize().to_string();
    cost.gpu_seconds = cost.gpu_seconds.saturating_add(gpu_seconds(held, nodes, gpus));
    cost.seconds = cost.seconds.saturating_add(held.seconds);
}

/// GPU seconds of what was held of `nodes` nodes with `gpus` GPUs together.
#[must_use]
pub fn gpu_seconds(held: Held, nodes: i32, gpus: i64) -> i64 {
    held.node_seconds.saturating_mul(gpus) / i64::from(nodes.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::plan::fixtures::object;

    fn of(per_hour: &str, seconds: i64) -> String {
        amount(decimal(per_hour), seconds, 1).to_string()
    }

    #[test]
    fn amounts_are_exact_to_a_millionth_which_is_rounded_up() {
        assert_eq!(of("4.50", 1200), "1.5");
        assert_eq!(of("0.10", 30), "0.000834");
        assert_eq!(of("0.000001", 1), "0.000001");
        assert_eq!(
            amount(decimal("0.1"), 3 * 3600, 3).to_string(),
            "0.1",
            "a share that is no decimal is not rounded on the way"
        );
        assert_eq!((of("", 30), of("none", 30), of("3.6", 0)), ("0".into(), "0".into(), "0".into()));
    }

    #[test]
    fn each_node_of_several_costs_its_share_of_the_price_and_holds_its_share_of_the_gpus() {
        let held = Held { seconds: 3600, node_seconds: 2 * 3600 };
        let mut cost = Cost { per_hour: "30".into(), accrued: "0.5".into(), gpu_seconds: 5, seconds: 7, ..Cost::default() };
        charge(&mut cost, held, 3, 24);
        assert_eq!((cost.accrued.as_str(), cost.gpu_seconds, cost.seconds), ("20.5", 5 + 2 * 3600 * 8, 3607));
    }

    #[test]
    fn a_pod_that_was_evicted_before_its_containers_began_ended_when_its_conditions_last_changed() {
        let pod = |status: serde_json::Value| ended_at(&object::<corev1::Pod>(json!({"metadata": {}, "status": status})));
        let disrupted = json!([{"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2027-01-15T07:00:09Z"}]);
        let end = "2027-01-15T07:00:09Z".parse().ok();
        assert_eq!(pod(json!({"phase": "Failed", "reason": "Evicted", "conditions": disrupted})), end);
        assert_eq!(pod(json!({"phase": "Running", "conditions": disrupted})), None);
        assert_eq!(pod(json!({"phase": "Failed"})), None);
    }

    proptest! {
        #[test]
        fn no_amount_overflows_or_shrinks_with_time(
            price in "[0-9]{1,24}(\\.[0-9]{1,3})?", one in 0_i64..=i64::MAX, other in 0_i64..=i64::MAX, nodes in 1_i32..=i32::MAX,
        ) {
            let price = decimal(&price);
            let (less, more) = (amount(price, one.min(other), nodes), amount(price, one.max(other), nodes));
            prop_assert!(Decimal::ZERO <= less && less <= more);
        }

        #[test]
        fn what_is_charged_in_parts_is_never_less(
            price in "[0-9]{1,9}(\\.[0-9]{1,3})?", one in 0_i64..1_000_000_000, other in 0_i64..1_000_000_000, nodes in 1_i32..9,
        ) {
            let price = decimal(&price);
            let parts = amount(price, one, nodes).saturating_add(amount(price, other, nodes));
            prop_assert!(parts >= amount(price, one + other, nodes));
        }
    }
}
