//! Who calls: the caller's own token, and what the API server says of it. The gateway has no token and no rights of its own.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::client::Body;
use kube::{Api, Client};
use moka::future::Cache;
use sha2::{Digest, Sha256};

use super::errors::{Kind, Refusal};
use super::service::ids;

/// How long the name behind a token is remembered. Its rights never are: each request to the API server is judged there.
const REMEMBERED: Duration = Duration::from_secs(30);
const MOST_REMEMBERED: u64 = 10_000;
const LONGEST_TOKEN: usize = 16 * 1024;

/// Hash of a token: what stands for a caller wherever something is remembered.
pub type CallerKey = [u8; 32];

/// What a request needs to be allowed, in the words of the API documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `fine-tuning:read`: get, list and watch.
    Read,
    /// `fine-tuning:write`: create, change and delete.
    Write,
}

impl Scope {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "fine-tuning:read",
            Self::Write => "fine-tuning:write",
        }
    }
}

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the user, as the audit log has it.
    pub username: String,
    /// Namespace of the ServiceAccount, when it is one.
    pub namespace: Option<String>,
}

/// A token as it came, not yet known to be good.
#[derive(Clone)]
pub struct Credential {
    bearer: HeaderValue,
    /// Its hash.
    pub key: CallerKey,
}

impl Credential {
    /// The token of a request: `Authorization: Bearer` or `X-API-Key`.
    ///
    /// # Errors
    /// There is none, or two that differ.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let bearer = headers.get(header::AUTHORIZATION).map(|value| value.to_str().ok().and_then(token_of)).transposed()?;
        let key = headers.get("x-api-key").map(|value| value.to_str().ok().map(str::trim)).transposed()?;
        let token = match (bearer, key) {
            (Some(one), Some(other)) if one != other => {
                return Err(Refusal::unauthorized("Authorization and X-API-Key hold different keys: send one of them"));
            }
            (Some(token), _) | (None, Some(token)) => token,
            (None, None) => {
                return Err(Refusal::unauthorized("no key was sent: give one as Authorization: Bearer or as X-API-Key"));
            }
        };
        let is_token = (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| malformed())?;
        bearer.set_sensitive(true);
        if is_token { Ok(Self { bearer, key: Sha256::digest(token.as_bytes()).into() }) } else { Err(malformed()) }
    }

    /// A client that speaks with this token over the connections of `base`.
    pub fn client(&self, base: &Client) -> Client {
        let (base, bearer) = (base.clone(), self.bearer.clone());
        let with_token = move |mut request: Request<Body>| {
            let (base, bearer) = (base.clone(), bearer.clone());
            async move {
                request.headers_mut().insert(header::AUTHORIZATION, bearer);
                let answer: Result<Response<Body>, kube::Error> = base.send(request).await;
                answer
            }
        };
        Client::new(tower::service_fn(with_token), "default")
    }
}

/// A header that is there but unreadable is malformed, not absent.
trait Transposed<'a> {
    fn transposed(self) -> Result<Option<&'a str>, Refusal>;
}

impl<'a> Transposed<'a> for Option<Option<&'a str>> {
    fn transposed(self) -> Result<Option<&'a str>, Refusal> {
        self.map(|value| value.ok_or_else(malformed)).transpose()
    }
}

fn token_of(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn malformed() -> Refusal {
    Refusal::unauthorized("the key cannot be read: send a Kubernetes token as Authorization: Bearer or as X-API-Key")
}

/// Asks the API server who callers are.
#[derive(Clone)]
pub struct Identities {
    base: Client,
    known: Cache<CallerKey, Arc<Identity>>,
}

impl Identities {
    /// Asks over the connections of `base`, which must carry no credential.
    #[must_use]
    pub fn new(base: Client) -> Self {
        Self { base, known: Cache::builder().max_capacity(MOST_REMEMBERED).time_to_live(REMEMBERED).build() }
    }

    /// Whom the token speaks for, and a client that speaks for them.
    ///
    /// # Errors
    /// The API server does not take the token, or does not answer.
    pub async fn identify(&self, credential: &Credential) -> Result<(Arc<Identity>, Client), Refusal> {
        let client = credential.client(&self.base);
        let found = self.known.try_get_with(credential.key, review(client.clone())).await;
        found.map(|identity| (identity, client)).map_err(|refusal| (*refusal).clone())
    }
}

async fn review(client: Client) -> Result<Arc<Identity>, Refusal> {
    let reviews: Api<SelfSubjectReview> = Api::all(client);
    let review = reviews.create(&kube::api::PostParams::default(), &SelfSubjectReview::default()).await;
    let review = review.map_err(|error| match Refusal::of(&error, Scope::Read, None) {
        denied if denied.kind == Kind::Forbidden => Refusal::unauthorized("the key may not ask who it is"),
        refusal => refusal,
    })?;
    let username = review.status.and_then(|status| status.user_info).and_then(|user| user.username).unwrap_or_default();
    if username.is_empty() || username == "system:anonymous" {
        return Err(Refusal::unauthorized("the key is not valid, or not valid any more"));
    }
    let namespace = username.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let namespace = namespace.map(|(namespace, _)| namespace.to_owned());
    Ok(Arc::new(Identity { username, namespace }))
}

/// The project of a request: the one it names, or the namespace of the caller's ServiceAccount.
///
/// # Errors
/// It names none and the caller has none, or what it names cannot be a namespace.
pub fn project(named: Option<&str>, identity: &Identity) -> Result<String, Refusal> {
    match named.or(identity.namespace.as_deref()) {
        Some(name) if ids::is_label(name) => Ok(name.to_owned()),
        Some(_) => Err(Refusal::bad("project", "a project is a namespace: lower-case letters, digits and '-', at most 63")),
        None => Err(Refusal::bad("project", "the key is not a ServiceAccount's: name the project in the header OpenAI-Project")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(headers: &[(&'static str, &str)]) -> Result<Credential, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Credential::of(&map)
    }

    #[test]
    fn either_header_holds_the_key_and_two_must_agree() {
        let bearer = credential(&[("authorization", "bearer abc.def")]).unwrap();
        let key = credential(&[("x-api-key", "abc.def")]).unwrap();
        assert_eq!((bearer.bearer.clone(), bearer.key), (key.bearer, key.key));
        assert!(bearer.bearer.is_sensitive());
        assert!(credential(&[("authorization", "Bearer a"), ("x-api-key", "a")]).is_ok());
        assert!(credential(&[("authorization", "Bearer a"), ("x-api-key", "b")]).is_err());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let long = format!("Bearer {}", "a".repeat(LONGEST_TOKEN + 1));
        for bad in ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer \u{e9}", &long] {
            let refused = credential(&[("authorization", bad)]).map(|_| ()).unwrap_err();
            assert_eq!(refused.kind, Kind::Unauthorized, "{bad}");
            assert!(!refused.message.contains("YTpi"));
        }
        assert!(credential(&[]).is_err());
    }

    #[test]
    fn the_project_is_the_one_named_or_the_accounts_own() {
        let account = Identity { username: "system:serviceaccount:team:bot".into(), namespace: Some("team".into()) };
        let person = Identity { username: "jane".into(), namespace: None };
        assert_eq!(project(None, &account).unwrap(), "team");
        assert_eq!(project(Some("other"), &account).unwrap(), "other");
        assert!(project(None, &person).is_err());
        for bad in ["", "../kube-system", "a/b", "A", "a.b", &"a".repeat(64)] {
            assert_eq!(project(Some(bad), &account).unwrap_err().kind, Kind::BadRequest, "{bad}");
        }
    }
}
