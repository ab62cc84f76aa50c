//! What a server answers to publications, where it answers each: accepted or refused, and after
//! how long.
//!
//! Knows: that answers come in the order of the publications, and when those were due. Must not
//! know: sockets, subscribers.

use hdrhistogram::Histogram;

use crate::plan::Schedule;
use crate::record::histogram;

/// The answers to one thread's publishers.
#[derive(Clone, Debug)]
pub(crate) struct Acks {
    /// By publisher: when its publications are due, and how many have been answered.
    publishers: Vec<(Schedule, u64)>,
    /// When the schedules begin, ns.
    pub(crate) start_ns: u64,
    /// Only publications intended in here count, ns: the warm-up is cut.
    pub(crate) window_ns: std::ops::Range<u64>,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    /// From the intended time of a publication to the answer, ns.
    pub(crate) latency: Histogram<u64>,
}

impl Acks {
    /// Publishers in the order of their connections.
    pub(crate) fn new(schedules: impl Iterator<Item = Schedule>) -> Self {
        Self {
            publishers: schedules.map(|schedule| (schedule, 0)).collect(),
            start_ns: 0,
            window_ns: 0..u64::MAX,
            accepted: 0,
            refused: 0,
            latency: histogram(),
        }
    }

    /// A message has come to a publisher.
    pub(crate) fn answer(&mut self, publisher: u32, payload: &[u8], now_ns: u64) {
        let accepted = payload.starts_with(ACCEPTED);
        if accepted {
            self.accepted += 1;
        } else if memchr::memmem::find(payload, b"\"error\"").is_some() {
            self.refused += 1;
        } else {
            return;
        }
        let Some((schedule, answered)) = self.publishers.get_mut(publisher as usize) else {
            return;
        };
        let intended_ns = self.start_ns.saturating_add(schedule.offset_ns(*answered));
        *answered += 1;
        if accepted && self.window_ns.contains(&intended_ns) {
            self.latency.saturating_record(now_ns.saturating_sub(intended_ns));
        }
    }

    /// Every publication has its answer; `published` says how many each publisher has sent.
    pub(crate) fn is_complete(&self, published: impl Fn(u16) -> u64) -> bool {
        let answered = self.publishers.iter().map(|(_, answered)| *answered);
        (0..).zip(answered).all(|(publisher, answered)| answered >= published(publisher))
    }
}

const ACCEPTED: &[u8] = b"{\"op\":\"published\"";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::Burst;
    use crate::rate::Rate;

    #[test]
    fn answers_are_matched_to_publications_by_their_order() {
        let schedule = Schedule {
            rate: Rate::constant(1000.0),
            burst: Burst::NONE,
            count: None,
            publishers: 1,
            publisher: 0,
        };
        let mut acks = Acks::new([schedule].into_iter());
        acks.start_ns = 1_000_000;
        acks.window_ns = 2_000_000..u64::MAX;
        assert!(acks.is_complete(|_| 0) && !acks.is_complete(|_| 1));
        let accepted = br#"{"op":"published","topic":"a","seq":1}"#;
        // The first is in the warm-up.
        acks.answer(0, accepted, 9_000_000);
        acks.answer(0, accepted, 2_500_000);
        acks.answer(0, br#"{"op":"error","code":"rate_limited"}"#, 3_500_000);
        acks.answer(0, br#"{"op":"goaway"}"#, 3_500_000);
        assert_eq!((acks.accepted, acks.refused, acks.latency.len()), (2, 1, 1));
        assert!((490_000..510_000).contains(&acks.latency.max()));
        assert!(acks.is_complete(|_| 3) && !acks.is_complete(|_| 4));
    }
}
