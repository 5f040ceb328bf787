//! The files of the one checkpoint an exporter hands out: which there are, and their bytes. Only what the manifest lists is ever opened, and
//! never through a link.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use crate::agent::check;
use crate::agent::fetch::beside;
use crate::agent::store::{Bucket, StoreError};
use crate::checkpoint_files::{
    FileSystem, Manifest, ManifestFile, Origin, RealFs, RelPath, digest_of, inspect_weights, limits, manifest_name,
};
use crate::protocol::Store;
use crate::protocol::sharing::{ExportManifest, ExportedFile};

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Why a checkpoint cannot be handed out.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Its store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its files are not those of a checkpoint, or cannot be read.
    #[error("{place}: {problem}")]
    Unusable {
        /// Where they lie.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

/// Where the files lie.
#[derive(Clone)]
enum Place {
    Dir(Arc<RealFs>),
    Bucket(Bucket),
}

/// The files of one checkpoint.
pub struct Files {
    place: Place,
    manifest: ExportManifest,
    sizes: BTreeMap<String, u64>,
}

impl Files {
    /// The files in a directory. What a sound manifest says of them is taken over; without one they are read and recorded.
    ///
    /// # Errors
    /// They are no whole checkpoint, or cannot be read.
    pub async fn in_directory(dir: PathBuf, manifest: Option<PathBuf>) -> Result<Self, FilesError> {
        let place = dir.display().to_string();
        let read = tokio::task::spawn_blocking(move || look(&dir, manifest.as_deref())).await;
        let (fs, files) =
            read.map_err(|error| error.to_string()).flatten().map_err(|problem| FilesError::Unusable { place, problem })?;
        Ok(Self::new(Place::Dir(Arc::new(fs)), files))
    }

    /// The files below a prefix of a store.
    ///
    /// # Errors
    /// The store cannot be used, or holds none.
    pub async fn in_store(store: &Store) -> Result<Self, FilesError> {
        let bucket = Bucket::open(store)?;
        if let Some((parent, name)) = beside(store) {
            let found = Bucket::open(&parent)?.get(&manifest_name(&name), limits::JSON_BYTES).await?;
            let manifest = found.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok());
            if let Some(files) = manifest.map(|manifest| manifest.files).filter(|files| are_sound(files)) {
                return Ok(Self::new(Place::Bucket(bucket), files));
            }
        }
        let mut files = Vec::new();
        for (path, size) in bucket.list("").await? {
            let mut hasher = Sha256::new();
            let mut pieces = bucket.read_from(&path, 0).await?;
            while let Some(piece) = pieces.try_next().await? {
                hasher.update(&piece);
            }
            files.push(ManifestFile { path, size, sha256: hex(hasher) });
        }
        if !are_sound(&files) {
            return Err(FilesError::Unusable {
                place: store.uri.clone(),
                problem: "it holds no files, or too many, or strange names".into(),
            });
        }
        Ok(Self::new(Place::Bucket(bucket), files))
    }

    fn new(place: Place, files: Vec<ManifestFile>) -> Self {
        let sizes = files.iter().map(|file| (file.path.clone(), file.size)).collect();
        let digest = digest_of(&files);
        let files = files.into_iter().map(|ManifestFile { path, size, sha256 }| ExportedFile { path, size, sha256 }).collect();
        Self { place, manifest: ExportManifest { digest, files }, sizes }
    }

    /// Which files there are.
    #[must_use]
    pub const fn manifest(&self) -> &ExportManifest {
        &self.manifest
    }

    /// Bytes of a file that is listed, by exactly its path.
    #[must_use]
    pub fn size(&self, path: &str) -> Option<u64> {
        self.sizes.get(path).copied()
    }

    /// The bytes of a listed file from `offset` on. A file that has become shorter, or is a link by now, ends them with an error.
    ///
    /// # Errors
    /// It is not listed, or cannot be opened.
    pub async fn read(&self, path: &str, offset: u64) -> Result<BoxStream<'static, std::io::Result<Bytes>>, std::io::Error> {
        let size = self.size(path).ok_or(std::io::ErrorKind::NotFound)?;
        match &self.place {
            Place::Dir(fs) => {
                let relative = RelPath::parse(path).map_err(std::io::Error::other)?;
                Ok(pieces(Arc::clone(fs), relative, offset, size))
            }
            Place::Bucket(bucket) => {
                let found = bucket.read_from(path, offset).await.map_err(std::io::Error::other)?;
                Ok(found.map_err(std::io::Error::other).boxed())
            }
        }
    }
}

/// The bytes of a file between `offset` and `size`.
fn pieces(fs: Arc<RealFs>, path: RelPath, offset: u64, size: u64) -> BoxStream<'static, std::io::Result<Bytes>> {
    let next = move |offset: u64| {
        let (fs, path) = (Arc::clone(&fs), path.clone());
        async move {
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            if left == 0 {
                return Ok(None);
            }
            let read = tokio::task::spawn_blocking(move || fs.read(&path, offset, left.min(PIECE))).await;
            let piece = read.map_err(std::io::Error::other)?.map_err(std::io::Error::other)?;
            if piece.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let after = offset + piece.len() as u64;
            Ok(Some((Bytes::from(piece), after)))
        }
    };
    stream::try_unfold(offset, next).boxed()
}

/// What lies in a directory: as recorded, else as it is.
fn look(dir: &Path, manifest: Option<&Path>) -> Result<(RealFs, Vec<ManifestFile>), String> {
    let fs = RealFs::new(dir).map_err(|error| error.to_string())?;
    if let Some(files) = manifest.and_then(recorded).filter(|files| are_sound(files)) {
        return Ok((fs, files));
    }
    let origin = Origin { fine_tune_uid: String::new(), attempt: 0, lineage: 0 };
    let found = inspect_weights(&fs, &RelPath::root(), 0);
    let manifest = Manifest::new(&fs, &RelPath::root(), origin, &found).map_err(|reasons| check::reasons(&reasons))?;
    Ok((fs, manifest.files))
}

fn recorded(path: &Path) -> Option<Vec<ManifestFile>> {
    let fs = RealFs::new(path.parent()?).ok()?;
    let name = RelPath::parse(path.file_name()?.to_str()?).ok()?;
    Some(check::manifest(&fs, &name).ok()??.files)
}

fn are_sound(files: &[ManifestFile]) -> bool {
    !files.is_empty() && files.len() <= limits::ENTRIES && files.iter().all(|file| RelPath::parse(&file.path).is_ok())
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
