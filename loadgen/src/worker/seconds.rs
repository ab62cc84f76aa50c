//! What a thread tells of itself once a second.
//!
//! Knows: its own counts. Must not know: who adds them up.

use super::Worker;
use crate::timeline::Running;

impl Worker {
    /// A second of the run is over: tells how far this thread is.
    pub(super) fn tell(&mut self, now: u64) {
        let running = self.running();
        self.cutter.cut(now, running, self.outcome.judge.recorder.corrected());
    }

    /// The thread ends: tells the rest.
    pub(super) fn tell_last(&mut self, now: u64) {
        let running = self.running();
        self.cutter.end(now, running, self.outcome.judge.recorder.corrected());
    }

    fn running(&self) -> Running {
        let judge = &self.outcome.judge;
        let publishes = !self.sources.is_empty();
        let counts_all = self.plan.thread == 0;
        Running {
            messages: judge.counts.messages,
            wire_bytes: self.outcome.wire_bytes,
            published: if counts_all { self.shared.published_total() } else { 0 },
            faults: judge.ledger.faults,
            gaps_open: judge.ledger.gaps_open(),
            closed: self.outcome.closes.values().sum(),
            usage: crate::usage::Usage { publishes, ..crate::usage::reading() },
        }
    }
}
