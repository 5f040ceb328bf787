//! Why a checkpoint is not complete, not resumable or no longer what its manifest says: a stable code
//! and a sentence that names the file. Pure.

use super::{FsError, RelPath, cut, limits};

/// One finding about a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The directory was removed, before or while it was read.
    #[error("{dir} is gone: it was removed before or while it was read")]
    Vanished {
        /// The checkpoint's directory.
        dir: String,
    },
    /// A file was removed while the directory was read.
    #[error("{file} was removed while the checkpoint was read")]
    FileVanished {
        /// The file.
        file: String,
    },
    /// The file system failed.
    #[error("{file} cannot be read: {error}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the file system said.
        error: String,
    },
    /// The directory is one a trainer still writes into before it gets its final name.
    #[error("{dir} is a temporary directory of a save that has not ended")]
    Temporary {
        /// The checkpoint's directory.
        dir: String,
    },
    /// A symbolic link; trainers write none, and none is followed.
    #[error("{file} is a symbolic link, which no trainer writes and nothing here follows")]
    Link {
        /// The link.
        file: String,
    },
    /// Neither a file nor a directory.
    #[error("{file} is not a plain file or directory")]
    Special {
        /// The entry.
        file: String,
    },
    /// Names that are not plain text or are too long.
    #[error("{dir} holds a name that is not plain text or is too long")]
    StrangeName {
        /// The directory that holds it.
        dir: String,
    },
    /// More entries than are looked at.
    #[error("{dir} holds more than {} entries", limits::ENTRIES)]
    TooManyFiles {
        /// The checkpoint's directory.
        dir: String,
    },
    /// More levels than are looked at.
    #[error("{dir} lies more than {} levels deep", limits::DEPTH)]
    TooDeep {
        /// The directory that is too deep.
        dir: String,
    },
    /// A file that is parsed is larger than is read.
    #[error("{file} has {size} bytes, more than the {limit} that are read")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The trainer's own mark of an unfinished save.
    #[error("{file} marks the save as unfinished")]
    Sentinel {
        /// The mark.
        file: String,
    },
    /// A file that must be there is not.
    #[error("{file} is missing")]
    Missing {
        /// The file.
        file: String,
    },
    /// A file that must hold something is empty.
    #[error("{file} is empty")]
    Empty {
        /// The file.
        file: String,
    },
    /// A JSON file does not parse or lacks what it must say.
    #[error("{file} is not readable as JSON of its kind: {error}")]
    BadJson {
        /// The file.
        file: String,
        /// What the parser said.
        error: String,
    },
    /// The trainer's state is of another step than the directory.
    #[error("{file} records step {found}, not {expected}")]
    WrongStep {
        /// The state file.
        file: String,
        /// The step it records.
        found: u64,
        /// The step of the checkpoint.
        expected: u64,
    },
    /// Saved after the run had diverged: the loss is no number.
    #[error("{file} records a loss that is no number since step {since}: it was saved after the run had diverged")]
    LossLost {
        /// The state file.
        file: String,
        /// The step of the newest loss.
        since: u64,
    },
    /// Saved after the run had diverged: the weights are no numbers.
    #[error("most tensors of {file} begin with NaN: it was saved after the run had diverged")]
    WeightsLost {
        /// The file of the weights.
        file: String,
    },
    /// No weights of any known form.
    #[error("{dir} holds no weights")]
    NoWeights {
        /// The checkpoint's directory.
        dir: String,
    },
    /// A safetensors file is cut off or damaged.
    #[error("{file} is not a whole safetensors file: {problem}")]
    BadSafetensors {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of `torch.save` is cut off or damaged.
    #[error("{file} is not a whole file of torch.save: {problem}")]
    BadTorchFile {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A weight index is damaged or does not fit its files.
    #[error("{file} does not fit its weights: {problem}")]
    BadIndex {
        /// The index.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A file has another size than the manifest says, or than a moment ago.
    #[error("{file} has {found} bytes, not {expected}")]
    SizeDiffers {
        /// The file.
        file: String,
        /// Its size.
        found: u64,
        /// The size it should have.
        expected: u64,
    },
    /// A file has another content than the manifest says.
    #[error("{file} has changed since it was verified")]
    HashDiffers {
        /// The file.
        file: String,
    },
    /// A file the manifest does not know.
    #[error("{file} was added after the checkpoint was verified")]
    Unlisted {
        /// The file.
        file: String,
    },
    /// The manifest itself cannot be trusted.
    #[error("{file} is not a valid manifest: {problem}")]
    BadManifest {
        /// The manifest.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// Not resumable: no optimizer state.
    #[error("{dir} holds no optimizer state, so training cannot go on from it")]
    NoOptimizer {
        /// The checkpoint's directory.
        dir: String,
    },
    /// Not resumable: no scheduler state.
    #[error("{file} is missing, so training cannot go on from it")]
    NoScheduler {
        /// The file.
        file: String,
    },
}

impl Reason {
    /// A short name that never changes, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Vanished { .. } => "vanished",
            Self::FileVanished { .. } => "file-vanished",
            Self::Unreadable { .. } => "unreadable",
            Self::Temporary { .. } => "temporary",
            Self::Link { .. } => "link",
            Self::Special { .. } => "special-file",
            Self::StrangeName { .. } => "strange-name",
            Self::TooManyFiles { .. } => "too-many-files",
            Self::TooDeep { .. } => "too-deep",
            Self::TooLarge { .. } => "too-large",
            Self::Sentinel { .. } => "unfinished",
            Self::Missing { .. } => "missing-file",
            Self::Empty { .. } => "empty-file",
            Self::BadJson { .. } => "bad-json",
            Self::WrongStep { .. } => "wrong-step",
            Self::LossLost { .. } => "loss-lost",
            Self::WeightsLost { .. } => "weights-lost",
            Self::NoWeights { .. } => "no-weights",
            Self::BadSafetensors { .. } => "bad-safetensors",
            Self::BadTorchFile { .. } => "bad-torch-file",
            Self::BadIndex { .. } => "bad-index",
            Self::SizeDiffers { .. } => "size-differs",
            Self::HashDiffers { .. } => "hash-differs",
            Self::Unlisted { .. } => "unlisted-file",
            Self::BadManifest { .. } => "bad-manifest",
            Self::NoOptimizer { .. } => "no-optimizer",
            Self::NoScheduler { .. } => "no-scheduler",
        }
    }

    /// Whether the save is whole, but of a run that had diverged.
    #[must_use]
    pub const fn is_divergence(&self) -> bool {
        matches!(self, Self::LossLost { .. } | Self::WeightsLost { .. })
    }

    /// The code and the sentence, as reports show them.
    #[must_use]
    pub fn render(&self) -> String {
        format!("{}: {self}", self.code())
    }

    /// The finding for a file that the file system would not give.
    pub(crate) fn of_error(file: &RelPath, error: &FsError) -> Self {
        let file = file.to_string();
        match error {
            FsError::NotFound => Self::FileVanished { file },
            FsError::NotPlain => Self::Special { file },
            FsError::Io(error) => Self::Unreadable { file, error: error.clone() },
        }
    }

    /// The finding for a JSON file that does not parse.
    pub(crate) fn bad_json(file: &RelPath, error: &serde_json::Error) -> Self {
        Self::BadJson { file: file.to_string(), error: cut(&error.to_string(), 200).to_owned() }
    }
}

/// Findings, of which only the first [`limits::REASONS`] are kept.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Vec<Reason>);

impl Reasons {
    pub(crate) fn push(&mut self, reason: Reason) {
        if self.0.len() < limits::REASONS && !self.0.contains(&reason) {
            self.0.push(reason);
        }
    }

    pub(crate) fn extend(&mut self, reasons: impl IntoIterator<Item = Reason>) {
        reasons.into_iter().for_each(|reason| self.push(reason));
    }

    /// Keeps what was found, or returns the value.
    pub(crate) fn note<T>(&mut self, result: Result<T, Reason>) -> Option<T> {
        result.map_err(|reason| self.push(reason)).ok()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<Reason> {
        self.0
    }
}
