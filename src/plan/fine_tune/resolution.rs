//! What a spec means once every reference is found and every parameter checked. Building pods from it cannot fail. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1 as corev1,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use serde_json::Value;

use super::{ObservedFineTune, budget, distributed};
use crate::{
    api::{
        BaseModel, Checkpoint, DatasetSpec, FineTuneSpec, HardwareProfile, Output, Resolved, Source, StartPolicy,
        TrainingRuntime, names as labels,
    },
    plan::{Problem, names, parameters},
    settings::Settings,
};

/// Reason of a run that cannot make its Job or claim under the name they are to have.
pub const NAME_TAKEN: &str = "NameTaken";

/// A run with all its references found.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// Name of the FineTune.
    pub name: String,
    /// Namespace of the FineTune.
    pub namespace: String,
    /// Uid of the FineTune.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
    /// The spec itself.
    pub spec: FineTuneSpec,
    /// The base model.
    pub base_model: Arc<BaseModel>,
    /// The runtime.
    pub runtime: Arc<TrainingRuntime>,
    /// The hardware of each node.
    pub hardware: Arc<HardwareProfile>,
    /// The training and validation data.
    pub dataset: DatasetSpec,
    /// Whether the data comes from a named Dataset.
    pub named_dataset: bool,
    /// Where checkpoints go.
    pub output: Output,
    /// A checkpoint of another run to begin with.
    pub warm_start: Option<Arc<Checkpoint>>,
    /// The parameters under the script's names.
    pub parameters: BTreeMap<String, Value>,
    /// Number of nodes.
    pub nodes: i32,
}

/// Finds every reference and checks every parameter.
///
/// # Errors
/// Everything that is missing or wrong, each with its field and its remedy.
pub fn resolve(observed: &ObservedFineTune, settings: &Settings) -> Result<Resolution, Vec<Problem>> {
    let spec = &observed.fine_tune.spec;
    let mut problems = Vec::new();
    let mut wanted = |found: Option<Problem>| problems.extend(found);
    wanted(name_taken(observed));
    wanted(base_model_missing(observed));
    wanted(runtime_missing(observed));
    wanted(hardware_missing(observed));
    wanted(budget::other_currency(observed));
    let output = spec.output.clone().or_else(|| settings.default_output.clone());
    if output.is_none() {
        wanted(Some(Problem {
            reason: "OutputMissing",
            field: "spec.output".into(),
            message:
                "nothing says where checkpoints go: give volume, volumeTemplate or objectStore (the operator has no default)"
                    .into(),
            waits: false,
        }));
    }
    let dataset = dataset(observed).map_err(|problem| wanted(Some(problem))).ok();
    let warm_start = warm_start(observed).map_err(|problem| wanted(Some(problem))).ok().flatten();
    let parameters = observed.runtime.as_ref().and_then(|runtime| {
        let name = runtime.metadata.name.as_deref().unwrap_or_default();
        parameters::resolve(&spec.parameters, name, &runtime.spec.parameters).map_err(|problem| wanted(Some(problem))).ok()
    });
    let (Some(base_model), Some(runtime), Some(hardware), Some(output), Some((dataset, named_dataset)), Some(parameters)) =
        (&observed.base_model, &observed.runtime, &observed.hardware, output, dataset, parameters)
    else {
        return Err(problems);
    };
    let resolution = Resolution {
        name: observed.name().to_owned(),
        namespace: observed.namespace().to_owned(),
        uid: observed.uid().to_owned(),
        generation: observed.fine_tune.metadata.generation.unwrap_or_default(),
        spec: spec.clone(),
        base_model: base_model.clone(),
        runtime: runtime.clone(),
        hardware: hardware.clone(),
        dataset,
        named_dataset,
        output,
        warm_start,
        parameters,
        nodes: spec.hardware.nodes,
    };
    problems.extend(resolution.missing_claims(observed));
    problems.extend(distributed::problems(&resolution, observed));
    if problems.is_empty() { Ok(resolution) } else { Err(problems) }
}

fn waits(reason: &'static str, field: &str, message: String) -> Problem {
    Problem { reason, field: field.into(), message, waits: true }
}

fn name_taken(observed: &ObservedFineTune) -> Option<Problem> {
    let taken = observed.name_taken.as_ref()?;
    Some(waits(NAME_TAKEN, "metadata.name", format!("{taken} exists already and does not belong to this run: delete it")))
}

fn base_model_missing(observed: &ObservedFineTune) -> Option<Problem> {
    observed.base_model.is_none().then(|| {
        let name = &observed.fine_tune.spec.base_model.name;
        waits(
            "BaseModelNotFound",
            "spec.baseModel.name",
            format!("there is no BaseModel {name:?}: create it, or see kubectl get basemodels"),
        )
    })
}

fn runtime_missing(observed: &ObservedFineTune) -> Option<Problem> {
    observed.runtime.is_none().then(|| {
        let message = observed.fine_tune.spec.runtime.as_ref().map_or_else(
            || format!("none is named and no TrainingRuntime carries {}: \"true\"", labels::IS_DEFAULT),
            |runtime| format!("there is no TrainingRuntime {:?}: create it, or see kubectl get trainingruntimes", runtime.name),
        );
        waits("RuntimeNotFound", "spec.runtime.name", message)
    })
}

fn hardware_missing(observed: &ObservedFineTune) -> Option<Problem> {
    observed.hardware.is_none().then(|| {
        let message = observed.fine_tune.spec.hardware.profile.as_ref().map_or_else(
            || format!("none is named and no HardwareProfile carries {}: \"true\"", labels::IS_DEFAULT),
            |profile| format!("there is no HardwareProfile {profile:?}: create it, or see kubectl get hardwareprofiles"),
        );
        waits("HardwareNotFound", "spec.hardware.profile", message)
    })
}

fn dataset(observed: &ObservedFineTune) -> Result<(DatasetSpec, bool), Problem> {
    let choice = &observed.fine_tune.spec.dataset;
    if let Some(training) = &choice.training {
        let inline = DatasetSpec { training: training.clone(), validation: choice.validation.clone(), ..DatasetSpec::default() };
        return Ok((inline, false));
    }
    let name = choice.name.as_deref().unwrap_or_default();
    observed.dataset.as_ref().map(|dataset| (dataset.spec.clone(), true)).ok_or_else(|| {
        waits(
            "DatasetNotFound",
            "spec.dataset.name",
            format!("there is no Dataset {name:?} in this namespace: create it, or see kubectl get datasets"),
        )
    })
}

fn warm_start(observed: &ObservedFineTune) -> Result<Option<Arc<Checkpoint>>, Problem> {
    const FIELD: &str = "spec.startFrom.checkpoint";
    let start = &observed.fine_tune.spec.start_from;
    let Some(reference) = start.checkpoint.as_ref().filter(|_| start.policy == StartPolicy::LastCheckpoint) else {
        return Ok(None);
    };
    if reference.namespace.as_ref().is_some_and(|namespace| namespace != observed.namespace()) {
        return Err(Problem {
            reason: "NotPermitted",
            field: format!("{FIELD}.namespace"),
            message: "a run can start from a checkpoint of its own namespace only".into(),
            waits: false,
        });
    }
    let checkpoint = observed.start_checkpoint.clone().ok_or_else(|| {
        waits("CheckpointNotFound", FIELD, format!("there is no Checkpoint {:?} in this namespace", reference.name))
    })?;
    if checkpoint.spec.base_model == observed.fine_tune.spec.base_model {
        return Ok(Some(checkpoint));
    }
    Err(Problem {
        reason: "BaseModelDiffers",
        field: FIELD.into(),
        message: format!(
            "Checkpoint {:?} was trained from {:?}, this run from {:?}: choose a checkpoint of the same base model",
            reference.name, checkpoint.spec.base_model.name, observed.fine_tune.spec.base_model.name
        ),
        waits: false,
    })
}

impl Resolution {
    /// Every source of the run with the field it comes from, and the prefix of its credentials.
    pub fn sources(&self) -> Vec<(&Source, String, &'static str)> {
        let data = if self.named_dataset { "spec.dataset.name (Dataset.spec" } else { "spec.dataset" };
        let close = if self.named_dataset { ")" } else { "" };
        let mut all = vec![
            (&self.base_model.spec.source, "spec.baseModel.name (BaseModel.spec.source)".to_owned(), "MODEL_"),
            (&self.dataset.training, format!("{data}.training{close}"), "DATASET_"),
        ];
        if let Some(validation) = &self.dataset.validation {
            all.push((validation, format!("{data}.validation{close}"), "VALIDATION_"));
        }
        if let Some(checkpoint) = &self.warm_start {
            all.push((&checkpoint.spec.storage, "spec.startFrom.checkpoint".to_owned(), "START_"));
        }
        all
    }

    fn missing_claims(&self, observed: &ObservedFineTune) -> Vec<Problem> {
        let output =
            self.output.volume.as_ref().map(|volume| (volume.claim_name.clone(), "spec.output.volume.claimName".to_owned()));
        self.sources()
            .into_iter()
            .filter_map(|(source, field, _)| Some((source.volume.as_ref()?.claim_name.clone(), field)))
            .chain(output)
            .filter(|(claim, _)| !observed.claims.contains_key(claim))
            .map(|(claim, field)| {
                let message = format!("there is no PersistentVolumeClaim {claim:?} in namespace {}: create it", self.namespace);
                waits("ClaimNotFound", &field, message)
            })
            .collect()
    }

    /// The claim to make from the template, when the output is one.
    pub fn template_claim(&self) -> Option<corev1::PersistentVolumeClaim> {
        let template = self.output.volume_template.as_ref()?;
        let asked = template.access_modes.clone();
        let modes = if asked.is_empty() { distributed::default_access_modes(self.nodes) } else { asked };
        Some(corev1::PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(names::claim(&self.name, &self.uid)),
                namespace: Some(self.namespace.clone()),
                labels: Some(self.labels()),
                ..ObjectMeta::default()
            },
            spec: Some(corev1::PersistentVolumeClaimSpec {
                access_modes: Some(modes),
                storage_class_name: template.storage_class_name.clone(),
                resources: Some(corev1::VolumeResourceRequirements {
                    requests: Some([("storage".to_owned(), Quantity(template.size.clone()))].into()),
                    ..corev1::VolumeResourceRequirements::default()
                }),
                ..corev1::PersistentVolumeClaimSpec::default()
            }),
            ..corev1::PersistentVolumeClaim::default()
        })
    }

    /// The labels every object of the run carries.
    pub fn labels(&self) -> BTreeMap<String, String> {
        run_labels(&self.name, &self.uid)
    }

    /// The labels the Job of an attempt and its pods carry.
    pub fn attempt_labels(&self, attempt: i64) -> BTreeMap<String, String> {
        let mut all = self.labels();
        all.insert(labels::ATTEMPT.into(), attempt.to_string());
        all.insert(labels::ROLE.into(), labels::ROLE_TRAIN.into());
        all
    }

    /// Image of the trainer.
    pub fn image(&self) -> String {
        let trainer = self.spec.trainer.as_ref();
        trainer.and_then(|trainer| trainer.image.clone()).unwrap_or_else(|| self.runtime.spec.image.clone())
    }

    /// What the attempt is started with, for the status.
    pub fn resolved(&self) -> Resolved {
        Resolved {
            runtime: self.runtime.metadata.name.clone().unwrap_or_default(),
            hardware: self.hardware.metadata.name.clone().unwrap_or_default(),
            image: self.image(),
            output: names::output_uri(&self.output, &self.name, &self.uid),
            parameters_digest: parameters::digest(&self.parameters),
            nodes: self.nodes,
            gpus: self.hardware.spec.gpu.count * self.nodes,
            generation: self.generation,
        }
    }
}

/// The labels every object of a run carries.
pub fn run_labels(name: &str, uid: &str) -> BTreeMap<String, String> {
    [(labels::FINE_TUNE, name), (labels::FINE_TUNE_UID, uid), (labels::MANAGED_BY, labels::MANAGER)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
