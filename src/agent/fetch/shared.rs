//! Gets a checkpoint of another namespace from its exporter. The way there is asked for anew whenever it is needed; every file is compared
//! with the manifest, and the manifest with the digest that is on record of the checkpoint. What broke off is taken up where it ended.

use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Certificate, Client, Identity, Response, StatusCode, Url, header, redirect};
use sha2::{Digest, Sha256};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use super::Connection;
use super::parts::{bytes_in, hash, hex, part_of};
use crate::agent::causes::with_causes;
use crate::agent::inputs::InputError;
use crate::agent::report_client::{ReportClient, ReportError};
use crate::agent::store::StoreError;
use crate::checkpoint_files::{ManifestFile, RelPath, digest_of, limits};
use crate::protocol::sharing::{
    CAPABILITY_PATH, Capability, CapabilityRequest, ExportManifest, ExportedFile, FILES_PATH, MANIFEST_PATH,
};

/// An exporter that says nothing for so long is asked again.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Files fetched at the same time.
const IN_FLIGHT: usize = 4;
/// Times a file may arrive damaged.
const DAMAGED: u32 = 2;

/// What is to be had, and how it is called in messages.
pub(super) struct Wanted<'a> {
    /// Uid of the Checkpoint.
    pub checkpoint: &'a str,
    /// Digest it must have.
    pub digest: &'a str,
    /// Directory it goes to.
    pub to: &'a Path,
    /// Field of the spec it comes from.
    pub field: &'a str,
}

/// Why a try ended.
enum Failed {
    /// It may go better the next time.
    Passing(String),
    /// It will not.
    Lasting(InputError),
}

/// Gets the checkpoint. Gives up when no byte has come for as long as `connection` is patient.
///
/// # Errors
/// It may not be had, is not what is on record, or the disk fails.
pub(super) async fn get(wanted: &Wanted<'_>, connection: &Connection) -> Result<(), InputError> {
    let client = ReportClient::from_env_with(&connection.token);
    let client = client.map_err(|error| wanted.failed(&error.to_string()))?;
    let (mut pause, mut damaged) = (Duration::from_millis(500), 0);
    let (mut had, mut came) = (0, Instant::now());
    loop {
        let problem = match attempt(wanted, &client, connection, &mut damaged).await {
            Ok(()) => return Ok(()),
            Err(Failed::Lasting(error)) => return Err(error),
            Err(Failed::Passing(problem)) => problem,
        };
        let has = bytes_in(wanted.to).await;
        if has > had {
            (had, came, pause) = (has, Instant::now(), Duration::from_millis(500));
        }
        if came.elapsed() + pause >= connection.patience {
            return Err(wanted.failed(&problem));
        }
        tracing::warn!(problem, bytes = has, "the checkpoint is not whole yet, trying again");
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Goes the whole way once: capability, manifest, files.
async fn attempt(wanted: &Wanted<'_>, client: &ReportClient, connection: &Connection, damaged: &mut u32) -> Result<(), Failed> {
    let request = CapabilityRequest { checkpoint: wanted.checkpoint.to_owned() };
    let capability: Capability = client.ask(CAPABILITY_PATH, &request).await.map_err(|error| match error {
        ReportError::Refused { status: 403 | 404, message } => {
            Failed::Lasting(InputError::NotPermitted { field: wanted.field.into(), problem: message })
        }
        error if error.is_transient() => Failed::Passing(error.to_string()),
        error => Failed::Lasting(wanted.failed(&error.to_string())),
    })?;
    let exporter = Exporter::new(&capability, connection).map_err(|problem| Failed::Lasting(wanted.failed(&problem)))?;
    let manifest = exporter.manifest().await?;
    check(&manifest, wanted.digest).map_err(|problem| Failed::Lasting(wanted.damaged(problem)))?;
    let bytes: u64 = manifest.files.iter().map(|file| file.size).sum();
    tracing::info!(files = manifest.files.len(), bytes, "the exporter answers");
    let one = |file: ExportedFile| exporter.fetch(file, wanted.to);
    let all = stream::iter(manifest.files.into_iter().filter(is_wanted).map(one).collect::<Vec<_>>());
    let outcome = all.buffer_unordered(IN_FLIGHT).try_collect::<()>().await;
    match outcome {
        Err(Fetch::Damaged(path)) if *damaged < DAMAGED => {
            *damaged += 1;
            Err(Failed::Passing(format!("{path} arrived damaged")))
        }
        Err(Fetch::Damaged(path)) => Err(Failed::Lasting(wanted.damaged(format!("{path} is not what was recorded")))),
        Err(Fetch::Remote(problem)) => Err(Failed::Passing(problem)),
        Err(Fetch::Local(source)) => Err(Failed::Lasting(InputError::Store { field: wanted.field.into(), source })),
        Ok(()) => Ok(()),
    }
}

/// Samples may be written after a checkpoint was recorded, and no server reads them.
fn is_wanted(file: &ExportedFile) -> bool {
    file.path != "samples.jsonl"
}

impl Wanted<'_> {
    fn failed(&self, problem: &str) -> InputError {
        let source = StoreError::Failed { uri: self.label(), problem: problem.to_owned() };
        InputError::Store { field: self.field.to_owned(), source }
    }

    fn damaged(&self, problem: String) -> InputError {
        InputError::Damaged { label: self.label(), field: self.field.to_owned(), problem }
    }

    fn label(&self) -> String {
        format!("checkpoint {}", self.checkpoint)
    }
}

/// Whether a manifest is that of the checkpoint, and leads nowhere else.
fn check(manifest: &ExportManifest, digest: &str) -> Result<(), String> {
    let files = manifest.files.iter().cloned();
    let files: Vec<_> = files.map(|ExportedFile { path, size, sha256 }| ManifestFile { path, size, sha256 }).collect();
    if files.is_empty() || files.len() > limits::ENTRIES || files.iter().any(|file| RelPath::parse(&file.path).is_err()) {
        return Err("its manifest lists no files, too many, or such that lie elsewhere".to_owned());
    }
    if digest_of(&files) == digest { Ok(()) } else { Err("its files are not those that were verified".to_owned()) }
}

/// Why one file is not there.
enum Fetch {
    Remote(String),
    Local(StoreError),
    Damaged(String),
}

impl From<Fetch> for Failed {
    fn from(fetch: Fetch) -> Self {
        match fetch {
            Fetch::Remote(problem) | Fetch::Damaged(problem) => Self::Passing(problem),
            Fetch::Local(source) => Self::Passing(source.to_string()),
        }
    }
}

/// The exporter, for as long as the capability is good.
struct Exporter {
    http: Client,
    url: Url,
}

impl Exporter {
    fn new(capability: &Capability, connection: &Connection) -> Result<Self, String> {
        let unusable = |error: reqwest::Error| format!("the way to the exporter cannot be used: {error}");
        let roots = Certificate::from_pem_bundle(connection.authority.as_bytes()).map_err(unusable)?;
        let identity = format!("{}\n{}", capability.certificate, capability.key);
        let mut http = Client::builder()
            .tls_certs_only(roots)
            .identity(Identity::from_pem(identity.as_bytes()).map_err(unusable)?)
            .https_only(true)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE);
        let mut url = Url::parse(&capability.url).map_err(|error| format!("the way to the exporter cannot be used: {error}"))?;
        if let Some(address) = connection.exporter {
            http = http.resolve(url.host_str().unwrap_or_default(), address);
            let _ = url.set_port(Some(address.port()));
        }
        Ok(Self { http: http.build().map_err(unusable)?, url })
    }

    async fn ask(&self, path: &str, offset: u64) -> Result<Response, Fetch> {
        let mut url = self.url.clone();
        // Sets what has a meaning in a URL apart from what belongs to a name.
        url.path_segments_mut().map_err(|()| Fetch::Remote("its URL has no path".into()))?.extend(path.split('/').skip(1));
        let request = self.http.get(url);
        let request = if offset > 0 { request.header(header::RANGE, format!("bytes={offset}-")) } else { request };
        let response = request.send().await.map_err(|error| remote(&error))?;
        let expected = if offset > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        if response.status() == expected {
            return Ok(response);
        }
        Err(Fetch::Remote(format!("the exporter answers {} to {path}", response.status())))
    }

    async fn manifest(&self) -> Result<ExportManifest, Fetch> {
        let mut response = self.ask(MANIFEST_PATH, 0).await?;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| remote(&error))? {
            body.extend_from_slice(&piece);
            if body.len() as u64 > limits::JSON_BYTES {
                return Err(Fetch::Remote("the exporter's manifest is too long".to_owned()));
            }
        }
        serde_json::from_slice(&body).map_err(|error| Fetch::Remote(format!("the exporter's manifest cannot be read: {error}")))
    }

    /// Gets one file, which is under its real name only once it is what was recorded.
    async fn fetch(&self, file: ExportedFile, to: &Path) -> Result<(), Fetch> {
        let path = to.join(&file.path);
        let local = |error| Fetch::Local(StoreError::local(&path, error));
        if let Ok(hasher) = hash(&path, file.size).await
            && hex(hasher) == file.sha256
        {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).await.map_err(local)?;
        }
        let part = part_of(&path);
        let begun = fs::metadata(&part).await.map_or(0, |found| found.len());
        let (mut hasher, mut written) = match hash(&part, begun).await {
            Ok(hasher) if begun <= file.size => (hasher, begun),
            _ => (Sha256::new(), 0),
        };
        let options = OpenOptions::new().create(true).write(true).truncate(written == 0).append(written > 0).clone();
        let mut into = options.open(&part).await.map_err(local)?;
        if written < file.size {
            self.append(&file, (&mut into, &part), (&mut hasher, &mut written)).await?;
        }
        into.flush().await.map_err(local)?;
        into.sync_all().await.map_err(local)?;
        if written != file.size || hex(hasher) != file.sha256 {
            fs::remove_file(&part).await.map_err(local)?;
            return Err(Fetch::Damaged(file.path));
        }
        fs::rename(&part, &path).await.map_err(local)
    }

    async fn append(
        &self,
        file: &ExportedFile,
        (into, part): (&mut File, &Path),
        (hasher, written): (&mut Sha256, &mut u64),
    ) -> Result<(), Fetch> {
        let mut response = self.ask(&format!("{FILES_PATH}/{}", file.path), *written).await?;
        while let Some(piece) = response.chunk().await.map_err(|error| remote(&error))? {
            *written += piece.len() as u64;
            if *written > file.size {
                return Err(Fetch::Damaged(file.path.clone()));
            }
            into.write_all(&piece).await.map_err(|error| Fetch::Local(StoreError::local(part, error)))?;
            hasher.update(&piece);
        }
        Ok(())
    }
}

fn remote(error: &reqwest::Error) -> Fetch {
    Fetch::Remote(format!("the exporter cannot be read from: {}", with_causes(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint_files::manifest_name;
    use crate::protocol::sharing::MANIFEST_SUFFIX;

    fn file(path: &str) -> ExportedFile {
        ExportedFile { path: path.into(), size: 3, sha256: "ab".into() }
    }

    #[test]
    fn a_manifest_is_believed_only_with_the_digest_on_record_and_within_the_folder() {
        let digest = |files: &[ExportedFile]| {
            let files = files.iter().cloned();
            let files: Vec<_> = files.map(|ExportedFile { path, size, sha256 }| ManifestFile { path, size, sha256 }).collect();
            digest_of(&files)
        };
        let of = |files: Vec<ExportedFile>| ExportManifest { digest: String::new(), files };
        let good = vec![file("config.json"), file("a/b.safetensors")];
        assert_eq!(check(&of(good.clone()), &digest(&good)), Ok(()));
        assert!(check(&of(vec![file("config.json")]), &digest(&good)).is_err());
        for path in ["../x", "/etc/passwd", "a/../../x", "", "a//b", "a\0b"] {
            let files = vec![file(path)];
            assert!(check(&of(files.clone()), &digest(&files)).is_err(), "{path:?}");
        }
        assert!(check(&of(Vec::new()), &digest(&[])).is_err());
    }

    #[test]
    fn the_manifest_is_called_as_the_plan_says() {
        assert_eq!(manifest_name("checkpoint-5"), format!("checkpoint-5{MANIFEST_SUFFIX}"));
    }
}
