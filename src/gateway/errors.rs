//! Why a request is refused, in no dialect yet. Each dialect writes it in its own words of JSON.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kube::core::Status;

use super::identity::Scope;

/// What kind of refusal it is: the status code, and what clients switch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request cannot be understood, or names something that is not there.
    BadRequest,
    /// No token, or none that is good.
    Unauthorized,
    /// The caller may not.
    Forbidden,
    /// Nothing is there.
    NotFound,
    /// Something is there, but not for this method.
    MethodNotAllowed,
    /// Not in this state.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// Understood, and it cannot be done.
    Unprocessable,
    /// Too many requests.
    TooManyRequests,
    /// Our fault.
    Internal,
    /// The cluster does not answer.
    Unavailable,
    /// The cluster does not answer in time.
    TimedOut,
}

impl Kind {
    /// The status code.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The kind that has this status code.
    #[must_use]
    pub const fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            409 => Self::Conflict,
            413 => Self::TooLarge,
            422 => Self::Unprocessable,
            429 => Self::TooManyRequests,
            503 => Self::Unavailable,
            504 => Self::TimedOut,
            500..=599 => Self::Internal,
            _ => Self::BadRequest,
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal it is.
    pub kind: Kind,
    /// What is wrong, and what helps.
    pub message: String,
    /// The field or parameter at fault, as the request names it.
    pub param: Option<String>,
    /// A word for machines.
    pub code: Option<&'static str>,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// A refusal of that kind.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// Something about `param` is wrong.
    #[must_use]
    pub fn bad(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), code: Some("invalid_value"), ..Self::new(Kind::BadRequest, message) }
    }

    /// It cannot be done in this state.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { code: Some("conflict"), ..Self::new(Kind::Conflict, message) }
    }

    /// There is no such fine-tune.
    #[must_use]
    pub fn no_fine_tune(id: &str) -> Self {
        Self {
            param: Some("fine_tune_id".into()),
            code: Some("fine_tune_not_found"),
            ..Self::new(Kind::NotFound, format!("Could not find fine tune: {}", shown(id)))
        }
    }

    /// There is nothing else of that name.
    #[must_use]
    pub fn not_found(what: &str, id: &str) -> Self {
        Self { code: Some("not_found"), ..Self::new(Kind::NotFound, format!("Could not find {what}: {}", shown(id))) }
    }

    /// No token, or none that is good.
    #[must_use]
    pub fn unauthorized(message: &str) -> Self {
        Self { code: Some("invalid_api_key"), ..Self::new(Kind::Unauthorized, message) }
    }

    /// The cluster does not answer.
    #[must_use]
    pub fn unavailable() -> Self {
        Self { retry_after: Some(1), ..Self::new(Kind::Unavailable, "the Kubernetes API server does not answer: try again") }
    }

    /// What a failed request to the API server means to the caller; `scope` is what the request needed, in `project` if it was for one.
    #[must_use]
    pub fn of(error: &kube::Error, scope: Scope, project: Option<&str>) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status, scope, project),
            kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => {
                tracing::warn!(%error, "an answer of the API server cannot be read");
                Self::new(Kind::Internal, "an object of the cluster cannot be read: is the operator older than its kinds?")
            }
            _ => {
                tracing::warn!(error = error as &dyn std::error::Error, "the API server does not answer");
                Self::unavailable()
            }
        }
    }

    fn of_status(status: &Status, scope: Scope, project: Option<&str>) -> Self {
        match status.code {
            401 => Self::unauthorized("the key is not valid, or not valid any more"),
            403 if status.message.contains(" cannot ") => Self::missing(scope, project),
            403 => Self::new(Kind::Forbidden, &status.message),
            404 => Self::new(Kind::NotFound, "there is no such project or object"),
            400 | 422 => {
                Self { param: causes(status).next(), code: Some("invalid_value"), ..Self::new(Kind::BadRequest, &status.message) }
            }
            409 => Self::conflict(&status.message),
            413 => Self::new(Kind::TooLarge, "the object would be too large"),
            429 => Self {
                retry_after: status.details.as_ref().map(|details| u64::from(details.retry_after_seconds)),
                ..Self::new(Kind::TooManyRequests, "the Kubernetes API server is busy: try again")
            },
            _ => Self::unavailable(),
        }
    }

    /// The scope that is missing.
    #[must_use]
    pub fn missing(scope: Scope, project: Option<&str>) -> Self {
        let place = project.map_or_else(String::new, |project| format!(" in project {project:?}"));
        Self {
            code: Some("missing_scope"),
            ..Self::new(Kind::Forbidden, format!("the key lacks the scope {}{place}", scope.name()))
        }
    }
}

fn causes(status: &Status) -> impl Iterator<Item = String> {
    let causes = status.details.iter().flat_map(|details| details.causes.iter());
    causes.map(|cause| cause.field.clone()).filter(|field| !field.is_empty() && field != "<nil>")
}

/// An id as it may be shown: what people send can be long.
fn shown(id: &str) -> String {
    crate::plan::status_text::cut(id, 128)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        if self.kind == Kind::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: serde_json::Value) -> Refusal {
        let status: Status = serde_json::from_value(status).unwrap();
        Refusal::of(&kube::Error::Api(Box::new(status)), Scope::Write, Some("team"))
    }

    #[test]
    fn a_denial_names_the_scope_and_what_admission_says_is_told_as_it_is() {
        let denied = told(
            json!({"code": 403, "reason": "Forbidden", "message": "finetunes.finetune.dev is forbidden: User \"u\" cannot create resource"}),
        );
        assert_eq!((denied.kind, denied.code), (Kind::Forbidden, Some("missing_scope")));
        assert!(denied.message.contains("fine-tuning:write") && denied.message.contains("team"), "{}", denied.message);
        let quota = told(json!({"code": 403, "reason": "Forbidden", "message": "exceeded quota: objects"}));
        assert_eq!((quota.kind, quota.message.as_str()), (Kind::Forbidden, "exceeded quota: objects"));
    }

    #[test]
    fn what_the_schema_refuses_names_its_field() {
        let invalid = told(
            json!({"code": 422, "message": "is invalid", "details": {"causes": [{"field": "spec.suffix", "message": "too long"}]}}),
        );
        assert_eq!((invalid.kind, invalid.param.as_deref()), (Kind::BadRequest, Some("spec.suffix")));
    }

    #[test]
    fn codes_and_kinds_go_both_ways() {
        for kind in [
            Kind::BadRequest,
            Kind::Unauthorized,
            Kind::Forbidden,
            Kind::NotFound,
            Kind::MethodNotAllowed,
            Kind::Conflict,
            Kind::TooLarge,
            Kind::Unprocessable,
            Kind::TooManyRequests,
            Kind::Internal,
            Kind::Unavailable,
            Kind::TimedOut,
        ] {
            assert_eq!(Kind::of(kind.status()), kind);
        }
    }
}
