//! Commands of the JSON protocol.
//!
//! Knows: their grammar. Must not know: subscriptions, rights, which topics exist.

/// Error codes, a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not JSON, or not of the form the operation wants.
    BadRequest,
    /// Too much is going on; try again.
    Busy,
    /// Not allowed.
    Forbidden,
    /// A bound was reached.
    Limit,
    /// Not subscribed.
    NotSubscribed,
    /// No such operation.
    OpUnknown,
    /// The payload is not what the topic's content rule wants.
    PayloadInvalid,
    /// The payload is too large.
    PayloadTooLarge,
    /// Too many requests.
    RateLimited,
    /// No snapshot can be had.
    SnapshotUnavailable,
    /// Not a topic name or pattern.
    TopicInvalid,
}

impl ErrorCode {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Busy => "busy",
            Self::Forbidden => "forbidden",
            Self::Limit => "limit",
            Self::NotSubscribed => "not_subscribed",
            Self::OpUnknown => "op_unknown",
            Self::PayloadInvalid => "payload_invalid",
            Self::PayloadTooLarge => "payload_too_large",
            Self::RateLimited => "rate_limited",
            Self::SnapshotUnavailable => "snapshot_unavailable",
            Self::TopicInvalid => "topic_invalid",
        }
    }

    /// The same request may succeed later.
    pub const fn retry(self) -> bool {
        matches!(self, Self::Busy | Self::RateLimited)
    }
}
