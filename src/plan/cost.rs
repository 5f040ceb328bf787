//! What the pods of an attempt cost: exact decimals, from the time they held their GPUs. Pure.

use std::str::FromStr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as corev1;
use rust_decimal::Decimal;

/// Seconds the pods held their node: from the kubelet's acceptance to the end of the last container (or `now`).
#[must_use]
pub fn pod_seconds<'a>(pods: impl Iterator<Item = &'a corev1::Pod>, now: Timestamp) -> i64 {
    pods.filter_map(|pod| {
        let start = pod.status.as_ref()?.start_time.as_ref()?.0;
        let end = ended_at(pod).unwrap_or(now);
        Some(end.as_second().saturating_sub(start.as_second()).max(0))
    })
    .sum()
}

/// When the last container of a finished pod ended.
#[must_use]
pub fn ended_at(pod: &corev1::Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let containers = status.container_statuses.iter().flatten();
    let sidecars = status.init_container_statuses.iter().flatten();
    containers
        .chain(sidecars)
        .filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|time| time.0)
        .max()
}

/// Price of `seconds` at `per_hour`, rounded to four decimals; zero when there is no price.
#[must_use]
pub fn amount(per_hour: Option<&str>, seconds: i64) -> Decimal {
    let price = per_hour.and_then(|text| Decimal::from_str(text).ok()).unwrap_or_default();
    (price * Decimal::from(seconds) / Decimal::from(3600)).round_dp(4).normalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_an_hour_is_exact() {
        assert_eq!(amount(Some("4.50"), 1200).to_string(), "1.5");
        assert_eq!(amount(Some("0.10"), 30).to_string(), "0.0008");
        assert_eq!(amount(None, 30).to_string(), "0");
    }
}
