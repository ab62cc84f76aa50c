//! The real ring.
//!
//! Knows: which entry each request becomes, and what each completion means. Must not know: what a
//! connection is.
//!
//! A ring belongs to the thread that makes it. Memory the kernel may write at any time (receive
//! buffers, addresses of accepts) is the ring's, and outlives the operations: dropping the ring
//! cancels them and waits for their ends, and leaks what the kernel will not let go of.

use std::{
    fmt, mem,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use io_uring::{cqueue, opcode, squeue, types};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    accept::Listener,
    buffers::{Buffer, Buffers, GROUP},
    by_hand::{self, ByHand},
    capabilities::Capabilities,
    error::{Errno, RingError},
    io::{
        Completion, Io, ListenerId, MinWait, Operation, ReceiveEnd, Send, SendTrouble, Slot, Token,
    },
    pool::{Pool, PoolOptions, REGIONS_REGISTERED_MAX},
    queue::{Queues, Raw, RingCounters},
    send::Batches,
    setup::{self, RingOptions},
    sockets::{Sockets, on},
    tag::{Kind, Tag},
    wake::WakeHandle,
};

/// An io_uring of one thread, which must be the one that made it.
pub struct Ring {
    pub(crate) queues: Queues,
    pub(crate) batches: Batches,
    last_send_ns: u64,
    pub(crate) buffers: Rc<Buffers>,
    by_hand: ByHand,
    pub(crate) capabilities: Capabilities,
    pub(crate) sockets: Sockets,
    listeners: Vec<Listener>,
    accepts: u16,
    slots: u32,
    handle: WakeHandle,
    peers: Vec<WakeHandle>,
    /// Completions reaped but not told yet.
    pub(crate) pending: Vec<Raw>,
    /// Receives the kernel has, whose buffers it may write.
    pub(crate) receives_armed: usize,
    pool_made: bool,
    #[cfg(feature = "experiments")]
    pub(crate) trial: crate::experiments::Trial,
}

/// What a ring runs with, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingDescription {
    /// What is used of the kernel.
    pub capabilities: Capabilities,
    /// Submissions per enter at most.
    pub sq_entries: u32,
    /// Completions the queue holds.
    pub cq_entries: u32,
    /// Direct descriptors.
    pub slots: u32,
    /// A send that takes everything posts no completion; `false`: the self-test failed, or it was
    /// asked for.
    pub skip_success: bool,
    /// The ring is entered by its registered index; `false`: all 16 places of the thread are taken.
    pub registered_ring: bool,
}

impl Ring {
    /// Makes a ring for this thread and tests that the kernel's sends behave.
    ///
    /// # Errors
    /// What the system refuses, and the line that fixes it.
    pub fn new(options: RingOptions) -> Result<Self, RingError> {
        options.check()?;
        let capabilities = Capabilities::decide(options.tier)?;
        #[cfg(not(feature = "experiments"))]
        let uring = setup::queues(&capabilities, options.sq_entries, options.cq_entries)?;
        #[cfg(feature = "experiments")]
        let uring = crate::experiments::queues(&capabilities, &options)?;
        let slots = setup::make_table(&uring, &capabilities, options.slots)?;
        let queues = Queues::new(uring, &capabilities);
        let skip_success = options.skip_success && capabilities.silent_sends;
        let buffers = Buffers::new(
            &queues.uring.submitter(),
            capabilities.buffer_ring,
            options.receive_buffers,
            options.receive_buffer_bytes,
        )?;
        // SAFETY: the descriptor lives through this call, which duplicates it.
        let fd = unsafe { BorrowedFd::borrow_raw(queues.uring.as_raw_fd()) };
        let handle = WakeHandle::of(fd)?;
        let mut ring = Self {
            pending: Vec::with_capacity(queues.uring.params().cq_entries() as usize),
            queues,
            batches: Batches::new(skip_success),
            last_send_ns: 0,
            buffers,
            by_hand: ByHand::default(),
            sockets: Sockets::new(capabilities.direct_descriptors, slots),
            listeners: Vec::new(),
            accepts: match capabilities.direct_descriptors {
                true => options.accepts,
                false => options.accepts.min(KEPT_ACCEPTS_MAX),
            },
            slots,
            capabilities,
            handle,
            peers: Vec::new(),
            receives_armed: 0,
            pool_made: false,
            #[cfg(feature = "experiments")]
            trial: crate::experiments::Trial::default(),
        };
        #[cfg(feature = "experiments")]
        ring.try_out(&options.experiments)?;
        ring.listen_for_bell();
        Ok(ring)
    }

    /// Takes a listening socket and keeps accepts in flight on it. Its options (`listen::listen`) are
    /// inherited by what it accepts.
    ///
    /// # Errors
    /// [`RingError::ListenersMax`]
    pub fn add_listener(&mut self, socket: impl Into<OwnedFd>) -> Result<ListenerId, RingError> {
        let id = u8::try_from(self.listeners.len()).map_err(|_| RingError::ListenersMax)?;
        let mut listener = Listener::new(ListenerId(id), socket.into(), self.accepts);
        listener.resume(&mut self.queues, &self.sockets);
        self.listeners.push(listener);
        Ok(ListenerId(id))
    }

    /// For others to wake this ring.
    pub fn wake_handle(&self) -> WakeHandle {
        self.handle.clone()
    }

    /// Whom [`Io::wake`] can wake, by index.
    pub fn set_peers(&mut self, peers: Vec<WakeHandle>) {
        // Wakes of earlier peers name their descriptors, so they go first. What is wrong with the
        // ring the next wait says.
        let _ = self.queues.submit_all(&mut self.pending);
        self.peers = peers;
    }

    /// A pool whose regions are registered with this ring; a second one is not registered. Where the
    /// kernel refuses (`RLIMIT_MEMLOCK`), the pool works unregistered and counts it.
    pub fn pool(&mut self, options: PoolOptions) -> Pool {
        let first = !mem::replace(&mut self.pool_made, true);
        let submitter = self.queues.uring.submitter();
        if !first
            || !self.capabilities.sparse_tables
            || submitter.register_buffers_sparse(REGIONS_REGISTERED_MAX).is_err()
        {
            return Pool::new(options);
        }
        // SAFETY: the descriptor lives through this call, which duplicates it.
        let fd = unsafe { BorrowedFd::borrow_raw(self.queues.uring.as_raw_fd()) };
        match fd.try_clone_to_owned() {
            Ok(registrar) => Pool::registered(options, registrar),
            Err(_) => Pool::new(options),
        }
    }

    /// What this ring runs with.
    pub fn describe(&self) -> RingDescription {
        let parameters = self.queues.uring.params();
        RingDescription {
            capabilities: self.capabilities,
            sq_entries: parameters.sq_entries(),
            cq_entries: parameters.cq_entries(),
            slots: self.slots,
            skip_success: self.batches.skip_success,
            registered_ring: self.queues.enters_by_index(),
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> RingCounters {
        self.queues.counters
    }

    pub(crate) fn push(&mut self, tag: Tag, entry: squeue::Entry) {
        // SAFETY: of the entries built in this file only receives have memory, and theirs is the ring
        // of buffers, which `Drop` frees only when none is armed.
        unsafe { self.queues.push(entry.user_data(tag.bits())) };
    }

    fn listen_for_bell(&mut self) {
        let poll = opcode::PollAdd::new(types::Fd(self.handle.bell_fd()), libc::POLLIN as u32);
        self.push(Tag::index(Kind::Bell, 0), poll.build());
    }

    /// Says what the completions reaped so far mean.
    fn tell(&mut self, out: &mut Vec<Completion<Buffer>>) -> Result<(), RingError> {
        let mut pending = mem::take(&mut self.pending);
        let mut told = Ok(());
        for raw in pending.drain(..) {
            let told_one = self.tell_one(raw, out);
            told = told.and(told_one);
        }
        // Re-arming may have reaped more.
        pending.append(&mut self.pending);
        self.pending = pending;
        told
    }

    fn tell_one(&mut self, raw: Raw, out: &mut Vec<Completion<Buffer>>) -> Result<(), RingError> {
        let Raw { user_data, result, flags } = raw;
        // Nobody but us, and our peers in our name, posts here.
        let Some(Tag { kind, token }) = Tag::decode(user_data) else { return Ok(()) };
        match kind {
            Kind::Ignored => {}
            Kind::Send => return Err(RingError::SendOutlivedBatch),
            Kind::Accept => {
                let (listener, index) = ((token.index >> 16) as usize, token.index & 0xffff);
                if let Some(listener) = self.listeners.get_mut(listener) {
                    let index = index as usize;
                    listener.complete(index, result, &mut self.queues, &mut self.sockets, out);
                }
            }
            Kind::PollReadable if result > 0 => {
                let hung_up =
                    result & i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0;
                out.push(Completion::Readable { token, hung_up });
            }
            Kind::PollReadable => out.push(Completion::PollEnded { token }),
            Kind::PollWritable => {
                // An error of the poll itself is the socket's, and sending will find it.
                let cancelled = result == -libc::ECANCELED;
                out.push(Completion::Writable { token, cancelled });
            }
            #[cfg(feature = "experiments")]
            Kind::Receive if self.trial.bundles => self.received_bundle(token, raw, out),
            Kind::Receive => out.push(self.received(token, result, flags)),
            Kind::Close => {
                self.queues.counters.closes_failed += u64::from(result < 0);
                out.push(Completion::Closed { token });
            }
            Kind::Bell => {
                self.handle.hush();
                self.listen_for_bell();
                out.push(Completion::Woken);
            }
            Kind::ReceivePoll => {
                if let Sockets::Kept(kept) = &self.sockets
                    && let Some(Raw { result, flags, .. }) =
                        self.by_hand.ready(&mut self.queues, kept, &self.buffers, token, result)
                {
                    out.push(self.received(token, result, flags));
                }
            }
            Kind::Wake => out.push(Completion::Woken),
            Kind::WakeFailed if result >= 0 => {}
            Kind::WakeFailed => {
                // Its queue is full, or it is gone; the eventfd can always be rung.
                self.queues.counters.wakes_by_bell += 1;
                if let Some(peer) = self.peers.get(token.index as usize) {
                    peer.ring_bell();
                }
            }
        }
        Ok(())
    }

    pub(crate) fn received(&mut self, token: Token, result: i32, flags: u32) -> Completion<Buffer> {
        let armed = cqueue::more(flags);
        if !armed {
            self.receives_armed -= 1;
        }
        let buffer = cqueue::buffer_select(flags);
        let end = match (u32::try_from(result), buffer) {
            (Ok(bytes @ 1..), Some(id)) => {
                let data = self.buffers.filled(id, bytes);
                return Completion::Received { token, data, armed };
            }
            (Ok(_), _) => ReceiveEnd::Eof,
            (Err(_), _) => match Errno(-result) {
                Errno(libc::EAGAIN | libc::EINTR) => ReceiveEnd::Again,
                Errno(libc::ECANCELED) => ReceiveEnd::Cancelled,
                Errno(libc::ENOBUFS) => ReceiveEnd::NoBuffers,
                // ECONNRESET, ETIMEDOUT, EPIPE …; EBADF for a slot that is closed.
                errno => ReceiveEnd::Dead(errno),
            },
        };
        if let Some(id) = buffer {
            self.buffers.give(id);
        }
        self.queues.counters.no_buffers += u64::from(end == ReceiveEnd::NoBuffers);
        Completion::ReceiveEnded { token, end }
    }

    /// A receive into a shared buffer that ends with the first bytes.
    fn receive_once(&mut self, slot: Slot, token: Token, flags: i32) {
        let bytes = self.buffers.buffer_bytes() as u32;
        let receive = on!(self.sockets.target(slot), socket => {
            opcode::Recv::new(socket, std::ptr::null_mut(), bytes)
                .buf_group(GROUP)
                .flags(flags)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        });
        self.push(Tag::new(Kind::Receive, token), receive);
    }

    /// Whether the kernel has none of our memory to write to.
    fn is_quiet(&self) -> bool {
        self.receives_armed == 0 && self.listeners.iter().all(|listener| listener.armed() == 0)
    }
}

impl Io for Ring {
    type Buffer = Buffer;

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        out: &mut Vec<Completion<Buffer>>,
    ) -> Result<(), RingError> {
        self.queues.submit_and_wait(timeout, &mut self.pending)?;
        self.tell(out)
    }

    fn set_min_wait(&mut self, min_wait: Option<MinWait>) -> bool {
        self.queues.min_wait = min_wait.filter(|_| self.capabilities.min_wait);
        self.queues.min_wait.is_some()
    }

    fn send(
        &mut self,
        sends: &[Send<'_>],
        troubles: &mut Vec<SendTrouble>,
    ) -> Result<(), RingError> {
        let begun_ns = monotonic_ns();
        self.batches.send(&mut self.queues, &mut self.pending, sends, troubles)?;
        self.last_send_ns = monotonic_ns().saturating_sub(begun_ns);
        Ok(())
    }

    fn last_send_ns(&self) -> u64 {
        self.last_send_ns
    }

    fn poll_readable(&mut self, slot: Slot, token: Token) {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let poll = on!(self.sockets.target(slot), socket => {
            opcode::PollAdd::new(socket, events).build()
        });
        self.push(Tag::new(Kind::PollReadable, token), poll);
    }

    fn poll_writable(&mut self, slot: Slot, token: Token) {
        let events = libc::POLLOUT as u32;
        let poll = on!(self.sockets.target(slot), socket => {
            opcode::PollAdd::new(socket, events).build()
        });
        self.push(Tag::new(Kind::PollWritable, token), poll);
    }

    fn receive(&mut self, slot: Slot, token: Token) {
        self.receives_armed += 1;
        if let (false, Sockets::Kept(kept)) = (self.capabilities.buffer_ring, &self.sockets) {
            // Told by the next wait, as if the kernel had said so.
            return self.pending.push(by_hand::receive(kept, &self.buffers, slot, token));
        }
        self.receive_once(slot, token, libc::MSG_DONTWAIT);
    }

    fn receive_multishot(&mut self, slot: Slot, token: Token) {
        self.receives_armed += 1;
        if let (false, Sockets::Kept(kept)) = (self.capabilities.buffer_ring, &self.sockets) {
            return self.by_hand.arm(&mut self.queues, kept, slot, token);
        }
        #[cfg(feature = "experiments")]
        if self.trial.bundles {
            return self.receive_bundle(slot, token);
        }
        if !self.capabilities.multishot_receive {
            return self.receive_once(slot, token, 0);
        }
        let receive = on!(self.sockets.target(slot), socket => {
            opcode::RecvMulti::new(socket, GROUP).build()
        });
        self.push(Tag::new(Kind::Receive, token), receive);
    }

    fn receive_when_readable(&mut self, slot: Slot, token: Token) {
        self.receives_armed += 1;
        if let (false, Sockets::Kept(kept)) = (self.capabilities.buffer_ring, &self.sockets) {
            return self.by_hand.arm(&mut self.queues, kept, slot, token);
        }
        self.receive_once(slot, token, 0);
    }

    fn cancel(&mut self, operation: Operation, token: Token) {
        // Where it finds nothing (ENOENT) or is too late (EALREADY), the operation's own end is on
        // its way or was told.
        let mut tag = Tag::of(operation, token);
        if operation == Operation::Receive && !self.capabilities.buffer_ring {
            tag.kind = Kind::ReceivePoll;
        }
        let cancel = opcode::AsyncCancel::new(tag.bits()).build();
        self.push(Tag::index(Kind::Ignored, 0), cancel.flags(self.queues.quiet()));
    }

    fn close(&mut self, slot: Slot, token: Token) {
        let tag = Tag::new(Kind::Close, token);
        match &mut self.sockets {
            Sockets::Direct => {
                self.push(tag, opcode::Close::new(types::Fixed(slot.0)).build());
            }
            Sockets::Kept(kept) => {
                let result =
                    kept.close(&self.queues.uring, slot).map_or_else(|errno| -errno.0, |()| 0);
                // Told by the next wait, as if the kernel had said so.
                self.pending.push(Raw { user_data: tag.bits(), result, flags: 0 });
            }
        }
    }

    fn resume_accepts(&mut self, listener: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(usize::from(listener.0)) {
            listener.resume(&mut self.queues, &self.sockets);
        }
    }

    fn stop_accepting(&mut self) {
        for listener in &mut self.listeners {
            listener.stop(&mut self.queues);
        }
    }

    fn wake(&mut self, peer: usize) {
        let Some(handle) = self.peers.get(peer) else {
            debug_assert!(false, "no peer {peer}");
            return;
        };
        match handle.ring_fd().filter(|_| self.capabilities.msg_ring) {
            Some(fd) => {
                let wake = Tag::index(Kind::Wake, 0).bits();
                let message = opcode::MsgRingData::new(types::Fd(fd), 0, wake, None)
                    .build()
                    .flags(self.queues.quiet());
                self.push(Tag::index(Kind::WakeFailed, peer as u32), message);
            }
            None => handle.ring_bell(),
        }
    }

    fn receive_buffer_bytes(&self) -> usize {
        self.buffers.buffer_bytes()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.stop_accepting();
        // Errors from here on: what cannot be undone is leaked below.
        let _ = self.queues.submit_all(&mut self.pending);
        if self.capabilities.sync_cancel {
            let _ = self.queues.uring.submitter().register_sync_cancel(
                Some(types::Timespec::new().sec(1)),
                types::CancelBuilder::any().all(),
            );
        } else if let Sockets::Kept(kept) = &self.sockets {
            kept.shut_down_all();
        }
        let mut out = Vec::new();
        for _ in 0..DROP_TRIES {
            let waited = self.wait(Some(Duration::ZERO), &mut out);
            out.clear();
            if self.is_quiet() || waited.is_err() {
                break;
            }
            let _ = self.wait(Some(Duration::from_millis(10)), &mut out);
            out.clear();
        }
        if !self.is_quiet() {
            mem::forget(Rc::clone(&self.buffers));
            mem::forget(mem::take(&mut self.listeners));
        }
        // Whoever holds a wake handle holds the kernel's ring, so what it holds is let go by hand.
        let submitter = self.queues.uring.submitter();
        if self.capabilities.buffer_ring {
            let _ = submitter.unregister_buf_ring(GROUP);
        }
        let _ = submitter.unregister_files();
        if self.pool_made && self.capabilities.sparse_tables {
            let _ = submitter.unregister_buffers();
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("describe", &self.describe()).finish_non_exhaustive()
    }
}

impl fmt::Display for RingDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tier {}, {} submissions, {} completions, {} slots",
            self.capabilities, self.sq_entries, self.cq_entries, self.slots
        )?;
        if !self.skip_success {
            write!(f, ", a completion per send")?;
        }
        if !self.registered_ring {
            write!(f, ", ring not registered with the thread")?;
        }
        Ok(())
    }
}

/// Accepts in flight per listener where accepts are descriptors: before 5.17 or about each connection
/// wakes them all.
const KEPT_ACCEPTS_MAX: u16 = 16;
/// Rounds of waiting for cancelled operations, of 10 ms.
const DROP_TRIES: u32 = 100;

/// For how long a batch takes, which only the ring sees; deadlines are the reactor's.
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn a_peer_that_takes_no_message_is_rung() {
        let mut ring = Ring::new(RingOptions { slots: 16, ..Default::default() })
            .expect("the machine that tests has io_uring");
        // Not a ring, so the message fails.
        let other = eventfd(0, EventfdFlags::CLOEXEC).expect("descriptors are left");
        let peer = WakeHandle::of(&other).expect("descriptors are left");
        ring.set_peers(vec![peer.clone()]);
        ring.wake(0);
        let mut out = Vec::new();
        ring.wait(Some(Duration::ZERO), &mut out).expect("a ring that works");
        assert!(out.is_empty(), "{out:?}");
        assert_eq!(ring.counters().wakes_by_bell, 1);
        assert!(peer.hush());
        assert!(!peer.hush());
    }
}
