//! Which topics have lanes anywhere in the process that can't be served as fast as is published.
//!
//! Knows: until when, by a topic's hash. Must not know: lanes, shards or publishers.
//!
//! The shard of a late lane marks a topic that is published to it, until it is late no longer, and
//! the shard of the publisher asks; while nothing is late that is one load of a line that nobody
//! writes. Topics share `BUCKETS` buckets: beside a late one, another may be taken for late by
//! chance.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A topic is late until so long after it was last found to be.
pub const LATE_NS: u64 = 100_000_000;

/// 32 KiB in all.
const BUCKETS: usize = 4_096;

/// Times on the monotonic clock, ns. Written and read by all shards and the control thread.
#[derive(Debug)]
pub struct Late {
    /// The latest of all.
    until_ns: AtomicU64,
    topics: Box<[AtomicU64]>,
}

impl Late {
    /// A lane that this topic is published to is late now.
    pub fn mark(&self, topic_hash: u64, now_ns: u64) {
        let until_ns = now_ns + LATE_NS;
        for time in [self.of(topic_hash), &self.until_ns] {
            // A load first: the lines are everybody's, and a tick's publications come with one time.
            if time.load(Relaxed) < until_ns {
                time.fetch_max(until_ns, Relaxed);
            }
        }
    }

    /// Whether any topic is late.
    #[inline]
    pub fn any(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns.load(Relaxed)
    }

    /// Whether this topic is.
    #[inline]
    pub fn is_late(&self, topic_hash: u64, now_ns: u64) -> bool {
        self.any(now_ns) && now_ns < self.of(topic_hash).load(Relaxed)
    }

    /// Which of the `BUCKETS` stands for this topic.
    pub fn bucket(topic_hash: u64) -> u16 {
        (topic_hash as usize % BUCKETS) as u16
    }

    fn of(&self, topic_hash: u64) -> &AtomicU64 {
        &self.topics[usize::from(Self::bucket(topic_hash))]
    }
}

impl Default for Late {
    fn default() -> Self {
        Self {
            until_ns: AtomicU64::new(0),
            topics: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_late_for_a_while_and_no_other_is() {
        let late = Late::default();
        assert!(!late.any(0) && !late.is_late(7, 0));
        late.mark(7, 1_000);
        let end = 1_000 + LATE_NS;
        assert!(late.is_late(7, 1_000) && late.is_late(7, end - 1) && !late.is_late(7, end));
        assert!(late.any(end - 1) && !late.any(end));
        assert!(!late.is_late(8, 1_000));
        late.mark(8, 5_000);
        late.mark(8, 2_000);
        assert!(late.is_late(8, 4_999 + LATE_NS), "an earlier mark ends nothing");
        assert!(!late.is_late(7, end));
    }
}
