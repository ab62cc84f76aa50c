//! What a WebSocket peer can do wrong: one variant per offence, and the close code that answers it.
//!
//! Knows: offences. Must not know: how they are logged or counted.

use crate::opcode::CloseCode;

/// An offence of the peer (or, last, a bound it ran into). The connection is over: answer with
/// [`PeerError::close_code`] and close (RFC 6455 section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PeerError {
    /// A close frame's reason is not UTF-8 (section 5.5.1).
    #[error("the close reason is not UTF-8")]
    CloseReasonUtf8,
    /// A close frame with a payload of one byte (section 5.5.1).
    #[error("a close frame with one byte of payload")]
    CloseTruncated,
    /// A new message begins while another is unfinished (section 5.4).
    #[error("a new message inside an unfinished one")]
    ContinuationExpected,
    /// A continuation of nothing (section 5.4).
    #[error("a continuation without a message")]
    ContinuationUnexpected,
    /// A control frame in fragments (section 5.5).
    #[error("a fragmented control frame")]
    ControlFragmented,
    /// A control frame of more than 125 bytes (section 5.5).
    #[error("a control frame of more than 125 bytes")]
    ControlTooLong,
    /// A compressed message is no DEFLATE (RFC 7692 section 7.2.2).
    #[error("a compressed message that does not decompress")]
    DeflateInvalid,
    /// A close code that must not be on the wire (section 7.4).
    #[error("a close code that is not allowed")]
    InvalidCloseCode,
    /// A text message is not UTF-8 (section 8.1).
    #[error("text that is not UTF-8")]
    InvalidUtf8,
    /// A length not in its shortest form (section 5.2).
    #[error("a length not in its shortest form")]
    LengthNotMinimal,
    /// A 64-bit length with its highest bit set (section 5.2).
    #[error("a length with its highest bit set")]
    LengthTooLarge,
    /// A masked frame from a server (section 5.1).
    #[error("a masked frame from a server")]
    Masked,
    /// The message is larger than is taken here.
    #[error("a message larger than allowed")]
    MessageTooBig,
    /// A reserved bit without the extension that gives it a meaning (section 5.2).
    #[error("a reserved bit is set")]
    ReservedBits,
    /// A reserved opcode (section 5.2).
    #[error("a reserved opcode")]
    ReservedOpcode,
    /// Nothing wrong with the peer: the buffer that its message goes to is full.
    #[error("no room for the message")]
    SinkFull,
    /// An unmasked frame from a client (section 5.1).
    #[error("an unmasked frame from a client")]
    Unmasked,
}

impl PeerError {
    /// The code to close with.
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::CloseReasonUtf8 | Self::DeflateInvalid | Self::InvalidUtf8 => {
                CloseCode::INVALID_PAYLOAD
            }
            Self::MessageTooBig => CloseCode::MESSAGE_TOO_BIG,
            Self::SinkFull => CloseCode::TRY_AGAIN_LATER,
            Self::CloseTruncated
            | Self::ContinuationExpected
            | Self::ContinuationUnexpected
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::InvalidCloseCode
            | Self::LengthNotMinimal
            | Self::LengthTooLarge
            | Self::Masked
            | Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// Every variant, in the order of [`PeerError::index`]: for tables of counters.
    pub const ALL: [Self; 17] = [
        Self::CloseReasonUtf8,
        Self::CloseTruncated,
        Self::ContinuationExpected,
        Self::ContinuationUnexpected,
        Self::ControlFragmented,
        Self::ControlTooLong,
        Self::DeflateInvalid,
        Self::InvalidCloseCode,
        Self::InvalidUtf8,
        Self::LengthNotMinimal,
        Self::LengthTooLarge,
        Self::Masked,
        Self::MessageTooBig,
        Self::ReservedBits,
        Self::ReservedOpcode,
        Self::SinkFull,
        Self::Unmasked,
    ];

    /// Its place in [`PeerError::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// A short name for logs and metrics, in snake case.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::CloseReasonUtf8 => "close_reason_utf8",
            Self::CloseTruncated => "close_truncated",
            Self::ContinuationExpected => "continuation_expected",
            Self::ContinuationUnexpected => "continuation_unexpected",
            Self::ControlFragmented => "control_fragmented",
            Self::ControlTooLong => "control_too_long",
            Self::DeflateInvalid => "deflate_invalid",
            Self::InvalidCloseCode => "invalid_close_code",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::LengthNotMinimal => "length_not_minimal",
            Self::LengthTooLarge => "length_too_large",
            Self::Masked => "masked",
            Self::MessageTooBig => "message_too_big",
            Self::ReservedBits => "reserved_bits",
            Self::ReservedOpcode => "reserved_opcode",
            Self::SinkFull => "sink_full",
            Self::Unmasked => "unmasked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_complete_and_in_order() {
        for (index, error) in PeerError::ALL.iter().enumerate() {
            assert_eq!(error.index(), index, "{error:?}");
            assert!(error.close_code().is_legal_on_wire());
        }
        // `Unmasked` is the last variant: a new one behind it would not be in the table.
        assert_eq!(PeerError::Unmasked.index() + 1, PeerError::ALL.len());
    }
}
