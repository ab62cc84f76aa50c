//! Bytes in: from poll to receive to the protocol's events, by role.
//!
//! Knows: which operations read, and what each role's bytes are. Must not know: what commands or
//! publications do.

use uringcast_protocol::{
    error::PeerError,
    opcode::CloseCode,
    session::{Event, MessageKind, Sink, SinkFull},
    writer,
};
use uringcast_ring::{
    Io, Operation, ReceiveEnd,
    pool::{Lease, Pool},
};

use super::{Shard, close::Ending, count};
use crate::{
    conn::{Assembly, Connection, FixedTopic, Flags, Inbox, Phase, Publishing, Role},
    ids::ConnectionId,
    publication,
    topics::log::Boundary,
};

impl<I: Io> Shard<I> {
    pub(super) fn arm_poll(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find_mut(id)
            && !connection.flags.set(Flags::POLL_ARMED)
        {
            self.io.poll_readable(connection.slot, Self::token(id));
        }
    }

    /// A new connection's request is about to come.
    pub(super) fn receive_first(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.flags.set(Flags::RECEIVE_ARMED.and(Flags::WAITS));
        self.io.receive_when_readable(connection.slot, Self::token(id));
    }

    pub(super) fn readable(&mut self, id: ConnectionId, hung_up: bool) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.flags.clear(Flags::POLL_ARMED);
        if connection.phase == Phase::Ending {
            return self.finish(id);
        }
        connection.flags.set(Flags::READ_WANTED);
        if hung_up {
            connection.flags.set(Flags::HUNG_UP);
        }
        self.resume_reading(id);
    }

    /// Receives if there may be something to receive, else waits until there is, if nothing speaks
    /// against it. No poll is armed while something is received: who is at its end then, as most are
    /// that end, has none to be cancelled.
    pub(super) fn resume_reading(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let slot = connection.slot;
        let busy = Flags::RECEIVE_ARMED;
        if connection.phase >= Phase::Ending
            || connection.flags.any(busy)
            || connection.flags.any(Flags::READ_PARKED.and(Flags::EOF))
            || connection.phase <= Phase::Open && connection.stops_reading()
        {
            return;
        }
        if connection.role == Role::Publisher && connection.phase == Phase::Open {
            if connection.flags.has(Flags::POLL_ARMED) {
                return;
            }
            if self.overload.is_on {
                connection.flags.set(Flags::READ_PARKED);
                self.overload.wait(id);
                return;
            }
            if connection.flags.has(Flags::SLOWED) {
                connection.flags.set(Flags::READ_PARKED);
                return;
            }
            connection.flags.set(Flags::RECEIVE_ARMED);
            self.io.receive_multishot(slot, Self::token(id));
        } else if connection.flags.clear(Flags::READ_WANTED) {
            connection.flags.set(Flags::RECEIVE_ARMED);
            self.io.receive(slot, Self::token(id));
        } else {
            self.arm_poll(id);
        }
    }

    pub(super) fn poll_ended(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.flags.clear(Flags::POLL_ARMED);
        if connection.phase == Phase::Ending {
            return self.finish(id);
        }
        self.resume_reading(id);
    }

    pub(super) fn received(&mut self, id: ConnectionId, data: &[u8], armed: bool) {
        let buffer_bytes = self.io.receive_buffer_bytes();
        let Some(connection) = self.connections.find_mut(id) else { return };
        if !armed {
            connection.flags.clear(Flags::RECEIVE_ARMED.and(Flags::WAITS));
        }
        if connection.phase == Phase::Ending {
            return self.finish(id);
        }
        connection.flags.clear(Flags::PING_OUT);
        connection.flags.clear(Flags::SILENT);
        // A full buffer, or a FIN behind the bytes: there is more, and no poll is needed to know.
        if data.len() >= buffer_bytes || connection.flags.has(Flags::HUNG_UP) {
            connection.flags.set(Flags::READ_WANTED);
        }
        count!(self.received_bytes, data.len() as u64);
        self.take_bytes(id, data);
        // Of an offender nothing is understood any more; but a Close all by itself is its answer to
        // ours, and then nothing more can come.
        if let Some(connection) = self.connections.find_mut(id)
            && connection.flags.has(Flags::OFFENDED)
            && connection.drains()
            && connection.role != Role::Http
            && is_close_frame(data)
        {
            connection.flags.set(Flags::CLOSE_RECEIVED);
            return self.close_flushed(id);
        }
        let draining = self.connections.find(id).is_some_and(|c| c.drains());
        if draining {
            self.drain_input(id);
        } else if armed && self.connections.find(id).is_some_and(Connection::stops_reading) {
            // A publisher that does not read its answers is read no further, until it does.
            self.io.cancel(Operation::Receive, Self::token(id));
        } else {
            self.resume_reading(id);
        }
    }

    pub(super) fn receive_ended(&mut self, id: ConnectionId, end: ReceiveEnd) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.flags.clear(Flags::RECEIVE_ARMED.and(Flags::WAITS));
        if connection.phase == Phase::Ending {
            return self.finish(id);
        }
        match end {
            ReceiveEnd::Again if connection.phase == Phase::Closing => self.drained(id),
            ReceiveEnd::Cancelled if connection.phase == Phase::Closing => {
                // A publisher's, or the first: from here on it is read as the others are.
                connection.flags.set(Flags::READ_WANTED);
                self.close_flushed(id);
                self.resume_reading(id);
            }
            ReceiveEnd::Again | ReceiveEnd::Cancelled => self.resume_reading(id),
            ReceiveEnd::NoBuffers => {
                count!(self.receive_starved);
                connection.flags.set(Flags::READ_WANTED);
                connection.flags.set(Flags::READ_PARKED);
                self.starved.push(id);
            }
            ReceiveEnd::Eof => self.peer_finished(id),
            ReceiveEnd::Dead(_) => self.lost(id),
        }
    }

    /// Receives again that were put off because the shared buffers were all out: by now those of the
    /// last tick are back.
    pub(super) fn feed_starved(&mut self) {
        for id in std::mem::take(&mut self.starved) {
            if let Some(connection) = self.connections.find_mut(id) {
                connection.flags.clear(Flags::READ_PARKED);
                self.resume_reading(id);
            }
        }
    }

    fn take_bytes(&mut self, id: ConnectionId, data: &[u8]) {
        match self.connections.find(id).map(|connection| connection.phase) {
            Some(Phase::Handshake) => self.receive_heads(id, data),
            Some(_) => self.take_frames(id, data),
            None => {}
        }
    }

    /// Bytes of a connection that is upgraded, or ends.
    pub(super) fn take_frames(&mut self, id: ConnectionId, data: &[u8]) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        match (connection.role, connection.phase) {
            (Role::Http | Role::Unknown, _) => {}
            (Role::Sse, _) => self.ignore_input(id, data.len()),
            (Role::Publisher, Phase::Open) => self.take_publisher_bytes(id, data),
            _ => self.take_client_bytes(id, data),
        }
    }

    pub(super) fn message_bytes_max(&self, role: Role) -> u64 {
        u64::from(match role {
            Role::Publisher => self.settings.publish_bytes_max,
            _ => self.settings.message_bytes_max,
        })
    }

    /// A subscriber's (or echo client's) bytes. Its session is kept only while it is in the middle
    /// of something.
    fn take_client_bytes(&mut self, id: ConnectionId, mut data: &[u8]) {
        let Some(role) = self.connections.find(id).map(|connection| connection.role) else {
            return;
        };
        let bytes_max = self.message_bytes_max(role);
        let Some(connection) = self.connections.find_mut(id) else { return };
        let (mut session, mut message, boxed) = match std::mem::take(&mut connection.inbox) {
            Inbox::Message(assembly) => (assembly.session, assembly.message, true),
            // It is being closed in the middle of something; the rest is read for its Close only.
            Inbox::Publisher(publishing) => (publishing.session, Vec::new(), true),
            other => {
                connection.inbox = other;
                (connection.session(bytes_max), std::mem::take(&mut self.scratch.message), false)
            }
        };
        if connection.phase >= Phase::Closing {
            session.close_sent();
        }
        loop {
            match session.receive(&mut data, &mut message) {
                Ok(None) => break,
                Ok(Some(Event::Message(kind))) => {
                    count!(self.received_messages);
                    // Whoever is being closed is not listened to any more.
                    if self.connections.find(id).is_some_and(|c| c.phase == Phase::Open) {
                        self.client_message(id, role, kind, &message);
                    }
                    message.clear();
                }
                Ok(Some(Event::Deflated(kind))) => {
                    count!(self.received_messages);
                    if self.connections.find(id).is_some_and(|c| c.phase == Phase::Open)
                        && let Err(error) = self.deflated_message(id, role, kind, &message)
                    {
                        session.offended();
                        self.offended(id, error);
                    }
                    message.clear();
                }
                Ok(Some(event)) => self.control_frame(id, event),
                Err(error) => {
                    self.offended(id, error);
                    message.clear();
                }
            }
            // An answer may have ended the connection, or closed it.
            let Some(connection) = self.connections.find(id) else { break };
            if connection.phase >= Phase::Closing {
                session.close_sent();
            }
            if connection.phase == Phase::Ending {
                break;
            }
        }
        match self.connections.find_mut(id) {
            Some(connection) if connection.phase < Phase::Ending && !session.is_idle() => {
                connection.inbox = Inbox::Message(Box::new(Assembly { session, message }));
            }
            _ if !boxed => {
                message.clear();
                self.scratch.message = message;
            }
            _ => {}
        }
    }

    pub(super) fn client_message(
        &mut self,
        id: ConnectionId,
        role: Role,
        kind: MessageKind,
        message: &[u8],
    ) {
        match (role, kind) {
            (Role::Json, MessageKind::Text) => self.command(id, message),
            (Role::Echo, _) => self.echo(id, kind, message),
            (Role::Raw, _) => {
                let reason = "this endpoint takes no messages";
                self.close_with(id, CloseCode::UNSUPPORTED_DATA, reason, Ending::Unsupported);
            }
            _ => {
                let reason = "commands are text";
                self.close_with(id, CloseCode::UNSUPPORTED_DATA, reason, Ending::Unsupported);
            }
        }
    }

    pub(super) fn control_frame(&mut self, id: ConnectionId, event: Event) {
        match event {
            Event::Deflated(_) | Event::Message(_) | Event::Pong(_) => {}
            Event::Ping(payload) => self.own(id, Boundary::Frame, |out| {
                writer::write_pong(out, payload.as_slice(), None);
            }),
            Event::Close(code, _) => self.peer_closed(id, code),
        }
    }

    pub(super) fn offended(&mut self, id: ConnectionId, error: PeerError) {
        match error {
            PeerError::CloseReasonUtf8
            | PeerError::CloseTruncated
            | PeerError::InvalidCloseCode => count!(self.offence_close),
            PeerError::ContinuationExpected | PeerError::ContinuationUnexpected => {
                count!(self.offence_fragment);
            }
            PeerError::ControlFragmented | PeerError::ControlTooLong => {
                count!(self.offence_control);
            }
            PeerError::DeflateInvalid => count!(self.offence_deflate),
            PeerError::InvalidUtf8 => count!(self.offence_utf8),
            PeerError::LengthNotMinimal | PeerError::LengthTooLarge => {
                count!(self.offence_length);
            }
            PeerError::Masked | PeerError::Unmasked => count!(self.offence_unmasked),
            PeerError::MessageTooBig => count!(self.offence_too_big),
            PeerError::ReservedBits => count!(self.offence_reserved),
            PeerError::ReservedOpcode => count!(self.offence_opcode),
            PeerError::SinkFull => {}
        }
        let code = error.close_code();
        let ending = match code {
            CloseCode::INVALID_PAYLOAD => Ending::Invalid,
            CloseCode::MESSAGE_TOO_BIG => Ending::TooBig,
            CloseCode::TRY_AGAIN_LATER => Ending::Budget,
            _ => Ending::Protocol,
        };
        let mut reason = error.to_string();
        reason.truncate(100);
        if let Some(connection) = self.connections.find_mut(id) {
            connection.flags.set(Flags::OFFENDED);
        }
        self.close_with(id, code, &reason, ending);
    }

    fn take_publisher_bytes(&mut self, id: ConnectionId, mut data: &[u8]) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Inbox::Publisher(mut publishing) = std::mem::take(&mut connection.inbox) else {
            return;
        };
        loop {
            let Publishing { session, topic, draft, draft_bytes, lines, .. } = &mut *publishing;
            let event = match topic {
                Some(topic) => {
                    let pool = &mut self.topics.memory.pool;
                    session.receive(&mut data, &mut DraftSink { pool, topic, draft, draft_bytes })
                }
                None => session.receive(&mut data, lines),
            };
            match event {
                Ok(None) => break,
                Ok(Some(Event::Message(kind))) => {
                    count!(self.received_messages);
                    self.published_message(id, &mut publishing, kind);
                }
                Ok(Some(Event::Deflated(kind))) => {
                    count!(self.received_messages);
                    if let Err(error) = self.published_deflated(id, &mut publishing, kind) {
                        publishing.session.offended();
                        self.offended(id, error);
                    }
                }
                Ok(Some(event)) => self.control_frame(id, event),
                Err(error) => self.offended(id, error),
            }
            let open = self.connections.find(id).is_some_and(|c| c.phase == Phase::Open);
            if !open {
                break;
            }
        }
        let Some(connection) = self.connections.find_mut(id) else { return };
        match connection.phase {
            Phase::Open => connection.inbox = Inbox::Publisher(publishing),
            // What still comes is read for the peer's Close only.
            Phase::Closing => {
                let mut session = publishing.session;
                session.close_sent();
                connection.inbox =
                    Inbox::Message(Box::new(Assembly { session, message: Vec::new() }));
                if !data.is_empty() {
                    self.take_client_bytes(id, data);
                }
            }
            Phase::Handshake | Phase::Ending => {}
        }
    }
}

/// Whether these bytes are one masked Close frame, whole and nothing else.
fn is_close_frame(bytes: &[u8]) -> bool {
    match *bytes {
        [0x88, length, ..] if length & 0x80 != 0 => bytes.len() == 6 + usize::from(length & 0x7F),
        _ => false,
    }
}

/// Where a publisher's payload is unmasked to: its final place in a draft.
struct DraftSink<'s> {
    pool: &'s mut Pool,
    topic: &'s FixedTopic,
    draft: &'s mut Option<Lease>,
    draft_bytes: &'s mut usize,
}

impl DraftSink<'_> {
    /// Room for so many payload bytes in all.
    fn reserve(&mut self, payload_bytes: usize) -> Result<(), SinkFull> {
        let needed = publication::draft_bytes(&self.topic.name, payload_bytes);
        if self.draft.as_ref().is_some_and(|lease| lease.len() >= needed) {
            return Ok(());
        }
        let mut lease = self.pool.take(needed).map_err(|_| SinkFull)?;
        if let Some(old) = self.draft.take() {
            let start = publication::payload_offset(&self.topic.name);
            let filled = start..start + *self.draft_bytes;
            lease[filled.clone()].copy_from_slice(&old[filled]);
        }
        *self.draft = Some(lease);
        Ok(())
    }
}

impl Sink for DraftSink<'_> {
    fn expect(&mut self, frame_bytes: usize) {
        // A pool that is full is met again by `extend`, which can say so.
        let _ = self.reserve(*self.draft_bytes + frame_bytes);
    }

    fn extend(&mut self, bytes: usize) -> Result<&mut [u8], SinkFull> {
        self.reserve(*self.draft_bytes + bytes)?;
        let start = publication::payload_offset(&self.topic.name) + *self.draft_bytes;
        *self.draft_bytes += bytes;
        let lease = self.draft.as_mut().ok_or(SinkFull)?;
        Ok(&mut lease[start..start + bytes])
    }
}
