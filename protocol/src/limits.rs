//! Bounds of the wire, each with its source.
//!
//! Knows: sizes. Must not know: which of them a user may configure.

/// The longest payload of a control frame, bytes (RFC 6455 section 5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// The longest reason in a close frame, bytes: a control payload less the two of its code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// The longest frame header, bytes: two, eight of length, four of mask (RFC 6455 section 5.2).
pub const HEADER_BYTES_MAX: usize = 14;

/// The longest head of a handshake, either way, bytes.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The most header fields in a handshake, either way.
pub const HEAD_FIELDS_MAX: usize = 64;

/// The longest frame written, header included, bytes: a pong or a close need not wait longer than
/// this takes to send.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// The longest payload of one written frame, bytes; any header fits before it.
pub const FRAGMENT_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES_MAX;

/// The longest topic name or pattern, bytes.
pub const TOPIC_BYTES_MAX: usize = 255;

/// The most topics in one command; as many as a connection may have subscriptions by default.
pub const TOPICS_PER_COMMAND_MAX: usize = 1024;
/// Bounds of a subscriber's `sample_ms`: the least, ms.
pub const SAMPLE_MS_MIN: u32 = 10;
/// The most, ms.
pub const SAMPLE_MS_MAX: u32 = 60_000;

/// The longest string `id` of a command, bytes.
pub const ID_BYTES_MAX: usize = 36;

/// Integer ids are below this, so that JavaScript reads them exactly (2^53).
pub const ID_INTEGER_END: u64 = 1 << 53;

const _: () = assert!(FRAGMENT_BYTES_MAX + HEADER_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(FRAGMENT_BYTES_MAX <= u16::MAX as usize);
