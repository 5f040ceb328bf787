//! Takes what looks like a credential out of text that others may read. Pure.

use std::borrow::Cow;

/// How a credential begins, how many characters follow at least, and which may.
type Shape = (&'static str, usize, fn(char) -> bool);

const SHAPES: [Shape; 9] = [
    ("hf_", 20, |c| c.is_ascii_alphanumeric()),
    ("AKIA", 16, |c| c.is_ascii_uppercase() || c.is_ascii_digit()),
    ("ASIA", 16, |c| c.is_ascii_uppercase() || c.is_ascii_digit()),
    ("ghp_", 20, |c| c.is_ascii_alphanumeric()),
    ("github_pat_", 20, is_token),
    ("sk-", 20, is_token),
    ("eyJ", 20, is_token),
    ("Bearer ", 12, is_token),
    ("AWS_SECRET_ACCESS_KEY=", 1, |c| !c.is_whitespace()),
];

const fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/' | '=')
}

/// The text without credentials.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut clean = Cow::Borrowed(text);
    for (start, least, may) in SHAPES {
        if clean.contains(start) {
            clean = Cow::Owned(without(&clean, (start, least), may));
        }
    }
    clean
}

fn without(text: &str, (start, least): (&str, usize), may: fn(char) -> bool) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(start) {
        let length = after.find(|c| !may(c)).unwrap_or(after.len());
        let (secret, tail) = after.split_at(length);
        clean.push_str(before);
        clean.push_str(start);
        let inside = before.ends_with(|c: char| c.is_ascii_alphanumeric());
        clean.push_str(if secret.len() >= least && !inside { "[redacted]" } else { secret });
        rest = tail;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_and_the_rest_stays() {
        let token = "a1B2c3D4e5F6g7H8i9J0k1";
        assert_eq!(redact(&format!("using hf_{token}, ok")), "using hf_[redacted], ok");
        assert_eq!(redact(&format!("Authorization: Bearer {token}.{token}")), "Authorization: Bearer [redacted]");
        assert_eq!(redact("key AKIAABCDEFGHIJKLMNOP!"), "key AKIA[redacted]!");
        for harmless in ["hf_hub_download failed", "mask-ed", "task-abcdefghijklmnopqrstuvwxyz", "é hf_ é", ""] {
            assert_eq!(redact(harmless), harmless);
        }
    }
}
