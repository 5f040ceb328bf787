//! The watches every replica keeps: one a kind, feeding the stores that plans and the report server read, and waking reconcilers.

mod serving;
mod sharing;

pub use serving::{Serving, owned_by};

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};
use kube::{
    Client, Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store, store},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    follow::{Driver, Follow},
    index::Indexed,
    namespaces::Namespaces,
    queues::Queues,
};
use crate::api::{
    BaseModel, Checkpoint, CheckpointPhase, Dataset, FineTune, FineTuneHistory, FineTunePhase, HardwareProfile, ModelDeployment,
    TrainingRuntime, names,
};
use crate::plan::queue;

/// Everything watched, as stores that are always current.
pub struct World {
    /// All FineTunes.
    pub fine_tunes: Store<FineTune>,
    /// All Checkpoints, by uid of their run.
    pub checkpoints: Indexed<Checkpoint>,
    /// Our Jobs, by uid of the run or Checkpoint they work for.
    pub jobs: Indexed<batch::Job>,
    /// Our pods, by uid of the run or Checkpoint they work for.
    pub pods: Indexed<corev1::Pod>,
    /// All claims.
    pub claims: Store<corev1::PersistentVolumeClaim>,
    /// All base models.
    pub base_models: Store<BaseModel>,
    /// All datasets.
    pub datasets: Store<Dataset>,
    /// All runtimes.
    pub runtimes: Store<TrainingRuntime>,
    /// All hardware profiles.
    pub hardware: Store<HardwareProfile>,
    /// All histories.
    pub histories: Store<FineTuneHistory>,
    /// All deployments.
    pub deployments: Store<ModelDeployment>,
    /// What serves models.
    pub serving: Serving,
    /// What Kueue says of runs that wait.
    pub queues: Arc<Queues>,
    ready: Arc<AtomicBool>,
    fine_tune_wakes: UnboundedSender<ObjectRef<FineTune>>,
    checkpoint_wakes: UnboundedSender<ObjectRef<Checkpoint>>,
    deployment_wakes: UnboundedSender<ObjectRef<ModelDeployment>>,
}

/// What wakes the reconcilers. The channels are unbounded because the reconcilers' schedulers drain them at once and hold each name once.
pub struct Wakes {
    /// FineTunes to look at.
    pub fine_tunes: UnboundedReceiver<ObjectRef<FineTune>>,
    /// Checkpoints to look at.
    pub checkpoints: UnboundedReceiver<ObjectRef<Checkpoint>>,
    /// Deployments of ours to look at.
    pub deployments: UnboundedReceiver<ObjectRef<ModelDeployment>>,
}

impl World {
    /// The stores, what wakes the reconcilers, and the future that keeps both going.
    #[must_use]
    pub fn watch(client: &Client, namespaces: &Namespaces, with_routes: bool) -> (Arc<Self>, Wakes, Driver) {
        let (fine_tune_wakes, fine_tunes_due) = unbounded_channel();
        let (checkpoint_wakes, checkpoints_due) = unbounded_channel();
        let (deployment_wakes, deployments_due) = unbounded_channel();
        let (fine_tunes, fine_tunes_writer) = store();
        let (checkpoints, checkpoints_writer) = store();
        let (jobs, jobs_writer) = store();
        let (pods, pods_writer) = store();
        let (claims, claims_writer) = store();
        let (base_models, base_models_writer) = store();
        let (datasets, datasets_writer) = store();
        let (runtimes, runtimes_writer) = store();
        let (hardware, hardware_writer) = store();
        let (histories, histories_writer) = store();
        let (deployments, deployments_writer) = store();
        let (serving, serving_writers) = Serving::stores();
        let world = Arc::new(Self {
            fine_tunes,
            checkpoints: Indexed::new(checkpoints),
            jobs: Indexed::new(jobs),
            pods: Indexed::new(pods),
            claims,
            base_models,
            datasets,
            runtimes,
            hardware,
            histories,
            deployments,
            serving,
            queues: Arc::default(),
            ready: Arc::default(),
            fine_tune_wakes,
            checkpoint_wakes,
            deployment_wakes,
        });
        let follow = Follow { client, namespaces, world: &world };
        let mut drivers: Vec<Driver> = vec![
            follow.every(fine_tunes_writer, |world, run: &FineTune, _| world.wake_fine_tune_of(run)),
            follow.every(checkpoints_writer, Self::touch_checkpoint),
            follow.ours(jobs_writer, Self::touch_job),
            follow.ours(pods_writer, |world, pod: &corev1::Pod, is_there| world.touch_worker(&world.pods, pod, is_there)),
            follow.every(claims_writer, Self::touch_claim),
            follow.catalogue(base_models_writer, |world, _: &BaseModel, _| world.wake_for_catalogue()),
            follow.every(datasets_writer, |world, _: &Dataset, _| world.wake_pending()),
            follow.catalogue(runtimes_writer, |world, _: &TrainingRuntime, _| world.wake_pending()),
            follow.catalogue(hardware_writer, |world, _: &HardwareProfile, _| world.wake_for_catalogue()),
            follow.every(histories_writer, |_, _: &FineTuneHistory, _| {}),
            follow.every(deployments_writer, Self::touch_deployment),
        ];
        drivers.extend(serving_writers.drivers(&follow, with_routes));
        let driver = Box::pin(async move {
            futures::future::join_all(drivers).await;
        });
        let wakes = Wakes { fine_tunes: fine_tunes_due, checkpoints: checkpoints_due, deployments: deployments_due };
        (world, wakes, driver)
    }

    /// Waits until every store holds what the API server holds, then wakes everything once.
    ///
    /// # Errors
    /// When a watch has ended, which happens only at shutdown.
    pub async fn synced(&self) -> Result<(), kube::runtime::reflector::store::WriterDropped> {
        self.fine_tunes.wait_until_ready().await?;
        self.checkpoints.store().wait_until_ready().await?;
        self.jobs.store().wait_until_ready().await?;
        self.pods.store().wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.base_models.wait_until_ready().await?;
        self.datasets.wait_until_ready().await?;
        self.runtimes.wait_until_ready().await?;
        self.hardware.wait_until_ready().await?;
        self.histories.wait_until_ready().await?;
        self.deployments.wait_until_ready().await?;
        self.serving.synced().await?;
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the stores are complete.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The same as a flag that others may keep.
    #[must_use]
    pub fn readiness(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ready)
    }

    /// Looks at everything anew: after a start, and after a watch was broken and what was deleted meanwhile is unknown.
    pub fn look_at_everything(&self) {
        self.checkpoints.prune();
        self.jobs.prune();
        self.pods.prune();
        for fine_tune in self.fine_tunes.state() {
            self.wake_fine_tune_of(&fine_tune);
        }
        for checkpoint in self.checkpoints.store().state() {
            let _ = self.checkpoint_wakes.send(ObjectRef::from_obj(&*checkpoint));
        }
        self.wake_deployments(|_| true);
    }

    /// Looks at a run anew.
    pub fn wake(&self, run: ObjectRef<FineTune>) {
        let _ = self.fine_tune_wakes.send(run);
    }

    fn wake_fine_tune_of(&self, fine_tune: &FineTune) {
        // A receiver that is gone means shutdown, or a replica that does not lead.
        let _ = self.fine_tune_wakes.send(ObjectRef::from_obj(fine_tune));
        if fine_tune.spec.start_from.checkpoint.is_some() {
            self.wake_leaving();
        }
    }

    fn touch_checkpoint(&self, checkpoint: &Checkpoint, is_there: bool) {
        let namespace = checkpoint.namespace().unwrap_or_default();
        if let Some(run) = &checkpoint.spec.fine_tune {
            self.checkpoints.touch(&run.uid, checkpoint, is_there);
            let _ = self.fine_tune_wakes.send(ObjectRef::new(&run.name).within(&namespace));
        }
        let _ = self.checkpoint_wakes.send(ObjectRef::from_obj(checkpoint));
        self.wake_deployments_of(checkpoint);
    }

    fn touch_claim(&self, claim: &corev1::PersistentVolumeClaim, _: bool) {
        self.wake_pending();
        self.wake_imports();
        self.wake_deployments(|deployment| deployment.namespace() == claim.namespace());
    }

    fn touch_job(&self, job: &batch::Job, is_there: bool) {
        self.touch_worker(&self.jobs, job, is_there);
        if queue::waits_in(job).is_some() {
            self.queues.joined();
        }
    }

    /// A Job or pod works for a run or a Checkpoint: finds which, and wakes it.
    fn touch_worker<K: Resource<DynamicType = ()> + Clone>(&self, index: &Indexed<K>, object: &K, is_there: bool) {
        let namespace = object.namespace().unwrap_or_default();
        if let Some(uid) = object.labels().get(names::FINE_TUNE_UID) {
            index.touch(uid, object, is_there);
            self.wake_leaving_of(uid);
        }
        if let Some(uid) = object.labels().get(names::CHECKPOINT_UID) {
            index.touch(uid, object, is_there);
            self.wake_leaving();
            let owner = object.owner_references().iter().find(|owner| owner.kind == "Checkpoint" && &owner.uid == uid);
            let waked = owner.map(|owner| ObjectRef::new(&owner.name).within(&namespace));
            let _ = waked.map(|reference| self.checkpoint_wakes.send(reference));
        }
        if let Some(uid) = object.labels().get(names::DEPLOYMENT_UID) {
            index.touch(uid, object, is_there);
            self.wake_deployment_of(object);
        }
        if let Some(name) = object.labels().get(names::FINE_TUNE) {
            self.wake_waiting_deployments(&namespace);
            let _ = self.fine_tune_wakes.send(ObjectRef::new(name).within(&namespace));
        }
    }

    /// Something that runs and deployments name came, changed or went.
    fn wake_for_catalogue(&self) {
        self.wake_pending();
        self.wake_deployments(|_| true);
    }

    /// Something a run may have waited for came, changed or went.
    fn wake_pending(&self) {
        if !self.is_ready() {
            return;
        }
        let pending = |fine_tune: &FineTune| {
            let phase = fine_tune.status.as_ref().map_or(FineTunePhase::Pending, |status| status.phase);
            phase == FineTunePhase::Pending || fine_tune.metadata.deletion_timestamp.is_some()
        };
        for fine_tune in self.fine_tunes.state_filter(pending) {
            let _ = self.fine_tune_wakes.send(ObjectRef::from_obj(&*fine_tune));
        }
    }

    /// A claim came, changed or went that a Checkpoint written by hand may have waited for.
    fn wake_imports(&self) {
        if !self.is_ready() {
            return;
        }
        let pending =
            |checkpoint: &Checkpoint| checkpoint.status.as_ref().is_none_or(|status| status.phase == CheckpointPhase::Pending);
        for checkpoint in self.checkpoints.store().state_filter(pending) {
            let _ = self.checkpoint_wakes.send(ObjectRef::from_obj(&*checkpoint));
        }
    }

    /// A pod of a run came, changed or went: its Checkpoints on their way out may have waited for that.
    fn wake_leaving_of(&self, run: &str) {
        let leaving = self.checkpoints.get(run).into_iter().filter(|checkpoint| checkpoint.metadata.deletion_timestamp.is_some());
        for checkpoint in leaving {
            let _ = self.checkpoint_wakes.send(ObjectRef::from_obj(&*checkpoint));
        }
    }

    /// Something a Checkpoint on its way out may have waited for came, changed or went.
    fn wake_leaving(&self) {
        if !self.is_ready() {
            return;
        }
        for checkpoint in self.checkpoints.store().state_filter(|checkpoint| checkpoint.metadata.deletion_timestamp.is_some()) {
            let _ = self.checkpoint_wakes.send(ObjectRef::from_obj(&*checkpoint));
        }
    }
}
