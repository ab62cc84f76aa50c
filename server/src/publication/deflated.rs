//! A publication's companion block: its messages compressed, ready as frames, for all subscribers
//! that agreed on permessage-deflate (RFC 7692).
//!
//! Knows: the block's layout, which windows one result serves, what is worth compressing. Must not
//! know: who subscribes, when and where compressing happens.
//!
//! ```text
//! 0            DIRECTORY_BYTES
//! ├─ directory ┼─ frames of a result ┼─ frames of another …
//! directory: for each body and window a start and an end (u32 each), equal where there is nothing
//! ```
//!
//! A message of n bytes holds no distance above n - 1, so one result serves every window that is as
//! large as the message; smaller windows have a result each. Every message is compressed by itself
//! (`server_no_context_takeover`), which is why all receivers can share it.

use std::ops::Range;

use uringcast_protocol::{
    limits::HEADER_BYTES_MAX,
    opcode::Opcode,
    writer::{fragmented_bytes, fragments},
};
use uringcast_ring::pool::{Frame, Pool};

use super::{Body, Format, Publication, u32_at};
use crate::deflate::Compressor;

/// Which windows receivers of each body inflate with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By body; bit i stands for the window of 2^(8 + i) bytes.
    windows: [u8; BODIES],
}

impl Wanted {
    /// Receivers with this format are among them. A plain format adds nothing.
    pub fn add(&mut self, format: Format) {
        if let Some(slot) = window_slot(format.window_bits) {
            self.windows[format.body as usize] |= 1 << slot;
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.windows == [0; BODIES]
    }

    fn windows(self, body: Body) -> impl Iterator<Item = u8> {
        let windows = self.windows[body as usize];
        (0..WINDOWS as u8).filter(move |slot| windows & 1 << slot != 0).map(|slot| 8 + slot)
    }

    /// The longest message of this publication that is to be compressed, bytes; 0 if there is none.
    pub fn longest(self, publication: &Publication, bytes_min: usize) -> usize {
        [Body::Json, Body::Raw]
            .into_iter()
            .filter(|&body| self.windows[body as usize] != 0)
            .map(|body| publication.message_bytes(body))
            .filter(|&bytes| bytes >= bytes_min)
            .max()
            .unwrap_or(0)
    }
}

/// A thread's means for compressing publications; what it needs is kept from one to the next.
#[derive(Debug, Default)]
pub struct Deflater {
    compressor: Compressor,
    /// A message whose frames do not lie together.
    message: Vec<u8>,
    /// A compressed message.
    compressed: Vec<u8>,
    /// The block as it grows.
    block: Vec<u8>,
}

/// What compressing a publication came to.
#[derive(Debug, Default)]
pub struct Deflated {
    /// The companion block; `None` if nothing became smaller or there is no room for it.
    pub block: Option<Frame>,
    /// Bytes compressed; a message counts once for each result that was tried.
    pub bytes_in: usize,
    /// Bytes that they became, frame headers included.
    pub bytes_out: usize,
}

impl Deflater {
    /// Compresses the messages of at least `bytes_min` bytes, each once for every distinct result.
    /// Those that would make it more than `input_bytes_max` in all stay plain, as do those that do
    /// not become smaller.
    pub fn deflate(
        &mut self,
        publication: &Publication,
        wanted: Wanted,
        bytes_min: usize,
        input_bytes_max: usize,
        pool: &mut Pool,
    ) -> Deflated {
        let mut bytes_in = 0;
        self.block.clear();
        self.block.resize(DIRECTORY_BYTES, 0);
        for body in [Body::Json, Body::Raw] {
            let bytes = publication.message_bytes(body);
            let mut windows = wanted.windows(body).peekable();
            if bytes < bytes_min || windows.peek().is_none() {
                continue;
            }
            self.gather(publication, body);
            let mut whole = None;
            for window_bits in windows {
                let reaches = bytes <= 1 << window_bits;
                let range = match whole.take().filter(|_| reaches) {
                    Some(range) => range,
                    None if bytes_in + bytes > input_bytes_max => break,
                    None => {
                        bytes_in += bytes;
                        self.compress(publication.opcode(body), window_bits)
                    }
                };
                let at = entry_at(body, window_bits - 8);
                put_u32(&mut self.block, at, range.start);
                put_u32(&mut self.block, at + 4, range.end);
                whole = reaches.then_some(range);
            }
        }
        let bytes_out = self.block.len() - DIRECTORY_BYTES;
        let block = (bytes_out > 0).then(|| pool.take(self.block.len()).ok()).flatten();
        let block = block.map(|mut lease| {
            lease[..self.block.len()].copy_from_slice(&self.block);
            lease.freeze()
        });
        Deflated { block, bytes_in, bytes_out }
    }

    fn gather(&mut self, publication: &Publication, body: Body) {
        self.message.clear();
        for piece in publication.pieces(body) {
            self.message.extend_from_slice(piece);
        }
    }

    /// Appends the message's frames to the block; where. Empty if it does not become smaller.
    fn compress(&mut self, opcode: Opcode, window_bits: u8) -> Range<usize> {
        let start = self.block.len();
        if self.compressed.len() < self.message.len() {
            self.compressed.resize(self.message.len(), 0);
        }
        let room = &mut self.compressed[..self.message.len()];
        let Some(bytes) = self.compressor.compress(window_bits, &self.message, room) else {
            return start..start;
        };
        self.block.reserve(fragmented_bytes(bytes));
        for fragment in fragments(opcode, bytes).deflated() {
            let mut header = [0; HEADER_BYTES_MAX];
            let header_bytes = fragment.header(&mut header);
            self.block.extend_from_slice(&header[..header_bytes]);
            self.block.extend_from_slice(&self.compressed[fragment.range]);
        }
        start..self.block.len()
    }
}

/// Where a companion block has the frames of this format, if it has them.
pub(super) fn find(block: &[u8], format: Format) -> Option<Range<usize>> {
    let at = entry_at(format.body, window_slot(format.window_bits)?);
    let range = u32_at(block, at)..u32_at(block, at + 4);
    (!range.is_empty()).then_some(range)
}

/// Position of a window in the directory; `None` if there is no such window.
fn window_slot(window_bits: u8) -> Option<u8> {
    window_bits.checked_sub(8).filter(|&slot| usize::from(slot) < WINDOWS)
}

fn entry_at(body: Body, slot: u8) -> usize {
    (body as usize * WINDOWS + usize::from(slot)) * 8
}

fn put_u32(block: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).expect("a publication is bounded far below 4 GiB");
    block[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Kinds of bodies.
pub const BODIES: usize = 2;
/// Window sizes of permessage-deflate: 2^8 to 2^15 (RFC 7692 section 7.1.2.1).
pub const WINDOWS: usize = 8;
const DIRECTORY_BYTES: usize = BODIES * WINDOWS * 8;
