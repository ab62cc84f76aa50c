//! Full sockets: waiting for room, and judging lag.
//!
//! Knows: when a subscriber counts as lagging and what its topics' kinds then say. Must not know:
//! how sends are batched.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use uringcast_protocol::opcode::CloseCode;
use uringcast_ring::{Io, SendOutcome};

use super::{Shard, close::Ending, count, uncount};
use crate::{
    conn::{Connection, Flags, Phase, Seat},
    ids::{ConnectionId, LaneId, TopicId},
    rules::{Kind, RuleId},
    topics::{
        lane::LagMark,
        log::{Boundary, Unsent},
        sweep::{Owed, Sweep},
        tally::Tally,
    },
};

/// So much of logs and topics is looked through in one tick to judge who lags, one subscriber whole:
/// a millisecond or two where interests are not of tens of thousands of topics.
pub(super) const LOOKS_PER_TICK: usize = 50_000;
/// Subscribers that leave their log in one tick because all logs together are too large.
const SHED_PER_TICK_MAX: usize = 16;

impl<I: Io> Shard<I> {
    /// A socket took less than it was given.
    pub(super) fn block(&mut self, id: ConnectionId, outcome: SendOutcome) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.phase == Phase::Ending {
            return;
        }
        let full = outcome == SendOutcome::Full;
        if full {
            count!(self.sends_full);
        } else {
            count!(self.sends_short);
        }
        if !connection.flags.set(Flags::BLOCKED) {
            count!(self.blocked);
        }
        if let Some(Seat { lane: seat_lane, index }) = connection.seat
            && index != Seat::AWAY
        {
            let (lane, _) = self.topics.lane_mut(seat_lane);
            let cursor = lane.subscribers[index as usize].cursor;
            // Lag counts from when its socket was first full; once it has had all that was there
            // then, from anew. A subscriber that was not visited for a while is not slow.
            let base = connection.lag_base;
            if base == u64::MAX || cursor >= base && lane.log.head() > base {
                let stale = lane.has_stale_marks();
                connection.lag_base = self.topics.mark_lag(seat_lane, id, self.now.ns);
                if stale {
                    self.drop_stale_marks(seat_lane);
                }
            }
        }
        if let Some(sweep) = self.sweeps.get_mut(&id.index) {
            sweep.slow = true;
        }
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.flags.clear(Flags::WOKEN) && full {
            // The poll said that there was room: asking it again would be a spin.
            self.retries.start(self.now.ns, id);
        } else if !connection.flags.set(Flags::WRITE_ARMED) {
            let slot = connection.slot;
            self.io.poll_writable(slot, Self::token(id));
        }
        self.settle_hold(id);
    }

    /// Drops marks that no longer say anything: most subscribers that were full once recover.
    fn drop_stale_marks(&mut self, lane_id: LaneId) {
        let (lane, _) = self.topics.lane_mut(lane_id);
        let connections = &self.connections;
        lane.lag_marks.retain(|mark| {
            connections.find(mark.connection).is_some_and(|connection| {
                connection.lag_base == mark.base
                    || connection.outbox.as_ref().is_some_and(|o| o.has_range_of(lane_id))
            })
        });
    }

    pub(super) fn writable(&mut self, id: ConnectionId, cancelled: bool) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.flags.clear(Flags::WRITE_ARMED);
        if !cancelled {
            // Its kernel has taken more: it reads. An answer to a ping that lies behind what is still
            // to be read may take longer than a ping is waited for.
            connection.flags.clear(Flags::PING_OUT);
        }
        if connection.phase == Phase::Ending {
            self.finish(id);
        } else if !cancelled {
            self.unblock(id);
        }
    }

    /// There may be room again.
    pub(super) fn unblock(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if !connection.flags.clear(Flags::BLOCKED) {
            return;
        }
        uncount!(self.blocked);
        connection.flags.set(Flags::WOKEN);
        if connection.has_own() {
            self.queue_own(id);
        } else {
            self.own_done(id);
        }
    }

    /// Acts on lanes that could not take the last publication, before they take another: nothing may
    /// be sent behind a gap.
    pub(super) fn judge_failures(&mut self) {
        while let Some(lane) = self.topics.appended.failed.pop() {
            self.evacuate(lane);
        }
    }

    /// Acts on subscribers whose lag has passed its bound with this tick's publications. Where there are
    /// many, some wait for the next tick.
    pub(super) fn judge_lags(&mut self) {
        self.looks_left += LOOKS_PER_TICK / 2;
        let mut left = std::mem::take(&mut self.scratch.lanes);
        left.clear();
        while let Some(lane) = self.topics.appended.lagging.pop() {
            if self.topics.lane_if(lane).is_some() {
                self.topics.lane_mut(lane).0.judged = false;
            }
            while let Some(mark) = self.worst(lane) {
                if self.looks_left == 0 {
                    self.topics.lane_mut(lane).0.judged = true;
                    left.push(lane);
                    break;
                }
                self.overflow(lane, mark);
            }
        }
        self.topics.appended.lagging.append(&mut left);
        self.scratch.lanes = left;
    }

    fn worst(&self, lane: LaneId) -> Option<LagMark> {
        self.topics.lane_if(lane)?.worst_lag()
    }

    /// The subscriber of a lane's first mark has passed its bound, if it still is where the mark says.
    fn overflow(&mut self, lane_id: LaneId, mark: LagMark) {
        let (lane, _) = self.topics.lane_mut(lane_id);
        lane.lag_marks.pop_front();
        let id = mark.connection;
        let Some(connection) = self.connections.find(id) else { return };
        if connection.outbox.as_ref().is_some_and(|outbox| outbox.has_range_of(lane_id)) {
            if connection.flags.has(Flags::BLOCKED) {
                // Owed part of a lane's log, and its socket takes nothing.
                let first = self.topics.lane(lane_id).log.unsent(mark.base).next();
                let topic = first.and_then(|end| self.topics.names.topic_if(end.topic));
                let rule = topic.map(|topic| topic.rule);
                return self.close_slow(id, rule);
            }
            // Its turn has not come yet, which is not its fault.
            self.topics.mark_lag(lane_id, id, self.now.ns);
            return;
        }
        let Some(seat) = connection.seat.filter(|seat| seat.lane == lane_id) else { return };
        if seat.index == Seat::AWAY || connection.lag_base != mark.base {
            return;
        }
        let lane = self.topics.lane(lane_id);
        let had_all = lane.subscribers[seat.index as usize].cursor >= mark.base;
        // Who is still blocked, by output of its own perhaps, lags however little was there then.
        if had_all && !connection.flags.has(Flags::BLOCKED) {
            return;
        }
        self.leave_log(id, false);
    }

    /// Acts on subscribers that have been behind for too long. Where there are many, some wait for the
    /// next tick.
    pub(super) fn judge_ages(&mut self) {
        while self.looks_left > 0
            && let Some(lane) = self.topics.next_aged(self.now.ns)
        {
            self.drop_caught_up(lane);
            let (kept_since, looks) = self.topics.kept_since(lane);
            let mut marks = std::mem::take(&mut self.scratch.marks);
            self.topics.lane(lane).aged_marks(self.now.ns, &mut marks);
            let mut marks_left = marks.drain(..);
            // Who can't leave costs nothing to speak of, so that all of them are passed in every tick.
            for mark in marks_left.by_ref() {
                let before = self.looks_left;
                self.outdate(lane, mark, kept_since);
                if self.looks_left < before && self.looks_left <= looks {
                    break;
                }
            }
            self.looks_left = self.looks_left.saturating_sub(looks);
            let postponed = marks_left.len() > 0;
            drop(marks_left);
            self.scratch.marks = marks;
            if postponed {
                self.topics.postpone_ages(lane, self.now.ns);
                return;
            }
            self.topics.watch_ages(lane, self.now.ns);
        }
    }

    /// Drops the marks of those who had all that was there then, and have room.
    fn drop_caught_up(&mut self, lane_id: LaneId) {
        let (lane, _) = self.topics.lane_mut(lane_id);
        let (connections, subscribers) = (&mut self.connections, &lane.subscribers);
        lane.lag_marks.retain(|mark| {
            let Some(connection) = connections.find_mut(mark.connection) else { return false };
            if connection.outbox.as_ref().is_some_and(|outbox| outbox.has_range_of(lane_id)) {
                return true;
            }
            let seat = connection.seat.filter(|seat| seat.lane == lane_id);
            let Some(seat) = seat.filter(|seat| seat.index != Seat::AWAY) else { return false };
            let had_all = subscribers[seat.index as usize].cursor >= mark.base;
            if connection.lag_base == mark.base && had_all && !connection.flags.has(Flags::BLOCKED)
            {
                connection.lag_base = u64::MAX;
            }
            connection.lag_base == mark.base
        });
    }

    /// What this subscriber is to be sent next of values is too old: it leaves the log, if that costs
    /// it no message of the others.
    fn outdate(&mut self, lane_id: LaneId, mark: LagMark, kept_since: u64) {
        let Some(lane) = self.topics.lane_if(lane_id) else { return };
        let Some(connection) = self.connections.find(mark.connection) else { return };
        let Some(seat) = connection.seat.filter(|seat| seat.lane == lane_id) else { return };
        if seat.index == Seat::AWAY
            || connection.lag_base != mark.base
            // It is its turn that is late.
            || !connection.flags.has(Flags::BLOCKED)
            || connection.outbox.as_ref().is_some_and(|outbox| outbox.has_range_of(lane_id))
        {
            return;
        }
        let cursor = lane.subscribers[seat.index as usize].cursor;
        let from = lane.log.boundary(cursor, Boundary::Message);
        if lane.log.unsent(from).next().is_some_and(|first| first.count >= kept_since) {
            self.leave_log(mark.connection, true);
        }
    }

    /// Takes a subscriber out of the log: to sweeps if its topics allow it, else it is closed.
    /// `all`: only if all that it was not sent of event and delta topics is in history.
    fn leave_log(&mut self, id: ConnectionId, all: bool) {
        let Some(seat) = self.connections.find(id).and_then(|c| c.seat) else { return };
        let (lane, _) = self.topics.lane_mut(seat.lane);
        let cursor = lane.subscribers[seat.index as usize].cursor;
        let from = lane.log.boundary(cursor, Boundary::Message);
        let Unsent { messages: unsent, first_count, looks } = lane.log.unsent_by_topic(from);
        self.looks_left = self.looks_left.saturating_sub(looks);
        let (mut rules, mut away) = (Tally::default(), self.topics.lane(seat.lane).away.clone());
        for (&topic, &missed) in &unsent {
            let Some(topic) = self.topics.names.topic_if(topic) else { continue };
            rules.add(topic.rule, missed);
            if topic.kind == Kind::Value {
                away.sub(topic.rule, missed);
            }
        }
        let forgotten = self.is_forgotten(seat.lane, &unsent);
        let owed = self.owed_of(seat.lane, |topic| unsent.get(&topic).copied().unwrap_or(0));
        let is_there = |owed: &Owed| self.topics.names.topic(owed.topic).has_from(owed.next);
        if all && (forgotten || !owed.iter().all(is_there)) {
            return;
        }
        count!(self.lags);
        for (rule, _) in rules.iter() {
            self.of_rule(rule).lags.add(1);
        }
        if forgotten {
            // Of topics that are gone, whose rule nobody knows any more.
            return self.close_slow(id, None);
        }
        // Own output on its way, a snapshot perhaps, is finished before anything is judged.
        let own = self.connections.find(id).is_some_and(Connection::has_own);
        let lost = owed.iter().find(|owed| self.topics.is_lost(seat.lane, owed));
        if let (false, Some(owed)) = (own, lost) {
            let rule = self.topics.names.topic(owed.topic).rule;
            return self.close_slow(id, Some(rule));
        }
        let seen = first_count.map_or_else(|| self.topics.count(), |count| count - 1);
        self.owe_begun(id, Boundary::Message);
        self.topics.lane_mut(seat.lane).0.sweeping += 1;
        self.leave_lane(id, seat);
        let mut sweep = Sweep::new(seen, away, owed);
        sweep.lagged = true;
        sweep.slow = true;
        self.begin_sweep(id, sweep);
        if let Some(connection) = self.connections.find_mut(id) {
            connection.seat = Some(Seat { lane: seat.lane, index: Seat::AWAY });
            connection.lag_base = u64::MAX;
            if !connection.has_own() && !connection.flags.has(Flags::BLOCKED) {
                self.sweep_when_room(id);
            }
        }
    }

    /// Whether topics are gone of which so many messages each were not sent: what they were, nobody
    /// knows any more.
    fn is_forgotten(&self, lane: LaneId, unsent: &HashMap<TopicId, u64, RandomState>) -> bool {
        !self.topics.lane(lane).only_values
            && unsent.iter().any(|(&id, &unsent)| {
                let topic = self.topics.names.topic_if(id);
                topic.is_none_or(|topic| unsent > topic.seq - topic.base_seq)
            })
    }

    /// It is too slow, in a topic of this rule if that is known.
    pub(super) fn close_slow(&mut self, id: ConnectionId, rule: Option<RuleId>) {
        if let Some(rule) = rule {
            self.of_rule(rule).closed_slow.add(1);
        }
        self.close_with(id, CloseCode::TRY_AGAIN_LATER, "too slow", Ending::Slow);
    }

    /// A lane's log could not take a publication: its subscribers have a gap, and are told so.
    fn evacuate(&mut self, lane: LaneId) {
        let Some(lane) = self.topics.lane_if(lane) else { return };
        let everyone: Vec<_> = lane
            .subscribers
            .iter()
            .filter_map(|subscriber| self.connections.id_at(subscriber.connection))
            .collect();
        for id in everyone {
            self.close_with(id, CloseCode::TRY_AGAIN_LATER, "no memory", Ending::Budget);
        }
    }

    /// All logs of the process together are too large: those who hold the most must leave theirs.
    /// `false` if nobody blocked holds any.
    pub(super) fn shed(&mut self) -> bool {
        let mut marks: Vec<_> = self
            .topics
            .lanes()
            .filter_map(|(id, lane)| {
                let mark = *lane.lag_marks.front()?;
                Some((lane.log.head() - mark.base, id, mark))
            })
            .collect();
        marks.sort_unstable_by_key(|&(lag, ..)| std::cmp::Reverse(lag));
        marks.truncate(SHED_PER_TICK_MAX);
        let any = !marks.is_empty();
        for (_, lane, mark) in marks {
            if self.topics.lane_if(lane).is_some() {
                self.overflow(lane, mark);
            }
        }
        any
    }

    /// Whether a connection's output is to be left alone because it is behind.
    pub(super) fn is_behind(&self, id: ConnectionId) -> bool {
        self.connections.find(id).is_none_or(|c| c.flags.has(Flags::BLOCKED) || c.has_own())
    }

    /// What a connection has not been sent of its lane, bytes.
    pub(super) fn backlog_bytes(&self, id: ConnectionId) -> u64 {
        let Some(connection) = self.connections.find(id) else { return 0 };
        connection.own_bytes() as u64
            + connection.seat.filter(|seat| seat.index != Seat::AWAY).map_or(0, |seat| {
                let lane = self.topics.lane(seat.lane);
                lane.log.head() - lane.subscribers[seat.index as usize].cursor
            })
    }
}
