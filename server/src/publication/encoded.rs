//! A publication as whole frames of one format: how long they are, and writing them.
//!
//! Knows: a frame's header, fragments. Must not know: the blocks' layout.

use std::ops::Range;

use uringcast_protocol::{
    header::Header,
    limits::{FRAGMENT_BYTES_MAX, HEADER_BYTES_MAX},
    opcode::Opcode,
};
use uringcast_ring::pool::Frame;

/// A publication as lanes of one format send it: whole frames.
#[derive(Clone, Debug)]
pub enum Encoded<'p> {
    /// One frame, whose header is not written yet.
    Bare {
        /// The frame's.
        opcode: Opcode,
        /// The frame's payload.
        body: &'p [u8],
    },
    /// Frames that lie ready in a block.
    Ready {
        /// The block.
        block: &'p Frame,
        /// Where in it.
        range: Range<usize>,
        /// Compressed, in the companion block.
        deflated: bool,
    },
}

impl Encoded<'_> {
    /// The size of its frames, headers included, bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Bare { body, .. } => Header::encoded_bytes(body.len() as u64, false) + body.len(),
            Self::Ready { range, .. } => range.len(),
        }
    }

    /// Writes its frames into exactly [`bytes`](Self::bytes).
    pub fn write(&self, out: &mut [u8]) {
        match self {
            Self::Bare { opcode, body } => {
                let payload_bytes = body.len() as u64;
                let header =
                    Header { fin: true, rsv1: false, opcode: *opcode, mask: None, payload_bytes };
                let mut bytes = [0; HEADER_BYTES_MAX];
                let header_bytes = header.encode(&mut bytes);
                out[..header_bytes].copy_from_slice(&bytes[..header_bytes]);
                out[header_bytes..].copy_from_slice(body);
            }
            Self::Ready { block, range, .. } => out.copy_from_slice(&block[range.clone()]),
        }
    }

    /// The sizes of its frames, headers included, bytes.
    pub fn frames(&self) -> impl Iterator<Item = usize> + use<> {
        const WHOLE: usize =
            FRAGMENT_BYTES_MAX + Header::encoded_bytes(FRAGMENT_BYTES_MAX as u64, false);
        let total = self.bytes();
        (0..total.div_ceil(WHOLE)).map(move |i| WHOLE.min(total - i * WHOLE))
    }
}
