//! Memory of its own pages.
//!
//! Knows: mmap(2). Must not know: what lies in it.

use std::ptr::NonNull;

use crate::error::{Errno, RingError};

/// Zeroed pages, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    at: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// At least one byte.
    pub(crate) fn new(bytes: usize) -> Result<Self, RingError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        match NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED) {
            Some(at) => Ok(Self { at, bytes }),
            None => {
                Err(RingError::System { call: "mmap of receive buffers", errno: Errno::last() })
            }
        }
    }

    /// Asks for huge pages, of which it gets as many as lie in it whole.
    #[cfg(feature = "experiments")]
    pub(crate) fn advise_huge_pages(&self) {
        // SAFETY: advice on our own mapping; what is in it stays.
        unsafe { libc::madvise(self.at.as_ptr().cast(), self.bytes, libc::MADV_HUGEPAGE) };
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.at.as_ptr()
    }

    /// The address `offset` bytes into it.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.bytes, "inside the mapping");
        // SAFETY: as asserted.
        unsafe { self.at.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; who lends it to the kernel outlives the loan.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}
