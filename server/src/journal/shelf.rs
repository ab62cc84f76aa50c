//! What each segment holds, as far as is needed to tell when it can go.
//!
//! Knows: sizes and topics by segment. Must not know: files, or what is done with a segment that can go.

use std::collections::{HashMap, VecDeque};

use super::{
    ledger::{Ledger, Need, Place, SnapshotId},
    segment,
};

/// One segment, in memory.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// Its size, what is queued for it included.
    pub(super) bytes: u64,
    /// It could not be read.
    pub(super) unreadable: bool,
    /// By topic; `None` where it has more topics than are worth remembering.
    shares: Option<HashMap<u64, Share, foldhash::fast::RandomState>>,
}

/// A topic's part of a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// The newest publication there.
    newest: Place,
    bytes: u64,
    snapshot: Option<SnapshotId>,
    snapshot_bytes: u64,
    /// What says that the topic is there.
    said_bytes: u64,
}

impl Segment {
    pub(super) fn new(number: u64) -> Self {
        let bytes = segment::HEADER_BYTES as u64;
        Self { number, bytes, unreadable: false, shares: Some(HashMap::default()) }
    }

    pub(super) fn publication(&mut self, id: u64, place: Place, bytes: usize) {
        let Some(share) = self.share(id) else { return };
        share.bytes += bytes as u64;
        if place.seq > share.newest.seq {
            share.newest = place;
        }
    }

    pub(super) fn snapshot(&mut self, id: u64, snapshot: SnapshotId, bytes: usize) {
        let Some(share) = self.share(id) else { return };
        share.snapshot_bytes = bytes as u64;
        share.snapshot = Some(snapshot);
    }

    pub(super) fn said(&mut self, id: u64, bytes: usize) {
        let Some(share) = self.share(id) else { return };
        share.said_bytes = bytes as u64;
    }

    fn share(&mut self, id: u64) -> Option<&mut Share> {
        if self.shares.as_ref().is_some_and(|shares| shares.len() >= SHARES_MAX) {
            self.shares = None;
        }
        self.shares.as_mut().map(|shares| shares.entry(id).or_default())
    }

    /// Bytes that are still needed, rather too many than too few.
    pub(super) fn needed_bytes(&self, ledger: &Ledger, now_us: u64) -> u64 {
        let Some(shares) = &self.shares else { return self.bytes };
        let needed = |(id, share): (&u64, &Share)| {
            let Some(topic) = ledger.topic(*id) else { return 0 };
            let mut bytes = 0;
            if topic.need(&share.newest, now_us) != Need::No {
                bytes += share.bytes;
            }
            if share.snapshot.is_some_and(|snapshot| topic.needs_snapshot(&snapshot)) {
                bytes += share.snapshot_bytes;
            }
            // 0: what it says now is not in the journal yet, so what it said before still counts.
            if [0, self.number].contains(&topic.announced_in) {
                bytes += share.said_bytes;
            }
            bytes
        };
        shares.iter().map(needed).sum()
    }
}

/// All segments, the oldest first; records are added to the last.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) segments: VecDeque<Segment>,
}

impl Shelf {
    /// All segments together.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The one that records are added to.
    pub(super) fn current(&mut self) -> &mut Segment {
        self.segments
            .back_mut()
            .expect("opening a journal begins a segment, and the last one stays")
    }

    /// The oldest, unless it is the one that records are added to.
    pub(super) fn oldest(&self) -> Option<&Segment> {
        self.segments.front().filter(|_| self.segments.len() > 1)
    }
}

/// Topics remembered per segment: 4 MiB or so. A segment with more can only be read to learn what
/// of it is needed.
const SHARES_MAX: usize = 1 << 15;
