//! The bodies of refusals, as each dialect writes them. Pure.

use serde::Serialize;
use utoipa::ToSchema;

/// The body of a refusal.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Refused {
    /// As OpenAI writes it.
    OpenAi(OpenAi),
    /// As Oxen writes it.
    Oxen(Oxen),
    /// As Strongly writes it.
    Strongly(Strongly),
}

/// Why a request is refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Refusal)]
pub struct OpenAi {
    /// What is wrong.
    pub error: OpenAiError,
}

/// What is wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Error)]
pub struct OpenAiError {
    /// What is wrong, and what helps.
    pub message: String,
    /// What kind of error it is.
    #[serde(rename = "type")]
    pub type_: ErrorType,
    /// The field or parameter at fault, where it is one.
    pub param: Option<String>,
    /// A word for machines, where there is one.
    pub code: Option<String>,
}

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = openai::ErrorType)]
pub enum ErrorType {
    /// The request cannot be fulfilled as it is.
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    /// The key is not good.
    #[serde(rename = "authentication_error")]
    Authentication,
    /// The key may not.
    #[serde(rename = "permission_error")]
    Permission,
    /// Too many requests.
    #[serde(rename = "rate_limit_error")]
    RateLimit,
    /// Nobody's fault who calls.
    #[serde(rename = "server_error")]
    Server,
}

/// Why a request is refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::Refusal)]
pub struct Oxen {
    /// Always `error`.
    pub status: Failure,
    /// What is wrong, and what helps.
    pub status_message: String,
    /// The same for machines.
    pub error: OxenError,
}

/// That the request was not fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = oxen::Failure)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// It was not.
    Error,
}

/// What is wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = oxen::Error)]
pub struct OxenError {
    /// A word for machines.
    #[serde(rename = "type")]
    pub type_: String,
    /// What is wrong, and what helps.
    pub title: String,
    /// The field or parameter at fault, where it is one.
    pub param: Option<String>,
}

/// Why a request is refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::Refusal)]
pub struct Strongly {
    /// What is wrong.
    pub error: StronglyError,
}

/// What is wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = strongly::Error)]
pub struct StronglyError {
    /// A word for machines.
    pub code: String,
    /// What is wrong, and what helps.
    pub message: String,
    /// The field or parameter at fault, where it is one.
    pub field: Option<String>,
}
