//! What a sweep sends at a time.
//!
//! Knows: pieces in order, and how much room there is. Must not know: topics' kinds, whose turn it is.

use std::ops::Range;

use uringcast_protocol::reply;
use uringcast_ring::pool::Frame;

use crate::{
    publication::{Body, Format, Publication},
    rules::RuleId,
    topics::names::Topic,
};

/// A batch: pieces in the order in which they go out.
#[derive(Debug, Default)]
pub struct Batch {
    /// The pieces.
    pub pieces: Vec<Piece>,
    bytes: usize,
    /// With so many bytes it is full.
    full_at: usize,
    /// Beyond so many bytes nothing is added that does not fit whole.
    whole_from: usize,
    /// What else than messages it tells, of topics of which rule.
    pub told: Vec<(RuleId, Told)>,
}

/// What a subscriber is told of a topic besides its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Messages are not coming.
    Gap,
    /// Messages can't be had any more, and there is nothing else to say.
    Lost,
    /// A snapshot.
    Snapshot,
    /// There is no snapshot.
    SnapshotMissing,
}

/// A piece of a batch.
#[derive(Debug)]
pub enum Piece {
    /// Frames, copied.
    Bytes(Vec<u8>),
    /// Frames that lie in a block.
    Shared(Frame, Range<usize>),
}

impl Batch {
    /// So many bytes more have room. `whole`: a message that has not is left for another batch,
    /// unless it would be the first of this room.
    pub(super) fn make_room(&mut self, bytes: usize, whole: bool) {
        self.full_at = self.bytes + bytes;
        self.whole_from = if whole { self.bytes } else { usize::MAX };
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.full_at
    }

    /// Whether a publication's frame is to be added now.
    pub(super) fn has_room_for(&self, publication: &Publication, format: Format) -> bool {
        !self.is_full()
            && (self.bytes <= self.whole_from
                || self.bytes + publication.encoded(format).bytes() <= self.full_at)
    }

    fn bytes_mut(&mut self) -> &mut Vec<u8> {
        if !matches!(self.pieces.last(), Some(Piece::Bytes(_))) {
            self.pieces.push(Piece::Bytes(Vec::new()));
        }
        match self.pieces.last_mut() {
            Some(Piece::Bytes(bytes)) => bytes,
            _ => unreachable!("a piece of bytes was just seen to be there"),
        }
    }

    /// Appends a publication's frame as its lane would have it.
    pub(super) fn push(&mut self, publication: &Publication, format: Format) {
        let encoded = publication.encoded(format);
        let frame_bytes = encoded.bytes();
        self.bytes += frame_bytes;
        if let Some((block, range, _)) = encoded.shared() {
            self.pieces.push(Piece::Shared(block.clone(), range));
        } else {
            let out = self.bytes_mut();
            let start = out.len();
            out.resize(start + frame_bytes, 0);
            encoded.write(&mut out[start..]);
        }
    }

    /// Appends a publication as its topic's last value.
    pub(super) fn push_snapshot(&mut self, publication: &Publication, body: Body) {
        let mut shared = None;
        self.write(|out| shared = publication.write_snapshot(out, body));
        if let Some(range) = shared {
            self.bytes += range.len();
            self.pieces.push(Piece::Shared(publication.frame().clone(), range));
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let out = self.bytes_mut();
        let before = out.len();
        write(out);
        let written = out.len() - before;
        self.bytes += written;
    }

    /// Appends a message of the server's own.
    pub(super) fn say(&mut self, body: Body, event: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let mut message = Vec::new();
        write(&mut message);
        self.write(|out| body.write_notice(out, event, &message));
    }

    pub(super) fn gap(&mut self, body: Body, topic: &Topic, from: u64, to: u64, reason: &str) {
        self.told.push((topic.rule, Told::Gap));
        self.say(body, "gap", |out| reply::write_gap(out, &topic.name, from, to, reason));
    }
}
