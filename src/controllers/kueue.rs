//! How Kueue is asked: in a version it serves, for a bounded part, and after no answer not again for minutes.

use std::time::Duration;

use kube::Client;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::plan::queue::{JOB_UID, PendingWorkloads, Workloads};

/// Versions of Kueue's APIs that we read, the one we would rather have first.
const VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// As many of those that wait in a queue are looked at.
pub const FIRST: usize = 100;
/// Kueue is given this long to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// An API that did not answer is left alone for this many intervals.
const SILENCE: u32 = 10;

/// A LocalQueue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Kueue, as far as it answers.
pub struct Kueue {
    client: Client,
    interval: Duration,
    visibility: Source,
    workloads: Source,
}

/// One of its APIs.
struct Source {
    group: &'static str,
    version: usize,
    silent_until: Option<Instant>,
}

/// Why there is no answer.
enum Silence {
    /// This version is not served; another may be.
    Version(String),
    /// Kueue does not know what was asked for.
    Object,
    /// Nobody answers.
    Api(String),
}

impl Kueue {
    /// A queue is looked into every `interval`.
    pub const fn new(client: Client, interval: Duration) -> Self {
        Self { client, interval, visibility: Source::of("visibility.kueue.x-k8s.io"), workloads: Source::of("kueue.x-k8s.io") }
    }

    /// Time between two looks into a queue.
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// The first of those that wait in a queue; nothing when Kueue does not say.
    pub async fn pending(&mut self, Queue { namespace, name }: &Queue) -> PendingWorkloads {
        let path = format!("namespaces/{namespace}/localqueues/{name}/pendingworkloads?limit={FIRST}");
        self.visibility.ask(&self.client, &path, self.interval * SILENCE).await.unwrap_or_default()
    }

    /// The Workloads of these Jobs; nothing when Kueue does not say.
    pub async fn workloads(&mut self, namespace: &str, jobs: &[&str]) -> Workloads {
        let jobs = jobs.join(",");
        let path = format!("namespaces/{namespace}/workloads?limit={FIRST}&labelSelector={JOB_UID}%20in%20({jobs})");
        self.workloads.ask(&self.client, &path, self.interval * SILENCE).await.unwrap_or_default()
    }
}

impl Source {
    const fn of(group: &'static str) -> Self {
        Self { group, version: 0, silent_until: None }
    }

    async fn ask<T: DeserializeOwned>(&mut self, client: &Client, path: &str, pause: Duration) -> Option<T> {
        let was_silent = self.silent_until.is_some();
        if self.silent_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let mut cause = String::new();
        for version in (0..VERSIONS.len()).map(|turn| (self.version + turn) % VERSIONS.len()) {
            match get(client, &format!("/apis/{}/{}/{path}", self.group, VERSIONS[version])).await {
                Ok(answer) => {
                    (self.version, self.silent_until) = (version, None);
                    return Some(answer);
                }
                Err(Silence::Object) => return None,
                Err(Silence::Version(error)) => cause = error,
                Err(Silence::Api(error)) => {
                    cause = error;
                    break;
                }
            }
        }
        self.silent_until = Some(Instant::now() + pause);
        if !was_silent {
            let (group, again_in_seconds) = (self.group, pause.as_secs());
            tracing::info!(group, cause, again_in_seconds, "Kueue does not say where runs stand in its queues");
        }
        None
    }
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Silence> {
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| Silence::Api(error.to_string()))?;
    let Ok(answer) = tokio::time::timeout(PATIENCE, client.request(request)).await else {
        return Err(Silence::Api(format!("no answer within {} s", PATIENCE.as_secs())));
    };
    answer.map_err(|error| match &error {
        // A missing object is named in the answer; of a missing API the API server knows no details.
        kube::Error::Api(status) if status.code == 404 && status.details.iter().any(|details| !details.name.is_empty()) => {
            Silence::Object
        }
        kube::Error::Api(status) if status.code == 404 => Silence::Version(error.to_string()),
        _ => Silence::Api(error.to_string()),
    })
}
