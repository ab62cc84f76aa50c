//! What the journal counts.
//!
//! Knows: names. Must not know: how they are shown. The control thread writes, any thread reads.

use crate::counters::{Counter, TimeHistogram};

/// The journal's figures.
#[derive(Debug, Default)]
pub struct Figures {
    /// Bytes written to segments, copies of older records included.
    pub written_bytes: Counter,
    /// Records taken in.
    pub records: Counter,
    /// Records copied forward from segments that were to be deleted.
    pub copied: Counter,
    /// Times of fsync.
    pub fsync: TimeHistogram,
    /// Publications, snapshots and the like that were not taken in, or not passed on to here.
    pub dropped: Counter,
    /// Operations on files that failed.
    pub errors: Counter,
    /// 1 while writing fails or records are being dropped.
    pub alarm: Counter,
    /// Bytes taken in and not yet on the disk.
    pub queue_bytes: Counter,
    /// Segments.
    pub segments: Counter,
    /// Bytes of all segments.
    pub segments_bytes: Counter,
    /// Topics known.
    pub topics: Counter,
}
