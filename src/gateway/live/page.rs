//! The page: files that are part of the program, under a policy that lets nothing else in.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::gateway::app::Gateway;

/// Everything comes from here, nothing is written into the page, and no other page may hold it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

struct File {
    name: &'static str,
    type_: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($type_:ident $name:literal),* $(,)?) => {
        &[$(File { name: $name, type_: $type_, text: include_str!(concat!("assets/", $name)) }),*]
    };
}

const IMAGE: &str = "image/svg+xml";
const INDEX: &str = "index.html";
const FILES: &[File] = files![
    HTML "index.html",
    STYLE "style.css",
    IMAGE "icon.svg",
    SCRIPT "app.js",
    SCRIPT "chart.js",
    SCRIPT "checkpoints.js",
    SCRIPT "dom.js",
    SCRIPT "list.js",
    SCRIPT "log.js",
    SCRIPT "news.js",
    SCRIPT "run.js",
    SCRIPT "sign-in.js",
];

/// The page at `/ui/`.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/ui", get(|| async { (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "ui/")]) }))
        .route("/ui/", get(|| async { shown(INDEX) }))
        .route("/ui/{file}", get(|Path(name): Path<String>| async move { shown(&name) }))
}

fn shown(name: &str) -> Response {
    let Some(file) = FILES.iter().find(|file| file.name == name) else { return StatusCode::NOT_FOUND.into_response() };
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(file.type_)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    (headers, file.text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_else_for_anything_and_has_no_script_of_its_own_in_it() {
        for file in FILES {
            let addresses = file.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!addresses.contains("://"), "{} names another place", file.name);
            for word in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "onclick=", "style="]
            {
                assert!(!file.text.contains(word), "{} mentions {word}", file.name);
            }
        }
        let index = FILES.iter().find(|file| file.name == INDEX).unwrap().text;
        assert!(!index.contains("<style") && index.matches("<script").all(|script| script == "<script"));
        assert!(index.contains("<script type=\"module\" src=\"app.js\"></script>"));
    }

    #[test]
    fn every_file_that_is_named_is_there() {
        for file in FILES.iter().filter(|file| file.type_ == SCRIPT) {
            for named in file.text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(FILES.iter().any(|file| file.name == named), "{} imports {named}", file.name);
            }
        }
    }

    #[test]
    fn a_file_comes_with_the_policy_and_nothing_else_is_served() {
        let answer = shown(INDEX);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], HTML);
        assert!(answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'none'"));
        for other in ["", "..", "mod.rs", "../page.rs", "Index.html"] {
            assert_eq!(shown(other).status(), StatusCode::NOT_FOUND, "{other}");
        }
    }
}
