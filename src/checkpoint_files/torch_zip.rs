//! Whether a file of `torch.save` is whole: such files are zip archives, whose directory is written
//! last and lies at the end. Pure.

use super::{FileSystem, FsError, Reason, RelPath};

/// The end record of an archive without a comment.
const END: usize = 22;
/// The end record of large archives, and the pointer to it before the ordinary end record.
const END64: usize = 56;
const LOCATOR64: usize = 20;

/// Checks a weight file: it must be a whole archive.
pub(crate) fn check<F: FileSystem + ?Sized>(fs: &F, path: &RelPath, size: u64) -> Result<(), Reason> {
    check_as(fs, path, size, true)
}

/// Checks a file of training state: not empty, not zeros, and whole if it is an archive. Older ways of
/// saving write no archive and cannot be checked further.
pub(crate) fn check_state<F: FileSystem + ?Sized>(fs: &F, path: &RelPath, size: u64) -> Result<(), Reason> {
    check_as(fs, path, size, false)
}

fn check_as<F: FileSystem + ?Sized>(fs: &F, path: &RelPath, size: u64, must_be_archive: bool) -> Result<(), Reason> {
    if size == 0 {
        return Err(Reason::Empty { file: path.to_string() });
    }
    let bad = |problem: &str| Err(Reason::BadTorchFile { file: path.to_string(), problem: problem.to_owned() });
    let failed = |error| Reason::of_error(path, &error);
    let first = fs.read(path, 0, 4).map_err(failed)?;
    if first == *b"PK\x03\x04" {
        if has_directory(fs, path, size).map_err(failed)? {
            return Ok(());
        }
        return bad("its archive directory is missing, so it was cut off");
    }
    if must_be_archive {
        return bad("it is no zip archive");
    }
    if first.iter().all(|byte| *byte == 0) { bad("it begins with zeros") } else { Ok(()) }
}

/// Whether the archive's directory lies between its entries and its end record.
fn has_directory<F: FileSystem + ?Sized>(fs: &F, path: &RelPath, size: u64) -> Result<bool, FsError> {
    let Some(end_at) = size.checked_sub(END as u64) else {
        return Ok(false);
    };
    let tail_at = end_at.saturating_sub(LOCATOR64 as u64);
    let tail = fs.read(path, tail_at, LOCATOR64 + END)?;
    let Some(end) = tail.len().checked_sub(END).map(|from| &tail[from..]) else {
        return Ok(false);
    };
    if !end.starts_with(b"PK\x05\x06") {
        return Ok(false);
    }
    let small = (number(end, 12, 4), number(end, 16, 4));
    let locator = &tail[..tail.len() - END];
    let (length, offset) = if locator.starts_with(b"PK\x06\x07") {
        let record_at = number(locator, 8, 8);
        let record = fs.read(path, record_at, END64)?;
        if !record.starts_with(b"PK\x06\x06") {
            return Ok(false);
        }
        (number(&record, 40, 8), number(&record, 48, 8))
    } else {
        small
    };
    if offset.checked_add(length).is_none_or(|directory_end| directory_end > end_at) {
        return Ok(false);
    }
    Ok(fs.read(path, offset, 4)? == *b"PK\x01\x02")
}

/// A little-endian number; 0 beyond the end.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let field = bytes.get(at..at + length).unwrap_or_default();
    field.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
