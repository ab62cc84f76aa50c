//! The payload of a control frame: at most 125 bytes, held inline.
//!
//! Knows: its bound, its masking, what stands in a close. Must not know: sessions.

use crate::error::PeerError;
use crate::header::Header;
use crate::limits::CONTROL_PAYLOAD_BYTES_MAX;
use crate::mask::mask_into;
use crate::opcode::CloseCode;

/// At most 125 bytes (RFC 6455 section 5.5), without an allocation.
#[derive(Clone)]
pub struct ControlPayload {
    bytes: [u8; CONTROL_PAYLOAD_BYTES_MAX],
    /// 0 ≤ `len` ≤ 125.
    len: u8,
}

impl ControlPayload {
    /// An empty one.
    pub const fn new() -> Self {
        Self { bytes: [0; CONTROL_PAYLOAD_BYTES_MAX], len: 0 }
    }

    /// The bytes, unmasked.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Takes what there is of the frame's payload; whether that was all of it.
    pub(crate) fn take(&mut self, header: &Header, input: &mut &[u8]) -> bool {
        let have = usize::from(self.len);
        // `Header::decode` refuses control frames of more than 125 bytes.
        let wanted = (header.payload_bytes as usize).min(CONTROL_PAYLOAD_BYTES_MAX) - have;
        let (payload, rest) = input.split_at(wanted.min(input.len()));
        let room = &mut self.bytes[have..have + payload.len()];
        match header.mask {
            Some(key) => {
                mask_into(payload, room, key, have);
            }
            None => room.copy_from_slice(payload),
        }
        self.len += payload.len() as u8;
        *input = rest;
        payload.len() == wanted
    }

    /// The code and reason in a close (RFC 6455 section 5.5.1).
    pub(crate) fn split_close(&self) -> Result<(Option<CloseCode>, Self), PeerError> {
        let (code, reason) = match *self.as_slice() {
            [] => return Ok((None, Self::new())),
            [_] => return Err(PeerError::CloseTruncated),
            [high, low, ref reason @ ..] => (CloseCode(u16::from_be_bytes([high, low])), reason),
        };
        if !code.is_legal_on_wire() {
            return Err(PeerError::InvalidCloseCode);
        }
        if core::str::from_utf8(reason).is_err() {
            return Err(PeerError::CloseReasonUtf8);
        }
        let mut rest = Self::new();
        rest.bytes[..reason.len()].copy_from_slice(reason);
        rest.len = reason.len() as u8;
        Ok((Some(code), rest))
    }
}

impl Default for ControlPayload {
    fn default() -> Self {
        Self::new()
    }
}

impl AsRef<[u8]> for ControlPayload {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl core::ops::Deref for ControlPayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for ControlPayload {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for ControlPayload {}

impl core::fmt::Debug for ControlPayload {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_slice().fmt(out)
    }
}
