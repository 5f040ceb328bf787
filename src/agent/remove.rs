//! `agent delete`: removes folders of runs and checkpoints from a volume or an object store, with the
//! manifests beside them. What is not there is no error, so that it can be repeated; nothing outside
//! what it was given is ever touched, and no link is followed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::store::{Bucket, StoreError};
use crate::checkpoint_files::{RelPath, manifest_name};
use crate::protocol::{Store, exit};

/// Tries for one path: a network file system may keep a directory busy for a moment.
const TRIES: u32 = 4;

/// What `agent delete` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The directory paths are relative to.
    #[arg(long, required_unless_present = "store_uri")]
    pub root: Option<PathBuf>,
    /// The object store paths are relative to, as `s3://bucket/prefix`.
    #[arg(long, conflicts_with = "root", requires = "store_credentials")]
    pub store_uri: Option<String>,
    /// Endpoint of a store that is not AWS.
    #[arg(long)]
    pub store_endpoint: Option<String>,
    /// Prefix of the environment variables that hold the store's credentials.
    #[arg(long)]
    pub store_credentials: Option<String>,
    /// Paths to remove.
    #[arg(required = true)]
    pub paths: Vec<String>,
}

/// What became of the paths.
#[derive(Serialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Removed.
    pub removed: Vec<String>,
    /// Not there.
    pub missing: Vec<String>,
    /// Still there, with the reason.
    pub failed: Vec<Failed>,
}

/// A path that could not be removed.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The path.
    pub path: String,
    /// Why not.
    pub error: String,
}

/// Why a path was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It could lead out of the root.
    #[error("it must name something below the root without `..` and without a leading `/`")]
    Path,
    /// A directory on the way to it is a link.
    #[error("{} is a link, which is not followed", .0.display())]
    Link(PathBuf),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs `agent delete`: 0 when nothing of it is left, 1 when something is, 78 where trying again is of
/// no use.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let bucket = arguments.store_uri.as_ref().map(|uri| {
        Bucket::open(&Store {
            uri: uri.clone(),
            endpoint: arguments.store_endpoint.clone(),
            credentials: arguments.store_credentials.clone().unwrap_or_default(),
        })
    });
    let mut summary = Summary::default();
    let mut last = false;
    for path in &arguments.paths {
        let ended = match (&bucket, &arguments.root) {
            (Some(Ok(bucket)), _) => remove_from_store(bucket, path).await,
            (Some(Err(error)), _) => {
                tracing::error!(%error, "the store cannot be opened");
                return ExitCode::from(u8::try_from(exit::USER_ERROR).unwrap_or(1));
            }
            (None, Some(root)) => remove_from_disk(root, path).await,
            (None, None) => Err(RemoveError::Path),
        };
        match ended {
            Ok(true) => summary.removed.push(path.clone()),
            Ok(false) => summary.missing.push(path.clone()),
            Err(error) => {
                last |= is_final(&error);
                summary.failed.push(Failed { path: path.clone(), error: error.to_string() });
            }
        }
    }
    print(&summary);
    match (summary.failed.is_empty(), last) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(u8::try_from(exit::USER_ERROR).unwrap_or(1)),
        (false, false) => ExitCode::FAILURE,
    }
}

fn print(summary: &Summary) {
    use std::io::Write as _;
    let text = serde_json::to_string(summary).unwrap_or_default();
    let _ = writeln!(io::stdout(), "{text}");
}

fn is_final(error: &RemoveError) -> bool {
    match error {
        RemoveError::Path | RemoveError::Link(_) => true,
        RemoveError::Io(_) => false,
        RemoveError::Store(error) => error.is_final(),
    }
}

/// Removes a prefix and the manifest beside it; whether there was anything.
///
/// # Errors
/// When the path is empty or leads elsewhere, or the store fails.
pub async fn remove_from_store(bucket: &Bucket, path: &str) -> Result<bool, RemoveError> {
    let path = RelPath::parse(path).map_err(|_| RemoveError::Path)?;
    // The manifest first: a checkpoint that is half removed must not be taken for a whole one.
    bucket.delete(&manifest_name(path.as_str())).await?;
    Ok(bucket.delete_prefix(path.as_str()).await? > 0)
}

/// Removes a file or directory below `root` and the manifest beside it; whether there was anything.
///
/// # Errors
/// When the path could lead out of `root`, or the system refuses to the end.
pub async fn remove_from_disk(root: &Path, path: &str) -> Result<bool, RemoveError> {
    let relative = RelPath::parse(path).map_err(|_| RemoveError::Path)?;
    let mut pause = Duration::from_millis(200);
    let mut tries = 1;
    loop {
        let (root, relative) = (root.to_owned(), relative.clone());
        let ended = tokio::task::spawn_blocking(move || remove_once(&root, &relative)).await;
        match ended.unwrap_or_else(|error| Err(io::Error::other(error).into())) {
            Err(RemoveError::Io(error)) if tries < TRIES && is_passing(&error) => {
                tracing::debug!(path, %error, "not removed yet, trying again");
                tokio::time::sleep(pause).await;
                (tries, pause) = (tries + 1, pause * 2);
            }
            ended => return ended,
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{DirectoryNotEmpty, Interrupted, ResourceBusy, StaleNetworkFileHandle, TimedOut};
    let kinds = [DirectoryNotEmpty, Interrupted, ResourceBusy, StaleNetworkFileHandle, TimedOut];
    kinds.contains(&error.kind())
}

fn remove_once(root: &Path, relative: &RelPath) -> Result<bool, RemoveError> {
    let Some(parent) = plain_parent(root, relative)? else { return Ok(false) };
    // The manifest first: a checkpoint that is half removed must not be taken for a whole one.
    remove_entry(&parent.join(manifest_name(relative.name())))?;
    remove_entry(&parent.join(relative.name()))
}

/// The directory an entry lies in, none of which below `root` is a link; nothing where it is not there.
fn plain_parent(root: &Path, relative: &RelPath) -> Result<Option<PathBuf>, RemoveError> {
    let mut dir = match std::fs::canonicalize(root) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let above = relative.parent().unwrap_or_default();
    for component in above.as_str().split('/').filter(|component| !component.is_empty()) {
        dir.push(component);
        match std::fs::symlink_metadata(&dir) {
            Ok(found) if found.is_symlink() => return Err(RemoveError::Link(dir)),
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(dir))
}

/// Removes a file, a link itself, or a directory with all it holds; whether it was there.
fn remove_entry(path: &Path) -> Result<bool, RemoveError> {
    let ended = match std::fs::symlink_metadata(path) {
        // The standard library removes a tree without following a link put there meanwhile.
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use tempfile::tempdir;

    use super::*;

    #[tokio::test]
    async fn a_checkpoint_goes_with_its_manifest_and_nothing_else() {
        let root = tempdir().unwrap();
        for step in [1, 10] {
            create_dir_all(root.path().join(format!("run/checkpoint-{step}/sub"))).unwrap();
            write(root.path().join(format!("run/checkpoint-{step}.finetune.json")), "{}").unwrap();
        }
        assert!(remove_from_disk(root.path(), "run/checkpoint-1").await.unwrap());
        assert!(!remove_from_disk(root.path(), "run/checkpoint-1").await.unwrap());
        assert!(!remove_from_disk(root.path(), "none/checkpoint-1").await.unwrap());
        let mut left: Vec<_> =
            std::fs::read_dir(root.path().join("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["checkpoint-10", "checkpoint-10.finetune.json"]);
    }

    #[tokio::test]
    async fn no_path_leads_out() {
        let (root, outside) = (tempdir().unwrap(), tempdir().unwrap());
        write(outside.path().join("file"), "precious").unwrap();
        for path in ["", "/", "/etc", "..", "a/../..", "a//b", ".", "a/"] {
            let ended = remove_from_disk(root.path(), path).await;
            assert!(matches!(ended, Err(RemoveError::Path)), "{path:?}");
        }
        symlink(outside.path(), root.path().join("link")).unwrap();
        let ended = remove_from_disk(root.path(), "link/file").await;
        assert!(matches!(ended, Err(RemoveError::Link(_))), "{ended:?}");
        create_dir_all(root.path().join("dir")).unwrap();
        symlink(outside.path(), root.path().join("dir/link")).unwrap();
        assert!(remove_from_disk(root.path(), "dir").await.unwrap());
        assert!(remove_from_disk(root.path(), "link").await.unwrap());
        assert!(outside.path().join("file").is_file());
    }

    #[tokio::test]
    async fn a_prefix_goes_with_its_manifest_and_nothing_else() {
        let bucket = Bucket::over(Arc::new(InMemory::new()), "s3://b").unwrap();
        for key in ["r/checkpoint-1/a", "r/checkpoint-1.finetune.json", "r/checkpoint-10/a"] {
            bucket.put(key, "x").await.unwrap();
        }
        assert!(remove_from_store(&bucket, "r/checkpoint-1").await.unwrap());
        assert!(!remove_from_store(&bucket, "r/checkpoint-1").await.unwrap());
        assert_eq!(bucket.list("").await.unwrap(), [("r/checkpoint-10/a".to_owned(), 1)]);
        assert!(matches!(remove_from_store(&bucket, "").await, Err(RemoveError::Path)));
    }

    #[tokio::test]
    async fn the_exit_code_tells_what_may_pass_from_what_will_not() {
        let root = tempdir().unwrap();
        write(root.path().join("a"), "x").unwrap();
        let arguments = |paths: &[&str]| Arguments {
            root: Some(root.path().to_owned()),
            store_uri: None,
            store_endpoint: None,
            store_credentials: None,
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        };
        assert_eq!(run(&arguments(&["a", "b"])).await, ExitCode::SUCCESS);
        assert_eq!(run(&arguments(&["../x"])).await, ExitCode::from(78));
    }
}
