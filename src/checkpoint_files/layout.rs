//! Which directories of an output are checkpoints. Pure.

use super::{FileSystem, FsError, Kind, RelPath, limits};

/// How a trainer lays out its saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// `checkpoint-<step>/`, as Hugging Face's `Trainer` and all that is built on it write it.
    #[default]
    HuggingFace,
}

impl Layout {
    /// The name of the directory that holds the save of `step`.
    #[must_use]
    pub fn dir_name(self, step: u64) -> String {
        match self {
            Self::HuggingFace => format!("checkpoint-{step}"),
        }
    }
}

/// The step a directory's name says, if it is a checkpoint's name: decimal, without leading zeros,
/// and within what Kubernetes can hold as an `int64`.
#[must_use]
pub fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("checkpoint-")?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    let step = digits.parse::<u64>().ok()?;
    i64::try_from(step).is_ok().then_some(step)
}

/// The checkpoints below `dir`, whole or not, by ascending step. A link with a checkpoint's name is
/// listed too, so that inspecting it can say why it is refused.
///
/// # Errors
/// When `dir` cannot be listed.
pub fn checkpoint_steps<F: FileSystem + ?Sized>(fs: &F, dir: &RelPath) -> Result<Vec<(u64, String)>, FsError> {
    let mut steps = Vec::new();
    for name in fs.read_dir(dir, limits::ENTRIES)?.names {
        let (Some(step), Ok(path)) = (step_of(&name), dir.join(&name)) else {
            continue;
        };
        match fs.metadata(&path) {
            Ok(found) if matches!(found.kind, Kind::Directory | Kind::Link) => {
                steps.push((step, name));
            }
            Ok(_) | Err(FsError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    steps.sort_unstable();
    Ok(steps)
}
