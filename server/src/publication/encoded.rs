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

use super::{SHARED_FRAME_BYTES_MIN, event::Event};

/// Of which block something is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// The publication's own.
    Plain,
    /// Its companion, compressed.
    Deflated,
    /// That of its event.
    Event,
}

impl Block {
    /// How many kinds there are.
    pub const KINDS: usize = 3;
}

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
    /// A Server-Sent Event, which is not written yet.
    Event(Event<'p>),
    /// Frames that lie ready in a block.
    Ready {
        /// The block.
        block: &'p Frame,
        /// Where in it.
        range: Range<usize>,
        /// Which one it is.
        kind: Block,
    },
}

impl<'p> Encoded<'p> {
    /// The size of its frames, headers included, bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Bare { body, .. } => Header::encoded_bytes(body.len() as u64, false) + body.len(),
            Self::Event(event) => event.bytes(),
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
            Self::Event(event) => event.write(out),
            Self::Ready { block, range, .. } => out.copy_from_slice(&block[range.clone()]),
        }
    }

    /// The block and where in it, if that is to be referred to instead of being copied.
    pub fn shared(&self) -> Option<(&'p Frame, Range<usize>, Block)> {
        match self {
            Self::Ready { block, range, kind } if range.len() >= SHARED_FRAME_BYTES_MIN => {
                Some((block, range.clone(), *kind))
            }
            _ => None,
        }
    }

    /// The sizes of its frames, headers included, bytes. An event is one, however long.
    pub fn frames(&self) -> impl Iterator<Item = usize> + use<> {
        const WHOLE: usize =
            FRAGMENT_BYTES_MAX + Header::encoded_bytes(FRAGMENT_BYTES_MAX as u64, false);
        let total = self.bytes();
        let whole = match self {
            Self::Event(_) | Self::Ready { kind: Block::Event, .. } => total,
            _ => WHOLE,
        };
        (0..total.div_ceil(whole)).map(move |i| whole.min(total - i * whole))
    }
}
