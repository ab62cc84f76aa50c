//! Messages compressed and decompressed, as permessage-deflate wants them (RFC 7692 section 7.2).
//!
//! Knows: bytes of one message, window sizes, bounds. Must not know: frames, who negotiated what,
//! connections.
//!
//! No context is ever taken over from one message to the next, in either direction, so one
//! [`Inflater`] and one [`Compressor`] serve all connections of a thread and a connection costs
//! nothing but the size of its window.

mod compress;
mod inflate;
#[cfg(test)]
mod puff;

pub use self::compress::Compressor;
pub use self::inflate::{InflateError, Inflater};

/// What a sync flush ends with: cut off by the sender, appended by the receiver (RFC 7692 sections
/// 7.2.1 and 7.2.2).
const SYNC_FLUSH_TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
