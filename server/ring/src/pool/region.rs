//! One mapping of the pool and the table of headers beside it.
//!
//! Knows: mmap, registration. Must not know: which blocks are out.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    os::fd::{AsRawFd, OwnedFd},
    ptr::NonNull,
};

use super::{block::Header, pages::PAGE_BYTES};
use crate::{error::Errno, sys};

/// Memory for [`PAGES_PER_REGION`] pages, zeroed by the kernel, and a header for each of the smallest
/// blocks that fit.
#[derive(Debug)]
pub(super) struct Region {
    bytes: NonNull<u8>,
    headers: NonNull<Header>,
    registered: bool,
}

impl Region {
    /// `None` when the system has no memory.
    pub(super) fn map() -> Option<Self> {
        let bytes = map_bytes()?;
        // Zeroed pages that nobody touches cost nothing: a region of large blocks touches few.
        // SAFETY: the layout's size is not zero.
        let headers = unsafe { alloc_zeroed(HEADERS) }.cast::<Header>();
        let Some(headers) = NonNull::new(headers) else {
            // SAFETY: mapped above, and nobody has it.
            unsafe { unmap_bytes(bytes) };
            return None;
        };
        Some(Self { bytes, headers, registered: false })
    }

    /// Makes the region place `index` of the ring's table of registered buffers.
    pub(super) fn register(&mut self, ring: &OwnedFd, index: u32) -> Result<(), Errno> {
        let part = libc::iovec { iov_base: self.bytes.as_ptr().cast(), iov_len: REGION_BYTES };
        // SAFETY: the kernel pins the pages and holds them itself until they are unregistered, even
        // when this mapping goes first; it writes to them only for operations with this index.
        unsafe { sys::register_buffer(ring.as_raw_fd(), index, &part) }?;
        self.registered = true;
        Ok(())
    }

    /// Asks for a huge page.
    #[cfg(feature = "experiments")]
    pub(super) fn advise_huge_pages(&self) {
        // SAFETY: advice on our own mapping; what is in it stays.
        unsafe { libc::madvise(self.bytes.as_ptr().cast(), REGION_BYTES, libc::MADV_HUGEPAGE) };
    }

    pub(super) fn is_registered(&self) -> bool {
        self.registered
    }

    /// The block at `offset` bytes and its header. The header is zeroed, or as its last block left it.
    pub(super) fn block(&self, offset: usize) -> (NonNull<u8>, NonNull<Header>) {
        assert!(offset < REGION_BYTES);
        // SAFETY: inside the mapping.
        let bytes = unsafe { self.bytes.add(offset) };
        // SAFETY: the table has a header for each BLOCK_BYTES_MIN of the mapping.
        let header = unsafe { self.headers.add(offset / BLOCK_BYTES_MIN) };
        (bytes, header)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `map`; who drops a region has all its blocks back.
        unsafe { dealloc(self.headers.as_ptr().cast(), HEADERS) };
        // SAFETY: mapped in `map`, as above.
        unsafe { unmap_bytes(self.bytes) };
    }
}

// SAFETY: a region is memory without any tie to a thread.
unsafe impl Send for Region {}

#[cfg(not(miri))]
fn map_bytes() -> Option<NonNull<u8>> {
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), REGION_BYTES, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED { None } else { NonNull::new(at.cast()) }
}

/// # Safety
/// `bytes` is from [`map_bytes`] and nobody uses it any more.
#[cfg(not(miri))]
unsafe fn unmap_bytes(bytes: NonNull<u8>) {
    // SAFETY: by the contract above.
    unsafe { libc::munmap(bytes.as_ptr().cast(), REGION_BYTES) };
}

#[cfg(miri)]
fn map_bytes() -> Option<NonNull<u8>> {
    // SAFETY: the layout's size is not zero.
    NonNull::new(unsafe { alloc_zeroed(BYTES) })
}

/// # Safety
/// `bytes` is from [`map_bytes`] and nobody uses it any more.
#[cfg(miri)]
unsafe fn unmap_bytes(bytes: NonNull<u8>) {
    // SAFETY: by the contract above.
    unsafe { dealloc(bytes.as_ptr(), BYTES) };
}

/// Pages in a region.
pub(super) const PAGES_PER_REGION: usize = 32;
/// Bytes in a region: 2 MiB.
pub(super) const REGION_BYTES: usize = PAGES_PER_REGION * PAGE_BYTES;
/// The smallest block.
pub(super) const BLOCK_BYTES_MIN: usize = 512;

const HEADERS: Layout = match Layout::array::<Header>(REGION_BYTES / BLOCK_BYTES_MIN) {
    Ok(layout) => layout,
    Err(_) => panic!("4096 headers fit in memory"),
};
#[cfg(miri)]
const BYTES: Layout = match Layout::from_size_align(REGION_BYTES, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("4096 is a power of two"),
};
