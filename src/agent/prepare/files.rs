//! The files and directories of a training pod that `prepare` lays out. Effects only.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::protocol::{RunConfig, paths};

/// A file or directory of the pod that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be written: {source}", path = path.display())]
pub struct FileError {
    path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The pod's files below a root.
pub(super) struct PodFiles<'a> {
    root: &'a Path,
}

impl<'a> PodFiles<'a> {
    pub(super) const fn new(root: &'a Path) -> Self {
        Self { root }
    }

    /// Where a path of the pod is.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Directories the trainer and `watch` write to.
    pub(super) fn make_directories(&self, config: &RunConfig) -> Result<(), FileError> {
        let log = Path::new(paths::LOG).parent().and_then(Path::to_str).unwrap_or(paths::RUN);
        let bin = Path::new(paths::WRAPPER).parent().and_then(Path::to_str).unwrap_or(paths::RUN);
        for path in [config.output_dir().as_str(), paths::HOME, log, bin] {
            let path = self.at(path);
            fs::create_dir_all(&path).map_err(at(&path))?;
            // The trainer may run as another user of the same group. Some file systems have no modes,
            // and a directory of an earlier attempt may be another user's: neither is a reason to stop.
            if let Err(error) = fs::set_permissions(&path, Permissions::from_mode(0o2775)) {
                tracing::debug!(path = %path.display(), %error, "mode left as it is");
            }
        }
        let token = self.at(paths::CALLBACK_TOKEN);
        write(&token, b"unused\n", 0o644)
    }

    /// Removes what an earlier start of this pod left behind and this one would take for its own.
    pub(super) fn forget_earlier_run(&self) -> Result<(), FileError> {
        [paths::ENDED, paths::DRAINED, paths::PREPARED, paths::TERMINATE].iter().try_for_each(|path| {
            let path = self.at(path);
            remove(&path)
        })
    }

    /// Puts the wrapper where the trainer's container finds it.
    pub(super) fn install_wrapper(&self, from: Option<&Path>) -> Result<(), FileError> {
        let own = std::env::current_exe().map_err(at(Path::new("/proc/self/exe")))?;
        let from = from.map_or_else(|| own.with_file_name("finetune-run"), Path::to_owned);
        let to = self.at(paths::WRAPPER);
        let program = fs::read(&from).map_err(at(&from))?;
        write(&to, &program, 0o755)
    }

    /// Links the checkpoint to resume from, or removes the link of an earlier start.
    pub(super) fn link_resume(&self, target: Option<&str>) -> Result<(), FileError> {
        let link = self.at(paths::RESUME);
        remove(&link)?;
        target.map_or(Ok(()), |target| symlink(target, &link).map_err(at(&link)))
    }

    /// Writes a file that everybody in the pod may read.
    pub(super) fn write_json(&self, path: &str, value: &impl Serialize) -> Result<(), FileError> {
        let path = self.at(path);
        let text = serde_json::to_vec_pretty(value).map_err(io::Error::other).map_err(at(&path))?;
        write(&path, &text, 0o644)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { path, source }
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// Writes a whole file under its name at once, so that nobody reads half of it.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    fs::write(&new, content).map_err(at(&new))?;
    fs::set_permissions(&new, Permissions::from_mode(mode)).map_err(at(&new))?;
    fs::rename(&new, path).map_err(at(path))
}
