//! The samples a trainer writes beside a checkpoint, bounded for showing. Pure.

use super::{FileSystem, FsError, RelPath, cut, limits};

/// The file samples are read from.
pub(crate) const FILE: &str = "samples.jsonl";

/// How much of the file is read: enough for all samples even where some lines are very long.
const READ: usize = 1 << 20;

/// The first lines of a samples file that are not blank, cut to what is shown.
pub(crate) fn read<F: FileSystem + ?Sized>(fs: &F, path: &RelPath) -> Result<Vec<String>, FsError> {
    let bytes = fs.read(path, 0, READ)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.take(limits::SAMPLES).map(|line| cut(line, limits::SAMPLE_BYTES).to_owned()).collect())
}
