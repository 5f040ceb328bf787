//! The fine-tuning API of Strongly, endpoint by endpoint as it is documented.

mod answers;
mod ask;
mod catalogue;
mod figures;
mod job;
mod lists;

#[cfg(test)]
mod tests;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use kube::ResourceExt;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::answers::{Changed, Created, Deployed, Jobs, Log};
use self::catalogue::{Estimated, HardwareList, Models};
use self::figures::{Figures, Stats};
use self::job::Job;
use super::app::Gateway;
use super::asked::{Lines, Patience, Query};
use super::errors::Refusal;
use super::extract::{Once, Said};
use super::service::deployments::{self, Wanted, Word};
use super::service::query::{Filter, Page};
use super::service::transitions::Action;
use super::service::{
    Session, actions, catalogue as listed, checkpoints, create as creation, estimate, history, ids, logs, runs, standing,
};
use crate::api::{FineTunePhase as Phase, ServingType};

type Answer<T> = Result<Json<T>, Refusal>;

/// The routes below `/api/v1/fine-tuning`.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .routes(routes!(retrieve, remove))
        .routes(routes!(stop))
        .routes(routes!(restart))
        .routes(routes!(deploy))
        .routes(routes!(read_log))
        .routes(routes!(read_metrics))
        .routes(routes!(stats))
        .routes(routes!(base_models))
        .routes(routes!(hardware))
        .routes(routes!(estimate_cost))
}

/// List jobs
///
/// All of the project, newest first where `sort` says nothing else.
#[utoipa::path(get, path = "/jobs", params(lists::Jobs), responses((status = 200, body = Jobs, description = "A page of jobs")))]
async fn list(session: Session, Query(asked): Query<lists::Jobs>) -> Answer<Jobs> {
    let (limit, offset) = (asked.limit.bounded(), asked.offset.0);
    let phases = asked.status.map(job::JobStatus::phases);
    let mut page = Page::at(asked.sort.0, offset, limit);
    let filter = Filter { phases, base_model: asked.base_model, search: asked.search, ..Filter::default() };
    runs::list(&session, filter, &mut page, |_| true).await?;
    let count = page.total;
    Ok(Json(Jobs { count, limit, offset, jobs: page.runs().iter().map(job::summary).collect() }))
}

/// Create a job
///
/// Looks up what it names, checks its parameters against the schema of its script, and starts a FineTune.
#[utoipa::path(
    post, path = "/jobs", params(Once), request_body = ask::CreateJob,
    responses((status = 201, body = Created, description = "The job"))
)]
async fn create(session: Session, once: Once, said: Said<ask::CreateJob>) -> Result<(StatusCode, Json<Created>), Refusal> {
    let run = creation::create(&session, ask::new_run(said.value, once.key, said.fingerprint)?).await?;
    Ok((StatusCode::CREATED, Json(answers::created(&run))))
}

/// Retrieve a job
#[utoipa::path(get, path = "/jobs/{id}", params(ask::Of), responses((status = 200, body = Job, description = "The job")))]
async fn retrieve(session: Session, Path(of): Path<ask::Of>) -> Answer<Job> {
    let run = runs::get(&session, &of.id).await?;
    Ok(Json(job::job(&run, &runs::surroundings(&session).await?)))
}

/// Delete a job
///
/// One that is at work has to be stopped before. Its checkpoints go with it, but for those that are served, shared or to be kept.
#[utoipa::path(delete, path = "/jobs/{id}", params(ask::Of), responses((status = 204, description = "It is going")))]
async fn remove(session: Session, Path(of): Path<ask::Of>) -> Result<StatusCode, Refusal> {
    actions::delete(&session, &of.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stop a job
///
/// Ends it; its checkpoints stay. What is stopped already stays so.
#[utoipa::path(post, path = "/jobs/{id}/stop", params(ask::Of, Patience), responses((status = 200, body = Changed, description = "How far it is")))]
async fn stop(session: Session, Path(of): Path<ask::Of>, Query(asked): Query<Patience>) -> Answer<Changed> {
    let run = actions::act(&session, &of.id, Action::Stop).await?;
    let run = actions::settled(&session, run, asked.wait.0, &[Phase::Stopped]).await?;
    let message = match standing::phase(&run) {
        Phase::Stopped => "Fine-tuning job stopped successfully",
        _ => "Fine-tuning job is stopping",
    };
    Ok(Json(answers::changed(&run, message)))
}

/// Restart a job
///
/// Tries one again that was stopped or has failed, with its last checkpoint or from scratch.
#[utoipa::path(
    post, path = "/jobs/{id}/restart", params(ask::Of), request_body = Option<ask::Restart>,
    responses((status = 200, body = Changed, description = "How far it is"))
)]
async fn restart(session: Session, Path(of): Path<ask::Of>, said: Said<ask::Restart>) -> Answer<Changed> {
    let action = said.value.action(&session, &of.id).await?;
    let run = actions::act(&session, &of.id, action).await?;
    Ok(Json(answers::changed(&run, "Fine-tuning job restarted successfully")))
}

/// Deploy the model of a job
///
/// Its best checkpoint, once it is completed. What serves it already is returned as it is; where that has failed, `retry` removes it and deploys
/// anew.
#[utoipa::path(
    post, path = "/jobs/{id}/deploy", params(ask::Of, ask::Deploying),
    responses((status = 200, body = Deployed, description = "What serves it, or is to"))
)]
async fn deploy(session: Session, Path(of): Path<ask::Of>, Query(asked): Query<ask::Deploying>) -> Answer<Deployed> {
    let run = runs::get(&session, &of.id).await?;
    if standing::phase(&run) != Phase::Succeeded {
        let status = job::status(standing::phase(&run)).word();
        return Err(Refusal::conflict(format!("a fine-tuning job that is {status} cannot be deployed: it must be completed")));
    }
    let checkpoint = checkpoints::result(&session, &run).await?;
    let wanted = Wanted { type_: ServingType::Normal, model_name: job::suffixed(&run), retry: asked.retry.0 };
    let deployment = deployments::deploy(&session, &checkpoint, wanted).await?;
    let deployment = deployments::settled(&session, deployment, asked.wait.0).await?;
    let status = deployments::word(&deployment);
    let message = match status {
        Word::Deployed => "Fine-tuned model deployed successfully",
        Word::Failed => "Fine-tuned model cannot be served",
        Word::Deploying => "Fine-tuned model is being deployed",
    };
    Ok(Json(Deployed { id: ids::run_id(&run.name_any()), result_model: standing::model_name(&deployment), status, message }))
}

/// Read the log of a job
///
/// What earlier attempts left and what the pod says now.
#[utoipa::path(get, path = "/jobs/{id}/logs", params(ask::Of, Lines), responses((status = 200, body = Log, description = "The newest lines, in order")))]
async fn read_log(session: Session, Path(of): Path<ask::Of>, Query(asked): Query<Lines>) -> Answer<Log> {
    let run = runs::get(&session, &of.id).await?;
    let logs = logs::read(&session, &run, asked.lines.0, asked.since.map(|since| since.0)).await?;
    Ok(Json(Log { job_id: ids::run_id(&run.name_any()), logs }))
}

/// Read the metrics of a job
///
/// The newest ones, and the curves of the run.
#[utoipa::path(get, path = "/jobs/{id}/metrics", params(ask::Of), responses((status = 200, body = Figures, description = "The metrics")))]
async fn read_metrics(session: Session, Path(of): Path<ask::Of>) -> Answer<Figures> {
    let run = runs::get(&session, &of.id).await?;
    let left = runs::history(&session, &run).await?;
    Ok(Json(figures::metrics(&run, &history::points(left.as_ref()))))
}

/// Count jobs
#[utoipa::path(get, path = "/stats", responses((status = 200, body = Stats, description = "How many jobs there are")))]
async fn stats(session: Session) -> Answer<Stats> {
    Ok(Json(figures::stats(&runs::count(&session).await?)))
}

/// List base models
#[utoipa::path(get, path = "/base-models", responses((status = 200, body = Models, description = "The base models")))]
async fn base_models(session: Session) -> Answer<Models> {
    let models = listed::base_models(&session).await?;
    Ok(Json(Models { models: models.iter().map(catalogue::base_model).collect() }))
}

/// List hardware
#[utoipa::path(get, path = "/hardware", responses((status = 200, body = HardwareList, description = "The hardware")))]
async fn hardware(session: Session) -> Answer<HardwareList> {
    let profiles = listed::hardware(&session).await?;
    Ok(Json(HardwareList { hardware: profiles.iter().map(catalogue::hardware).collect() }))
}

/// Estimate a cost
///
/// From the throughput of the base model on the hardware: what it says, or what earlier jobs have measured.
#[utoipa::path(
    post, path = "/estimate-cost", request_body = ask::EstimateCost,
    security(("bearer" = ["fine-tuning:read"]), ("key" = ["fine-tuning:read"])),
    responses(
        (status = 200, body = Estimated, description = "The estimate"),
        (status = 422, description = "Nobody knows how fast the base model trains on the hardware"),
    )
)]
async fn estimate_cost(session: Session, said: Said<ask::EstimateCost>) -> Answer<Estimated> {
    let (asked_for, size) = (said.value.base_model.clone(), said.value.dataset_size);
    let (_, estimate) = estimate::ask(&session, said.value.question()?).await?;
    Ok(Json(catalogue::estimated(&asked_for, size, &estimate)))
}
