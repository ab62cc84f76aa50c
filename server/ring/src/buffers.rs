//! Receive buffers that all connections of a ring share.
//!
//! Knows: who picks them: the kernel, from a ring of buffers in shared memory
//! (`IORING_REGISTER_PBUF_RING`, Linux 5.19), or we. Must not know: who receives.

use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    rc::Rc,
    slice,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{Submitter, types::BufRingEntry};

use crate::{
    error::{Errno, RingError},
    mapping::Mapping,
};

/// A filled receive buffer of at least one byte; dropping it gives it back.
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
        // SAFETY: inside the mapping, which `buffers` keeps; these bytes have been received, and nobody
        // touches the buffer until it is given back.
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
    picking: Picking,
}

#[derive(Debug)]
enum Picking {
    /// The kernel picks; the tail is where the next one given back goes, and wraps.
    ByKernel { tail: Cell<u16> },
    /// We do, of those that are free.
    ByUs { free: RefCell<Vec<u16>> },
}

impl Buffers {
    /// Maps `count` (a power of two, at most 32,768) buffers and gives them all to the kernel as group
    /// [`GROUP`], if it is to pick them.
    pub(crate) fn new(
        submitter: &Submitter<'_>,
        by_kernel: bool,
        count: u16,
        buffer_bytes: u32,
    ) -> Result<Rc<Self>, RingError> {
        let entries_bytes = if by_kernel { entries_bytes(count) } else { 0 };
        let mapping = Mapping::new(entries_bytes + usize::from(count) * buffer_bytes as usize)?;
        let picking = if by_kernel {
            let at = mapping.start() as u64;
            // SAFETY: the entries are at the start of the mapping, page-aligned; who drops the `Ring`
            // unregisters them first or leaks this.
            unsafe { submitter.register_buf_ring_with_flags(at, count, GROUP, 0) }
                .map_err(|error| refused(&error))?;
            Picking::ByKernel { tail: Cell::new(0) }
        } else {
            Picking::ByUs { free: RefCell::new(Vec::with_capacity(count.into())) }
        };
        let buffers = Rc::new(Self { mapping, count, buffer_bytes, picking });
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
        match &self.picking {
            Picking::ByKernel { tail } => self.give_to_kernel(id, tail),
            // There are never more of them than there is room for.
            Picking::ByUs { free } => free.borrow_mut().push(id),
        }
    }

    /// Which buffer stands at a place in the order in which the kernel takes them.
    #[cfg(feature = "experiments")]
    pub(crate) fn given_at(&self, place: u16) -> u16 {
        let at = usize::from(place & (self.count - 1)) * size_of::<BufRingEntry>();
        // SAFETY: one of the entries at the start of the mapping, which only we write.
        unsafe { self.mapping.at(at).cast::<BufRingEntry>().as_ref() }.bid()
    }

    /// Asks for huge pages under the buffers that no one has touched yet.
    #[cfg(feature = "experiments")]
    pub(crate) fn advise_huge_pages(&self) {
        self.mapping.advise_huge_pages();
    }

    /// A free buffer, if there is one, and if it is not the kernel that picks.
    pub(crate) fn take(&self) -> Option<u16> {
        match &self.picking {
            Picking::ByKernel { .. } => None,
            Picking::ByUs { free } => free.borrow_mut().pop(),
        }
    }

    /// Lets `fill` write to a buffer that was taken.
    pub(crate) fn fill<R>(&self, id: u16, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let start = self.mapping.at(self.offset(id));
        assert!(id < self.count, "only buffers that there are");
        // SAFETY: inside the mapping, whose bytes began as zeros; whoever took the buffer has it alone
        // until it is given back, and no slice of it is left over by an earlier filling.
        fill(unsafe { slice::from_raw_parts_mut(start.as_ptr(), self.buffer_bytes as usize) })
    }

    fn give_to_kernel(&self, id: u16, tail: &Cell<u16>) {
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
        let entries_bytes = match self.picking {
            Picking::ByKernel { .. } => entries_bytes(self.count),
            Picking::ByUs { .. } => 0,
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
