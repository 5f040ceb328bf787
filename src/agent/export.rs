//! `agent export`: hands one checkpoint out to other namespaces, over TLS and only to read. It opens nothing but the files of that checkpoint.

mod files;
mod server;
mod tls;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use self::files::{Files, FilesError};
use self::server::Export;
use self::tls::Identity;
use super::report_client::{ReportClient, ReportError};
use crate::listener::{self, Limits};
use crate::protocol::sharing::{CAPABILITY_SECONDS, EXPORT_PORT};
use crate::protocol::{Store, env, paths};
use crate::signals::asked_to_stop;

/// A connection ends when the capability it was opened with may have ended.
const LIMITS: Limits =
    Limits { connections: 256, life: Some(Duration::from_secs(CAPABILITY_SECONDS as u64)), keep_alive: true, ..Limits::AMONG_US };

/// What `agent export` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Uid of the Checkpoint.
    #[arg(long)]
    pub checkpoint: String,
    /// The directory of its files, where they lie on a volume.
    #[arg(long, required_unless_present = "store_uri")]
    pub dir: Option<PathBuf>,
    /// The manifest of these files, where there is one.
    #[arg(long, requires = "dir")]
    pub manifest: Option<PathBuf>,
    /// The prefix of its files, where they lie in an object store, as `s3://bucket/prefix`.
    #[arg(long, conflicts_with = "dir", requires = "store_credentials")]
    pub store_uri: Option<String>,
    /// Endpoint of a store that is not AWS.
    #[arg(long)]
    pub store_endpoint: Option<String>,
    /// Prefix of the environment variables that hold the store's credentials.
    #[arg(long)]
    pub store_credentials: Option<String>,
    /// Port to listen on.
    #[arg(long, default_value_t = EXPORT_PORT)]
    pub port: u16,
    /// Where the token lies that proves which pod this is.
    #[arg(long, default_value = paths::TOKEN, hide = true)]
    pub token: PathBuf,
}

/// Why nothing can be handed out.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Reports(#[from] ReportError),
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
}

/// Runs `agent export` until asked to stop.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let Err(error) = export(arguments).await else { return ExitCode::SUCCESS };
    tracing::error!(%error, "the checkpoint cannot be handed out");
    ExitCode::FAILURE
}

/// Listens only when everything is there, so that whoever is let through finds it.
async fn export(arguments: &Arguments) -> Result<(), ExportError> {
    let client = ReportClient::from_env_with(&arguments.token)?;
    let authority = std::env::var(env::REPORT_CA).unwrap_or_default();
    let files = files(arguments).await?;
    let (identity, life) = Identity::get(&client).await?;
    let tls = tls::config(Arc::clone(&identity), &authority).map_err(ExportError::Tls)?;
    let listener = listener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, arguments.port))).await?;
    let (digest, count) = (files.manifest().digest.clone(), files.manifest().files.len());
    let address = listener.local_addr()?;
    tracing::info!(checkpoint = arguments.checkpoint, digest, count, %address, "handing out");
    let router = server::router(Arc::new(Export { checkpoint: arguments.checkpoint.clone(), files }));
    tokio::select! {
        () = listener::serve(listener, Some(tls), LIMITS, router, asked_to_stop()) => Ok(()),
        () = identity.renew(&client, life) => Ok(()),
    }
}

async fn files(arguments: &Arguments) -> Result<Files, FilesError> {
    if let Some(dir) = &arguments.dir {
        return Files::in_directory(dir.clone(), arguments.manifest.clone()).await;
    }
    let store = Store {
        uri: arguments.store_uri.clone().unwrap_or_default(),
        endpoint: arguments.store_endpoint.clone(),
        credentials: arguments.store_credentials.clone().unwrap_or_default(),
    };
    Files::in_store(&store).await
}
