//! The fine-tuning API of Oxen: a namespace is a namespace, a repository a label and the claim that holds its files.

mod ask;
mod create;
mod envelope;
mod left;
mod run;
mod script;

#[cfg(test)]
mod tests;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use kube::ResourceExt;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::envelope::{Checkpoints, Deployed, Done, Log, Many, Message, One, Success};
use super::app::Gateway;
use super::asked::{Lines, Patience, Query};
use super::errors::Refusal;
use super::extract::{Caller, Once, Said};
use super::service::deployments::{self, Wanted};
use super::service::query::{FURTHEST, Field, Filter, Page, Sort};
use super::service::transitions::Action;
use super::service::{REPOSITORY, Session, actions, checkpoints, create as creation, ids, logs, runs};
use crate::api::{FineTune, FineTunePhase as Phase};

type Answer<T> = Result<Json<T>, Refusal>;

/// The routes below `/api/repos/{namespace}/{repository}/fine_tunes`.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .routes(routes!(retrieve, remove))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(list_checkpoints))
        .routes(routes!(deploy))
        .routes(routes!(read_log))
}

/// The run of an id, in its repository and no other.
async fn run_of(session: &Session, repository: &str, id: &str) -> Result<FineTune, Refusal> {
    let run = runs::get(session, id).await?;
    let ours = run.labels().get(REPOSITORY).is_some_and(|label| label == repository);
    if ours { Ok(run) } else { Err(Refusal::no_fine_tune(id)) }
}

/// Create a fine-tune
///
/// Looks up what it names, checks its parameters against the schema of its script, and starts a FineTune.
#[utoipa::path(
    post, path = "/", params(ask::Place, Once), request_body = create::CreateFineTune,
    responses((status = 201, body = One, description = "The fine-tune"))
)]
async fn create(
    caller: Caller,
    Path(place): Path<ask::Place>,
    once: Once,
    said: Said<create::CreateFineTune>,
) -> Result<(StatusCode, Json<One>), Refusal> {
    let session = caller.within(Some(&place.namespace))?;
    let new = create::new_run(said.value, &place.repository, once.key, said.fingerprint)?;
    let made = creation::create(&session, new).await?;
    let body = One::new(run::fine_tune(&made, &runs::surroundings_of(&session, &made).await?), Message::Created);
    Ok((StatusCode::CREATED, Json(body)))
}

/// List fine-tunes
///
/// Those of the repository.
#[utoipa::path(get, path = "/", params(ask::Place, ask::FineTunes), responses((status = 200, body = Many, description = "A page of fine-tunes")))]
async fn list(caller: Caller, Path(place): Path<ask::Place>, Query(asked): Query<ask::FineTunes>) -> Answer<Many> {
    let session = caller.within(Some(&place.namespace))?;
    let (number, size) = (asked.page.0, asked.page_size.bounded());
    let offset = (number - 1).saturating_mul(size);
    if offset > FURTHEST {
        return Err(Refusal::bad("page", format!("lists end after {FURTHEST} entries: narrow them with search or status")));
    }
    let filter = Filter {
        phases: asked.status.map(run::Status::phases),
        search: asked.search,
        repository: Some(place.repository),
        ..Filter::default()
    };
    let around = runs::surroundings(&session).await?;
    let descending = asked.sort == ask::Order::Newest;
    let mut page = Page::at(Sort { field: Field::Created, descending }, offset, size);
    let also = |found: &FineTune| asked.status.is_none_or(|wanted| run::status(found, &around) == wanted);
    runs::list(&session, filter, &mut page, also).await?;
    let total = page.total;
    Ok(Json(Many {
        fine_tunes: page.runs().iter().map(|found| run::fine_tune(found, &around)).collect(),
        page_number: number,
        page_size: size,
        total_entries: total,
        total_pages: total.div_ceil(size),
        status: Success::Success,
        status_message: Message::Found,
    }))
}

/// Retrieve a fine-tune
#[utoipa::path(get, path = "/{id}", params(ask::At), responses((status = 200, body = One, description = "The fine-tune")))]
async fn retrieve(caller: Caller, Path(at): Path<ask::At>) -> Answer<One> {
    let session = caller.within(Some(&at.namespace))?;
    let found = run_of(&session, &at.repository, &at.id).await?;
    described(&session, &found, Message::Found).await
}

async fn described(session: &Session, found: &FineTune, message: Message) -> Answer<One> {
    Ok(Json(One::new(run::fine_tune(found, &runs::surroundings(session).await?), message)))
}

/// Delete a fine-tune
///
/// One that is at work has to be stopped before. Its checkpoints go with it, but for those that are served, shared or to be kept.
#[utoipa::path(delete, path = "/{id}", params(ask::At), responses((status = 200, body = Done, description = "It is going")))]
async fn remove(caller: Caller, Path(at): Path<ask::At>) -> Answer<Done> {
    let session = caller.within(Some(&at.namespace))?;
    run_of(&session, &at.repository, &at.id).await?;
    actions::delete(&session, &at.id).await?;
    Ok(Json(Done { status: Success::Success, status_message: Message::Deleted }))
}

/// Run a fine-tune
///
/// Starts one that was made without starting, goes on with one that is paused, and tries one again that was stopped or has failed.
#[utoipa::path(post, path = "/{id}/actions/run", params(ask::At), responses((status = 200, body = One, description = "The fine-tune")))]
async fn start(caller: Caller, Path(at): Path<ask::At>) -> Answer<One> {
    let session = caller.within(Some(&at.namespace))?;
    run_of(&session, &at.repository, &at.id).await?;
    let changed = actions::act(&session, &at.id, Action::Run).await?;
    described(&session, &changed, Message::Updated).await
}

/// Stop a fine-tune
///
/// Ends it; its checkpoints stay.
#[utoipa::path(post, path = "/{id}/actions/stop", params(ask::At, Patience), responses((status = 200, body = One, description = "The fine-tune")))]
async fn stop(caller: Caller, Path(at): Path<ask::At>, Query(asked): Query<Patience>) -> Answer<One> {
    let session = caller.within(Some(&at.namespace))?;
    run_of(&session, &at.repository, &at.id).await?;
    let changed = actions::act(&session, &at.id, Action::Stop).await?;
    let changed = actions::settled(&session, changed, asked.wait.0, &[Phase::Stopped]).await?;
    described(&session, &changed, Message::Updated).await
}

/// List the checkpoints of a fine-tune
///
/// Those that were verified, by step ascending; none before the first was.
#[utoipa::path(get, path = "/{id}/checkpoints", params(ask::At), responses((status = 200, body = Checkpoints, description = "The checkpoints")))]
async fn list_checkpoints(caller: Caller, Path(at): Path<ask::At>) -> Answer<Checkpoints> {
    let session = caller.within(Some(&at.namespace))?;
    let found = run_of(&session, &at.repository, &at.id).await?;
    let (all, around) = futures::try_join!(checkpoints::of_run(&session, &found), runs::surroundings(&session))?;
    Ok(Json(left::checkpoints(&found, &all, &around)))
}

/// Deploy a checkpoint
///
/// What serves it already is returned as it is; where that has failed, `retry` removes it and deploys anew.
#[utoipa::path(
    post, path = "/{id}/checkpoints/{step}/deploy", params(ask::AtStep, ask::Deploying), request_body = Option<create::Deploy>,
    responses((status = 200, body = Deployed, description = "What serves it, or is to"))
)]
async fn deploy(
    caller: Caller,
    Path(at): Path<ask::AtStep>,
    Query(asked): Query<ask::Deploying>,
    said: Said<create::Deploy>,
) -> Answer<Deployed> {
    let session = caller.within(Some(&at.namespace))?;
    let found = run_of(&session, &at.repository, &at.id).await?;
    let step = at.step.parse().map_err(|_| Refusal::bad("step", "step is a whole number"))?;
    let checkpoint = checkpoints::at_step(&session, &found, step).await?;
    let type_ = said.value.deployment_type.unwrap_or_default().into();
    let wanted = Wanted { type_, model_name: None, retry: asked.retry.0 };
    let deployment = deployments::deploy(&session, &checkpoint, wanted).await?;
    let deployment = deployments::settled(&session, deployment, asked.wait.0).await?;
    Ok(Json(left::deployed(run::fine_tune(&found, &runs::surroundings(&session).await?), &deployment)))
}

/// Read the log of a fine-tune
///
/// What earlier attempts left and what the pod says now.
#[utoipa::path(get, path = "/{id}/logs", params(ask::At, Lines), responses((status = 200, body = Log, description = "The newest lines, in order")))]
async fn read_log(caller: Caller, Path(at): Path<ask::At>, Query(asked): Query<Lines>) -> Answer<Log> {
    let session = caller.within(Some(&at.namespace))?;
    let found = run_of(&session, &at.repository, &at.id).await?;
    let lines = logs::read(&session, &found, asked.lines.0, asked.since.map(|since| since.0)).await?;
    Ok(Json(Log {
        fine_tune_id: ids::run_id(&found.name_any()),
        logs: lines,
        status: Success::Success,
        status_message: Message::Found,
    }))
}
