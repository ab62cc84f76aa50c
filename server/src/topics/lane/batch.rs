//! When a lane is visited whose topics may all wait.
//!
//! Knows: when it is due, how many rounds that takes. Must not know: who sets the clock for it.

use super::{Lane, VISIT_BYTES_MAX};

/// When a lane whose topics are all batched is visited.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Every so often, ns: the smallest of the topics appended. 0: at once. `u64::MAX`: nothing was
    /// appended yet.
    pub every_ns: u64,
    /// When it is due; 0 while nothing waits for that.
    pub due_ns: u64,
    /// Rounds until everyone has had what was there when it was due.
    pub(super) rounds_left: u32,
    /// The head when it was last due.
    pub(super) head: u64,
}

impl Lane {
    /// Until when it is not visited, if that is not at once.
    pub fn batch_waits(&self, now_ns: u64) -> Option<u64> {
        let Batching { every_ns, due_ns, rounds_left, head } = self.batch;
        // Without anything appended there is nothing that could wait.
        if every_ns == 0 || every_ns == u64::MAX || rounds_left > 0 {
            return None;
        }
        if self.log.head() - head > BATCH_BYTES_MAX {
            return None;
        }
        Some(if due_ns > 0 { due_ns } else { now_ns + every_ns })
    }

    /// Its time has come: it is visited until everyone has had what is there now.
    pub fn begin_batch(&mut self, now_ns: u64) {
        self.batch.due_ns = 0;
        if self.queued {
            return;
        }
        self.batch.rounds_left = self.log.visits(VISIT_BYTES_MAX).max(1);
        self.batch.head = self.log.head();
        self.steps_left = self.subscribers.len() as u32;
        // It did not take its subscribers that long to be visited.
        self.round_started_ns = now_ns;
    }

    /// A subscriber that had no room when the batch was due has some now: it is not to wait for all of
    /// another period. When it is due instead.
    pub fn hurry(&mut self, index: u32, now_ns: u64) -> Option<u64> {
        let Batching { every_ns, due_ns, head, .. } = self.batch;
        if every_ns == 0
            || every_ns == u64::MAX
            || self.queued
            || self.subscribers[index as usize].cursor >= head
        {
            return None;
        }
        let sooner_ns = now_ns + every_ns / 4;
        if due_ns > 0 && due_ns <= sooner_ns {
            return None;
        }
        self.batch.due_ns = sooner_ns;
        Some(sooner_ns)
    }
}

/// A batch of so many bytes goes before its time.
const BATCH_BYTES_MAX: u64 = 1 << 20;
