//! One io_uring with its sockets and its shared receive buffers.
//!
//! Knows: SQEs, CQEs, who owns which memory while the kernel uses it. Must not know: what is sent or
//! received, or when.
//!
//! The load generator has a ring of its own, apart from the server's: it is the measuring
//! instrument, and a fault in a shared ring would hide itself. This file and those in its folder are
//! the only ones of the crate with unsafe code. What makes it sound: memory handed to a SEND stays in
//! `sends` until its CQE; receive memory ([`memory`]) is read only through a [`Chunk`], which exists
//! exactly while the kernel does not own that buffer; dropping the ring first cancels and awaits
//! everything in flight.
//!
//! What a kernel lacks ([`means`]) is made up for here, and nobody else sees it: sockets are in the ring's
//! table or are file descriptors, a receive stays armed or is polled for.
#![allow(
    unsafe_code,
    reason = "system calls with memory: the one wall between the load generator and the kernel"
)]

mod bare;
mod calls;
mod means;
mod memory;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd as _, OwnedFd, RawFd};
use std::ptr;

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;
use thiserror::Error;

pub(crate) use self::bare::Discarded;
pub(crate) use self::calls::Interrupts;
pub(super) use self::calls::bind_address_no_port;
pub(crate) use self::means::Means;
pub(crate) use self::memory::Chunk;
use self::memory::{Memory, Offered, Picked};

/// A socket of one ring, and which of its slot's successive uses is meant: a late completion of an
/// earlier use carries an earlier generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketId {
    /// Index among the ring's sockets.
    pub(crate) slot: u32,
    /// Counts the uses of the slot; 24 bits.
    pub(crate) generation: u32,
}

/// What the kernel has to say about one operation.
#[derive(Debug)]
pub(crate) enum Completion {
    /// Bytes arrived. `more`: the receive stays armed.
    Received { socket: SocketId, chunk: Chunk, more: bool },
    /// The receive ended: 0 at the peer's FIN, else a negated errno. It is no longer armed.
    ReceiveEnded { socket: SocketId, result: i32 },
    /// A send ended: bytes sent or a negated errno; its buffer comes back.
    Sent { socket: SocketId, result: i32, buffer: Vec<u8> },
    /// The slot is free again.
    Closed { socket: SocketId },
    /// Another thread called.
    Woken,
}

/// Why there is no ring, or why it can't go on.
#[derive(Debug, Error)]
pub(crate) enum RingError {
    /// io_uring_enter failed.
    #[error("io_uring_enter: {0}")]
    Enter(io::Error),
    /// A socket could not be put into the table.
    #[error("putting a socket into slot {slot} of the ring's table of files: {error}")]
    Install { slot: u32, error: io::Error },
    /// Memory for the receive buffers.
    #[error("mapping {bytes} bytes of receive buffers: {error}")]
    Map { bytes: usize, error: io::Error },
    /// The kernel is older than the ring's least, or forbids it.
    #[error(
        "setting up an io_uring ({what}): {error}; the load generator needs Linux 5.10 or newer, \
         `sysctl kernel.io_uring_disabled` 0, a container profile that allows io_uring_setup, and \
         `ulimit -l` of 64 MiB or more"
    )]
    Setup { what: &'static str, error: io::Error },
}

/// How large a ring is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Operations that are queued before they are submitted.
    pub(crate) entries: u32,
    /// Sockets.
    pub(crate) slots: u32,
    /// Receive buffers, a power of two.
    pub(crate) buffers: u16,
    /// Of each of them.
    pub(crate) buffer_bytes: u32,
}

/// One thread's ring. Not to be moved between threads after its making (SINGLE_ISSUER).
pub(crate) struct Ring {
    /// First, so that it is dropped before the memory it uses.
    ring: IoUring,
    memory: Memory,
    receive: Receive,
    files: Files,
    timed_wait: bool,
    /// There is a call that cancels everything and waits for it (6.0). Where there is none it must not be
    /// tried: 5.10 waits for all operations to end before it looks at what it is asked for.
    can_cancel_all: bool,
    /// Where the kernel finds how long to wait, where that is an entry.
    timeout: Box<Timespec>,
    /// INVARIANT: an entry is removed only when its CQE has been reaped.
    sends: Slab<Sending>,
    /// What [`Self::watch`] watches.
    watched: RawFd,
}

/// How bytes come in.
enum Receive {
    /// Receives stay armed, and the kernel takes the buffers.
    Armed(Offered),
    /// A poll, then a receive into a buffer of our choice.
    Polled(Picked),
}

/// Where sockets are.
enum Files {
    /// In the ring's table: the slot is the index.
    Direct,
    /// By slot.
    Descriptors(Vec<Option<OwnedFd>>),
}

/// A send that the kernel has.
struct Sending {
    socket: SocketId,
    buffer: Vec<u8>,
    /// Taken by the kernel so far: before 5.19 it does not go on by itself.
    sent: usize,
}

impl Ring {
    /// A ring of this size by these means.
    ///
    /// # Errors
    /// [`RingError::Setup`] where the kernel refuses, [`RingError::Map`] without memory.
    pub(crate) fn new(sizes: &Sizes, means: Means) -> Result<Self, RingError> {
        let ring = build(sizes.entries, means.deferred)
            .map_err(|error| RingError::Setup { what: "the ring", error })?;
        let files = match means.direct {
            true => {
                ring.submitter()
                    .register_files_sparse(sizes.slots)
                    .map_err(|error| RingError::Setup { what: "a sparse table of files", error })?;
                Files::Direct
            }
            false => Files::Descriptors((0..sizes.slots).map(|_| None).collect()),
        };
        let memory = Memory::new(sizes.buffers, sizes.buffer_bytes)?;
        let receive = match means.multishot {
            true => Receive::Armed(offer(&ring, &memory)?),
            false => Receive::Polled(Picked::new(&memory, sizes.slots)),
        };
        let sends = Slab::with_capacity(sizes.entries.min(1024) as usize);
        Ok(Self {
            ring,
            memory,
            receive,
            files,
            timed_wait: means.timed_wait,
            can_cancel_all: means.multishot || means.deferred,
            timeout: Box::default(),
            sends,
            watched: -1,
        })
    }

    /// Puts a socket into a free slot.
    ///
    /// # Errors
    /// [`RingError::Install`], the socket is closed then.
    pub(crate) fn install(&mut self, slot: u32, socket: OwnedFd) -> Result<(), RingError> {
        match &mut self.files {
            // The process keeps no descriptor of it.
            Files::Direct => self
                .ring
                .submitter()
                .register_files_update(slot, &[socket.as_raw_fd()])
                .map(drop)
                .map_err(|error| RingError::Install { slot, error }),
            Files::Descriptors(descriptors) => {
                descriptors[slot as usize] = Some(socket);
                Ok(())
            }
        }
    }

    /// Receives until the peer ends it; every arrival is a [`Completion::Received`].
    pub(crate) fn receive(&mut self, socket: SocketId) -> Result<(), RingError> {
        if let Receive::Polled(_) = self.receive {
            return self.receive_once(socket, 0);
        }
        let (file, flags) = self.file(socket.slot);
        let entry = opcode::RecvMulti::new(Fd(file), BUFFER_GROUP).build();
        self.push(entry.flags(flags).user_data(pack(KIND_RECEIVE, socket)))
    }

    /// Receives once, at most so many bytes; 0: as many as a buffer holds.
    pub(crate) fn receive_once(&mut self, socket: SocketId, bytes: u32) -> Result<(), RingError> {
        if let Receive::Polled(picked) = &mut self.receive {
            picked.want(socket, bytes);
            return self.poll(socket);
        }
        let (file, flags) = self.file(socket.slot);
        let entry = opcode::Recv::new(Fd(file), ptr::null_mut(), bytes)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT | flags);
        self.push(entry.user_data(pack(KIND_RECEIVE, socket)))
    }

    /// Ends an armed receive. It answers with [`Completion::ReceiveEnded`], or has just ended.
    pub(crate) fn receive_cancel(&mut self, socket: SocketId) -> Result<(), RingError> {
        let kind = match &mut self.receive {
            Receive::Armed(_) => KIND_RECEIVE,
            Receive::Polled(picked) => {
                picked.forget(socket);
                KIND_POLL
            }
        };
        let builder = CancelBuilder::user_data(pack(kind, socket));
        let id = SocketId { slot: 0, generation: 0 };
        self.push(opcode::AsyncCancel2::new(builder).build().user_data(pack(KIND_CANCEL, id)))
    }

    /// Sends all of `buffer`, however long the peer takes; the buffer comes back with
    /// [`Completion::Sent`]. At most one send per socket may be in flight, or bytes mix.
    pub(crate) fn send(&mut self, socket: SocketId, buffer: Vec<u8>) -> Result<(), RingError> {
        let index = self.sends.insert(Sending { socket, buffer, sent: 0 });
        self.push_send(index)
    }

    /// Frees a slot. Nothing may be armed on it.
    pub(crate) fn close(&mut self, socket: SocketId) -> Result<(), RingError> {
        if let Receive::Polled(picked) = &mut self.receive {
            picked.forget(socket);
        }
        let entry = match &mut self.files {
            Files::Direct => opcode::Close::new(Fixed(socket.slot)).build(),
            Files::Descriptors(descriptors) => {
                // By the ring too, so that it comes after what is queued for the descriptor.
                let file = descriptors[socket.slot as usize].take();
                opcode::Close::new(Fd(file.map_or(-1, OwnedFd::into_raw_fd))).build()
            }
        };
        self.push(entry.user_data(pack(KIND_CLOSE, socket)))
    }

    /// Lets `event` (an eventfd) interrupt [`Self::wait`] with a [`Completion::Woken`]. It must
    /// stay open as long as the ring lives.
    pub(crate) fn watch(&mut self, event: BorrowedFd<'_>) -> Result<(), RingError> {
        self.watched = event.as_raw_fd();
        self.push_watch()
    }

    /// Submits what is queued and does not wait.
    ///
    /// # Errors
    /// [`RingError::Enter`].
    pub(crate) fn submit(&mut self) -> Result<(), RingError> {
        self.receive_ready()?;
        self.flush()
    }

    /// Submits what is queued and waits for a completion, at most `timeout_ns`.
    ///
    /// # Errors
    /// [`RingError::Enter`]; a timeout or a signal is none.
    pub(crate) fn wait(&mut self, timeout_ns: u64) -> Result<(), RingError> {
        self.receive_ready()?;
        let timeout = Timespec::new()
            .sec(timeout_ns / NANOS_PER_SECOND)
            .nsec((timeout_ns % NANOS_PER_SECOND) as u32);
        let entered = if self.timed_wait {
            let arguments = SubmitArgs::new().timespec(&timeout);
            self.ring.submitter().submit_with_args(1, &arguments)
        } else {
            // It ends with the time or with the next completion. The kernel copies the time when it
            // takes the entry, which need not be at once.
            *self.timeout = timeout;
            let entry = opcode::Timeout::new(&raw const *self.timeout).count(1).build();
            self.push(entry.user_data(KIND_TIMEOUT << KIND_SHIFT))?;
            self.ring.submit_and_wait(1)
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(RingError::Enter(error)),
        }
    }

    /// Moves every completion that is ready to the end of `into`.
    ///
    /// # Errors
    /// [`RingError::Enter`], while what must go on goes on.
    pub(crate) fn reap(&mut self, into: &mut Vec<Completion>) -> Result<(), RingError> {
        let mut again = Again::default();
        for entry in self.ring.completion() {
            let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            let socket = unpack(data);
            match (data >> KIND_SHIFT, &mut self.receive) {
                (KIND_RECEIVE, Receive::Armed(offered)) => match cqueue::buffer_select(flags) {
                    Some(buffer) if result > 0 => {
                        let chunk = self.memory.chunk(buffer, result as u32);
                        let more = cqueue::more(flags);
                        into.push(Completion::Received { socket, chunk, more });
                    }
                    chosen => {
                        if let Some(buffer) = chosen {
                            offered.give_back(&self.memory, buffer);
                        }
                        into.push(Completion::ReceiveEnded { socket, result });
                    }
                },
                (KIND_POLL, Receive::Polled(picked)) => match result {
                    0.. => picked.ready(socket),
                    _ => into.push(Completion::ReceiveEnded { socket, result }),
                },
                (KIND_PICKED, Receive::Polled(picked)) => {
                    let buffer = (data & INDEX_MASK) as u16;
                    let socket = picked.reader(buffer);
                    if result > 0 {
                        let chunk = self.memory.chunk(buffer, result as u32);
                        into.push(Completion::Received { socket, chunk, more: false });
                        continue;
                    }
                    picked.give_back(buffer);
                    if result != -libc::EAGAIN {
                        into.push(Completion::ReceiveEnded { socket, result });
                    } else if picked.is_wanted(socket) {
                        again.polls.push(socket);
                    }
                }
                (KIND_SEND, _) => {
                    let index = (data & INDEX_MASK) as usize;
                    let Some(sending) = self.sends.get_mut(index) else { continue };
                    sending.sent += result.max(0) as usize;
                    if result > 0 && sending.sent < sending.buffer.len() {
                        again.sends.push(index);
                        continue;
                    }
                    let Sending { socket, buffer, sent } = self.sends.remove(index);
                    let result = if result < 0 { result } else { sent as i32 };
                    into.push(Completion::Sent { socket, result, buffer });
                }
                (KIND_CLOSE, _) => into.push(Completion::Closed { socket }),
                (KIND_WAKE, _) => {
                    again.watch |= !cqueue::more(flags);
                    into.push(Completion::Woken);
                }
                _ => {}
            }
        }
        if let Receive::Armed(offered) = &self.receive {
            offered.publish();
        }
        self.go_on(again)
    }

    /// A chunk's bytes.
    pub(crate) fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        self.memory.bytes(chunk)
    }

    /// Lets the kernel fill the chunk's buffer again.
    pub(crate) fn give_back(&mut self, chunk: Chunk) {
        let buffer = self.memory.buffer_of(chunk);
        match &mut self.receive {
            Receive::Armed(offered) => {
                offered.give_back(&self.memory, buffer);
                offered.publish();
            }
            Receive::Polled(picked) => picked.give_back(buffer),
        }
    }

    /// What an entry says of the socket in a slot.
    fn file(&self, slot: u32) -> (RawFd, squeue::Flags) {
        match &self.files {
            Files::Direct => (slot as RawFd, squeue::Flags::FIXED_FILE),
            Files::Descriptors(descriptors) => {
                let file = descriptors[slot as usize].as_ref();
                (file.map_or(-1, AsRawFd::as_raw_fd), squeue::Flags::empty())
            }
        }
    }

    /// Asks for what a poll has seen, into buffers that are free.
    fn receive_ready(&mut self) -> Result<(), RingError> {
        while let Receive::Polled(picked) = &mut self.receive
            && let Some((socket, buffer, bytes)) = picked.next()
        {
            let room = self.memory.buffer_bytes();
            let bytes = if bytes == 0 { room } else { bytes.min(room) };
            let (file, flags) = self.file(socket.slot);
            // It must not wait: it would keep its buffer meanwhile.
            let entry = opcode::Recv::new(Fd(file), self.memory.address(buffer), bytes)
                .flags(libc::MSG_DONTWAIT)
                .build()
                .flags(flags);
            self.push(entry.user_data(KIND_PICKED << KIND_SHIFT | u64::from(buffer)))?;
        }
        Ok(())
    }

    fn go_on(&mut self, again: Again) -> Result<(), RingError> {
        for socket in again.polls {
            self.poll(socket)?;
        }
        for index in again.sends {
            self.push_send(index)?;
        }
        if again.watch {
            self.push_watch()?;
        }
        Ok(())
    }

    fn poll(&mut self, socket: SocketId) -> Result<(), RingError> {
        let (file, flags) = self.file(socket.slot);
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let entry = opcode::PollAdd::new(Fd(file), events).build();
        self.push(entry.flags(flags).user_data(pack(KIND_POLL, socket)))
    }

    fn push_send(&mut self, index: usize) -> Result<(), RingError> {
        let Sending { socket, buffer, sent } = &self.sends[index];
        let rest = &buffer[*sent..];
        let (file, flags) = self.file(socket.slot);
        let entry = opcode::Send::new(Fd(file), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(flags);
        self.push(entry.user_data(KIND_SEND << KIND_SHIFT | index as u64))
    }

    fn push_watch(&mut self) -> Result<(), RingError> {
        // Multishot polls are of 5.13.
        let multi = matches!(self.receive, Receive::Armed(_));
        let entry = opcode::PollAdd::new(Fd(self.watched), libc::POLLIN as u32).multi(multi);
        self.push(entry.build().user_data(KIND_WAKE << KIND_SHIFT))
    }

    fn push(&mut self, entry: squeue::Entry) -> Result<(), RingError> {
        loop {
            // SAFETY: sends point into `sends`, receives select registered buffers or have one
            // that `picked` gave to them alone, a timeout's time lives as long as the ring, the
            // others carry no memory.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.flush()?;
        }
    }

    fn flush(&self) -> Result<(), RingError> {
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(RingError::Enter(error)),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may write to receive buffers and read send buffers until every operation has
        // ended. Entries never submitted point to nothing the kernel has seen.
        let timeout = Timespec::new().sec(CANCEL_TIMEOUT_SECONDS);
        let cancel = |ring: &IoUring| {
            ring.submitter().register_sync_cancel(Some(timeout), CancelBuilder::any())
        };
        let settled = match self.can_cancel_all.then(|| cancel(&self.ring)) {
            Some(Ok(())) => true,
            // Nothing to cancel.
            Some(Err(error)) => error.raw_os_error() == Some(libc::ENOENT),
            None => false,
        };
        if !settled {
            // Rather lose the memory than free what the kernel still uses.
            std::mem::forget(std::mem::take(&mut self.sends));
            self.memory.leaked = true;
            if let Receive::Armed(offered) = &mut self.receive {
                offered.leaked = true;
            }
        }
    }
}

/// What has to be asked for again once the completions are no longer borrowed.
#[derive(Default)]
struct Again {
    polls: Vec<SocketId>,
    /// Indices in [`Ring::sends`].
    sends: Vec<usize>,
    watch: bool,
}

fn build(entries: u32, deferred: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(entries * CQ_FACTOR);
    if deferred {
        builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
    }
    builder.build(entries)
}

fn offer(ring: &IoUring, memory: &Memory) -> Result<Offered, RingError> {
    let mut offered = Offered::new(memory)?;
    let (address, count) = offered.registration();
    // SAFETY: the mapping holds `count` entries, is page-aligned, and outlives the ring: the field
    // order of `Ring` and its `drop` see to it.
    unsafe { ring.submitter().register_buf_ring_with_flags(address, count, BUFFER_GROUP, 0) }
        .map_err(|error| RingError::Setup { what: "a ring of receive buffers", error })?;
    offered.fill(memory);
    Ok(offered)
}

fn is_transient(error: &io::Error) -> bool {
    // ETIME: the timeout. EINTR: a signal. EBUSY, EAGAIN: completions wait to be reaped first.
    let transient = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
    error.raw_os_error().is_some_and(|code| transient.contains(&code))
}

fn pack(kind: u64, socket: SocketId) -> u64 {
    kind << KIND_SHIFT
        | u64::from(socket.generation & GENERATION_MASK) << GENERATION_SHIFT
        | u64::from(socket.slot)
}

fn unpack(data: u64) -> SocketId {
    SocketId {
        slot: (data & INDEX_MASK) as u32,
        generation: (data >> GENERATION_SHIFT) as u32 & GENERATION_MASK,
    }
}

/// Completions that may wait, for each entry.
const CQ_FACTOR: u32 = 4;
const BUFFER_GROUP: u16 = 0;
const CANCEL_TIMEOUT_SECONDS: u64 = 2;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

const KIND_SHIFT: u32 = 56;
const GENERATION_SHIFT: u32 = 32;
const GENERATION_MASK: u32 = 0xFF_FFFF;
const INDEX_MASK: u64 = 0xFFFF_FFFF;
const KIND_RECEIVE: u64 = 1;
const KIND_SEND: u64 = 2;
const KIND_CLOSE: u64 = 3;
const KIND_CANCEL: u64 = 4;
const KIND_WAKE: u64 = 5;
/// A poll before a receive.
const KIND_POLL: u64 = 6;
/// A receive into the buffer that is named in place of a socket.
const KIND_PICKED: u64 = 7;
const KIND_TIMEOUT: u64 = 8;
