//! One io_uring with its table of direct descriptors and its shared receive buffers.
//!
//! Knows: SQEs, CQEs, the buffer ring, who owns which memory while the kernel uses it. Must not
//! know: what is sent or received, or when.
//!
//! The load generator has a ring of its own, apart from the server's: it is the measuring
//! instrument, and a fault in a shared ring would hide itself. This is the only file of the crate
//! with unsafe code. What makes it sound: memory handed to a SEND stays in `sends` until its CQE;
//! receive memory is read only through a [`Chunk`], which exists exactly while the kernel does not
//! own that buffer; dropping the ring first cancels and awaits everything in flight.
#![allow(
    unsafe_code,
    reason = "system calls with memory: the one wall between the load generator and the kernel"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, CancelBuilder, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use slab::Slab;
use thiserror::Error;

/// A direct descriptor of one ring, and which of its successive uses is meant: a late completion
/// of an earlier use carries an earlier generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketId {
    /// Index in the ring's table of files.
    pub(crate) slot: u32,
    /// Counts the uses of the slot; 24 bits.
    pub(crate) generation: u32,
}

/// A filled receive buffer, out of the kernel's hands until it is given back.
#[derive(Debug)]
pub(crate) struct Chunk {
    buffer: u16,
    bytes: u32,
    memory: NonNull<u8>,
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
    /// The descriptor's slot is free again.
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
        "setting up an io_uring ({what}): {error}; the load generator needs Linux 6.1 or newer, \
         `sysctl kernel.io_uring_disabled` 0, a container profile that allows io_uring_setup, and \
         `ulimit -l` of 64 MiB or more"
    )]
    Setup { what: &'static str, error: io::Error },
}

/// One thread's ring. Not to be moved between threads after its making (SINGLE_ISSUER).
pub(crate) struct Ring {
    /// First, so that it is dropped before the memory it uses.
    ring: IoUring,
    receive: ReceiveBuffers,
    /// INVARIANT: an entry is removed only when its CQE has been reaped.
    sends: Slab<(SocketId, Vec<u8>)>,
}

impl Ring {
    /// A ring for `slots` sockets with `buffers` receive buffers (a power of two) of
    /// `buffer_bytes` each.
    ///
    /// # Errors
    /// [`RingError::Setup`] where the kernel refuses, [`RingError::Map`] without memory.
    pub(crate) fn new(slots: u32, buffers: u16, buffer_bytes: u32) -> Result<Self, RingError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(CQ_ENTRIES)
            .build(SQ_ENTRIES)
            .map_err(|error| RingError::Setup { what: "DEFER_TASKRUN", error })?;
        ring.submitter()
            .register_files_sparse(slots)
            .map_err(|error| RingError::Setup { what: "sparse table of files", error })?;
        let mut receive = ReceiveBuffers::new(buffers, buffer_bytes)?;
        // SAFETY: the mapping holds `buffers` entries, is page-aligned, and outlives the ring: the
        // field order of `Ring` and its `drop` see to it.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                receive.entries.as_ptr() as u64,
                buffers,
                BUFFER_GROUP,
                0,
            )
        }
        .map_err(|error| RingError::Setup { what: "ring of receive buffers", error })?;
        receive.fill();
        Ok(Self { ring, receive, sends: Slab::with_capacity(1024) })
    }

    /// Puts a socket into a free slot; the process keeps no descriptor of it.
    ///
    /// # Errors
    /// [`RingError::Install`], the socket is closed then.
    pub(crate) fn install(&self, slot: u32, socket: OwnedFd) -> Result<(), RingError> {
        self.ring
            .submitter()
            .register_files_update(slot, &[socket.as_raw_fd()])
            .map(drop)
            .map_err(|error| RingError::Install { slot, error })
    }

    /// Receives until the peer ends it; every arrival is a [`Completion::Received`].
    pub(crate) fn receive(&mut self, socket: SocketId) -> Result<(), RingError> {
        let entry = opcode::RecvMulti::new(Fixed(socket.slot), BUFFER_GROUP);
        self.push(entry.build().user_data(pack(KIND_RECEIVE, socket)))
    }

    /// Receives once, at most so many bytes; 0: as many as a buffer holds.
    pub(crate) fn receive_once(&mut self, socket: SocketId, bytes: u32) -> Result<(), RingError> {
        let entry = opcode::Recv::new(Fixed(socket.slot), ptr::null_mut(), bytes)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry.user_data(pack(KIND_RECEIVE, socket)))
    }

    /// Ends an armed receive; it answers with [`Completion::ReceiveEnded`].
    pub(crate) fn receive_cancel(&mut self, socket: SocketId) -> Result<(), RingError> {
        let builder = CancelBuilder::user_data(pack(KIND_RECEIVE, socket));
        let id = SocketId { slot: 0, generation: 0 };
        self.push(opcode::AsyncCancel2::new(builder).build().user_data(pack(KIND_CANCEL, id)))
    }

    /// Sends all of `buffer`, however long the peer takes; the buffer comes back with
    /// [`Completion::Sent`]. At most one send per socket may be in flight, or bytes mix.
    pub(crate) fn send(&mut self, socket: SocketId, buffer: Vec<u8>) -> Result<(), RingError> {
        let (memory, bytes) = (buffer.as_ptr(), buffer.len() as u32);
        let index = self.sends.insert((socket, buffer));
        let entry = opcode::Send::new(Fixed(socket.slot), memory, bytes)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(KIND_SEND << KIND_SHIFT | index as u64);
        self.push(entry)
    }

    /// Frees a slot. Nothing may be armed on it.
    pub(crate) fn close(&mut self, socket: SocketId) -> Result<(), RingError> {
        let entry = opcode::Close::new(Fixed(socket.slot)).build();
        self.push(entry.user_data(pack(KIND_CLOSE, socket)))
    }

    /// Lets `event` (an eventfd) interrupt [`Self::wait`] with a [`Completion::Woken`]. It must
    /// stay open as long as the ring lives; the ring holds its own reference after submission.
    pub(crate) fn watch(&mut self, event: BorrowedFd<'_>) -> Result<(), RingError> {
        let fd = io_uring::types::Fd(event.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        self.push(entry.user_data(KIND_WAKE << KIND_SHIFT))
    }

    /// Submits what is queued and does not wait.
    ///
    /// # Errors
    /// [`RingError::Enter`].
    pub(crate) fn submit(&self) -> Result<(), RingError> {
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(RingError::Enter(error)),
        }
    }

    /// Submits what is queued and waits for a completion, at most `timeout_ns`.
    ///
    /// # Errors
    /// [`RingError::Enter`]; a timeout or a signal is none.
    pub(crate) fn wait(&self, timeout_ns: u64) -> Result<(), RingError> {
        let timeout = Timespec::new()
            .sec(timeout_ns / NANOS_PER_SECOND)
            .nsec((timeout_ns % NANOS_PER_SECOND) as u32);
        let arguments = SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => Ok(()),
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(RingError::Enter(error)),
        }
    }

    /// Moves every completion that is ready to the end of `into`.
    pub(crate) fn reap(&mut self, into: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            let socket = unpack(data);
            match data >> KIND_SHIFT {
                KIND_RECEIVE => match cqueue::buffer_select(flags) {
                    Some(buffer) if result > 0 => {
                        let chunk = self.receive.chunk(buffer, result as u32);
                        let more = cqueue::more(flags);
                        into.push(Completion::Received { socket, chunk, more });
                    }
                    chosen => {
                        if let Some(buffer) = chosen {
                            let chunk = self.receive.chunk(buffer, 0);
                            self.receive.give_back(chunk);
                        }
                        into.push(Completion::ReceiveEnded { socket, result });
                    }
                },
                KIND_SEND => {
                    let index = (data & INDEX_MASK) as usize;
                    if let Some((socket, buffer)) = self.sends.try_remove(index) {
                        into.push(Completion::Sent { socket, result, buffer });
                    }
                }
                KIND_CLOSE => into.push(Completion::Closed { socket }),
                KIND_WAKE => into.push(Completion::Woken),
                _ => {}
            }
        }
        self.receive.publish();
    }

    /// A chunk's bytes.
    pub(crate) fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        assert!(chunk.memory == self.receive.memory, "a chunk belongs to the ring that made it");
        let offset = usize::from(chunk.buffer) * self.receive.buffer_bytes as usize;
        // SAFETY: `chunk` checked the index, so the start is inside the mapping.
        let start = unsafe { self.receive.memory.as_ptr().add(offset) };
        // SAFETY: the kernel filled this many bytes of a buffer that it no longer owns: a chunk
        // can't be cloned, and giving it back ends its life.
        unsafe { std::slice::from_raw_parts(start, chunk.bytes as usize) }
    }

    /// Lets the kernel fill the chunk's buffer again.
    pub(crate) fn give_back(&mut self, chunk: Chunk) {
        assert!(chunk.memory == self.receive.memory, "a chunk belongs to the ring that made it");
        self.receive.give_back(chunk);
        self.receive.publish();
    }

    fn push(&mut self, entry: squeue::Entry) -> Result<(), RingError> {
        loop {
            // SAFETY: sends point into `sends`, receives select registered buffers, the others
            // carry no memory.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.submit()?;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may write to receive buffers and read send buffers until every operation has
        // ended. Entries never submitted point to nothing the kernel has seen.
        let timeout = Timespec::new().sec(CANCEL_TIMEOUT_SECONDS);
        let cancelled =
            self.ring.submitter().register_sync_cancel(Some(timeout), CancelBuilder::any());
        let settled = match cancelled {
            Ok(()) => true,
            // Nothing to cancel.
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        if !settled {
            // Rather lose the memory than free what the kernel still uses.
            std::mem::forget(std::mem::take(&mut self.sends));
            self.receive.leaked = true;
        }
    }
}

/// The memory that receives share: buffers, and the ring of entries by which they are offered.
struct ReceiveBuffers {
    memory: NonNull<u8>,
    entries: NonNull<BufRingEntry>,
    /// A power of two.
    buffers: u16,
    buffer_bytes: u32,
    /// Entries offered so far, modulo 2^16; the kernel sees it after `publish`.
    tail: u16,
    /// The kernel may still use the memory: do not unmap it.
    leaked: bool,
}

impl ReceiveBuffers {
    fn new(buffers: u16, buffer_bytes: u32) -> Result<Self, RingError> {
        assert!(buffers.is_power_of_two(), "the kernel masks the index");
        let memory = map(usize::from(buffers) * buffer_bytes as usize)?;
        let entries = map(usize::from(buffers) * size_of::<BufRingEntry>())?.cast();
        Ok(Self { memory, entries, buffers, buffer_bytes, tail: 0, leaked: false })
    }

    fn fill(&mut self) {
        for buffer in 0..self.buffers {
            let chunk = self.chunk(buffer, 0);
            self.give_back(chunk);
        }
        self.publish();
    }

    fn chunk(&self, buffer: u16, bytes: u32) -> Chunk {
        assert!(buffer < self.buffers && bytes <= self.buffer_bytes, "the kernel's own figures");
        Chunk { buffer, bytes, memory: self.memory }
    }

    fn give_back(&mut self, chunk: Chunk) {
        let index = usize::from(self.tail & (self.buffers - 1));
        // SAFETY: the index is below `buffers`, the length of the mapped array.
        let entry = unsafe { self.entries.as_ptr().add(index) };
        // SAFETY: entries between the kernel's head and our tail are the kernel's; this one is at
        // the tail, so it is ours until `publish`, and there are never more chunks than entries.
        let entry = unsafe { &mut *entry };
        let offset = u64::from(chunk.buffer) * u64::from(self.buffer_bytes);
        entry.set_addr(self.memory.as_ptr() as u64 + offset);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(chunk.buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: `entries` is the first entry of the mapped, zero-initialised ring.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the field is aligned, lives as long as the mapping, and is shared with the
        // kernel only, which reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        let memory_bytes = usize::from(self.buffers) * self.buffer_bytes as usize;
        let entries_bytes = usize::from(self.buffers) * size_of::<BufRingEntry>();
        // SAFETY: mapped by `new` with this length; the ring that used it is gone.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), memory_bytes) };
        // SAFETY: as above.
        let _ = unsafe { munmap(self.entries.as_ptr().cast(), entries_bytes) };
    }
}

/// Lets a bound socket share its port with others of other destinations: without it a bind to
/// port 0 takes a port of the address for itself, and 28,000 connections are the end.
///
/// # Errors
/// What setsockopt says.
pub(super) fn bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and length are those of a live integer; the descriptor is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// SIGINT and SIGTERM, held back and to be asked for, so that an interrupted run still reports.
pub(crate) struct Interrupts {
    signals: OwnedFd,
}

impl Interrupts {
    /// Holds the signals back from now on, in this thread and in those that it starts.
    ///
    /// # Errors
    /// Without a file descriptor.
    pub(crate) fn catch() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: it initialises all of the set that it is given, and can't fail.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: the set has been initialised; both signals exist.
            unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
        }
        // SAFETY: the set lives through the call; nothing is written back.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) };
        // SAFETY: as above; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else knows.
        let signals = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { signals })
    }

    /// A signal has come. Each is told once.
    pub(crate) fn is_raised(&self) -> bool {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        rustix::io::read(&self.signals, &mut record).is_ok()
    }
}

fn map(bytes: usize) -> Result<NonNull<u8>, RingError> {
    // SAFETY: a fresh anonymous mapping where the kernel likes it aliases nothing.
    let mapped = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    };
    let mapped = mapped.map_err(|errno| RingError::Map { bytes, error: errno.into() })?;
    Ok(NonNull::new(mapped.cast()).expect("mmap never answers with page 0"))
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

const SQ_ENTRIES: u32 = 4096;
const CQ_ENTRIES: u32 = 16_384;
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
