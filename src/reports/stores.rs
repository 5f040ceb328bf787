//! What is known without asking: looks things up in the watches, and asks the API server only for a pod they do not show yet.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as corev1;
use kube::api::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client};
use moka::future::Cache;

use super::authentication::PodIdentity;
use super::authorization::{self, Owner, RunSpeaker, Speaker, controller_of};
use super::naming::candidate_names;
use super::recent::Recent;
use super::refusal::Refusal;
use crate::api::{Checkpoint, CheckpointPermission, FineTune, FineTuneHistory, FineTunePhase, GROUP, ModelDeployment};
use crate::protocol::{CheckpointKey, Report};

const SUMMED_UP_FOR: Duration = Duration::from_secs(2);
const POD_MISSING_FOR: Duration = Duration::from_secs(5);

/// Watched objects, handed in by the caller.
#[derive(Clone)]
pub struct Stores {
    /// All FineTunes.
    pub fine_tunes: Store<FineTune>,
    /// All Checkpoints.
    pub checkpoints: Store<Checkpoint>,
    /// Our pods.
    pub pods: Store<corev1::Pod>,
    /// Our Jobs.
    pub jobs: Store<batch::Job>,
    /// All histories, whole.
    pub histories: Store<FineTuneHistory>,
    /// All permissions.
    pub permissions: Store<CheckpointPermission>,
    /// All deployments of ours.
    pub deployments: Store<ModelDeployment>,
    /// Set once every watch has shown all there is. The stores' own `wait_until_ready` has room for one waiter: asking it here would put the
    /// one who waits for it to sleep for ever.
    pub complete: Arc<AtomicBool>,
}

/// The objects a report of a run is about.
pub(super) struct RunFacts {
    pub(super) fine_tune: Arc<FineTune>,
    pub(super) checkpoints: Vec<Arc<Checkpoint>>,
    pub(super) taken: BTreeSet<String>,
    pub(super) history: Option<Arc<FineTuneHistory>>,
}

/// What has to be counted over all objects, and therefore not for each report.
#[derive(Default)]
struct Summary {
    at: Option<Instant>,
    active_runs: usize,
    names: HashMap<String, Vec<String>>,
}

/// Looks things up.
pub(super) struct Lookup {
    client: Client,
    stores: Stores,
    recent: Recent,
    pods: Cache<String, Option<Arc<corev1::Pod>>>,
    summary: Mutex<Summary>,
}

impl Lookup {
    pub(super) fn new(client: Client, stores: Stores, recent: Recent) -> Self {
        let pods = Cache::builder().max_capacity(1000).time_to_live(POD_MISSING_FOR).build();
        Self { client, stores, recent, pods, summary: Mutex::default() }
    }

    /// Whether every watch has shown all there is; before that, what is missing means nothing.
    pub(super) fn is_ready(&self) -> bool {
        self.stores.complete.load(Ordering::Acquire)
    }

    /// For whom the pod speaks.
    pub(super) async fn speaker(&self, identity: &PodIdentity) -> Result<Speaker, Refusal> {
        let pod = self.pod_of(identity).await?;
        let words = "belongs to no Job of a FineTune or Checkpoint";
        let foreign = || Refusal::Forbidden(format!("pod {}/{} {words}", identity.namespace, identity.name));
        let job_owner = controller_of(&pod.metadata, "batch", "Job").ok_or_else(foreign)?;
        let job = self.stores.jobs.get(&ObjectRef::new(&job_owner.name).within(&identity.namespace)).ok_or_else(foreign)?;
        let owner_name = |metadata: &ObjectMeta, kind| controller_of(metadata, GROUP, kind).map(|owner| owner.name.clone());
        if let Some(name) = owner_name(&job.metadata, "FineTune") {
            let fine_tune = self.fine_tune(&identity.namespace, &name).await?;
            return authorization::speaker(identity, &pod, &job, Owner::FineTune(&fine_tune));
        }
        let name = owner_name(&job.metadata, "Checkpoint").ok_or_else(foreign)?;
        let checkpoint = self.checkpoint(&identity.namespace, &name).await?;
        authorization::speaker(identity, &pod, &job, Owner::Checkpoint(&checkpoint))
    }

    /// The pod a token was given to.
    pub(super) async fn pod_of(&self, identity: &PodIdentity) -> Result<Arc<corev1::Pod>, Refusal> {
        let missing = || Refusal::Forbidden(format!("pod {}/{} does not exist", identity.namespace, identity.name));
        self.pod(identity).await?.ok_or_else(missing)
    }

    /// A Deployment of ours.
    pub(super) fn deployment(&self, namespace: &str, name: &str) -> Result<Arc<ModelDeployment>, Refusal> {
        let found = self.stores.deployments.get(&ObjectRef::new(name).within(namespace));
        found.ok_or_else(|| Refusal::Gone(format!("Deployment {namespace}/{name} does not exist")))
    }

    /// The permissions of a namespace.
    pub(super) fn permissions(&self, namespace: &str) -> Vec<Arc<CheckpointPermission>> {
        self.stores.permissions.state_filter(|permission| permission.metadata.namespace.as_deref() == Some(namespace))
    }

    async fn pod(&self, identity: &PodIdentity) -> Result<Option<Arc<corev1::Pod>>, Refusal> {
        let watched = self.stores.pods.get(&ObjectRef::new(&identity.name).within(&identity.namespace));
        if watched.as_ref().is_some_and(|pod| pod.metadata.uid.as_deref() == Some(&identity.uid)) {
            return Ok(watched);
        }
        let api: Api<corev1::Pod> = Api::namespaced(self.client.clone(), &identity.namespace);
        let read = async { Ok::<_, kube::Error>(api.get_opt(&identity.name).await?.map(Arc::new)) };
        self.pods.try_get_with(identity.uid.clone(), read).await.map_err(|error| {
            tracing::warn!(namespace = identity.namespace, pod = identity.name, %error, "a pod cannot be read");
            Refusal::Internal(format!("pod {}/{} could not be read: try again", identity.namespace, identity.name))
        })
    }

    /// A FineTune as it is now.
    pub(super) async fn fine_tune(&self, namespace: &str, name: &str) -> Result<Arc<FineTune>, Refusal> {
        let watched = self.stores.fine_tunes.get(&ObjectRef::new(name).within(namespace));
        let Some(watched) = watched else {
            return Err(Refusal::Gone(format!("FineTune {namespace}/{name} does not exist")));
        };
        let newest = self.recent.fine_tunes.newest(namespace, name, Some(Arc::clone(&watched))).await;
        Ok(newest.filter(|newest| newest.metadata.uid == watched.metadata.uid).unwrap_or(watched))
    }

    /// A Checkpoint as it is now.
    pub(super) async fn checkpoint(&self, namespace: &str, name: &str) -> Result<Arc<Checkpoint>, Refusal> {
        let watched = self.stores.checkpoints.get(&ObjectRef::new(name).within(namespace));
        let newest = self.recent.checkpoints.newest(namespace, name, watched).await;
        newest.ok_or_else(|| Refusal::Gone(format!("Checkpoint {namespace}/{name} does not exist")))
    }

    /// Everything a report of a run is about.
    pub(super) async fn run(&self, namespace: &str, speaker: &RunSpeaker, report: &Report) -> Result<RunFacts, Refusal> {
        let fine_tune = self.fine_tune(namespace, &speaker.fine_tune).await?;
        if fine_tune.metadata.uid.as_deref() != Some(&speaker.uid) {
            return Err(Refusal::Gone(format!(
                "FineTune {namespace}/{} of uid {} does not exist",
                speaker.fine_tune, speaker.uid
            )));
        }
        let mut names: BTreeSet<String> = self.names(&speaker.uid).into_iter().collect();
        for reported in &report.checkpoints {
            let key = CheckpointKey { lineage: reported.lineage.max(1), step: reported.step };
            names.extend(candidate_names(&speaker.fine_tune, &speaker.uid, key));
        }
        let (mut checkpoints, mut taken) = (Vec::new(), BTreeSet::new());
        for name in names {
            let Ok(checkpoint) = self.checkpoint(namespace, &name).await else { continue };
            let is_watched = self.stores.checkpoints.get(&ObjectRef::new(&name).within(namespace)).is_some();
            if checkpoint.spec.fine_tune.as_ref().is_some_and(|run| run.uid == speaker.uid) {
                checkpoints.push(checkpoint);
            } else if is_watched {
                // What is only remembered of another run may be gone by now; should it be there after all, the API server says so.
                taken.insert(name);
            }
        }
        let history = self.history(namespace, speaker).await?;
        Ok(RunFacts { fine_tune, checkpoints, taken, history })
    }

    /// The history of the run. That of an earlier run of the name goes with it, which may take a moment; one that is only remembered is gone.
    async fn history(&self, namespace: &str, speaker: &RunSpeaker) -> Result<Option<Arc<FineTuneHistory>>, Refusal> {
        let watched = self.stores.histories.get(&ObjectRef::new(&speaker.fine_tune).within(namespace));
        let is_watched = watched.is_some();
        let newest = self.recent.histories.newest(namespace, &speaker.fine_tune, watched).await;
        let owners = newest.iter().flat_map(|history| history.metadata.owner_references.iter().flatten());
        let runs: Vec<_> = owners.filter(|owner| owner.kind == "FineTune").map(|owner| owner.uid.as_str()).collect();
        if runs.is_empty() || runs.contains(&speaker.uid.as_str()) {
            return Ok(newest);
        }
        if is_watched {
            let words = format!("the history of an earlier FineTune {namespace}/{} still goes: report again", speaker.fine_tune);
            return Err(Refusal::NotYet(words));
        }
        Ok(None)
    }

    /// Runs that train or are about to.
    pub(super) fn active_runs(&self) -> usize {
        self.summed_up(|summary| summary.active_runs)
    }

    /// Names of the Checkpoints of a run.
    fn names(&self, uid: &str) -> Vec<String> {
        self.summed_up(|summary| summary.names.get(uid).cloned().unwrap_or_default())
    }

    /// Going through all objects takes milliseconds when there are very many, so it is done every other second at most.
    fn summed_up<T>(&self, read: impl FnOnce(&Summary) -> T) -> T {
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        if summary.at.is_none_or(|at| at.elapsed() >= SUMMED_UP_FOR) {
            let mut names: HashMap<String, Vec<String>> = HashMap::new();
            for checkpoint in self.stores.checkpoints.state() {
                if let Some((run, name)) = checkpoint.spec.fine_tune.as_ref().zip(checkpoint.metadata.name.as_ref()) {
                    names.entry(run.uid.clone()).or_default().push(name.clone());
                }
            }
            let active = self.stores.fine_tunes.state().iter().filter(|run| is_active(run)).count();
            *summary = Summary { at: Some(Instant::now()), active_runs: active, names };
        }
        read(&summary)
    }
}

fn is_active(fine_tune: &FineTune) -> bool {
    use FineTunePhase::{Pausing, Preparing, Running, Stopping};
    fine_tune.status.as_ref().is_some_and(|status| matches!(status.phase, Preparing | Running | Pausing | Stopping))
}
