//! A checkpoint, an exporter that hands it out, and a door to the authority.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use finetune_operator::checkpoint_files::{Manifest, Origin, RealFs, RelPath, inspect, manifest_name};
use finetune_operator::listener::{self, Limits};
use finetune_operator::protocol::sharing::{CAPABILITY_PATH, CERTIFICATE_PATH, Capability, Grant};
use finetune_operator::protocol::{FetchConfig, Input, env};
use finetune_operator::reports::Authority;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Uid of the Checkpoint.
pub const CHECKPOINT: &str = "0b9f6a1e-0000-4000-8000-000000000003";
const HOST: &str = "localhost";
const NAME: &str = "checkpoint-4";

/// What a permitted pod is granted.
pub fn grant() -> Grant {
    Grant { checkpoint: CHECKPOINT.into(), namespace: "team-b".into(), deployment: "d-1".into() }
}

/// A checkpoint on a volume, and who signs.
pub struct Place {
    pub root: TempDir,
    pub authority: Authority,
    pub digest: String,
    door: String,
    refusals: Arc<AtomicU32>,
}

/// A running `agent export`; ends with the test.
pub struct Exporter {
    address: SocketAddr,
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Exporter {
    /// What it has logged.
    pub fn said(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Place {
    /// A real full checkpoint, with its manifest beside it.
    pub fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let root = TempDir::new().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/trl-full").join(NAME);
        let to = root.path().join(NAME);
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        let fs = RealFs::new(root.path()).unwrap();
        let dir = RelPath::parse(NAME).unwrap();
        let origin = Origin { fine_tune_uid: "r".into(), attempt: 1, lineage: 1 };
        let manifest = Manifest::new(&fs, &dir, origin, &inspect(&fs, &dir, 4)).unwrap();
        std::fs::write(root.path().join(manifest_name(NAME)), manifest.to_json().unwrap()).unwrap();
        std::fs::write(root.path().join("token"), "pod").unwrap();
        let authority = Authority::generate(Timestamp::now()).unwrap();
        let refusals = Arc::new(AtomicU32::new(0));
        let door = door(&authority, Arc::clone(&refusals));
        Self { root, authority, digest: manifest.digest, door, refusals }
    }

    /// The directory of the checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.root.path().join(NAME)
    }

    /// From now on the controller refuses.
    pub fn revoke(&self) {
        self.refuse(u32::MAX);
    }

    /// The controller refuses so many times.
    pub fn refuse(&self, times: u32) {
        self.refusals.store(times, Ordering::Relaxed);
    }

    /// A good capability.
    pub fn capability(&self) -> Capability {
        self.authority.capability(String::new(), &grant(), Timestamp::now()).unwrap()
    }

    /// The certificate of a server, presented as if it were a capability.
    pub fn as_server(&self) -> Capability {
        let made = self.authority.exporter(HOST, Timestamp::now()).unwrap();
        Capability { url: String::new(), certificate: made.certificate, key: made.key }
    }

    /// Starts the exporter, with the manifest or without, and waits until it says that it listens.
    pub async fn export(&self, with_manifest: bool) -> Exporter {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finetune-operator"));
        command.args(["agent", "export", "--checkpoint", CHECKPOINT, "--port", "0", "--dir"]).arg(self.checkpoint());
        if with_manifest {
            command.arg("--manifest").arg(self.root.path().join(manifest_name(NAME)));
        }
        command.arg("--token").arg(self.root.path().join("token"));
        command.env(env::REPORT_URL, &self.door).env(env::REPORT_CA, &self.authority.ca_pem).env("NO_COLOR", "1");
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (found, address) = tokio::sync::oneshot::channel();
        let mut found = Some(found);
        let output = process.stderr.take().unwrap();
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let port = line.split("address=").nth(1).and_then(|rest| rest.rsplit(':').next()?.trim().parse::<u16>().ok());
                if let Some((found, port)) = port.and_then(|port| Some((found.take()?, port))) {
                    let _ = found.send(SocketAddr::from(([127, 0, 0, 1], port)));
                }
                kept.lock().unwrap().push(line);
            }
        });
        let address = address.await.unwrap_or_else(|_| panic!("the exporter ended: {:?}", lines.lock().unwrap()));
        Exporter { address, process, lines }
    }

    /// Runs `agent fetch` to its end: its code, and what it leaves for Kubernetes.
    pub async fn fetch(&self, exporter: &Exporter, to: &Path) -> (i32, String) {
        self.fetch_doubting(exporter, to, 0).await
    }

    /// The same, where a refusal is believed only after so many seconds.
    pub async fn fetch_doubting(&self, exporter: &Exporter, to: &Path, doubt: u32) -> (i32, String) {
        let weights =
            Input::Shared { checkpoint: CHECKPOINT.into(), to: to.display().to_string(), field: "spec.checkpoint".into() };
        let config = FetchConfig { weights, digest: Some(self.digest.clone()), base_model: None };
        let words = self.root.path().join("termination-log");
        std::fs::write(&words, "").unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_finetune-operator"));
        command.args([
            "agent",
            "fetch",
            "--patience",
            "20",
            "--doubt",
            &doubt.to_string(),
            "--exporter",
            &exporter.address.to_string(),
            "--token",
        ]);
        command.arg(self.root.path().join("token")).arg("--termination-log").arg(&words);
        command.env(env::FETCH_CONFIG, serde_json::to_string(&config).unwrap());
        command.env(env::REPORT_URL, &self.door).env(env::REPORT_CA, &self.authority.ca_pem);
        let ended = command.output().await.unwrap();
        let said = std::fs::read_to_string(&words).unwrap();
        (ended.status.code().unwrap(), said + &String::from_utf8_lossy(&ended.stderr))
    }

    /// Runs `agent look` for paths on the volume: its code, and what it leaves for Kubernetes.
    pub fn look(&self, paths: &[&str]) -> (i32, String) {
        let words = tempfile::NamedTempFile::new().unwrap();
        let (volume, volumes) = (self.root.path(), self.root.path().parent().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_finetune-operator"));
        command.args(["agent", "look", "--volumes"]).arg(volumes).arg("--termination-log").arg(words.path());
        for path in paths {
            command.arg("--path").arg(volume.join(path));
        }
        let ended = command.output().unwrap();
        (ended.status.code().unwrap(), std::fs::read_to_string(words.path()).unwrap())
    }

    /// Asks for a path exactly as it is written.
    pub async fn raw(&self, exporter: &Exporter, capability: Option<&Capability>, path: &str) -> std::io::Result<(u16, String)> {
        self.request(exporter, capability, ("GET", path, "")).await
    }

    /// Method, path and further headers, exactly as written.
    pub async fn request(
        &self,
        exporter: &Exporter,
        capability: Option<&Capability>,
        (method, path, headers): (&str, &str, &str),
    ) -> std::io::Result<(u16, String)> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.ca_pem.as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = match capability {
            None => config.with_no_client_auth(),
            Some(capability) => {
                let certificate = CertificateDer::from_pem_slice(capability.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(capability.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate], key).map_err(std::io::Error::other)?
            }
        };
        let stream = TcpStream::connect(exporter.address).await?;
        let name = ServerName::try_from(HOST).unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        ask(stream, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")).await
    }

    /// The same without TLS.
    pub async fn plain(&self, exporter: &Exporter, path: &str) -> std::io::Result<(u16, String)> {
        ask(TcpStream::connect(exporter.address).await?, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> std::io::Result<(u16, String)> {
    // Who is turned away while still speaking finds the way closed; the answer may be there all the same.
    let spoken = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let Some(code) = code else {
        return Err(spoken.err().or_else(|| read.err()).unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into()));
    };
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    Ok((code, body))
}

/// Stands where the report server does: whether a pod is permitted is the flag, all it hands out is the authority's.
fn door(authority: &Authority, refusals: Arc<AtomicU32>) -> String {
    let for_exporters = authority.clone();
    let certificate = move || {
        let made = for_exporters.exporter(HOST, Timestamp::now()).unwrap();
        async move { Json(made) }
    };
    let signer = authority.clone();
    let capability = move || {
        let left = refusals.load(Ordering::Relaxed);
        refusals.store(left.saturating_sub(u32::from(left < u32::MAX)), Ordering::Relaxed);
        let answer = if left == 0 {
            // The port is that of `--exporter`.
            Json(signer.capability(format!("https://{HOST}"), &grant(), Timestamp::now()).unwrap()).into_response()
        } else {
            (StatusCode::FORBIDDEN, "not any more").into_response()
        };
        async move { answer }
    };
    let router = Router::new().route(CERTIFICATE_PATH, post(certificate)).route(CAPABILITY_PATH, post(capability));
    let made = authority.exporter(HOST, Timestamp::now()).unwrap();
    let certificate = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let listener = StdListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://{HOST}:{}", listener.local_addr().unwrap().port());
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let limits = Limits::AMONG_US;
    tokio::spawn(listener::serve(listener, Some(Arc::new(tls)), limits, router, std::future::pending()));
    url
}

/// Every file below a directory with its content.
pub fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map_while(Result::ok);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap_or_default())).collect()
}
