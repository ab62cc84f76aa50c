//! The lives of a thread's connections: begun, answered, receiving, ended, begun again.
//!
//! Knows: one connection at a time and the ring. Must not know: publishing, phases' beginnings.

use rand::RngExt as _;
use uringcast_protocol::client_handshake::ResponseError;
use uringcast_protocol::writer::{write_close, write_message, write_pong};
use uringcast_protocol::{CloseCode, Opcode};

use super::layered::prepare;
use super::outcome::count;
use super::{Worker, WorkerError};
use crate::agenda::Errand;
use crate::client::{Client, State, nonce};
use crate::clock::{NANOS_PER_MILLI, NANOS_PER_SECOND, now_ns};
use crate::driver::{Chunk, SocketId, open, receive_buffer_bytes, set_send_buffer};
use crate::frames::{Frame, FrameError};
use crate::inflate::Inflater;
use crate::judge::Judge;
use crate::plan::Role;
use crate::shared::Phase;

impl Worker {
    pub(super) fn connect_due(&mut self, now: u64) -> Result<(), WorkerError> {
        let gap_ns = match self.plan.connects_per_s {
            0 => 0,
            rate => NANOS_PER_SECOND / u64::from(rate),
        };
        if self.phase == Phase::Closing {
            return Ok(());
        }
        let mut begun = 0;
        while (self.connect_next as usize) < self.clients.len()
            && self.connect_due_ns <= now
            && self.handshaking < HANDSHAKING_MAX
            && begun < CONNECTS_PER_TURN
        {
            let index = self.connect_next;
            self.connect_next += 1;
            begun += 1;
            self.connect_due_ns += gap_ns;
            self.begin(index, now)?;
        }
        // No catching up in a burst after the server was slow.
        self.connect_due_ns = self.connect_due_ns.max(now.saturating_sub(CONNECT_SLACK_NS));
        Ok(())
    }

    fn begin(&mut self, index: u32, now: u64) -> Result<(), WorkerError> {
        let number = self.plan.number_first + index;
        let client = &mut self.clients[index as usize];
        client.generation = client.generation.wrapping_add(1) & 0xFF_FFFF;
        let socket = SocketId { slot: index, generation: client.generation };
        let group = &self.plan.groups[usize::from(client.group)];
        let buffer_bytes = match client.role {
            Role::Stalled => Some(STALLED_RECEIVE_BYTES),
            Role::Slow => Some(SLOW_RECEIVE_BYTES),
            Role::Subscriber { .. } => self.plan.receive_buffer_bytes,
            Role::Idle | Role::Publisher(_) => None,
        };
        let segment_bytes = (client.role == Role::Slow).then_some(SLOW_SEGMENT_BYTES);
        let source = self.plan.sources.of(number);
        let is_publisher = matches!(client.role, Role::Publisher(_));
        let send_buffer_bytes = self.plan.send_buffer_bytes.filter(|_| is_publisher);
        let opened = open(group.address, source, buffer_bytes, segment_bytes)
            .and_then(|fd| {
                send_buffer_bytes.map_or(Ok(()), |bytes| set_send_buffer(&fd, bytes)).map(|()| fd)
            })
            .map_err(|error| error.to_string())
            .and_then(|fd| prepare(fd, &group.dial));
        let (fd, layers) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                self.fail(index, &reason);
                let socket = self.socket(index);
                self.agenda.add(now + REJOIN_AFTER_FAILURE_NS, Errand::Join, socket);
                return Ok(());
            }
        };
        let nonce = nonce(self.plan.seed, number, client.generation);
        let request = client.begin(group, number, nonce, self.plan.deflate, now);
        client.layers = layers;
        let request = client.seal(request);
        if client.role == Role::Slow {
            let bytes = receive_buffer_bytes(&fd);
            self.outcome.slow_buffer_bytes = self.outcome.slow_buffer_bytes.max(bytes);
        }
        self.ring.install(index, fd)?;
        client.sending = !request.is_empty();
        client.receiving = true;
        self.handshaking += 1;
        let is_stalled = matches!(client.role, Role::Stalled | Role::Slow);
        let is_open = request.is_empty();
        if !is_open {
            self.ring.send(socket, request)?;
        }
        if is_stalled {
            self.ring.receive_once(socket, 0)?
        } else {
            self.ring.receive(socket)?
        }
        if is_open {
            return self.opened_for_posts(socket, now);
        }
        self.agenda.add(now + HANDSHAKE_NS_MAX, Errand::HandshakeTimeout, socket);
        Ok(())
    }

    /// The connection could not be opened.
    fn fail(&mut self, index: u32, reason: &str) {
        count(&mut self.outcome.failures, reason);
        let client = &mut self.clients[index as usize];
        if client.churns() && self.phase == Phase::Running {
            client.state = State::Waiting;
        } else {
            client.state = State::Ended;
            self.failed += 1;
            if client.is_steady() {
                self.outcome.judge.gone(index);
            }
        }
    }

    pub(super) fn run_errands(&mut self, now: u64) -> Result<(), WorkerError> {
        while let Some((errand, socket)) = self.agenda.pop_due(now) {
            let client = &self.clients[socket.slot as usize];
            if client.generation != socket.generation {
                continue;
            }
            match (errand, &client.state) {
                (Errand::HandshakeTimeout, State::Handshaking { .. }) => {
                    self.end(socket, "no answer to the upgrade within 10 s")?;
                }
                (Errand::HandshakeTimeout, State::Open)
                    if self.outcome.judge.is_unanswered(socket.slot) =>
                {
                    self.end(socket, "no answer to the subscription within 10 s")?;
                }
                (Errand::Leave, State::Open) if self.phase == Phase::Running => {
                    self.leave(socket, CloseCode::NORMAL)?;
                    self.agenda.add(now + NANOS_PER_SECOND, Errand::LeaveTimeout, socket);
                }
                (Errand::LeaveTimeout, State::Leaving) => {
                    self.end(socket, "no end within 1 s of our close")?;
                }
                (Errand::Read, State::Open | State::Leaving) => self.read_slowly(socket, now)?,
                (Errand::Join, State::Waiting)
                    if self.phase == Phase::Running
                        || self.phase == Phase::Connecting && !client.churns() =>
                {
                    self.begin(socket.slot, now)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, socket: SocketId, code: CloseCode) -> Result<(), WorkerError> {
        let mut frame = Vec::with_capacity(8);
        write_close(&mut frame, Some(code), "", Some(self.random.random()));
        self.clients[socket.slot as usize].state = State::Leaving;
        self.queue(socket, &frame)
    }

    pub(super) fn plan_leave(&mut self, index: u32, from_ns: u64) {
        let stay_ns = self.random.random_range(STAY_NS_LEAST..STAY_NS_MOST);
        let socket = self.socket(index);
        self.agenda.add(from_ns + stay_ns, Errand::Leave, socket);
    }

    pub(super) fn socket(&self, index: u32) -> SocketId {
        SocketId { slot: index, generation: self.clients[index as usize].generation }
    }

    /// Sends `bytes` now, or after the send in flight.
    pub(super) fn queue(&mut self, socket: SocketId, bytes: &[u8]) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        if client.sending {
            if client.pending.len() < PENDING_BYTES_MAX {
                client.pending.extend_from_slice(bytes);
            }
            return Ok(());
        }
        client.sending = true;
        let bytes = client.seal(bytes.to_vec());
        Ok(self.ring.send(socket, bytes)?)
    }

    pub(super) fn receive(
        &mut self,
        socket: SocketId,
        chunk: &Chunk,
        more: bool,
        now: u64,
    ) -> Result<(), WorkerError> {
        let slow_bytes_per_s = self.slow_bytes_per_s(now);
        let client = &mut self.clients[socket.slot as usize];
        if client.generation != socket.generation {
            return Ok(());
        }
        client.receiving = more;
        let bytes = self.ring.bytes(chunk);
        if client.role == Role::Slow {
            let rest_ns = bytes.len() as u64 * NANOS_PER_SECOND / slow_bytes_per_s;
            self.agenda.add(now + rest_ns, Errand::Read, socket);
        }
        self.outcome.wire_bytes += bytes.len() as u64;
        self.outcome.conduct.receives += 1;
        if client.layers.is_some() {
            return self.receive_layered(socket, chunk, now);
        }
        if !matches!(client.state, State::Handshaking { .. }) {
            let (judge, inflater) = (&mut self.outcome.judge, &mut self.inflater);
            let messages_before = judge.counts.messages;
            let fed = feed(client, judge, inflater, socket.slot, bytes, now);
            if judge.counts.messages != messages_before {
                client.heard(now);
            }
            return self.fed(socket, fed);
        }
        let bytes = bytes.to_vec();
        self.answered(socket, &bytes, now)
    }

    /// Bytes as a WebSocket has them, out of whatever they came in.
    pub(super) fn take(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        now: u64,
    ) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        if !matches!(client.state, State::Handshaking { .. }) {
            let (judge, inflater) = (&mut self.outcome.judge, &mut self.inflater);
            let fed = feed(client, judge, inflater, socket.slot, bytes, now);
            return self.fed(socket, fed);
        }
        self.answered(socket, bytes, now)
    }

    /// A piece of the answer to the upgrade.
    fn answered(&mut self, socket: SocketId, bytes: &[u8], now: u64) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        let number = self.plan.number_first + socket.slot;
        let nonce = nonce(self.plan.seed, number, socket.generation);
        let protocols = self.plan.groups[usize::from(client.group)].dial.protocols();
        match client.answer(bytes, nonce, self.plan.deflate, &protocols) {
            Ok(None) => self.rearm(socket),
            Ok(Some(early)) => {
                self.opened(socket, now)?;
                let client = &mut self.clients[socket.slot as usize];
                let (judge, inflater) = (&mut self.outcome.judge, &mut self.inflater);
                let fed = feed(client, judge, inflater, socket.slot, &early, now);
                self.fed(socket, fed)
            }
            Err(ResponseError::ExtensionNotOffered) if self.plan.deflate => {
                self.end(socket, "the answer's extension is not as offered (see --deflate)")
            }
            Err(error) => self.end(socket, &error.to_string()),
        }
    }

    /// The upgrade has been answered.
    pub(super) fn opened(&mut self, socket: SocketId, now: u64) -> Result<(), WorkerError> {
        self.handshaking -= 1;
        self.open += 1;
        let client = &self.clients[socket.slot as usize];
        let group = &self.plan.groups[usize::from(client.group)];
        if !group.dial.posts {
            self.outcome.handshake.saturating_record(now - client.begun_ns);
        }
        if !group.dial.greetings.is_empty() {
            let (number, random) = (self.plan.number_first + socket.slot, &mut self.random);
            let mut frames = Vec::new();
            group.dial.write_greetings(number, || random.random(), &mut frames);
            self.queue(socket, &frames)?;
        }
        let client = &self.clients[socket.slot as usize];
        if !matches!(client.role, Role::Publisher(_) | Role::Stalled) {
            self.outcome.judge.greeted(socket.slot);
        }
        self.outcome.deflate.offered += u64::from(client.offer(self.plan.deflate).is_some());
        self.outcome.deflate.agreed += u64::from(client.frames.allows_deflate());
        let (checked, churns) = (client.is_checked(), client.churns());
        if checked && let Some(text) = self.outcome.judge.subscription(socket.slot) {
            // The answer says what is expected.
            let mut frame = Vec::with_capacity(text.len() + 16);
            write_message(&mut frame, Opcode::Text, text.as_bytes(), Some(self.random.random()));
            self.queue(socket, &frame)?;
        } else if self.clients[socket.slot as usize].is_steady() && self.phase == Phase::Connecting
        {
            self.outcome.judge.ledger.expect_all(socket.slot);
        } else {
            self.outcome.judge.ledger.expect_any(socket.slot);
        }
        if churns && self.phase == Phase::Running {
            self.outcome.lives += 1;
            self.plan_leave(socket.slot, now);
        }
        Ok(())
    }

    /// Answers what has to be answered, and receives on.
    fn fed(
        &mut self,
        socket: SocketId,
        fed: Result<Vec<u8>, FrameError>,
    ) -> Result<(), WorkerError> {
        let mut answer = match fed {
            Ok(answer) => answer,
            Err(error) => return self.end(socket, &error.to_string()),
        };
        let client = &mut self.clients[socket.slot as usize];
        if client.close_code.is_some() && matches!(client.state, State::Open) && !client.answered {
            // RFC 6455 section 5.5.1: a close is answered; the server then ends the connection.
            client.answered = true;
            write_close(&mut answer, Some(CloseCode::NORMAL), "", Some(self.random.random()));
        }
        if !answer.is_empty() {
            self.queue(socket, &answer)?;
        }
        self.rearm(socket)
    }

    /// Receives on, if the receive is no longer armed and should be.
    pub(super) fn rearm(&mut self, socket: SocketId) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        let stalled = client.role == Role::Stalled && matches!(client.state, State::Open);
        // Of one that is over the last bytes may come after its end.
        let is_over = matches!(client.state, State::Waiting | State::Ended);
        if client.receiving || stalled || is_over {
            return Ok(());
        }
        match client.role {
            // Its next read is on the agenda.
            Role::Slow => return Ok(()),
            Role::Stalled => self.ring.receive_once(socket, 0)?,
            Role::Idle | Role::Publisher(_) | Role::Subscriber { .. } => {
                self.ring.receive(socket)?;
            }
        }
        self.clients[socket.slot as usize].receiving = true;
        Ok(())
    }

    /// A slow connection takes a little more.
    fn read_slowly(&mut self, socket: SocketId, now: u64) -> Result<(), WorkerError> {
        let slow_bytes_per_s = self.slow_bytes_per_s(now);
        let client = &mut self.clients[socket.slot as usize];
        if !std::mem::replace(&mut client.receiving, true) {
            let bytes = (slow_bytes_per_s / SLOW_READS_PER_S).clamp(64, 1 << 16);
            self.ring.receive_once(socket, bytes as u32)?;
        }
        Ok(())
    }

    fn slow_bytes_per_s(&self, now: u64) -> u64 {
        if self.plan.slow_catch_up && now >= self.catch_up_due_ns {
            FULL_SPEED_BYTES_PER_S
        } else {
            self.plan.slow_bytes_per_s
        }
    }

    pub(super) fn receive_ended(
        &mut self,
        socket: SocketId,
        result: i32,
    ) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        if client.generation != socket.generation {
            return Ok(());
        }
        client.receiving = false;
        match -result {
            libc::ENOBUFS => {
                self.outcome.buffers_exhausted += 1;
                if self.clients[socket.slot as usize].role == Role::Slow {
                    return self.read_slowly(socket, now_ns());
                }
                self.rearm(socket)
            }
            0 => self.end(socket, "FIN without a close (1006)"),
            errno => {
                let error = std::io::Error::from_raw_os_error(errno);
                self.end(socket, &error.to_string())
            }
        }
    }

    pub(super) fn sent(
        &mut self,
        socket: SocketId,
        result: i32,
        mut buffer: Vec<u8>,
        now: u64,
    ) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        if client.generation != socket.generation {
            return Ok(());
        }
        client.sending = false;
        if client.connected() {
            let connect_ns = now.saturating_sub(client.begun_ns);
            self.outcome.conduct.connect.saturating_record(connect_ns);
        }
        if result != buffer.len() as i32 {
            let error = std::io::Error::from_raw_os_error((-result).max(libc::EPIPE));
            return self.end(socket, &format!("sending: {error}"));
        }
        buffer.clear();
        if !client.pending.is_empty() {
            let pending = std::mem::take(&mut client.pending);
            client.sending = true;
            let pending = client.seal(pending);
            self.ring.send(socket, pending)?;
        } else if client.layers.as_ref().is_some_and(|layers| layers.wants_seal()) {
            client.sending = true;
            let records = client.seal(buffer);
            self.ring.send(socket, records)?;
        } else if let Role::Publisher(_) = client.role {
            client.pending = buffer;
            self.publish_due_ns = self.publish_due_ns.min(now);
        }
        Ok(())
    }

    /// The connection is over, for the given reason: frees its slot.
    pub(super) fn end(&mut self, socket: SocketId, reason: &str) -> Result<(), WorkerError> {
        if self.is_reopened(socket.slot) {
            return self.reopen(socket);
        }
        let client = &mut self.clients[socket.slot as usize];
        if matches!(client.state, State::Waiting | State::Ended) {
            // It may wait for its next life: the end of a receive that was cancelled is not its own.
            return Ok(());
        }
        match std::mem::replace(&mut client.state, State::Ended) {
            State::Waiting | State::Ended => {}
            State::Handshaking { .. } => {
                self.handshaking -= 1;
                self.fail(socket.slot, reason);
            }
            State::Open => {
                self.open -= 1;
                let text = match client.close_code {
                    Some(code) => format!("close {code}"),
                    None => reason.to_owned(),
                };
                let is_steady = client.is_steady();
                self.outcome.judge.ledger.leave(socket.slot);
                if is_steady {
                    self.outcome.judge.gone(socket.slot);
                }
                if self.phase < Phase::Closing {
                    count(&mut self.outcome.closes, &text);
                }
                self.come_back(socket.slot);
            }
            State::Leaving => {
                self.open -= 1;
                self.outcome.judge.ledger.leave(socket.slot);
                if self.clients[socket.slot as usize].close_code.is_none()
                    && self.phase < Phase::Closing
                {
                    count(&mut self.outcome.closes, "our close was not answered");
                }
                self.come_back(socket.slot);
            }
        }
        self.outcome.judge.unsubscribed(socket.slot);
        let client = &mut self.clients[socket.slot as usize];
        client.frames.clear();
        client.layers = None;
        if client.receiving {
            self.ring.receive_cancel(socket)?;
        }
        Ok(self.ring.close(socket)?)
    }

    /// A connection that churns waits for its next life.
    fn come_back(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        if client.churns() && self.phase < Phase::Closing {
            client.state = State::Waiting;
            if !self.outcome.judge.resumes() {
                self.outcome.judge.ledger.expect_any(index);
            }
        }
    }

    /// The slot is free: a connection that churns comes back, not before.
    pub(super) fn closed(&mut self, socket: SocketId, now: u64) {
        let client = &self.clients[socket.slot as usize];
        if client.generation == socket.generation && matches!(client.state, State::Waiting) {
            let wait_ns = if client.churns() { REJOIN_NS } else { 0 };
            self.agenda.add(now + wait_ns, Errand::Join, socket);
        }
    }
}

/// Gives the judge the messages in `bytes`; returns what has to be answered: pongs.
#[inline]
pub(crate) fn feed(
    client: &mut Client,
    judge: &mut Judge,
    inflater: &mut Inflater,
    connection: u32,
    bytes: &[u8],
    now: u64,
) -> Result<Vec<u8>, FrameError> {
    let mut answer = Vec::new();
    let (counted, checked) = (client.is_steady(), client.is_checked());
    let close_code = &mut client.close_code;
    client.frames.feed(bytes, |frame| {
        match frame {
            Frame::Message { payload, .. } if checked => {
                judge.message(connection, payload, counted, now);
            }
            Frame::Message { payload, .. } => judge.aside(connection, payload, now),
            Frame::Deflated(compressed) => {
                let payload = inflater.inflate(compressed)?;
                if checked {
                    judge.message(connection, payload, counted, now);
                } else {
                    judge.aside(connection, payload, now);
                }
            }
            Frame::Ping(payload) => write_pong(&mut answer, payload, Some(PONG_MASK)),
            Frame::Pong => {}
            Frame::Close(code) => {
                // The first one counts: a server may answer our answer.
                close_code.get_or_insert(code.unwrap_or(CloseCode::NO_STATUS.value()));
            }
        }
        Ok(())
    })?;
    judge.take_replies(&mut answer);
    Ok(answer)
}

/// A stalled connection's receive buffer, bytes: it fills soon.
const STALLED_RECEIVE_BYTES: usize = 4096;
/// A slow one's, bytes; the kernel doubles it.
const SLOW_RECEIVE_BYTES: usize = 16 * 1024;
/// Into so many reads a slow connection's bytes of a second are divided.
const SLOW_READS_PER_S: u64 = 10;
/// As over Ethernet. Loopback's segments of 64 KiB never fit the window of so small a buffer: then the
/// server's kernel sends nothing but window probes, ever more seldom.
const SLOW_SEGMENT_BYTES: u32 = 1_448;
/// No limit to speak of.
const FULL_SPEED_BYTES_PER_S: u64 = 1 << 40;
/// Upgrades without an answer at a time, per thread.
pub(super) const HANDSHAKING_MAX: u32 = 256;
/// Connections begun before completions are looked at again.
const CONNECTS_PER_TURN: u32 = 32;
const CONNECT_SLACK_NS: u64 = 10 * NANOS_PER_MILLI;
const HANDSHAKE_NS_MAX: u64 = 10 * NANOS_PER_SECOND;
/// How long a connection that churns stays.
const STAY_NS_LEAST: u64 = 500 * NANOS_PER_MILLI;
const STAY_NS_MOST: u64 = 2 * NANOS_PER_SECOND;
const REJOIN_NS: u64 = 20 * NANOS_PER_MILLI;
const REJOIN_AFTER_FAILURE_NS: u64 = 100 * NANOS_PER_MILLI;
/// Pongs and closes that may wait behind a send, bytes; more are not answered.
const PENDING_BYTES_MAX: usize = 64 * 1024;
/// A pong's payload is the server's own: its mask need not be a surprise.
const PONG_MASK: [u8; 4] = [0x5A, 0x17, 0xC3, 0x88];
