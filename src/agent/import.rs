//! `agent import`: proves the weights of a Checkpoint somebody wrote by hand, on a volume or in an object
//! store, and reports that one. Writes nothing but the copy it downloads.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::check::{self, as_reported, as_unusable};
use super::collect::deliver;
use super::store::{Bucket, StoreError};
use crate::api::WeightsFormat;
use crate::checkpoint_files::{Manifest, Origin, RealFs, RelPath, inspect_weights, manifest_name};
use crate::protocol::{FilesState, Report, ReportedCheckpoint, Store};

/// What `agent import` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The directory of the weights, where they lie on a volume.
    #[arg(long, env = "FINETUNE_IMPORT_DIR", required_unless_present = "store_uri")]
    pub dir: Option<PathBuf>,
    /// The prefix of the weights, where they lie in an object store, as `s3://bucket/prefix`.
    #[arg(long, env = "FINETUNE_IMPORT_STORE_URI", conflicts_with = "dir", requires = "store_credentials")]
    pub store_uri: Option<String>,
    /// Endpoint of a store that is not AWS.
    #[arg(long, env = "FINETUNE_IMPORT_STORE_ENDPOINT")]
    pub store_endpoint: Option<String>,
    /// Prefix of the environment variables that hold the store's credentials.
    #[arg(long, env = "FINETUNE_IMPORT_STORE_CREDENTIALS")]
    pub store_credentials: Option<String>,
    /// Step of the Checkpoint.
    #[arg(long, env = "FINETUNE_IMPORT_STEP", default_value_t = 0)]
    pub step: i64,
    /// Lineage of the Checkpoint.
    #[arg(long, env = "FINETUNE_IMPORT_LINEAGE", default_value_t = 0)]
    pub lineage: u32,
    /// Attempt of the Checkpoint.
    #[arg(long, env = "FINETUNE_IMPORT_ATTEMPT", default_value_t = 0)]
    pub attempt: u32,
    /// A directory for what has to be downloaded to be proven.
    #[arg(long, default_value = "/finetune/sources/import")]
    pub work_dir: PathBuf,
    /// Seconds for which the report is tried again.
    #[arg(long, default_value_t = 120)]
    pub grace: u64,
}

/// Runs `agent import`: 0 when the report was taken, whatever it says.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let checkpoint = match find(arguments).await {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            tracing::error!(%error, "the weights could not be looked at");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(state = ?checkpoint.state, reason = checkpoint.message, "weights looked at");
    let report = Report { sequence: 1, checkpoints: vec![checkpoint], ..Report::default() };
    deliver(&report, Duration::from_secs(arguments.grace)).await
}

/// The one checkpoint; an error only where a later try may find another answer.
async fn find(arguments: &Arguments) -> Result<ReportedCheckpoint, StoreError> {
    let dir = match (&arguments.dir, &arguments.store_uri) {
        (Some(dir), _) => Ok(dir.clone()),
        (None, uri) => download(arguments, uri.as_deref().unwrap_or_default()).await,
    };
    let origin = Origin { fine_tune_uid: String::new(), attempt: arguments.attempt, lineage: arguments.lineage };
    let step = arguments.step;
    match dir {
        Ok(dir) => {
            let other = origin.clone();
            let looked = tokio::task::spawn_blocking(move || look(&dir, step, &other)).await;
            let failed = |error: tokio::task::JoinError| StoreError::Failed {
                uri: arguments.dir.as_ref().map_or_else(String::new, |dir| dir.display().to_string()),
                problem: error.to_string(),
            };
            looked.map_err(failed)
        }
        // Whatever keeps them from being read, they are not there for anybody who would use them.
        Err(error) if error.is_final() && !error.is_full() => Ok(unusable(step, &origin, FilesState::Missing, error.to_string())),
        Err(error) => Err(error),
    }
}

/// Downloads the weights, with the manifest beside them where there is one.
async fn download(arguments: &Arguments, uri: &str) -> Result<PathBuf, StoreError> {
    let store = |uri: &str| Store {
        uri: uri.to_owned(),
        endpoint: arguments.store_endpoint.clone(),
        credentials: arguments.store_credentials.clone().unwrap_or_default(),
    };
    let uri = uri.trim_end_matches('/');
    let name = uri.rsplit('/').next().unwrap_or_default();
    let to = arguments.work_dir.join(name);
    Bucket::open(&store(uri))?.download_prefix("", &to, "checkpoint").await?;
    Ok(to)
}

/// Looks at the weights in `dir`: all of them are read, so that they get a digest.
fn look(dir: &Path, step: i64, origin: &Origin) -> ReportedCheckpoint {
    let missing =
        |error: &dyn std::fmt::Display| unusable(step, origin, FilesState::Missing, format!("{}: {error}", dir.display()));
    let real = match std::fs::canonicalize(dir) {
        Ok(real) => real,
        Err(error) => return missing(&error),
    };
    let name = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = RelPath::parse(name).ok().zip(real.parent());
    let (fs, relative) = match named {
        Some((relative, parent)) => (RealFs::new(parent), relative),
        None => (RealFs::new(&real), RelPath::root()),
    };
    let fs = match fs {
        Ok(fs) => fs,
        Err(error) => return missing(&error),
    };
    let found = inspect_weights(&fs, &relative, u64::try_from(step).unwrap_or_default());
    let recorded = RelPath::parse(&manifest_name(name)).ok();
    let recorded = recorded.map(|path| check::manifest(&fs, &path)).transpose();
    let damage = match recorded.map(Option::flatten) {
        Ok(Some(manifest)) => manifest.check(&fs, &relative, true),
        Ok(None) => Vec::new(),
        Err(reason) => vec![reason],
    };
    if !found.complete || !damage.is_empty() {
        let mut found = found;
        found.reasons.extend(damage);
        return as_unusable(step, origin, &found);
    }
    match Manifest::new(&fs, &relative, origin.clone(), &found) {
        Ok(manifest) => as_reported(&manifest),
        Err(reasons) => unusable(step, origin, FilesState::Corrupt, check::reasons(&reasons)),
    }
}

fn unusable(step: i64, origin: &Origin, state: FilesState, message: String) -> ReportedCheckpoint {
    ReportedCheckpoint {
        step,
        lineage: origin.lineage.into(),
        attempt: origin.attempt.into(),
        state,
        message,
        format: WeightsFormat::default(),
        saved_at: None,
        metrics: std::collections::BTreeMap::new(),
        size_bytes: 0,
        file_count: 0,
        digest: None,
        resumable: false,
        adapter: None,
        samples: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;
    use crate::agent::fixture::{damage, write_checkpoint, write_manifest};

    fn origin() -> Origin {
        Origin { fine_tune_uid: String::new(), attempt: 0, lineage: 0 }
    }

    #[test]
    fn weights_of_any_folder_are_proven_and_get_a_digest() {
        let root = tempdir().unwrap();
        write_checkpoint(root.path(), 5);
        let dir = root.path().join("mine");
        std::fs::rename(root.path().join("checkpoint-5"), &dir).unwrap();
        let found = look(&dir, 9, &origin());
        assert_eq!((found.state, found.step), (FilesState::Ready, 9));
        assert!(found.digest.unwrap().starts_with("sha256:"));
        assert_eq!(found.format, WeightsFormat::Adapter);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn damaged_and_missing_weights_are_told_apart() {
        let root = tempdir().unwrap();
        write_checkpoint(root.path(), 5);
        write_manifest(root.path(), 5, "whoever");
        assert_eq!(look(&root.path().join("checkpoint-5"), 5, &origin()).state, FilesState::Ready);
        damage(root.path(), 5);
        let found = look(&root.path().join("checkpoint-5"), 5, &origin());
        assert_eq!(found.state, FilesState::Corrupt);
        assert!(found.message.starts_with("hash-differs"), "{}", found.message);
        let gone = look(&root.path().join("none"), 5, &origin());
        assert_eq!(gone.state, FilesState::Missing);
    }
}
