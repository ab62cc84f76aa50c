//! Receive buffers that all connections of a ring share.
//!
//! Knows: the provided-buffer ring (`IORING_REGISTER_PBUF_RING`, Linux 5.19). Must not know: who
//! receives.

use std::{
    cell::Cell,
    ops::Deref,
    ptr::NonNull,
    rc::Rc,
    slice,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{Submitter, types::BufRingEntry};

use crate::error::{Errno, RingError};

/// A filled receive buffer of at least one byte; dropping it gives it back to the kernel.
#[derive(Debug)]
pub struct Buffer {
    ring: Rc<BufRing>,
    id: u16,
    bytes: u32,
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = self.ring.buffer(self.id);
        // SAFETY: inside the mapping, which `ring` keeps; the kernel has written these bytes, and
        // does not touch the buffer until it is given back.
        unsafe { slice::from_raw_parts(start.as_ptr(), self.bytes as usize) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.ring.give(self.id);
    }
}

/// The ring of buffers and their memory: one mapping, entries first.
#[derive(Debug)]
pub(crate) struct BufRing {
    mapping: NonNull<u8>,
    mapping_bytes: usize,
    entries: u16,
    buffer_bytes: u32,
    /// Where the next buffer given back goes; wraps.
    tail: Cell<u16>,
}

impl BufRing {
    /// Maps `entries` (a power of two, at most 32,768) buffers and gives them all to the kernel as
    /// group [`GROUP`].
    pub(crate) fn register(
        submitter: &Submitter<'_>,
        entries: u16,
        buffer_bytes: u32,
    ) -> Result<Rc<Self>, RingError> {
        let mapping_bytes = entries_bytes(entries) + usize::from(entries) * buffer_bytes as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), mapping_bytes, protection, flags, -1, 0) };
        let mapping =
            NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED).ok_or_else(|| {
                RingError::System { call: "mmap of receive buffers", errno: Errno::last() }
            })?;
        let ring =
            Rc::new(Self { mapping, mapping_bytes, entries, buffer_bytes, tail: Cell::new(0) });
        // SAFETY: the entries are at the start of the mapping, page-aligned; who drops the `Ring`
        // unregisters them first or leaks this.
        unsafe { submitter.register_buf_ring_with_flags(at as u64, entries, GROUP, 0) }
            .map_err(|error| refused(&error))?;
        for id in 0..entries {
            ring.give(id);
        }
        Ok(ring)
    }

    /// Bytes in a buffer.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes as usize
    }

    /// The buffer that a completion says the kernel has filled.
    pub(crate) fn filled(self: &Rc<Self>, id: u16, bytes: u32) -> Buffer {
        assert!(id < self.entries, "the kernel has only the buffers it was given");
        assert!(bytes <= self.buffer_bytes, "the kernel fills no more than a buffer");
        Buffer { ring: Rc::clone(self), id, bytes }
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, id: u16) {
        let tail = self.tail.get();
        // INVARIANT: `entries` is a power of two, so the wrapping tail stays in step.
        let at = usize::from(tail & (self.entries - 1));
        // SAFETY: inside the entries at the start of the mapping.
        let mut entry = unsafe { self.mapping.cast::<BufRingEntry>().add(at) };
        // SAFETY: as above; the kernel does not read beyond the tail, and nobody else writes.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(self.buffer(id).as_ptr() as u64);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(id);
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: the entries are this ring's.
        let shared = unsafe { BufRingEntry::tail(self.mapping.as_ptr().cast()) };
        // SAFETY: aligned to 2, inside the mapping, and we write it only here; the kernel reads it.
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        // Release: the kernel reads the entry after the tail.
        shared.store(self.tail.get(), Ordering::Release);
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        let at = entries_bytes(self.entries) + usize::from(id) * self.buffer_bytes as usize;
        // SAFETY: `id` is below `entries`, so this is inside the mapping.
        unsafe { self.mapping.add(at) }
    }
}

impl Drop for BufRing {
    fn drop(&mut self) {
        // SAFETY: mapped in `register`; no buffer and no ring refer to it any more.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapping_bytes) };
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
