//! When which connections of the floor are pinged.
//!
//! Knows: slots and the time. Must not know: connections.

use std::{ops::Range, time::Duration};

use crate::clock;

/// Turns of an interval: so many neighbours have one, the next ones the next.
#[derive(Debug)]
pub(super) struct Turns {
    each_ns: u64,
    count: usize,
    turn: usize,
    next_ns: u64,
}

/// Pings of so long go out together, as the server's.
const TURN_NS: u128 = 100_000_000;
/// Neighbours of one turn, as the server's where that has room for many.
const NEIGHBOURS: usize = 64;

impl Turns {
    /// Every slot once in `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        let count = (interval.as_nanos() / TURN_NS).max(1);
        let each_ns = (interval.as_nanos() / count) as u64;
        Self { each_ns, count: count as usize, turn: 0, next_ns: clock::monotonic_ns() }
    }

    /// How long it is to the next turn.
    pub(super) fn until_next(&self) -> Duration {
        Duration::from_nanos(self.next_ns.saturating_sub(clock::monotonic_ns()))
    }

    /// The slots below `end` that are pinged now.
    pub(super) fn due(&mut self, end: usize) -> impl Iterator<Item = usize> + use<> {
        let now_ns = clock::monotonic_ns();
        let mut begin = end;
        if now_ns >= self.next_ns {
            self.next_ns = (self.next_ns + self.each_ns).max(now_ns);
            begin = self.turn * NEIGHBOURS;
            self.turn = (self.turn + 1) % self.count;
        }
        (begin..end).step_by(self.count * NEIGHBOURS).flat_map(move |begin| neighbours(begin, end))
    }
}

fn neighbours(begin: usize, end: usize) -> Range<usize> {
    begin..end.min(begin + NEIGHBOURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_one_turn() {
        let mut turns = Turns::new(Duration::from_millis(400));
        let end = 5 * NEIGHBOURS + 1;
        let mut seen = vec![0; end];
        for turn in 0..4 {
            // As if it were time.
            turns.next_ns = clock::monotonic_ns();
            let slots: Vec<usize> = turns.due(end).collect();
            assert_eq!(slots.first(), Some(&(turn * NEIGHBOURS)));
            slots.into_iter().for_each(|slot| seen[slot] += 1);
            assert!(turns.until_next() > Duration::ZERO);
            assert_eq!(turns.due(end).next(), None, "not yet");
        }
        assert!(seen.iter().all(|&n| n == 1), "{seen:?}");
    }
}
