//! The two ends of an exporter's TLS: the certificate the report server signs for it, renewed while it runs, and the authority by which it
//! knows a capability.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::time::{Instant, sleep};

use crate::agent::report_client::{ReportClient, ReportError};
use crate::protocol::sharing::{CERTIFICATE_PATH, ExporterCertificate};

/// How long the first certificate is asked for: the controller may be on its way up.
const PATIENCE: Duration = Duration::from_mins(5);
/// The pause after a renewal that failed for long.
const AFTER_REFUSAL: Duration = Duration::from_mins(1);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(5);

/// The certificate of this process.
#[derive(Debug)]
pub struct Identity {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Identity {
    /// Gets a certificate, and how long it is good for.
    ///
    /// # Errors
    /// The report server refuses, or does not answer for too long.
    pub async fn get(client: &ReportClient) -> Result<(Arc<Self>, Duration), ReportError> {
        let (key, life) = ask_within(client, PATIENCE).await?;
        Ok((Arc::new(Self { current: RwLock::new(Arc::new(key)) }), life))
    }

    /// Renews the certificate whenever two thirds of its life have passed, for ever.
    pub async fn renew(&self, client: &ReportClient, mut life: Duration) {
        loop {
            sleep(life * 2 / 3).await;
            loop {
                match ask_within(client, life / 3).await {
                    Ok((key, next)) => {
                        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                        life = next;
                        break;
                    }
                    Err(error) => tracing::error!(%error, "the certificate cannot be renewed"),
                }
                sleep(AFTER_REFUSAL).await;
            }
        }
    }
}

async fn ask_within(client: &ReportClient, patience: Duration) -> Result<(CertifiedKey, Duration), ReportError> {
    let end = Instant::now() + patience;
    loop {
        let answer = client.ask::<_, ExporterCertificate>(CERTIFICATE_PATH, &()).await;
        let error = match answer.and_then(|answer| certified(&answer)) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        // A pod this young may not be known to every replica yet.
        let may_pass = error.is_transient() || matches!(error, ReportError::Refused { status: 403 | 404, .. });
        if !may_pass || Instant::now() + PAUSE >= end {
            return Err(error);
        }
        tracing::warn!(%error, "no certificate yet, asking again");
        sleep(PAUSE).await;
    }
}

fn certified(answer: &ExporterCertificate) -> Result<(CertifiedKey, Duration), ReportError> {
    let unusable = |error: &dyn std::fmt::Display| ReportError::Unreachable(format!("its certificate cannot be used ({error})"));
    let certificate = CertificateDer::from_pem_slice(answer.certificate.as_bytes()).map_err(|error| unusable(&error))?;
    let key = PrivateKeyDer::from_pem_slice(answer.key.as_bytes()).map_err(|error| unusable(&error))?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|error| unusable(&error))?;
    Ok((CertifiedKey::new(vec![certificate], key), Duration::from_secs(answer.seconds.into())))
}

/// TLS for those alone who prove themselves with a certificate that `authority` (PEM) has signed for clients and that is good now. No session
/// is taken up again: that would outlive the capability.
///
/// # Errors
/// The authority cannot be used.
pub fn config(identity: Arc<Identity>, authority: &str) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.map_err(|error| error.to_string())?.with_client_cert_verifier(verifier).with_cert_resolver(identity);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
