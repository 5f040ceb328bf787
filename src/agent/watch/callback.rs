//! The local endpoint that takes the progress posts every current Hugging Face `Trainer` sends by
//! itself (the wire format of Kubeflow's KEP-2779). Parsing is pure; serving is not.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::lines::{Said, count};

/// Largest body taken.
const MAX_BODY: usize = 64 << 10;
/// Most metrics of a post, and the longest name or value of one.
const MAX_METRICS: usize = 256;
const MAX_TEXT: usize = 64;

/// One progress post.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Post {
    /// How far the trainer says it is. It says 100 whenever its loop ends, also when it was stopped.
    pub percent: Option<u8>,
    /// Steps, epoch, time to go and metrics.
    pub said: Said,
    /// When the trainer said so.
    pub time: Option<Timestamp>,
}

impl Post {
    /// Whether this is the one sent when the training loop has ended, for whatever reason.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.percent == Some(100) && self.said.remaining == Some(0)
    }
}

/// Why a body is no progress post.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPost {
    /// Not JSON of the right form.
    #[error("the body is not a progress post: {0}")]
    Form(String),
    /// A number out of range.
    #[error("trainerStatus.{field} is out of range: {expected}")]
    Range {
        /// The field.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    trainer_status: Wire,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    progress_percentage: Option<i64>,
    estimated_remaining_seconds: Option<i64>,
    #[serde(default)]
    metrics: Vec<Metric>,
    last_updated_time: Option<String>,
}

#[derive(Deserialize)]
struct Metric {
    name: String,
    value: String,
}

/// Reads a post. A metric that cannot be used (not a number, too long) is left out, the rest kept.
///
/// # Errors
/// When the body is not of the agreed form.
pub fn parse(body: &[u8]) -> Result<Post, BadPost> {
    let wire = serde_json::from_slice::<Body>(body).map_err(|error| BadPost::Form(error.to_string()))?.trainer_status;
    let range = |field, expected| BadPost::Range { field, expected };
    let percent = match wire.progress_percentage.map(u8::try_from) {
        None => None,
        Some(Ok(percent)) if percent <= 100 => Some(percent),
        Some(_) => return Err(range("progressPercentage", "0 to 100")),
    };
    if wire.estimated_remaining_seconds.is_some_and(|seconds| seconds < 0) {
        return Err(range("estimatedRemainingSeconds", "0 or more"));
    }
    if wire.metrics.len() > MAX_METRICS {
        return Err(range("metrics", "at most 256 entries"));
    }
    let mut said = Said { remaining: wire.estimated_remaining_seconds, ..Said::default() };
    for Metric { name, value } in &wire.metrics {
        if value.len() <= MAX_TEXT
            && let Ok(number) = value.trim().parse::<f64>()
        {
            take(&mut said, name, number);
        }
    }
    let time = wire.last_updated_time.and_then(|text| text.parse().ok());
    Ok(Post { percent, said, time })
}

fn take(said: &mut Said, name: &str, number: f64) {
    match name {
        "current_step" => said.step = count(number),
        "total_steps" => said.total = count(number).filter(|total| *total > 0),
        "current_epoch" => said.epoch = Some(number).filter(|number| number.is_finite()),
        "num_tokens" | "num_input_tokens_seen" => {
            said.tokens = said.tokens.max(count(number.round()));
            said.take(name, number);
        }
        _ => said.take(name, number),
    }
}

/// The routes: a POST to any path is a post.
pub fn router(posts: mpsc::Sender<Post>) -> Router {
    Router::new().fallback(receive).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(posts)
}

/// Serves the endpoint until the task is dropped.
pub async fn serve(listener: TcpListener, posts: mpsc::Sender<Post>) {
    if let Err(error) = axum::serve(listener, router(posts)).await {
        tracing::warn!(%error, "progress posts are no longer taken");
    }
}

async fn receive(State(posts): State<mpsc::Sender<Post>>, method: Method, body: Bytes) -> Response {
    if method != Method::POST {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "only POST is served");
    }
    match parse(&body) {
        Ok(post) => {
            // A full queue loses a sample of progress, which the next post replaces.
            if posts.try_send(post).is_err() {
                tracing::debug!("a progress post was dropped");
            }
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => refusal(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &error.to_string()),
    }
}

fn refusal(code: StatusCode, reason: &str, message: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    (code, axum::Json(status)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body as HttpBody;
    use axum::http::Request;
    use tower::ServiceExt;

    const REAL: &str = r#"{"trainerStatus":{"lastUpdatedTime":"2026-11-20T16:13:31.867951+00:00",
        "progressPercentage":42,"estimatedRemainingSeconds":7,"metrics":[{"name":"loss","value":"1.25"},
        {"name":"grad_norm","value":"nan"},{"name":"current_step","value":"42"},
        {"name":"total_steps","value":"100"},{"name":"current_epoch","value":"0.42"}]}}"#;

    #[test]
    fn a_real_post_is_read_and_nan_has_no_value() {
        let post = parse(REAL.as_bytes()).unwrap();
        assert_eq!((post.said.step, post.said.total), (Some(42), Some(100)));
        assert_eq!((post.percent, post.said.remaining, post.said.epoch), (Some(42), Some(7), Some(0.42)));
        assert_eq!(post.said.metrics.into_iter().collect::<Vec<_>>(), [("loss".to_owned(), 1.25)]);
        assert!(post.said.non_finite.contains("grad_norm"));
        assert!(post.time.is_some());
    }

    #[test]
    fn the_first_post_carries_only_the_planned_steps() {
        let body = br#"{"trainerStatus":{"progressPercentage":0,"metrics":[{"name":"total_steps","value":"100"}]}}"#;
        let post = parse(body).unwrap();
        assert_eq!((post.said.step, post.said.total), (None, Some(100)));
    }

    #[test]
    fn a_name_that_is_too_long_does_not_cost_the_rest() {
        let body = format!(
            r#"{{"trainerStatus":{{"metrics":[{{"name":"{}","value":"1"}},{{"name":"loss","value":"2"}}]}}}}"#,
            "x".repeat(65)
        );
        assert_eq!(parse(body.as_bytes()).unwrap().said.metrics.len(), 1);
    }

    async fn send(method: &str, body: String) -> (StatusCode, Vec<u8>, Option<Post>) {
        let (sender, mut posts) = mpsc::channel(4);
        let request = Request::builder().method(method).uri("/apis/any/path");
        let request = request.header("content-type", "application/json").body(HttpBody::from(body)).unwrap();
        let answer = router(sender).oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, bytes.to_vec(), posts.try_recv().ok())
    }

    #[tokio::test]
    async fn a_post_is_echoed_and_handed_on() {
        let (status, bytes, post) = send("POST", REAL.to_owned()).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(bytes, REAL.as_bytes());
        assert_eq!(post.unwrap().said.step, Some(42));
    }

    #[tokio::test]
    async fn what_is_no_post_is_refused_as_kubernetes_would() {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"trainerStatus":{"progressPercentage":101}}"#,
            r#"{"trainerStatus":{"estimatedRemainingSeconds":-1}}"#,
            r#"{"trainerStatus":{"metrics":7}}"#,
        ] {
            let (status, bytes, post) = send("POST", body.to_owned()).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
            let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((answer["kind"].as_str(), answer["code"].as_u64()), (Some("Status"), Some(422)));
            assert_eq!(post, None);
        }
        assert_eq!(send("GET", String::new()).await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(send("POST", " ".repeat(MAX_BODY + 1)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
