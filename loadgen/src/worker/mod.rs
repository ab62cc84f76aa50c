//! One thread: its ring, its connections, and when it does what.
//!
//! Knows: the ring's completions, the life of connections, publishing in time. Must not know: what
//! payloads mean (the judge does), what the run is for, how it is reported.

mod changing;
mod layered;
mod lives;
mod outcome;
mod seconds;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand_pcg::Pcg32;
use thiserror::Error;
use uringcast_protocol::CloseCode;

use self::lives::HANDSHAKING_MAX;
pub(crate) use self::lives::feed;
pub(crate) use self::outcome::Outcome;
use crate::agenda::Agenda;
use crate::client::{Client, State};
use crate::clock::{NANOS_PER_MILLI, NANOS_PER_SECOND, now_ns};
use crate::driver::{Completion, Ring, RingError, Sizes, SocketId};
use crate::inflate::Inflater;
use crate::judge::Judge;
use crate::plan::{Role, WorkerPlan};
use crate::shared::{Phase, Progress, Shared};
use crate::source::{NEVER, Source, masks};
use crate::timeline::Cutter;
use crate::usage::{Usage, UsageWindow};

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
    inflater: Inflater,
    /// What a receive of a connection with layers came to.
    plain: Vec<u8>,
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
    /// When something was published last, or the beginning.
    published_ns: u64,
    /// When publishing was over: nobody has to hear anything from then on.
    silence_end_ns: u64,
    /// From when on slow connections may read at full speed.
    catch_up_due_ns: u64,
    look_due_ns: u64,
    usage: UsageWindow,
    cutter: Cutter,
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
        cutter: Cutter,
    ) -> Result<Self, WorkerError> {
        if let Some(cpu) = plan.cpu {
            crate::usage::stay_on(cpu).map_err(|error| WorkerError::Affinity { cpu, error })?;
        }
        crate::usage::sharpen_timers();
        if !sources.is_empty() {
            crate::usage::go_first();
        }
        let sizes = Sizes {
            entries: RING_ENTRIES,
            slots: plan.clients.len().max(1) as u32,
            buffers: RECEIVE_BUFFERS,
            buffer_bytes: RECEIVE_BUFFER_BYTES,
        };
        let mut ring = Ring::new(&sizes, plan.means)?;
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
            inflater: Inflater::new(),
            plain: Vec::new(),
            agenda: Agenda::default(),
            phase: Phase::Connecting,
            connect_next: 0,
            connect_due_ns: now_ns(),
            handshaking: 0,
            open: 0,
            failed: 0,
            catch_up_due_ns: NEVER,
            publish_due_ns: NEVER,
            published_ns: 0,
            silence_end_ns: 0,
            look_due_ns: 0,
            usage: UsageWindow::default(),
            cutter,
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
            self.change(now)?;
            self.ring.wait(self.timeout_ns(now_ns()))?;
            self.ring.reap(&mut completions)?;
            for completion in completions.drain(..) {
                let now = now_ns();
                if now >= self.cutter.due_ns() {
                    self.tell(now);
                }
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
        let opening = waiting + u64::from(self.handshaking) + self.outcome.judge.unanswered();
        progress.opening.store(opening, Ordering::Relaxed);
        progress.open.store(self.open, Ordering::Relaxed);
        progress.failed.store(self.failed, Ordering::Relaxed);
        progress.received_bytes.store(self.outcome.wire_bytes, Ordering::Relaxed);
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
        if now >= self.cutter.due_ns() {
            self.tell(now);
        }
        self.look_due_ns = (now + LOOK_NS).min(self.cutter.due_ns());
        let phase = self.shared.phase();
        if phase != self.phase {
            self.phase = phase;
            match phase {
                Phase::Connecting => {}
                Phase::Running => self.start(),
                Phase::Draining => {
                    self.publish_due_ns = NEVER;
                    self.silence_end_ns = now.min(self.shared.end_ns());
                    self.catch_up_due_ns = now + CATCH_UP_AFTER_NS;
                }
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
        let begin_ns = self.shared.start_ns();
        let start_ns = begin_ns + self.plan.warmup_ns;
        self.outcome.judge.begin(begin_ns, start_ns..self.shared.end_ns());
        self.look_due_ns = self.look_due_ns.min(start_ns);
        self.cutter.begin(self.shared.start_ns());
        self.publish_due_ns = 0;
        self.published_ns = begin_ns;
        for client in &mut self.clients {
            client.listen(begin_ns);
        }
        for index in 0..self.clients.len() {
            if self.clients[index].churns() && matches!(self.clients[index].state, State::Open) {
                self.plan_leave(index as u32, self.shared.start_ns());
            }
        }
    }

    fn is_complete(&self) -> bool {
        let shared = &self.shared;
        let judge = &self.outcome.judge;
        self.clients.iter().enumerate().all(|(index, client)| {
            !client.is_checked()
                || !matches!(client.state, State::Open)
                || judge.is_complete(index as u32, |stream| shared.published(stream))
        }) && (self.sources.is_empty() || judge.is_answered(|stream| shared.published(stream)))
    }

    fn timeout_ns(&self, now: u64) -> u64 {
        let mut due = self.look_due_ns.min(self.publish_due_ns);
        due = due.min(self.change_due_ns());
        if let Some(errand) = self.agenda.next_ns() {
            due = due.min(errand);
        }
        if (self.connect_next as usize) < self.clients.len() && self.handshaking < HANDSHAKING_MAX {
            due = due.min(self.connect_due_ns);
        }
        due.saturating_sub(now)
    }

    /// Sends whatever is due, and computes when to come again.
    fn publish(&mut self, now: u64) -> Result<(), WorkerError> {
        if self.phase != Phase::Running {
            // Whatever woke the thread: nothing is due any more, and it must not look again and again.
            self.publish_due_ns = NEVER;
            return Ok(());
        }
        if self.publish_due_ns > now {
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
            self.outcome.conduct.sent(frames.len(), now.saturating_sub(self.published_ns));
            self.published_ns = now;
            client.sending = true;
            let socket = SocketId { slot, generation: client.generation };
            let frames = client.seal(frames);
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

    fn close_all(&mut self) -> Result<(), WorkerError> {
        // Settled first: what arrives after the verdict changes nothing.
        for index in 0..self.clients.len() as u32 {
            let client = &self.clients[index as usize];
            let steady_from_the_start =
                client.is_steady() && !matches!(client.state, State::Waiting);
            let open = matches!(client.state, State::Open);
            if steady_from_the_start || (client.churns() && open) {
                let shared = &self.shared;
                self.outcome.judge.settle(index, open, |stream| shared.published(stream));
            }
            if open && self.clients[index as usize].is_steady() && self.silence_end_ns > 0 {
                let silence_ns = self.clients[index as usize].silence_ns(self.silence_end_ns);
                self.outcome.conduct.silence.saturating_record(silence_ns);
            }
            let posts = self.plan.groups[usize::from(client.group)].dial.posts;
            let never_reads = client.role == Role::Stalled || posts;
            match (open, never_reads) {
                (true, false) => self.leave(self.socket(index), CloseCode::NORMAL)?,
                // It would not see an answer.
                (true, true) => self.end(self.socket(index), "never read")?,
                (false, _) => {}
            }
        }
        Ok(())
    }

    fn finish(mut self, now: u64) -> Outcome {
        for source in &mut self.sources {
            self.outcome.tally.merge(&source.tally(now));
            self.outcome.posts.unanswered += source.abandon();
        }
        self.tell_last(now);
        self.show_progress();
        self.outcome.usage = Usage { publishes: !self.sources.is_empty(), ..self.usage.usage() };
        self.outcome.window_messages = self.usage.messages();
        self.outcome.deflate.counts = self.inflater.counts;
        self.outcome
    }
}

/// Operations begun between two waits, without a system call more.
const RING_ENTRIES: u32 = 4096;
/// Receive buffers of a thread: one per socket that has something to say at one time.
pub(crate) const RECEIVE_BUFFERS: u16 = 256;
/// The more of a socket's data one receive takes, the less each message costs.
pub(crate) const RECEIVE_BUFFER_BYTES: u32 = 64 * 1024;
/// What is on its way to the others when publishing ends arrives first.
const CATCH_UP_AFTER_NS: u64 = 2_000_000_000;
/// How often a thread looks at the phase of the run.
const LOOK_NS: u64 = 20 * NANOS_PER_MILLI;
/// Closing handshakes at the end take no longer.
const CLOSING_NS_MAX: u64 = 2 * NANOS_PER_SECOND;
