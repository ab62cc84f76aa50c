//! The memory that receives fill: equal buffers in one mapping, and how the kernel gets them.
//!
//! Knows: who owns which buffer. Must not know: sockets' data, why something is received.
//!
//! Where a receive stays armed and the kernel takes buffers by itself, they are offered in a ring that
//! both map ([`Offered`]). Elsewhere a receive is asked for when a poll has seen data, into a buffer
//! that we pick ([`Picked`]). Buffers provided by IORING_OP_PROVIDE_BUFFERS are no third way: before
//! 5.18 a receive that waits keeps the buffer that it has chosen, so 256 idle connections would have
//! them all.

use std::collections::VecDeque;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::{RingError, SocketId};

/// A filled receive buffer, out of the kernel's hands until it is given back.
#[derive(Debug)]
pub(crate) struct Chunk {
    buffer: u16,
    bytes: u32,
    memory: NonNull<u8>,
}

/// Buffers of one size, one after the other.
pub(super) struct Memory {
    start: NonNull<u8>,
    /// A power of two.
    buffers: u16,
    buffer_bytes: u32,
    /// The kernel may still use the memory: do not unmap it.
    pub(super) leaked: bool,
}

impl Memory {
    pub(super) fn new(buffers: u16, buffer_bytes: u32) -> Result<Self, RingError> {
        assert!(buffers.is_power_of_two(), "the kernel masks the index");
        let start = map(usize::from(buffers) * buffer_bytes as usize)?;
        Ok(Self { start, buffers, buffer_bytes, leaked: false })
    }

    pub(super) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Where a buffer is. To write there is the kernel's right alone.
    pub(super) fn address(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < self.buffers, "a buffer of this mapping");
        let offset = usize::from(buffer) * self.buffer_bytes as usize;
        // SAFETY: the index is below `buffers`, so the start is inside the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// To be made only of a buffer that the kernel has let go, and once for each time it does.
    pub(super) fn chunk(&self, buffer: u16, bytes: u32) -> Chunk {
        assert!(buffer < self.buffers && bytes <= self.buffer_bytes, "the kernel's own figures");
        Chunk { buffer, bytes, memory: self.start }
    }

    /// A chunk's bytes.
    pub(super) fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        assert!(chunk.memory == self.start, "a chunk belongs to the ring that made it");
        let start = self.address(chunk.buffer);
        // SAFETY: the kernel filled this many bytes of a buffer that it no longer owns: a chunk
        // can't be cloned, and giving it back ends its life.
        unsafe { std::slice::from_raw_parts(start, chunk.bytes as usize) }
    }

    /// The buffer of a chunk whose life ends here.
    pub(super) fn buffer_of(&self, chunk: Chunk) -> u16 {
        assert!(chunk.memory == self.start, "a chunk belongs to the ring that made it");
        chunk.buffer
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.leaked {
            let bytes = usize::from(self.buffers) * self.buffer_bytes as usize;
            // SAFETY: mapped by `new` with this length; the ring that used it is gone.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), bytes) };
        }
    }
}

/// The ring of entries by which buffers are offered to the kernel.
pub(super) struct Offered {
    entries: NonNull<BufRingEntry>,
    /// A power of two: as many as there are buffers.
    count: u16,
    /// Entries offered so far, modulo 2^16; the kernel sees it after `publish`.
    tail: u16,
    /// The kernel may still use the memory: do not unmap it.
    pub(super) leaked: bool,
}

impl Offered {
    /// Nothing is offered yet.
    pub(super) fn new(memory: &Memory) -> Result<Self, RingError> {
        let count = memory.buffers;
        let entries = map(usize::from(count) * size_of::<BufRingEntry>())?.cast();
        Ok(Self { entries, count, tail: 0, leaked: false })
    }

    /// For registering: the address of the entries, and how many there are.
    pub(super) fn registration(&self) -> (u64, u16) {
        (self.entries.as_ptr() as u64, self.count)
    }

    pub(super) fn fill(&mut self, memory: &Memory) {
        for buffer in 0..self.count {
            self.give_back(memory, buffer);
        }
        self.publish();
    }

    /// Offers a buffer that is in nobody's hands, from the next `publish` on.
    pub(super) fn give_back(&mut self, memory: &Memory, buffer: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: the index is below `count`, the length of the mapped array.
        let entry = unsafe { self.entries.as_ptr().add(index) };
        // SAFETY: entries between the kernel's head and our tail are the kernel's; this one is at
        // the tail, so it is ours until `publish`, and there are never more chunks than entries.
        let entry = unsafe { &mut *entry };
        entry.set_addr(memory.address(buffer) as u64);
        entry.set_len(memory.buffer_bytes);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    pub(super) fn publish(&self) {
        // SAFETY: `entries` is the first entry of the mapped, zero-initialised ring.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the field is aligned, lives as long as the mapping, and is shared with the
        // kernel only, which reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if !self.leaked {
            let bytes = usize::from(self.count) * size_of::<BufRingEntry>();
            // SAFETY: mapped by `new` with this length; the ring that used it is gone.
            let _ = unsafe { munmap(self.entries.as_ptr().cast(), bytes) };
        }
    }
}

/// Receives that wait for a poll, and the buffers that are left for them.
pub(super) struct Picked {
    /// By slot: whose receive is wanted, by generation, or [`NOBODY`]; and of how many bytes.
    wanted: Vec<(u32, u32)>,
    /// A poll has seen data; in the order of seeing.
    ready: VecDeque<SocketId>,
    /// INVARIANT: a buffer is in here, in the kernel's hands, or in a chunk.
    free: Vec<u16>,
    /// By buffer: whom the receive in the kernel is for.
    readers: Vec<SocketId>,
}

impl Picked {
    pub(super) fn new(memory: &Memory, slots: u32) -> Self {
        let nobody = SocketId { slot: 0, generation: NOBODY };
        Self {
            wanted: vec![(NOBODY, 0); slots as usize],
            ready: VecDeque::new(),
            free: (0..memory.buffers).rev().collect(),
            readers: vec![nobody; usize::from(memory.buffers)],
        }
    }

    /// A receive of at most so many bytes is wanted as soon as there is something.
    pub(super) fn want(&mut self, socket: SocketId, bytes: u32) {
        self.wanted[socket.slot as usize] = (socket.generation, bytes);
    }

    pub(super) fn is_wanted(&self, socket: SocketId) -> bool {
        self.wanted[socket.slot as usize].0 == socket.generation
    }

    /// It is no longer wanted.
    pub(super) fn forget(&mut self, socket: SocketId) {
        if self.is_wanted(socket) {
            self.wanted[socket.slot as usize] = (NOBODY, 0);
        }
    }

    /// A poll has seen something.
    pub(super) fn ready(&mut self, socket: SocketId) {
        self.ready.push_back(socket);
    }

    /// The next receive to be made: for whom, into which buffer, how many bytes at most.
    pub(super) fn next(&mut self) -> Option<(SocketId, u16, u32)> {
        while let Some(&socket) = self.ready.front() {
            if self.is_wanted(socket) {
                let buffer = self.free.pop()?;
                self.ready.pop_front();
                self.readers[usize::from(buffer)] = socket;
                return Some((socket, buffer, self.wanted[socket.slot as usize].1));
            }
            self.ready.pop_front();
        }
        None
    }

    /// Whom the receive that has ended was for.
    pub(super) fn reader(&self, buffer: u16) -> SocketId {
        self.readers[usize::from(buffer)]
    }

    pub(super) fn give_back(&mut self, buffer: u16) {
        self.free.push(buffer);
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

/// No generation: those have 24 bits.
const NOBODY: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receive_waits_for_a_buffer_and_is_void_once_forgotten() {
        let memory = Memory::new(2, 4096).expect("memory");
        let mut picked = Picked::new(&memory, 4);
        let socket = |slot| SocketId { slot, generation: 7 };
        for slot in 0..4 {
            picked.want(socket(slot), 100 + slot);
            picked.ready(socket(slot));
        }
        picked.forget(socket(1));
        // Another life of the slot, of which no poll has seen anything.
        picked.want(SocketId { slot: 2, generation: 8 }, 1);
        let (first, buffer, bytes) = picked.next().expect("a free buffer");
        assert_eq!((first, bytes, picked.reader(buffer)), (socket(0), 100, socket(0)));
        let (second, other, bytes) = picked.next().expect("another");
        assert_eq!((second, bytes), (socket(3), 103));
        assert_ne!(buffer, other);
        picked.ready(socket(0));
        assert_eq!(picked.next(), None);
        picked.give_back(other);
        assert_eq!(picked.next(), Some((socket(0), other, 100)));
        assert_eq!(picked.next(), None);
    }
}
