//! The live page: one file, nothing fetched from elsewhere.
//!
//! Knows: its headers. Must not know: what it shows.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}

const PAGE: &str = include_str!("page.html");
/// What is in the page may run; it may speak to this port, and by WebSocket to the data port, whose
/// number and name it learns only when asked.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
