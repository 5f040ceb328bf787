//! The API document: OpenAPI 3.1 of every route, collected from the handlers themselves.
//!
//! What handlers say of their parameters, bodies and answers comes from their types; `shared` adds what every operation of a dialect shares, and `answers`
//! what holds of every answer. Pure.

mod answers;
mod shared;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

use super::app;

/// What the document says of the API as a whole.
const ABOUT: &str = "Three existing APIs for fine-tuning over the kinds of finetune-operator: that of OpenAI, that of Oxen and that of Strongly. \
A run made by any of them, or by `kubectl`, is seen by all.\n\n\
A key is a Kubernetes token. The gateway forwards it to the API server, and RBAC decides. The scope `fine-tuning:read` is the ClusterRole \
`finetune-operator-view`, `fine-tuning:write` is `finetune-operator-edit`.\n\n\
The operations of OpenAI below `/v1/fine_tuning` and `/v1/models` are there without `/v1` too. Every answer carries `X-Request-Id`, taken from the \
request where that had one. Every documented key of an answer is there, null where there is nothing.";

/// The document as it is served and checked in.
#[must_use]
pub fn text() -> String {
    let (_, api) = app::routes().split_for_parts();
    format!("{:#}\n", finished(&api))
}

/// What handlers say, and what they all share.
fn finished(api: &OpenApi) -> Value {
    let mut document = json!(api);
    document["info"] = json!({
        "title": "Fine-tuning",
        "version": env!("CARGO_PKG_VERSION"),
        "description": ABOUT,
        "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
    });
    document["servers"] = json!([{"url": "/"}]);
    document["tags"] = shared::tags();
    shared::add(&mut document);
    answers::complete(&mut document);
    document
}
