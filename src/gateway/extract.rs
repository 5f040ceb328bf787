//! What handlers take from a request: the caller, the query, the body.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::{HeaderMap, request::Parts};
use kube::Client;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::app::Gateway;
use super::errors::{Kind, Refusal};
use super::identity::{CallerKey, Credential, Identity, project};
use super::limits;
use super::service::{Session, cluster::Cluster, ids, recent::Recent};

/// Where the name of the caller is left for the access log.
#[derive(Clone, Debug, Default)]
pub struct Named(pub Arc<OnceLock<String>>);

/// Who calls, in no project yet.
pub struct Caller {
    identity: Arc<Identity>,
    client: Client,
    key: CallerKey,
    recent: Recent,
}

impl Caller {
    /// The caller in a project.
    ///
    /// # Errors
    /// The project cannot be one.
    pub fn within(self, named: Option<&str>) -> Result<Session, Refusal> {
        let project = project(named, &self.identity)?;
        let cluster = Cluster::new(self.client, project.clone());
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
        Ok(Self { identity, client, key: credential.key, recent: gateway.recent.clone() })
    }
}

/// The project is named by a header, or the caller's own.
impl FromRequestParts<Gateway> for Session {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Refusal> {
        let caller = Caller::from_request_parts(parts, gateway).await?;
        let named = ["openai-project", "x-project"].iter().find_map(|header| parts.headers.get(*header));
        let named = named.map(|value| value.to_str().unwrap_or("?"));
        caller.within(named)
    }
}

/// The query of a request. What is not asked for is not looked at.
#[derive(Clone, Debug, Default)]
pub struct Asked(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        pairs.map(|Query(pairs)| Self(pairs)).map_err(|error| Refusal::new(Kind::BadRequest, error.body_text()))
    }
}

impl Asked {
    /// The value of a parameter; an empty one says nothing.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All parameters that begin so and end with a bracket, without both.
    pub fn bracketed<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(key, value)| {
            let inner = key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
            Some((inner, value.as_str()))
        })
    }

    /// A whole number of at least `least`.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self, name: &str, default: usize, least: usize) -> Result<usize, Refusal> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse()
            .ok()
            .filter(|number| *number >= least)
            .ok_or_else(|| Refusal::bad(name, format!("{name} is a whole number of at least {least}")))
    }

    /// A length of a page: at most a hundred.
    ///
    /// # Errors
    /// It is no number.
    pub fn limit(&self, name: &str, default: usize) -> Result<usize, Refusal> {
        self.number(name, default, 1).map(|limit| limit.min(super::service::query::LONGEST))
    }

    /// Yes or no.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(Refusal::bad(name, format!("{name} is true or false"))),
        }
    }

    /// Something that has a written form.
    ///
    /// # Errors
    /// It is not written so.
    pub fn parsed<T: FromStr>(&self, name: &str, how: &str) -> Result<Option<T>, Refusal> {
        self.text(name).map(|text| text.parse().map_err(|_| Refusal::bad(name, format!("{name} is {how}")))).transpose()
    }

    /// How long the answer may wait for what was asked for: `wait`, in seconds.
    ///
    /// # Errors
    /// It is no number, or too long.
    pub fn wait(&self) -> Result<Duration, Refusal> {
        let most = limits::LONGEST_WAIT.as_secs();
        let seconds: u64 = self.parsed("wait", "a number of seconds")?.unwrap_or(0);
        if seconds > most {
            return Err(Refusal::bad("wait", format!("wait is at most {most} seconds")));
        }
        Ok(Duration::from_secs(seconds))
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

/// The key that makes a create repeatable.
///
/// # Errors
/// It cannot be read.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=255).contains(&text.len()));
    text.map(|text| Some(text.to_owned()))
        .ok_or_else(|| Refusal::bad("Idempotency-Key", "an Idempotency-Key has 1 to 255 printable characters"))
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

    fn asked(query: &str) -> Asked {
        let uri = format!("/?{query}").parse().unwrap();
        Asked(Query::try_from_uri(&uri).unwrap().0)
    }

    #[test]
    fn queries_are_read_strictly_where_they_are_read() {
        let query = asked("limit=500&offset=-1&retry=yes&wait=99&metadata[team]=a%20b&since=yesterday&x=");
        assert_eq!(query.limit("limit", 20).unwrap(), 100);
        assert_eq!(query.limit("other", 20).unwrap(), 20);
        assert!(query.number("offset", 0, 0).is_err() && query.flag("retry").is_err() && query.wait().is_err());
        assert!(query.parsed::<jiff::Timestamp>("since", "a time").is_err());
        assert_eq!(query.bracketed("metadata").collect::<Vec<_>>(), [("team", "a b")]);
        assert_eq!(query.text("x"), None);
    }
}
