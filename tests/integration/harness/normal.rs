//! Objects without what differs between two equal runs: times, uids, versions, ports, the namespace.

use serde::Serialize;
use serde_json::Value;

use super::wait::yaml;

/// Fields whose value is chance or the time of day; costs go with the clock.
const CHANCE: &[&str] = &[
    "resourceVersion",
    "generation",
    "observedGeneration",
    "managedFields",
    "selfLink",
    "accrued",
    "gpuSeconds",
    "seconds",
    "eta",
    "time",
    "savedAt",
    "asOf",
    "ips",
    "clusterIP",
    "clusterIPs",
    "finetune.dev/revision",
    "caBundle",
];

/// What two equal runs have in common, as text.
pub fn normal(objects: &[impl Serialize], namespace: &str, uid: &str) -> String {
    let mut value = serde_json::to_value(objects).unwrap();
    strip(&mut value);
    let text = yaml(&value).replace(namespace, "NAMESPACE").replace(uid, "UID");
    let text = without_uids(&text.replace(&uid[..8], "UID8"));
    // Each operator takes ports that are free; a seed that nobody gave is drawn from the uid; what is spent goes with the clock.
    ["127.0.0.1:", r#"\"seed\":"#, "maxDuration: "].iter().fold(text, |text, before| without_figure(&text, before))
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !CHANCE.contains(&key.as_str()) && !key.ends_with("Time") && !key.ends_with("Timestamp"));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Takes out the number or duration after every `before`.
fn without_figure(text: &str, before: &str) -> String {
    let parts: Vec<_> = text.split(before).collect();
    let rest = parts
        .iter()
        .skip(1)
        .map(|rest| rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || "hms".contains(letter)));
    parts.first().copied().into_iter().chain(rest).collect::<Vec<_>>().join(before)
}

/// Replaces everything that looks like a uid.
fn without_uids(text: &str) -> String {
    let is_uid = |word: &str| {
        let parts: Vec<_> = word.split('-').map(str::len).collect();
        parts == [8, 4, 4, 4, 12] && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    };
    let inside = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let mut rest = text;
    let mut out = String::with_capacity(text.len());
    while let Some(start) = rest.find(inside) {
        let (before, word) = rest.split_at(start);
        let end = word.find(|letter| !inside(letter)).unwrap_or(word.len());
        out.push_str(before);
        out.push_str(if is_uid(&word[..end]) { "A-UID" } else { &word[..end] });
        rest = &word[end..];
    }
    out + rest
}
