//! The system calls of io_uring that the `io-uring` crate does not offer as we need them.
//!
//! Knows: numbers and layouts of the kernel's interface. Must not know: what is asked for.
//!
//! `io-uring` 0.7 remembers a registered ring descriptor in one `Submitter` value only and loses it
//! with the next, so entering by it is done here.

use std::{
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use crate::error::Errno;

/// How to name the ring to `io_uring_enter`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnterFd {
    fd: RawFd,
    flags: u32,
}

impl EnterFd {
    pub(crate) fn plain(ring: &impl AsRawFd) -> Self {
        Self::new(ring.as_raw_fd(), 0)
    }

    /// Registers the ring with this thread (Linux 5.18), which saves a look-up per enter. The kernel
    /// has 16 places per thread.
    pub(crate) fn registered(ring: &impl AsRawFd) -> Result<Self, Errno> {
        let mut update = RsrcUpdate { offset: u32::MAX, resv: 0, data: ring.as_raw_fd() as u64 };
        // SAFETY: `update` is what this operation reads and writes, one of it.
        unsafe { register(ring.as_raw_fd(), REGISTER_RING_FDS, (&raw mut update).cast(), 1) }?;
        Ok(Self::new(update.offset as RawFd, ENTER_REGISTERED_RING))
    }

    fn new(fd: RawFd, flags: u32) -> Self {
        Self { fd, flags }
    }

    pub(crate) fn is_registered(self) -> bool {
        self.flags != 0
    }

    /// Undoes [`EnterFd::registered`]; until then the kernel keeps the ring.
    pub(crate) fn unregister(self, ring: &impl AsRawFd) {
        if self.is_registered() {
            let mut update = RsrcUpdate { offset: self.fd as u32, resv: 0, data: 0 };
            // SAFETY: `update` is what this operation reads, one of it. It can only fail for a place
            // that is not taken.
            let _ = unsafe {
                register(ring.as_raw_fd(), UNREGISTER_RING_FDS, (&raw mut update).cast(), 1)
            };
        }
    }

    /// `io_uring_enter`: submits, then, with `events`, runs deferred work and waits for `want`
    /// completions, at most `timeout`; after `min_wait_us`, if that is not 0, any are enough (Linux
    /// 6.12). The answer is the number submitted; an error while waiting
    /// is only told if none was.
    ///
    /// # Safety
    /// The entries in the submission queue are sound to run.
    pub(crate) unsafe fn enter(
        self,
        to_submit: u32,
        want: u32,
        events: bool,
        timeout: Option<Duration>,
        min_wait_us: u32,
    ) -> Result<u32, Errno> {
        let timespec = timeout.map(|timeout| KernelTimespec {
            seconds: timeout.as_secs().min(WAIT_SECONDS_MAX) as i64,
            nanoseconds: timeout.subsec_nanos().into(),
        });
        let mut argument =
            GeteventsArgument { sigmask: 0, sigmask_bytes: 0, min_wait_us, timespec: 0 };
        let mut flags = self.flags;
        if events {
            flags |= ENTER_GETEVENTS;
        }
        if let Some(timespec) = &timespec {
            argument.timespec = std::ptr::from_ref(timespec) as u64;
        }
        let (at, bytes) = if timespec.is_some() || min_wait_us > 0 {
            flags |= ENTER_EXT_ARG;
            (&raw const argument, size_of::<GeteventsArgument>())
        } else {
            (std::ptr::null(), 0)
        };
        // SAFETY: the argument and its timespec live through the call; the rest by the contract.
        let answer = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, self.fd, to_submit, want, flags, at, bytes)
        };
        u32::try_from(answer).map_err(|_| Errno::last())
    }
}

/// Makes `part` place `index` of the ring's table of buffers (Linux 5.13).
///
/// # Safety
/// `part` is mapped.
pub(crate) unsafe fn register_buffer(
    ring: RawFd,
    index: u32,
    part: &libc::iovec,
) -> Result<(), Errno> {
    let mut update = RsrcUpdate2 {
        offset: index,
        resv: 0,
        data: std::ptr::from_ref(part) as u64,
        tags: 0,
        count: 1,
        resv2: 0,
    };
    let bytes = size_of::<RsrcUpdate2>() as u32;
    // SAFETY: `update` is what this operation reads, of this size.
    unsafe { register(ring, REGISTER_BUFFERS_UPDATE, (&raw mut update).cast(), bytes) }
}

/// # Safety
/// `argument` and `count` are what the operation expects.
unsafe fn register(
    ring: RawFd,
    operation: u32,
    argument: *mut libc::c_void,
    count: u32,
) -> Result<(), Errno> {
    // SAFETY: by the contract.
    let answer =
        unsafe { libc::syscall(libc::SYS_io_uring_register, ring, operation, argument, count) };
    if answer < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// `struct io_uring_getevents_arg`
#[repr(C)]
struct GeteventsArgument {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timespec: u64,
}

/// `struct __kernel_timespec`
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_rsrc_update`
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// `struct io_uring_rsrc_update2`
#[repr(C)]
struct RsrcUpdate2 {
    offset: u32,
    resv: u32,
    data: u64,
    tags: u64,
    count: u32,
    resv2: u32,
}

/// A year: the kernel adds the timeout to its clock and must not overflow.
pub(crate) const WAIT_SECONDS_MAX: u64 = 365 * 86_400;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_BUFFERS_UPDATE: u32 = 16;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
