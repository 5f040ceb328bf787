//! The manifest: what it records, and what it notices.

use super::super::testing::{MemoryFs, write_adapter};
use super::super::{Manifest, Origin, Reason, inspect, manifest_name};
use super::{DIR, look, path};

fn origin() -> Origin {
    Origin { fine_tune_uid: "0b5c".to_owned(), attempt: 2, lineage: 1 }
}

fn proven() -> (MemoryFs, Manifest) {
    let fs = MemoryFs::new();
    write_adapter(&fs, DIR, 4);
    fs.touch(&format!("{DIR}/trainer_state.json"), 1_700_000_000_500_000_000);
    fs.write(&format!("{DIR}/large"), vec![7; (5 << 20) / 2]);
    let manifest = Manifest::new(&fs, &path(DIR), origin(), &look(&fs)).unwrap();
    (fs, manifest)
}

fn codes(reasons: &[Reason]) -> Vec<&'static str> {
    reasons.iter().map(Reason::code).collect()
}

fn read(fs: &MemoryFs, text: &str) -> Result<Manifest, Reason> {
    let name = format!("out/{}", manifest_name("checkpoint-4"));
    fs.write(&name, text);
    Manifest::read(fs, &path(&name))
}

#[test]
fn a_manifest_reads_back_as_it_was_written() {
    let (fs, manifest) = proven();
    let text = manifest.to_json().unwrap();
    assert_eq!(read(&fs, &text).unwrap(), manifest);
    assert_eq!(manifest.saved_at.to_string(), "2023-11-14T22:13:20.5Z");
    for part in ["\"fineTuneUid\": \"0b5c\"", "\"digest\": \"sha256:", "\"format\": \"Adapter\""] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(manifest.check(&fs, &path(DIR), true), []);
}

#[test]
fn hashes_are_those_of_the_content() {
    let fs = MemoryFs::new();
    write_adapter(&fs, DIR, 4);
    fs.write(&format!("{DIR}/abc"), "abc");
    let manifest = Manifest::new(&fs, &path(DIR), origin(), &look(&fs)).unwrap();
    let file = manifest.files.iter().find(|file| file.path == "abc").unwrap();
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!((file.size, file.sha256.as_str()), (3, expected));
}

#[test]
fn every_change_is_noticed_and_content_only_when_asked() {
    type Change = fn(&MemoryFs);
    let changes: [(&[&str], &[&str], Change); 7] = [
        (&["missing-file"], &["missing-file"], |fs| {
            fs.remove(&format!("{DIR}/large"));
        }),
        (&["size-differs"], &["size-differs"], |fs| {
            fs.edit(&format!("{DIR}/large"), |b| b.push(0));
        }),
        (&[], &["hash-differs"], |fs| {
            fs.edit(&format!("{DIR}/large"), |b| b[2 << 20] = 0);
        }),
        (&["unlisted-file"], &["unlisted-file"], |fs| {
            fs.write(&format!("{DIR}/new"), "");
        }),
        (&["link"], &["link"], |fs| fs.link(&format!("{DIR}/new"))),
        (&["vanished"], &["vanished"], |fs| fs.remove(DIR)),
        (&[], &[], |fs| {
            fs.write(&format!("{DIR}/samples.jsonl"), "{}");
        }),
    ];
    for (shallow, deep, change) in changes {
        let (fs, manifest) = proven();
        change(&fs);
        assert_eq!(codes(&manifest.check(&fs, &path(DIR), false)), shallow);
        assert_eq!(codes(&manifest.check(&fs, &path(DIR), true)), deep);
    }
}

#[test]
fn a_damaged_or_foreign_manifest_is_refused() {
    let (fs, manifest) = proven();
    let text = manifest.to_json().unwrap();
    let torn = &text[..text.len() / 2];
    assert_eq!(read(&fs, torn).unwrap_err().code(), "bad-json");
    let changes: [fn(&mut Manifest); 5] = [
        |manifest| manifest.version = 2,
        |manifest| manifest.files[0].size += 1,
        |manifest| manifest.files[0].path = "../x".to_owned(),
        |manifest| manifest.files.push(manifest.files[0].clone()),
        |manifest| manifest.digest.clear(),
    ];
    for change in changes {
        let mut other = manifest.clone();
        change(&mut other);
        let refused = read(&fs, &other.to_json().unwrap()).unwrap_err();
        assert_eq!(refused.code(), "bad-manifest");
    }
}

#[test]
fn only_a_complete_checkpoint_that_holds_still_gets_a_manifest() {
    let (fs, _) = proven();
    let before = look(&fs);
    fs.edit(&format!("{DIR}/large"), |bytes| bytes.push(0));
    let refused = Manifest::new(&fs, &path(DIR), origin(), &before).unwrap_err();
    assert_eq!(codes(&refused), ["size-differs"]);
    let wrong = inspect(&fs, &path(DIR), 5);
    let refused = Manifest::new(&fs, &path(DIR), origin(), &wrong).unwrap_err();
    assert_eq!(codes(&refused), ["wrong-step"]);
}
