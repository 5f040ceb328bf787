//! Which API a request speaks, and how that API says no. Pure.

use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::errors::{Kind, Refusal};
use super::refusals::{self, ErrorType, Failure, Refused};

/// Schemas by name.
pub type Schemas = Vec<(String, RefOr<Schema>)>;

/// An API the gateway speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The fine-tuning API of OpenAI.
    OpenAi,
    /// The fine-tuning API of Oxen.
    Oxen,
    /// The fine-tuning API of Strongly.
    Strongly,
    /// Our own: streams of events, and the page that shows them.
    Live,
}

impl Dialect {
    /// The dialect of a path; what belongs to none is answered as OpenAI does.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let begins = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if begins("/api/repos") {
            Self::Oxen
        } else if begins("/api") {
            Self::Strongly
        } else if begins("/live") || begins("/ui") {
            Self::Live
        } else {
            Self::OpenAi
        }
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Oxen => "oxen",
            Self::Strongly => "strongly",
            Self::Live => "live",
        }
    }

    /// The body of a refusal.
    #[must_use]
    pub fn refuse(self, refusal: &Refusal) -> Refused {
        let Refusal { message, param, code, kind, .. } = refusal.clone();
        let word = || code.unwrap_or_else(|| word(kind)).to_owned();
        match self {
            Self::OpenAi => {
                let error = refusals::OpenAiError { message, type_: openai_type(kind), param, code: code.map(str::to_owned) };
                Refused::OpenAi(refusals::OpenAi { error })
            }
            Self::Oxen => {
                let error = refusals::OxenError { type_: word(), title: message.clone(), param };
                Refused::Oxen(refusals::Oxen { status: Failure::Error, status_message: message, error })
            }
            Self::Strongly | Self::Live => {
                Refused::Strongly(refusals::Strongly { error: refusals::StronglyError { code: word(), message, field: param } })
            }
        }
    }

    /// Name of the schema of its refusals, and the schemas that takes.
    #[must_use]
    pub fn refusals(self) -> (String, Schemas) {
        match self {
            Self::OpenAi => named::<refusals::OpenAi>(),
            Self::Oxen => named::<refusals::Oxen>(),
            Self::Strongly | Self::Live => named::<refusals::Strongly>(),
        }
    }
}

fn named<T: ToSchema>() -> (String, Schemas) {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    (T::name().into_owned(), schemas)
}

const fn openai_type(kind: Kind) -> ErrorType {
    match kind {
        Kind::Unauthorized => ErrorType::Authentication,
        Kind::Forbidden => ErrorType::Permission,
        Kind::TooManyRequests => ErrorType::RateLimit,
        Kind::Internal | Kind::Unavailable | Kind::TimedOut => ErrorType::Server,
        _ => ErrorType::InvalidRequest,
    }
}

/// A word for a kind of refusal.
#[must_use]
pub const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::BadRequest => "bad_request",
        Kind::Unauthorized => "unauthorized",
        Kind::Forbidden => "forbidden",
        Kind::NotFound => "not_found",
        Kind::MethodNotAllowed => "method_not_allowed",
        Kind::Conflict => "conflict",
        Kind::TooLarge => "too_large",
        Kind::Unprocessable => "unprocessable",
        Kind::TooManyRequests => "too_many_requests",
        Kind::Internal => "internal_error",
        Kind::Unavailable => "unavailable",
        Kind::TimedOut => "timed_out",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(dialect: Dialect, refusal: &Refusal) -> Value {
        serde_json::to_value(dialect.refuse(refusal)).unwrap()
    }

    #[test]
    fn a_path_tells_its_dialect() {
        for (path, dialect) in [
            ("/v1/fine_tuning/jobs", Dialect::OpenAi),
            ("/fine_tuning/jobs/x", Dialect::OpenAi),
            ("/api/repos/a/b/fine_tunes", Dialect::Oxen),
            ("/api/v1/fine-tuning/jobs", Dialect::Strongly),
            ("/api/reposx", Dialect::Strongly),
            ("/live/v1/runs/events", Dialect::Live),
            ("/ui/app.js", Dialect::Live),
            ("/uix", Dialect::OpenAi),
            ("/nothing", Dialect::OpenAi),
        ] {
            assert_eq!(Dialect::of(path), dialect, "{path}");
        }
    }

    #[test]
    fn each_says_no_in_its_own_words() {
        let refusal = Refusal::no_fine_tune("ftjob-x");
        let openai = json!({"error": {
            "message": "Could not find fine tune: ftjob-x", "type": "invalid_request_error", "param": "fine_tune_id", "code": "fine_tune_not_found",
        }});
        assert_eq!(refused(Dialect::OpenAi, &refusal), openai);
        let oxen = refused(Dialect::Oxen, &refusal);
        assert_eq!((&oxen["status"], &oxen["status_message"]), (&json!("error"), &json!("Could not find fine tune: ftjob-x")));
        assert_eq!(refused(Dialect::Strongly, &refusal)["error"]["code"], "fine_tune_not_found");
    }
}
