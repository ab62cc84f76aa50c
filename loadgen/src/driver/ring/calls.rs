//! System calls without a safe wrapper: one socket option, and signals held back.
//!
//! Knows: setsockopt, signalfd. Must not know: rings.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

/// Lets a bound socket share its port with others of other destinations: without it a bind to
/// port 0 takes a port of the address for itself, and 28,000 connections are the end.
///
/// # Errors
/// What setsockopt says.
pub(crate) fn bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
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
