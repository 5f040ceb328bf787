use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::agent::fixture::{UID, config, write_checkpoint, write_manifest};

struct Pod {
    root: TempDir,
    arguments: Arguments,
}

impl Pod {
    fn new() -> Self {
        let root = tempdir().unwrap();
        let wrapper = root.path().join("finetune-run");
        fs::write(&wrapper, "wrapper").unwrap();
        let arguments = Arguments {
            wrapper: Some(wrapper),
            termination_log: root.path().join("termination-log"),
            root: root.path().to_owned(),
        };
        Self { root, arguments }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&fs::read(self.at(path)).unwrap()).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_fresh_pod_gets_everything_trainer_and_watch_read() {
    let pod = Pod::new();
    prepare(&config(), &pod.arguments).await.unwrap();
    assert_eq!(fs::read_to_string(pod.at(paths::WRAPPER)).unwrap(), "wrapper");
    assert_eq!(mode(&pod.at(paths::WRAPPER)), 0o755);
    assert_eq!(mode(&pod.at(paths::PARAMETERS)), 0o644);
    assert_eq!(pod.json(paths::PARAMETERS)["output_dir"], json!("/finetune/output/lineage-1"));
    assert_eq!(pod.json(paths::PREPARED), json!({}));
    for dir in ["/finetune/output/lineage-1", paths::HOME, "/var/run/finetune/log"] {
        assert!(pod.at(dir).is_dir(), "{dir}");
    }
    assert!(pod.at(paths::CALLBACK_TOKEN).is_file());
    assert!(fs::symlink_metadata(pod.at(paths::RESUME)).is_err());
}

#[tokio::test]
async fn a_pod_that_starts_again_forgets_how_it_ended_and_resumes() {
    let pod = Pod::new();
    prepare(&config(), &pod.arguments).await.unwrap();
    for path in [paths::ENDED, paths::DRAINED] {
        fs::write(pod.at(path), "exit=1\n").unwrap();
    }
    let output = pod.at("/finetune/output/lineage-1");
    write_checkpoint(&output, 5);
    write_manifest(&output, 5, UID);
    write_checkpoint(&output, 10);
    fs::remove_file(output.join("checkpoint-10/trainer_state.json")).unwrap();
    prepare(&config(), &pod.arguments).await.unwrap();
    assert!(!pod.at(paths::ENDED).exists() && !pod.at(paths::DRAINED).exists());
    let link = fs::read_link(pod.at(paths::RESUME)).unwrap();
    assert_eq!(link, Path::new("/finetune/output/lineage-1/checkpoint-5"));
    let parameters = pod.json(paths::PARAMETERS);
    assert_eq!(parameters["resume_from_checkpoint"], json!("/finetune/output/lineage-1/checkpoint-5"));
    let prepared = pod.json(paths::PREPARED);
    assert_eq!(prepared["resumedFrom"], json!(5));
    assert!(prepared["refused"]["10"].as_str().unwrap().starts_with("missing-file"));
}

#[tokio::test]
async fn a_missing_dataset_stops_it_before_the_trainer_starts() {
    let pod = Pod::new();
    let mut config = config();
    config.dataset = Input::Path {
        path: "/finetune/volumes/none/x".to_owned(),
        label: "volume://none/x".to_owned(),
        field: "spec.dataset.training".to_owned(),
    };
    let error = prepare(&config, &pod.arguments).await.unwrap_err();
    assert_eq!(failure::of(&error).reason, "DatasetInvalid");
    assert!(!pod.at(paths::PARAMETERS).exists());
}

#[tokio::test]
async fn an_output_without_credentials_names_the_secret() {
    let pod = Pod::new();
    let mut config = config();
    config.upload =
        Some(crate::protocol::Store { uri: "s3://b/p".to_owned(), endpoint: None, credentials: "NOT_SET_".to_owned() });
    let failure = failure::of(&prepare(&config, &pod.arguments).await.unwrap_err());
    assert_eq!((failure.reason.as_str(), failure.user_error), ("StorageAccessDenied", true));
    assert!(failure.message.contains("secretName"));
}

#[test]
fn what_only_has_to_be_looked_at_comes_before_what_is_downloaded() {
    let mut config = config();
    config.base_model = Input::Download {
        store: crate::protocol::Store { uri: "s3://b/p".to_owned(), endpoint: None, credentials: String::new() },
        to: "/finetune/sources/base-model".to_owned(),
        field: "spec.baseModel".to_owned(),
    };
    let roles: Vec<_> = inputs_of(&config).into_iter().map(|(role, _)| role).collect();
    assert_eq!(roles, [Role::Dataset, Role::BaseModel]);
}
