//! Places data comes from and goes to, as people write them in one string. Pure.

use crate::api::{ClaimReference, HuggingFace, ObjectStore, Output, Source, Volume};

/// The source a string means: `s3://…`, `hf://org/name[@revision]`, `volume://claim/path` or `claim/path`. `None`: it is a bare name.
///
/// # Errors
/// What is wrong with it.
pub fn source(text: &str) -> Result<Option<Source>, String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return match scheme {
            "s3" => Ok(Some(object_store(text))),
            "hf" => Ok(Some(hugging_face(rest))),
            "volume" => volume(rest).map(|volume| Some(of_volume(volume))),
            other => Err(format!("{other}:// is not known: use s3://, hf:// or volume://")),
        };
    }
    if text.contains('/') { volume(text).map(|volume| Some(of_volume(volume))) } else { Ok(None) }
}

/// The output a string means: `s3://…`, `volume://claim/path`, or a path in `claim`.
///
/// # Errors
/// What is wrong with it.
pub fn output(text: &str, claim: &str) -> Result<Output, String> {
    match text.split_once("://") {
        Some(("s3", _)) => Ok(Output { object_store: object_store(text).object_store, ..Output::default() }),
        Some(("volume", rest)) => Ok(of_claim(volume(rest)?)),
        Some((other, _)) => Err(format!("{other}:// is not known here: use s3:// or volume://, or a path")),
        None => Ok(of_claim(in_claim(claim, text)?)),
    }
}

/// A path in a claim.
///
/// # Errors
/// It leaves the claim.
pub fn path_in(claim: &str, path: &str) -> Result<Source, String> {
    in_claim(claim, path).map(of_volume)
}

/// The string that means a source.
#[must_use]
pub fn text(source: &Source) -> String {
    if let Some(store) = &source.object_store {
        return store.uri.clone();
    }
    if let Some(hub) = &source.hugging_face {
        let revision = hub.revision.as_ref().map_or_else(String::new, |revision| format!("@{revision}"));
        return format!("hf://{}{revision}", hub.repo);
    }
    let volume = source.volume.clone().unwrap_or_default();
    format!("volume://{}/{}", volume.claim_name, volume.path).trim_end_matches('/').to_owned()
}

fn object_store(uri: &str) -> Source {
    Source { object_store: Some(ObjectStore { uri: uri.into(), secret_name: None, endpoint: None }), ..Source::default() }
}

fn hugging_face(text: &str) -> Source {
    let (repo, revision) = text.split_once('@').map_or((text, None), |(repo, revision)| (repo, Some(revision.to_owned())));
    Source { hugging_face: Some(HuggingFace { repo: repo.into(), revision, secret_name: None }), ..Source::default() }
}

fn volume(text: &str) -> Result<Volume, String> {
    let (claim, path) = text.split_once('/').unwrap_or((text, ""));
    in_claim(claim, path)
}

fn in_claim(claim: &str, path: &str) -> Result<Volume, String> {
    if !super::ids::is_name(claim) {
        return Err("the name of a claim is lower-case letters, digits, '-' and '.'".into());
    }
    let path = path.trim_matches('/');
    if path.split('/').any(|part| part == "..") {
        return Err("the path must stay inside the claim: no '..'".into());
    }
    Ok(Volume { claim_name: claim.into(), path: path.into() })
}

fn of_volume(volume: Volume) -> Source {
    Source { volume: Some(volume), ..Source::default() }
}

fn of_claim(volume: Volume) -> Output {
    let path = Some(volume.path).filter(|path| !path.is_empty());
    Output { volume: Some(ClaimReference { claim_name: volume.claim_name, path }), ..Output::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_means_a_source_and_back() {
        for said in ["s3://bucket/rows", "hf://org/rows@main", "hf://rows", "volume://claim/a/b.jsonl", "volume://claim"] {
            assert_eq!(text(&source(said).unwrap().unwrap()), said);
        }
        assert_eq!(text(&source("claim/a").unwrap().unwrap()), "volume://claim/a");
        assert_eq!(source("ds_train_001"), Ok(None));
    }

    #[test]
    fn what_leaves_its_place_is_refused() {
        for bad in ["file:///etc/passwd", "volume://../x", "claim/../../x", "volume:///x", "Claim/x", "ftp://x"] {
            assert!(source(bad).is_err(), "{bad}");
        }
        assert!(
            output("hf://org/x", "claim").is_err() && output("../x", "claim").is_err() && path_in("claim", "a/../..").is_err()
        );
    }

    #[test]
    fn an_output_is_a_bucket_a_claim_or_a_path_in_the_repository() {
        assert_eq!(output("s3://bucket/x", "repo").unwrap().object_store.unwrap().uri, "s3://bucket/x");
        let volume = output("models/bot", "repo").unwrap().volume.unwrap();
        assert_eq!((volume.claim_name.as_str(), volume.path.as_deref()), ("repo", Some("models/bot")));
        assert_eq!(output("volume://other", "repo").unwrap().volume.unwrap().path, None);
    }
}
