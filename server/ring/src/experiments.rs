//! What the kernel offers a ring and the server does without: for measuring only.
//!
//! Knows: how each is switched on. Must not know: what came of it (ARCHITECTURE.md, "Options measured").
//!
//! Compiled with the feature `experiments` alone, which the server never asks for. Everything is safe to
//! call, as everything of this crate is; but what a kernel lacks it refuses as it likes, and nothing steps
//! down: who measures says which kernel.

mod bundle;
mod gather;

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use io_uring::{IoUring, opcode, squeue, types};

use crate::{
    capabilities::Capabilities,
    error::RingError,
    io::Slot,
    ring::Ring,
    setup::{self, RingOptions},
    tag::{Kind, Tag},
};

pub use gather::{Gather, Gathered};

/// What a ring is made with beside its sizes.
#[derive(Clone, Debug, Default)]
pub struct Experiments {
    /// Multishot receives fill several buffers at once (`IORING_RECVSEND_BUNDLE`, Linux 6.10). They are
    /// told one by one all the same.
    pub bundles: bool,
    /// Huge pages under the receive buffers (`MADV_HUGEPAGE`), where they fill some.
    pub huge_pages: bool,
    /// Waits poll the network card for so long before they sleep (`IORING_REGISTER_NAPI`, Linux 6.9).
    pub napi_busy_poll: Option<Duration>,
    /// The submission queue is read in place, without an array of indices before it
    /// (`IORING_SETUP_NO_SQARRAY`, Linux 6.6).
    pub no_sqarray: bool,
}

/// What of it a ring remembers.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    pub(crate) bundles: bool,
    /// Buffers that the kernel has taken so far, which it does in their order; wraps.
    buffers_taken: u16,
}

pub(crate) fn queues(
    capabilities: &Capabilities,
    options: &RingOptions,
) -> Result<IoUring, RingError> {
    let mut builder = setup::builder(capabilities, options.cq_entries);
    if options.experiments.no_sqarray {
        builder.setup_no_sqarray();
    }
    builder.build(options.sq_entries).map_err(|error| setup::refused(&error))
}

impl Ring {
    pub(crate) fn try_out(&mut self, experiments: &Experiments) -> Result<(), RingError> {
        self.trial.bundles = experiments.bundles;
        if experiments.huge_pages {
            self.buffers.advise_huge_pages();
        }
        if let Some(busy_poll) = experiments.napi_busy_poll {
            let us = u32::try_from(busy_poll.as_micros()).unwrap_or(u32::MAX);
            let mut napi = types::Napi::new().set_busy_poll_timeout(us);
            let registered = self.queues.uring.submitter().register_napi(&mut napi);
            registered.map_err(RingError::system("io_uring_register(NAPI)"))?;
        }
        Ok(())
    }

    /// Puts a socket that the ring has not accepted into a slot, from which [`crate::Io::close`] takes
    /// it again. For rings without listeners, whose accepts choose slots themselves.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn adopt(&mut self, socket: &impl AsFd, slot: Slot) -> Result<(), RingError> {
        let descriptor = socket.as_fd().as_raw_fd();
        let updated = self.queues.uring.submitter().register_files_update(slot.0, &[descriptor]);
        updated.map(drop).map_err(RingError::system("io_uring_register(FILES_UPDATE)"))
    }

    /// One enter with so many entries that do nothing, at most as many as the queue holds.
    ///
    /// # Errors
    /// What the ring cannot go on after.
    pub fn nops(&mut self, count: u32) -> Result<(), RingError> {
        for _ in 0..count {
            let nop = opcode::Nop::new().build().flags(squeue::Flags::SKIP_SUCCESS);
            self.push(Tag::index(Kind::Ignored, 0), nop);
        }
        self.queues.submit_all(&mut self.pending)
    }
}

/// By which queue of which card the socket's last packet came; 0: none that can be polled
/// (`SO_INCOMING_NAPI_ID`).
///
/// # Errors
/// What the kernel says.
pub fn napi_id(socket: &impl AsFd) -> io::Result<u32> {
    let mut id: libc::c_uint = 0;
    let mut bytes = size_of::<libc::c_uint>() as libc::socklen_t;
    // SAFETY: the kernel writes an unsigned int and how many bytes that was.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_INCOMING_NAPI_ID,
            (&raw mut id).cast(),
            &raw mut bytes,
        )
    };
    if answer == 0 { Ok(id) } else { Err(io::Error::last_os_error()) }
}
