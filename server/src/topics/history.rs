//! A topic's past: its last publications, by reference, within bounds.
//!
//! Knows: which numbers are there, when each was appended on this shard. Must not know: who wants
//! them, or in which format.

use std::collections::VecDeque;

use crate::{publication::Publication, rules::HistoryBounds};

/// One publication of the past.
#[derive(Clone, Debug)]
pub struct Past {
    /// The shard's count of publications when it was appended.
    pub count: u64,
    /// The publication.
    pub publication: Publication,
}

/// The last publications of one topic, without a gap: each number is the one before plus one. The
/// last is always there, whatever the bounds.
#[derive(Debug, Default)]
pub struct History {
    past: VecDeque<Past>,
    bytes: u64,
    /// The time of the youngest publication that is not there any more, µs UTC; 0 if none is missing.
    dropped_ts_us: u64,
}

impl History {
    /// The last publication.
    pub fn last(&self) -> Option<&Publication> {
        self.past.back().map(|past| &past.publication)
    }

    /// The oldest that is there.
    pub fn first(&self) -> Option<&Past> {
        self.past.front()
    }

    /// The number of the oldest that is there.
    pub fn first_seq(&self) -> Option<u64> {
        self.past.front().map(|past| past.publication.seq())
    }

    /// Memory of the blocks referred to, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.past.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.past.is_empty()
    }

    /// The one with this number.
    pub fn of_seq(&self, seq: u64) -> Option<&Past> {
        let at = seq.checked_sub(self.first_seq()?)?;
        self.past.get(usize::try_from(at).ok()?)
    }

    /// From this number on; empty if that one is not there.
    pub fn from_seq(&self, seq: u64) -> impl Iterator<Item = &Publication> {
        let at = self.first_seq().and_then(|first| seq.checked_sub(first));
        let at = at.and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX);
        self.past.range(at.min(self.past.len())..).map(|past| &past.publication)
    }

    /// The number of the first that is of this time (µs UTC) or later, or the next to come.
    ///
    /// # Errors
    /// Some of that time or later are not there any more; the number is of the first that is.
    pub fn seq_at(&self, ts_us: u64) -> Result<Option<u64>, Option<u64>> {
        if self.dropped_ts_us >= ts_us && self.dropped_ts_us > 0 {
            return Err(self.first_seq());
        }
        let at = self.past.partition_point(|past| past.publication.ts_us() < ts_us);
        Ok(self.past.get(at).map(|past| past.publication.seq()))
    }

    /// The number of the last whose publisher's number is at or below this one.
    ///
    /// # Errors
    /// It is older than all that are there.
    pub fn covered_by(&self, pub_seq: u64) -> Result<u64, Uncovered> {
        let at = self.past.partition_point(|past| {
            past.publication.pub_seq().is_none_or(|number| number <= pub_seq)
        });
        match at.checked_sub(1) {
            Some(at) => Ok(self.past[at].publication.seq()),
            None => Err(Uncovered),
        }
    }

    /// A new last one. What the bounds leave no room for goes. A number that does not follow, or
    /// another epoch's, begins anew.
    pub fn push(&mut self, past: Past, bounds: &HistoryBounds) {
        let follows = self.last().is_some_and(|last| {
            last.seq() + 1 == past.publication.seq() && last.ts_us() <= past.publication.ts_us()
        });
        if !follows {
            self.drop_to(0);
        }
        self.bytes += past.publication.block_bytes() as u64;
        let now_us = past.publication.ts_us();
        self.past.push_back(past);
        let most = (bounds.messages as usize).max(1);
        self.drop_to(most);
        while self.bytes > bounds.bytes && self.past.len() > 1 {
            self.drop_oldest();
        }
        if let Some(age) = bounds.age {
            self.drop_older(now_us.saturating_sub(age.as_micros() as u64));
        }
    }

    /// Of what was published up to this time (µs UTC) something was not there from the beginning;
    /// 0: nothing.
    pub fn miss(&mut self, until_us: u64) {
        self.dropped_ts_us = self.dropped_ts_us.max(until_us);
    }

    /// Drops what is older than this (µs UTC), but for the last.
    pub fn drop_older(&mut self, than_us: u64) {
        while self.past.len() > 1 && self.past[0].publication.ts_us() < than_us {
            self.drop_oldest();
        }
    }

    /// Drops the oldest. Returns the memory given up, bytes; 0 if there is only the last.
    pub fn shrink(&mut self) -> u64 {
        let before = self.bytes;
        if self.past.len() > 1 {
            self.drop_oldest();
        }
        before - self.bytes
    }

    fn drop_to(&mut self, most: usize) {
        while self.past.len() > most {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(past) = self.past.pop_front() {
            self.bytes -= past.publication.block_bytes() as u64;
            self.dropped_ts_us = self.dropped_ts_us.max(past.publication.ts_us());
        }
    }
}

/// What a snapshot stands for is older than all that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncovered;

#[cfg(test)]
mod tests {
    use uringcast_protocol::opcode::Opcode;
    use uringcast_ring::pool::Pool;

    use super::*;
    use crate::publication::{self, Order, PayloadContent};

    const BOUNDS: HistoryBounds = HistoryBounds { messages: 4, bytes: 1 << 20, age: None };

    fn publication(seq: u64, ts_us: u64, pub_seq: Option<u64>) -> Past {
        let pool = &mut Pool::unregistered();
        let draft = publication::draft(pool, "t", 1, PayloadContent::Json, Opcode::Text, b"1");
        let order = Order { epoch: 1, seq, ts_us, pub_seq, snapshot: false };
        let publication =
            publication::order(pool, draft.expect("room"), order, &mut Vec::new()).expect("room");
        Past { count: seq, publication }
    }

    fn filled(seqs: std::ops::RangeInclusive<u64>) -> History {
        let mut history = History::default();
        for seq in seqs {
            history.push(publication(seq, seq * 10, Some(seq * 100)), &BOUNDS);
        }
        history
    }

    #[test]
    fn the_bounds_hold_and_the_last_always_stays() {
        let mut history = filled(1..=9);
        assert_eq!((history.len(), history.first_seq()), (4, Some(6)));
        assert_eq!(history.from_seq(8).map(Publication::seq).collect::<Vec<_>>(), [8, 9]);
        assert_eq!(history.from_seq(5).count(), 0);
        assert!(history.of_seq(5).is_none() && history.of_seq(6).is_some());
        let tight = HistoryBounds { messages: 4, bytes: 1, age: None };
        history.push(publication(10, 100, None), &tight);
        assert_eq!(history.len(), 1);
        let before = history.bytes();
        assert!(before > 0 && history.shrink() == 0 && history.bytes() == before);
        let none = HistoryBounds { messages: 0, bytes: 1 << 20, age: None };
        history.push(publication(11, 110, None), &none);
        assert_eq!((history.len(), history.first_seq()), (1, Some(11)));
    }

    #[test]
    fn by_age() {
        let mut history = History::default();
        let bounds = HistoryBounds { age: Some(std::time::Duration::from_micros(15)), ..BOUNDS };
        for seq in 1..=4 {
            history.push(publication(seq, seq * 10, None), &bounds);
        }
        assert_eq!(history.first_seq(), Some(3), "30 and 40 are not older than 25");
    }

    #[test]
    fn by_time() {
        let mut history = filled(1..=3);
        assert_eq!(history.seq_at(0), Ok(Some(1)));
        assert_eq!(history.seq_at(20), Ok(Some(2)));
        assert_eq!(history.seq_at(31), Ok(None), "all is seen");
        for seq in 4..=6 {
            history.push(publication(seq, seq * 10, None), &BOUNDS);
        }
        assert_eq!(history.seq_at(21), Ok(Some(3)), "20 was the last to go");
        assert_eq!(history.seq_at(20), Err(Some(3)));
    }

    #[test]
    fn by_the_publishers_number() {
        let history = filled(3..=8);
        assert_eq!(history.covered_by(700), Ok(7));
        assert_eq!(history.covered_by(799), Ok(7));
        assert_eq!(history.covered_by(9_999), Ok(8));
        assert_eq!(history.covered_by(499), Err(Uncovered));
    }

    #[test]
    fn what_does_not_follow_begins_anew() {
        let mut history = filled(1..=3);
        history.push(publication(7, 70, None), &BOUNDS);
        assert_eq!((history.len(), history.first_seq()), (1, Some(7)));
    }
}
