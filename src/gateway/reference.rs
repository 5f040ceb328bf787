//! The API document and a page that shows it. Neither needs a key, nor anything from elsewhere.

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::app::Gateway;
use super::document;

/// What the page may load: its own files and the document.
const POLICY: &str =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

static DOCUMENT: LazyLock<String> = LazyLock::new(document::text);

/// The routes.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(openapi)).routes(routes!(page)).routes(routes!(script)).routes(routes!(style))
}

/// Read the API document
///
/// This very document, as OpenAPI 3.1.
#[utoipa::path(
    get, path = "/openapi.json", security(),
    responses((status = 200, description = "The document", body = Object, content_type = "application/json"))
)]
async fn openapi() -> impl IntoResponse {
    of_type("application/json", DOCUMENT.as_str())
}

/// Read the API reference
///
/// The document as a page for people.
#[utoipa::path(
    get, path = "/docs", security(),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
async fn page() -> impl IntoResponse {
    of_type("text/html; charset=utf-8", include_str!("reference/page.html"))
}

/// Read the script of the API reference
#[utoipa::path(
    get, path = "/docs/page.js", security(),
    responses((status = 200, description = "The script", body = String, content_type = "text/javascript"))
)]
async fn script() -> impl IntoResponse {
    of_type("text/javascript; charset=utf-8", include_str!("reference/page.js"))
}

/// Read the style of the API reference
#[utoipa::path(
    get, path = "/docs/page.css", security(),
    responses((status = 200, description = "The style", body = String, content_type = "text/css"))
)]
async fn style() -> impl IntoResponse {
    of_type("text/css; charset=utf-8", include_str!("reference/page.css"))
}

fn of_type(type_: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, HeaderValue); 2] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(type_)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    (headers, text)
}
