//! The durable log of publications: history, last values and published snapshots, kept beyond the
//! process.
//!
//! Knows: records, segments, what is needed of them. Must not know: shards, subscribers, rules. It
//! runs on the control thread; nothing here ever waits for a disk on anyone else's time.
//!
//! ```text
//! entries ─► core: topics, what is owed, a bounded queue ─► writer ─► disk: segments of 64 MiB
//!                                                              └─ fsync by policy, the oldest goes
//! open: segments ─► records ─► topics as they were
//! ```
//!
//! What is promised: what is restored of a topic is what was published, in order, without gaps; a
//! number behind the last one restored was never acknowledged as durable. What can't be written is
//! dropped, counted and told of, and then the topic's range ends there.

mod clean;
mod core;
pub mod disk;
mod figures;
mod ledger;
mod open;
mod record;
mod restore;
mod segment;
mod shelf;
#[cfg(test)]
mod tests;
mod writer;

use std::{path::PathBuf, time::Duration};

pub use self::{
    figures::Figures,
    ledger::Keep,
    open::{Journal, OpenError},
    record::EpochRange,
    restore::{Damage, Restored, RestoredPublication, RestoredTopic},
    writer::{Intake, finish},
};

/// Which topics keep how much of their past.
pub type KeepOf = Box<dyn Fn(&str) -> Keep + Send>;

/// When what was written is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// After each batch of writes; what is taken in meanwhile is the next batch.
    Always,
    /// So long after a write at the latest.
    Every(Duration),
    /// At the end of a segment only: a crash of the process loses nothing that was written, one of
    /// the machine what the kernel had not written yet.
    Off,
}

/// What a journal obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the segments are.
    pub directory: PathBuf,
    /// When it is forced to the disk.
    pub fsync: Fsync,
    /// All segments together, bytes; beyond it the oldest history goes first.
    pub bytes_max: u64,
    /// One segment, bytes; only a longer record makes one longer.
    pub segment_bytes_max: u64,
    /// What is taken in and not on the disk, bytes; beyond it entries are dropped.
    pub queue_bytes_max: usize,
}

impl Options {
    /// With the bounds that there are no flags for.
    pub fn new(directory: PathBuf, fsync: Fsync, bytes_max: u64) -> Self {
        let (segment_bytes_max, queue_bytes_max) = (SEGMENT_BYTES_MAX, QUEUE_BYTES_MAX);
        Self { directory, fsync, bytes_max, segment_bytes_max, queue_bytes_max }
    }
}

/// Small enough to be read whole when it is cleaned, large enough that a journal of 8 GiB is 128 files.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Half a second of 128 MiB/s: what a disk may hesitate.
const QUEUE_BYTES_MAX: usize = 64 << 20;
