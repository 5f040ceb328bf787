//! The record written beside a checkpoint once it is proven: which files, how large, which content.
//! Later readers, on other volumes or in object stores, trust the checkpoint as far as it still matches.
//! Pure: reading goes through the file system given, writing is the caller's.
//!
//! It lies next to the directory, not in it, so that the trainer's folder stays what the trainer wrote.
//! In an object store it is put last, after every file: it is the mark that the upload is whole. A
//! half-written manifest does not parse or does not match its own digest, so no rename is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::fs::Reader;
use super::inspect::vanished_or;
use super::listing::Listing;
use super::reason::Reasons;
use super::{AdapterFacts, FileSystem, Format, Inspection, Reason, RelPath, json, limits, samples};

/// The form of the manifest this code writes and reads.
const VERSION: u32 = 1;

/// Which run a checkpoint is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The uid of the `FineTune`.
    pub fine_tune_uid: String,
    /// The attempt that saved it.
    pub attempt: u32,
    /// The lineage it belongs to.
    pub lineage: u32,
}

/// One file of a proven checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// The path relative to the checkpoint's directory.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, in lower-case hexadecimal.
    pub sha256: String,
}

/// The record of one proven checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The form of this record.
    pub version: u32,
    /// Which run it is of.
    #[serde(flatten)]
    pub origin: Origin,
    /// The step it was saved at.
    pub step: u64,
    /// What kind of weights it holds.
    pub format: Format,
    /// Whether training can go on from it.
    pub resumable: bool,
    /// Whether a server can load it as it lies there.
    pub servable: bool,
    /// When the trainer finished writing it.
    pub saved_at: Timestamp,
    /// The files, by path.
    pub files: Vec<ManifestFile>,
    /// `sha256:` and the SHA-256 of the canonical list of files.
    pub digest: String,
    /// The metrics that belong to the step, as decimal strings.
    #[serde(default)]
    pub metrics: BTreeMap<String, String>,
    /// What an adapter says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterFacts>,
    /// Samples the trainer wrote.
    #[serde(default)]
    pub samples: Vec<String>,
}

/// The name of the manifest beside a checkpoint's directory.
#[must_use]
pub fn manifest_name(dir_name: &str) -> String {
    format!("{dir_name}.finetune.json")
}

impl Manifest {
    /// Reads every file of a complete checkpoint once and records it.
    ///
    /// # Errors
    /// Why not, where the inspection is not of a complete checkpoint, or a file changed since.
    pub fn new<F: FileSystem + ?Sized>(
        fs: &F,
        dir: &RelPath,
        origin: Origin,
        inspection: &Inspection,
    ) -> Result<Self, Vec<Reason>> {
        let Some(format) = inspection.format.filter(|_| inspection.complete) else {
            return Err(inspection.reasons.clone());
        };
        let mut reasons = Reasons::default();
        let mut files = Vec::with_capacity(inspection.files.len());
        for fact in &inspection.files {
            let hashed = hash(fs, dir, &fact.path, fact.size);
            files.extend(reasons.note(hashed).map(|sha256| ManifestFile { path: fact.path.clone(), size: fact.size, sha256 }));
        }
        let reasons = vanished_or(fs, dir, reasons.into_vec());
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let saved_at = Timestamp::from_nanosecond(inspection.saved_at().unwrap_or(0).into());
        Ok(Self {
            version: VERSION,
            origin,
            step: inspection.step,
            format,
            resumable: inspection.resumable,
            servable: inspection.servable,
            saved_at: saved_at.unwrap_or(Timestamp::UNIX_EPOCH),
            digest: digest_of(&files),
            files,
            metrics: inspection.metrics.clone(),
            adapter: inspection.adapter.clone(),
            samples: inspection.samples.clone(),
        })
    }

    /// The manifest as it is written.
    ///
    /// # Errors
    /// Never in practice; serializing is fallible by type.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// Reads and checks a manifest: its form, its paths and its own digest.
    ///
    /// # Errors
    /// The reason it cannot be trusted, naming the file.
    pub fn read<F: FileSystem + ?Sized>(fs: &F, path: &RelPath) -> Result<Self, Reason> {
        let found = fs.metadata(path).map_err(|error| Reason::of_error(path, &error))?;
        let manifest: Self = json::parse_file(fs, path, found.size, limits::JSON_BYTES)?;
        manifest.validated().map_err(|problem| {
            let problem = problem.to_owned();
            Reason::BadManifest { file: path.to_string(), problem }
        })
    }

    fn validated(self) -> Result<Self, &'static str> {
        let paths: BTreeSet<_> = self.files.iter().map(|file| file.path.as_str()).collect();
        if self.version != VERSION {
            Err("its version is unknown")
        } else if self.files.iter().any(|file| RelPath::parse(&file.path).is_err()) {
            Err("it lists a path outside the checkpoint")
        } else if paths.len() != self.files.len() || self.files.len() > limits::ENTRIES {
            Err("it lists a file twice, or too many files")
        } else if digest_of(&self.files) != self.digest {
            Err("its digest does not match its files")
        } else {
            Ok(self)
        }
    }

    /// Compares a checkpoint with its manifest: every file there with its size, and none added; with
    /// `deep`, also every content. Samples may come later and are left out.
    #[must_use]
    pub fn check<F: FileSystem + ?Sized>(&self, fs: &F, dir: &RelPath, deep: bool) -> Vec<Reason> {
        let mut reasons = Reasons::default();
        let mut listing = Listing::walk(fs, dir, &mut reasons);
        let label = |path: &str| dir.join(path).map_or_else(|_| path.to_owned(), |p| p.to_string());
        for file in self.files.iter().filter(|file| file.path != samples::FILE) {
            let Some(found) = listing.files.remove(&file.path) else {
                reasons.push(Reason::Missing { file: label(&file.path) });
                continue;
            };
            if found.size != file.size {
                let (found, file, expected) = (found.size, label(&file.path), file.size);
                reasons.push(Reason::SizeDiffers { file, found, expected });
            } else if deep
                && let Some(sha256) = reasons.note(hash(fs, dir, &file.path, file.size))
                && sha256 != file.sha256
            {
                reasons.push(Reason::HashDiffers { file: label(&file.path) });
            }
        }
        let added = listing.files.keys().filter(|path| path.as_str() != samples::FILE);
        reasons.extend(added.map(|path| Reason::Unlisted { file: label(path) }));
        vanished_or(fs, dir, reasons.into_vec())
    }
}

/// The digest of a list of files, in any order: a line `<sha256>  <size>  <path>` each, ordered by path.
#[must_use]
pub fn digest_of(files: &[ManifestFile]) -> String {
    let mut ordered: Vec<_> = files.iter().collect();
    ordered.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = Sha256::new();
    for file in ordered {
        hasher.update(format!("{}  {}  {}\n", file.sha256, file.size, file.path));
    }
    format!("sha256:{}", hex(&hasher.finalize()))
}

/// The SHA-256 of a file that must have `size` bytes.
fn hash<F: FileSystem + ?Sized>(fs: &F, dir: &RelPath, relative: &str, size: u64) -> Result<String, Reason> {
    let path = dir.join(relative).map_err(|_| Reason::StrangeName { dir: dir.to_string() })?;
    let failed = |error| Reason::of_error(&path, &error);
    let mut hasher = Sha256::new();
    let mut read = 0;
    // One byte beyond the end is asked for, so that a file that has grown is noticed.
    let mut reader = Reader::new(fs, &path, 0, size.saturating_add(1));
    loop {
        let piece = reader.next_piece().map_err(failed)?;
        if piece.is_empty() {
            break;
        }
        read += piece.len() as u64;
        hasher.update(&piece);
    }
    if read == size {
        return Ok(hex(&hasher.finalize()));
    }
    Err(Reason::SizeDiffers { file: path.to_string(), found: read, expected: size })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
