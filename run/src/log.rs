//! The bounded log file: one line with its time after another, and one older file behind it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::tee::tell;
use crate::time::rfc3339;

/// Bytes after which the log is moved to `trainer.log.1` and begun anew.
pub(crate) const LARGEST: u64 = 8 << 20;

/// `DIR/log/trainer.log`. A log that cannot be written is given up, with one word about it: training
/// goes on without.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl Log {
    /// Opens the log below `dir`, going on where one is there already.
    pub(crate) fn open(dir: &Path) -> Self {
        let path = dir.join("log").join("trainer.log");
        let mut log = Self { path, file: None, size: 0 };
        log.open_file().unwrap_or_else(|error| log.give_up(&error));
        log
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, text: &str, now: SystemTime) {
        self.write(&format!("{} {text}\n", rfc3339(now))).unwrap_or_else(|error| self.give_up(&error));
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.file.is_some() && self.size > 0 && self.size + line.len() as u64 > LARGEST {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.open_file()?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(line.as_bytes())?;
            self.size += line.len() as u64;
        }
        Ok(())
    }

    fn open_file(&mut self) -> io::Result<()> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn give_up(&mut self, error: &io::Error) {
        self.file = None;
        tell(&format!("finetune-run: no log is kept: {}: {error}", self.path.display()));
    }
}
