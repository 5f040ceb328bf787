//! Decisions, and nothing else: data in, data out. No client, no clock, no async.

pub mod checkpoint;
pub mod condition;
pub mod cost;
pub mod deployment;
pub mod estimate;
mod exporter;
pub mod fine_tune;
#[cfg(test)]
mod fixtures;
pub mod names;
pub mod parameters;
pub mod queue;
pub mod ranking;
pub mod retention;
pub mod status_text;

use std::time::Duration;

use k8s_openapi::{
    api::{apps::v1 as apps, batch::v1 as batch, core::v1 as corev1, policy::v1 as policy},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::api::{CheckpointPermission, HttpRoute, ModelDeployment, ServingType};

/// What is to be done about one object: writes, its new status, what to tell people, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<S> {
    /// Writes to other objects and to finalizers, in order.
    pub changes: Vec<Change>,
    /// The status the object is to have; `None` leaves it alone.
    pub status: Option<S>,
    /// What to tell people, once the writes are done.
    pub notices: Vec<Notice>,
    /// When to look again.
    pub next: Next,
}

/// Beside a run: the Deployment it makes by itself.
pub const DEPLOYMENT: &str = "Deployment";
/// Beside a run: the permission of one that is Public.
pub const PERMISSION: &str = "CheckpointPermission";
/// Beside a Deployment of ours that cannot get what is new: the number of its pods.
pub const REPLICAS: &str = "replicas";
/// All there is beside objects.
pub const ASIDE: [&str; 3] = [DEPLOYMENT, PERMISSION, REPLICAS];

impl Change {
    /// What it is about, when the object itself gets on without it: a server that refuses it must keep neither the other writes nor the status
    /// from being made.
    #[must_use]
    pub const fn aside(&self) -> Option<&'static str> {
        match self {
            Self::Redeploy(_) | Self::CreateOnce(Child::Served(_)) => Some(DEPLOYMENT),
            Self::CreateOnce(Child::Permission(_)) => Some(PERMISSION),
            Self::Scale { .. } => Some(REPLICAS),
            _ => None,
        }
    }
}

impl<S> Plan<S> {
    /// Nothing to do until something changes.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { changes: Vec::new(), status: None, notices: Vec::new(), next: Next::OnChange }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Put our finalizer on the object itself.
    AddFinalizer(&'static str),
    /// Take our finalizer off the object itself.
    RemoveFinalizer(&'static str),
    /// Create a child; one of that name that is ours already is fine.
    CreateOnce(Child),
    /// Make a child that is to follow what is wanted of it, or bring it up to date.
    Apply {
        /// The child as it is to be.
        child: Child,
        /// The one that is there; none is there when absent, and one of that name that comes between is left alone.
        known: Option<Known>,
    },
    /// Let there be so many pods of a workload, which stays as it is in all else.
    Scale {
        /// Its name.
        name: String,
        /// The one that is there.
        known: Known,
        /// How many pods.
        replicas: i32,
    },
    /// Let the Deployment of ours that a run made serve something else.
    Redeploy(Redeployment),
    /// Delete a child of exactly this uid.
    Delete(ChildReference),
    /// Set the `best` mark of a Checkpoint.
    MarkBest {
        /// Name of the Checkpoint.
        name: String,
        /// Uid of the Checkpoint.
        uid: String,
        /// Whether it is the best.
        best: bool,
    },
    /// Take our finalizer off a Checkpoint whose files are gone.
    ReleaseCheckpoint {
        /// Name of the Checkpoint.
        name: String,
        /// Uid of the Checkpoint.
        uid: String,
        /// All finalizers it has now.
        finalizers: Vec<String>,
    },
}

/// An object as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its uid.
    pub uid: String,
    /// Its version.
    pub version: String,
}

impl Known {
    /// The object of that metadata.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self { uid: metadata.uid.clone().unwrap_or_default(), version: metadata.resource_version.clone().unwrap_or_default() }
    }
}

/// The kinds we make.
#[derive(Clone, Debug, PartialEq)]
pub enum Child {
    /// A Job.
    Job(Box<batch::Job>),
    /// A claim made from a template.
    Claim(Box<corev1::PersistentVolumeClaim>),
    /// The pods that serve a model, or the one that hands a checkpoint out.
    Workload(Box<apps::Deployment>),
    /// The permission of a run that is Public.
    Permission(Box<CheckpointPermission>),
    /// A Service: by its name the nodes of a run find each other, or people a served model.
    Service(Box<corev1::Service>),
    /// How many pods that serve a model may be drained from their nodes at once.
    Budget(Box<policy::PodDisruptionBudget>),
    /// The way from the installation's Gateway to a served model.
    Route(Box<HttpRoute>),
    /// A Deployment of ours, made by a run.
    Served(Box<ModelDeployment>),
}

/// What a Deployment of ours that a run made is to serve from now on. What it does not name stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeployment {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The version this was decided from: one that was edited since is left alone.
    pub version: String,
    /// The note the run leaves on it.
    pub note: String,
    /// Name of the Checkpoint.
    pub checkpoint: String,
    /// How it is served.
    pub type_: ServingType,
    /// How often; as it is when absent.
    pub replicas: Option<i32>,
}

/// Names a child to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildReference {
    /// Its kind.
    pub kind: ChildKind,
    /// Its name.
    pub name: String,
    /// Its uid: a later one of the same name is left alone.
    pub uid: String,
}

impl ChildReference {
    /// Names the object of that metadata.
    #[must_use]
    pub fn of(kind: ChildKind, metadata: &ObjectMeta) -> Self {
        Self { kind, name: metadata.name.clone().unwrap_or_default(), uid: metadata.uid.clone().unwrap_or_default() }
    }
}

/// The kinds we delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildKind {
    /// A Job, with its pods first.
    Job,
    /// A claim.
    Claim,
    /// A Checkpoint; its own finalizer removes the bytes.
    Checkpoint,
    /// A Deployment of ours, with its pods first.
    Served,
    /// What keeps serving pods from being drained all at once.
    Budget,
    /// A permission.
    Permission,
    /// The pods that serve a model, or the one that hands a checkpoint out.
    Workload,
    /// A Service.
    Service,
    /// A way from the Gateway.
    Route,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something watched changes.
    OnChange,
    /// After this long, at the latest.
    After(Duration),
}

impl Next {
    /// Whichever of the two comes first.
    #[must_use]
    pub fn or_sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::After(one), Self::After(another)) => Self::After(one.min(another)),
            (Self::OnChange, next) | (next, Self::OnChange) => next,
        }
    }
}

/// A sentence for people; becomes an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether something is wrong.
    pub warning: bool,
    /// Reason in CamelCase.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

/// Why a run cannot begin, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason in CamelCase.
    pub reason: &'static str,
    /// Field of the spec, as a path.
    pub field: String,
    /// What is wrong and what helps.
    pub message: String,
    /// Whether it mends itself when something else appears (a reference), or only by an edit.
    pub waits: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}
