//! Output for one connection alone: answers, pongs, closes, sweeps.
//!
//! Knows: where in a connection's stream own output may stand, and when it is sent. Must not know:
//! what it says.

use std::ops::Range;

use arrayvec::ArrayVec;
use uringcast_ring::{Io, Send, SendOutcome, error::RingError, pool::Frame};

use super::{Shard, count, fanout::SENDS_PER_SLICE};
use crate::{
    conn::{Flags, Phase, Seat, outbox::Pending},
    ids::ConnectionId,
    topics::log::{Boundary, VISIT_BYTES_MAX},
};

/// Outboxes kept for those who are to be sent something next: what a slice sends.
const SPARE_OUTBOXES_MAX: usize = SENDS_PER_SLICE;

impl<I: Io> Shard<I> {
    /// Own output at the next boundary of the connection's stream.
    pub(super) fn own(
        &mut self,
        id: ConnectionId,
        boundary: Boundary,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.phase != Phase::Open {
            return;
        }
        if connection.seat.is_some_and(|seat| seat.index != Seat::AWAY) {
            self.owe_begun(id, boundary);
        }
        self.own_bytes(id, write);
    }

    /// A JSON message of the server's own, as the connection's format has it.
    pub(super) fn notify(
        &mut self,
        id: ConnectionId,
        event: &str,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(connection) = self.connections.find(id) else { return };
        let body = connection.role.body();
        let mut message = Vec::new();
        write(&mut message);
        self.own(id, Boundary::Message, |out| body.write_notice(out, event, &message));
    }

    /// Own output right after the own output before it.
    pub(super) fn own_bytes(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.outbox_mut(&mut self.spare_outboxes).push_bytes(write);
        self.queue_own(id);
    }

    /// Part of a block right after the own output before it.
    pub(super) fn own_shared(&mut self, id: ConnectionId, frame: Frame, range: Range<usize>) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let outbox = connection.outbox_mut(&mut self.spare_outboxes);
        outbox.push_shared(frame, range.start, range.end);
        self.queue_own(id);
    }

    pub(super) fn queue_own(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if !connection.flags.has(Flags::BLOCKED) && !connection.flags.set(Flags::OWN_QUEUED) {
            self.own_queue.push_back(id);
        }
        self.settle_hold(id);
    }

    /// Sends a slice of own output if there is one: a storm of handshakes must not pile up answers
    /// until the tick's end.
    ///
    /// # Errors
    /// Only what the ring cannot go on after.
    pub fn relieve(&mut self) -> Result<(), RingError> {
        if self.own_queue.len() < SENDS_PER_SLICE {
            return Ok(());
        }
        self.send_own()
    }

    /// One slice of own output.
    pub(super) fn send_own(&mut self) -> Result<(), RingError> {
        let mut sends: ArrayVec<Send<'_>, SENDS_PER_SLICE> = ArrayVec::new();
        let mut whose: ArrayVec<ConnectionId, SENDS_PER_SLICE> = ArrayVec::new();
        let mut skipped: ArrayVec<ConnectionId, SENDS_PER_SLICE> = ArrayVec::new();
        let mut left = self.own_queue.len();
        let sends_max = self.send_cost.sends_per_slice();
        while left > 0 && sends.len() < sends_max && !skipped.is_full() {
            left -= 1;
            let Some(id) = self.own_queue.pop_front() else { break };
            let Some(connection) = self.connections.find(id) else { continue };
            // Blocked since it was queued: it is queued again when there is room.
            if connection.phase == Phase::Ending || connection.flags.has(Flags::BLOCKED) {
                skipped.push(id);
                continue;
            }
            let piece = connection.outbox.as_ref().and_then(|outbox| outbox.front());
            let bytes = match piece {
                Some((Pending::Bytes(bytes), sent)) => {
                    let end = bytes.len().min(sent + VISIT_BYTES_MAX);
                    &bytes[sent..end]
                }
                Some((&Pending::Range { lane, at, to }, _)) => {
                    let most = (to - at).min(VISIT_BYTES_MAX as u64) as usize;
                    self.topics.lane(lane).log.visit(at, most).unwrap_or_default()
                }
                Some((Pending::Shared { frame, at, to }, _)) => {
                    let end = (*to).min(at + VISIT_BYTES_MAX);
                    &frame[*at..end]
                }
                None => &[],
            };
            whose.push(id);
            // An empty piece is done without a send; the kernel is not asked to send nothing.
            sends.push(Send { slot: connection.slot, bytes });
        }
        let lengths: ArrayVec<usize, SENDS_PER_SLICE> =
            sends.iter().map(|send| send.bytes.len()).collect();
        sends.retain(|send| !send.bytes.is_empty());
        let count = sends.len() as u64;
        self.scratch.troubles.clear();
        if count > 0 {
            self.io.send(&sends, &mut self.scratch.troubles)?;
            self.send_cost.sent(count as usize, self.io.last_send_ns());
        }
        drop(sends);
        count!(self.sends_own, count);
        for id in skipped {
            if let Some(connection) = self.connections.find_mut(id) {
                connection.flags.clear(Flags::OWN_QUEUED);
            }
        }

        let troubles = std::mem::take(&mut self.scratch.troubles);
        let mut troubled = troubles.iter().peekable();
        let mut sent_index = 0;
        for (place, &id) in whose.iter().enumerate() {
            let mut outcome = None;
            if lengths[place] > 0 {
                outcome = troubled.next_if(|t| t.index == sent_index).map(|t| t.outcome);
                sent_index += 1;
            }
            self.sent_own(id, lengths[place], outcome);
        }
        self.scratch.troubles = troubles;
        Ok(())
    }

    fn sent_own(&mut self, id: ConnectionId, asked: usize, outcome: Option<SendOutcome>) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.flags.clear(Flags::OWN_QUEUED);
        let sent = match outcome {
            None => asked,
            Some(SendOutcome::Short(bytes)) => bytes as usize,
            Some(SendOutcome::Full | SendOutcome::Dead(_)) => 0,
        };
        if sent > 0 {
            connection.flags.clear(Flags::WOKEN);
        }
        count!(self.sent_bytes, sent as u64);
        if let Some(outbox) = &mut connection.outbox {
            let range = match outbox.front() {
                Some((&Pending::Range { lane, at, .. }, _)) => Some((lane, at)),
                _ => None,
            };
            let done = outbox.advance(sent);
            if let Some((lane, at)) = range {
                let to = at + sent as u64;
                let (lane, memory) = self.topics.lane_mut(lane);
                count!(self.deliveries, lane.log.messages_between(at, to));
                lane.log.advance(at, to, memory);
            }
            match done {
                Some(Pending::Bytes(bytes)) => outbox.recycle(bytes),
                Some(piece) => self.forgive(piece),
                None => {}
            }
        }
        match outcome {
            Some(SendOutcome::Dead(_)) => {
                count!(self.sends_dead);
                return self.lost(id);
            }
            Some(outcome) => return self.block(id, outcome),
            None => {}
        }
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.has_own() {
            self.queue_own(id);
        } else {
            let outbox = connection.outbox.take();
            if self.spare_outboxes.len() < SPARE_OUTBOXES_MAX {
                self.spare_outboxes.extend(outbox);
            }
            self.own_done(id);
        }
    }

    /// A connection's own output is out.
    pub(super) fn own_done(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        match connection.phase {
            Phase::Closing => self.close_flushed(id),
            Phase::Handshake => {
                self.resume_heads(id);
                self.resume_reading(id);
            }
            _ if connection.flags.has(Flags::SWEEPING) => {
                // It is read between two batches, or it could not even unsubscribe.
                self.resume_reading(id);
                self.sweep_when_room(id);
            }
            _ => {
                self.settle_hold(id);
                self.resume_reading(id);
            }
        }
    }
}
