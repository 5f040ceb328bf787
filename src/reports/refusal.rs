//! Why a report is refused, and how that is said over HTTP: always a `metav1.Status`. Pure.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kube::core::response::{Status, StatusCause, StatusDetails};

use crate::protocol::{AUDIENCE, MAX_REPORT_BYTES};

/// Why a report is refused.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request carries no bearer token.
    #[error("no bearer token: send `Authorization: Bearer` with a token of audience {AUDIENCE}")]
    NoToken,
    /// The API server does not vouch for the token.
    #[error("the token is not valid for audience {AUDIENCE}")]
    InvalidToken,
    /// The token is good, its bearer is not one that may report this.
    #[error("{0}")]
    Forbidden(String),
    /// What the report is about does not exist, or no longer.
    #[error("{0}")]
    Gone(String),
    /// The body is too long.
    #[error("a report holds at most {MAX_REPORT_BYTES} bytes")]
    TooLarge,
    /// The body did not arrive in time.
    #[error("the report did not arrive in time")]
    TooSlow,
    /// A field is out of bounds.
    #[error("{field}: {message}")]
    Invalid {
        /// JSON path of the field.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// Too many requests, of this pod or altogether.
    #[error("too many requests: try again in {0} s")]
    TooMany(u32),
    /// The controller has not got that far yet.
    #[error("{0}")]
    NotYet(String),
    /// The API server failed; nothing is lost, since the next report carries everything again.
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    /// A field out of bounds.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    /// HTTP status code.
    #[must_use]
    pub(crate) const fn code(&self) -> u16 {
        match self {
            Self::NoToken | Self::InvalidToken => 401,
            Self::Forbidden(_) => 403,
            Self::Gone(_) => 404,
            Self::TooSlow => 408,
            Self::TooLarge => 413,
            Self::Invalid { .. } => 422,
            Self::TooMany(_) => 429,
            Self::NotYet(_) => 503,
            Self::Internal(_) => 500,
        }
    }

    /// The refusal in one word: the `reason` of the Status, and the label of the metric.
    #[must_use]
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::NoToken | Self::InvalidToken => "Unauthorized",
            Self::Forbidden(_) => "Forbidden",
            Self::Gone(_) => "NotFound",
            Self::TooSlow => "Timeout",
            Self::TooLarge => "RequestEntityTooLarge",
            Self::Invalid { .. } => "Invalid",
            Self::TooMany(_) => "TooManyRequests",
            Self::NotYet(_) => "ServiceUnavailable",
            Self::Internal(_) => "InternalError",
        }
    }

    /// Seconds after which another try makes sense.
    #[must_use]
    pub(crate) const fn retry_after(&self) -> Option<u32> {
        match self {
            Self::TooMany(seconds) => Some(*seconds),
            Self::NotYet(_) => Some(5),
            _ => None,
        }
    }

    /// The refusal as the API server would say it.
    #[must_use]
    pub(crate) fn status(&self) -> Status {
        let mut details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: self.retry_after().unwrap_or_default(),
        };
        if let Self::Invalid { field, message } = self {
            details.causes.push(StatusCause {
                reason: "FieldValueInvalid".into(),
                message: message.clone(),
                field: field.clone(),
            });
        }
        let status = Status::failure(&self.to_string(), self.reason()).with_code(self.code());
        if details.causes.is_empty() && details.retry_after_seconds == 0 { status } else { status.with_details(details) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}});
        let body = match (body, serde_json::to_value(self.status())) {
            (serde_json::Value::Object(mut envelope), Ok(serde_json::Value::Object(status))) => {
                envelope.extend(status);
                serde_json::Value::Object(envelope)
            }
            (envelope, _) => envelope,
        };
        let mut response = (code, Json(body)).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_field_is_named_in_the_status() {
        let status = Refusal::invalid("progress.step", "must be at least 0").status();
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        assert_eq!(status.message, "progress.step: must be at least 0");
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        assert_eq!(causes.first().map(|cause| cause.field.as_str()), Some("progress.step"));
    }

    #[test]
    fn too_many_says_when_to_come_back() {
        let response = Refusal::TooMany(3).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()), Some("3"));
    }
}
