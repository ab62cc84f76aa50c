//! Commands of the JSON protocol.

/// Error codes, a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
