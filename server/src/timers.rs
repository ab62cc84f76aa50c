//! Deadlines of connections.
//!
//! Knows: (deadline, connection). Must not know: why.
//!
//! Most waits have one fixed length, so whoever began first is due first: a queue, not a heap. A
//! connection that no longer waits is left in it and found out when its turn comes. Pings need no
//! entry at all: a connection's turn follows from its index.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use crate::ids::ConnectionId;

/// A wait may be longer by this part of itself: whoever sleeps is not woken for each.
const GRAINS_PER_WAIT: u64 = 128;

/// Waits of one length.
#[derive(Debug)]
pub struct Fixed {
    wait_ns: u64,
    queue: VecDeque<(u64, ConnectionId)>,
}

impl Fixed {
    /// Of this length.
    pub fn new(wait_ns: u64) -> Self {
        Self { wait_ns, queue: VecDeque::new() }
    }

    /// Their length, ns.
    pub fn wait_ns(&self) -> u64 {
        self.wait_ns
    }

    /// A wait begins.
    pub fn start(&mut self, now_ns: u64, id: ConnectionId) {
        self.queue.push_back((now_ns + self.wait_ns, id));
    }

    /// The next that is due.
    pub fn pop(&mut self, now_ns: u64) -> Option<ConnectionId> {
        self.queue.pop_front_if(|&mut (deadline, _)| deadline <= now_ns).map(|(_, id)| id)
    }

    /// When to look: at once where one is due, else when those are that come due close together.
    pub fn next_ns(&self, now_ns: u64) -> Option<u64> {
        let grain_ns = (self.wait_ns / GRAINS_PER_WAIT).max(1);
        let &(deadline, _) = self.queue.front()?;
        Some(if deadline <= now_ns { deadline } else { deadline.next_multiple_of(grain_ns) })
    }
}

/// Waits of lengths that differ; for the few that asked.
#[derive(Debug, Default)]
pub struct Various {
    heap: BinaryHeap<Reverse<(u64, u32, u32, u32)>>,
}

impl Various {
    /// A wait that repeats every `every_ms`.
    pub fn start(&mut self, deadline_ns: u64, id: ConnectionId, every_ms: u32) {
        self.heap.push(Reverse((deadline_ns, id.index, id.generation, every_ms)));
    }

    /// The next that is due, and its period.
    pub fn pop(&mut self, now_ns: u64) -> Option<(ConnectionId, u32)> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.heap.pop().map(|Reverse((_, index, generation, every_ms))| {
            (ConnectionId { index, generation }, every_ms)
        })
    }

    /// When the next is due.
    pub fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((deadline, ..))| *deadline)
    }
}

/// Turns spread over an interval by index: so many neighbours have one turn, the next ones the next.
#[derive(Debug)]
pub struct Spread {
    turns: u32,
    neighbours: u64,
    turn_ns: u64,
    next_ns: u64,
    /// The turn that comes next.
    turn: u32,
}

/// A turn lasts so long.
const TURN_NS: u64 = 100_000_000;
/// So many indices that follow each other have the same turn at most: what is ours of them, and most of what
/// is the kernel's, lies side by side in memory, and a ping with its pong costs less. Fewer where there would
/// not be enough of them for every turn if all there may be were there.
const NEIGHBOURS_MAX: u32 = 64;

impl Spread {
    /// Every index below `end_max` once per interval.
    pub fn new(interval_ns: u64, end_max: u32, now_ns: u64) -> Self {
        let turns = (interval_ns / TURN_NS).clamp(1, u64::from(u32::MAX)) as u32;
        let turn_ns = (interval_ns / u64::from(turns)).max(1);
        let neighbours = u64::from((end_max / turns).clamp(1, NEIGHBOURS_MAX));
        Self { turns, neighbours, turn_ns, next_ns: now_ns + turn_ns, turn: 0 }
    }

    /// After how many turns a wait of this length is over for certain, an interval at most. One more than it
    /// takes: a turn that came late is followed by the next one at its own time, or at once.
    pub fn turns_until(&self, wait_ns: u64) -> u32 {
        wait_ns.div_ceil(self.turn_ns).saturating_add(1).min(u64::from(self.turns)) as u32
    }

    /// The turn that is due, if one is. A clock that jumped does not make up for turns missed.
    pub fn pop(&mut self, now_ns: u64) -> Option<u32> {
        if now_ns < self.next_ns {
            return None;
        }
        self.next_ns = (self.next_ns + self.turn_ns).max(now_ns);
        let turn = self.turn;
        self.turn = if turn + 1 == self.turns { 0 } else { turn + 1 };
        Some(turn)
    }

    /// The indices below `end` whose turn was `ago` turns before `turn`, rising.
    pub fn indices(&self, turn: u32, ago: u32, end: u32) -> impl Iterator<Item = u32> + use<> {
        let (turns, end) = (u64::from(self.turns), u64::from(end));
        let first = (u64::from(turn) + turns - u64::from(ago) % turns) % turns;
        let neighbours = self.neighbours;
        (first * neighbours..end)
            .step_by((turns * neighbours) as usize)
            .flat_map(move |begin| begin..end.min(begin + neighbours))
            .map(|index| index as u32)
    }

    /// When the next turn is due.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnectionId {
        ConnectionId { index, generation: 0 }
    }

    #[test]
    fn fixed_waits_come_due_in_order() {
        let mut waits = Fixed::new(10);
        waits.start(0, id(1));
        waits.start(5, id(2));
        assert_eq!(waits.pop(9), None);
        assert_eq!(waits.pop(10), Some(id(1)));
        assert_eq!(waits.pop(14), None);
        assert_eq!(waits.next_ns(14), Some(15));
    }

    /// Each handshake was a wake-up again, ten seconds after it.
    #[test]
    fn those_who_come_due_close_together_are_one_look() {
        let mut waits = Fixed::new(12_800);
        for begun in [1, 2, 99, 100, 101] {
            waits.start(begun, id(1));
        }
        let look = waits.next_ns(12_800).expect("one waits");
        assert_eq!(look, 12_900, "a grain is 100");
        for _ in 0..3 {
            assert!(waits.pop(look).is_some());
        }
        assert_eq!(
            waits.next_ns(look),
            Some(12_900),
            "what is due and not taken yet is due at once"
        );
        assert!(waits.pop(look).is_some());
        assert_eq!(waits.pop(look), None, "and nobody before their time");
        assert_eq!(waits.next_ns(look), Some(13_000));
    }

    #[test]
    fn various_waits_come_due_in_order() {
        let mut waits = Various::default();
        waits.start(20, id(1), 7);
        waits.start(10, id(2), 8);
        assert_eq!(waits.pop(15), Some((id(2), 8)));
        assert_eq!(waits.pop(15), None);
    }

    #[test]
    fn every_index_has_one_turn_in_an_interval() {
        // Alone, with a few neighbours, and with the most.
        for (end_max, neighbours) in [(9, 1), (37, 3), (u32::MAX, NEIGHBOURS_MAX)] {
            let mut spread = Spread::new(1_000_000_000, end_max, 0);
            let end = 2 * 10 * neighbours + 1;
            let mut seen = vec![0; end as usize];
            let mut now = 0;
            for _ in 0..10 {
                now += TURN_NS;
                let turn = spread.pop(now).expect("due");
                let mut count = 0;
                for index in spread.indices(turn, 0, end) {
                    count += 1;
                    seen[index as usize] += 1;
                }
                assert_eq!(count, 2 * neighbours + u32::from(turn == 0));
                assert_eq!(spread.pop(now), None);
            }
            assert!(seen.iter().all(|&n| n == 1), "{seen:?}");
            assert_eq!(spread.indices(2, 4, end).next(), Some(8 * neighbours));
        }
    }

    #[test]
    fn a_wait_lasts_its_time_however_late_turns_come() {
        for wait_ns in [1, TURN_NS, 5 * TURN_NS, 5 * TURN_NS + 1] {
            for late_ns in [0, TURN_NS - 1, TURN_NS, 3 * TURN_NS] {
                let mut spread = Spread::new(10 * TURN_NS, 1, 0);
                let ago = spread.turns_until(wait_ns);
                // The first comes late, the others as soon as they may.
                let begun = TURN_NS + late_ns;
                assert_eq!(spread.pop(begun), Some(0));
                let mut now = begun;
                for turn in 1..=ago {
                    now = now.max(spread.next_ns());
                    assert_eq!(spread.pop(now), Some(turn % 10));
                }
                assert_eq!(
                    spread.indices(ago % 10, ago, 1).next(),
                    Some(0),
                    "its turn to be judged"
                );
                assert!(now - begun >= wait_ns, "{wait_ns} {late_ns}: {}", now - begun);
            }
        }
        let spread = Spread::new(10 * TURN_NS, 1, 0);
        assert_eq!(spread.turns_until(u64::MAX), 10, "in its own turn, before the next ping");
    }
}
