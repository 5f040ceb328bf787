//! Small files written whole. Effects only.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Writes a file so that nobody reads half of it. Some mounts of object stores cannot rename: there it is
/// written in place, and readers check what they read.
///
/// # Errors
/// When it cannot be written.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    fs::write(&new, content)?;
    fs::rename(&new, path).or_else(|_| {
        let written = fs::write(path, content);
        // What is left of the attempt is of no use to anybody.
        let _ = fs::remove_file(&new);
        written
    })
}

/// When a file was last written, in nanoseconds since the Unix epoch.
#[must_use]
pub fn modified(path: &Path) -> Option<i64> {
    let time = fs::metadata(path).ok()?.modified().ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// A text of at most `limit` bytes; nothing where there is none or it is larger.
#[must_use]
pub fn read_text(path: &Path, limit: u64) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    if !found.is_file() || found.len() > limit {
        return None;
    }
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}
