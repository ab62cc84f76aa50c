//! What there is on the admin port: paths, bounds of bodies, and what holds for every request.
//!
//! Knows: routes. Must not know: how a request is carried out.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::time::timeout;

use super::{api, bulk, error::ApiError, guard, page, proxy::Proxy};
use crate::{journal::Figures, logging::DroppedLines, settings::Settings, shared::Shared};

/// What handlers need.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) proxy: Proxy,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Settings,
    pub(super) hosts: Vec<String>,
    pub(super) data_port: u16,
    pub(super) lines_dropped: Option<DroppedLines>,
    pub(super) journal: Option<Arc<Figures>>,
}

pub(super) fn router(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    let publish_bytes_max = admin.settings.publish_bytes_max as usize;
    let bulk_bytes_max = bulk::body_bytes_max(publish_bytes_max);
    Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(api::ready))
        .route("/metrics", get(api::metrics))
        .route("/v1/stats", get(api::stats))
        .route("/v1/connections", get(api::connections))
        .route("/v1/topics", get(api::topics))
        .route("/v1/topics/{topic}", get(api::topic).post(api::publish).delete(api::delete))
        .layer(DefaultBodyLimit::max(publish_bytes_max))
        // After the layer above, which therefore does not hold for it.
        .route("/v1/publish", post(bulk::publish).layer(DefaultBodyLimit::max(bulk_bytes_max)))
        .fallback(|| async { ApiError::not_found("no such path") })
        .method_not_allowed_fallback(|| async {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            ApiError::new(status, "method_not_allowed", "not with this method")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), every_request))
        .with_state(admin)
}

async fn every_request(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    guard::check(request.method(), request.headers(), &admin.hosts)?;
    let Ok(mut response) = timeout(REQUEST_TIMEOUT, next.run(request)).await else {
        let message = "the request did not come, or was not carried out, in time";
        return Ok(ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message).into_response());
    };
    let headers = response.headers_mut();
    // Nothing here is to be taken for something else, framed, or kept.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// From a request's head to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
