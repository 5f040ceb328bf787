//! One bounded walk over a checkpoint directory: every file with size and time. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::reason::Reasons;
use super::{FileSystem, FsError, Kind, Metadata, Reason, RelPath, limits};

/// What is known of one file of a checkpoint without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFact {
    /// The path relative to the checkpoint's directory.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the Unix epoch.
    pub mtime: i64,
}

/// One file found, with its path from the file system's root.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: RelPath,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
}

/// The files and directories of a checkpoint, by their path relative to it.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: BTreeMap<String, Found>,
    pub(crate) dirs: BTreeSet<String>,
}

impl Listing {
    /// Walks `dir`; whatever may not be there becomes a reason.
    pub(crate) fn walk<F: FileSystem + ?Sized>(fs: &F, dir: &RelPath, reasons: &mut Reasons) -> Self {
        let mut listing = Self::default();
        let text = dir.to_string();
        match fs.metadata(dir).map(|found| found.kind) {
            Ok(Kind::Directory) => Walk { fs, dir, entries: 0, reasons }.run(&mut listing),
            Ok(Kind::Link) => reasons.push(Reason::Link { file: text }),
            Ok(_) => reasons.push(Reason::Special { file: text }),
            Err(FsError::NotFound) => reasons.push(Reason::Vanished { dir: text }),
            Err(error) => reasons.push(Reason::of_error(dir, &error)),
        }
        listing
    }

    pub(crate) fn facts(&self) -> Vec<FileFact> {
        let fact = |(path, found): (&String, &Found)| FileFact { path: path.clone(), size: found.size, mtime: found.mtime };
        self.files.iter().map(fact).collect()
    }

    pub(crate) fn size(&self) -> u64 {
        self.files.values().fold(0, |sum, found| sum.saturating_add(found.size))
    }

    /// The file called `name` in `dir` (the empty text for the top).
    pub(crate) fn file_in(&self, dir: &str, name: &str) -> Option<&Found> {
        if dir.is_empty() { self.files.get(name) } else { self.files.get(&format!("{dir}/{name}")) }
    }

    /// The names and facts of the files directly in `dir` (the empty text for the top).
    pub(crate) fn files_in<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = (&'a str, &'a Found)> {
        self.files.iter().filter_map(move |(path, found)| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            (parent == dir).then_some((name, found))
        })
    }

    /// The names of the directories directly below the checkpoint.
    pub(crate) fn top_dirs(&self) -> impl Iterator<Item = &str> {
        self.dirs.iter().filter(|dir| !dir.contains('/')).map(String::as_str)
    }
}

struct Walk<'a, F: ?Sized> {
    fs: &'a F,
    dir: &'a RelPath,
    entries: usize,
    reasons: &'a mut Reasons,
}

impl<F: FileSystem + ?Sized> Walk<'_, F> {
    fn run(&mut self, listing: &mut Listing) {
        let mut open = vec![(String::new(), 0)];
        while let Some((sub, depth)) = open.pop() {
            let Some(path) = self.full(&sub) else {
                continue;
            };
            let Some(names) = self.names(&path) else {
                continue;
            };
            for name in names {
                let relative = if sub.is_empty() { name } else { format!("{sub}/{name}") };
                let Some((path, found)) = self.entry(&relative) else {
                    continue;
                };
                match found.kind {
                    Kind::File => {
                        let Metadata { size, mtime, .. } = found;
                        listing.files.insert(relative, Found { path, size, mtime });
                    }
                    Kind::Directory => {
                        if depth >= limits::DEPTH {
                            self.reasons.push(Reason::TooDeep { dir: relative });
                        } else {
                            listing.dirs.insert(relative.clone());
                            open.push((relative, depth + 1));
                        }
                    }
                    Kind::Link => self.reasons.push(Reason::Link { file: path.to_string() }),
                    Kind::Other => self.reasons.push(Reason::Special { file: path.to_string() }),
                }
            }
        }
    }

    fn full(&mut self, relative: &str) -> Option<RelPath> {
        if relative.is_empty() {
            return Some(self.dir.clone());
        }
        let path = self.dir.join(relative).ok();
        if path.is_none() {
            self.reasons.push(Reason::StrangeName { dir: self.dir.to_string() });
        }
        path
    }

    fn names(&mut self, path: &RelPath) -> Option<Vec<String>> {
        let left = limits::ENTRIES.saturating_sub(self.entries);
        match self.fs.read_dir(path, left) {
            Ok(mut found) => {
                self.entries += found.names.len() + found.strange;
                if found.truncated {
                    self.reasons.push(Reason::TooManyFiles { dir: self.dir.to_string() });
                }
                if found.strange > 0 {
                    self.reasons.push(Reason::StrangeName { dir: path.to_string() });
                }
                found.names.sort_unstable();
                Some(found.names)
            }
            Err(error) => {
                self.failed(path, &error);
                None
            }
        }
    }

    fn entry(&mut self, relative: &str) -> Option<(RelPath, Metadata)> {
        let path = self.full(relative)?;
        match self.fs.metadata(&path) {
            Ok(found) => Some((path, found)),
            Err(error) => {
                self.failed(&path, &error);
                None
            }
        }
    }

    fn failed(&mut self, path: &RelPath, error: &FsError) {
        self.reasons.push(Reason::of_error(path, error));
    }
}
