//! A run, its checkpoint folders and a server to report to, for the tests of this layer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::api::{Bindings, Completion};
use crate::checkpoint_files::{Manifest, Origin, RealFs, RelPath, inspect, manifest_name};
use crate::protocol::{Input, RunConfig, Start};

pub(crate) const UID: &str = "0123456789abcdef";

pub(crate) fn config() -> RunConfig {
    let hub = |repo: &str| Input::Hub { repo: repo.to_owned(), revision: None };
    let key = |name: &str| Some(name.to_owned());
    RunConfig {
        name: "tiny".to_owned(),
        namespace: "team".to_owned(),
        uid: UID.to_owned(),
        attempt: 2,
        lineage: 1,
        nodes: 1,
        base_model: hub("org/model"),
        dataset: hub("org/data"),
        validation_dataset: None,
        upload: None,
        start: Start::LastCheckpoint,
        parameters: BTreeMap::new(),
        bind: Bindings {
            base_model: key("model_name_or_path"),
            dataset: key("dataset_name"),
            validation_dataset: None,
            output: key("output_dir"),
            resume_from: key("resume_from_checkpoint"),
            seed: key("seed"),
        },
        seed: 7,
        completion: Completion::Verified,
        settle_seconds: 10,
        stall_seconds: None,
        divergence_points: None,
    }
}

/// Writes `checkpoint-<step>` as Hugging Face's trainer does: a whole adapter with training state.
pub(crate) fn write_checkpoint(output: &Path, step: u64) {
    let dir = output.join(format!("checkpoint-{step}"));
    fs::create_dir_all(&dir).unwrap();
    let header = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend_from_slice(header);
    weights.extend_from_slice(&step.to_le_bytes());
    fs::write(dir.join("adapter_model.safetensors"), weights).unwrap();
    let adapter = r#"{"peft_type":"LORA","r":8,"target_modules":["q"],"base_model_name_or_path":"b"}"#;
    fs::write(dir.join("adapter_config.json"), adapter).unwrap();
    for file in ["optimizer.pt", "scheduler.pt"] {
        fs::write(dir.join(file), "training state").unwrap();
    }
    let state = format!(
        r#"{{"global_step":{step},"max_steps":100,"epoch":1.0,"num_train_epochs":3,
            "log_history":[{{"step":{step},"epoch":1.0,"loss":0.5}},{{"step":{step},"eval_loss":NaN}}]}}"#
    );
    fs::write(dir.join("trainer_state.json"), state).unwrap();
}

/// Writes the manifest beside a checkpoint, of the run `uid`.
pub(crate) fn write_manifest(output: &Path, step: u64, uid: &str) {
    let name = format!("checkpoint-{step}");
    let fs = RealFs::new(output).unwrap();
    let dir = RelPath::parse(&name).unwrap();
    let origin = Origin { fine_tune_uid: uid.to_owned(), attempt: 1, lineage: 1 };
    let manifest = Manifest::new(&fs, &dir, origin, &inspect(&fs, &dir, step)).unwrap();
    std::fs::write(output.join(manifest_name(&name)), manifest.to_json().unwrap()).unwrap();
}

/// Damages one file of a checkpoint without changing its size.
pub(crate) fn damage(output: &Path, step: u64) {
    let file = output.join(format!("checkpoint-{step}/adapter_model.safetensors"));
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
}

/// Serves `app` at `https://localhost:<port>`; the URL, and the PEM of the CA that vouches for it.
pub(crate) async fn serve(app: Router) -> (String, String) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(tls.with_single_cert(vec![leaf.der().clone()], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, app) = (acceptor.clone(), app.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let service = hyper_util::service::TowerToHyperService::new(app);
                let io = hyper_util::rt::TokioIo::new(stream);
                let server = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = server.serve_connection(io, service).await;
            });
        }
    });
    (url, ca.pem())
}
