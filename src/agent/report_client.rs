//! The way a report takes to the controller: one request over TLS that trusts the controller's own CA
//! alone. When to report, and what, is decided elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use rand::Rng;
use reqwest::{Certificate, Client, StatusCode, redirect};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep};

use crate::agent::causes::with_causes;
use crate::protocol::{Answer, MAX_REPORT_BYTES, REPORT_PATH, Report, env, paths};

/// A report server that takes longer is asked again.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most that is read of an answer: orders to delete as many checkpoints as a report can carry.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// Why a report did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The environment does not say where to report to, or whom to trust.
    #[error("{variable} {problem}: the controller sets it")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The token that proves who we are cannot be read.
    #[error("the report token {path} cannot be read: {source}")]
    Token {
        /// The token's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The report is larger than the server takes.
    #[error("the report has {size} bytes, more than the {MAX_REPORT_BYTES} a server takes")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// The report could not be written as JSON.
    #[error("the report cannot be written as JSON: {0}")]
    Serialize(#[from] serde_json::Error),
    /// The server did not answer, or not as one of ours does.
    #[error("the report server cannot be reached: {0}")]
    Unreachable(String),
    /// The server refused it.
    #[error("the report server answered {status}: {message}")]
    Refused {
        /// The status.
        status: u16,
        /// The beginning of what it said.
        message: String,
    },
}

impl ReportError {
    /// Whether the same report may be taken later. A token is refused for a moment when it is renewed,
    /// so that is tried again too.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Token { .. } => true,
            Self::Refused { status, .. } => matches!(status, 401 | 408 | 425 | 429 | 500..),
            Self::Environment { .. } | Self::TooLarge { .. } | Self::Serialize(_) => false,
        }
    }
}

/// A connection to the report server.
#[derive(Clone, Debug)]
pub struct ReportClient {
    http: Client,
    url: String,
    token: PathBuf,
}

impl ReportClient {
    /// Takes URL and CA from the environment and the token from its mount.
    ///
    /// # Errors
    /// When one of them is missing or cannot be used.
    pub fn from_env() -> Result<Self, ReportError> {
        Self::from_env_with(paths::TOKEN)
    }

    /// Takes URL and CA from the environment, and the token from `token`.
    ///
    /// # Errors
    /// When one of them is missing or cannot be used.
    pub fn from_env_with(token: impl Into<PathBuf>) -> Result<Self, ReportError> {
        let read =
            |variable| std::env::var(variable).map_err(|error| ReportError::Environment { variable, problem: error.to_string() });
        Self::new(&read(env::REPORT_URL)?, &read(env::REPORT_CA)?, token)
    }

    /// Trusts `ca` (PEM) alone, and reads `token` anew for each report, since it is renewed in place.
    ///
    /// # Errors
    /// When the CA cannot be used.
    pub fn new(url: &str, ca: &str, token: impl Into<PathBuf>) -> Result<Self, ReportError> {
        let bad_ca = |problem: String| ReportError::Environment { variable: env::REPORT_CA, problem };
        let roots = Certificate::from_pem_bundle(ca.as_bytes()).map_err(|error| bad_ca(format!("is not PEM ({error})")))?;
        if roots.is_empty() {
            return Err(bad_ca("holds no certificate".to_owned()));
        }
        let http = Client::builder()
            .tls_certs_only(roots)
            .https_only(true)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| bad_ca(format!("cannot be used ({error})")))?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), token: token.into() })
    }

    /// Sends one report, once.
    ///
    /// # Errors
    /// Why it did not arrive; see [`ReportError::is_transient`].
    pub async fn post(&self, report: &Report) -> Result<Answer, ReportError> {
        self.ask(REPORT_PATH, report).await
    }

    /// Posts a question to `path`, once.
    ///
    /// # Errors
    /// Why there is no answer; see [`ReportError::is_transient`].
    pub async fn ask<Q: Serialize + Sync, A: DeserializeOwned>(&self, path: &str, question: &Q) -> Result<A, ReportError> {
        let body = serde_json::to_vec(question)?;
        if body.len() > MAX_REPORT_BYTES {
            return Err(ReportError::TooLarge { size: body.len() });
        }
        let token = tokio::fs::read_to_string(&self.token)
            .await
            .map_err(|source| ReportError::Token { path: self.token.clone(), source })?;
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(token.trim());
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        let unreachable = |error: reqwest::Error| ReportError::Unreachable(with_causes(&error));
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            if answer.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err(ReportError::Unreachable("its answer is too long".to_owned()));
            }
            answer.extend_from_slice(&piece);
        }
        if status != StatusCode::OK {
            let message = String::from_utf8_lossy(&answer).chars().take(300).collect();
            return Err(ReportError::Refused { status: status.as_u16(), message });
        }
        serde_json::from_slice(&answer)
            .map_err(|error| ReportError::Unreachable(format!("its answer is not of this protocol ({error})")))
    }

    /// Sends one report, again and again where that may help, for at most `grace`.
    ///
    /// # Errors
    /// Why it did not arrive the last time.
    pub async fn post_within(&self, report: &Report, grace: Duration) -> Result<Answer, ReportError> {
        let end = Instant::now() + grace;
        let mut pause = Duration::from_secs(1);
        loop {
            let error = match self.post(report).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            if !error.is_transient() || Instant::now() + wait >= end {
                return Err(error);
            }
            tracing::warn!(%error, seconds = wait.as_secs_f32(), "report not delivered, trying again");
            sleep(wait).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests;
