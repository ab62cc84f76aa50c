//! Who sits in which lane, and how a connection moves from one to another without losing or
//! repeating a message.
//!
//! Knows: a connection's seat and a lane's subscribers. Must not know: names and commands.
//!
//! A connection that changes its interest is still owed what its old lane holds for it: that becomes
//! a range of its own output, then comes the answer, then the new lane from its head on.

use uringcast_ring::Io;

use super::{Shard, count, sweeps::write_gap, uncount};
use crate::{
    conn::{Flags, Phase, Seat, outbox::Pending},
    ids::{ConnectionId, EntryId, LaneId, TopicId},
    publication::{Body, Format},
    topics::{
        log::{Boundary, Detached},
        sweep::{Need, Owed as Start, Sweep},
    },
};

/// Why a seat could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It lags; in a moment perhaps.
    Busy,
    /// A bound was reached.
    Limit,
}

/// What a connection is still sent of the lane it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// Everything up to the head.
    All,
    /// What it is in the middle of, up to such a boundary.
    Begun(Boundary),
    /// Nothing.
    Nothing,
}

/// Snapshots of topics without history are sent on subscribing in one go up to so many bytes; the
/// largest message has room, as base64.
const AT_ONCE_BYTES_MAX: usize = 2 << 20;

impl<I: Io> Shard<I> {
    /// Gives a connection the interest `entries` (rising, may be empty). `answer` is written between
    /// what was published before and what is after.
    ///
    /// # Errors
    /// Nothing was changed and nothing written.
    pub(super) fn change_seat(
        &mut self,
        id: ConnectionId,
        entries: &[EntryId],
        body: Body,
        answer: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Refused> {
        let Some(connection) = self.connections.find(id) else { return Ok(()) };
        let format = Format { body, window_bits: connection.window_bits };
        let old = connection.seat;
        if connection.flags.has(Flags::SWEEPING) {
            return self.change_sweeping_seat(id, entries, format, answer);
        }
        let sole = old.is_some_and(|seat| {
            let lane = self.topics.lane(seat.lane);
            lane.subscribers.len() == 1 && lane.sweeping == 0 && lane.log.readers() == 1
        });
        if let (true, Some(seat)) = (sole, old)
            && self.topics.change_interest(seat.lane, entries)
        {
            self.owe_all(id);
            self.own_bytes(id, answer);
            return Ok(());
        }
        let new = if entries.is_empty() {
            None
        } else {
            Some(self.topics.lane_for(entries, format).map_err(|_| Refused::Limit)?)
        };
        if old.map(|seat| seat.lane) == new && new.is_some() {
            self.own(id, Boundary::Message, answer);
            return Ok(());
        }
        self.vacate(id, Owed::All);
        if let Some(lane) = new {
            self.take_seat(id, lane);
        }
        self.own_bytes(id, answer);
        Ok(())
    }

    /// Gives a connection the interest `entries`, and what it has missed of the topics that `starts`
    /// names: it is served by a sweep until it has caught up, which may be at once.
    ///
    /// # Errors
    /// Nothing was changed and nothing written.
    pub(super) fn seat_behind(
        &mut self,
        id: ConnectionId,
        entries: &[EntryId],
        body: Body,
        starts: &[Start],
        answer: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Refused> {
        let Some(connection) = self.connections.find(id) else { return Ok(()) };
        let format = Format { body, window_bits: connection.window_bits };
        if connection.flags.has(Flags::SWEEPING) {
            self.change_sweeping_seat(id, entries, format, answer)?;
            if let Some(sweep) = self.sweeps.get_mut(&id.index) {
                let names = &self.topics.names;
                for &start in starts {
                    let topic = names.topic(start.topic);
                    match sweep.owed(start.topic, topic) {
                        // It goes on waiting, from where it does.
                        Some(owed) if owed.need == Need::Awaited => {
                            let next =
                                if start.need == Need::Snapshot { owed.next } else { start.next };
                            sweep.owe(Start { next, ..start });
                        }
                        // What its sweep has still to send comes first, and then there is nothing to
                        // begin.
                        Some(owed) if owed.next <= topic.seq => {}
                        _ => sweep.owe(start),
                    }
                }
            }
            self.recount_sweep(id);
            return Ok(());
        }
        let lane = self.topics.lane_for(entries, format).map_err(|_| Refused::Limit)?;
        // First, so that the lane is not given up in between.
        self.topics.lane_mut(lane).0.sweeping += 1;
        self.vacate(id, Owed::All);
        if let Some(connection) = self.connections.find_mut(id) {
            connection.seat = Some(Seat { lane, index: Seat::AWAY });
        }
        count!(self.subscribers);
        let owed = self.owed_of(lane, |_| 0);
        let away = self.topics.lane(lane).away.clone();
        let mut sweep = Sweep::new(self.topics.count(), away, owed);
        starts.iter().for_each(|&start| sweep.owe(start));
        self.begin_sweep(id, sweep);
        self.own_bytes(id, answer);
        self.sweep_on(id);
        // Where history would not bridge the time that a long sweep takes, it is done at once.
        let mut ids = std::mem::take(&mut self.scratch.ids);
        let fragile = self.topics.is_fragile(lane, &mut ids);
        self.scratch.ids = ids;
        while fragile
            && self.connections.find(id).is_some_and(|c| {
                c.flags.has(Flags::SWEEPING) && (1..AT_ONCE_BYTES_MAX).contains(&c.own_bytes())
            })
            && self.sweeps.get(&id.index).is_some_and(|sweep| sweep.awaiting_in.is_none())
        {
            self.sweep_on(id);
        }
        Ok(())
    }

    fn change_sweeping_seat(
        &mut self,
        id: ConnectionId,
        entries: &[EntryId],
        format: Format,
        answer: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Refused> {
        let Some(seat) = self.connections.find(id).and_then(|c| c.seat) else { return Ok(()) };
        let Some(sweep) = self.sweeps.get_mut(&id.index) else { return Ok(()) };
        let interest = &self.topics.lane(seat.lane).interest;
        let had: Vec<EntryId> = interest.iter().map(|member| member.entry).collect();
        let new_lane = if entries.is_empty() {
            None
        } else {
            Some(self.topics.lane_for(entries, format).map_err(|_| Refused::Limit)?)
        };
        let names = &self.topics.names;
        // Topics that one interest has and the other has not, by whatever entry.
        let apart = |some: &[EntryId], others: &[EntryId]| {
            let only = some.iter().filter(|entry| others.binary_search(entry).is_err());
            let topics = only.flat_map(|&entry| &names.entry(entry).topics).copied();
            let in_others = |entry: &EntryId| others.binary_search(entry).is_ok();
            let mut topics: Vec<TopicId> =
                topics.filter(|&t| !names.topic(t).entries.iter().any(in_others)).collect();
            topics.sort_unstable();
            topics.dedup();
            topics
        };
        // What is new to it begins now.
        let starts: Vec<Start> = apart(entries, &had)
            .into_iter()
            .map(|t| {
                let topic = names.topic(t);
                Start::from(t, topic, topic.seq + 1, Need::Next)
            })
            .collect();
        // What its sweep has not come to of the others does not come any more, and that is said.
        let mut gaps = Vec::new();
        for t in apart(&had, entries) {
            let topic = names.topic(t);
            if let Some(next) = sweep.owed(t, topic).and_then(|owed| owed.unsent(topic)) {
                let (gone, name) = ((next, topic.seq), &topic.name);
                write_gap(&mut gaps, format.body, name, gone, "slow");
                count!(self.gaps);
                self.shared.of_rule(self.index, topic.rule).gaps.add(1);
            }
            sweep.forget(t);
        }
        let Some(lane) = new_lane else {
            self.vacate(id, Owed::Nothing);
            self.own_bytes(id, |out| {
                out.extend_from_slice(&gaps);
                answer(out);
            });
            return Ok(());
        };
        let mut missed = self.topics.lane(seat.lane).away.clone();
        self.topics.lane_mut(seat.lane).0.sweeping -= 1;
        let (new, _) = self.topics.lane_mut(lane);
        new.sweeping += 1;
        if let Some(sweep) = self.sweeps.get_mut(&id.index) {
            // What it missed so far moves along; the two lanes count apart.
            missed.sub_all(&sweep.away);
            sweep.away = new.away.clone();
            sweep.away.sub_all(&missed);
            // The old lane may be gone in a moment, and another have its number.
            sweep.awaiting_in = None;
            starts.iter().for_each(|&start| sweep.owe(start));
        }
        if let Some(connection) = self.connections.find_mut(id) {
            connection.seat = Some(Seat { lane, index: Seat::AWAY });
        }
        self.topics.release_lane(seat.lane);
        self.own_bytes(id, |out| {
            out.extend_from_slice(&gaps);
            answer(out);
        });
        self.recount_sweep(id);
        Ok(())
    }

    /// Seats a connection at a lane's head, held back until its own output is out.
    pub(super) fn take_seat(&mut self, id: ConnectionId, lane_id: LaneId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let index = self.topics.lane_mut(lane_id).0.join(id.index, connection.slot.0);
        if connection.seat.is_none() {
            count!(self.subscribers);
        }
        connection.seat = Some(Seat { lane: lane_id, index });
        // Who is blocked already is not told so again: its lag in this lane counts from here.
        let blocked = connection.flags.has(Flags::BLOCKED);
        connection.lag_base =
            if blocked { self.topics.mark_lag(lane_id, id, self.now.ns) } else { u64::MAX };
        self.settle_hold(id);
    }

    /// Takes a connection out of its lane; what it is owed becomes own output.
    pub(super) fn vacate(&mut self, id: ConnectionId, owed: Owed) {
        let Some(connection) = self.connections.find(id) else { return };
        let Some(seat) = connection.seat else { return };
        if seat.index != Seat::AWAY {
            match owed {
                Owed::All => self.owe_all(id),
                Owed::Begun(boundary) => self.owe_begun(id, boundary),
                Owed::Nothing => {}
            }
        }
        self.leave_lane(id, seat);
        if let Some(connection) = self.connections.find_mut(id) {
            connection.seat = None;
            connection.lag_base = u64::MAX;
        }
        uncount!(self.subscribers);
    }

    /// Out of the lane's lists; the seat itself stays to be set by the caller.
    pub(super) fn leave_lane(&mut self, id: ConnectionId, seat: Seat) {
        let (lane, memory) = self.topics.lane_mut(seat.lane);
        if seat.index == Seat::AWAY {
            lane.sweeping -= 1;
            self.end_sweep(id);
        } else if let Some(moved) = lane.leave(seat.index, memory)
            && let Some(moved) = self.connections.id_at(moved)
            && let Some(other) = self.connections.find_mut(moved)
            && let Some(other_seat) = &mut other.seat
        {
            other_seat.index = seat.index;
        }
        self.topics.release_lane(seat.lane);
    }

    /// All that its lane holds for a connection becomes a range of its own output, and its cursor
    /// moves to the head. The range is marked: it must not hold the log for ever.
    pub(super) fn owe_all(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Some(Seat { lane: lane_id, index }) = connection.seat else { return };
        if index == Seat::AWAY {
            return;
        }
        let (lane, memory) = self.topics.lane_mut(lane_id);
        let (cursor, head) = (lane.subscribers[index as usize].cursor, lane.log.head());
        if head > cursor {
            lane.log.join_at(cursor);
            lane.advance(index, head, memory);
            let base = self.topics.mark_lag(lane_id, id, self.now.ns);
            if connection.flags.has(Flags::BLOCKED) {
                connection.lag_base = base;
            }
            let outbox = connection.outbox_mut(&mut self.spare_outboxes);
            outbox.push_range(lane_id, cursor, head);
            self.queue_own(id);
        }
    }

    /// What a connection is in the middle of becomes own output, held apart from the log, and its
    /// cursor moves to the boundary. Own output that is there already ends at such a boundary.
    pub(super) fn owe_begun(&mut self, id: ConnectionId, boundary: Boundary) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Some(Seat { lane: lane_id, index }) = connection.seat else { return };
        if index == Seat::AWAY {
            return;
        }
        let (lane, memory) = self.topics.lane_mut(lane_id);
        let cursor = lane.subscribers[index as usize].cursor;
        let to = lane.log.boundary(cursor, boundary);
        if to > cursor {
            count!(self.deliveries, lane.log.messages_between(cursor, to));
            let outbox = connection.outbox_mut(&mut self.spare_outboxes);
            match lane.log.detach(cursor, to) {
                Some(Detached::Bytes(bytes)) => {
                    outbox.push_bytes(|out| out.extend_from_slice(bytes));
                }
                Some(Detached::Shared { frame, at, to }) => outbox.push_shared(frame, at, to),
                None => {}
            }
            lane.advance(index, to, memory);
            self.queue_own(id);
        }
    }

    /// Takes out of a connection's own output what need not be sent any more: ranges of lanes, but
    /// for the frame that it is in the middle of, and what comes after them: an answer or a last
    /// value there would stand behind a gap, or inside an unfinished message.
    pub(super) fn cut_ranges(&mut self, id: ConnectionId) {
        let Some(outbox) =
            self.connections.find_mut(id).and_then(|connection| connection.outbox.as_mut())
        else {
            return;
        };
        let mut dropped = Vec::new();
        let mut cut = false;
        for (place, piece) in outbox.take_pieces().into_iter().enumerate() {
            let Pending::Range { lane: lane_id, at, .. } = piece else {
                if !cut {
                    outbox.put_back(piece);
                }
                continue;
            };
            let log = &self.topics.lane(lane_id).log;
            if place == 0 {
                let to = log.boundary(at, Boundary::Frame);
                match log.detach(at, to).filter(|_| to > at) {
                    Some(Detached::Bytes(bytes)) => {
                        outbox.put_back(Pending::Bytes(bytes.to_vec()));
                    }
                    Some(Detached::Shared { frame, at, to }) => {
                        outbox.put_back(Pending::Shared { frame, at, to });
                    }
                    None => {}
                }
                count!(self.deliveries, log.messages_between(at, to));
            }
            cut = true;
            dropped.push(piece);
        }
        for range in dropped {
            self.forgive(range);
        }
    }

    /// Gives up what is left of a range that a connection was owed.
    pub(super) fn forgive(&mut self, piece: Pending) {
        if let Pending::Range { lane, at, .. } = piece {
            let (log_lane, memory) = self.topics.lane_mut(lane);
            log_lane.log.leave(at, memory);
            self.topics.release_lane(lane);
        }
    }

    /// Holds a subscriber back, or no longer, as its connection's state wants it.
    pub(super) fn settle_hold(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        let Some(Seat { lane, index }) = connection.seat else { return };
        if index == Seat::AWAY {
            return;
        }
        let held = connection.phase != Phase::Open
            || connection.has_own()
            || connection.flags.has(Flags::BLOCKED);
        self.topics.lane_mut(lane).0.hold(index, held);
        if !held {
            self.topics.enqueue_for(lane, index, self.now.ns);
        }
    }
}
