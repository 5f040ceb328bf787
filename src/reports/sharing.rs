//! The way to a checkpoint of another namespace: a certificate for its exporter, and for who is permitted, now, a capability to read from it.

mod rules;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::routing::post;
use axum::{Json, Router};
use jiff::Timestamp;
use kube::ResourceExt;

use super::handler::Handler;
use super::limits;
use super::refusal::Refusal;
use super::tls::Authority;
use crate::api::{Checkpoint, CheckpointReference};
use crate::protocol::sharing::{
    CAPABILITY_PATH, CERTIFICATE_PATH, Capability, CapabilityRequest, EXPORT_PORT, ExporterCertificate, exporter_host,
};

const MAX_REQUEST_BYTES: usize = 4096;

/// Answers exporters and those who read from them.
#[derive(Clone)]
struct Sharing {
    handler: Arc<Handler>,
    authority: Arc<Authority>,
}

/// The routes of this module.
pub(super) fn router(handler: Arc<Handler>, authority: Authority) -> Router {
    let certificate = |State(sharing): State<Sharing>, request| async move { sharing.answer(sharing.certificate(request)).await };
    let capability = |State(sharing): State<Sharing>, request| async move { sharing.answer(sharing.capability(request)).await };
    Router::new()
        .route(CERTIFICATE_PATH, post(certificate))
        .route(CAPABILITY_PATH, post(capability))
        .with_state(Sharing { handler, authority: Arc::new(authority) })
}

impl Sharing {
    async fn answer<T>(&self, answer: impl Future<Output = Result<T, Refusal>> + Send) -> Result<Json<T>, Refusal> {
        let answered = tokio::time::timeout(limits::REPORT_TIMEOUT, answer).await;
        let answer = answered.unwrap_or_else(|_| Err(Refusal::Internal("the answer took too long: ask again".into())));
        self.handler.metrics.count_report(answer.as_ref().map_or_else(Refusal::reason, |_| "Accepted"));
        answer.map(Json)
    }

    async fn certificate(&self, request: Request<Body>) -> Result<ExporterCertificate, Refusal> {
        let _permit = self.handler.permit()?;
        let identity = self.handler.identify(request.headers()).await?;
        let (name, uid) = rules::exports(&identity, &*self.handler.lookup.pod_of(&identity).await?)?;
        let checkpoint = self.handler.lookup.checkpoint(&identity.namespace, &name).await?;
        if checkpoint.uid().as_ref() != Some(&uid) {
            return Err(Refusal::Gone(format!("Checkpoint {}/{name} of uid {uid} does not exist", identity.namespace)));
        }
        let host = exporter_host(&uid, &identity.namespace);
        self.authority.exporter(&host, Timestamp::now()).map_err(|error| unsigned(&error))
    }

    async fn named(&self, reference: &CheckpointReference) -> Option<Arc<Checkpoint>> {
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        self.handler.lookup.checkpoint(namespace, &reference.name).await.ok()
    }

    async fn capability(&self, request: Request<Body>) -> Result<Capability, Refusal> {
        let _permit = self.handler.permit()?;
        let identity = self.handler.identify(request.headers()).await?;
        let (name, uid) = rules::serves(&identity, &*self.handler.lookup.pod_of(&identity).await?)?;
        let wanted = read(request).await?.checkpoint;
        let lookup = &self.handler.lookup;
        let deployment = lookup.deployment(&identity.namespace, &name)?;
        // Pods of what is still served come again while another checkpoint is rolled out.
        let served = deployment.status.as_ref().and_then(|status| status.checkpoint.as_ref());
        let mut reference = &deployment.spec.checkpoint;
        let mut checkpoint = self.named(reference).await;
        if let Some(served) = served.filter(|_| !is_meant(checkpoint.as_deref(), &wanted)) {
            (reference, checkpoint) = (served, self.named(served).await);
        }
        let namespace = reference.namespace.clone().unwrap_or_default();
        let meant = (reference, checkpoint.as_deref(), wanted.as_str());
        let grant = rules::grant((&deployment, &uid), meant, &lookup.permissions(&namespace))?;
        tracing::info!(
            checkpoint = reference.name,
            namespace,
            consumer = grant.namespace,
            deployment = name,
            "a capability is given"
        );
        let url = format!("https://{}:{EXPORT_PORT}", exporter_host(&wanted, &namespace));
        self.authority.capability(url, &grant, Timestamp::now()).map_err(|error| unsigned(&error))
    }
}

fn is_meant(checkpoint: Option<&Checkpoint>, uid: &str) -> bool {
    checkpoint.is_some_and(|checkpoint| checkpoint.metadata.uid.as_deref() == Some(uid))
}

async fn read(request: Request<Body>) -> Result<CapabilityRequest, Refusal> {
    let body = axum::body::to_bytes(request.into_body(), MAX_REQUEST_BYTES);
    let body = tokio::time::timeout(limits::BODY_TIMEOUT, body).await.map_err(|_| Refusal::TooSlow)?;
    let body = body.map_err(|_| Refusal::TooLarge)?;
    serde_json::from_slice(&body).map_err(|error| Refusal::invalid(".", error.to_string()))
}

fn unsigned(error: &super::Error) -> Refusal {
    tracing::error!(%error, "a certificate cannot be made");
    Refusal::Internal("the certificate could not be made: ask again".into())
}
