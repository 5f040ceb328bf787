//! Making a run: everything a create names is looked up, and its parameters are checked with the operator's own code and words.

use std::collections::BTreeMap;

use kube::{Resource, ResourceExt, api::ObjectMeta};
use serde_json::Value;

use super::{REQUEST, Session, TRAINING_FILE, VALIDATION_FILE, catalogue, ids, parameters, sources};
use crate::api::{
    AutoDeploy, BaseModel, Dataset, DatasetChoice, FineTune, FineTuneSpec, HardwareChoice, NameReference, Output, Source,
    TrainingRuntime, Visibility, names,
};
use crate::gateway::errors::Refusal;
use crate::plan;

/// What a dialect calls the fields that can be wrong.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// The base model.
    pub base_model: &'static str,
    /// The script.
    pub script: &'static str,
    /// The training data.
    pub training: &'static str,
    /// The rows for evaluation.
    pub validation: &'static str,
    /// The parameters.
    pub parameters: &'static str,
}

/// Where data comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// A Dataset by name, or a place written as a string.
    Named(String),
    /// A place.
    Place(Source),
}

/// Which script trains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Script {
    /// The default one.
    #[default]
    Default,
    /// The one that answers to this, or else the default one.
    Preferred(String),
    /// The one that answers to this.
    Named(String),
}

/// A run to be made.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// What its dialect calls things.
    pub fields: Fields,
    /// What its object's name begins with.
    pub called: String,
    /// What people call it.
    pub display_name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Suffix of the served model.
    pub suffix: Option<String>,
    /// Pairs to filter by.
    pub metadata: BTreeMap<String, String>,
    /// Name or alias of the base model.
    pub base_model: String,
    /// The script.
    pub script: Script,
    /// The training data.
    pub training: Data,
    /// The rows for evaluation.
    pub validation: Option<String>,
    /// Parameters under any of their names.
    pub parameters: parameters::Values,
    /// What the dialect says of parameters that are left out, where the script knows them.
    pub defaults: parameters::Values,
    /// What the default learning rate is multiplied by.
    pub learning_rate_multiplier: Option<Value>,
    /// Where checkpoints go.
    pub output: Option<Output>,
    /// What is served without being asked.
    pub auto_deploy: Option<AutoDeploy>,
    /// Who may use the checkpoints.
    pub visibility: Visibility,
    /// Labels of the object.
    pub labels: BTreeMap<String, String>,
    /// Makes the create repeatable.
    pub idempotency_key: Option<String>,
    /// Fingerprint of the request.
    pub request: String,
}

/// Makes a run, or returns the one the same create made before.
///
/// # Errors
/// What it names is not there, its parameters are refused, or the caller may not.
pub async fn create(session: &Session, new: NewRun) -> Result<FineTune, Refusal> {
    let (base_model, known) =
        futures::try_join!(catalogue::base_model(session, &new.base_model), catalogue::recent::<TrainingRuntime>(session))?;
    let base_model = base_model.ok_or_else(|| no_base_model(&new))?;
    let fits = |runtimes: &[TrainingRuntime]| {
        let runtime = runtime(runtimes, &new)?;
        checked_parameters(&new, runtime).map(|parameters| (runtime.clone(), parameters))
    };
    let (runtime, parameters) = match fits(&known) {
        Ok(found) => found,
        // It may have been mended since: nobody is refused for what was so a moment ago.
        Err(_) => fits(&session.cluster.list_global::<TrainingRuntime>().await?)?,
    };
    let dataset = dataset(session, &new).await?;
    let run = object(session, new, (&base_model, &runtime), (dataset, parameters));
    match session.cluster.create(&run).await? {
        Some(created) => Ok(created),
        None => same_as_before(session, &run).await,
    }
}

fn no_base_model(new: &NewRun) -> Refusal {
    let name = plan::status_text::cut(&new.base_model, 128);
    Refusal {
        code: Some("model_not_found"),
        ..Refusal::bad(new.fields.base_model, format!("there is no base model {name:?}: see the list of base models"))
    }
}

fn runtime<'a>(runtimes: &'a [TrainingRuntime], new: &NewRun) -> Result<&'a TrainingRuntime, Refusal> {
    let default = || catalogue::default_of(runtimes);
    let (found, name) = match &new.script {
        Script::Default => (default(), None),
        Script::Preferred(name) => (catalogue::runtime_of(runtimes, name).or_else(default), Some(name)),
        Script::Named(name) => (catalogue::runtime_of(runtimes, name), Some(name)),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = runtimes.iter().flat_map(|runtime| &runtime.spec.script_types).map(String::as_str).collect();
        let name =
            name.map_or_else(|| "default script".to_owned(), |name| format!("script {:?}", plan::status_text::cut(name, 128)));
        Refusal::bad(new.fields.script, format!("there is no {name}: known are {}", known.join(", ")))
    })
}

fn checked_parameters(new: &NewRun, runtime: &TrainingRuntime) -> Result<parameters::Values, Refusal> {
    let refuse = |message: String| Refusal::bad(new.fields.parameters, message);
    let mut given = parameters::canonical(new.parameters.clone(), &runtime.spec.parameters).map_err(refuse)?;
    for (name, value) in &new.defaults {
        if parameters::is_known(name, &runtime.spec.parameters) {
            given.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    if let Some(multiplier) = &new.learning_rate_multiplier {
        given.insert("learning_rate".into(), parameters::multiplied(multiplier, runtime).map_err(refuse)?);
    }
    plan::parameters::resolve(&given, &runtime.name_any(), &runtime.spec.parameters)
        .map_err(|problem| Refusal { code: Some("invalid_parameters"), ..refuse(problem.message) })?;
    Ok(given)
}

/// The data, and what the create called it where that is lost otherwise.
struct Chosen {
    choice: DatasetChoice,
    said: Vec<(&'static str, String)>,
}

async fn dataset(session: &Session, new: &NewRun) -> Result<Chosen, Refusal> {
    let training = found(session, &new.training, new.fields.training).await?;
    let Some(validation) = &new.validation else {
        return Ok(match (training, &new.training) {
            (Found::Dataset(dataset), _) => {
                Chosen { choice: DatasetChoice { name: Some(dataset.name_any()), ..DatasetChoice::default() }, said: Vec::new() }
            }
            (Found::Place(place), data) => Chosen {
                choice: DatasetChoice { training: Some(place), ..DatasetChoice::default() },
                said: said(TRAINING_FILE, data),
            },
        });
    };
    let data = Data::Named(validation.clone());
    let rows = found(session, &data, new.fields.validation).await?;
    let choice = DatasetChoice { name: None, training: Some(training.place()), validation: Some(rows.place()) };
    Ok(Chosen { choice, said: [said(TRAINING_FILE, &new.training), said(VALIDATION_FILE, &data)].concat() })
}

fn said(annotation: &'static str, data: &Data) -> Vec<(&'static str, String)> {
    match data {
        Data::Named(text) => vec![(annotation, text.clone())],
        Data::Place(_) => Vec::new(),
    }
}

enum Found {
    Dataset(Box<Dataset>),
    Place(Source),
}

impl Found {
    fn place(self) -> Source {
        match self {
            Self::Dataset(dataset) => dataset.spec.training,
            Self::Place(place) => place,
        }
    }
}

async fn found(session: &Session, data: &Data, field: &str) -> Result<Found, Refusal> {
    let text = match data {
        Data::Place(place) => return Ok(Found::Place(place.clone())),
        Data::Named(text) => text,
    };
    if let Some(place) = sources::source(text).map_err(|message| Refusal::bad(field, message))? {
        return Ok(Found::Place(place));
    }
    let dataset = session.cluster.get::<Dataset>(text).await?;
    dataset.map(|dataset| Found::Dataset(Box::new(dataset))).ok_or_else(|| {
        let name = plan::status_text::cut(text, 128);
        let message =
            format!("there is no Dataset {name:?} in this project: create it, or give s3://…, hf://… or volume://claim/path");
        Refusal::bad(field, message)
    })
}

fn object(
    session: &Session,
    new: NewRun,
    known: (&BaseModel, &TrainingRuntime),
    filled: (Chosen, parameters::Values),
) -> FineTune {
    let ((base_model, runtime), (chosen, parameters)) = (known, filled);
    let chance = || uuid::Uuid::new_v4().to_string();
    let name = new.idempotency_key.as_ref().map_or_else(
        || ids::new_run(&new.called, &chance()),
        |key| ids::keyed_run(&session.identity.username, &session.project, key),
    );
    let mut annotations: BTreeMap<String, String> = chosen.said.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    annotations.insert(names::CREATED_BY.into(), session.identity.username.clone());
    annotations.insert(REQUEST.into(), new.request);
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: Some(session.project.clone()),
        annotations: Some(annotations),
        labels: Some(new.labels).filter(|labels| !labels.is_empty()),
        ..ObjectMeta::default()
    };
    let spec = FineTuneSpec {
        display_name: new.display_name,
        description: new.description,
        suffix: new.suffix,
        metadata: new.metadata,
        base_model: NameReference::new(base_model.name_any()),
        dataset: chosen.choice,
        runtime: Some(NameReference::new(runtime.name_any())),
        parameters,
        hardware: HardwareChoice::default(),
        output: new.output,
        auto_deploy: new.auto_deploy,
        visibility: new.visibility,
        retries: 3,
        ..FineTuneSpec::default()
    };
    FineTune { metadata, spec, status: None }
}

/// The run a repeated create made the first time.
async fn same_as_before(session: &Session, wanted: &FineTune) -> Result<FineTune, Refusal> {
    let before: Option<FineTune> = session.cluster.get(&wanted.name_any()).await?;
    let before =
        before.ok_or_else(|| Refusal::conflict("the run of this Idempotency-Key was deleted a moment ago: try again"))?;
    if before.meta().annotations.as_ref().and_then(|notes| notes.get(REQUEST)) == wanted.annotations().get(REQUEST) {
        return Ok(before);
    }
    Err(Refusal {
        code: Some("idempotency_key_reused"),
        ..Refusal::conflict("this Idempotency-Key was used for another request")
    })
}
