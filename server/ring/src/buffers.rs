//! Receive buffers that all connections of a ring share.
//!
//! Knows: the two ways in which the kernel is given buffers: a ring in shared memory
//! (`IORING_REGISTER_PBUF_RING`, Linux 5.19) and an entry for each run of them
//! (`IORING_OP_PROVIDE_BUFFERS`, 5.7). Must not know: who receives.

use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    rc::Rc,
    slice,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{Submitter, opcode, types::BufRingEntry};

use crate::{
    error::{Errno, RingError},
    mapping::Mapping,
    queue::Queues,
    tag::{Kind, Tag},
};

/// A filled receive buffer of at least one byte; dropping it gives it back to the kernel.
#[derive(Debug)]
pub struct Buffer {
    buffers: Rc<Buffers>,
    id: u16,
    bytes: u32,
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = self.buffers.mapping.at(self.buffers.offset(self.id));
        // SAFETY: inside the mapping, which `buffers` keeps; the kernel has written these bytes, and
        // does not touch the buffer until it is given back.
        unsafe { slice::from_raw_parts(start.as_ptr(), self.bytes as usize) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.buffers.give(self.id);
    }
}

/// The buffers' memory, and how they go back: one mapping, the ring's entries first, if it has any.
#[derive(Debug)]
pub(crate) struct Buffers {
    mapping: Mapping,
    count: u16,
    buffer_bytes: u32,
    giving: Giving,
}

#[derive(Debug)]
enum Giving {
    /// Into shared memory; the tail is where the next one goes, and wraps.
    ByMemory { tail: Cell<u16> },
    /// By entries, made of what is back when next something is received.
    ByEntries { back: RefCell<Vec<u16>> },
}

impl Buffers {
    /// Maps `count` (a power of two, at most 32,768) buffers and gives them all to the kernel as group
    /// [`GROUP`]; without a buffer ring, with the first [`Self::flush`].
    pub(crate) fn new(
        submitter: &Submitter<'_>,
        by_memory: bool,
        count: u16,
        buffer_bytes: u32,
    ) -> Result<Rc<Self>, RingError> {
        let entries_bytes = if by_memory { entries_bytes(count) } else { 0 };
        let mapping = Mapping::new(entries_bytes + usize::from(count) * buffer_bytes as usize)?;
        let giving = if by_memory {
            let at = mapping.start() as u64;
            // SAFETY: the entries are at the start of the mapping, page-aligned; who drops the `Ring`
            // unregisters them first or leaks this.
            unsafe { submitter.register_buf_ring_with_flags(at, count, GROUP, 0) }
                .map_err(|error| refused(&error))?;
            Giving::ByMemory { tail: Cell::new(0) }
        } else {
            Giving::ByEntries { back: RefCell::new(Vec::with_capacity(count.into())) }
        };
        let buffers = Rc::new(Self { mapping, count, buffer_bytes, giving });
        for id in 0..count {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// Bytes in a buffer.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes as usize
    }

    /// The buffer that a completion says the kernel has filled.
    pub(crate) fn filled(self: &Rc<Self>, id: u16, bytes: u32) -> Buffer {
        assert!(id < self.count, "the kernel has only the buffers it was given");
        assert!(bytes <= self.buffer_bytes, "the kernel fills no more than a buffer");
        Buffer { buffers: Rc::clone(self), id, bytes }
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, id: u16) {
        match &self.giving {
            Giving::ByMemory { tail } => self.give_by_memory(id, tail),
            // There are never more of them than there is room for.
            Giving::ByEntries { back } => back.borrow_mut().push(id),
        }
    }

    /// Queues the entries that give back what is back; to be called before what may receive.
    pub(crate) fn flush(&self, queues: &mut Queues) {
        let Giving::ByEntries { back } = &self.giving else { return };
        let mut back = back.borrow_mut();
        if back.is_empty() {
            return;
        }
        // Neighbours go in one entry.
        back.sort_unstable();
        for run in back.chunk_by(|one, next| *next == one + 1) {
            let (first, count) = (run[0], run.len() as u16);
            let start = self.mapping.at(self.offset(first)).as_ptr();
            let bytes = self.buffer_bytes as i32;
            let entry = opcode::ProvideBuffers::new(start, bytes, count, GROUP, first).build();
            let tag = Tag::index(Kind::Provide, u32::from(first) << 16 | u32::from(count));
            // SAFETY: the buffers are in the mapping, and nobody reads them until the kernel says
            // that it has filled one; who drops the `Ring` waits for its receives or leaks this.
            unsafe { queues.push(entry.user_data(tag.bits())) };
        }
        back.clear();
    }

    /// The kernel did not take a run (no memory): it goes again with the next.
    pub(crate) fn refused(&self, run: u32) {
        let (first, count) = ((run >> 16) as u16, run as u16);
        for id in (first..).take(usize::from(count)) {
            self.give(id);
        }
    }

    fn give_by_memory(&self, id: u16, tail: &Cell<u16>) {
        let place = tail.get();
        // INVARIANT: `count` is a power of two, so the wrapping tail stays in step.
        let at = usize::from(place & (self.count - 1)) * size_of::<BufRingEntry>();
        // SAFETY: one of the entries at the start of the mapping; the kernel does not read beyond the
        // tail, and nobody else writes.
        let entry = unsafe { self.mapping.at(at).cast::<BufRingEntry>().as_mut() };
        entry.set_addr(self.mapping.at(self.offset(id)).as_ptr() as u64);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(id);
        tail.set(place.wrapping_add(1));
        // SAFETY: the entries are this ring's.
        let shared = unsafe { BufRingEntry::tail(self.mapping.start().cast()) };
        // SAFETY: aligned to 2, inside the mapping, and we write it only here; the kernel reads it.
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        // Release: the kernel reads the entry after the tail.
        shared.store(tail.get(), Ordering::Release);
    }

    /// Where a buffer begins, bytes into the mapping.
    fn offset(&self, id: u16) -> usize {
        let entries_bytes = match self.giving {
            Giving::ByMemory { .. } => entries_bytes(self.count),
            Giving::ByEntries { .. } => 0,
        };
        entries_bytes + usize::from(id) * self.buffer_bytes as usize
    }
}

fn refused(error: &std::io::Error) -> RingError {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => crate::setup::memory_locked("the ring of receive buffers"),
        Some(libc::EINVAL) => RingError::KernelTooOld { missing: "IORING_REGISTER_PBUF_RING" },
        errno => RingError::System {
            call: "io_uring_register(PBUF_RING)",
            errno: Errno(errno.unwrap_or(libc::EIO)),
        },
    }
}

/// Bytes of the entries, up to a cache line so that the buffers are aligned.
fn entries_bytes(entries: u16) -> usize {
    (usize::from(entries) * size_of::<BufRingEntry>()).next_multiple_of(64)
}

/// The only group of buffers.
pub(crate) const GROUP: u16 = 0;
