//! The kinds of `finetune.dev/v1alpha1` and the types they share. Pure data: imports nothing else of this crate.

mod base_model;
mod checkpoint;
mod checkpoint_permission;
pub mod condition;
mod cost;
mod dataset;
mod fine_tune;
mod fine_tune_history;
mod fine_tune_status;
mod hardware_profile;
mod http_route;
mod model_deployment;
pub mod names;
mod ownership;
mod progress;
mod reference;
mod schema;
mod serving_runtime;
mod source;
mod training_runtime;

pub use base_model::{BaseModel, BaseModelSpec};
pub use checkpoint::{AdapterFacts, Checkpoint, CheckpointPhase, CheckpointSpec, CheckpointStatus, RunReference, WeightsFormat};
pub use checkpoint_permission::{CheckpointPermission, CheckpointPermissionSpec, CheckpointPermissionStatus, EVERY_PROJECT};
pub use cost::Cost;
pub use dataset::{Dataset, DatasetSpec};
pub use fine_tune::{
    AutoDeploy, Budget, CheckpointPolicy, DatasetChoice, DeletionPolicy, DeployWhich, DesiredState, FineTune, FineTuneSpec, Goal,
    HardwareChoice, Output, Queue, ServingType, StartFrom, StartPolicy, TrainerOverrides, Visibility, VolumeTemplate,
};
pub use fine_tune_history::{AttemptLog, EarlierSaves, FineTuneHistory, FineTuneHistorySpec, HistoryEvent, Series};
pub use fine_tune_status::{Attempt, Failure, FineTunePhase, FineTuneStatus, QueueStatus, Resolved};
pub use hardware_profile::{Gpu, HardwareProfile, HardwareProfileSpec};
pub use http_route::{HttpRoute, HttpRouteSpec, ParentReference};
pub use model_deployment::{DeploymentPhase, ModelDeployment, ModelDeploymentSpec, ModelDeploymentStatus};
pub use ownership::{is_controlled_by, is_owned_by};
pub use progress::Progress;
pub use reference::{CheckpointReference, ClaimReference, NameReference};
pub use serving_runtime::{AdapterServing, Container, ModelServing, Readiness, ServingRuntime, ServingRuntimeSpec};
pub use source::{HuggingFace, ObjectStore, Source, Volume};
pub use training_runtime::{
    Bindings, CheckpointLayout, Completion, Distributed, Parameters, TrainingRuntime, TrainingRuntimeSpec,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of every kind.
pub const GROUP: &str = "finetune.dev";

/// The one served and stored version.
pub const VERSION: &str = "v1alpha1";

/// The definitions of all kinds, as `kubectl apply` takes them, in the order of the documentation.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let all = [
        FineTune::crd(),
        Checkpoint::crd(),
        ModelDeployment::crd(),
        CheckpointPermission::crd(),
        FineTuneHistory::crd(),
        Dataset::crd(),
        BaseModel::crd(),
        TrainingRuntime::crd(),
        ServingRuntime::crd(),
        HardwareProfile::crd(),
    ];
    all.into_iter().map(schema::published).collect()
}
