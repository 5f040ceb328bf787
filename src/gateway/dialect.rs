//! Which API a request speaks, and how that API says no. Pure.

use serde_json::{Value, json};

use super::errors::{Kind, Refusal};

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
    pub fn refuse(self, refusal: &Refusal) -> Value {
        let Refusal { message, param, code, .. } = refusal;
        match self {
            Self::OpenAi => {
                json!({"error": {"message": message, "type": openai_type(refusal.kind), "param": param, "code": code}})
            }
            Self::Oxen => {
                let error = json!({"type": code.unwrap_or(word(refusal.kind)), "title": message, "param": param});
                json!({"status": "error", "status_message": message, "error": error})
            }
            Self::Strongly | Self::Live => {
                json!({"error": {"code": code.unwrap_or(word(refusal.kind)), "message": message, "field": param}})
            }
        }
    }
}

const fn openai_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Unauthorized => "authentication_error",
        Kind::Forbidden => "permission_error",
        Kind::TooManyRequests => "rate_limit_error",
        Kind::Internal | Kind::Unavailable | Kind::TimedOut => "server_error",
        _ => "invalid_request_error",
    }
}

const fn word(kind: Kind) -> &'static str {
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
    use super::*;

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
        assert_eq!(Dialect::OpenAi.refuse(&refusal), openai);
        let oxen = Dialect::Oxen.refuse(&refusal);
        assert_eq!((&oxen["status"], &oxen["status_message"]), (&json!("error"), &json!("Could not find fine tune: ftjob-x")));
        assert_eq!(Dialect::Strongly.refuse(&refusal)["error"]["code"], "fine_tune_not_found");
    }
}
