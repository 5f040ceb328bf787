//! Who speaks: asks the API server about the bearer token, at most once every few minutes for each.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use moka::Expiry;
use moka::future::Cache;
use sha2::{Digest, Sha256};

use super::limits::{Bucket, REVIEW_RATE, whole_seconds};
use super::metrics::ReportMetrics;
use super::refusal::Refusal;
use crate::protocol::AUDIENCE;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const MAX_TOKENS: u64 = 20_000;
const MAX_TOKEN_BYTES: usize = 16 * 1024;
const ACCEPTED_FOR: Duration = Duration::from_mins(5);
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// The pod a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodIdentity {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod.
    pub uid: String,
}

/// The pod the API server says the token belongs to. Pure.
///
/// # Errors
/// The token is not valid for our audience, or is not bound to a pod.
pub(crate) fn identity(status: &TokenReviewStatus) -> Result<PodIdentity, Refusal> {
    let audience = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
    if status.authenticated != Some(true) || !audience {
        return Err(Refusal::InvalidToken);
    }
    let user = status.user.as_ref().ok_or(Refusal::InvalidToken)?;
    let extra = |key| user.extra.as_ref()?.get(key)?.first().filter(|value| !value.is_empty()).cloned();
    let namespace = user
        .username
        .as_deref()
        .and_then(|name| name.strip_prefix("system:serviceaccount:"))
        .and_then(|rest| rest.split_once(':'))
        .map(|(namespace, _)| namespace)
        .filter(|namespace| !namespace.is_empty());
    match (namespace, extra(POD_NAME), extra(POD_UID)) {
        (Some(namespace), Some(name), Some(uid)) => Ok(PodIdentity { namespace: namespace.into(), name, uid }),
        _ => Err(Refusal::Forbidden("only pods report: use a projected ServiceAccount token that is bound to its pod".into())),
    }
}

/// When a token ends, as it says itself; only to be asked of tokens the API server has vouched for. Pure.
#[must_use]
pub(crate) fn expiry(token: &str) -> Option<Timestamp> {
    let mut payload = token.split('.').nth(1)?.replace('-', "+").replace('_', "/");
    while payload.len() % 4 != 0 {
        payload.push('=');
    }
    let ByteString(bytes) = serde_json::from_value(serde_json::Value::String(payload)).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    Timestamp::from_second(claims.get("exp")?.as_i64()?).ok()
}

#[derive(Clone, Debug)]
struct Verdict {
    said: Result<PodIdentity, Refusal>,
    good_for: Duration,
}

fn verdict(token: &str, status: &TokenReviewStatus, now: Timestamp) -> Verdict {
    let said = identity(status);
    if said.is_err() {
        return Verdict { said, good_for: REFUSED_FOR };
    }
    let left = expiry(token).map_or(ACCEPTED_FOR, |end| Duration::try_from(end.duration_since(now)).unwrap_or_default());
    Verdict { said, good_for: left.min(ACCEPTED_FOR) }
}

struct AsLongAsItIsGood;

impl Expiry<[u8; 32], Verdict> for AsLongAsItIsGood {
    fn expire_after_create(&self, _: &[u8; 32], verdict: &Verdict, _: Instant) -> Option<Duration> {
        Some(verdict.good_for)
    }
}

/// Asks the API server about tokens and remembers the answers by the SHA-256 of the token.
pub(crate) struct Authenticator {
    reviews: Api<TokenReview>,
    verdicts: Cache<[u8; 32], Verdict>,
    bucket: Mutex<Bucket>,
    metrics: ReportMetrics,
}

impl Authenticator {
    /// Asks with `client`.
    #[must_use]
    pub(crate) fn new(client: Client, metrics: ReportMetrics) -> Self {
        Self {
            reviews: Api::all(client),
            verdicts: Cache::builder().max_capacity(MAX_TOKENS).expire_after(AsLongAsItIsGood).build(),
            bucket: Mutex::new(Bucket::full(REVIEW_RATE, Instant::now())),
            metrics,
        }
    }

    /// The pod the token belongs to.
    ///
    /// # Errors
    /// The token is refused, there are too many new ones, or the API server does not answer.
    pub(crate) async fn authenticate(&self, token: &str) -> Result<PodIdentity, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::InvalidToken);
        }
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        match self.verdicts.try_get_with(key, self.review(token)).await {
            Ok(verdict) => verdict.said,
            Err(refusal) => Err(Refusal::clone(&refusal)),
        }
    }

    async fn review(&self, token: &str) -> Result<Verdict, Refusal> {
        self.bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(REVIEW_RATE, Instant::now())
            .map_err(|wait| Refusal::TooMany(whole_seconds(wait)))?;
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![AUDIENCE.into()]), token: Some(token.into()) },
            ..TokenReview::default()
        };
        self.metrics.count_review();
        let answer = self.reviews.create(&PostParams::default(), &review).await.map_err(|error| {
            tracing::warn!(%error, "the API server does not review tokens");
            Refusal::Internal("the token could not be checked: try again".into())
        })?;
        Ok(verdict(token, &answer.status.unwrap_or_default(), Timestamp::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use k8s_openapi::api::authentication::v1::UserInfo;

    fn status(username: &str, extra: &[(&str, &str)]) -> TokenReviewStatus {
        let extra: BTreeMap<_, _> = extra.iter().map(|(key, value)| ((*key).into(), vec![(*value).into()])).collect();
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![AUDIENCE.into()]),
            error: None,
            user: Some(UserInfo { username: Some(username.into()), extra: Some(extra), ..UserInfo::default() }),
        }
    }

    #[test]
    fn a_pod_bound_token_names_its_pod() {
        let status = status("system:serviceaccount:team:default", &[(POD_NAME, "run-1-0"), (POD_UID, "u1")]);
        let pod = PodIdentity { namespace: "team".into(), name: "run-1-0".into(), uid: "u1".into() };
        assert_eq!(identity(&status), Ok(pod));
    }

    #[test]
    fn anything_but_a_pod_is_forbidden() {
        let both: &[(&str, &str)] = &[(POD_NAME, "p"), (POD_UID, "u")];
        for (username, extra) in [
            ("system:serviceaccount:team:default", &[][..]),
            ("system:serviceaccount:team:default", &both[..1]),
            ("system:serviceaccount:team:default", &both[1..]),
            ("system:serviceaccount::default", both),
            ("system:serviceaccount:team", both),
            ("jane", both),
        ] {
            assert_eq!(identity(&status(username, extra)).map_err(|refusal| refusal.code()), Err(403), "{username} {extra:?}");
        }
    }

    #[test]
    fn a_token_of_another_audience_or_none_is_not_valid() {
        let good = status("system:serviceaccount:team:default", &[(POD_NAME, "p"), (POD_UID, "u")]);
        let other = TokenReviewStatus { audiences: Some(vec!["https://kubernetes".into()]), ..good.clone() };
        let unaware = TokenReviewStatus { audiences: None, ..good.clone() };
        let refused = TokenReviewStatus { authenticated: Some(false), ..good };
        for status in [other, unaware, refused, TokenReviewStatus::default()] {
            assert_eq!(identity(&status), Err(Refusal::InvalidToken));
        }
    }

    #[test]
    fn a_verdict_ends_with_the_token_and_after_five_minutes_at_the_latest() {
        // {"exp":1000}
        let token = "e30.eyJleHAiOjEwMDB9.sig";
        assert_eq!(expiry(token), Timestamp::from_second(1000).ok());
        assert_eq!(expiry("opaque"), None);
        let good = status("system:serviceaccount:team:default", &[(POD_NAME, "p"), (POD_UID, "u")]);
        let at = |second| Timestamp::from_second(second).expect("a time");
        assert_eq!(verdict(token, &good, at(990)).good_for, Duration::from_secs(10));
        assert_eq!(verdict(token, &good, at(0)).good_for, ACCEPTED_FOR);
        assert_eq!(verdict(token, &good, at(2000)).good_for, Duration::ZERO);
        assert_eq!(verdict(token, &TokenReviewStatus::default(), at(0)).good_for, REFUSED_FOR);
    }
}
