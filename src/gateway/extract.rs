//! What handlers take from a request: the caller, the query, the body.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use kube::Client;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use super::app::Gateway;
use super::errors::{Kind, Refusal};
use super::identity::{CallerKey, Credential, Identity, project};
use super::limits;
use super::service::{Session, cluster::Cluster, ids, recent::Recent, room::Room};

/// Where the name of the caller is left for the access log.
#[derive(Clone, Debug, Default)]
pub struct Named(pub Arc<OnceLock<String>>);

/// Who calls, in no project yet.
pub struct Caller {
    identity: Arc<Identity>,
    client: Client,
    key: CallerKey,
    recent: Recent,
    lists: Room,
}

impl Caller {
    /// The caller in a project.
    ///
    /// # Errors
    /// The project cannot be one.
    pub fn within(self, named: Option<&str>) -> Result<Session, Refusal> {
        let project = project(named, &self.identity)?;
        let cluster = Cluster::new(self.client, project.clone(), self.lists);
        Ok(Session { cluster, identity: self.identity, project, key: self.key, recent: self.recent })
    }
}

impl FromRequestParts<Gateway> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Refusal> {
        let credential = Credential::of(&parts.headers)?;
        gateway.rates.take(credential.key, Instant::now()).await?;
        let (identity, client) = gateway.identities.identify(&credential).await?;
        if let Some(Named(name)) = parts.extensions.get() {
            let _ = name.set(identity.username.clone());
        }
        Ok(Self { identity, client, key: credential.key, recent: gateway.recent.clone(), lists: gateway.lists.clone() })
    }
}

/// The project a request names, where its path names none.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Project<'a> {
    /// Namespace to work in, that of the key's ServiceAccount when absent
    #[param(rename = "OpenAI-Project", max_length = 63, pattern = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")]
    openai: Option<&'a str>,
    /// The same by another name
    #[param(rename = "X-Project", max_length = 63, pattern = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")]
    other: Option<&'a str>,
}

impl<'a> Project<'a> {
    fn of(parts: &'a Parts) -> Self {
        let said = |header| parts.headers.get(header).map(|value| value.to_str().unwrap_or("?"));
        let named = |header| said(header).filter(|name| !name.is_empty());
        Self { openai: named("openai-project"), other: named("x-project") }
    }
}

impl FromRequestParts<Gateway> for Session {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Refusal> {
        let caller = Caller::from_request_parts(parts, gateway).await?;
        let named = Project::of(parts);
        caller.within(named.openai.or(named.other))
    }
}

/// The body of a request: JSON, bounded; nothing at all counts as an empty object.
pub struct Said<T> {
    /// What it says.
    pub value: T,
    /// Its fingerprint.
    pub fingerprint: String,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Said<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Refusal> {
        let limit = limits::BODY_BYTES;
        let too_large = || Refusal::new(Kind::TooLarge, format!("the body is larger than {limit} bytes"));
        let length = request.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let bytes = to_bytes(request.into_body(), limit).await.map_err(|_| too_large())?;
        let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        parse(text).map(|value| Self { value, fingerprint: ids::hex(&Sha256::digest(text)) })
    }
}

/// Reads an object of JSON.
///
/// # Errors
/// It is none, or not such a one.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Refusal> {
    // A list would be read as fields by their place.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::new(Kind::BadRequest, "the body must be an object of JSON"));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let message = crate::plan::status_text::cut(&error.inner().to_string(), 512);
        Refusal {
            param: Some(path.clone()).filter(|path| path != "."),
            code: Some("invalid_json"),
            ..Refusal::new(Kind::BadRequest, if path == "." { message } else { format!("{path}: {message}") })
        }
    })?;
    reader.end().map_err(|_| Refusal::new(Kind::BadRequest, "the body goes on after its JSON"))?;
    Ok(value)
}

/// What makes a create repeatable.
#[derive(Clone, Debug, Default, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Once {
    /// With the same key the same create makes one run, however often it is sent; with another body it is refused
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    pub key: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Once {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self::default()) };
        let text = value.to_str().ok().filter(|text| (1..=255).contains(&text.len()));
        text.map(|text| Self { key: Some(text.to_owned()) })
            .ok_or_else(|| Refusal::bad("Idempotency-Key", "an Idempotency-Key has 1 to 255 printable characters"))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Debug)]
    struct Body {
        #[serde(default)]
        #[expect(dead_code, reason = "only its type counts")]
        inner: Option<Inner>,
    }

    #[derive(Deserialize, Debug)]
    struct Inner {
        #[expect(dead_code, reason = "only its type counts")]
        count: u32,
    }

    #[test]
    fn what_cannot_be_read_names_its_field() {
        let refused = parse::<Body>(br#"{"inner": {"count": "x"}}"#).unwrap_err();
        assert_eq!((refused.kind, refused.param.as_deref()), (Kind::BadRequest, Some("inner.count")));
        for bad in [&b"{"[..], b"[]", b"{} {}", b"\xff", b"null", &b"[".repeat(10_000)] {
            assert_eq!(parse::<Body>(bad).unwrap_err().kind, Kind::BadRequest);
        }
        assert!(parse::<Body>(b" {} ").is_ok());
    }
}
