//! Sweeps of connections: begun, gone on with, ended.
//!
//! Knows: when a subscriber that is in no log gets its next batch, and what is counted of it. Must not
//! know: what is in a batch.

use uringcast_protocol::reply;
use uringcast_ring::Io;

use super::{Shard, count, uncount};
use crate::{
    conn::{Connection, Flags, Seat},
    ids::{ConnectionId, LaneId, TopicId},
    publication::Body,
    rules::RuleId,
    topics::{
        sweep::{Batch, Need, Owed, Piece, Sweep, SweepStep, Told},
        tally::Tally,
    },
};

/// A reader whose socket has room for a batch after this time reads more than 160 KB a second: the
/// larger batches hold nothing up for it.
const ROOM_SOON_NS: u64 = 50_000_000;

impl<I: Io> Shard<I> {
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
                    self.sweep_when_room(id);
                }
            }
        }
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

    /// Goes on with a sweep now that all before it is sent. For a subscriber whose socket was full the
    /// next batch is made when there is room, not to wait for it: what it says of values is newer.
    pub(super) fn sweep_when_room(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.has_own() {
            // What reading brought is sent first.
            return;
        }
        let Some(sweep) = self.sweeps.get_mut(&id.index) else { return };
        if !sweep.slow || connection.flags.has(Flags::WOKEN) {
            // Who has room again so soon is not slow.
            sweep.slow &= self.now.ns.saturating_sub(sweep.asked_ns) > ROOM_SOON_NS;
            return self.sweep_on(id);
        }
        sweep.asked_ns = self.now.ns;
        if !connection.flags.set(Flags::BLOCKED) {
            count!(self.blocked);
        }
        if !connection.flags.set(Flags::WRITE_ARMED) {
            let slot = connection.slot;
            self.io.poll_writable(slot, Self::token(id));
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
        self.topics.streams_of(lane, &mut ids);
        self.looks_left = self.looks_left.saturating_sub(ids.len());
        let names = &self.topics.names;
        let owed = ids
            .iter()
            .map(|&id| (id, names.topic(id)))
            .map(|(id, topic)| {
                let next = topic.seq.saturating_sub(unsent(id)).max(topic.base_seq) + 1;
                Owed::from(id, topic, next, Need::Next)
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
