//! Metrics as they stand in a status: six significant digits, which is what people read; the history keeps them all. Pure.

use std::collections::BTreeMap;

/// From here on a number has no digits to spare.
const LARGE: f64 = 100_000.0;

/// The same metrics, each rounded.
pub(super) fn rounded(metrics: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    metrics.iter().map(|(name, value)| (name.clone(), six_digits(value))).collect()
}

fn six_digits(text: &str) -> String {
    let value = text.parse::<f64>().ok().filter(|value| value.fract() != 0.0 && value.abs() < LARGE);
    let short = value.and_then(|value| format!("{value:.5e}").parse::<f64>().ok());
    short.map_or_else(|| text.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::six_digits;

    #[test]
    fn fractions_are_cut_to_six_digits_and_counts_stay() {
        let cases = [
            ("0.0030517667531967164", "0.00305177"),
            ("12.5", "12.5"),
            ("104500", "104500"),
            ("1234567.25", "1234567.25"),
            ("2.93e17", "2.93e17"),
            ("1e-10", "0.0000000001"),
        ];
        for (given, wanted) in cases {
            assert_eq!(six_digits(given), wanted);
        }
    }
}
