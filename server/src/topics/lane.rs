//! A lane: one interest in one wire format, its log, and the subscribers that read it in turn.
//!
//! Knows: cursors, whose turn it is, who is held back and since when. Must not know: sockets,
//! sessions, or why a subscriber is held back.

mod batch;
mod lag;

use std::collections::VecDeque;

use uringcast_ring::pool::PoolFull;

pub use self::{batch::Batching, lag::LagMark};
use crate::{
    ids::{ConnectionId, EntryId, TopicId},
    publication::{Format, Publication},
    rules::RuleId,
    topics::{
        LagBounds,
        log::{Log, LogMemory, VISIT_BYTES_MAX},
        tally::Tally,
    },
};

/// A subscriber, as small as can be: a rotation reads them one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    /// Position in the log up to which it has been sent everything.
    pub cursor: u64,
    /// Index of its connection.
    pub connection: u32,
    /// The highest bit: held back. The rest: an address that the shard understands.
    address: u32,
}

const HELD: u32 = 1 << 31;

impl Subscriber {
    /// What the shard gave when it joined.
    pub fn address(&self) -> u32 {
        self.address & !HELD
    }

    /// Its socket is full or output of its own goes first: the rotation steps over it.
    pub fn held(&self) -> bool {
        self.address & HELD != 0
    }
}

const _: () = assert!(size_of::<Subscriber>() == 16);

/// An entry of a lane's interest, and the lane's place in that entry's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The entry.
    pub entry: EntryId,
    /// Index of this lane in the entry's list of lanes.
    pub place: u32,
}

/// One subscriber's turn.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'l> {
    /// Index into the lane's subscribers.
    pub index: u32,
    /// The shard's address of it.
    pub address: u32,
    /// Its cursor.
    pub from: u64,
    /// What to send.
    pub bytes: &'l [u8],
}

/// How long one round of visits took, and the oldest publication that it finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// The round itself, ns.
    pub rotation_ns: u64,
    /// From the appending of the oldest publication that now everyone was sent, ns.
    pub oldest_ns: Option<u64>,
}

/// A lane.
#[derive(Debug)]
pub struct Lane {
    /// The wire format of its frames.
    pub format: Format,
    /// The interest, by rising entry.
    pub interest: Vec<Member>,
    /// The interest's commutative hash.
    pub interest_hash: u128,
    /// What was published.
    pub log: Log,
    /// Who reads it by turns.
    pub subscribers: Vec<Subscriber>,
    /// Blocked subscribers in the order of their lag's base; entries may be out of date.
    pub lag_marks: VecDeque<LagMark>,
    /// Connections of this interest that left the log and are served by sweeps.
    pub sweeping: u32,
    /// Messages of value topics appended while there were such connections.
    pub away: Tally,
    /// Those of them who wait for something new in it.
    pub awaiting: Vec<ConnectionId>,
    /// There is something new, which they will be told at the end of the tick.
    pub awaited: bool,
    /// The smallest lag bounds of the topics appended.
    pub lag: LagBounds,
    /// Who leaves the log may lose messages of topics appended: nobody leaves it for its age.
    pub keeps: bool,
    /// When its marks' ages are looked at, ns; 0 for never.
    pub ages_due_ns: u64,
    /// The rule of the last topic appended, whose terms are settled.
    pub settled: Option<RuleId>,
    /// Its subscribers can't be served as fast as is published until then, ns.
    pub late_until_ns: u64,
    /// When it is visited.
    pub batch: Batching,
    /// Some entry of its interest is sampled.
    pub sampled: bool,
    /// Nothing but value topics was appended.
    pub only_values: bool,
    /// Its first mark has passed its bound and is to be judged at the end of the tick.
    pub judged: bool,
    /// It stands in a queue of lanes that have something to send.
    pub queued: bool,
    /// Count of the last publication appended: overlapping entries append once.
    appended: u64,
    /// Whose turn it is.
    next: u32,
    /// Subscribers held back.
    held: u32,
    /// Subscribers that are not held back and not at the head.
    pending: u32,
    /// Visits (or steps over subscribers that need none) until the round is complete.
    steps_left: u32,
    round_started_ns: u64,
    /// When the oldest publication since the round's start was appended.
    appended_ns: Option<u64>,
    /// The same of the round before.
    appended_before_ns: Option<u64>,
}

impl Lane {
    /// Without subscribers.
    pub fn new(format: Format, interest: Vec<Member>, interest_hash: u128) -> Self {
        Self {
            format,
            interest,
            interest_hash,
            log: Log::default(),
            subscribers: Vec::new(),
            lag_marks: VecDeque::new(),
            sweeping: 0,
            away: Tally::default(),
            awaiting: Vec::new(),
            awaited: false,
            lag: LagBounds::NONE,
            keeps: false,
            ages_due_ns: 0,
            settled: None,
            late_until_ns: 0,
            batch: Batching { every_ns: u64::MAX, due_ns: 0, rounds_left: 0, head: 0 },
            sampled: false,
            only_values: true,
            queued: false,
            judged: false,
            appended: 0,
            next: 0,
            held: 0,
            pending: 0,
            steps_left: 0,
            round_started_ns: 0,
            appended_ns: None,
            appended_before_ns: None,
        }
    }

    /// Whether anyone may be visited.
    pub fn is_pending(&self) -> bool {
        self.pending > 0
    }

    /// How many may be visited.
    pub fn pending_count(&self) -> u32 {
        self.pending
    }

    /// Whether nobody needs the lane any more.
    pub fn is_unused(&self) -> bool {
        self.subscribers.is_empty() && self.sweeping == 0 && self.log.readers() == 0
    }

    /// When the round that goes on began, ns; 0 when none does.
    pub fn round_started_ns(&self) -> u64 {
        if self.pending > 0 { self.round_started_ns } else { 0 }
    }

    /// Appends a publication, once however many entries of the interest match it. `true` if it was
    /// appended now.
    ///
    /// # Errors
    /// The pool is at its bound.
    pub fn append(
        &mut self,
        publication: &Publication,
        topic: TopicId,
        count: u64,
        now_ns: u64,
        memory: &mut LogMemory,
    ) -> Result<bool, PoolFull> {
        if self.appended == count {
            return Ok(false);
        }
        self.log.append(publication, self.format, topic, count, memory)?;
        self.appended = count;
        self.grown(now_ns);
        Ok(true)
    }

    /// Appends a message of the server's own, which is no publication and counts as none.
    ///
    /// # Errors
    /// The pool is at its bound.
    pub fn append_notice(
        &mut self,
        bytes: &[u8],
        topic: TopicId,
        now_ns: u64,
        memory: &mut LogMemory,
    ) -> Result<bool, PoolFull> {
        self.log.append_notice(bytes, topic, memory)?;
        self.grown(now_ns);
        Ok(true)
    }

    /// Whether an entry is part of its interest.
    pub fn has(&self, entry: EntryId) -> bool {
        self.interest.binary_search_by_key(&entry, |member| member.entry).is_ok()
    }

    fn grown(&mut self, now_ns: u64) {
        if self.pending == 0 {
            self.round_started_ns = now_ns;
            self.steps_left = self.subscribers.len() as u32;
        }
        self.pending = self.subscribers.len() as u32 - self.held;
        if self.pending > 0 {
            // What only waits for room in sockets is not late by our doing.
            self.appended_ns.get_or_insert(now_ns);
        }
    }

    /// A subscriber joins at the head, held back until [`Self::hold`] frees it. Returns its index.
    pub fn join(&mut self, connection: u32, address: u32) -> u32 {
        debug_assert!(address < HELD, "tables of direct descriptors are far smaller");
        let cursor = self.log.join();
        self.held += 1;
        self.subscribers.push(Subscriber { cursor, connection, address: address | HELD });
        self.subscribers.len() as u32 - 1
    }

    /// A subscriber goes; the one that takes over its index, if any, is the connection returned.
    pub fn leave(&mut self, index: u32, memory: &mut LogMemory) -> Option<u32> {
        let subscriber = self.subscribers.swap_remove(index as usize);
        if subscriber.held() {
            self.held -= 1;
        } else if subscriber.cursor < self.log.head() {
            self.pending -= 1;
        }
        self.log.leave(subscriber.cursor, memory);
        self.subscribers.get(index as usize).map(|moved| moved.connection)
    }

    /// Holds a subscriber back, or no longer.
    pub fn hold(&mut self, index: u32, held: bool) {
        let head = self.log.head();
        let subscriber = &mut self.subscribers[index as usize];
        if subscriber.held() == held {
            return;
        }
        subscriber.address ^= HELD;
        let behind = u32::from(subscriber.cursor < head);
        if held {
            self.held += 1;
            self.pending -= behind;
        } else {
            self.held -= 1;
            if self.pending == 0 {
                // A round of its own, which begins with its first visit.
                self.steps_left = self.subscribers.len() as u32;
                self.round_started_ns = 0;
            }
            self.pending += behind;
        }
    }

    /// A subscriber's cursor moves on.
    pub fn advance(&mut self, index: u32, to: u64, memory: &mut LogMemory) {
        let subscriber = &mut self.subscribers[index as usize];
        let from = subscriber.cursor;
        subscriber.cursor = to;
        if !subscriber.held() && to == self.log.head() && from < to {
            self.pending -= 1;
        }
        self.log.advance(from, to, memory);
    }

    /// Hands out the next turns until `visit` wants no more or everyone has had one, and returns
    /// how many steps the rotation went. The cursors move later, by [`Self::advance`].
    pub fn turns<'l>(&'l self, mut visit: impl FnMut(Visit<'l>) -> bool) -> u32 {
        let count = self.subscribers.len() as u32;
        let mut left = self.pending;
        let mut at = if self.next < count { self.next } else { 0 };
        let mut steps = 0;
        while steps < count && left > 0 {
            let subscriber = &self.subscribers[at as usize];
            if !subscriber.held()
                && let Some(bytes) = self.log.visit(subscriber.cursor, VISIT_BYTES_MAX)
            {
                left -= 1;
                let turn = Visit {
                    index: at,
                    address: subscriber.address(),
                    from: subscriber.cursor,
                    bytes,
                };
                if !visit(turn) {
                    return steps + 1;
                }
            }
            steps += 1;
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        steps
    }

    /// The rotation went on by so many steps. Returns the round that this completed, if it did.
    pub fn stepped(&mut self, steps: u32, now_ns: u64) -> Option<Round> {
        let count = self.subscribers.len() as u32;
        let from = if self.next < count { self.next } else { 0 };
        self.next = if count == 0 { 0 } else { (from + steps) % count };
        self.steps_left = self.steps_left.saturating_sub(steps);
        if self.round_started_ns == 0 {
            self.round_started_ns = now_ns;
        }
        if self.steps_left > 0 && self.pending > 0 {
            return None;
        }
        self.batch.rounds_left = self.batch.rounds_left.saturating_sub(1);
        if self.pending == 0 {
            self.batch.rounds_left = 0;
            self.batch.head = self.log.head();
        }
        let rotation_ns = match self.round_started_ns {
            0 => 0,
            started_ns => now_ns.saturating_sub(started_ns),
        };
        let oldest = if self.pending == 0 {
            let oldest = self.appended_before_ns.or(self.appended_ns);
            self.appended_ns = None;
            self.appended_before_ns = None;
            oldest
        } else {
            std::mem::replace(&mut self.appended_before_ns, self.appended_ns.take())
        };
        self.round_started_ns = now_ns;
        self.steps_left = count;
        Some(Round { rotation_ns, oldest_ns: oldest.map(|at| now_ns.saturating_sub(at)) })
    }
}

#[cfg(test)]
mod tests {
    use uringcast_protocol::opcode::Opcode;
    use uringcast_ring::pool::Pool;

    use super::*;
    use crate::{
        publication::{self, Order, PayloadContent},
        topics::log::Boundary,
    };

    struct Bench {
        lane: Lane,
        memory: LogMemory,
        count: u64,
    }

    impl Bench {
        fn new(subscribers: u32) -> Self {
            let mut lane = Lane::new(Format::RAW, Vec::new(), 0);
            for i in 0..subscribers {
                lane.join(i, i);
                lane.hold(i, false);
            }
            Self { lane, memory: LogMemory::new(Pool::unregistered()), count: 0 }
        }

        fn publish(&mut self, bytes: usize) {
            self.count += 1;
            let payload = vec![b'1'; bytes];
            let pool = &mut self.memory.pool;
            let lease =
                publication::draft(pool, "t", 1, PayloadContent::Json, Opcode::Text, &payload)
                    .expect("room");
            let order =
                Order { epoch: 1, seq: self.count, ts_us: 0, pub_seq: None, snapshot: false };
            let p = publication::order(pool, lease, order, &mut Vec::new()).expect("room");
            let appended =
                self.lane.append(&p, TopicId(0), self.count, self.count, &mut self.memory);
            assert_eq!(appended, Ok(true));
        }

        /// One round of at most `most` visits; returns who was visited with how many bytes.
        fn round(&mut self, most: usize) -> Vec<(u32, usize)> {
            let mut visits = Vec::new();
            let steps = self.lane.turns(|v| {
                visits.push((v.index, v.from, v.bytes.len()));
                visits.len() < most
            });
            for &(index, from, bytes) in &visits {
                self.lane.advance(index, from + bytes as u64, &mut self.memory);
            }
            self.lane.stepped(steps, 0);
            visits.iter().map(|&(index, _, bytes)| (index, bytes)).collect()
        }
    }

    #[test]
    fn what_is_published_meanwhile_rides_along() {
        let mut bench = Bench::new(4);
        bench.publish(10);
        assert_eq!(bench.round(2), [(0, 12), (1, 12)]);
        bench.publish(10);
        assert_eq!(bench.round(2), [(2, 24), (3, 24)]);
        assert_eq!(bench.round(4), [(0, 12), (1, 12)]);
        assert!(!bench.lane.is_pending());
        assert_eq!(bench.memory.held_bytes, 0, "all at the head: nothing is held");
    }

    #[test]
    fn a_held_subscriber_is_stepped_over_and_keeps_its_bytes() {
        let mut bench = Bench::new(3);
        bench.lane.hold(1, true);
        bench.publish(10);
        bench.publish(10);
        assert_eq!(bench.round(9), [(0, 24), (2, 24)]);
        assert!(!bench.lane.is_pending());
        assert!(bench.memory.held_bytes > 0);
        bench.lane.hold(1, false);
        assert_eq!(bench.round(9), [(1, 24)]);
        assert_eq!(bench.memory.held_bytes, 0);
    }

    #[test]
    fn large_frames_are_segments_of_their_own() {
        let mut bench = Bench::new(1);
        bench.publish(10);
        bench.publish(100_000);
        bench.publish(10);
        assert_eq!(bench.round(1), [(0, 12)]);
        assert_eq!(bench.round(1), [(0, VISIT_BYTES_MAX)]);
        assert_eq!(bench.round(1), [(0, 100_008 - VISIT_BYTES_MAX)]);
        assert_eq!(bench.round(1), [(0, 12)]);
        assert_eq!(bench.memory.held_bytes, 0);
    }

    #[test]
    fn leaving_in_the_middle_frees_what_only_that_one_needed() {
        let mut bench = Bench::new(2);
        bench.lane.hold(0, true);
        for _ in 0..100 {
            bench.publish(1_000);
        }
        while bench.lane.is_pending() {
            bench.round(9);
        }
        assert!(bench.memory.held_bytes > 100_000);
        assert_eq!(bench.lane.leave(0, &mut bench.memory), Some(1));
        assert_eq!(bench.memory.held_bytes, 0);
        assert_eq!(bench.lane.log.readers(), 1);
    }

    #[test]
    fn lag_counts_from_the_mark() {
        let mut bench = Bench::new(1);
        bench.publish(10);
        bench.lane.hold(0, true);
        let id = ConnectionId { index: 0, generation: 0 };
        bench.lane.mark_lag(id, 5);
        bench.publish(10);
        let mut is_past = |bytes_max, messages_max| {
            bench.lane.lag = LagBounds { bytes_max, messages_max, ..LagBounds::NONE };
            bench.lane.worst_lag().is_some()
        };
        assert!(!is_past(12, 10));
        assert!(is_past(11, 10));
        assert!(is_past(100, 0));
        assert_eq!(bench.lane.age_due_ns(5), None, "no bound");
        bench.lane.lag.age_ns_max = 10;
        assert_eq!(bench.lane.age_due_ns(5), Some(15));
        assert_eq!(bench.lane.age_due_ns(16), Some(26), "one that stays is looked at again");
        let mut aged = Vec::new();
        bench.lane.aged_marks(14, &mut aged);
        assert!(aged.is_empty());
        bench.lane.aged_marks(15, &mut aged);
        assert_eq!(aged.len(), 1);
        bench.lane.keeps = true;
        bench.lane.aged_marks(15, &mut aged);
        assert!(aged.is_empty() && bench.lane.age_due_ns(5).is_none());
    }

    #[test]
    fn a_batch_is_visited_until_everyone_has_what_was_there_when_it_was_due() {
        let mut bench = Bench::new(2);
        bench.lane.batch.every_ns = 10;
        for _ in 0..30 {
            bench.publish(10_000);
        }
        assert_eq!(bench.lane.batch_waits(5), Some(15));
        bench.lane.begin_batch(15);
        let mut rounds = 0;
        while bench.lane.is_pending() {
            assert_eq!(bench.lane.batch_waits(15), None, "after {rounds} rounds");
            bench.round(9);
            rounds += 1;
        }
        assert_eq!(rounds, 30, "each large message is a visit");
        bench.publish(10);
        assert_eq!(bench.lane.batch_waits(20), Some(30), "the next one waits again");
        for _ in 0..110 {
            bench.publish(10_000);
        }
        assert_eq!(bench.lane.batch_waits(20), None, "so much does not wait");
        // Who had no room when it was due does not wait for all of a period.
        while bench.lane.is_pending() {
            bench.round(9);
        }
        bench.lane.hold(1, true);
        bench.publish(10);
        bench.lane.begin_batch(30);
        while bench.lane.is_pending() {
            bench.round(9);
        }
        assert_eq!(bench.lane.hurry(0, 40), None, "this one has all");
        bench.lane.hold(1, false);
        bench.lane.batch.every_ns = 1_000;
        assert_eq!(bench.lane.hurry(1, 40), Some(290));
    }

    #[test]
    fn a_notice_is_sent_and_is_no_message() {
        let mut bench = Bench::new(1);
        bench.publish(10);
        let notice = b"\x81\x02{}";
        let appended = bench.lane.append_notice(notice, TopicId(0), 1, &mut bench.memory);
        assert_eq!(appended, Ok(true));
        bench.publish(10);
        let log = &bench.lane.log;
        assert_eq!((log.messages(), log.messages_between(0, 28)), (2, 2));
        assert_eq!((log.messages_between(0, 16), log.messages_between(12, 16)), (1, 0));
        assert_eq!(log.unsent(0).count(), 2);
        assert_eq!(log.boundary(13, Boundary::Message), 16, "its end is one of a message");
        assert_eq!(bench.round(1), [(0, 28)]);
        assert_eq!(bench.memory.held_bytes, 0);
    }
}
