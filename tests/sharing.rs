//! A checkpoint on its way to another namespace: the real exporter and the real `fetch`, as processes, over real TLS. The one part that stands
//! in is the report server's door: what it hands out is made by the real authority.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "sharing/place.rs"]
mod place;

use std::path::Path;

use finetune_operator::protocol::sharing::{ExportManifest, FILES_PATH, Grant, MANIFEST_PATH};
use finetune_operator::reports::Authority;
use jiff::{SignedDuration, Timestamp};

use place::{CHECKPOINT, Exporter, Place, grant};

#[tokio::test]
async fn a_permitted_pod_gets_every_file_as_it_was_recorded() {
    let place = Place::new();
    let exporter = place.export(true).await;
    let to = place.root.path().join("weights");
    let (code, said) = place.fetch(&exporter, &to).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(place::files(&to), place::files(&place.checkpoint()));
    assert!(place::files(&to).len() > 5);
}

#[tokio::test]
async fn without_a_manifest_beside_them_the_files_themselves_are_recorded() {
    let place = Place::new();
    let exporter = place.export(false).await;
    let to = place.root.path().join("weights");
    let (code, said) = place.fetch(&exporter, &to).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(place::files(&to), place::files(&place.checkpoint()));
}

#[tokio::test]
async fn who_is_not_permitted_gets_nothing_and_is_told_whom_to_ask() {
    let place = Place::new();
    let exporter = place.export(true).await;
    place.revoke();
    let to = place.root.path().join("weights");
    let (code, said) = place.fetch(&exporter, &to).await;
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("NotPermitted") && said.contains("CheckpointPermission"), "{said}");
    assert!(place::files(&to).is_empty());
}

#[tokio::test]
async fn a_permission_that_is_not_known_everywhere_yet_is_waited_for() {
    let place = Place::new();
    let exporter = place.export(true).await;
    place.refuse(2);
    let to = place.root.path().join("weights");
    let (code, said) = place.fetch_doubting(&exporter, &to, 60).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.matches("which may pass").count(), 2, "{said}");
    assert_eq!(place::files(&to), place::files(&place.checkpoint()));
}

#[tokio::test]
async fn of_a_checkpoint_whose_folder_is_gone_that_is_said_and_nothing_is_made_in_its_place() {
    let place = Place::new();
    let (code, said) = place.look(&["checkpoint-4", "checkpoint-4.finetune.json"]);
    assert_eq!((code, said.as_str()), (0, ""));
    let before = place::files(place.root.path());
    for (missing, beside) in [("runs/checkpoint-9", "checkpoint-4"), ("checkpoint-9.finetune.json", "checkpoint-4.finetune.json")]
    {
        let (code, said) = place.look(&["checkpoint-4", missing]);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(&format!("/{missing} does not exist; beside it are: ")) && said.contains(beside), "{said}");
        assert!(said.contains("CheckpointInvalid"), "{said}");
    }
    assert_eq!(place::files(place.root.path()), before);
}

#[tokio::test]
async fn a_damaged_file_is_never_served_and_a_half_one_is_taken_up_where_it_ended() {
    let place = Place::new();
    let exporter = place.export(true).await;
    let to = place.root.path().join("weights");
    let (name, weights) = ("model.safetensors", std::fs::read(place.checkpoint().join("model.safetensors")).unwrap());
    std::fs::create_dir_all(&to).unwrap();
    std::fs::write(to.join(format!("{name}.finetune-part")), &weights[..weights.len() / 2]).unwrap();
    let (code, said) = place.fetch(&exporter, &to).await;
    assert_eq!(code, 0, "{said}");
    let half = exporter.said().into_iter().find(|line| line.contains(name)).unwrap();
    assert!(half.contains(&format!("offset={}", weights.len() / 2)), "{half}");
    assert_eq!(std::fs::read(to.join(name)).unwrap(), weights);

    let other = place.root.path().join("other");
    let mut damaged = weights;
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(place.checkpoint().join(name), damaged).unwrap();
    let (code, said) = place.fetch(&exporter, &other).await;
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("CheckpointInvalid") && said.contains(name), "{said}");
    assert!(!other.join(name).exists());
}

/// The codes the exporter answers with, for who bears `grant`.
async fn codes(place: &Place, exporter: &Exporter, grant: &Grant, paths: &[&str]) -> Vec<u16> {
    let mut codes = Vec::new();
    for path in paths {
        let (code, _) = place
            .raw(exporter, Some(&place.authority.capability(String::new(), grant, Timestamp::now()).unwrap()), path)
            .await
            .unwrap();
        codes.push(code);
    }
    codes
}

#[tokio::test]
async fn no_path_leads_to_anything_but_the_files_that_are_listed() {
    let place = Place::new();
    let exporter = place.export(true).await;
    // Appeared after it was recorded: beside the checkpoint, inside it, and as links out of it.
    std::fs::write(place.root.path().join("secret"), "s").unwrap();
    std::fs::write(place.checkpoint().join("added.txt"), "s").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", place.checkpoint().join("link.txt")).unwrap();
    std::os::unix::fs::symlink("..", place.checkpoint().join("up")).unwrap();
    let tricks = [
        "../secret",
        "..%2fsecret",
        "%2e%2e/secret",
        "%2e%2e%2fsecret",
        "..%252fsecret",
        "....//secret",
        "./../secret",
        "..\\secret",
        "config.json/../../secret",
        "config.json%00",
        "%00",
        "config.json/",
        "//etc/hostname",
        "/etc/hostname",
        "%2fetc%2fhostname",
        "added.txt",
        "link.txt",
        "up/secret",
        "CONFIG.JSON",
        "config.json%20",
        "%ff",
        "",
        "*",
        ".",
    ];
    for trick in tricks {
        let answers = codes(&place, &exporter, &grant(), &[&format!("{FILES_PATH}/{trick}")]).await;
        assert!(matches!(answers[..], [400 | 404]), "{trick}: {answers:?}");
    }
    let huge = format!("{FILES_PATH}/{}", "a".repeat(20_000));
    assert_eq!(codes(&place, &exporter, &grant(), &[&huge, "/", "/metrics", "/v1/files"]).await, [404; 4]);
    let beyond = format!("{FILES_PATH}/{}", "a".repeat(100_000));
    let answer = place.raw(&exporter, Some(&place.capability()), &beyond).await;
    assert!(answer.as_ref().map_or(true, |(code, _)| matches!(code, 400 | 414 | 431)), "{answer:?}");
    assert_eq!(codes(&place, &exporter, &grant(), &[&format!("{FILES_PATH}/config.json"), MANIFEST_PATH]).await, [200; 2]);
}

#[tokio::test]
async fn a_listed_file_that_has_become_a_link_is_not_followed() {
    let place = Place::new();
    let exporter = place.export(true).await;
    let file = place.checkpoint().join("config.json");
    let size = std::fs::metadata(&file).unwrap().len();
    let secret = place.root.path().join("secret");
    std::fs::write(&secret, "S".repeat(usize::try_from(size).unwrap())).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&secret, &file).unwrap();
    let answer = place.raw(&exporter, Some(&place.capability()), &format!("{FILES_PATH}/config.json")).await;
    assert!(answer.as_ref().map_or(true, |(_, body)| !body.contains("SSS")), "{answer:?}");
}

#[tokio::test]
async fn only_a_capability_for_this_checkpoint_opens_it() {
    let place = Place::new();
    let exporter = place.export(true).await;
    let path = format!("{FILES_PATH}/config.json");
    let other = Grant { checkpoint: "another-checkpoint".into(), ..grant() };
    let longer = Grant { checkpoint: format!("{CHECKPOINT}0"), ..grant() };
    for grant in [other, longer] {
        assert_eq!(codes(&place, &exporter, &grant, &[&path, MANIFEST_PATH, "/"]).await, [403; 3], "{grant:?}");
    }
    let as_namespace = Grant { checkpoint: "team-b".into(), namespace: CHECKPOINT.into(), deployment: "d".into() };
    assert_eq!(codes(&place, &exporter, &as_namespace, &[&path]).await, [403], "the checkpoint's place in a grant is the first");
    let refused = |answer: std::io::Result<(u16, String)>, what: &str| assert!(answer.is_err(), "{what}: {answer:?}");
    refused(place.raw(&exporter, None, &path).await, "no capability");
    let authority = Authority::generate(Timestamp::now()).unwrap();
    let forged = authority.capability(String::new(), &grant(), Timestamp::now()).unwrap();
    refused(place.raw(&exporter, Some(&forged), &path).await, "one of another authority");
    let hour_ago = Timestamp::now() - SignedDuration::from_hours(1);
    let expired = place.authority.capability(String::new(), &grant(), hour_ago).unwrap();
    refused(place.raw(&exporter, Some(&expired), &path).await, "an expired one");
    let tomorrow = Timestamp::now() + SignedDuration::from_hours(24);
    let early = place.authority.capability(String::new(), &grant(), tomorrow).unwrap();
    refused(place.raw(&exporter, Some(&early), &path).await, "one that is not good yet");
    refused(place.raw(&exporter, Some(&place.as_server()), &path).await, "the certificate of a server");
    let stolen = finetune_operator::protocol::sharing::Capability { key: place.as_server().key, ..place.capability() };
    refused(place.raw(&exporter, Some(&stolen), &path).await, "one without its key");
    refused(place.plain(&exporter, &path).await, "without TLS");
}

#[tokio::test]
async fn it_is_only_read_and_from_where_it_is_asked() {
    let place = Place::new();
    let exporter = place.export(true).await;
    let path = format!("{FILES_PATH}/config.json");
    for method in ["PUT", "POST", "DELETE", "PATCH"] {
        let (code, _) = place.request(&exporter, Some(&place.capability()), (method, &path, "")).await.unwrap();
        assert_eq!(code, 405, "{method}");
    }
    let whole = std::fs::read_to_string(place.checkpoint().join("config.json")).unwrap();
    let ranged = |range: &'static str| {
        let (place, exporter, path) = (&place, &exporter, &path);
        async move { place.request(exporter, Some(&place.capability()), ("GET", path, &format!("Range: {range}\r\n"))).await.unwrap() }
    };
    assert_eq!(ranged("bytes=5-").await, (206, whole[5..].to_owned()));
    for range in ["bytes=-5", "bytes=5-6", "bytes=99999999-", "bytes=99999999999999999999999-", "lines=5-", "bytes=+5-"] {
        assert_eq!(ranged(range).await.0, 416, "{range}");
    }
    let (code, manifest) = place.raw(&exporter, Some(&place.capability()), MANIFEST_PATH).await.unwrap();
    let manifest: ExportManifest = serde_json::from_str(&manifest).unwrap();
    assert_eq!((code, manifest.digest), (200, place.digest.clone()));
    assert!(Path::new(&manifest.files[0].path).is_relative());
}
