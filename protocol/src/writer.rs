//! Frames appended to a buffer, once, for any number of receivers.
//!
//! Knows: layouts. Must not know: who receives, or whether a frame may be sent now.

use alloc::vec::Vec;
use core::ops::Range;

use crate::header::Header;
use crate::limits::{
    CLOSE_REASON_BYTES_MAX, CONTROL_PAYLOAD_BYTES_MAX, FRAGMENT_BYTES_MAX, HEADER_BYTES_MAX,
};
use crate::mask::mask_in_place;
use crate::opcode::{CloseCode, Opcode};

/// Appends one frame; with `mask`, masked by it, as a client must.
pub fn write_frame(
    out: &mut Vec<u8>,
    opcode: Opcode,
    fin: bool,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) {
    let payload_bytes = payload.len() as u64;
    write(out, &Header { fin, rsv1: false, opcode, mask, payload_bytes }, payload);
}

fn write(out: &mut Vec<u8>, header: &Header, payload: &[u8]) {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let header_bytes = header.encode(&mut bytes);
    out.reserve(header_bytes + payload.len());
    out.extend_from_slice(&bytes[..header_bytes]);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = header.mask {
        mask_in_place(&mut out[start..], key, 0);
    }
}

/// Appends one message, in fragments if it is longer than one frame may be.
pub fn write_message(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    write_fragments(out, fragments(opcode, payload.len()), payload, mask);
}

/// Appends one message whose payload is compressed, as permessage-deflate has it.
pub fn write_deflated(out: &mut Vec<u8>, opcode: Opcode, compressed: &[u8], mask: Option<[u8; 4]>) {
    write_fragments(out, fragments(opcode, compressed.len()).deflated(), compressed, mask);
}

fn write_fragments(out: &mut Vec<u8>, fragments: Fragments, payload: &[u8], mask: Option<[u8; 4]>) {
    for fragment in fragments {
        write(out, &Header { mask, ..fragment.unmasked() }, &payload[fragment.range]);
    }
}

/// Appends a ping; at most the first 125 bytes of `payload`.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8], mask: Option<[u8; 4]>) {
    let payload = &payload[..payload.len().min(CONTROL_PAYLOAD_BYTES_MAX)];
    write_frame(out, Opcode::Ping, true, payload, mask);
}

/// Appends a pong; at most the first 125 bytes of `payload`.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8], mask: Option<[u8; 4]>) {
    let payload = &payload[..payload.len().min(CONTROL_PAYLOAD_BYTES_MAX)];
    write_frame(out, Opcode::Pong, true, payload, mask);
}

/// Appends a close. A code that must not be on the wire, or none, gives an empty close, which has
/// no reason either; a reason is cut to 123 bytes, at a character.
pub fn write_close(
    out: &mut Vec<u8>,
    code: Option<CloseCode>,
    reason: &str,
    mask: Option<[u8; 4]>,
) {
    let Some(code) = code.filter(|code| code.is_legal_on_wire()) else {
        return write_frame(out, Opcode::Close, true, &[], mask);
    };
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    let mut payload = [0; CONTROL_PAYLOAD_BYTES_MAX];
    payload[..2].copy_from_slice(&code.value().to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    write_frame(out, Opcode::Close, true, &payload[..2 + reason.len()], mask);
}

/// A server's close with a code and no reason: the whole frame.
pub const fn close_frame(code: CloseCode) -> [u8; 4] {
    let [high, low] = code.value().to_be_bytes();
    [0x80 | Opcode::Close.bits(), 2, high, low]
}

/// The length of a whole unmasked message as [`fragments`] cuts it, headers included, bytes.
pub const fn fragmented_bytes(payload_bytes: usize) -> usize {
    let full = payload_bytes.saturating_sub(1) / FRAGMENT_BYTES_MAX;
    let last = payload_bytes - full * FRAGMENT_BYTES_MAX;
    let full_header = Header::encoded_bytes(FRAGMENT_BYTES_MAX as u64, false);
    full * full_header + Header::encoded_bytes(last as u64, false) + payload_bytes
}

/// Cuts a message into frames of at most [`FRAGMENT_BYTES_MAX`] bytes of payload; an empty one is
/// one empty frame.
pub const fn fragments(opcode: Opcode, payload_bytes: usize) -> Fragments {
    Fragments { opcode: Some(opcode), rsv1: false, offset: 0, payload_bytes }
}

/// The frames of one message; from [`fragments`].
#[derive(Clone, Debug)]
pub struct Fragments {
    /// Of the next frame; `None` after the last.
    opcode: Option<Opcode>,
    /// Of the next frame.
    rsv1: bool,
    /// Where the next frame's payload begins.
    offset: usize,
    payload_bytes: usize,
}

impl Fragments {
    /// The same of a compressed message: RSV1 in its first frame (RFC 7692 section 6.1).
    #[must_use]
    pub const fn deflated(mut self) -> Self {
        self.rsv1 = true;
        self
    }
}

/// One frame of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The message's in its first frame, then continuation.
    pub opcode: Opcode,
    /// It is the last.
    pub fin: bool,
    /// It is the first of a compressed message.
    pub rsv1: bool,
    /// Its part of the payload.
    pub range: Range<usize>,
}

impl Fragment {
    /// Writes its unmasked header to the front of `out`; returns the length.
    #[inline]
    pub fn header(&self, out: &mut [u8; HEADER_BYTES_MAX]) -> usize {
        self.unmasked().encode(out)
    }

    #[inline]
    const fn unmasked(&self) -> Header {
        let payload_bytes = (self.range.end - self.range.start) as u64;
        let &Self { opcode, fin, rsv1, .. } = self;
        Header { fin, rsv1, opcode, mask: None, payload_bytes }
    }
}

impl Iterator for Fragments {
    type Item = Fragment;

    fn next(&mut self) -> Option<Fragment> {
        let opcode = self.opcode?;
        let end = self.payload_bytes.min(self.offset + FRAGMENT_BYTES_MAX);
        let fin = end == self.payload_bytes;
        let range = self.offset..end;
        self.offset = end;
        self.opcode = if fin { None } else { Some(Opcode::Continuation) };
        let rsv1 = core::mem::take(&mut self.rsv1);
        Some(Fragment { opcode, fin, rsv1, range })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_BYTES_MAX;

    #[test]
    fn the_length_said_is_the_length_written() {
        let edges = [0, 1, 125, 126, FRAGMENT_BYTES_MAX - 1, FRAGMENT_BYTES_MAX];
        let later = [1, 125, 126, FRAGMENT_BYTES_MAX].map(|more| 2 * FRAGMENT_BYTES_MAX + more);
        for length in edges.into_iter().chain(later) {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let mut out = Vec::new();
            write_message(&mut out, Opcode::Binary, &payload, None);
            assert_eq!(out.len(), fragmented_bytes(length), "{length}");

            let mut whole = Vec::new();
            let mut rest = &out[..];
            let mut last = false;
            while !rest.is_empty() {
                assert!(!last);
                let (header, header_bytes) = Header::decode(rest).expect("legal").expect("whole");
                let end = header_bytes + header.payload_bytes as usize;
                assert!(end <= FRAME_BYTES_MAX);
                let first = whole.is_empty();
                assert_eq!(header.opcode == Opcode::Binary, first);
                whole.extend_from_slice(&rest[header_bytes..end]);
                last = header.fin;
                rest = &rest[end..];
            }
            assert!(last);
            assert_eq!(whole, payload);
        }
    }

    #[test]
    fn a_fragment_writes_its_own_header() {
        let mut bytes = [0; HEADER_BYTES_MAX];
        let fragment = fragments(Opcode::Text, 5).next().expect("one at least");
        assert_eq!(fragment.header(&mut bytes), 2);
        assert_eq!(bytes[..2], [0x81, 5]);
    }

    #[test]
    fn closes() {
        let mut out = Vec::new();
        write_close(&mut out, Some(CloseCode::NORMAL), "bye", None);
        assert_eq!(out, b"\x88\x05\x03\xe8bye");
        out.clear();
        write_close(&mut out, Some(CloseCode::ABNORMAL), "never said", None);
        assert_eq!(out, [0x88, 0]);
        out.clear();
        write_close(&mut out, None, "", Some([1, 2, 3, 4]));
        assert_eq!(out, [0x88, 0x80, 1, 2, 3, 4]);
        out.clear();
        // 61 × 2 bytes and one more: the 62nd character would end at 124.
        write_close(&mut out, Some(CloseCode::GOING_AWAY), &"é".repeat(80), None);
        assert_eq!(out.len(), 2 + 2 + 122);
        assert_eq!(close_frame(CloseCode::TRY_AGAIN_LATER), [0x88, 2, 0x03, 0xF5]);
    }

    #[test]
    fn control_payloads_are_cut_to_their_bound() {
        for write in [write_ping, write_pong] {
            let mut out = Vec::new();
            write(&mut out, &[7; 200], None);
            assert_eq!(out.len(), 127);
            assert!(Header::decode(&out).is_ok());
        }
    }
}
