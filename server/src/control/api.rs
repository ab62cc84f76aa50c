//! The admin API, one request at a time.
//!
//! Knows: parameters and answers. Must not know: the mesh, sockets.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uringcast_protocol::{command::ErrorCode, topic_name};

use super::{
    admin::Admin,
    asks::Published,
    error::ApiError,
    merge, metrics as text, process,
    proxy::{Draft, Pending},
    stats as figures,
};
use crate::{
    clock,
    home::topic_hash,
    logging::DroppedLines,
    mail::{Question, TopicReport},
    payload::{self, Claim},
    rules::Content,
    shared::Stage,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishQuery {
    pub_seq: Option<u64>,
    snapshot: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicsQuery {
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectionsQuery {
    sort: Option<String>,
    limit: Option<u32>,
}

/// A publication's place, as it is answered.
#[derive(Debug, Serialize)]
pub(super) struct Placed {
    topic: String,
    epoch: String,
    seq: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    snapshot_wanted: bool,
}

const SLOWED: &str = "subscribers can't be served as fast as this; try again";

impl Admin {
    /// Whether all publishers are to be slowed, or it is no time for them.
    pub(super) fn accepts_publications(&self) -> Result<(), ApiError> {
        match self.shared.stage() {
            Stage::Ready if self.shared.any_overloaded() => Err(ApiError::busy(SLOWED)),
            Stage::Ready => Ok(()),
            Stage::Starting => Err(ApiError::busy("starting")),
            Stage::Draining | Stage::Aborting => Err(ApiError::busy("shutting down")),
        }
    }

    /// The same for those of one topic.
    pub(super) fn accepts_publications_to(&self, topic: &str) -> Result<(), ApiError> {
        self.accepts_publications()?;
        let late = &self.shared.late;
        let hash = topic_hash(self.shared.hash_seed, topic);
        if late.is_late(hash, clock::now().ns) { Err(ApiError::busy(SLOWED)) } else { Ok(()) }
    }

    /// The content rule of a topic: the first that matches.
    pub(super) fn content_rule(&self, topic: &str) -> Content {
        let rules = &self.settings.rules;
        rules.rule(rules.of(topic)).content
    }
}

impl Placed {
    /// Waits for a publication's verdict.
    pub(super) async fn wait(topic: String, pending: Pending) -> Result<Self, ApiError> {
        let Published { epoch, seq, duplicate, snapshot_wanted } =
            pending.verdict().await?.map_err(ApiError::refused)?;
        Ok(Self { topic, epoch: format!("{epoch:016x}"), seq, duplicate, snapshot_wanted })
    }
}

pub(super) async fn publish(
    State(admin): State<Arc<Admin>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<PublishQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Placed>, ApiError> {
    let topic = topic_of(path)?;
    let query = parameters(query)?;
    let payload = whole(body, admin.settings.publish_bytes_max as usize)?;
    admin.accepts_publications_to(&topic)?;
    let content = payload::settle(admin.content_rule(&topic), claim(&headers), &payload)?;
    let snapshot = query.snapshot.unwrap_or(0) != 0;
    let pub_seq = query.pub_seq;
    let draft = Draft { topic: topic.as_str().into(), content, payload, pub_seq, snapshot };
    let pending = admin.proxy.publish(draft)?;
    Placed::wait(topic, pending).await.map(Json)
}

pub(super) async fn delete(
    State(admin): State<Arc<Admin>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Deleted {
        topic: String,
        deleted: bool,
    }
    let topic = topic_of(path)?;
    admin.accepts_publications()?;
    let answers = admin.proxy.delete(topic.as_str().into()).await?;
    if !merge::deleted(&answers) {
        return Err(ApiError::not_found("no such topic"));
    }
    Ok(Json(Deleted { topic, deleted: true }).into_response())
}

pub(super) async fn topic(
    State(admin): State<Arc<Admin>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<TopicReport>, ApiError> {
    let topic = topic_of(path)?;
    let answers = admin.proxy.ask(Question::Topic { topic: topic.into() }).await?;
    merge::topic(answers).map(Json).ok_or_else(|| ApiError::not_found("no such topic"))
}

pub(super) async fn topics(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<TopicsQuery>, QueryRejection>,
) -> Result<Json<merge::TopicPage>, ApiError> {
    let query = parameters(query)?;
    let limit = limit(query.limit)?;
    let question = Question::Topics { after: query.after.map(Into::into), limit };
    let answers = admin.proxy.ask(question).await?;
    Ok(Json(merge::topics(answers, limit as usize)))
}

pub(super) async fn connections(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<ConnectionsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Connections {
        connections: Vec<merge::PlacedConnection>,
    }
    let query = parameters(query)?;
    let limit = limit(query.limit)?;
    let by_lag = match query.sort.as_deref() {
        None => false,
        Some("lag") => true,
        Some(_) => return Err(ApiError::bad_request("sort wants lag")),
    };
    let answers = admin.proxy.ask(Question::Connections { limit, by_lag }).await?;
    let connections = merge::connections(answers, limit as usize, by_lag);
    Ok(Json(Connections { connections }).into_response())
}

pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> Result<&'static str, ApiError> {
    match admin.shared.stage() {
        Stage::Ready => Ok("ready\n"),
        Stage::Starting => Err(ApiError::busy("starting")),
        Stage::Draining | Stage::Aborting => Err(ApiError::busy("shutting down")),
    }
}

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let lines_dropped = admin.lines_dropped.as_ref().map_or(0, DroppedLines::count);
    let page =
        text::page(&admin.shared, &process::usage(), lines_dropped, admin.journal.as_deref());
    ([(header::CONTENT_TYPE, text::CONTENT_TYPE)], page).into_response()
}

pub(super) async fn stats(State(admin): State<Arc<Admin>>) -> Json<figures::Stats> {
    Json(figures::stats(&admin.shared, admin.data_port))
}

/// A body that came whole and within its bound.
pub(super) fn whole(
    body: Result<Bytes, BytesRejection>,
    bytes_max: usize,
) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(bytes_max),
        _ => ApiError::bad_request("the body did not come whole"),
    })
}

fn topic_of(path: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    let Path(topic) = path.map_err(|_| ApiError::bad_request("the path is not UTF-8"))?;
    topic_name::validate_name(&topic)
        .map_err(|error| ApiError::code(ErrorCode::TopicInvalid, error.to_string()))?;
    Ok(topic)
}

fn parameters<T: DeserializeOwned>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query
        .map(|Query(query)| query)
        .map_err(|rejection| ApiError::bad_request(rejection.body_text()))
}

fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        _ => Err(ApiError::bad_request(format!("limit wants 1 to {LIMIT_MAX}"))),
    }
}

/// What the publisher says of the payload: `application/json`, `text/*`, `application/octet-stream`;
/// any other type says nothing.
fn claim(headers: &HeaderMap) -> Claim {
    let header = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = header.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Claim::Json,
        "application/octet-stream" => Claim::Binary,
        text if text.starts_with("text/") => Claim::Text,
        _ => Claim::Unknown,
    }
}

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        let said = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().expect("a header's value"));
            claim(&headers)
        };
        assert_eq!(said("application/json; charset=utf-8"), Claim::Json);
        assert_eq!(said("Text/Plain"), Claim::Text);
        assert_eq!(said("application/octet-stream"), Claim::Binary);
        assert_eq!(said("application/x-www-form-urlencoded"), Claim::Unknown);
        assert_eq!(claim(&HeaderMap::new()), Claim::Unknown);
    }
}
