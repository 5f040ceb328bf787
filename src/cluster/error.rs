//! What can go wrong when writing to the cluster, and what kind of trouble it is.

use kube::{Resource, ResourceExt};

/// A write that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused a write, or could not be reached.
    #[error("cannot write {what} {name}")]
    Write {
        /// What was to be done, and the kind of object.
        what: String,
        /// Name of the object.
        name: String,
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The cluster did not answer.
    #[error("the cluster did not answer within {seconds} s")]
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
    /// An object of the name we need is somebody else's.
    #[error("{kind} {name} exists and is not ours: delete or rename it")]
    NameTaken {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
    },
    /// What we made for an earlier object of the same name is still being removed.
    #[error("{kind} {name} of an earlier object of that name is still being removed")]
    Leaving {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
    },
}

/// What kind of trouble an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Our view was old: the object has changed or gone. The next look is newer.
    Conflict,
    /// Goes away by itself.
    Transient,
    /// The namespace is going away: nothing can be created in it.
    NamespaceTerminating,
    /// Somebody has to do something.
    Refused,
}

impl Error {
    /// A failed `what` of `object`.
    pub(crate) fn write<K: Resource<DynamicType = ()>>(what: &str, object: &K, source: kube::Error) -> Self {
        Self::Write { what: format!("{what} {}", K::kind(&())), name: object.name_any(), source: Box::new(source) }
    }

    /// The message, with what the server said.
    #[must_use]
    pub fn with_cause(&self) -> String {
        std::error::Error::source(self).map_or_else(|| self.to_string(), |cause| format!("{self}: {cause}"))
    }

    /// What kind of trouble it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Write { source, .. } => class_of(source),
            Self::TimedOut { .. } | Self::Leaving { .. } => Class::Transient,
            Self::NameTaken { .. } => Class::Refused,
        }
    }

    /// A word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match (self, self.class()) {
            (Self::NameTaken { .. }, _) => "NameTaken",
            (_, Class::Conflict) => "Conflict",
            (_, Class::Transient) => "Unavailable",
            (_, Class::NamespaceTerminating) => "NamespaceTerminating",
            (_, Class::Refused) => "Refused",
        }
    }
}

/// What kind of trouble the client is in.
pub(super) fn class_of(error: &kube::Error) -> Class {
    let kube::Error::Api(status) = error else { return Class::Transient };
    let causes = status.details.iter().flat_map(|details| details.causes.iter());
    match status.code {
        403 if causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating") => Class::NamespaceTerminating,
        404 if status.message.contains("namespaces") => Class::NamespaceTerminating,
        404 | 409 => Class::Conflict,
        400 | 403 | 413 | 415 | 422 => Class::Refused,
        _ => Class::Transient,
    }
}
