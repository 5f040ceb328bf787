//! Where things are in a training pod; every path can be moved, so that tests and people can run `watch`
//! in a directory of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::protocol::{CALLBACK_PORT, RunConfig, lineage_folder, paths};

/// Directories, files and the address `watch` works with.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Directory shared with `prepare` and the trainer.
    #[arg(long, default_value = paths::RUN)]
    pub run_dir: PathBuf,
    /// Folder of the run; lineages lie below.
    #[arg(long, default_value = paths::OUTPUT)]
    pub output: PathBuf,
    /// The report token.
    #[arg(long, default_value = paths::TOKEN)]
    pub token: PathBuf,
    /// Address progress posts are taken at.
    #[arg(long, default_value_t = default_address())]
    pub callback_address: SocketAddr,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            run_dir: paths::RUN.into(),
            output: paths::OUTPUT.into(),
            token: paths::TOKEN.into(),
            callback_address: default_address(),
        }
    }
}

const fn default_address() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), CALLBACK_PORT)
}

impl Places {
    /// Everything below one directory, with any free port.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            run_dir: root.join("run"),
            output: root.join("output"),
            token: root.join("token"),
            callback_address: SocketAddr::new(default_address().ip(), 0),
        }
    }

    /// A file of the shared directory, by its place in a pod.
    fn shared(&self, path: &str) -> PathBuf {
        let relative = Path::new(path).strip_prefix(paths::RUN).unwrap_or_else(|_| Path::new(path));
        self.run_dir.join(relative)
    }

    /// Directory of the lineage this attempt writes to.
    #[must_use]
    pub fn lineage(&self, config: &RunConfig) -> PathBuf {
        self.output.join(lineage_folder(config.lineage))
    }

    /// What `prepare` found out.
    #[must_use]
    pub fn prepared(&self) -> PathBuf {
        self.shared(paths::PREPARED)
    }

    /// What the wrapper writes when the trainer has exited.
    #[must_use]
    pub fn ended(&self) -> PathBuf {
        self.shared(paths::ENDED)
    }

    /// What the wrapper waits for.
    #[must_use]
    pub fn drained(&self) -> PathBuf {
        self.shared(paths::DRAINED)
    }

    /// The trainer's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.shared(paths::LOG)
    }

    /// The order to the wrapper to end the trainer.
    #[must_use]
    pub fn terminate(&self) -> PathBuf {
        self.shared(paths::TERMINATE)
    }
}
