//! The file system as checkpoint code sees it: read only, below one root, never through a link.

use std::io;

use super::RelPath;

/// What a directory entry is. Links are reported as links, whatever they point at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A socket, pipe or device.
    Other,
}

/// What is known of an entry without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What the entry is.
    pub kind: Kind,
    /// Bytes of a file.
    pub size: u64,
    /// Modification time in nanoseconds since the Unix epoch.
    pub mtime: i64,
}

/// The names in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The names that are valid path components, in no promised order.
    pub names: Vec<String>,
    /// How many entries have a name that is not (not UTF-8, control characters).
    pub strange: usize,
    /// Whether there were more entries than asked for.
    pub truncated: bool,
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// It does not exist, or no longer.
    #[error("it does not exist")]
    NotFound,
    /// It is not of the kind asked for, lies behind a link, or would leave the root.
    #[error("it is not a plain file or directory below the root")]
    NotPlain,
    /// The system's own error.
    #[error("{0}")]
    Io(String),
}

impl From<io::Error> for FsError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A network file system answers "stale" for what another client removed.
            io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle => Self::NotFound,
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => Self::NotPlain,
            _ => Self::Io(super::cut(&error.to_string(), 200).to_owned()),
        }
    }
}

/// Reading below one root. Implementations never follow a link and never leave the root.
pub trait FileSystem {
    /// The names in a directory, at most `limit` of them.
    ///
    /// # Errors
    /// When it is gone, is no directory, or cannot be read.
    fn read_dir(&self, dir: &RelPath, limit: usize) -> Result<Names, FsError>;

    /// What an entry is; of a link, the link's own.
    ///
    /// # Errors
    /// When it is gone or cannot be looked at.
    fn metadata(&self, path: &RelPath) -> Result<Metadata, FsError>;

    /// At most `len` bytes of a regular file from `offset`; fewer only where the file ends.
    ///
    /// # Errors
    /// When it is gone, is no regular file, or cannot be read.
    fn read(&self, path: &RelPath, offset: u64, len: usize) -> Result<Vec<u8>, FsError>;
}

/// A file as a stream, from `offset` to `end`, fetched in pieces so that memory stays bounded.
pub(crate) struct Reader<'a, F: ?Sized> {
    fs: &'a F,
    path: &'a RelPath,
    offset: u64,
    end: u64,
    piece: Vec<u8>,
    taken: usize,
    /// The file system's error, where reading ended with one.
    pub(crate) failure: Option<FsError>,
}

impl<'a, F: FileSystem + ?Sized> Reader<'a, F> {
    /// Bytes fetched at a time.
    const PIECE: u64 = 1 << 20;

    pub(crate) const fn new(fs: &'a F, path: &'a RelPath, offset: u64, end: u64) -> Self {
        Self { fs, path, offset, end, piece: Vec::new(), taken: 0, failure: None }
    }

    /// The next piece of at most 1 MiB; empty at the end.
    pub(crate) fn next_piece(&mut self) -> Result<Vec<u8>, FsError> {
        let wanted = self.end.saturating_sub(self.offset).min(Self::PIECE);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let piece = self.fs.read(self.path, self.offset, usize::try_from(wanted).unwrap_or(0))?;
        self.offset = self.offset.saturating_add(piece.len() as u64);
        Ok(piece)
    }
}

impl<F: FileSystem + ?Sized> io::Read for Reader<'_, F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken >= self.piece.len() {
            self.piece = self.next_piece().map_err(|error| {
                self.failure = Some(error.clone());
                io::Error::other(error)
            })?;
            self.taken = 0;
        }
        let rest = &self.piece[self.taken..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}
