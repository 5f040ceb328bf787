//! Makes an input usable before the trainer starts: looks at what lies on a volume, downloads what lies
//! in a store. Effects on the disk only; a repository of the hub is the trainer's own to fetch.

use std::io;
use std::path::{Component, Path, PathBuf};

use tokio::fs;

use super::store::{Bucket, StoreError};
use crate::protocol::{Input, paths};

/// Names shown of a directory in which something was looked for in vain.
const NAMES: usize = 10;

/// Why an input cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// There is nothing at its path.
    #[error("{label} does not exist{}", beside(.found))]
    Missing {
        /// What the user calls it.
        label: String,
        /// Field of the spec it comes from.
        field: String,
        /// What does exist where it was looked for.
        found: Vec<String>,
    },
    /// It is an empty file or directory.
    #[error("{label} is empty")]
    Empty {
        /// What the user calls it.
        label: String,
        /// Field of the spec it comes from.
        field: String,
    },
    /// A link leads out of its volume.
    #[error("{label} is a link that leads out of its volume, which is not followed: copy the files there")]
    Outside {
        /// What the user calls it.
        label: String,
        /// Field of the spec it comes from.
        field: String,
    },
    /// The trainer's user may not read it.
    #[error("{label} cannot be read ({source}): let group 1000 or everybody read it")]
    Unreadable {
        /// What the user calls it.
        label: String,
        /// Field of the spec it comes from.
        field: String,
        /// What the system said.
        source: io::Error,
    },
    /// The volume itself failed; it may pass.
    #[error("{label} cannot be looked at: {source}")]
    Failed {
        /// What the user calls it.
        label: String,
        /// Field of the spec it comes from.
        field: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what was recorded of it.
    #[error("{label} is damaged: {problem}")]
    Damaged {
        /// What the user calls it.
        label: String,
        /// Field of the spec it comes from.
        field: String,
        /// What differs.
        problem: String,
    },
    /// Its owner does not let it be used.
    #[error("the checkpoint is not to be had: {problem}")]
    NotPermitted {
        /// Field of the spec it comes from.
        field: String,
        /// What the controller said.
        problem: String,
    },
    /// It could not be downloaded.
    #[error("{source}")]
    Store {
        /// Field of the spec it comes from.
        field: String,
        /// What the store said.
        source: StoreError,
    },
}

impl InputError {
    /// Field of the spec at fault.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Missing { field, .. }
            | Self::Empty { field, .. }
            | Self::Outside { field, .. }
            | Self::Unreadable { field, .. }
            | Self::Failed { field, .. }
            | Self::Damaged { field, .. }
            | Self::NotPermitted { field, .. }
            | Self::Store { field, .. } => field,
        }
    }
}

/// Makes `input` usable; `what` names it in the log.
///
/// # Errors
/// Why it cannot be used, naming field and place.
pub async fn make_usable(input: &Input, what: &str) -> Result<(), InputError> {
    make_usable_below(input, Path::new(paths::VOLUMES), what).await
}

/// The same where claims are mounted below `volumes`.
///
/// # Errors
/// Why it cannot be used, naming field and place.
pub async fn make_usable_below(input: &Input, volumes: &Path, what: &str) -> Result<(), InputError> {
    match input {
        Input::Path { path, label, field } => look(Path::new(path), volumes, (label, field)).await,
        Input::Download { store, to, field } => {
            let failed = |source| InputError::Store { field: field.clone(), source };
            let bucket = Bucket::open(store).map_err(failed)?;
            bucket.download_prefix("", Path::new(to), what).await.map(drop).map_err(failed)
        }
        // A shared checkpoint is had from its exporter, which `fetch` asks itself.
        Input::Hub { .. } | Input::Shared { .. } => Ok(()),
    }
}

/// Whether a path on a volume below `volumes` can be read.
async fn look(path: &Path, volumes: &Path, names: (&str, &str)) -> Result<(), InputError> {
    let (label, field) = (names.0.to_owned(), names.1.to_owned());
    let real = match fs::canonicalize(path).await {
        Ok(real) => real,
        Err(error) if is_missing(&error) => {
            let found = names_beside(path, volumes).await;
            return Err(InputError::Missing { label, field, found });
        }
        Err(source) => return Err(failed(source, label, field)),
    };
    if let Some(volume) = volume_of(path, volumes)
        && fs::canonicalize(&volume).await.is_ok_and(|volume| !real.starts_with(volume))
    {
        return Err(InputError::Outside { label, field });
    }
    match holds_anything(&real).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(InputError::Empty { label, field }),
        Err(source) => Err(failed(source, label, field)),
    }
}

fn failed(source: io::Error, label: String, field: String) -> InputError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => InputError::Unreadable { label, field, source },
        _ => InputError::Failed { label, field, source },
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether a file, or a directory, holds anything; opening it proves that it can be read.
async fn holds_anything(path: &Path) -> io::Result<bool> {
    if fs::metadata(path).await?.is_dir() {
        return Ok(fs::read_dir(path).await?.next_entry().await?.is_some());
    }
    Ok(fs::File::open(path).await?.metadata().await?.len() > 0)
}

/// The mount of the claim a path lies on.
fn volume_of(path: &Path, volumes: &Path) -> Option<PathBuf> {
    match path.strip_prefix(volumes).ok()?.components().next()? {
        Component::Normal(claim) => Some(volumes.join(claim)),
        _ => None,
    }
}

/// What exists in the nearest directory above `path` that exists, without leaving the volume.
async fn names_beside(path: &Path, volumes: &Path) -> Vec<String> {
    let Some(volume) = volume_of(path, volumes) else { return Vec::new() };
    let above = path.ancestors().skip(1).take_while(|dir| dir.starts_with(&volume));
    for dir in above {
        if let Ok(mut entries) = fs::read_dir(dir).await {
            let mut names = Vec::new();
            while let Ok(Some(entry)) = entries.next_entry().await {
                names.push(entry.file_name().to_string_lossy().chars().take(64).collect());
                if names.len() > 1000 {
                    break;
                }
            }
            names.sort_unstable();
            names.truncate(NAMES);
            return names;
        }
    }
    Vec::new()
}

fn beside(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!("; beside it are: {}", found.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    use tempfile::{TempDir, tempdir};

    use super::*;

    const NAMES: (&str, &str) = ("volume://data/sets/train", "spec.dataset.training");

    fn volumes() -> TempDir {
        let volumes = tempdir().unwrap();
        create_dir_all(volumes.path().join("data/sets")).unwrap();
        volumes
    }

    #[tokio::test]
    async fn what_is_missing_is_named_with_what_is_there() {
        let volumes = volumes();
        for name in ["valid.jsonl", "test.jsonl"] {
            write(volumes.path().join("data/sets").join(name), "{}").unwrap();
        }
        let path = volumes.path().join("data/sets/train");
        let error = look(&path, volumes.path(), NAMES).await.unwrap_err();
        assert_eq!(error.to_string(), "volume://data/sets/train does not exist; beside it are: test.jsonl, valid.jsonl");
        assert_eq!(error.field(), "spec.dataset.training");
    }

    #[tokio::test]
    async fn a_file_and_a_directory_are_usable_and_empty_ones_are_not() {
        let volumes = volumes();
        let sets = volumes.path().join("data/sets");
        assert!(matches!(look(&sets, volumes.path(), NAMES).await, Err(InputError::Empty { .. })));
        let file = sets.join("train");
        write(&file, "").unwrap();
        assert!(matches!(look(&file, volumes.path(), NAMES).await, Err(InputError::Empty { .. })));
        write(&file, "{}").unwrap();
        look(&file, volumes.path(), NAMES).await.unwrap();
        look(&sets, volumes.path(), NAMES).await.unwrap();
    }

    #[tokio::test]
    async fn a_link_within_the_volume_is_followed_and_one_out_of_it_is_not() {
        let volumes = volumes();
        let sets = volumes.path().join("data/sets");
        write(sets.join("real"), "{}").unwrap();
        symlink("real", sets.join("inside")).unwrap();
        symlink("/etc/hostname", sets.join("outside")).unwrap();
        look(&sets.join("inside"), volumes.path(), NAMES).await.unwrap();
        let refused = look(&sets.join("outside"), volumes.path(), NAMES).await;
        assert!(matches!(refused, Err(InputError::Outside { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_repository_of_the_hub_needs_nothing() {
        let hub = Input::Hub { repo: "org/model".to_owned(), revision: None };
        make_usable(&hub, "base model").await.unwrap();
    }
}
