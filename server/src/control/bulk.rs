//! `POST /v1/publish`: many publications in one request, a line of JSON each.
//!
//! Knows: lines in, lines out. Must not know: the mesh. Lines are answered in their order, one for
//! one; a wrong line does not stop those after it.

use std::{io::Write as _, sync::Arc};

use axum::{
    extract::{State, rejection::BytesRejection},
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use uringcast_protocol::{
    command::ErrorCode,
    publish::{parse_publish_line, publish_lines},
};

use super::{
    admin::Admin,
    api::{self, Placed},
    error::{ApiError, Body},
    proxy::{Draft, Pending},
};
use crate::payload;

/// What the body of such a request may have, bytes.
pub(super) fn body_bytes_max(publish_bytes_max: usize) -> usize {
    BODY_BYTES_MIN.max(publish_bytes_max)
}

pub(super) async fn publish(
    State(admin): State<Arc<Admin>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = api::whole(body, body_bytes_max(admin.settings.publish_bytes_max as usize))?;
    admin.accepts_publications()?;
    let mut lines = publish_lines(&body);
    if publish_lines(&body).nth(LINES_MAX).is_some() {
        let message = format!("more than {LINES_MAX} lines");
        return Err(ApiError::code(ErrorCode::PayloadTooLarge, message));
    }
    let mut out = Vec::new();
    let mut number = 0;
    loop {
        // All of a batch are on their way before the first is waited for.
        let batch: Vec<_> =
            lines.by_ref().take(BATCH_LINES).map(|line| send(&admin, line)).collect();
        if batch.is_empty() {
            break;
        }
        for sent in batch {
            number += 1;
            let placed = match sent {
                Ok((topic, pending)) => Placed::wait(topic, pending).await,
                Err(error) => Err(error),
            };
            write_line(&mut out, number, &placed);
        }
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], out).into_response())
}

fn send(admin: &Admin, line: &[u8]) -> Result<(String, Pending), ApiError> {
    let line =
        parse_publish_line(line).map_err(|error| ApiError::code(error.code, error.message))?;
    let (content, bytes) = payload::settle_data(admin.content_rule(&line.topic), &line.data)?;
    if bytes.len() > admin.settings.publish_bytes_max as usize {
        return Err(ApiError::too_large(admin.settings.publish_bytes_max as usize));
    }
    admin.accepts_publications_to(&line.topic)?;
    let payload = Bytes::copy_from_slice(&bytes);
    let topic = line.topic.into_owned();
    let (pub_seq, snapshot) = (line.pub_seq, line.snapshot);
    let draft = Draft { topic: topic.as_str().into(), content, payload, pub_seq, snapshot };
    Ok((topic, admin.proxy.publish(draft)?))
}

fn write_line(out: &mut Vec<u8>, line: usize, placed: &Result<Placed, ApiError>) {
    #[derive(Serialize)]
    struct Failed<'a> {
        /// From 1, empty lines not counted.
        line: usize,
        error: &'a Body,
    }
    let written = match placed {
        Ok(placed) => serde_json::to_writer(&mut *out, placed),
        Err(error) => serde_json::to_writer(&mut *out, &Failed { line, error: error.body() }),
    };
    written.expect("strings and numbers into memory");
    out.write_all(b"\n").expect("into memory");
}

/// Lines on their way to the shards at a time, for one request.
const BATCH_LINES: usize = 64;
/// Lines of a request; their answers are 1 MB.
const LINES_MAX: usize = 10_000;
const BODY_BYTES_MIN: usize = 8 << 20;
