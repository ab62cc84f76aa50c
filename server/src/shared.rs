//! The few words of memory that all threads of the process share.
//!
//! Knows: who writes each. Must not know: what is done about them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use crate::{census::Census, counters::Counters};

/// Where the process is in its life; it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Shards are starting.
    Starting = 0,
    /// All shards accept connections.
    Ready = 1,
    /// No new connections; everyone is being told 1001.
    Draining = 2,
    /// Out at once.
    Aborting = 3,
}

/// Shared by all threads, in an `Arc`.
#[derive(Debug)]
pub struct Shared {
    /// One per shard; written by that shard only.
    pub counters: Vec<Counters>,
    /// One per shard, written by that shard only: its publishers are to be slowed.
    pub overloaded: Vec<AtomicBool>,
    /// One per shard, written by that shard only: it accepts connections.
    pub ready: Vec<AtomicBool>,
    /// One per shard, written by that shard only: it has closed its last connection and ended.
    pub ended: Vec<AtomicBool>,
    /// Bytes of lane logs in the process; changed once per chunk.
    pub log_bytes: AtomicU64,
    /// Of what was published before this time (µs UTC) nothing is known.
    pub history_from_us: u64,
    /// Which deflated lanes there are; changed when one begins, ends or changes its interest.
    pub census: Arc<Census>,
    /// A seed for hashing topic names, the same on all shards, new at each start.
    pub hash_seed: u64,
    stage: AtomicU8,
}

impl Shared {
    /// For so many shards.
    pub fn new(shards: usize, hash_seed: u64) -> Self {
        let flags = || (0..shards).map(|_| AtomicBool::new(false)).collect();
        Self {
            counters: (0..shards).map(|_| Counters::default()).collect(),
            overloaded: flags(),
            ready: flags(),
            ended: flags(),
            log_bytes: AtomicU64::new(0),
            history_from_us: 0,
            census: Arc::default(),
            hash_seed,
            stage: AtomicU8::new(Stage::Starting as u8),
        }
    }

    /// Where the process is in its life.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Ready,
            2 => Stage::Draining,
            _ => Stage::Aborting,
        }
    }

    /// Moves on to a later stage; an earlier one changes nothing.
    pub fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    /// Whether publishers are to be slowed.
    pub fn any_overloaded(&self) -> bool {
        self.overloaded.iter().any(|flag| flag.load(Ordering::Relaxed))
    }
}
