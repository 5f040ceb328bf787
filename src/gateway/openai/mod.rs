//! The fine-tuning API of OpenAI. Successes are always 200; lists are paged by the id of their last item.

mod ask;
mod completions;
mod create;
mod job;
mod left;
mod models;
mod object;

#[cfg(test)]
mod tests;

use axum::Json;
use axum::extract::Path;
use kube::ResourceExt;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::job::Job;
use self::left::{Event, JobCheckpoint, Permission, Revoked};
use self::object::{List, Page as Ended};
use super::app::Gateway;
use super::asked::{Patience, Query};
use super::errors::{Kind, Refusal};
use super::extract::{Once, Said};
use super::service::query::{Filter, NEWEST_FIRST, Page};
use super::service::transitions::Action;
use super::service::{Session, actions, checkpoints, create as creation, history, permissions, runs};
use crate::api::{Checkpoint, FineTune, FineTunePhase};

pub use completions::{Servers, router as completions};
pub use models::router as models;

type Answer<T> = Result<Json<T>, Refusal>;

/// The routes below `/fine_tuning`.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .routes(routes!(retrieve))
        .routes(routes!(cancel))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(events))
        .routes(routes!(list_checkpoints))
        .routes(routes!(list_permissions, grant))
        .routes(routes!(revoke))
}

/// Create a job
///
/// Looks up what it names, checks its parameters against the schema of its script, and starts a FineTune. The best checkpoint is served as soon as
/// it has succeeded.
#[utoipa::path(
    post, path = "/jobs", params(Once), request_body = create::CreateJob,
    responses((status = 200, body = Job, description = "The job"))
)]
async fn create(session: Session, once: Once, said: Said<create::CreateJob>) -> Answer<Job> {
    let new = create::new_run(said.value, once.key, said.fingerprint)?;
    let run = creation::create(&session, new).await?;
    described(&session, &run).await
}

/// List jobs
///
/// Newest first.
#[utoipa::path(get, path = "/jobs", params(ask::Jobs), responses((status = 200, body = List<Job>, description = "A page of jobs")))]
async fn list(session: Session, Query(asked): Query<ask::Jobs>) -> Answer<List<Job>> {
    let limit = asked.limit.bounded();
    let after = match asked.after {
        Some(id) => Some(NEWEST_FIRST.place(&runs::get(&session, &id).await.map_err(|refusal| unknown_cursor(refusal, &id))?)),
        None => None,
    };
    let mut page = Page::after(NEWEST_FIRST, after, limit);
    runs::list(&session, Filter { metadata: asked.metadata, ..Filter::default() }, &mut page, |_| true).await?;
    let found = page.runs();
    let around = if found.is_empty() { runs::Surroundings::default() } else { runs::surroundings(&session).await? };
    let data = found.iter().take(limit).map(|run| job::job(run, &around)).collect();
    Ok(Json(List::new(data, found.len() > limit)))
}

/// A cursor that is not there is the fault of the query, not of the URL.
fn unknown_cursor(refusal: Refusal, id: &str) -> Refusal {
    match refusal.kind {
        Kind::NotFound => Refusal::bad("after", Refusal::not_found("the item to go on after", id).message),
        _ => refusal,
    }
}

/// Retrieve a job
#[utoipa::path(get, path = "/jobs/{id}", params(ask::Job), responses((status = 200, body = Job, description = "The job")))]
async fn retrieve(session: Session, Path(of): Path<ask::Job>) -> Answer<Job> {
    let run = runs::get(&session, &of.id).await?;
    described(&session, &run).await
}

async fn described(session: &Session, run: &FineTune) -> Answer<Job> {
    Ok(Json(job::job(run, &runs::surroundings_of(session, run).await?)))
}

/// Cancel a job
///
/// Ends it for good; its checkpoints stay. What is cancelled already stays so.
#[utoipa::path(post, path = "/jobs/{id}/cancel", params(ask::Job, Patience), responses((status = 200, body = Job, description = "The job")))]
async fn cancel(session: Session, Path(of): Path<ask::Job>, Query(asked): Query<Patience>) -> Answer<Job> {
    let run = actions::act(&session, &of.id, Action::Stop).await?;
    let run = actions::settled(&session, run, asked.wait.0, &[FineTunePhase::Stopped]).await?;
    described(&session, &run).await
}

/// Pause a job
///
/// Saves a checkpoint and gives its hardware back.
#[utoipa::path(post, path = "/jobs/{id}/pause", params(ask::Job, Patience), responses((status = 200, body = Job, description = "The job")))]
async fn pause(session: Session, Path(of): Path<ask::Job>, Query(asked): Query<Patience>) -> Answer<Job> {
    let run = actions::act(&session, &of.id, Action::Pause).await?;
    let run = actions::settled(&session, run, asked.wait.0, &[FineTunePhase::Paused]).await?;
    described(&session, &run).await
}

/// Resume a job
///
/// It goes on from its last checkpoint.
#[utoipa::path(post, path = "/jobs/{id}/resume", params(ask::Job), responses((status = 200, body = Job, description = "The job")))]
async fn resume(session: Session, Path(of): Path<ask::Job>) -> Answer<Job> {
    let run = actions::act(&session, &of.id, Action::Resume).await?;
    described(&session, &run).await
}

/// List the events of a job
///
/// Newest first.
#[utoipa::path(get, path = "/jobs/{id}/events", params(ask::Job, ask::Events), responses((status = 200, body = List<Event>, description = "A page of events")))]
async fn events(session: Session, Path(of): Path<ask::Job>, Query(asked): Query<ask::Events>) -> Answer<List<Event>> {
    let run = runs::get(&session, &of.id).await?;
    let left = runs::history(&session, &run).await?;
    let all = history::events(&run, left.as_ref()).iter().map(left::event).collect();
    List::after(all, asked.after.as_deref(), asked.limit).map(Json)
}

/// List the checkpoints of a job
///
/// Those that were verified, newest first.
#[utoipa::path(
    get, path = "/jobs/{id}/checkpoints", params(ask::Job, ask::Checkpoints),
    responses((status = 200, body = Ended<JobCheckpoint>, description = "A page of checkpoints"))
)]
async fn list_checkpoints(
    session: Session,
    Path(of): Path<ask::Job>,
    Query(asked): Query<ask::Checkpoints>,
) -> Answer<Ended<JobCheckpoint>> {
    let run = runs::get(&session, &of.id).await?;
    let newest_first = checkpoints::of_run(&session, &run).await?.into_iter().rev();
    let all = newest_first.map(|checkpoint| left::checkpoint(&checkpoint, &run.name_any())).collect();
    List::after(all, asked.after.as_deref(), asked.limit).map(|list| Json(list.with_ends()))
}

/// List the permissions of a checkpoint
///
/// Which projects may use it, those that hold of all checkpoints of its job included.
#[utoipa::path(
    get, path = "/checkpoints/{checkpoint}/permissions", params(ask::Checkpoint, ask::Permissions),
    responses((status = 200, body = Ended<Permission>, description = "A page of permissions"))
)]
async fn list_permissions(
    session: Session,
    Path(of): Path<ask::Checkpoint>,
    Query(asked): Query<ask::Permissions>,
) -> Answer<Ended<Permission>> {
    let checkpoint: Checkpoint = checkpoints::get(&session, &of.checkpoint).await?;
    let mut all = permissions::list(&session, &checkpoint).await?;
    if asked.order == ask::Order::Ascending {
        all.reverse();
    }
    if let Some(project) = asked.project_id {
        all.retain(|permission| permission.spec.project == project);
    }
    let all = all.iter().map(left::permission).collect();
    List::after(all, asked.after.as_deref(), asked.limit).map(|list| Json(list.with_ends()))
}

/// Share a checkpoint
///
/// Lets projects use it. A project that may already keeps the permission it has.
#[utoipa::path(
    post, path = "/checkpoints/{checkpoint}/permissions", params(ask::Checkpoint), request_body = create::CreatePermissions,
    responses((status = 200, body = Ended<Permission>, description = "One permission for each project"))
)]
async fn grant(
    session: Session,
    Path(of): Path<ask::Checkpoint>,
    said: Said<create::CreatePermissions>,
) -> Answer<Ended<Permission>> {
    let checkpoint = checkpoints::get(&session, &of.checkpoint).await?;
    let granted = permissions::grant(&session, &checkpoint, &said.value.project_ids).await?;
    Ok(Json(List::new(granted.iter().map(left::permission).collect(), false).with_ends()))
}

/// Take a permission back
#[utoipa::path(
    delete, path = "/checkpoints/{checkpoint}/permissions/{permission}", params(ask::Permission),
    responses((status = 200, body = Revoked, description = "It is gone"))
)]
async fn revoke(session: Session, Path(of): Path<ask::Permission>) -> Answer<Revoked> {
    let checkpoint = checkpoints::get(&session, &of.checkpoint).await?;
    let gone = permissions::revoke(&session, &checkpoint, &of.permission).await?;
    Ok(Json(left::revoked(&gone)))
}
