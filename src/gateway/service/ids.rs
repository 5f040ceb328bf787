//! Names and ids: stateless and readable, so that any replica finds any object. Pure.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Longest name of a FineTune.
const LONGEST_RUN: usize = 40;
/// Longest name of a Deployment.
const LONGEST_DEPLOYMENT: usize = 57;

/// Whether `text` can be a namespace.
#[must_use]
pub fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// Whether `text` can be the name of an object. Whatever is put into a path of the API server has to pass this.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_part(part: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !part.is_empty() && part.bytes().all(inside) && !part.starts_with('-') && !part.ends_with('-')
}

/// Id of a run.
#[must_use]
pub fn run_id(name: &str) -> String {
    format!("ftjob-{name}")
}

/// Id of a Checkpoint.
#[must_use]
pub fn checkpoint_id(name: &str) -> String {
    format!("ftckpt-{name}")
}

/// Id of a CheckpointPermission.
#[must_use]
pub fn permission_id(name: &str) -> String {
    format!("cp_{name}")
}

/// Names of runs an id may stand for, the likelier first.
#[must_use]
pub fn runs(id: &str) -> Vec<&str> {
    names(id, &["ftjob-", "ftjob_"])
}

/// Names of permissions an id may stand for.
#[must_use]
pub fn permissions(id: &str) -> Vec<&str> {
    names(id, &["cp_"])
}

/// Names of Checkpoints an id may stand for: `ftckpt-<name>`, the name itself, or `ft:<model>:<org>:<suffix>:<job>:ckpt-step-<n>`.
#[must_use]
pub fn checkpoints(id: &str) -> Vec<String> {
    if let Some((rest, step)) = id.strip_prefix("ft:").and_then(|rest| rest.rsplit_once(":ckpt-step-")) {
        let job = rest.rsplit_once(':').map_or(rest, |(_, job)| job);
        let step = Some(step).filter(|step| !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()));
        return step.into_iter().flat_map(|step| runs(job).into_iter().map(move |name| format!("{name}-step-{step}"))).collect();
    }
    names(id, &["ftckpt-", "ftckpt_"]).into_iter().map(str::to_owned).collect()
}

fn names<'a>(id: &'a str, prefixes: &[&str]) -> Vec<&'a str> {
    let inner = prefixes.iter().find_map(|prefix| id.strip_prefix(prefix));
    inner.into_iter().chain([id]).filter(|name| is_name(name)).collect()
}

/// A name for a new run: readable, and different each time `chance` is.
#[must_use]
pub fn new_run(said: &str, chance: &str) -> String {
    named(said, &hash(&[chance], 8), LONGEST_RUN)
}

/// The name of the run a create with this key makes, however often it is asked.
#[must_use]
pub fn keyed_run(user: &str, project: &str, key: &str) -> String {
    format!("ft-{}", hash(&[user, project, key], 24))
}

/// The name of the permission of a checkpoint for a project.
#[must_use]
pub fn permission(checkpoint: &str, project: &str) -> String {
    named(checkpoint, &hash(&[checkpoint, project], 10), 100)
}

/// The name of the Deployment of a checkpoint: the same, where it fits.
#[must_use]
pub fn deployment(checkpoint: &str) -> String {
    if checkpoint.len() <= LONGEST_DEPLOYMENT
        && is_label(checkpoint)
        && checkpoint.starts_with(|first: char| first.is_ascii_lowercase())
    {
        return checkpoint.to_owned();
    }
    named(checkpoint, &hash(&[checkpoint], 8), LONGEST_DEPLOYMENT)
}

/// What people said, as far as a name can hold it, and a tail that makes it unique.
fn named(said: &str, tail: &str, longest: usize) -> String {
    let mut slug = String::new();
    for letter in said.chars() {
        match letter.to_ascii_lowercase() {
            letter if letter.is_ascii_alphanumeric() => slug.push(letter),
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    let slug = slug.trim_start_matches(|first: char| !first.is_ascii_lowercase());
    let slug = slug.get(..slug.len().min(longest - tail.len() - 1)).unwrap_or_default().trim_end_matches('-');
    if slug.is_empty() { format!("ft-{tail}") } else { format!("{slug}-{tail}") }
}

/// The first digits of the hash of some texts.
#[must_use]
pub fn hash(texts: &[&str], digits: usize) -> String {
    let mut sum = Sha256::new();
    for text in texts {
        sum.update(text.len().to_be_bytes());
        sum.update(text.as_bytes());
    }
    let mut text = hex(&sum.finalize());
    text.truncate(digits);
    text
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether a Checkpoint of that name is one of the run's, as the operator names them.
#[must_use]
pub fn is_of_run(checkpoint: &str, run: &str, uid: &str) -> bool {
    let Some(rest) = checkpoint.strip_prefix(run).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let uid = uid.get(..8).filter(|uid| !uid.is_empty());
    let rest = uid.and_then(|uid| rest.strip_prefix(uid)).map_or(rest, |rest| rest.trim_start_matches('-'));
    let step = match rest.strip_prefix('v').and_then(|rest| rest.split_once("-step-")) {
        Some((lineage, step)) if digits(lineage) => Some(step),
        _ => rest.strip_prefix("step-"),
    };
    step.is_some_and(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_path_are_none() {
        for bad in ["", ".", "..", "a/b", "a/../b", "A", "-a", "a-", "a..b", "a%2fb", "a b", "ä", &"a".repeat(254)] {
            assert!(!is_name(bad), "{bad}");
            assert!(runs(bad).is_empty() && checkpoints(bad).is_empty() && permissions(bad).is_empty(), "{bad}");
        }
        assert!(is_name("llama-3.1-8b") && is_label("team-1") && !is_label("a.b"));
    }

    #[test]
    fn ids_are_found_again_with_and_without_prefix() {
        assert_eq!(runs(&run_id("bot")), ["bot", "ftjob-bot"]);
        assert_eq!(runs("bot"), ["bot"]);
        assert_eq!(permissions(&permission_id("x")), ["x"]);
        assert_eq!(checkpoints(&checkpoint_id("bot-step-3")), ["bot-step-3", "ftckpt-bot-step-3"]);
        assert_eq!(checkpoints("ft:gpt:org:suffix:bot:ckpt-step-88"), ["bot-step-88"]);
        assert_eq!(checkpoints("ft:gpt:org::ftjob-bot:ckpt-step-88"), ["bot-step-88", "ftjob-bot-step-88"]);
        assert!(checkpoints("ft:gpt:org::bot:ckpt-step-").is_empty() && checkpoints("ft:a:../b:ckpt-step-1").is_empty());
    }

    #[test]
    fn new_names_are_valid_whatever_people_say() {
        for said in ["Customer Support Classifier", "", "1-2-3", "ÄÖÜ", "--", &"long ".repeat(50), "3.1-llama", "a/../b"] {
            for name in [new_run(said, "x"), permission(said, "p")] {
                assert!(is_name(&name) && name.starts_with(|first: char| first.is_ascii_lowercase()), "{name}");
            }
            assert!(new_run(said, "x").len() <= LONGEST_RUN);
            assert_ne!(new_run(said, "x"), new_run(said, "y"));
        }
        assert!(new_run("Customer Support Classifier", "x").starts_with("customer-support-classifier-"));
        assert!(keyed_run("u", "p", "k").len() <= LONGEST_RUN);
        assert_ne!(keyed_run("u", "p", "k"), keyed_run("u", "pk", ""));
    }

    #[test]
    fn a_deployment_is_called_as_its_checkpoint_where_that_fits() {
        assert_eq!(deployment("bot-step-300"), "bot-step-300");
        for long in ["a".repeat(60), "a.b".into(), "1-a".into()] {
            let name = deployment(&long);
            assert!(name.len() <= LONGEST_DEPLOYMENT && is_label(&name) && name != long, "{name}");
        }
    }

    #[test]
    fn checkpoints_belong_to_the_run_that_named_them() {
        for name in ["bot-step-300", "bot-v2-step-300", "bot-0123abcd-step-300", "bot-0123abcd-v2-step-3"] {
            assert!(is_of_run(name, "bot", "0123abcd-1111"), "{name}");
        }
        for name in ["bot-2-step-300", "bot", "bot-step-", "bot-step-x", "bot-vx-step-3", "robot-step-3"] {
            assert!(!is_of_run(name, "bot", "0123abcd-1111"), "{name}");
        }
    }
}
