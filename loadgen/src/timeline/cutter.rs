//! A working thread's end of the timeline: once a second it says how far it is.
//!
//! Knows: when the second is over. Must not know: what becomes of it.

use std::sync::mpsc::{Receiver, Sender};

use hdrhistogram::Histogram;

use crate::clock::NANOS_PER_SECOND;
use crate::record::histogram;
use crate::usage::Usage;
use crate::verify::Faults;

/// One thread's.
pub(crate) struct Cutter {
    thread: usize,
    parts: Sender<Part>,
    spares: Receiver<Histogram<u64>>,
    start_ns: u64,
    due_ns: u64,
}

/// What a thread hands over.
pub(crate) struct Part {
    pub(super) thread: usize,
    /// The second that is over, counted from when publishing began.
    pub(super) second: u32,
    pub(super) running: Running,
    /// Corrected latencies since the last one; `None`: none, or they come with the next.
    pub(super) latencies: Option<Histogram<u64>>,
}

/// A thread's counts since its start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Running {
    /// Messages received.
    pub(crate) messages: u64,
    /// Bytes received.
    pub(crate) wire_bytes: u64,
    /// Publications given to the kernel; the first thread tells those of all.
    pub(crate) published: u64,
    /// What is certainly wrong.
    pub(crate) faults: Faults,
    /// Ranges skipped that may still come.
    pub(crate) gaps_open: u64,
    /// Connections that the server ended.
    pub(crate) closed: u64,
    /// Of its processor, since the run began.
    pub(crate) usage: Usage,
}

impl Cutter {
    pub(super) fn new(
        thread: usize,
        parts: Sender<Part>,
        spares: Receiver<Histogram<u64>>,
    ) -> Self {
        Self { thread, parts, spares, start_ns: 0, due_ns: u64::MAX }
    }

    /// Publishing begins at `start_ns`: seconds count from there.
    pub(crate) fn begin(&mut self, start_ns: u64) {
        self.start_ns = start_ns;
        self.due_ns = start_ns + NANOS_PER_SECOND;
    }

    /// When the present second is over, ns; `u64::MAX` before publishing begins.
    #[inline]
    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// The present second is over.
    pub(crate) fn cut(&mut self, now_ns: u64, running: Running, latencies: &mut Histogram<u64>) {
        // This is asked between any two receives: a thread that was away for seconds had received
        // what it has before that.
        let second = (self.due_ns - self.start_ns) / NANOS_PER_SECOND - 1;
        let over = now_ns.saturating_sub(self.start_ns) / NANOS_PER_SECOND;
        self.due_ns = self.start_ns + (over + 1) * NANOS_PER_SECOND;
        let full = match latencies.is_empty() {
            true => None,
            false => self.spares.try_recv().ok().map(|spare| std::mem::replace(latencies, spare)),
        };
        self.send(second, running, full);
    }

    /// The thread ends: what is left.
    pub(crate) fn end(&self, now_ns: u64, running: Running, latencies: &mut Histogram<u64>) {
        if self.due_ns == u64::MAX {
            return;
        }
        let second = now_ns.saturating_sub(self.start_ns) / NANOS_PER_SECOND;
        let full = std::mem::replace(latencies, histogram());
        self.send(second, running, Some(full).filter(|full| !full.is_empty()));
    }

    fn send(&self, second: u64, running: Running, latencies: Option<Histogram<u64>>) {
        let second = u32::try_from(second).unwrap_or(u32::MAX - 1);
        // Without the other side nobody wants to know.
        let _ = self.parts.send(Part { thread: self.thread, second, running, latencies });
    }
}
