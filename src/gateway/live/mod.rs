//! Runs as they happen: streams of events over the objects themselves, and one page that shows them.
//!
//! The page is files without a secret. Its script asks for a key, keeps it in the tab, and sends it in a header as every other client does.

mod news;
mod page;
mod stream;
mod streams;
mod view;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::Gateway;
use super::asked::{Number, Query};
use super::errors::Refusal;
use super::extract::Said;
use super::service::deployments::{self, Wanted};
use super::service::query::Filter;
use super::service::{Session, checkpoints, logs, runs};
use crate::api::ServingType;

pub use page::router as page;
pub use streams::Streams;

/// Which runs are shown.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Runs {
    search: Option<String>,
}

/// How many lines of a log are shown, the newest.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Lines {
    lines: Number<200, 1>,
}

/// The routes below `/live/v1`.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/runs/events", get(of_project))
        .route("/runs/{name}/events", get(of_run))
        .route("/runs/{name}/logs", get(read_log))
        .route("/checkpoints/{name}/deploy", post(deploy))
}

async fn of_project(State(gateway): State<Gateway>, session: Session, Query(asked): Query<Runs>) -> Result<Response, Refusal> {
    let place = gateway.streams.enter(&session.identity.username)?;
    let filter = Filter { search: asked.search, ..Filter::default() };
    let news = stream::of_project(&session, filter);
    stream::answer(&session.project, news, place, stream::TIMING).await
}

async fn of_run(State(gateway): State<Gateway>, session: Session, Path(name): Path<String>) -> Result<Response, Refusal> {
    let place = gateway.streams.enter(&session.identity.username)?;
    let run = runs::get(&session, &name).await?;
    stream::answer(&session.project, stream::of_run(&session, &run), place, stream::TIMING).await
}

async fn read_log(session: Session, Path(name): Path<String>, Query(asked): Query<Lines>) -> Result<Json<Value>, Refusal> {
    let run = runs::get(&session, &name).await?;
    let lines = logs::read(&session, &run, asked.lines.0, None).await?;
    Ok(Json(json!({"run": run.name_any(), "lines": lines.iter().map(view::line).collect::<Vec<_>>()})))
}

/// How a checkpoint is to be served.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deploy {
    #[serde(default, rename = "type")]
    type_: ServingType,
    #[serde(default)]
    retry: bool,
}

async fn deploy(session: Session, Path(name): Path<String>, said: Said<Deploy>) -> Result<Json<Value>, Refusal> {
    let checkpoint = checkpoints::get(&session, &name).await?;
    if !checkpoints::is_usable(&checkpoint) {
        return Err(Refusal::conflict(format!("the checkpoint {name} is not verified, or goes: only a Ready one can be served")));
    }
    let Deploy { type_, retry } = said.value;
    let deployment = deployments::deploy(&session, &checkpoint, Wanted { type_, model_name: None, retry }).await?;
    Ok(Json(json!({"deployment": view::object(deployment)})))
}
