//! The fine-tuning API of Oxen: a namespace is a namespace, a repository a label and the claim that holds its files.

mod create;
mod left;
mod run;

#[cfg(test)]
mod tests;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::Gateway;
use super::errors::Refusal;
use super::extract::{Asked, Caller, Said, idempotency_key};
use super::service::deployments::{self, Wanted};
use super::service::query::{FURTHEST, Field, Filter, Page, Sort};
use super::service::transitions::Action;
use super::service::{REPOSITORY, Session, actions, checkpoints, create as creation, ids, logs, runs};
use crate::api::{FineTune, FineTunePhase as Phase};

type Answer = Result<Json<Value>, Refusal>;

/// The routes below `/api/repos/{namespace}/{repository}/fine_tunes`.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/", get(list).post(create))
        .route("/{id}", get(retrieve).delete(remove))
        .route("/{id}/actions/run", post(start))
        .route("/{id}/actions/stop", post(stop))
        .route("/{id}/checkpoints", get(list_checkpoints))
        .route("/{id}/checkpoints/{step}/deploy", post(deploy))
        .route("/{id}/logs", get(read_log))
}

#[derive(Deserialize)]
struct Place {
    namespace: String,
    repository: String,
}

#[derive(Deserialize)]
struct At {
    namespace: String,
    repository: String,
    id: String,
}

#[derive(Deserialize)]
struct AtStep {
    namespace: String,
    repository: String,
    id: String,
    step: String,
}

/// The run of an id, in its repository and no other.
async fn run_of(session: &Session, repository: &str, id: &str) -> Result<FineTune, Refusal> {
    let run = runs::get(session, id).await?;
    let ours = run.labels().get(REPOSITORY).is_some_and(|label| label == repository);
    if ours { Ok(run) } else { Err(Refusal::no_fine_tune(id)) }
}

async fn create(
    caller: Caller,
    Path(place): Path<Place>,
    headers: HeaderMap,
    said: Said<create::CreateFineTune>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let session = caller.within(Some(&place.namespace))?;
    let key = idempotency_key(&headers)?;
    let new = create::new_run(said.value, &place.repository, key, said.fingerprint)?;
    let made = creation::create(&session, new).await?;
    let body = run::enveloped(&run::fine_tune(&made, &runs::surroundings_of(&session, &made).await?), "resource_created");
    Ok((StatusCode::CREATED, Json(body)))
}

async fn list(caller: Caller, Path(place): Path<Place>, asked: Asked) -> Answer {
    let session = caller.within(Some(&place.namespace))?;
    let (number, size) = (asked.number("page", 1, 1)?, asked.limit("page_size", 10)?);
    let offset = (number - 1).saturating_mul(size);
    if offset > FURTHEST {
        return Err(Refusal::bad("page", format!("lists end after {FURTHEST} entries: narrow them with search or status")));
    }
    let descending = match asked.text("sort") {
        None | Some("newest") => true,
        Some("oldest") => false,
        Some(_) => return Err(Refusal::bad("sort", "sort is newest or oldest")),
    };
    let wanted = asked.text("status").map(str::to_owned);
    let phases = wanted.as_deref().map(run::phases).transpose()?;
    let filter = Filter {
        phases,
        search: asked.text("search").map(str::to_owned),
        repository: Some(place.repository),
        ..Filter::default()
    };
    let around = runs::surroundings(&session).await?;
    let mut page = Page::at(Sort { field: Field::Created, descending }, offset, size);
    runs::list(&session, filter, &mut page, |found| wanted.as_ref().is_none_or(|wanted| run::status(found, &around) == wanted))
        .await?;
    let total = page.total;
    let found: Vec<Value> = page.runs().iter().map(|found| run::fine_tune(found, &around)).collect();
    Ok(Json(json!({
        "fine_tunes": found,
        "page_number": number,
        "page_size": size,
        "total_entries": total,
        "total_pages": total.div_ceil(size),
        "status": "success",
        "status_message": "resource_found",
    })))
}

async fn retrieve(caller: Caller, Path(at): Path<At>) -> Answer {
    let session = caller.within(Some(&at.namespace))?;
    let found = run_of(&session, &at.repository, &at.id).await?;
    described(&session, &found, "resource_found").await
}

async fn described(session: &Session, found: &FineTune, message: &str) -> Answer {
    Ok(Json(run::enveloped(&run::fine_tune(found, &runs::surroundings(session).await?), message)))
}

async fn remove(caller: Caller, Path(at): Path<At>) -> Answer {
    let session = caller.within(Some(&at.namespace))?;
    run_of(&session, &at.repository, &at.id).await?;
    actions::delete(&session, &at.id).await?;
    Ok(Json(json!({"status": "success", "status_message": "resource_deleted"})))
}

async fn start(caller: Caller, Path(at): Path<At>) -> Answer {
    let session = caller.within(Some(&at.namespace))?;
    run_of(&session, &at.repository, &at.id).await?;
    let changed = actions::act(&session, &at.id, Action::Run).await?;
    described(&session, &changed, "resource_updated").await
}

async fn stop(caller: Caller, Path(at): Path<At>, asked: Asked) -> Answer {
    let session = caller.within(Some(&at.namespace))?;
    run_of(&session, &at.repository, &at.id).await?;
    let changed = actions::act(&session, &at.id, Action::Stop).await?;
    let changed = actions::settled(&session, changed, asked.wait()?, &[Phase::Stopped]).await?;
    described(&session, &changed, "resource_updated").await
}

async fn list_checkpoints(caller: Caller, Path(at): Path<At>) -> Answer {
    let session = caller.within(Some(&at.namespace))?;
    let found = run_of(&session, &at.repository, &at.id).await?;
    let (all, around) = futures::try_join!(checkpoints::of_run(&session, &found), runs::surroundings(&session))?;
    Ok(Json(left::checkpoints(&found, &all, &around)))
}

async fn deploy(caller: Caller, Path(at): Path<AtStep>, asked: Asked, said: Said<create::Deploy>) -> Answer {
    let session = caller.within(Some(&at.namespace))?;
    let found = run_of(&session, &at.repository, &at.id).await?;
    let step = at.step.parse().map_err(|_| Refusal::bad("step", "step is a whole number"))?;
    let checkpoint = checkpoints::at_step(&session, &found, step).await?;
    let wanted = Wanted { type_: said.value.type_()?, model_name: None, retry: asked.flag("retry")? };
    let deployment = deployments::deploy(&session, &checkpoint, wanted).await?;
    let deployment = deployments::settled(&session, deployment, asked.wait()?).await?;
    Ok(Json(left::deployed(&run::fine_tune(&found, &runs::surroundings(&session).await?), &deployment)))
}

async fn read_log(caller: Caller, Path(at): Path<At>, asked: Asked) -> Answer {
    let session = caller.within(Some(&at.namespace))?;
    let found = run_of(&session, &at.repository, &at.id).await?;
    let since = asked.parsed("since", "a time such as 2027-01-15T07:00:00Z")?;
    let lines = logs::read(&session, &found, asked.number("lines", 100, 1)?, since).await?;
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| json!({"timestamp": line.time.map(|time| time.to_string()), "level": line.level, "message": line.message}))
        .collect();
    Ok(Json(json!({
        "fine_tune_id": ids::run_id(&found.name_any()), "logs": lines, "status": "success", "status_message": "resource_found",
    })))
}
