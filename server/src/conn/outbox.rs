//! A connection's own output: what goes to it alone, in order, among what its lane gives it.
//!
//! Knows: bytes, and ranges of a lane's log by their positions. Must not know: the log itself, the
//! ring, or what the bytes say.

use std::collections::VecDeque;

use uringcast_ring::pool::Frame;

use crate::ids::LaneId;

/// A piece of own output.
#[derive(Debug)]
pub enum Pending {
    /// Bytes of its own.
    Bytes(Vec<u8>),
    /// Part of a block, held by reference.
    Shared {
        /// The block.
        frame: Frame,
        /// From here on.
        at: usize,
        /// Up to here.
        to: usize,
    },
    /// A range of a lane's log that is still owed; the connection reads there as far as `to`.
    Range {
        /// Which lane.
        lane: LaneId,
        /// From here on.
        at: u64,
        /// Up to here.
        to: u64,
    },
}

/// With so many pieces nothing more is read from the client; what was read already may still be
/// answered, and a Close always has its place.
pub const SEGMENTS_READ_MAX: usize = 4;
/// With so many own bytes nothing more is read from the client.
pub const OWN_BYTES_READ_MAX: usize = 64 << 10;

/// A piece of bytes that was sent leaves its memory for the next, up to so many bytes: an answer to an
/// upgrade, a ping, a pong.
const SPARE_BYTES_MAX: usize = 1 << 10;

/// Own output in order; the last piece is open while it is bytes.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Pending>,
    /// Bytes of the first piece that were sent, where it is bytes.
    sent: usize,
    bytes: usize,
    /// Memory for the next piece of bytes.
    spare: Vec<u8>,
}

impl Outbox {
    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether the client is to be read no further.
    pub fn stops_reading(&self) -> bool {
        self.pieces.len() >= SEGMENTS_READ_MAX || self.bytes >= OWN_BYTES_READ_MAX
    }

    /// Own bytes not sent yet.
    pub fn bytes(&self) -> usize {
        self.bytes - self.sent
    }

    /// Own bytes not sent yet, and those of blocks that it refers to.
    pub fn pending_bytes(&self) -> usize {
        let shared = self.pieces.iter().map(|piece| match piece {
            Pending::Shared { at, to, .. } => to - at,
            Pending::Bytes(_) | Pending::Range { .. } => 0,
        });
        self.bytes() + shared.sum::<usize>()
    }

    /// A range of a lane's log comes next.
    pub fn push_range(&mut self, lane: LaneId, at: u64, to: u64) {
        if at < to {
            self.pieces.push_back(Pending::Range { lane, at, to });
        }
    }

    /// Own bytes come next: `write` appends them.
    pub fn push_bytes(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.pieces.back(), Some(Pending::Bytes(_))) {
            self.pieces.push_back(Pending::Bytes(std::mem::take(&mut self.spare)));
        }
        if let Some(Pending::Bytes(bytes)) = self.pieces.back_mut() {
            let before = bytes.len();
            write(bytes);
            self.bytes += bytes.len() - before;
        }
    }

    /// The piece to be sent now; of bytes, from the offset given.
    pub fn front(&self) -> Option<(&Pending, usize)> {
        self.pieces.front().map(|piece| (piece, self.sent))
    }

    /// So many bytes of the first piece were sent. A range that is now done is returned: its place
    /// in the log is to be given up; one that goes on has its position moved.
    pub fn advance(&mut self, sent: usize) -> Option<Pending> {
        let done = match self.pieces.front_mut()? {
            Pending::Bytes(bytes) => {
                self.sent += sent;
                self.sent >= bytes.len()
            }
            Pending::Range { at, to, .. } => {
                *at += sent as u64;
                at >= to
            }
            Pending::Shared { at, to, .. } => {
                *at += sent;
                at >= to
            }
        };
        if !done {
            return None;
        }
        let piece = self.pieces.pop_front();
        if let Some(Pending::Bytes(bytes)) = &piece {
            self.bytes -= bytes.len();
            self.sent = 0;
        }
        piece
    }

    /// Memory of a piece that is done.
    pub fn recycle(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= SPARE_BYTES_MAX {
            bytes.clear();
            self.spare = bytes;
        }
    }

    /// Part of a block comes next.
    pub fn push_shared(&mut self, frame: Frame, at: usize, to: usize) {
        if at < to {
            self.pieces.push_back(Pending::Shared { frame, at, to });
        }
    }

    /// Whether it holds a range of this lane.
    pub fn has_range_of(&self, of: LaneId) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Pending::Range { lane, .. } if *lane == of))
    }

    /// Takes all pieces out, in order; [`Self::put_back`] gives back those that stay.
    pub fn take_pieces(&mut self) -> VecDeque<Pending> {
        self.bytes = 0;
        std::mem::take(&mut self.pieces)
    }

    /// This piece stays, or stands for one that did; a first piece of bytes always stays.
    pub fn put_back(&mut self, piece: Pending) {
        if let Pending::Bytes(bytes) = &piece {
            self.bytes += bytes.len();
        }
        self.pieces.push_back(piece);
    }

    /// Takes the next piece, sent or not; for a connection that ends.
    pub fn pop(&mut self) -> Option<Pending> {
        self.pieces.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_join_an_open_piece_and_a_range_closes_it() {
        let mut outbox = Outbox::default();
        outbox.push_range(LaneId(1), 5, 5);
        assert!(outbox.is_empty(), "an empty range is nothing");
        outbox.push_range(LaneId(1), 5, 9);
        outbox.push_bytes(|out| out.extend(b"abc"));
        outbox.push_bytes(|out| out.extend(b"d"));
        assert_eq!(outbox.bytes(), 4);
        assert!(outbox.advance(3).is_none());
        assert!(matches!(outbox.advance(1), Some(Pending::Range { at: 9, .. })));
        assert!(outbox.advance(2).is_none());
        assert!(matches!(outbox.front(), Some((Pending::Bytes(b), 2)) if b == b"abcd"));
        assert_eq!(outbox.bytes(), 2);
        assert!(outbox.advance(2).is_some());
        assert!(outbox.is_empty() && outbox.bytes() == 0);
    }

    #[test]
    fn reading_stops_at_either_bound() {
        let mut outbox = Outbox::default();
        for i in 0..2 {
            outbox.push_range(LaneId(0), i, i + 1);
            outbox.push_bytes(|out| out.push(1));
        }
        assert!(outbox.stops_reading());
        let mut outbox = Outbox::default();
        outbox.push_bytes(|out| out.resize(OWN_BYTES_READ_MAX, 0));
        assert!(outbox.stops_reading());
    }
}
