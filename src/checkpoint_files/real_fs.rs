//! The operating system's files below one root. Every open is checked after the fact against the path
//! the kernel says was opened, so that a link swapped in by another process cannot lead outside.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{FileSystem, FsError, Kind, Metadata, Names, RelPath};

/// Files below a directory of the machine.
#[derive(Debug, Clone)]
pub struct RealFs {
    root: PathBuf,
}

impl RealFs {
    /// Takes a directory as the root; links in the way to it are resolved once, here.
    ///
    /// # Errors
    /// When it does not exist or is no directory.
    pub fn new(root: impl AsRef<Path>) -> Result<Self, FsError> {
        let root = fs::canonicalize(root)?;
        if fs::metadata(&root)?.is_dir() { Ok(Self { root }) } else { Err(FsError::NotPlain) }
    }

    fn absolute(&self, path: &RelPath) -> PathBuf {
        if path.is_root() { self.root.clone() } else { self.root.join(path.as_str()) }
    }

    /// Opens what is at `path`, refusing anything reached through a link.
    fn open(&self, path: &RelPath) -> Result<File, FsError> {
        let expected = self.absolute(path);
        let found = fs::symlink_metadata(&expected)?.file_type();
        if !found.is_file() && !found.is_dir() {
            return Err(FsError::NotPlain);
        }
        let file = options().open(&expected)?;
        if opened_path(&file, &expected)? == expected {
            return Ok(file);
        }
        // Removed or renamed between the look and the open: gone. Still there: behind a link.
        match fs::symlink_metadata(&expected) {
            Ok(now) if now.ino() == file.metadata()?.ino() => Err(FsError::NotPlain),
            Ok(_) | Err(_) => Err(FsError::NotFound),
        }
    }
}

impl FileSystem for RealFs {
    fn read_dir(&self, dir: &RelPath, limit: usize) -> Result<Names, FsError> {
        let handle = self.open(dir)?;
        let mut names = Names::default();
        for (count, entry) in fs::read_dir(path_of(&handle, &self.absolute(dir)))?.enumerate() {
            if count >= limit {
                names.truncated = true;
                break;
            }
            match entry?.file_name().into_string() {
                Ok(name) if RelPath::parse(&name).is_ok() => names.names.push(name),
                _ => names.strange += 1,
            }
        }
        Ok(names)
    }

    fn metadata(&self, path: &RelPath) -> Result<Metadata, FsError> {
        let found = match path.parent() {
            None => fs::symlink_metadata(&self.root)?,
            Some(parent) => {
                let handle = self.open(&parent)?;
                fs::symlink_metadata(path_of(&handle, &self.absolute(&parent)).join(path.name()))?
            }
        };
        Ok(Metadata { kind: kind(found.file_type()), size: found.len(), mtime: mtime(&found) })
    }

    fn read(&self, path: &RelPath, offset: u64, len: usize) -> Result<Vec<u8>, FsError> {
        let file = self.open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(FsError::NotPlain);
        }
        let left = usize::try_from(found.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

fn kind(found: fs::FileType) -> Kind {
    if found.is_symlink() {
        Kind::Link
    } else if found.is_dir() {
        Kind::Directory
    } else if found.is_file() {
        Kind::File
    } else {
        Kind::Other
    }
}

fn mtime(found: &fs::Metadata) -> i64 {
    found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec())
}

/// How files are opened: never waiting for the other end of a pipe put there in between.
#[cfg(target_os = "linux")]
fn options() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    const O_NONBLOCK: i32 = 0o4000; // the same on x86-64 and aarch64
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_NONBLOCK);
    options
}

/// The path the kernel holds for an open file.
#[cfg(target_os = "linux")]
fn opened_path(file: &File, _expected: &Path) -> io::Result<PathBuf> {
    fs::read_link(path_of(file, Path::new("")))
}

/// A path that leads to the open file itself, whatever has happened to its name.
#[cfg(target_os = "linux")]
fn path_of(file: &File, _expected: &Path) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(not(target_os = "linux"))]
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    options
}

#[cfg(not(target_os = "linux"))]
fn opened_path(_file: &File, expected: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(expected)
}

#[cfg(not(target_os = "linux"))]
fn path_of(_file: &File, expected: &Path) -> PathBuf {
    expected.to_owned()
}
