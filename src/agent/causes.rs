//! An error in one line with what caused it: the reason of a failed connection is in the last cause.

use std::error::Error;

/// The messages of an error and of what caused it, without repeating them.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}
