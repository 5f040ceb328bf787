//! Files on their way: where they lie until they are whole, and what of them is there. Effects on the disk only.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::fs::{self, File};
use tokio::io::AsyncReadExt;

/// The hash so far of a file of exactly `size` bytes.
pub(super) async fn hash(path: &Path, size: u64) -> std::io::Result<Sha256> {
    let mut file = File::open(path).await?;
    let mut hasher = Sha256::new();
    let (mut piece, mut read) = (vec![0; 1 << 20], 0);
    loop {
        let count = file.read(&mut piece).await?;
        if count == 0 {
            break;
        }
        read += count as u64;
        hasher.update(&piece[..count]);
    }
    if read == size { Ok(hasher) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// Bytes of the files below `dir`, the unfinished ones included.
pub(super) async fn bytes_in(dir: &Path) -> u64 {
    let (mut left, mut sum) = (vec![dir.to_owned()], 0);
    while let Some(dir) = left.pop() {
        let Ok(mut entries) = fs::read_dir(&dir).await else { continue };
        while let Ok(Some(entry)) = entries.next_entry().await {
            match entry.metadata().await {
                Ok(found) if found.is_dir() => left.push(entry.path()),
                Ok(found) => sum += found.len(),
                Err(_) => {}
            }
        }
    }
    sum
}

/// Where a file lies until it is whole.
pub(super) fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".finetune-part");
    PathBuf::from(name)
}

/// A finished hash in lower-case hexadecimal.
pub(super) fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
