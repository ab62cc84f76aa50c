//! One thread: its ring, its connections, and when it does what.
//!
//! Knows: the ring's completions, the life of connections, publishing in time. Must not know: what
//! payloads mean (the judge does), what the run is for, how it is reported.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;
use rand::RngExt as _;
use rand_pcg::Pcg32;
use thiserror::Error;
use uringcast_protocol::CloseCode;
use uringcast_protocol::writer::{write_close, write_pong};

use crate::agenda::{Agenda, Errand};
use crate::client::{Client, State, nonce};
use crate::clock::{NANOS_PER_MILLI, NANOS_PER_SECOND, now_ns};
use crate::driver::{Chunk, Completion, Ring, RingError, SocketId, open};
use crate::frames::{Frame, FrameError};
use crate::judge::Judge;
use crate::plan::{Role, WorkerPlan};
use crate::record::histogram;
use crate::shared::{Phase, Progress, Shared};
use crate::source::{NEVER, Source, Tally, masks};
use crate::usage::{Usage, UsageWindow};

/// What a thread has to tell at its end.
pub(crate) struct Outcome {
    /// What was received.
    pub(crate) judge: Judge,
    /// What was published.
    pub(crate) tally: Tally,
    /// Why connections never opened, and how many.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Connections that the server ended, by close code or error, and how many.
    pub(crate) closes: BTreeMap<String, u64>,
    /// Times from beginning to connect until the answer to the upgrade, ns.
    pub(crate) handshake: Histogram<u64>,
    /// Bytes received, frames and all.
    pub(crate) wire_bytes: u64,
    /// Lives begun by connections that churn.
    pub(crate) lives: u64,
    /// The receive buffers ran out so often.
    pub(crate) buffers_exhausted: u64,
    /// What this thread used while measuring.
    pub(crate) usage: Usage,
    /// Messages received while measuring.
    pub(crate) window_messages: u64,
}

/// Why a thread gave up.
#[derive(Debug, Error)]
pub(crate) enum WorkerError {
    /// The processor is not there, or not allowed.
    #[error("staying on processor {cpu}: {error}")]
    Affinity { cpu: usize, error: rustix::io::Errno },
    /// The ring.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// A thread's state.
pub(crate) struct Worker {
    plan: WorkerPlan,
    shared: Arc<Shared>,
    ring: Ring,
    clients: Vec<Client>,
    sources: Vec<Box<dyn Source>>,
    /// By source: its connection.
    publishers: Vec<u32>,
    agenda: Agenda,
    random: Pcg32,
    phase: Phase,
    /// The next connection to begin for the first time.
    connect_next: u32,
    connect_due_ns: u64,
    handshaking: u32,
    open: u64,
    failed: u64,
    publish_due_ns: u64,
    look_due_ns: u64,
    usage: UsageWindow,
    outcome: Outcome,
}

impl Worker {
    /// To be called on the thread that runs it.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub(crate) fn new(
        plan: WorkerPlan,
        shared: Arc<Shared>,
        judge: Judge,
        sources: Vec<Box<dyn Source>>,
    ) -> Result<Self, WorkerError> {
        if let Some(cpu) = plan.cpu {
            crate::usage::stay_on(cpu).map_err(|error| WorkerError::Affinity { cpu, error })?;
        }
        crate::usage::sharpen_timers();
        let slots = plan.clients.len().max(1) as u32;
        let mut ring = Ring::new(slots, RECEIVE_BUFFERS, RECEIVE_BUFFER_BYTES)?;
        ring.watch(shared.progress[plan.thread].wake_fd())?;
        let clients: Vec<_> =
            plan.clients.iter().map(|client| Client::new(client.role, client.group)).collect();
        let mut publishers = vec![0; sources.len()];
        for (index, client) in clients.iter().enumerate() {
            if let Role::Publisher(source) = client.role {
                publishers[usize::from(source)] = index as u32;
            }
        }
        Ok(Self {
            random: masks(plan.seed ^ u64::from(plan.number_first)),
            ring,
            clients,
            sources,
            publishers,
            agenda: Agenda::default(),
            phase: Phase::Connecting,
            connect_next: 0,
            connect_due_ns: now_ns(),
            handshaking: 0,
            open: 0,
            failed: 0,
            publish_due_ns: NEVER,
            look_due_ns: 0,
            usage: UsageWindow::default(),
            outcome: Outcome::new(judge),
            shared,
            plan,
        })
    }

    /// Runs to the end of the run.
    ///
    /// # Errors
    /// [`WorkerError::Ring`]: the thread can't go on.
    pub(crate) fn run(mut self) -> Result<Outcome, WorkerError> {
        let mut completions = Vec::with_capacity(1024);
        let mut closing_until_ns = NEVER;
        loop {
            let now = now_ns();
            if now >= self.look_due_ns || self.phase != self.shared.phase() {
                self.look(now)?;
            }
            if self.phase == Phase::Closing {
                closing_until_ns = closing_until_ns.min(now + CLOSING_NS_MAX);
                if self.open == 0 || now >= closing_until_ns {
                    break;
                }
            }
            self.connect_due(now)?;
            self.run_errands(now)?;
            self.publish(now)?;
            self.ring.wait(self.timeout_ns(now_ns()))?;
            self.ring.reap(&mut completions);
            for completion in completions.drain(..) {
                let now = now_ns();
                self.complete(completion, now)?;
                if now >= self.publish_due_ns {
                    self.publish(now)?;
                    self.ring.submit()?;
                }
            }
            self.show_progress();
        }
        Ok(self.finish(now_ns()))
    }

    fn progress(&self) -> &Progress {
        &self.shared.progress[self.plan.thread]
    }

    fn show_progress(&mut self) {
        let waiting = self.clients.len() as u64 - u64::from(self.connect_next);
        let seen = self.outcome.judge.seen_by_all();
        let progress = self.progress();
        progress.opening.store(waiting + u64::from(self.handshaking), Ordering::Relaxed);
        progress.open.store(self.open, Ordering::Relaxed);
        progress.failed.store(self.failed, Ordering::Relaxed);
        progress.received.store(self.outcome.judge.counts.messages, Ordering::Relaxed);
        if progress.seen_by_all.swap(seen, Ordering::AcqRel) != seen {
            if self.plan.thread == 0 {
                self.publish_due_ns = 0;
            } else {
                self.shared.progress[0].wake();
            }
        }
    }

    /// What is looked at now and then: the phase of the run, the measured window, what is left.
    fn look(&mut self, now: u64) -> Result<(), WorkerError> {
        self.look_due_ns = now + LOOK_NS;
        let phase = self.shared.phase();
        if phase != self.phase {
            self.phase = phase;
            match phase {
                Phase::Connecting => {}
                Phase::Running => self.start(),
                Phase::Draining => self.publish_due_ns = NEVER,
                Phase::Closing => self.close_all()?,
            }
        }
        let window = self.outcome.judge.recorder.window_ns.clone();
        if self.phase >= Phase::Running {
            let ended = now >= window.end || self.phase >= Phase::Draining;
            self.usage.look(now >= window.start, ended, self.outcome.judge.counts.messages);
        }
        let left = self.sources.iter().filter(|source| !source.is_done(now)).count();
        self.progress().publishing.store(left as u64, Ordering::Release);
        if self.phase == Phase::Draining {
            let complete = self.is_complete();
            self.progress().complete.store(complete, Ordering::Release);
        }
        Ok(())
    }

    fn start(&mut self) {
        let start_ns = self.shared.start_ns() + self.plan.warmup_ns;
        self.outcome.judge.recorder.window_ns = start_ns..self.shared.end_ns();
        self.look_due_ns = self.look_due_ns.min(start_ns);
        self.publish_due_ns = 0;
        for index in 0..self.clients.len() {
            if self.clients[index].churns() && matches!(self.clients[index].state, State::Open) {
                self.plan_leave(index as u32, self.shared.start_ns());
            }
        }
    }

    fn is_complete(&self) -> bool {
        let shared = &self.shared;
        let ledger = &self.outcome.judge.ledger;
        self.clients.iter().enumerate().all(|(index, client)| {
            !client.is_checked()
                || !matches!(client.state, State::Open)
                || ledger.is_complete(index as u32, |stream| shared.published(stream))
        })
    }

    fn timeout_ns(&self, now: u64) -> u64 {
        let mut due = self.look_due_ns.min(self.publish_due_ns);
        if let Some(errand) = self.agenda.next_ns() {
            due = due.min(errand);
        }
        if (self.connect_next as usize) < self.clients.len() && self.handshaking < HANDSHAKING_MAX {
            due = due.min(self.connect_due_ns);
        }
        due.saturating_sub(now)
    }

    fn connect_due(&mut self, now: u64) -> Result<(), WorkerError> {
        let gap_ns = match self.plan.connects_per_s {
            0 => 0,
            rate => NANOS_PER_SECOND / u64::from(rate),
        };
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
        let small_buffer = (client.role == Role::Stalled).then_some(STALLED_RECEIVE_BYTES);
        let source = self.plan.sources.of(number);
        let fd = match open(group.address, source, small_buffer) {
            Ok(fd) => fd,
            Err(error) => {
                self.fail(index, &error.to_string());
                let socket = self.socket(index);
                self.agenda.add(now + REJOIN_AFTER_FAILURE_NS, Errand::Join, socket);
                return Ok(());
            }
        };
        let request = client.begin(group, nonce(self.plan.seed, number, client.generation), now);
        self.ring.install(index, fd)?;
        client.sending = true;
        client.receiving = true;
        self.handshaking += 1;
        let is_stalled = client.role == Role::Stalled;
        self.ring.send(socket, request)?;
        if is_stalled {
            self.ring.receive_once(socket)?
        } else {
            self.ring.receive(socket)?
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

    fn run_errands(&mut self, now: u64) -> Result<(), WorkerError> {
        while let Some((errand, socket)) = self.agenda.pop_due(now) {
            let client = &self.clients[socket.slot as usize];
            if client.generation != socket.generation {
                continue;
            }
            match (errand, &client.state) {
                (Errand::HandshakeTimeout, State::Handshaking { .. }) => {
                    self.end(socket, "no answer to the upgrade within 10 s")?;
                }
                (Errand::Leave, State::Open) if self.phase == Phase::Running => {
                    self.leave(socket, CloseCode::NORMAL)?;
                    self.agenda.add(now + NANOS_PER_SECOND, Errand::LeaveTimeout, socket);
                }
                (Errand::LeaveTimeout, State::Leaving) => {
                    self.end(socket, "no end within 1 s of our close")?;
                }
                (Errand::Join, State::Waiting) if self.phase == Phase::Running => {
                    self.begin(socket.slot, now)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn leave(&mut self, socket: SocketId, code: CloseCode) -> Result<(), WorkerError> {
        let mut frame = Vec::with_capacity(8);
        write_close(&mut frame, Some(code), "", Some(self.random.random()));
        self.clients[socket.slot as usize].state = State::Leaving;
        self.queue(socket, &frame)
    }

    fn plan_leave(&mut self, index: u32, from_ns: u64) {
        let stay_ns = self.random.random_range(STAY_NS_LEAST..STAY_NS_MOST);
        let socket = self.socket(index);
        self.agenda.add(from_ns + stay_ns, Errand::Leave, socket);
    }

    fn socket(&self, index: u32) -> SocketId {
        SocketId { slot: index, generation: self.clients[index as usize].generation }
    }

    /// Sends `bytes` now, or after the send in flight.
    fn queue(&mut self, socket: SocketId, bytes: &[u8]) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        if client.sending {
            if client.pending.len() < PENDING_BYTES_MAX {
                client.pending.extend_from_slice(bytes);
            }
            return Ok(());
        }
        client.sending = true;
        Ok(self.ring.send(socket, bytes.to_vec())?)
    }

    /// Sends whatever is due, and computes when to come again.
    fn publish(&mut self, now: u64) -> Result<(), WorkerError> {
        if self.publish_due_ns > now || self.phase != Phase::Running {
            return Ok(());
        }
        let mut due_ns = NEVER;
        for (index, source) in self.sources.iter_mut().enumerate() {
            let slot = self.publishers[index];
            let client = &mut self.clients[slot as usize];
            // While a send is in flight the kernel has no room: its completion comes back here.
            if client.sending || !matches!(client.state, State::Open) {
                continue;
            }
            let source_due_ns = source.due_ns(now);
            if source_due_ns > now {
                due_ns = due_ns.min(source_due_ns);
                continue;
            }
            let mut frames = std::mem::take(&mut client.pending);
            source.fill(now, &mut frames);
            client.sending = true;
            let socket = SocketId { slot, generation: client.generation };
            self.ring.send(socket, frames)?;
        }
        self.publish_due_ns = due_ns;
        Ok(())
    }

    fn complete(&mut self, completion: Completion, now: u64) -> Result<(), WorkerError> {
        match completion {
            Completion::Received { socket, chunk, more } => {
                self.receive(socket, &chunk, more, now)?;
                self.ring.give_back(chunk);
            }
            Completion::ReceiveEnded { socket, result } => {
                self.receive_ended(socket, result)?;
            }
            Completion::Sent { socket, result, buffer } => {
                self.sent(socket, result, buffer, now)?;
            }
            Completion::Closed { socket } => self.closed(socket, now),
            Completion::Woken => {
                self.progress().wake_clear();
                self.look_due_ns = 0;
                self.publish_due_ns = self.publish_due_ns.min(now);
            }
        }
        Ok(())
    }

    fn receive(
        &mut self,
        socket: SocketId,
        chunk: &Chunk,
        more: bool,
        now: u64,
    ) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        if client.generation != socket.generation {
            return Ok(());
        }
        client.receiving = more;
        let bytes = self.ring.bytes(chunk);
        self.outcome.wire_bytes += bytes.len() as u64;
        if !matches!(client.state, State::Handshaking { .. }) {
            let fed = feed(client, &mut self.outcome.judge, socket.slot, bytes, now);
            return self.fed(socket, fed);
        }
        let number = self.plan.number_first + socket.slot;
        match client.answer(bytes, nonce(self.plan.seed, number, socket.generation)) {
            Ok(None) => self.rearm(socket),
            Ok(Some(early)) => {
                self.opened(socket, now);
                let client = &mut self.clients[socket.slot as usize];
                let fed = feed(client, &mut self.outcome.judge, socket.slot, &early, now);
                self.fed(socket, fed)
            }
            Err(error) => self.end(socket, &error.to_string()),
        }
    }

    /// The upgrade has been answered.
    fn opened(&mut self, socket: SocketId, now: u64) {
        self.handshaking -= 1;
        self.open += 1;
        let client = &self.clients[socket.slot as usize];
        self.outcome.handshake.saturating_record(now - client.begun_ns);
        if client.is_steady() && self.phase == Phase::Connecting {
            self.outcome.judge.ledger.expect_all(socket.slot);
        } else {
            self.outcome.judge.ledger.expect_any(socket.slot);
        }
        if client.churns() && self.phase == Phase::Running {
            self.outcome.lives += 1;
            self.plan_leave(socket.slot, now);
        }
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
    fn rearm(&mut self, socket: SocketId) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        let stalled = client.role == Role::Stalled && matches!(client.state, State::Open);
        if client.receiving || stalled {
            return Ok(());
        }
        client.receiving = true;
        if client.role == Role::Stalled {
            return Ok(self.ring.receive_once(socket)?);
        }
        Ok(self.ring.receive(socket)?)
    }

    fn receive_ended(&mut self, socket: SocketId, result: i32) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        if client.generation != socket.generation {
            return Ok(());
        }
        client.receiving = false;
        match -result {
            libc::ENOBUFS => {
                self.outcome.buffers_exhausted += 1;
                self.rearm(socket)
            }
            0 => self.end(socket, "FIN without a close (1006)"),
            errno => {
                let error = std::io::Error::from_raw_os_error(errno);
                self.end(socket, &error.to_string())
            }
        }
    }

    fn sent(
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
        if result != buffer.len() as i32 {
            let error = std::io::Error::from_raw_os_error((-result).max(libc::EPIPE));
            return self.end(socket, &format!("sending: {error}"));
        }
        buffer.clear();
        if !client.pending.is_empty() {
            let pending = std::mem::replace(&mut client.pending, Vec::new());
            client.sending = true;
            self.ring.send(socket, pending)?;
        } else if let Role::Publisher(_) = client.role {
            client.pending = buffer;
            self.publish_due_ns = self.publish_due_ns.min(now);
        }
        Ok(())
    }

    /// The connection is over, for the given reason: frees its slot.
    fn end(&mut self, socket: SocketId, reason: &str) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        let state = std::mem::replace(&mut client.state, State::Ended);
        match state {
            State::Waiting | State::Ended => return Ok(()),
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
        let client = &mut self.clients[socket.slot as usize];
        client.frames.clear();
        if client.receiving {
            self.ring.receive_cancel(socket)?;
        }
        Ok(self.ring.close(socket)?)
    }

    /// A connection that churns waits for its next life.
    fn come_back(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        if client.churns() && self.phase < Phase::Closing {
            self.outcome.judge.ledger.expect_any(index);
            client.state = State::Waiting;
        }
    }

    /// The slot is free: a connection that churns comes back, not before.
    fn closed(&mut self, socket: SocketId, now: u64) {
        let client = &self.clients[socket.slot as usize];
        if client.generation == socket.generation && matches!(client.state, State::Waiting) {
            self.agenda.add(now + REJOIN_NS, Errand::Join, socket);
        }
    }

    fn close_all(&mut self) -> Result<(), WorkerError> {
        // Settled first: what arrives after the verdict changes nothing.
        for index in 0..self.clients.len() as u32 {
            let client = &self.clients[index as usize];
            let steady_from_the_start =
                client.is_steady() && !matches!(client.state, State::Waiting);
            let open = matches!(client.state, State::Open);
            if steady_from_the_start || (client.churns() && open) {
                let shared = &self.shared;
                self.outcome.judge.ledger.settle(index, |stream| shared.published(stream));
            }
            if open {
                self.leave(self.socket(index), CloseCode::NORMAL)?;
            }
        }
        Ok(())
    }

    fn finish(mut self, now: u64) -> Outcome {
        for source in &self.sources {
            self.outcome.tally.merge(&source.tally(now));
        }
        self.show_progress();
        self.outcome.usage = self.usage.usage();
        self.outcome.window_messages = self.usage.messages();
        self.outcome
    }
}

impl Outcome {
    fn new(judge: Judge) -> Self {
        Self {
            judge,
            tally: Tally::default(),
            failures: BTreeMap::new(),
            closes: BTreeMap::new(),
            handshake: histogram(),
            wire_bytes: 0,
            lives: 0,
            buffers_exhausted: 0,
            usage: Usage::default(),
            window_messages: 0,
        }
    }
}

/// Gives the judge the messages in `bytes`; returns what has to be answered: pongs.
#[inline]
fn feed(
    client: &mut Client,
    judge: &mut Judge,
    connection: u32,
    bytes: &[u8],
    now: u64,
) -> Result<Vec<u8>, FrameError> {
    let mut answer = Vec::new();
    let (counted, checked) = (client.is_steady(), client.is_checked());
    let close_code = &mut client.close_code;
    client.frames.feed(bytes, |frame| match frame {
        Frame::Message { payload, .. } if checked => {
            judge.message(connection, payload, counted, now);
        }
        Frame::Message { payload, .. } => judge.aside(payload),
        Frame::Ping(payload) => write_pong(&mut answer, payload, Some(PONG_MASK)),
        Frame::Pong => {}
        Frame::Close(code) => {
            // The first one counts: a server may answer our answer.
            close_code.get_or_insert(code.unwrap_or(CloseCode::NO_STATUS.value()));
        }
    })?;
    Ok(answer)
}

fn count(counts: &mut BTreeMap<String, u64>, reason: &str) {
    if let Some(count) = counts.get_mut(reason) {
        *count += 1;
    } else if counts.len() < REASONS_MAX {
        counts.insert(reason.to_owned(), 1);
    } else {
        *counts.entry("other reasons".to_owned()).or_default() += 1;
    }
}

/// Receive buffers of a thread: one per socket that has something to say at one time.
const RECEIVE_BUFFERS: u16 = 256;
/// The more of a socket's data one receive takes, the less each message costs.
const RECEIVE_BUFFER_BYTES: u32 = 64 * 1024;
/// A stalled connection's receive buffer, bytes: it fills soon.
const STALLED_RECEIVE_BYTES: usize = 4096;
/// Upgrades without an answer at a time, per thread.
const HANDSHAKING_MAX: u32 = 256;
/// Connections begun before completions are looked at again.
const CONNECTS_PER_TURN: u32 = 32;
const CONNECT_SLACK_NS: u64 = 10 * NANOS_PER_MILLI;
const HANDSHAKE_NS_MAX: u64 = 10 * NANOS_PER_SECOND;
/// How often a thread looks at the phase of the run.
const LOOK_NS: u64 = 20 * NANOS_PER_MILLI;
/// Closing handshakes at the end take no longer.
const CLOSING_NS_MAX: u64 = 2 * NANOS_PER_SECOND;
/// How long a connection that churns stays.
const STAY_NS_LEAST: u64 = 500 * NANOS_PER_MILLI;
const STAY_NS_MOST: u64 = 2 * NANOS_PER_SECOND;
const REJOIN_NS: u64 = 20 * NANOS_PER_MILLI;
const REJOIN_AFTER_FAILURE_NS: u64 = 100 * NANOS_PER_MILLI;
/// Pongs and closes that may wait behind a send, bytes; more are not answered.
const PENDING_BYTES_MAX: usize = 4096;
/// A pong's payload is the server's own: its mask need not be a surprise.
const PONG_MASK: [u8; 4] = [0x5A, 0x17, 0xC3, 0x88];
/// Different reasons told apart.
const REASONS_MAX: usize = 64;
