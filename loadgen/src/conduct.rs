//! What a thread notes beside deliveries: how its connections came about and how long they were
//! silent, how much it sent.
//!
//! Knows: times and counts. Must not know: who asks, how they are shown.

use hdrhistogram::Histogram;

use crate::record::histogram;

/// One thread's notes, or all of them when merged.
#[derive(Clone, Debug)]
pub(crate) struct Conduct {
    /// From beginning to connect until the upgrade was in the kernel, which is when the TCP
    /// connection stands, ns.
    pub(crate) connect: Histogram<u64>,
    /// By subscriber that stays: the longest time without a message while there was publishing, ns.
    pub(crate) silence: Histogram<u64>,
    /// The longest time without a publication, ns.
    pub(crate) pause_ns_max: u64,
    /// Publishers' frames given to the kernel, bytes.
    pub(crate) sent_bytes: u64,
    /// Receives that brought something.
    pub(crate) receives: u64,
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            connect: histogram(),
            silence: histogram(),
            pause_ns_max: 0,
            sent_bytes: 0,
            receives: 0,
        }
    }
}

impl Conduct {
    /// Publications have been given to the kernel, so long after those before, ns.
    pub(crate) fn sent(&mut self, bytes: usize, pause_ns: u64) {
        self.sent_bytes += bytes as u64;
        self.pause_ns_max = self.pause_ns_max.max(pause_ns);
    }

    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (into, from) in
            [(&mut self.connect, &other.connect), (&mut self.silence, &other.silence)]
        {
            into.add(from).expect("all histograms are made by `histogram`, with the same bounds");
        }
        // Publishers share one thread: another's pauses are none.
        self.pause_ns_max = self.pause_ns_max.max(other.pause_ns_max);
        self.sent_bytes += other.sent_bytes;
        self.receives += other.receives;
    }
}
