//! The fine-tuning API of OpenAI. Successes are always 200; lists are paged by the id of their last item.

mod completions;
mod create;
mod job;
mod left;
mod models;

#[cfg(test)]
mod tests;

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::app::Gateway;
use super::errors::Refusal;
use super::extract::{Asked, Said, idempotency_key};
use super::service::query::{Filter, NEWEST_FIRST, Page};
use super::service::transitions::Action;
use super::service::{Session, actions, checkpoints, create as creation, history, permissions, runs};
use crate::api::{Checkpoint, FineTune, FineTunePhase};

pub use completions::{Servers, router as completions};
pub use models::router as models;

type Answer = Result<Json<Value>, Refusal>;

/// The routes below `/fine_tuning`.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/jobs", get(list).post(create))
        .route("/jobs/{id}", get(retrieve))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/jobs/{id}/pause", post(pause))
        .route("/jobs/{id}/resume", post(resume))
        .route("/jobs/{id}/events", get(events))
        .route("/jobs/{id}/checkpoints", get(list_checkpoints))
        .route("/checkpoints/{checkpoint}/permissions", get(list_permissions).post(grant))
        .route("/checkpoints/{checkpoint}/permissions/{permission}", delete(revoke))
}

async fn create(session: Session, headers: HeaderMap, said: Said<create::CreateJob>) -> Answer {
    let key = idempotency_key(&headers)?;
    let new = create::new_run(said.value, key, said.fingerprint)?;
    let run = creation::create(&session, new).await?;
    described(&session, &run).await
}

async fn list(session: Session, asked: Asked) -> Answer {
    let limit = asked.limit("limit", 20)?;
    let after = match asked.text("after") {
        Some(id) => Some(NEWEST_FIRST.place(&runs::get(&session, id).await.map_err(|refusal| unknown_cursor(refusal, id))?)),
        None => None,
    };
    let metadata = asked.bracketed("metadata").map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let mut page = Page::after(NEWEST_FIRST, after, limit);
    runs::list(&session, Filter { metadata, ..Filter::default() }, &mut page, |_| true).await?;
    let found = page.runs();
    let around = if found.is_empty() { runs::Surroundings::default() } else { runs::surroundings(&session).await? };
    let data: Vec<Value> = found.iter().take(limit).map(|run| job::job(run, &around)).collect();
    Ok(Json(json!({"object": "list", "data": data, "has_more": found.len() > limit})))
}

/// A cursor that is not there is the fault of the query, not of the URL.
fn unknown_cursor(refusal: Refusal, id: &str) -> Refusal {
    match refusal.kind {
        super::errors::Kind::NotFound => Refusal::bad("after", Refusal::not_found("the item to go on after", id).message),
        _ => refusal,
    }
}

async fn retrieve(session: Session, Path(id): Path<String>) -> Answer {
    let run = runs::get(&session, &id).await?;
    described(&session, &run).await
}

async fn described(session: &Session, run: &FineTune) -> Answer {
    Ok(Json(job::job(run, &runs::surroundings_of(session, run).await?)))
}

async fn cancel(session: Session, Path(id): Path<String>, asked: Asked) -> Answer {
    let run = actions::act(&session, &id, Action::Stop).await?;
    let run = actions::settled(&session, run, asked.wait()?, &[FineTunePhase::Stopped]).await?;
    described(&session, &run).await
}

async fn pause(session: Session, Path(id): Path<String>, asked: Asked) -> Answer {
    let run = actions::act(&session, &id, Action::Pause).await?;
    let run = actions::settled(&session, run, asked.wait()?, &[FineTunePhase::Paused]).await?;
    described(&session, &run).await
}

async fn resume(session: Session, Path(id): Path<String>) -> Answer {
    let run = actions::act(&session, &id, Action::Resume).await?;
    described(&session, &run).await
}

async fn events(session: Session, Path(id): Path<String>, asked: Asked) -> Answer {
    let run = runs::get(&session, &id).await?;
    let left = runs::history(&session, &run).await?;
    let all: Vec<Value> = history::events(&run, left.as_ref()).iter().map(left::event).collect();
    let (data, has_more) = left::page(all, asked.text("after"), asked.limit("limit", 20)?)?;
    Ok(Json(json!({"object": "list", "data": data, "has_more": has_more})))
}

async fn list_checkpoints(session: Session, Path(id): Path<String>, asked: Asked) -> Answer {
    let run = runs::get(&session, &id).await?;
    let newest_first = checkpoints::of_run(&session, &run).await?.into_iter().rev();
    let all = newest_first.map(|checkpoint| left::checkpoint(&checkpoint, &run.name_any())).collect();
    left::list(all, &asked).map(Json)
}

async fn list_permissions(session: Session, Path(id): Path<String>, asked: Asked) -> Answer {
    let checkpoint: Checkpoint = checkpoints::get(&session, &id).await?;
    let mut all = permissions::list(&session, &checkpoint).await?;
    match asked.text("order") {
        None | Some("descending") => {}
        Some("ascending") => all.reverse(),
        Some(_) => return Err(Refusal::bad("order", "order is ascending or descending")),
    }
    if let Some(project) = asked.text("project_id") {
        all.retain(|permission| permission.spec.project == project);
    }
    left::list(all.iter().map(left::permission).collect(), &asked).map(Json)
}

async fn grant(session: Session, Path(id): Path<String>, said: Said<create::CreatePermissions>) -> Answer {
    let checkpoint = checkpoints::get(&session, &id).await?;
    let granted = permissions::grant(&session, &checkpoint, &said.value.project_ids).await?;
    let data: Vec<Value> = granted.iter().map(left::permission).collect();
    Ok(Json(left::listed(&data, false)))
}

async fn revoke(session: Session, Path((checkpoint, id)): Path<(String, String)>) -> Answer {
    let checkpoint = checkpoints::get(&session, &checkpoint).await?;
    let gone = permissions::revoke(&session, &checkpoint, &id).await?;
    Ok(Json(left::revoked(&gone)))
}
