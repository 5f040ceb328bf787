//! Reading runs, and what their description needs beside them.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;

use super::cluster::{Selection, or_nothing};
use super::query::{Counts, Filter, Page};
use super::{Session, catalogue, ids, standing};
use crate::api::{
    Checkpoint, DeploymentPhase, FineTune, FineTuneHistory, HardwareProfile, ModelDeployment, NameReference, TrainingRuntime,
};
use crate::gateway::errors::Refusal;

/// The run of an id.
///
/// # Errors
/// There is none.
pub async fn get(session: &Session, id: &str) -> Result<FineTune, Refusal> {
    for name in ids::runs(id) {
        if let Some(run) = session.cluster.get(name).await? {
            return Ok(run);
        }
    }
    Err(Refusal::no_fine_tune(id))
}

/// Fills a page with the runs a filter asks for and that `also` holds of.
///
/// # Errors
/// The caller may not.
pub async fn list(
    session: &Session,
    mut filter: Filter,
    page: &mut Page,
    also: impl Fn(&FineTune) -> bool + Send + Sync,
) -> Result<(), Refusal> {
    if let Some(model) = &filter.base_model {
        // An alias is as good as a name.
        let found = or_nothing(catalogue::base_model(session, model).await)?;
        filter.base_model = Some(found.map_or_else(|| model.clone(), |model| model.name_any()));
    }
    let wanted = |run: &FineTune| filter.holds(run) && also(run);
    let kept = page.most();
    let see = |run: FineTune| {
        if wanted(&run) {
            page.see(run);
        }
    };
    session.cluster.each(&Selection::default(), kept, see).await
}

/// Counts all runs of the project.
///
/// # Errors
/// The caller may not.
pub async fn count(session: &Session) -> Result<Counts, Refusal> {
    let mut counts = Counts::default();
    session.cluster.each(&Selection::default(), 0, |run| counts.see(&run)).await?;
    Ok(counts)
}

/// What a run leaves to read, if it has left anything.
///
/// # Errors
/// The caller may not.
pub async fn history(session: &Session, run: &FineTune) -> Result<Option<FineTuneHistory>, Refusal> {
    session.cluster.get(&run.name_any()).await
}

/// What lies around runs and is named in their description.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The moment of the description.
    pub now: Timestamp,
    /// The scripts.
    pub runtimes: Arc<Vec<TrainingRuntime>>,
    /// The hardware.
    pub hardware: Arc<Vec<HardwareProfile>>,
    /// What is served in the project.
    pub deployments: Vec<ModelDeployment>,
}

/// Everything that lies around the runs of a project; what the caller may not read is left out.
///
/// # Errors
/// The API server does not answer.
pub async fn surroundings(session: &Session) -> Result<Surroundings, Refusal> {
    let deployments = async { or_nothing(session.cluster.list(&Selection::default()).await) };
    let (around, deployments) = futures::try_join!(of_catalogue(session), deployments)?;
    Ok(Surroundings { deployments, ..around })
}

/// What lies around one run. Nothing serves what a run saves that has not begun.
///
/// # Errors
/// The API server does not answer.
pub async fn surroundings_of(session: &Session, run: &FineTune) -> Result<Surroundings, Refusal> {
    if run.status.is_some() { surroundings(session).await } else { of_catalogue(session).await }
}

async fn of_catalogue(session: &Session) -> Result<Surroundings, Refusal> {
    let (runtimes, hardware) = futures::join!(catalogue::recent(session), catalogue::recent(session));
    let (runtimes, hardware) = (or_nothing(runtimes)?, or_nothing(hardware)?);
    Ok(Surroundings { now: Timestamp::now(), runtimes, hardware, deployments: Vec::new() })
}

impl Surroundings {
    /// The script of a run.
    #[must_use]
    pub fn runtime(&self, run: &FineTune) -> Option<&TrainingRuntime> {
        let resolved = run.status.as_ref().and_then(|status| status.resolved.as_ref()).map(|resolved| resolved.runtime.as_str());
        let name = resolved.or_else(|| run.spec.runtime.as_ref().map(|NameReference { name }| name.as_str()));
        match name {
            Some(name) => self.runtimes.iter().find(|runtime| runtime.name_any() == name),
            None => catalogue::default_of(&self.runtimes),
        }
    }

    /// The hardware of a run.
    #[must_use]
    pub fn profile(&self, run: &FineTune) -> Option<&HardwareProfile> {
        let resolved = run.status.as_ref().and_then(|status| status.resolved.as_ref()).map(|resolved| resolved.hardware.as_str());
        match resolved.or(run.spec.hardware.profile.as_deref()) {
            Some(name) => self.hardware.iter().find(|profile| profile.name_any() == name),
            None => catalogue::default_of(&self.hardware),
        }
    }

    /// What serves a checkpoint of the run: of several the one of its best checkpoint, then one that is ready.
    #[must_use]
    pub fn deployment(&self, run: &FineTune) -> Option<&ModelDeployment> {
        let (name, uid) = (run.name_any(), run.uid().unwrap_or_default());
        let best = standing::result(run);
        self.deployments
            .iter()
            .filter(|deployment| {
                deployment.spec.checkpoint.namespace.as_ref().is_none_or(|other| Some(other) == run.metadata.namespace.as_ref())
            })
            .filter(|deployment| ids::is_of_run(&deployment.spec.checkpoint.name, &name, &uid))
            .max_by_key(|deployment| (best == Some(deployment.spec.checkpoint.name.as_str()), is_ready(deployment)))
    }

    /// What serves a checkpoint.
    #[must_use]
    pub fn deployment_of(&self, checkpoint: &Checkpoint) -> Option<&ModelDeployment> {
        let name = checkpoint.name_any();
        self.deployments
            .iter()
            .filter(|deployment| deployment.spec.checkpoint.name == name)
            .max_by_key(|deployment| is_ready(deployment))
    }

    /// The name the result of a run answers to: that of what serves it, or that of its best checkpoint, once it has succeeded.
    #[must_use]
    pub fn model(&self, run: &FineTune) -> Option<String> {
        let done = standing::phase(run) == crate::api::FineTunePhase::Succeeded;
        let served = self.deployment(run).map(standing::model_name);
        served.or_else(|| standing::result(run).map(str::to_owned)).filter(|_| done)
    }
}

/// Whether the model is served.
#[must_use]
pub fn is_ready(deployment: &ModelDeployment) -> bool {
    deployment.status.as_ref().is_some_and(|status| matches!(status.phase, DeploymentPhase::Ready | DeploymentPhase::Degraded))
}
