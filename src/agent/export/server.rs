//! What an exporter answers, and to whom: only to bearers of a capability for its checkpoint, only what its manifest lists, only to read.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::files::Files;
use crate::listener::Peer;
use crate::protocol::sharing::{FILES_PATH, Grant, MANIFEST_PATH};

/// One checkpoint, and its uid.
pub struct Export {
    /// Uid of the Checkpoint.
    pub checkpoint: String,
    /// Its files.
    pub files: Files,
}

/// The exporter without the TLS around it.
pub fn router(export: Arc<Export>) -> Router {
    let manifest = |State(export): State<Arc<Export>>| async move { Json(export.files.manifest().clone()) };
    Router::new()
        .route(MANIFEST_PATH, get(manifest))
        .route(&format!("{FILES_PATH}/{{*path}}"), get(file))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "there is nothing else here") })
        .layer(middleware::from_fn_with_state(Arc::clone(&export), permitted))
        .with_state(export)
}

/// Lets through who bears a capability for this very checkpoint.
async fn permitted(State(export): State<Arc<Export>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0.as_ref());
    match peer.and_then(grant) {
        Some(grant) if grant.checkpoint == export.checkpoint => {
            tracing::debug!(namespace = grant.namespace, deployment = grant.deployment, path = request.uri().path(), "permitted");
            next.run(request).await
        }
        Some(grant) => {
            tracing::warn!(namespace = grant.namespace, deployment = grant.deployment, "a capability for another checkpoint");
            refusal(StatusCode::FORBIDDEN, "the capability is for another checkpoint")
        }
        None => refusal(StatusCode::FORBIDDEN, "the certificate is no capability"),
    }
}

/// The one grant a certificate carries. Who signed it and whether it is good still, TLS has made sure of.
fn grant(certificate: &CertificateDer<'_>) -> Option<Grant> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = &parsed.subject_alternative_name().ok()??.value.general_names;
    match names[..] {
        [GeneralName::URI(uri)] => Grant::parse(uri),
        _ => None,
    }
}

async fn file(State(export): State<Arc<Export>>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    let Some(size) = export.files.size(&path) else {
        return refusal(StatusCode::NOT_FOUND, "the checkpoint has no such file");
    };
    let Some(offset) = offset(&headers).filter(|offset| *offset <= size) else {
        return refusal(StatusCode::RANGE_NOT_SATISFIABLE, "ask for bytes=N- within the file");
    };
    tracing::info!(path, offset, size, "handing out");
    match export.files.read(&path, offset).await {
        Ok(bytes) => {
            let code = if offset == 0 { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
            let length = (header::CONTENT_LENGTH, (size - offset).to_string());
            (code, [length], Body::from_stream(bytes)).into_response()
        }
        Err(error) => {
            tracing::warn!(path, %error, "a file cannot be read");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read")
        }
    }
}

/// The first byte that is asked for: `Range` of the form `bytes=N-`, or the beginning.
fn offset(headers: &HeaderMap) -> Option<u64> {
    let Some(range) = headers.get(header::RANGE) else { return Some(0) };
    let digits = range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn refusal(code: StatusCode, why: &'static str) -> Response {
    (code, format!("{why}\n")).into_response()
}
