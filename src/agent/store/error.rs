//! What can go wrong with an object store, said without a credential: what a store answers may quote
//! keys and tokens, so only the code and the sentence of its answer are kept. Pure.

use std::io;
use std::path::{Path, PathBuf};

use crate::agent::causes::with_causes;
use crate::checkpoint_files::cut;

/// Why an object store, or the disk a transfer reads or fills, could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The environment holds no credentials.
    #[error(
        "no credentials for {uri} ({variable} is not set): set secretName to a Secret with the keys \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    NoCredentials {
        /// What was to be opened.
        uri: String,
        /// The variable that is missing.
        variable: String,
    },
    /// The store does not let these credentials do it.
    #[error(
        "access to {uri} is denied ({problem}): check the keys in the Secret that secretName names, and \
         that they may read, write, list and delete there"
    )]
    AccessDenied {
        /// What was asked for.
        uri: String,
        /// The store's answer.
        problem: String,
    },
    /// There is no such bucket.
    #[error("the bucket of {uri} does not exist: create it, or correct the uri or the endpoint")]
    NoBucket {
        /// What was asked for.
        uri: String,
    },
    /// There is nothing to download.
    #[error("nothing under {uri}: upload the files there, or correct the uri")]
    Nothing {
        /// The prefix.
        uri: String,
    },
    /// The uri cannot be used.
    #[error("{uri} is not of the form s3://bucket/prefix: {problem}")]
    BadUri {
        /// The uri.
        uri: String,
        /// What is wrong.
        problem: String,
    },
    /// A key cannot be used.
    #[error("the key {key:?} cannot be used: {problem}")]
    BadKey {
        /// The key.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A whole bucket was to be removed.
    #[error("{uri} is a whole bucket, which is never removed: name a prefix")]
    WholeBucket {
        /// The bucket.
        uri: String,
    },
    /// An object is larger than is read.
    #[error("{uri} has {size} bytes, more than the {limit} that are read")]
    TooLarge {
        /// The object.
        uri: String,
        /// Its size.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A prefix holds more objects than are listed.
    #[error("more than {limit} objects under {uri}: name a narrower prefix")]
    TooMany {
        /// The prefix.
        uri: String,
        /// The most that are listed.
        limit: usize,
    },
    /// What arrived is not what was sent.
    #[error("{uri} has {found} bytes, not {expected}: it changed while it was transferred")]
    SizeDiffers {
        /// The object.
        uri: String,
        /// Bytes that arrived.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// The local disk failed.
    #[error("{path}: {source}")]
    Local {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure; it may pass.
    #[error("{uri} could not be used: {problem}")]
    Failed {
        /// What was asked for.
        uri: String,
        /// What went wrong.
        problem: String,
    },
}

/// Codes by which a store refuses credentials, whatever the status beside them.
const DENIED: [&str; 8] = [
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
];

impl StoreError {
    /// Classifies what the client library says.
    #[must_use]
    pub fn of(uri: &str, error: &object_store::Error) -> Self {
        let text = with_causes(error);
        let code = element(&text, "Code").unwrap_or_default();
        let uri = uri.to_owned();
        let refused = ["status code: 401", "status code: 403"].iter().any(|it| text.contains(it)) || DENIED.contains(&code);
        match error {
            _ if code == "NoSuchBucket" => Self::NoBucket { uri },
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Self::AccessDenied { uri, problem: harmless(&text) }
            }
            _ if refused => Self::AccessDenied { uri, problem: harmless(&text) },
            _ => Self::Failed { uri, problem: harmless(&text) },
        }
    }

    /// A failure of the local disk.
    #[must_use]
    pub fn local(path: &Path, source: io::Error) -> Self {
        Self::Local { path: path.to_owned(), source }
    }

    /// Whether the local disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Local { source, .. } if is_full(source))
    }

    /// Whether only a person can mend it, so that trying again is of no use.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Failed { .. } | Self::SizeDiffers { .. } | Self::Local { .. }) || self.is_full()
    }
}

/// Whether a disk, or a quota on it, is full.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The text of an XML element.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// What may be shown of an error: code and sentence of an answer, or the text where there was none.
fn harmless(text: &str) -> String {
    const MOST: usize = 300;
    let shown = match (element(text, "Code"), element(text, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        // An answer that cannot be read is left out whole.
        (None, _) => text.split('<').next().unwrap_or_default().to_owned(),
    };
    let plain: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let plain = plain.trim().trim_end_matches([':', '-', ' ']);
    cut(plain, MOST).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn a_refusal_is_known_by_code_or_status_and_never_quotes_what_was_sent() {
        let expired = failed(
            "Server returned non-2xx status code: 400 Bad Request: <Error><Code>ExpiredToken</Code>\
             <Message>The provided token has expired.</Message><Token-0>SECRETTOKEN</Token-0></Error>",
        );
        let error = StoreError::of("s3://b/p", &expired);
        assert!(matches!(error, StoreError::AccessDenied { .. }), "{error}");
        assert!(error.to_string().contains("secretName"), "{error}");
        assert!(!error.to_string().contains("SECRETTOKEN"), "{error}");
        let listed = failed("list: Server returned non-2xx status code: 403 Forbidden: ");
        assert!(matches!(StoreError::of("s3://b/p", &listed), StoreError::AccessDenied { .. }));
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_left_out() {
        let error = StoreError::of("s3://b/p", &failed("status code: 500: <html>KEY=abc</html>"));
        assert_eq!(error.to_string(), "s3://b/p could not be used: Generic S3 error: status code: 500");
        assert!(!error.is_final());
    }

    #[test]
    fn a_missing_bucket_and_a_full_disk_are_told_apart() {
        let missing = failed("404: <Error><Code>NoSuchBucket</Code><Message>no</Message></Error>");
        assert!(matches!(StoreError::of("s3://b/p", &missing), StoreError::NoBucket { .. }));
        let full = StoreError::local(Path::new("/x"), io::ErrorKind::StorageFull.into());
        assert!(full.is_full() && full.is_final());
        assert!(!StoreError::local(Path::new("/x"), io::ErrorKind::Other.into()).is_final());
    }
}
