//! Text that has to fit where it stands. Pure.

/// Cuts `text` to at most `limit` bytes, at a character boundary, and says so.
#[must_use]
pub fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("äöü", 5), "ä…");
        assert_eq!(cut("abc", 3), "abc");
    }
}
