//! The facts a plan for a Deployment of ours is made from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as corev1, policy::v1 as policy};

use super::permission::{self, Permissions};
use crate::{
    api::{BaseModel, Checkpoint, HardwareProfile, HttpRoute, ModelDeployment, ModelDeploymentStatus, ServingRuntime},
    plan::Problem,
};

/// Everything known that bears on one Deployment of ours.
#[derive(Clone, Debug, Default)]
pub struct ObservedDeployment {
    /// The object itself.
    pub deployment: Arc<ModelDeployment>,
    /// The Checkpoint it names, when that is of its own namespace, or of another one whose owner lets it be used.
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// What owners of checkpoints of other namespaces allow.
    pub permissions: Permissions,
    /// The BaseModel that Checkpoint was trained from.
    pub base_model: Option<Arc<BaseModel>>,
    /// Every server there is.
    pub runtimes: Vec<Arc<ServingRuntime>>,
    /// Every hardware profile there is.
    pub hardware: Vec<Arc<HardwareProfile>>,
    /// The claims it needs, as far as they exist, by name.
    pub claims: BTreeMap<String, Arc<corev1::PersistentVolumeClaim>>,
    /// Training pods of ours that run and hold one of these claims.
    pub holders: Vec<Arc<corev1::Pod>>,
    /// Jobs whose next pod will.
    pub will_hold: Vec<Arc<batch::Job>>,
    /// The workload we made (by uid of the owner).
    pub workload: Option<Arc<apps::Deployment>>,
    /// The Service we made (by uid of the owner).
    pub service: Option<Arc<corev1::Service>>,
    /// The budget for drained nodes we made (by uid of the owner).
    pub budget: Option<Arc<policy::PodDisruptionBudget>>,
    /// What is known of its route.
    pub route: Route,
    /// The pods that carry its uid.
    pub pods: Vec<Arc<corev1::Pod>>,
    /// Why the last write was refused; found out by trying.
    pub refusal: Option<Problem>,
    /// Nothing can be created any more in its namespace.
    pub namespace_terminating: bool,
}

/// What is known of the HTTPRoute of a Deployment of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Route {
    /// Nothing yet, or nothing is asked.
    #[default]
    Unknown,
    /// The cluster cannot be asked for HTTPRoutes, and why.
    Unavailable(String),
    /// The one we made (by uid of the owner), or that there is none.
    Known(Option<Arc<HttpRoute>>),
}

/// A Deployment of ours, as what its children belong to.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Its name, which they have too.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its uid.
    pub uid: &'a str,
}

impl ObservedDeployment {
    /// The same as what its children belong to.
    pub(super) fn owner(&self) -> Owner<'_> {
        Owner { name: self.name(), namespace: self.namespace(), uid: self.uid() }
    }

    /// Its name, which its children have too.
    #[must_use]
    pub fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.deployment.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.deployment.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The status as it stands.
    #[must_use]
    pub fn status(&self) -> ModelDeploymentStatus {
        self.deployment.status.clone().unwrap_or_default()
    }

    /// Every claim it may need, whether it exists or not.
    #[must_use]
    pub fn claim_names(&self) -> BTreeSet<String> {
        let near = self.checkpoint.as_ref().filter(|_| permission::elsewhere(self).is_none());
        let weights = near.map(|checkpoint| &checkpoint.spec.storage);
        let base = self.base_model.as_ref().map(|model| &model.spec.source);
        weights.into_iter().chain(base).filter_map(|source| Some(source.volume.as_ref()?.claim_name.clone())).collect()
    }

    /// Whether the pods that are there mount that claim already.
    #[must_use]
    pub fn mounts(&self, claim: &str) -> bool {
        let template = self.workload.as_ref().and_then(|workload| workload.spec.as_ref()?.template.spec.as_ref());
        let volumes = template.into_iter().flat_map(|pod| pod.volumes.iter().flatten());
        claims_of(volumes).any(|mounted| mounted == claim)
    }
}

/// The claims among `volumes`.
pub fn claims_of<'a>(volumes: impl Iterator<Item = &'a corev1::Volume>) -> impl Iterator<Item = &'a str> {
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}
