//! What a request on the admin port is told when it fails.
//!
//! Knows: codes, statuses, and the JSON around them. Must not know: what was tried.

use std::borrow::Cow;

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use uringcast_protocol::command::ErrorCode;

use super::proxy::NoAnswer;
use crate::payload::PayloadInvalid;

/// `{"error":{"code","message"}}` with its status.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    error: Body,
}

/// For programs and for people.
#[derive(Debug, Serialize)]
pub(super) struct Body {
    code: &'static str,
    message: Cow<'static, str>,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, error: Body { code, message: message.into() } }
    }

    /// One of the protocol's codes, with the status that fits it.
    pub(super) fn code(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        let status = match code {
            ErrorCode::BadRequest | ErrorCode::PayloadInvalid | ErrorCode::TopicInvalid => {
                StatusCode::BAD_REQUEST
            }
            ErrorCode::Busy => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            // A bound that only a flag can raise: trying again helps nobody.
            ErrorCode::Limit => StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::NotSubscribed | ErrorCode::OpUnknown => StatusCode::NOT_FOUND,
            ErrorCode::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::SnapshotUnavailable => StatusCode::NOT_IMPLEMENTED,
        };
        Self::new(status, code.as_str(), message)
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::code(ErrorCode::BadRequest, message)
    }

    pub(super) fn busy(message: &'static str) -> Self {
        Self::code(ErrorCode::Busy, message)
    }

    pub(super) fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::code(ErrorCode::Forbidden, message)
    }

    pub(super) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn too_large(bytes_max: usize) -> Self {
        Self::code(ErrorCode::PayloadTooLarge, format!("more than {bytes_max} bytes"))
    }

    /// What a shard said.
    pub(super) fn refused(code: ErrorCode) -> Self {
        let message = match code {
            ErrorCode::Busy => "too much is going on; try again",
            ErrorCode::Limit => "a bound was reached, such as --topics-max",
            ErrorCode::PayloadInvalid => "the payload is not what the topic's rule says",
            _ => "refused by the topic's shard",
        };
        Self::code(code, message)
    }

    /// Without the status, for one line of many.
    pub(super) fn body(&self) -> &Body {
        &self.error
    }
}

impl From<NoAnswer> for ApiError {
    fn from(reason: NoAnswer) -> Self {
        match reason {
            NoAnswer::Busy => Self::busy("too many requests are outstanding; try again"),
            NoAnswer::Late => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "a shard did not answer in time; what was asked may have been done",
            ),
        }
    }
}

impl From<PayloadInvalid> for ApiError {
    fn from(error: PayloadInvalid) -> Self {
        Self::code(ErrorCode::PayloadInvalid, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Whole {
            error: Body,
        }
        let retry = self.status == StatusCode::SERVICE_UNAVAILABLE;
        let mut response = (self.status, Json(Whole { error: self.error })).into_response();
        if retry {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}
