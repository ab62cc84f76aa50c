//! Full sockets: waiting for room, judging lag, and sweeps.
//!
//! Knows: when a subscriber counts as lagging and what its topics' kinds then say. Must not know:
//! how sends are batched.

use std::collections::HashMap;

use uringcast_protocol::{opcode::CloseCode, reply};
use uringcast_ring::{Io, SendOutcome};

use super::{Shard, close::Ending, count, uncount};
use crate::{
    conn::{Connection, Flags, Phase, Seat},
    ids::{ConnectionId, LaneId, TopicId},
    publication::Body,
    rules::{Kind, RuleId},
    topics::{
        lane::LagMark,
        log::Boundary,
        sweep::{Batch, Need, Owed, Piece, Sweep, SweepStep, Told},
        tally::Tally,
    },
};

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
                connection.lag_base = lane.mark_lag(id);
                if lane.has_stale_marks() {
                    self.drop_stale_marks(seat_lane);
                }
            }
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

    /// Acts on subscribers whose lag has passed its bound with this tick's publications.
    pub(super) fn judge_lags(&mut self) {
        while let Some(lane) = self.topics.appended.lagging.pop() {
            if self.topics.lane_if(lane).is_some() {
                self.topics.lane_mut(lane).0.judged = false;
            }
            while let Some(mark) = self.worst(lane) {
                self.overflow(lane, mark);
            }
        }
    }

    fn worst(&self, lane: LaneId) -> Option<LagMark> {
        self.topics.lane_if(lane)?.worst_lag()
    }

    /// Goes on with the sweeps that wait for something new in their lane.
    pub(super) fn rouse_awaiting(&mut self) {
        while let Some(lane_id) = self.topics.appended.awaited.pop() {
            if self.topics.lane_if(lane_id).is_none() {
                continue;
            }
            let (lane, _) = self.topics.lane_mut(lane_id);
            lane.awaited = false;
            for id in std::mem::take(&mut lane.awaiting) {
                if let Some(sweep) = self.sweeps.get_mut(&id.index) {
                    sweep.awaiting_in = None;
                }
                let idle = |c: &Connection| !c.has_own() && !c.flags.has(Flags::BLOCKED);
                // Who has output of its own goes on when that is out.
                if self.connections.find(id).is_some_and(idle) {
                    self.sweep_on(id);
                }
            }
        }
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
            self.topics.lane_mut(lane_id).0.mark_lag(id);
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
        count!(self.lags);
        self.leave_log(id);
    }

    /// Takes a subscriber out of the log: to sweeps if its topics allow it, else it is closed.
    fn leave_log(&mut self, id: ConnectionId) {
        let Some(seat) = self.connections.find(id).and_then(|c| c.seat) else { return };
        let lane = self.topics.lane(seat.lane);
        let cursor = lane.subscribers[seat.index as usize].cursor;
        let from = lane.log.boundary(cursor, Boundary::Message);
        let (mut first, mut away) = (None, lane.away.clone());
        let (mut unsent, mut rules) = (HashMap::new(), Tally::default());
        for end in lane.log.unsent(from) {
            *unsent.entry(end.topic).or_insert(0) += 1;
            first.get_or_insert(end.count);
        }
        for (&topic, &missed) in &unsent {
            let Some(topic) = self.topics.names.topic_if(topic) else { continue };
            rules.add(topic.rule, missed);
            if topic.kind == Kind::Value {
                away.sub(topic.rule, missed);
            }
        }
        for (rule, _) in rules.iter() {
            self.of_rule(rule).lags.add(1);
        }
        if self.is_forgotten(seat.lane, &unsent) {
            // Of topics that are gone, whose rule nobody knows any more.
            return self.close_slow(id, None);
        }
        let owed = self.owed_of(seat.lane, |topic| unsent.get(&topic).copied().unwrap_or(0));
        // Own output on its way, a snapshot perhaps, is finished before anything is judged.
        let own = self.connections.find(id).is_some_and(Connection::has_own);
        let lost = owed.iter().find(|owed| self.topics.is_lost(seat.lane, owed));
        if let (false, Some(owed)) = (own, lost) {
            let rule = self.topics.names.topic(owed.topic).rule;
            return self.close_slow(id, Some(rule));
        }
        let seen = first.map_or_else(|| self.topics.count(), |count| count - 1);
        self.owe_begun(id, Boundary::Message);
        self.topics.lane_mut(seat.lane).0.sweeping += 1;
        self.leave_lane(id, seat);
        let mut sweep = Sweep::new(seen, away, owed);
        sweep.lagged = true;
        self.begin_sweep(id, sweep);
        if let Some(connection) = self.connections.find_mut(id) {
            connection.seat = Some(Seat { lane: seat.lane, index: Seat::AWAY });
            connection.lag_base = u64::MAX;
            if !connection.has_own() && !connection.flags.has(Flags::BLOCKED) {
                self.sweep_on(id);
            }
        }
    }

    /// Whether topics are gone of which so many messages each were not sent: what they were, nobody
    /// knows any more.
    fn is_forgotten(&self, lane: LaneId, unsent: &HashMap<TopicId, u64>) -> bool {
        !self.topics.lane(lane).only_values
            && unsent.iter().any(|(&id, &unsent)| {
                let topic = self.topics.names.topic_if(id);
                topic.is_none_or(|topic| unsent > topic.seq - topic.base_seq)
            })
    }

    /// A topic is about to be forgotten: whoever is owed messages of it is told that they don't come.
    pub(super) fn forget_owed(&mut self, id: TopicId) {
        let topic = self.topics.names.topic(id);
        let (seq, name, rule) = (topic.seq, topic.name.clone(), topic.rule);
        let mut owing = Vec::new();
        for (&index, sweep) in &mut self.sweeps {
            let connection = self.connections.id_at(index);
            let seat = connection.and_then(|id| self.connections.find(id)?.seat);
            let Some(seat) = seat else { continue };
            let interest = &self.topics.lane(seat.lane).interest;
            let wants = |e| interest.binary_search_by_key(e, |member| member.entry).is_ok();
            if topic.entries.iter().any(wants)
                && let Some(next) = sweep.owed(id, topic).and_then(|owed| owed.unsent(topic))
            {
                owing.push((index, next));
            }
            sweep.forget(id);
        }
        owing.sort_unstable();
        for (index, next) in owing {
            let Some(id) = self.connections.id_at(index) else { continue };
            let Some(seat) = self.connections.find(id).and_then(|c| c.seat) else { continue };
            let body = self.topics.lane(seat.lane).format.body;
            if body == Body::Raw {
                self.close_slow(id, Some(rule));
            } else {
                self.count_told(rule, Told::Gap, id);
                self.own_bytes(id, |out| write_gap(out, body, &name, (next, seq), "deleted"));
            }
        }
    }

    /// The next batch of a sweep, now that all before it is sent.
    pub(super) fn sweep_on(&mut self, id: ConnectionId) {
        let Some(seat) = self.connections.find(id).and_then(|c| c.seat) else { return };
        let Some(sweep) = self.sweeps.get_mut(&id.index) else { return };
        let mut batch = Batch::default();
        let mut ids = std::mem::take(&mut self.scratch.ids);
        let step = self.topics.sweep(seat.lane, sweep, &mut batch, &mut ids);
        self.scratch.ids = ids;
        for (rule, told) in std::mem::take(&mut batch.told) {
            self.count_told(rule, told, id);
        }
        let Some(sweep) = self.sweeps.get_mut(&id.index) else { return };
        match step {
            // Closed above, with its reason.
            SweepStep::Lost => return,
            SweepStep::More => {}
            SweepStep::Waiting => {
                self.count_missed(id, seat.lane);
                let Some(sweep) = self.sweeps.get_mut(&id.index) else { return };
                if sweep.awaiting_in.replace(seat.lane) != Some(seat.lane) {
                    self.await_news(id, seat.lane);
                }
            }
            SweepStep::CaughtUp => {
                if sweep.lagged {
                    count!(self.rejoins);
                }
                let lane = seat.lane;
                // The seat first, so that the lane is not given up in between.
                self.take_seat(id, lane);
                self.topics.lane_mut(lane).0.sweeping -= 1;
                self.end_sweep_in(id, Some(lane));
            }
        }
        self.recount_sweep(id);
        if batch.pieces.is_empty() {
            self.settle_hold(id);
            self.resume_reading(id);
        }
        for piece in batch.pieces {
            match piece {
                Piece::Bytes(bytes) => self.own_bytes(id, |own| own.extend_from_slice(&bytes)),
                Piece::Shared(frame, range) => self.own_shared(id, frame, range),
            }
        }
    }

    fn await_news(&mut self, id: ConnectionId, lane_id: LaneId) {
        let connections = &self.connections;
        let (lane, _) = self.topics.lane_mut(lane_id);
        // Of those who are gone, or have another interest now, nobody has told.
        if lane.awaiting.len() > 64 + 2 * lane.sweeping as usize {
            lane.awaiting.retain(|&other| {
                let seat = connections.find(other).and_then(|c| c.seat);
                seat.is_some_and(|seat| seat.lane == lane_id && seat.index == Seat::AWAY)
            });
        }
        lane.awaiting.push(id);
    }

    /// Where a subscriber of a lane stands in its event and delta topics, if so many of the last
    /// messages of each were not sent to it.
    pub(super) fn owed_of(&mut self, lane: LaneId, unsent: impl Fn(TopicId) -> u64) -> Vec<Owed> {
        let mut ids = std::mem::take(&mut self.scratch.ids);
        self.topics.topics_of(lane, &mut ids);
        let names = &self.topics.names;
        let owed = ids
            .iter()
            .map(|&id| (id, names.topic(id)))
            .filter(|(_, topic)| topic.kind != Kind::Value)
            .map(|(id, topic)| Owed {
                topic: id,
                epoch: topic.epoch,
                next: topic.seq.saturating_sub(unsent(id)).max(topic.base_seq) + 1,
                need: Need::Next,
            })
            .collect();
        self.scratch.ids = ids;
        owed
    }

    /// A connection is served by a sweep from now on.
    pub(super) fn begin_sweep(&mut self, id: ConnectionId, mut sweep: Sweep) {
        sweep.since_us = self.now.utc_us;
        sweep.counted_bytes = sweep.held_bytes() as u64;
        self.topics.memory.held_bytes += sweep.counted_bytes;
        self.sweeps.insert(id.index, sweep);
        count!(self.lagging);
        if let Some(connection) = self.connections.find_mut(id) {
            connection.flags.set(Flags::SWEEPING);
        }
    }

    /// What a sweep holds is counted among the logs, also when it has come to hold more.
    pub(super) fn recount_sweep(&mut self, id: ConnectionId) {
        let Some(sweep) = self.sweeps.get_mut(&id.index) else { return };
        let held_bytes = &mut self.topics.memory.held_bytes;
        *held_bytes -= sweep.counted_bytes;
        sweep.counted_bytes = sweep.held_bytes() as u64;
        *held_bytes += sweep.counted_bytes;
    }

    /// A sweep is over, because its connection is.
    pub(super) fn end_sweep(&mut self, id: ConnectionId) {
        let lane = self.connections.find(id).and_then(|c| c.seat).map(|seat| seat.lane);
        self.end_sweep_in(id, lane);
    }

    fn end_sweep_in(&mut self, id: ConnectionId, lane: Option<LaneId>) {
        if let Some(lane) = lane {
            self.count_missed(id, lane);
        }
        let Some(sweep) = self.sweeps.remove(&id.index) else { return };
        self.topics.memory.held_bytes -= sweep.counted_bytes;
        uncount!(self.lagging);
        count!(self.deliveries, sweep.sent);
        if let Some(connection) = self.connections.find_mut(id) {
            connection.flags.clear(Flags::SWEEPING);
        }
    }

    /// How many messages of value topics a sweep's subscriber was not sent so far, by rule.
    pub(super) fn missed_values(&self, sweep: &Sweep, lane: LaneId) -> Tally {
        let mut missed = Tally::default();
        let lane = self.topics.lane(lane);
        for (rule, appended) in lane.away.iter() {
            let since = appended.wrapping_sub(sweep.away.of(rule));
            missed.add(rule, since.saturating_sub(sweep.shown.of(rule)));
        }
        missed
    }

    /// Its subscriber has the newest of every value topic: what it was not sent of them it will never
    /// be.
    fn count_missed(&mut self, id: ConnectionId, lane: LaneId) {
        let Some(sweep) = self.sweeps.get(&id.index) else { return };
        for (rule, missed) in self.missed_values(sweep, lane).iter() {
            count!(self.skipped, missed);
            self.of_rule(rule).conflated.add(missed);
        }
        let (away, count) = (self.topics.lane(lane).away.clone(), self.topics.count());
        if let Some(sweep) = self.sweeps.get_mut(&id.index) {
            sweep.settle(away, count);
        }
    }

    fn count_told(&mut self, rule: RuleId, told: Told, id: ConnectionId) {
        match told {
            Told::Gap => {
                count!(self.gaps);
                self.of_rule(rule).gaps.add(1);
            }
            Told::Lost => self.close_slow(id, Some(rule)),
            Told::Snapshot => {
                count!(self.snapshots_sent);
                self.of_rule(rule).snapshots_sent.add(1);
            }
            Told::SnapshotMissing => {
                count!(self.snapshots_missing);
                self.of_rule(rule).snapshots_missing.add(1);
            }
        }
    }

    /// It is too slow, in a topic of this rule if that is known.
    fn close_slow(&mut self, id: ConnectionId, rule: Option<RuleId>) {
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
        let own = connection.outbox.as_ref().map_or(0, |outbox| outbox.bytes() as u64);
        own + connection.seat.filter(|seat| seat.index != Seat::AWAY).map_or(0, |seat| {
            let lane = self.topics.lane(seat.lane);
            lane.log.head() - lane.subscribers[seat.index as usize].cursor
        })
    }
}

/// Appends a gap as a message of its own.
pub(super) fn write_gap(
    out: &mut Vec<u8>,
    body: Body,
    topic: &str,
    (from, to): (u64, u64),
    reason: &str,
) {
    let mut message = Vec::new();
    reply::write_gap(&mut message, topic, from, to, reason);
    body.write_notice(out, "gap", &message);
}
