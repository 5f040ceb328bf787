//! A file system in memory whose files can vanish, fail or be links, and builders of whole
//! checkpoints. For tests of this crate and of those built on it.

mod builders;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{FileSystem, FsError, Kind, Metadata, Names, RelPath};

pub use builders::{safetensors, torch_file, trainer_state, write_adapter, write_model};

#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    bytes: Vec<u8>,
    mtime: i64,
    failure: Option<FsError>,
}

#[derive(Debug, Default)]
struct World {
    nodes: BTreeMap<String, Node>,
    calls: usize,
    vanish: Option<(usize, String)>,
}

/// Files in memory.
#[derive(Debug, Default)]
pub struct MemoryFs(Mutex<World>);

impl MemoryFs {
    /// An empty file system.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, path: &str, kind: Kind, bytes: &[u8]) {
        let mut world = self.world();
        for (at, _) in path.match_indices('/') {
            let dir = Node { kind: Kind::Directory, bytes: Vec::new(), mtime: 0, failure: None };
            world.nodes.entry(path[..at].to_owned()).or_insert(dir);
        }
        let node = Node { kind, bytes: bytes.to_vec(), mtime: 0, failure: None };
        world.nodes.insert(path.to_owned(), node);
    }

    /// Writes a file, and the directories that hold it.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        self.put(path, Kind::File, bytes.as_ref());
    }

    /// Makes an empty directory.
    pub fn mkdir(&self, path: &str) {
        self.put(path, Kind::Directory, b"");
    }

    /// Makes a link; where it points does not matter, since nothing follows it.
    pub fn link(&self, path: &str) {
        self.put(path, Kind::Link, b"");
    }

    /// Makes a pipe.
    pub fn pipe(&self, path: &str) {
        self.put(path, Kind::Other, b"");
    }

    /// Sets a file's modification time.
    pub fn touch(&self, path: &str, mtime: i64) {
        if let Some(node) = self.world().nodes.get_mut(path) {
            node.mtime = mtime;
        }
    }

    /// Removes a file or a whole directory.
    pub fn remove(&self, path: &str) {
        self.world().remove(path);
    }

    /// Changes a file's content.
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(node) = self.world().nodes.get_mut(path) {
            change(&mut node.bytes);
        }
    }

    /// Removes `path` as soon as `calls` further calls have been answered.
    pub fn vanish_after(&self, calls: usize, path: &str) {
        let mut world = self.world();
        let at = world.calls + calls;
        world.vanish = Some((at, path.to_owned()));
    }

    /// Lets every reading of `path` fail with an error of the system.
    pub fn fail(&self, path: &str) {
        if let Some(node) = self.world().nodes.get_mut(path) {
            node.failure = Some(FsError::Io("input/output error".to_owned()));
        }
    }

    /// How many calls have been answered.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.world().calls
    }
}

impl World {
    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.nodes.retain(|name, _| name != path && !name.starts_with(&below));
    }

    fn node(&mut self, path: &RelPath) -> Result<Node, FsError> {
        if let Some((at, gone)) = self.vanish.take() {
            if self.calls >= at {
                self.remove(&gone);
            } else {
                self.vanish = Some((at, gone));
            }
        }
        self.calls += 1;
        if path.is_root() {
            return Ok(Node { kind: Kind::Directory, bytes: vec![], mtime: 0, failure: None });
        }
        self.nodes.get(path.as_str()).cloned().ok_or(FsError::NotFound)
    }
}

impl FileSystem for MemoryFs {
    fn read_dir(&self, dir: &RelPath, limit: usize) -> Result<Names, FsError> {
        let mut world = self.world();
        let node = world.node(dir)?;
        match (node.failure, node.kind) {
            (Some(failure), _) => return Err(failure),
            (None, Kind::Directory) => {}
            (None, _) => return Err(FsError::NotPlain),
        }
        let prefix = if dir.is_root() { String::new() } else { format!("{dir}/") };
        let mut found = Names::default();
        for rest in world.nodes.keys().filter_map(|path| path.strip_prefix(&prefix)) {
            if rest.is_empty() || rest.contains('/') {
                continue;
            }
            if found.names.len() + found.strange >= limit {
                found.truncated = true;
                break;
            }
            match RelPath::parse(rest) {
                Ok(_) => found.names.push(rest.to_owned()),
                Err(_) => found.strange += 1,
            }
        }
        Ok(found)
    }

    fn metadata(&self, path: &RelPath) -> Result<Metadata, FsError> {
        let Node { kind, bytes, mtime, .. } = self.world().node(path)?;
        Ok(Metadata { kind, size: bytes.len() as u64, mtime })
    }

    fn read(&self, path: &RelPath, offset: u64, len: usize) -> Result<Vec<u8>, FsError> {
        let node = self.world().node(path)?;
        match (node.failure, node.kind) {
            (Some(failure), _) => Err(failure),
            (None, Kind::File) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(node.bytes.len());
                let to = from.saturating_add(len).min(node.bytes.len());
                Ok(node.bytes[from..to].to_vec())
            }
            (None, _) => Err(FsError::NotPlain),
        }
    }
}
