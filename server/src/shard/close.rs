//! Endings: of the closing handshake, of the TCP connection, of the slot.
//!
//! Knows: who closed and why, and in which order things end. Must not know: topics.
//!
//! `close_with` (our Close) or `peer_closed` (theirs) → `close_flushed` → `end` (no more input or
//! output; what is armed is cancelled) → `finish` (nothing armed any more: the slot is closed) →
//! `closed` (the index is free). A slot is never closed, nor an index freed, while the kernel has an
//! operation of it.

use uringcast_protocol::{opcode::CloseCode, writer};
use uringcast_ring::{Io, Operation};

use super::{Shard, count, seats::Owed, sse, uncount};
use crate::{
    conn::{Flags, Inbox, Phase, Role},
    ids::ConnectionId,
    topics::log::Boundary,
};

/// Why we close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Budget,
    Invalid,
    PingTimeout,
    Policy,
    Protocol,
    Shutdown,
    Slow,
    TooBig,
    Unsupported,
}

impl<I: Io> Shard<I> {
    /// We close, with a Close frame after the frame that is on its way.
    pub(super) fn close_with(
        &mut self,
        id: ConnectionId,
        code: CloseCode,
        reason: &str,
        ending: Ending,
    ) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.phase != Phase::Open {
            return;
        }
        match ending {
            Ending::Budget => count!(self.closed_budget),
            Ending::Invalid => count!(self.closed_invalid),
            Ending::PingTimeout => count!(self.closed_ping_timeout),
            Ending::Policy => count!(self.closed_policy),
            Ending::Protocol => count!(self.closed_protocol),
            Ending::Shutdown => count!(self.closed_shutdown),
            Ending::Slow => count!(self.closed_slow),
            Ending::TooBig => count!(self.closed_too_big),
            Ending::Unsupported => count!(self.closed_unsupported),
        }
        tracing::debug!(peer = %connection.peer, code = code.value(), reason, "closing");
        if matches!(ending, Ending::Slow | Ending::Budget) {
            connection.flags.set(Flags::SLOW);
        }
        // Who is told to go is sent what it is owed; who did wrong is not.
        let owed =
            if ending == Ending::Shutdown { Owed::All } else { Owed::Begun(Boundary::Frame) };
        self.begin_closing(id, owed, Some(code), reason);
    }

    fn begin_closing(
        &mut self,
        id: ConnectionId,
        owed: Owed,
        code: Option<CloseCode>,
        reason: &str,
    ) {
        if owed != Owed::All {
            self.cut_ranges(id);
        }
        self.vacate(id, owed);
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.phase = Phase::Closing;
        let stream = connection.role == Role::Sse;
        if connection.role == Role::Publisher {
            uncount!(self.publishers);
            // It would never say that there is nothing more to read.
            connection.flags.clear(Flags::READ_PARKED);
            if connection.flags.has(Flags::RECEIVE_ARMED) {
                self.io.cancel(Operation::Receive, Self::token(id));
            } else {
                connection.flags.set(Flags::READ_WANTED);
                self.arm_poll(id);
            }
        }
        self.closings.start(self.now.ns, id);
        self.own_bytes(id, |out| {
            if stream {
                sse::write_end(out, code, reason);
            } else {
                writer::write_close(out, code, reason, None);
            }
        });
        // Its own Close is read even where it had stopped reading our answers.
        self.resume_reading(id);
    }

    /// The peer's Close frame has come.
    pub(super) fn peer_closed(&mut self, id: ConnectionId, code: Option<CloseCode>) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.flags.set(Flags::CLOSE_RECEIVED);
        match connection.phase {
            Phase::Open => {
                match code {
                    Some(CloseCode::NORMAL) => count!(self.closed_normal),
                    Some(CloseCode::GOING_AWAY) => count!(self.closed_going_away),
                    Some(_) => count!(self.closed_peer_other),
                    None => count!(self.closed_no_status),
                }
                // Answered with its own code (RFC 6455 section 5.5.1).
                self.begin_closing(id, Owed::Begun(Boundary::Frame), code, "");
            }
            Phase::Closing if !connection.has_own() => self.end(id),
            _ => {}
        }
    }

    /// The last bytes of a closing connection are out. The server closes first (RFC 6455 section
    /// 7.1.1), once the peer's Close is there.
    pub(super) fn close_flushed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        if connection.phase != Phase::Closing || connection.has_own() {
            return;
        }
        if connection.flags.any(Flags::CLOSE_RECEIVED.and(Flags::EOF)) {
            self.end(id);
        } else if connection.drains() {
            self.drain_input(id);
        }
    }

    /// Receives what there is, to throw it away.
    pub(super) fn drain_input(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.phase != Phase::Closing {
            return;
        }
        if connection.flags.clear(Flags::WAITS) {
            // Nothing has come yet, perhaps nothing will.
            self.io.cancel(Operation::Receive, Self::token(id));
        } else if !connection.flags.set(Flags::RECEIVE_ARMED) {
            let slot = connection.slot;
            self.io.receive(slot, Self::token(id));
        }
    }

    /// There is nothing more to throw away for now. Who broke a rule may be in the middle of saying
    /// more (a message that is too large): it is closed once it was silent for a while.
    pub(super) fn drained(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if !connection.drains() {
            self.resume_reading(id);
        } else if !connection.flags.has(Flags::OFFENDED) || connection.flags.has(Flags::SILENT) {
            self.end(id);
        } else {
            connection.flags.set(Flags::SILENT);
            // Its answer to our Close ends it at once.
            self.arm_poll(id);
            self.lingers.start(self.now.ns, id);
        }
    }

    /// An offender has been left to itself for a while: looks whether it has said more.
    pub(super) fn linger_is_due(&mut self, id: ConnectionId) {
        if self.connections.find(id).is_some_and(|connection| connection.drains()) {
            self.drain_input(id);
        }
    }

    /// The peer has sent FIN.
    pub(super) fn peer_finished(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.flags.set(Flags::EOF);
        match connection.phase {
            // Who has only stopped to ask still gets the answers.
            Phase::Handshake if connection.has_own() => return self.leave(id),
            Phase::Handshake if connection.is_between_requests() => {}
            Phase::Handshake => count!(self.handshakes_gone),
            // Which is how a stream's client goes.
            Phase::Open if connection.role == Role::Sse => count!(self.closed_stream),
            Phase::Open => count!(self.closed_abnormal),
            // Our last words may still reach who has only stopped to speak.
            Phase::Closing if connection.has_own() => return,
            Phase::Closing | Phase::Ending => {}
        }
        self.end(id);
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        match connection.phase {
            Phase::Handshake if connection.is_between_requests() => {}
            Phase::Handshake => count!(self.handshakes_gone),
            Phase::Open => count!(self.closed_reset),
            Phase::Closing => {}
            Phase::Ending => return,
        }
        self.end(id);
    }

    /// No more input or output.
    pub(super) fn end(&mut self, id: ConnectionId) {
        self.vacate(id, Owed::Nothing);
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.role == Role::Publisher && connection.phase == Phase::Open {
            uncount!(self.publishers);
        }
        if connection.phase == Phase::Ending {
            return;
        }
        if connection.role == Role::Sse {
            uncount!(self.streams);
        }
        connection.phase = Phase::Ending;
        connection.inbox = Inbox::None;
        if connection.flags.clear(Flags::BLOCKED) {
            uncount!(self.blocked);
        }
        let armed = connection.flags;
        let outbox = connection.outbox.take();
        if let Some(mut outbox) = outbox {
            while let Some(piece) = outbox.pop() {
                self.forgive(piece);
            }
        }
        let token = Self::token(id);
        for (flag, operation) in [
            (Flags::POLL_ARMED, Operation::PollReadable),
            (Flags::RECEIVE_ARMED, Operation::Receive),
            (Flags::WRITE_ARMED, Operation::PollWritable),
        ] {
            if armed.has(flag) {
                self.io.cancel(operation, token);
            }
        }
        self.finish(id);
    }

    /// Closes the slot once nothing of the connection is armed.
    pub(super) fn finish(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.phase == Phase::Ending
            && !connection.is_armed()
            && !connection.flags.set(Flags::SLOT_CLOSING)
        {
            let slot = connection.slot;
            self.io.close(slot, Self::token(id));
        }
    }

    /// The slot is closed: the index is free.
    pub(super) fn closed(&mut self, id: ConnectionId) {
        self.dismiss(id);
        self.connections.remove(id);
        self.resume_accepts();
    }

    /// The peer has not finished the closing handshake in time.
    pub(super) fn closing_is_due(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        if connection.phase != Phase::Closing {
            return;
        }
        if connection.flags.has(Flags::SLOW) && connection.has_own() {
            count!(self.closed_slow_reset);
        } else {
            count!(self.close_timeouts);
        }
        self.end(id);
    }
}
