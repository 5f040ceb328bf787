//! What ships and is generated: definitions of the kinds, RBAC for chart and kustomize, and the API document of the gateway. `outputs` is pure; `write` and `check` touch files.

mod definitions;
mod rbac;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::gateway;

/// Why files could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object cannot be written as JSON.
    #[error("cannot write {object} as JSON")]
    Json {
        /// The object.
        object: String,
        /// What the serializer says.
        #[source]
        source: serde_json::Error,
    },
    /// An object cannot be written as YAML.
    #[error("cannot write {object} as YAML")]
    Yaml {
        /// The object.
        object: String,
        /// What the serializer says.
        #[source]
        source: serde_saphyr::ser::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot {verb} {}: check that the root of the repository was given", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// How a file differs from what the code generates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// The file is not there.
    Missing(PathBuf),
    /// The file has other contents; the number is the first line that differs, from 1.
    Differs(PathBuf, usize),
    /// The file lies in a generated directory, but nothing generates it any more.
    Leftover(PathBuf),
}

impl std::fmt::Display for Drift {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(path) => write!(formatter, "{} is not there", path.display()),
            Self::Differs(path, line) => write!(formatter, "{} differs from line {line} on", path.display()),
            Self::Leftover(path) => write!(formatter, "nothing generates {} any more", path.display()),
        }
    }
}

/// Directories in which every YAML file is generated, but for kustomization.yaml where there is no other way.
const GENERATED: &[&str] = &["crds", "charts/finetune-operator/files"];

/// Every generated file, relative to the root of the repository, with its contents.
///
/// # Errors
/// When an object cannot be written as YAML.
pub fn outputs() -> Result<Vec<(PathBuf, String)>, Error> {
    let mut files = definitions::files()?;
    files.extend(rbac::files());
    files.push(("docs/openapi.json".into(), gateway::document()));
    Ok(files)
}

/// Writes every generated file under `root` and removes leftovers.
///
/// # Errors
/// When a file cannot be written.
pub fn write(root: &Path) -> Result<(), Error> {
    for (path, contents) in outputs()? {
        let path = root.join(path);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(at("create", directory))?;
        }
        std::fs::write(&path, contents).map_err(at("write", &path))?;
    }
    for drift in check(root)? {
        if let Drift::Leftover(path) = drift {
            let path = root.join(path);
            std::fs::remove_file(&path).map_err(at("remove", &path))?;
        }
    }
    Ok(())
}

/// How the files under `root` differ from what the code generates; nothing when they are up to date.
///
/// # Errors
/// When a file cannot be read.
pub fn check(root: &Path) -> Result<Vec<Drift>, Error> {
    let outputs = outputs()?;
    let mut drift = Vec::new();
    for (path, expected) in &outputs {
        match std::fs::read_to_string(root.join(path)) {
            Ok(found) if found == *expected => {}
            Ok(found) => drift.push(Drift::Differs(path.clone(), first_difference(expected, &found))),
            Err(error) if error.kind() == ErrorKind::NotFound => drift.push(Drift::Missing(path.clone())),
            Err(error) => return Err(at("read", path)(error)),
        }
    }
    for directory in GENERATED {
        for path in files_below(root, Path::new(directory))? {
            if !outputs.iter().any(|(output, _)| *output == path) {
                drift.push(Drift::Leftover(path));
            }
        }
    }
    Ok(drift)
}

/// The first line, from 1, in which two texts differ.
fn first_difference(left: &str, right: &str) -> usize {
    let same = left.lines().zip(right.lines()).take_while(|(left, right)| left == right).count();
    same.saturating_add(1)
}

/// Files at most one folder below `directory`, relative to `root`, in order.
fn files_below(root: &Path, directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let absolute = root.join(&folder);
        if !absolute.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&absolute).map_err(at("list", &absolute))? {
            let entry = entry.map_err(at("list", &absolute))?;
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

fn at(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::File { verb, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_counted_from_one() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), 2);
        assert_eq!(first_difference("a\n", "a\nb\n"), 2);
        assert_eq!(first_difference("", "x"), 1);
    }

    #[test]
    fn files_are_in_step_right_after_they_are_written_and_drift_is_named() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(check(root.path()).unwrap().first(), Some(Drift::Missing(_))));
        write(root.path()).unwrap();
        assert_eq!(check(root.path()).unwrap(), []);
        let definition = PathBuf::from("crds/finetunes.finetune.dev.yaml");
        std::fs::write(root.path().join(&definition), "other").unwrap();
        std::fs::write(root.path().join("crds/old.yaml"), "").unwrap();
        let expected = vec![Drift::Differs(definition, 1), Drift::Leftover("crds/old.yaml".into())];
        assert_eq!(check(root.path()).unwrap(), expected);
        write(root.path()).unwrap();
        assert_eq!(check(root.path()).unwrap(), []);
    }

    #[test]
    fn the_same_code_generates_the_same_files() {
        assert_eq!(outputs().unwrap(), outputs().unwrap());
    }
}
