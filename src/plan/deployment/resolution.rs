//! What a Deployment of ours means once every reference is found. Building pods from it cannot fail. Pure.

use std::sync::Arc;

use k8s_openapi::{
    api::{batch::v1 as batch, core::v1 as corev1},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{ObservedDeployment, adapter, observed::Owner, permission};
use crate::{
    api::{
        BaseModel, Checkpoint, CheckpointPhase, HardwareProfile, ModelDeploymentSpec, ServingRuntime, Source, WeightsFormat,
        names as labels,
    },
    plan::Problem,
};

/// A Deployment of ours with all its references found.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// The spec itself.
    pub spec: ModelDeploymentSpec,
    /// What is served.
    pub checkpoint: Arc<Checkpoint>,
    /// The namespace of what is served, where that is another one.
    pub elsewhere: Option<String>,
    /// The server.
    pub runtime: Arc<ServingRuntime>,
    /// The hardware of each pod.
    pub hardware: Arc<HardwareProfile>,
    /// What an adapter needs beside itself; nothing for full weights.
    pub adapter: Option<Adapter>,
}

/// What an adapter needs beside itself.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Its base.
    pub base_model: Arc<BaseModel>,
    /// The rank the server is started with.
    pub rank: i64,
}

/// Finds every reference.
///
/// # Errors
/// Everything that is missing or does not fit, each with its field and its remedy.
pub fn resolve(observed: &ObservedDeployment) -> Result<Resolution, Vec<Problem>> {
    let spec = &observed.deployment.spec;
    if let Some(refusal) = permission::refusal(observed) {
        return Err(vec![refusal]);
    }
    let mut problems = Vec::new();
    let mut noted = |problem: Problem| problems.push(problem);
    let checkpoint = checkpoint(observed).map_err(&mut noted).ok();
    let format = checkpoint.as_ref().map(|checkpoint| checkpoint.spec.format);
    let runtime = runtime(observed, format).map_err(&mut noted).ok();
    let hardware = hardware(observed, runtime.as_deref()).map_err(&mut noted).ok();
    let (Some(checkpoint), Some(runtime), Some(hardware)) = (checkpoint, runtime, hardware) else { return Err(problems) };
    let adapter = adapter(observed, &checkpoint, &runtime).map_err(|problem| vec![problem])?;
    let resolution = Resolution {
        name: observed.name().to_owned(),
        namespace: observed.namespace().to_owned(),
        uid: observed.uid().to_owned(),
        spec: spec.clone(),
        checkpoint,
        elsewhere: permission::elsewhere(observed).map(ToOwned::to_owned),
        runtime,
        hardware,
        adapter,
    };
    problems.extend(resolution.sources().into_iter().filter_map(|(source, field, _)| unusable_claim(observed, source, field)));
    problems.extend(permission::held(observed));
    if problems.is_empty() { Ok(resolution) } else { Err(problems) }
}

fn waits(reason: &'static str, field: &str, message: String) -> Problem {
    Problem { reason, field: field.into(), message, waits: true }
}

fn stuck(reason: &'static str, field: &str, message: String) -> Problem {
    Problem { waits: false, ..waits(reason, field, message) }
}

fn checkpoint(observed: &ObservedDeployment) -> Result<Arc<Checkpoint>, Problem> {
    const FIELD: &str = "spec.checkpoint.name";
    let name = &observed.deployment.spec.checkpoint.name;
    let Some(checkpoint) = &observed.checkpoint else {
        let place = permission::elsewhere(observed).map_or_else(|| "this namespace".into(), |place| format!("namespace {place}"));
        let message = format!("there is no Checkpoint {name:?} in {place}: see kubectl get checkpoints");
        return Err(waits("CheckpointNotFound", FIELD, message));
    };
    let leaving = checkpoint.metadata.deletion_timestamp.is_some();
    // Its files stay for as long as it is served, so one that is already deployed goes on being served.
    if leaving && is_deployed(observed, checkpoint) {
        return Ok(Arc::clone(checkpoint));
    }
    let phase = checkpoint.status.as_ref().map_or(CheckpointPhase::Pending, |status| status.phase);
    // What comes from elsewhere is compared with what is on record.
    let is_recorded = checkpoint.status.as_ref().is_some_and(|status| status.digest.is_some());
    let comparable = is_recorded || permission::elsewhere(observed).is_none();
    match phase {
        _ if leaving => Err(stuck("CheckpointDeleting", FIELD, format!("Checkpoint {name:?} is being deleted: name another"))),
        CheckpointPhase::Ready if comparable => Ok(Arc::clone(checkpoint)),
        CheckpointPhase::Ready | CheckpointPhase::Pending => {
            Err(waits("CheckpointNotReady", FIELD, format!("Checkpoint {name:?} is not verified yet")))
        }
        CheckpointPhase::Corrupt | CheckpointPhase::Missing | CheckpointPhase::Deleting => Err(stuck(
            "CheckpointUnusable",
            FIELD,
            format!("the files of Checkpoint {name:?} are damaged or gone (phase {phase:?}): name another"),
        )),
    }
}

pub(super) fn is_deployed(observed: &ObservedDeployment, checkpoint: &Checkpoint) -> bool {
    let template = observed.workload.as_ref().and_then(|workload| workload.spec.as_ref()?.template.metadata.as_ref());
    let served = template.and_then(|metadata| metadata.annotations.as_ref()?.get(labels::CHECKPOINT_UID));
    served.is_some() && served == checkpoint.metadata.uid.as_ref()
}

/// The server that is named; else of those for this type the default one first, then those that can serve the format, then the oldest.
fn runtime(observed: &ObservedDeployment, format: Option<WeightsFormat>) -> Result<Arc<ServingRuntime>, Problem> {
    const FIELD: &str = "spec.runtime.name";
    let spec = &observed.deployment.spec;
    let fits = |runtime: &ServingRuntime| match format {
        Some(WeightsFormat::Adapter) => runtime.spec.adapter.is_some(),
        Some(WeightsFormat::Model) => runtime.spec.model.is_some(),
        None => true,
    };
    let found = if let Some(named) = &spec.runtime {
        let is_named = |runtime: &&Arc<ServingRuntime>| runtime.metadata.name.as_ref() == Some(&named.name);
        observed.runtimes.iter().find(is_named).ok_or_else(|| {
            let message = format!("there is no ServingRuntime {:?}: create it, or see kubectl get servingruntimes", named.name);
            waits("RuntimeNotFound", FIELD, message)
        })?
    } else {
        let candidates = observed.runtimes.iter().filter(|runtime| runtime.spec.deployment_types.contains(&spec.type_));
        candidates.min_by_key(|runtime| (!is_default(&runtime.metadata), !fits(runtime), age(&runtime.metadata))).ok_or_else(
            || {
                let word = format!("{:?}", spec.type_).to_lowercase();
                waits(
                    "RuntimeNotFound",
                    FIELD,
                    format!("none is named and no ServingRuntime lists {word} in its deploymentTypes"),
                )
            },
        )?
    };
    let Some(format) = format.filter(|_| !fits(found)) else { return Ok(Arc::clone(found)) };
    let (name, what) = (found.metadata.name.as_deref().unwrap_or_default(), format!("{format:?}").to_lowercase());
    let message = format!(
        "ServingRuntime {name:?} does not say how it serves weights of format {format:?} (its spec.{what}): name another"
    );
    Err(stuck("RuntimeUnsuitable", FIELD, message))
}

fn hardware(observed: &ObservedDeployment, runtime: Option<&ServingRuntime>) -> Result<Arc<HardwareProfile>, Problem> {
    let own = observed.deployment.spec.hardware.as_ref().map(|hardware| &hardware.profile);
    let named = own.or_else(|| runtime?.spec.hardware.as_ref());
    let found = named.map_or_else(
        || {
            let defaults = observed.hardware.iter().filter(|profile| is_default(&profile.metadata));
            defaults.min_by_key(|profile| age(&profile.metadata))
        },
        |name| observed.hardware.iter().find(|profile| profile.metadata.name.as_ref() == Some(name)),
    );
    found.map(Arc::clone).ok_or_else(|| {
        let message = named.map_or_else(
            || format!("none is named and no HardwareProfile carries {}: \"true\"", labels::IS_DEFAULT),
            |name| format!("there is no HardwareProfile {name:?}: create it, or see kubectl get hardwareprofiles"),
        );
        waits("HardwareNotFound", "spec.hardware.profile", message)
    })
}

fn adapter(observed: &ObservedDeployment, checkpoint: &Checkpoint, runtime: &ServingRuntime) -> Result<Option<Adapter>, Problem> {
    let Some(serving) = runtime.spec.adapter.as_ref().filter(|_| checkpoint.spec.format == WeightsFormat::Adapter) else {
        return Ok(None);
    };
    let base_model = observed.base_model.clone().ok_or_else(|| {
        let name = &checkpoint.spec.base_model.name;
        let message = format!("the adapter needs BaseModel {name:?}, which does not exist: create it");
        waits("BaseModelNotFound", "spec.checkpoint", message)
    })?;
    let facts = checkpoint.status.as_ref().and_then(|status| status.adapter.clone()).unwrap_or_default();
    let rank = adapter::rank(&facts, serving, &base_model)?;
    Ok(Some(Adapter { base_model, rank }))
}

/// A claim that is not there, or that no second node can mount while a trainer holds it.
fn unusable_claim(observed: &ObservedDeployment, source: &Source, field: &str) -> Option<Problem> {
    let claim = &source.volume.as_ref()?.claim_name;
    let Some(found) = observed.claims.get(claim) else {
        let message = format!("there is no PersistentVolumeClaim {claim:?} in namespace {}: create it", observed.namespace());
        return Some(waits("ClaimNotFound", field, message));
    };
    let modes = found.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
    let single = !modes.is_empty() && modes.iter().all(|mode| mode.starts_with("ReadWriteOnce"));
    let holds = |pod: &&Arc<corev1::Pod>| {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        super::observed::claims_of(volumes).any(|held| held == claim)
    };
    if !single || observed.mounts(claim) {
        return None;
    }
    let pod = observed.holders.iter().find(holds).map(|holder| {
        let name = holder.metadata.name.as_deref().unwrap_or_default();
        let node = holder.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("none yet");
        format!("the training pod {name} on node {node}")
    });
    let will_hold = |job: &&Arc<batch::Job>| {
        let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let volumes = pod.into_iter().flat_map(|pod| pod.volumes.iter().flatten());
        super::observed::claims_of(volumes).any(|held| held == claim)
    };
    let job = || observed.will_hold.iter().find(will_hold)?.metadata.name.as_ref().map(|name| format!("the training Job {name}"));
    pod.or_else(job).map(|holder| {
        let message = format!(
            "PersistentVolumeClaim {claim:?} can be mounted on one node at a time, and {holder} holds it: wait for the run, or train on a ReadWriteMany volume or into an object store"
        );
        waits("VolumeInUse", field, message)
    })
}

/// Whether an object stands in where none is named.
fn is_default(metadata: &ObjectMeta) -> bool {
    let value = metadata.annotations.as_ref().and_then(|all| all.get(labels::IS_DEFAULT));
    let value = value.or_else(|| metadata.labels.as_ref()?.get(labels::IS_DEFAULT));
    value.is_some_and(|value| value == "true")
}

/// The oldest first.
fn age(metadata: &ObjectMeta) -> (Option<jiff::Timestamp>, Option<String>) {
    (metadata.creation_timestamp.as_ref().map(|time| time.0), metadata.name.clone())
}

impl Resolution {
    /// The Deployment of ours, as what its children belong to.
    pub fn owner(&self) -> Owner<'_> {
        Owner { name: &self.name, namespace: &self.namespace, uid: &self.uid }
    }

    /// Every source the pods get by themselves with the field it comes from, and the prefix of its credentials.
    pub fn sources(&self) -> Vec<(&Source, &'static str, &'static str)> {
        let base = self
            .adapter
            .as_ref()
            .map(|adapter| (&adapter.base_model.spec.source, "spec.checkpoint (BaseModel.spec.source)", "MODEL_"));
        // Claims and secrets of another namespace stay there.
        let weights = (&self.checkpoint.spec.storage, "spec.checkpoint", "WEIGHTS_");
        self.elsewhere.is_none().then_some(weights).into_iter().chain(base).collect()
    }

    /// The claims the sources lie on, each once.
    pub fn claims(&self) -> Vec<String> {
        let all = self.sources().into_iter().filter_map(|(source, ..)| Some(source.volume.as_ref()?.claim_name.clone()));
        all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// The name the server lists.
    pub fn model_name(&self) -> String {
        let checkpoint = self.checkpoint.metadata.name.as_deref().unwrap_or_default();
        self.spec.model_name.clone().unwrap_or_else(|| checkpoint.to_owned())
    }
}
