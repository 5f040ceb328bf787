//! Around every request: its id, its bounds, its line in the log, and refusals in the words of its dialect.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::body::to_bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Json, http::Method};
use futures::FutureExt;

use super::app::Gateway;
use super::dialect::Dialect;
use super::errors::{Kind, Refusal};
use super::extract::Named;
use super::limits;
use crate::plan::status_text::cut;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest text of a refusal that is not ours, in bytes.
const FOREIGN_TEXT: usize = 4096;

/// Answers a request within its bounds, and says so.
pub async fn observe(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    let (begin, running) = (Instant::now(), gateway.metrics.begin());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (dialect, id, named) = (Dialect::of(&path), request_id(request.headers()), Named::default());
    let route = request.extensions().get::<MatchedPath>().map(|matched| matched.as_str().to_owned());
    request.extensions_mut().insert(named.clone());
    let answer = bounded(&gateway, request, next).await;
    let mut answer = in_words_of(dialect, answer).await;
    finish(answer.headers_mut(), &id);
    let code = answer.status().as_u16();
    gateway.metrics.answered(dialect, route.as_deref(), (&method, code), begin.elapsed());
    log(&id, (&method, &path), (code, begin), (dialect, &named));
    drop(running);
    answer
}

/// The answer within time, of one of a bounded number of requests; a panic is our fault and nobody else's.
async fn bounded(gateway: &Gateway, request: Request, next: Next) -> Response {
    let Ok(_permit) = gateway.running.try_acquire() else {
        let busy = Refusal { retry_after: Some(1), ..Refusal::new(Kind::Unavailable, "too many requests at once: try again") };
        return busy.into_response();
    };
    let completes = request.uri().path().ends_with("/completions");
    let patience = if completes { limits::COMPLETION_TIMEOUT } else { limits::REQUEST_TIMEOUT };
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            Refusal::new(Kind::Internal, "something went wrong here; the request id finds it in our log").into_response()
        }
        Err(_) => Refusal::new(Kind::TimedOut, "the answer takes too long: try again").into_response(),
    }
}

/// A refusal as its dialect writes it. What the router itself refuses is treated alike.
async fn in_words_of(dialect: Dialect, answer: Response) -> Response {
    if !answer.status().is_client_error() && !answer.status().is_server_error() {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    if parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json") {
        return Response::from_parts(parts, body);
    }
    let refusal = if let Some(refusal) = parts.extensions.remove::<Refusal>() {
        refusal
    } else {
        let said = to_bytes(body, FOREIGN_TEXT).await.unwrap_or_default();
        of_router(Kind::of(parts.status), String::from_utf8_lossy(&said).into_owned())
    };
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    let mut answer = (parts.status, Json(dialect.refuse(&refusal))).into_response();
    answer.headers_mut().extend(parts.headers);
    answer
}

/// What the router says no to.
fn of_router(kind: Kind, said: String) -> Refusal {
    let code = (kind == Kind::NotFound).then_some("unknown_url");
    Refusal { code, ..Refusal::new(kind, if said.is_empty() { told(kind).to_owned() } else { said }) }
}

const fn told(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "there is no such URL",
        Kind::MethodNotAllowed => "the URL does not take this method",
        _ => "the request cannot be understood",
    }
}

/// The id a request came with, where it is harmless, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let harmless =
        |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(harmless);
    given.map_or_else(|| format!("req_{}", uuid::Uuid::new_v4().simple()), str::to_owned)
}

fn finish(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// One line a request: no header, no query, no body ever gets into it.
fn log(id: &str, (method, path): (&Method, &str), (code, begin): (u16, Instant), (dialect, named): (Dialect, &Named)) {
    let user = named.0.get().map_or("-", String::as_str);
    let milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let path = cut(path, 256);
    tracing::info!(request = id, user, dialect = dialect.name(), %method, path, code, milliseconds, "answered");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_only_where_it_is_harmless() {
        let with = |id: &str| HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap())]);
        assert_eq!(request_id(&with("abc-1.2_3")), "abc-1.2_3");
        for bad in ["", "a b", "a\"b", "\u{e9}", &"a".repeat(65)] {
            assert!(request_id(&with(bad)).starts_with("req_"), "{bad}");
        }
    }
}
