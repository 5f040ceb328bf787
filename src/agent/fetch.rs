//! `agent fetch`: gets what a server needs before it starts. Looks at what lies on volumes, downloads what lies in stores, and compares
//! downloaded weights with what was recorded of the checkpoint, to the last byte.

mod parts;
mod shared;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::check;
use super::inputs::{self, InputError};
use super::prepare::PrepareError;
use super::prepare::failure::{self, Role};
use super::store::{Bucket, StoreError};
use crate::checkpoint_files::{Manifest, Origin, RealFs, RelPath, inspect_weights, limits, manifest_name};
use crate::protocol::{FetchConfig, Input, Store, env, exit, paths};
use shared::Wanted;

/// What `agent fetch` is told beside its configuration.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Where the reason of a failure is written for Kubernetes.
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
    /// Where the token lies that proves which pod this is.
    #[arg(long, default_value = paths::TOKEN, hide = true)]
    pub token: PathBuf,
    /// Where the exporter of a shared checkpoint is, whatever its name says.
    #[arg(long, hide = true)]
    pub exporter: Option<SocketAddr>,
    /// Seconds without a byte after which a shared checkpoint is given up.
    #[arg(long, default_value_t = 600, hide = true)]
    pub patience: u64,
    /// Seconds until a refusal is believed: a key or permission made a moment ago is not known everywhere yet.
    #[arg(long, default_value_t = 60, hide = true)]
    pub doubt: u64,
}

/// How the exporter of a shared checkpoint is reached.
struct Connection {
    token: PathBuf,
    authority: String,
    exporter: Option<SocketAddr>,
    patience: Duration,
    doubt: Duration,
}

impl Connection {
    fn new(arguments: &Arguments) -> Self {
        Self {
            token: arguments.token.clone(),
            authority: std::env::var(env::REPORT_CA).unwrap_or_default(),
            exporter: arguments.exporter,
            patience: Duration::from_secs(arguments.patience),
            doubt: Duration::from_secs(arguments.doubt),
        }
    }
}

/// Runs `agent fetch`.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let text = std::env::var(env::FETCH_CONFIG).map_err(|error| error.to_string());
    let config = text.and_then(|text| serde_json::from_str::<FetchConfig>(&text).map_err(|error| error.to_string()));
    let ended = match config {
        Ok(config) => fetch(&config, &Connection::new(arguments)).await,
        Err(problem) => Err(PrepareError::Config { problem }),
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    let failure = failure::of(&error);
    tracing::error!(reason = failure.reason, %error, "the model cannot be served");
    if let Err(error) = tokio::fs::write(&arguments.termination_log, failure::termination_message(&failure)).await {
        tracing::warn!(path = %arguments.termination_log.display(), %error, "reason not recorded");
    }
    let code = if failure.user_error { u8::try_from(exit::USER_ERROR).unwrap_or(1) } else { 1 };
    ExitCode::from(code)
}

/// Those first that only have to be looked at.
async fn fetch(config: &FetchConfig, connection: &Connection) -> Result<(), PrepareError> {
    let base = config.base_model.iter().map(|input| (Role::BaseModel, input));
    let mut inputs: Vec<_> = base.chain([(Role::Weights, &config.weights)]).collect();
    inputs.sort_by_key(|(_, input)| matches!(input, Input::Download { .. }));
    for (role, input) in inputs {
        let usable = doubtfully(connection.doubt, may_be_young, || inputs::make_usable(input, role.name())).await;
        usable.map_err(|source| PrepareError::Input { role, source })?;
    }
    if let Input::Shared { checkpoint, to, field } = &config.weights {
        let digest = config.digest.as_deref().unwrap_or_default();
        let wanted = Wanted { checkpoint, digest, to: Path::new(to), field };
        let had = doubtfully(connection.doubt, may_be_young, || shared::get(&wanted, connection)).await;
        had.map_err(|source| PrepareError::Input { role: Role::Weights, source })?;
    }
    if let (Input::Download { store, to, field }, Some(digest)) = (&config.weights, &config.digest) {
        let failed =
            |source| PrepareError::Input { role: Role::Weights, source: InputError::Store { field: field.clone(), source } };
        let (parent, name) = beside(store).ok_or_else(|| failed(StoreError::Nothing { uri: store.uri.clone() }))?;
        let bucket = Bucket::open(&parent).map_err(failed)?;
        let problem = doubtfully(connection.doubt, is_young, || verify(&bucket, &name, Path::new(to), digest)).await;
        let problem = problem.map_err(failed)?;
        if let Some(problem) = problem {
            let (label, field) = (store.uri.clone(), field.clone());
            return Err(PrepareError::Input { role: Role::Weights, source: InputError::Damaged { label, field, problem } });
        }
    }
    tracing::info!("everything the server needs is there");
    Ok(())
}

/// Asks again for as long as what it is told is `doubtful` and that has not lasted for `doubt`.
async fn doubtfully<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    doubt: Duration,
    doubtful: impl Fn(&E) -> bool,
    ask: impl Fn() -> F,
) -> Result<T, E> {
    let (mut since, mut pause) = (None, doubt / 32);
    loop {
        let error = match ask().await {
            Err(error) if doubtful(&error) => error,
            done => return done,
        };
        let begin: Instant = *since.get_or_insert_with(Instant::now);
        if begin.elapsed() + pause >= doubt {
            return Err(error);
        }
        tracing::warn!(%error, "refused, which may pass: asking again");
        sleep(pause).await;
        pause = (pause * 2).min(doubt / 6);
    }
}

/// Whether a refusal may be one of something that is not known everywhere yet: a key, a bucket, files or a permission.
const fn may_be_young(error: &InputError) -> bool {
    match error {
        InputError::Store { source, .. } => is_young(source),
        error => matches!(error, InputError::NotPermitted { .. }),
    }
}

const fn is_young(error: &StoreError) -> bool {
    matches!(error, StoreError::AccessDenied { .. } | StoreError::NoBucket { .. } | StoreError::Nothing { .. })
}

/// The prefix that holds a folder, and the folder's name: its manifest lies beside it.
pub(super) fn beside(store: &Store) -> Option<(Store, String)> {
    let (parent, name) = store.uri.trim_end_matches('/').rsplit_once('/')?;
    Some((Store { uri: parent.to_owned(), ..store.clone() }, name.to_owned()))
}

/// What is wrong with the copy of the checkpoint `name` that lies in `dir`, if anything is.
async fn verify(bucket: &Bucket, name: &str, dir: &Path, digest: &str) -> Result<Option<String>, StoreError> {
    let manifest = bucket.get(&manifest_name(name), limits::JSON_BYTES).await?;
    let (dir, digest) = (dir.to_owned(), digest.to_owned());
    let uri = bucket.uri_of(name);
    let compared = tokio::task::spawn_blocking(move || compare(manifest.as_deref(), &dir, &digest)).await;
    compared.map_err(|error| StoreError::Failed { uri, problem: error.to_string() })
}

/// Compares a folder with its manifest; without one, with the digest that was recorded when it was looked at.
fn compare(manifest: Option<&[u8]>, dir: &Path, digest: &str) -> Option<String> {
    let opened = dir.parent().map(RealFs::new);
    let name = dir.file_name().and_then(|name| name.to_str()).map(RelPath::parse);
    let (Some(Ok(fs)), Some(Ok(relative))) = (opened, name) else { return Some("it cannot be read".to_owned()) };
    let Some(manifest) = manifest else {
        let origin = Origin { fine_tune_uid: String::new(), attempt: 0, lineage: 0 };
        return match Manifest::new(&fs, &relative, origin, &inspect_weights(&fs, &relative, 0)) {
            Ok(found) if found.digest == digest => None,
            Ok(_) => Some("its files are not those that were verified".to_owned()),
            Err(reasons) => Some(check::reasons(&reasons)),
        };
    };
    let manifest: Manifest = match serde_json::from_slice(manifest) {
        Ok(manifest) => manifest,
        Err(error) => return Some(format!("its manifest cannot be read: {error}")),
    };
    if manifest.digest != digest {
        return Some("its manifest is not the one that was reported".to_owned());
    }
    let found = manifest.check(&fs, &relative, true);
    (!found.is_empty()).then(|| check::reasons(&found))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use tempfile::tempdir;

    use super::*;
    use crate::agent::fixture::{UID, damage, write_checkpoint, write_manifest};

    /// A checkpoint with manifest, the store with that manifest, and the digest.
    async fn stored(root: &Path) -> (Bucket, String) {
        write_checkpoint(root, 5);
        write_manifest(root, 5, UID);
        let text = std::fs::read(root.join(manifest_name("checkpoint-5"))).unwrap();
        let bucket = Bucket::over(Arc::new(InMemory::new()), "s3://b/lineage-1").unwrap();
        let manifest: Manifest = serde_json::from_slice(&text).unwrap();
        bucket.put(&manifest_name("checkpoint-5"), text).await.unwrap();
        (bucket, manifest.digest)
    }

    #[tokio::test]
    async fn a_whole_copy_passes_and_a_damaged_one_does_not() {
        let root = tempdir().unwrap();
        let (bucket, digest) = stored(root.path()).await;
        let dir = root.path().join("checkpoint-5");
        assert_eq!(verify(&bucket, "checkpoint-5", &dir, &digest).await.unwrap(), None);
        let other = verify(&bucket, "checkpoint-5", &dir, "sha256:other").await.unwrap().unwrap();
        assert!(other.contains("not the one that was reported"), "{other}");
        damage(root.path(), 5);
        let problem = verify(&bucket, "checkpoint-5", &dir, &digest).await.unwrap().unwrap();
        assert!(problem.starts_with("hash-differs"), "{problem}");
    }

    #[tokio::test]
    async fn without_a_manifest_the_digest_decides() {
        let root = tempdir().unwrap();
        let (_, digest) = stored(root.path()).await;
        let empty = Bucket::over(Arc::new(InMemory::new()), "s3://b/else").unwrap();
        let dir = root.path().join("checkpoint-5");
        assert_eq!(verify(&empty, "checkpoint-5", &dir, &digest).await.unwrap(), None);
        damage(root.path(), 5);
        assert!(verify(&empty, "checkpoint-5", &dir, &digest).await.unwrap().is_some());
    }

    /// How often is asked, and how it ends, when the first `refused` answers are `error`.
    async fn asks(refused: u32, error: fn() -> InputError) -> (u32, Option<String>) {
        let asked = std::cell::Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            let answer = if asked.get() <= refused { Err(error()) } else { Ok(()) };
            async move { answer }
        };
        let ended = doubtfully(Duration::from_millis(320), may_be_young, ask).await;
        (asked.get(), ended.err().map(|error| error.to_string()))
    }

    #[tokio::test]
    async fn a_refusal_is_believed_when_it_has_lasted_and_what_no_time_mends_at_once() {
        let store = |source| InputError::Store { field: "spec.checkpoint".into(), source };
        let uri = || "s3://b/x".to_owned();
        let denied = || InputError::Store {
            field: "f".into(),
            source: StoreError::AccessDenied { uri: "s3://b/x".into(), problem: "InvalidAccessKeyId".into() },
        };
        assert_eq!(asks(3, denied).await, (4, None), "a key that was made a moment ago");
        let (asked, said) = asks(u32::MAX, denied).await;
        assert!((2..20).contains(&asked) && said.unwrap().contains("InvalidAccessKeyId"), "{asked}");
        assert!(may_be_young(&InputError::NotPermitted { field: String::new(), problem: String::new() }));
        assert!(may_be_young(&store(StoreError::Nothing { uri: uri() })));
        let no_key = || InputError::Store {
            field: "f".into(),
            source: StoreError::NoCredentials { uri: "s3://b/x".into(), variable: "AWS_ACCESS_KEY_ID".into() },
        };
        assert_eq!(asks(u32::MAX, no_key).await.0, 1);
    }

    #[tokio::test]
    async fn what_is_missing_on_a_volume_is_the_users_to_mend() {
        let weights = Input::Path {
            path: "/finetune/volumes/none/x".into(),
            label: "volume://none/x".into(),
            field: "spec.checkpoint".into(),
        };
        let arguments = Arguments { termination_log: "".into(), token: "".into(), exporter: None, patience: 0, doubt: 0 };
        let connection = Connection::new(&arguments);
        let error = fetch(&FetchConfig { weights, digest: None, base_model: None }, &connection).await.unwrap_err();
        let failure = failure::of(&error);
        assert_eq!((failure.reason.as_str(), failure.user_error), ("CheckpointInvalid", true));
    }
}
