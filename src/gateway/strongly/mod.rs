//! The fine-tuning API of Strongly, endpoint by endpoint as it is documented.

mod ask;
mod catalogue;
mod job;

#[cfg(test)]
mod tests;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::app::Gateway;
use super::errors::Refusal;
use super::extract::{Asked, Said, idempotency_key};
use super::service::deployments::{self, Wanted};
use super::service::query::{Filter, NEWEST_FIRST, Page};
use super::service::transitions::Action;
use super::service::{
    Session, actions, catalogue as listed, checkpoints, create as creation, estimate, history, ids, logs, runs, standing,
};
use crate::api::{FineTunePhase as Phase, ServingType};

type Answer = Result<Json<Value>, Refusal>;

/// The routes below `/api/v1/fine-tuning`.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/jobs", get(list).post(create))
        .route("/jobs/{id}", get(retrieve).delete(remove))
        .route("/jobs/{id}/stop", post(stop))
        .route("/jobs/{id}/restart", post(restart))
        .route("/jobs/{id}/deploy", post(deploy))
        .route("/jobs/{id}/logs", get(read_log))
        .route("/jobs/{id}/metrics", get(read_metrics))
        .route("/stats", get(stats))
        .route("/base-models", get(base_models))
        .route("/hardware", get(hardware))
        .route("/estimate-cost", post(estimate_cost))
}

async fn list(session: Session, asked: Asked) -> Answer {
    let (limit, offset) = (asked.limit("limit", 20)?, ask::offset(&asked)?);
    let phases = asked.text("status").map(job::phases).transpose()?;
    let sort = asked.text("sort").map(ask::sort).transpose()?.unwrap_or(NEWEST_FIRST);
    let (base_model, search) = (asked.text("baseModel").map(str::to_owned), asked.text("search").map(str::to_owned));
    let mut page = Page::at(sort, offset, limit);
    runs::list(&session, Filter { phases, base_model, search, ..Filter::default() }, &mut page, |_| true).await?;
    let count = page.total;
    let jobs: Vec<Value> = page.runs().iter().map(job::summary).collect();
    Ok(Json(json!({"count": count, "limit": limit, "offset": offset, "jobs": jobs})))
}

async fn create(session: Session, headers: HeaderMap, said: Said<ask::CreateJob>) -> Result<(StatusCode, Json<Value>), Refusal> {
    let key = idempotency_key(&headers)?;
    let run = creation::create(&session, ask::new_run(said.value, key, said.fingerprint)?).await?;
    Ok((StatusCode::CREATED, Json(job::created(&run))))
}

async fn retrieve(session: Session, Path(id): Path<String>) -> Answer {
    let run = runs::get(&session, &id).await?;
    Ok(Json(job::job(&run, &runs::surroundings(&session).await?)))
}

async fn remove(session: Session, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    actions::delete(&session, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop(session: Session, Path(id): Path<String>, asked: Asked) -> Answer {
    let run = actions::act(&session, &id, Action::Stop).await?;
    let run = actions::settled(&session, run, asked.wait()?, &[Phase::Stopped]).await?;
    let message = match standing::phase(&run) {
        Phase::Stopped => "Fine-tuning job stopped successfully",
        _ => "Fine-tuning job is stopping",
    };
    Ok(Json(job::changed(&run, message)))
}

async fn restart(session: Session, Path(id): Path<String>, said: Said<ask::Restart>) -> Answer {
    let action = said.value.action(&session, &id).await?;
    let run = actions::act(&session, &id, action).await?;
    Ok(Json(job::changed(&run, "Fine-tuning job restarted successfully")))
}

async fn deploy(session: Session, Path(id): Path<String>, asked: Asked) -> Answer {
    let run = runs::get(&session, &id).await?;
    if standing::phase(&run) != Phase::Succeeded {
        let status = job::status(standing::phase(&run));
        return Err(Refusal::conflict(format!("a fine-tuning job that is {status} cannot be deployed: it must be completed")));
    }
    let checkpoint = checkpoints::result(&session, &run).await?;
    let wanted = Wanted { type_: ServingType::Normal, model_name: job::suffixed(&run), retry: asked.flag("retry")? };
    let deployment = deployments::deploy(&session, &checkpoint, wanted).await?;
    let deployment = deployments::settled(&session, deployment, asked.wait()?).await?;
    let word = deployments::word(&deployment);
    let message = match word {
        "deployed" => "Fine-tuned model deployed successfully",
        "failed" => "Fine-tuned model cannot be served",
        _ => "Fine-tuned model is being deployed",
    };
    let model = standing::model_name(&deployment);
    Ok(Json(json!({"id": ids::run_id(&run.name_any()), "resultModel": model, "status": word, "message": message})))
}

async fn read_log(session: Session, Path(id): Path<String>, asked: Asked) -> Answer {
    let run = runs::get(&session, &id).await?;
    let since = asked.parsed("since", "an ISO 8601 time such as 2027-01-15T07:00:00Z")?;
    let lines = logs::read(&session, &run, asked.number("lines", 100, 1)?, since).await?;
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| json!({"timestamp": line.time.map(|time| time.to_string()), "level": line.level, "message": line.message}))
        .collect();
    Ok(Json(json!({"jobId": ids::run_id(&run.name_any()), "logs": lines})))
}

async fn read_metrics(session: Session, Path(id): Path<String>) -> Answer {
    let run = runs::get(&session, &id).await?;
    let left = runs::history(&session, &run).await?;
    Ok(Json(job::metrics(&run, &history::points(left.as_ref()))))
}

async fn stats(session: Session) -> Answer {
    Ok(Json(job::stats(&runs::count(&session).await?)))
}

async fn base_models(session: Session) -> Answer {
    let models = listed::base_models(&session).await?;
    Ok(Json(json!({"models": models.iter().map(catalogue::base_model).collect::<Vec<_>>()})))
}

async fn hardware(session: Session) -> Answer {
    let profiles = listed::hardware(&session).await?;
    Ok(Json(json!({"hardware": profiles.iter().map(catalogue::hardware).collect::<Vec<_>>()})))
}

async fn estimate_cost(session: Session, said: Said<ask::EstimateCost>) -> Answer {
    let (asked_for, size) = (said.value.base_model.clone(), said.value.dataset_size);
    let (_, estimate) = estimate::ask(&session, said.value.question()?).await?;
    Ok(Json(catalogue::estimated(&asked_for, size, &estimate)))
}
