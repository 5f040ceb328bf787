//! What is said of an image that cannot be pulled. The kubelet tells the same failure in turns as what the registry said and as a pause before
//! the next try, which is one piece of news. Pure.

use crate::api::Failure;

/// What it is called.
pub const REASON: &str = "ImagePullFailed";
/// What stands before the words of the registry.
const CANNOT: &str = "cannot be pulled";

/// Whether a container that waits for that reason waits for its image.
pub fn is_about(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed"
    )
}

/// The image and the registry's own words, without what the kubelet says of its pause.
pub fn message(image: &str, words: &str) -> String {
    let told = match words.strip_prefix("Back-off pulling image ") {
        // Newer kubelets repeat there why the last try failed.
        Some(pause) => pause.split_once(": ").and_then(|(_, cause)| cause.split_once(": ")).map_or("", |(_, cause)| cause),
        None => words,
    };
    if told.is_empty() { format!("image {image:?} {CANNOT}") } else { format!("image {image:?} {CANNOT}: {told}") }
}

/// Whether the later failure says nothing that the known one does not: it is about the same image, and its words are none, or differ in
/// numbers alone, such as ports and times.
pub fn says_no_more(known: &Failure, later: &Failure) -> bool {
    let parts = |failure: &Failure| {
        let (image, words) = failure.message.split_once(CANNOT)?;
        let words: String = words.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        Some((image.to_owned(), words))
    };
    let (Some(known), Some(later)) = (parts(known), parts(later)) else { return false };
    known.0 == later.0 && (later.1.is_empty() || known.1 == later.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_says_what_the_registry_said_or_nothing() {
        let said = "failed to resolve: not found: a: b";
        assert_eq!(message("x:1", said), format!("image \"x:1\" cannot be pulled: {said}"));
        let pause = format!("Back-off pulling image \"registry:5000/x:1\": ErrImagePull: {said}");
        assert_eq!(message("x:1", &pause), message("x:1", said));
        assert_eq!(message("x:1", "Back-off pulling image \"registry:5000/x:1\""), "image \"x:1\" cannot be pulled");
    }
}
