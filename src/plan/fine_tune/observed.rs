//! The facts a plan for a FineTune is made from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1 as batch, core::v1 as corev1};

use crate::{
    api::{
        BaseModel, Checkpoint, CheckpointPermission, Dataset, FineTune, FineTuneStatus, HardwareProfile, ModelDeployment,
        QueueStatus, TrainingRuntime, is_owned_by, names,
    },
    settings::Settings,
};

/// Everything known that bears on one FineTune.
#[derive(Clone, Debug, Default)]
pub struct ObservedFineTune {
    /// The FineTune itself.
    pub fine_tune: Arc<FineTune>,
    /// The BaseModel it names.
    pub base_model: Option<Arc<BaseModel>>,
    /// The Dataset it names.
    pub dataset: Option<Arc<Dataset>>,
    /// The TrainingRuntime it names, or the default one.
    pub runtime: Option<Arc<TrainingRuntime>>,
    /// The HardwareProfile it names, or the default one.
    pub hardware: Option<Arc<HardwareProfile>>,
    /// The Checkpoint it starts from, when it names one of its own namespace.
    pub start_checkpoint: Option<Arc<Checkpoint>>,
    /// The claims it names, as far as they exist, by name.
    pub claims: BTreeMap<String, Arc<corev1::PersistentVolumeClaim>>,
    /// The Jobs it owns (by uid).
    pub jobs: Vec<Arc<batch::Job>>,
    /// The pods that carry its uid.
    pub pods: Vec<Arc<corev1::Pod>>,
    /// The Checkpoints of this run (by uid).
    pub checkpoints: Vec<Arc<Checkpoint>>,
    /// Names of those that somebody uses; looked up only where something of the run is to be deleted.
    pub used_checkpoints: BTreeSet<String>,
    /// The Deployment of ours that has its name, whoever made it.
    pub deployment: Option<Arc<ModelDeployment>>,
    /// The pods of that Deployment, where the run made it.
    pub servers: Vec<Arc<corev1::Pod>>,
    /// The permission it owns (by uid), made because it is Public.
    pub permission: Option<Arc<CheckpointPermission>>,
    /// What Kueue says of its Jobs that wait in a queue, by their uid; nothing of those it was not asked about yet.
    pub places: BTreeMap<String, QueueStatus>,
    /// When this process last wrote the status.
    pub last_status_write: Option<Timestamp>,
    /// Nothing can be created any more in its namespace.
    pub namespace_terminating: bool,
    /// What was to be made a moment ago, kind and name, and exists already as somebody else's.
    pub name_taken: Option<String>,
    /// What it is to have beside it and the API server refused, and why; found out by trying.
    pub refused: BTreeMap<&'static str, String>,
}

impl ObservedFineTune {
    /// Name of the FineTune.
    #[must_use]
    pub fn name(&self) -> &str {
        self.fine_tune.metadata.name.as_deref().unwrap_or_default()
    }

    /// Uid of the FineTune.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.fine_tune.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Namespace of the FineTune.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.fine_tune.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The status as it stands.
    #[must_use]
    pub fn status(&self) -> FineTuneStatus {
        self.fine_tune.status.clone().unwrap_or_default()
    }

    /// Whether our finalizer is on it.
    #[must_use]
    pub fn has_finalizer(&self) -> bool {
        self.fine_tune.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == names::FINE_TUNE_FINALIZER)
    }

    /// Every claim the run may need, whether it exists or not.
    #[must_use]
    pub fn claim_names(&self, settings: &Settings) -> BTreeSet<String> {
        let choice = &self.fine_tune.spec.dataset;
        let dataset = self.dataset.iter().flat_map(|dataset| [Some(&dataset.spec.training), dataset.spec.validation.as_ref()]);
        let sources = [choice.training.as_ref(), choice.validation.as_ref()]
            .into_iter()
            .chain(dataset)
            .chain([self.base_model.as_ref().map(|model| &model.spec.source)])
            .chain([self.start_checkpoint.as_ref().map(|checkpoint| &checkpoint.spec.storage)])
            .flatten()
            .filter_map(|source| source.volume.as_ref().map(|volume| volume.claim_name.clone()));
        let output = self.fine_tune.spec.output.as_ref().or(settings.default_output.as_ref());
        let named = output.and_then(|output| output.volume.as_ref()).map(|volume| volume.claim_name.clone());
        sources.chain(named).chain([crate::plan::names::claim(self.name(), self.uid())]).collect()
    }

    /// The Deployment it made by itself.
    #[must_use]
    pub fn own_deployment(&self) -> Option<&Arc<ModelDeployment>> {
        self.deployment.as_ref().filter(|deployment| is_owned_by(&***deployment, self.uid()))
    }

    /// Whether it names a claim that exists.
    #[must_use]
    pub fn has_claim(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.claims.contains_key(name))
    }
}
