//! What can go wrong at the ring's wall, by whose fault.
//!
//! Knows: errno, and the line that fixes each refusal of the system. Must not know: connections, or
//! what the caller does about it.

use std::{fmt, io};

/// An errno, positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The errno of the last failed call of this thread.
    pub(crate) fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({})", io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

/// What the ring cannot start with, or cannot go on after.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// `EBADR`: the kernel had no memory for a completion and dropped it (Linux 5.19).
    #[error("the kernel ran out of memory and dropped completions of io_uring")]
    CompletionsLost,
    /// `EMFILE`: the table of direct descriptors is larger than the process may open files.
    #[error(
        "a table of {wanted} connections is over the limit of {limit} open files: raise it with \
         `ulimit -n {wanted}` (systemd: `LimitNOFILE={wanted}`) or ask for fewer connections"
    )]
    DescriptorLimit {
        /// Direct descriptors asked for.
        wanted: u32,
        /// `RLIMIT_NOFILE`, soft.
        limit: u64,
    },
    /// `EPERM` by `kernel.io_uring_disabled` (Linux 6.6).
    #[error(
        "io_uring is switched off: kernel.io_uring_disabled is {value}: switch it on with `sysctl \
         -w kernel.io_uring_disabled=0`{}",
        if *value == 1 { ", or run in the group of kernel.io_uring_group" } else { "" }
    )]
    DisabledBySysctl {
        /// 1: only for `CAP_SYS_ADMIN` and one group; 2: for nobody.
        value: u32,
    },
    /// A feature of Linux 5.10 is missing.
    #[error("this kernel's io_uring has no {missing}: needs Linux 5.10 or newer")]
    KernelTooOld {
        /// The first one found missing, by the kernel's name of it.
        missing: &'static str,
    },
    /// There are as many listeners as [`crate::ListenerId`] can name.
    #[error("a ring takes at most 256 listeners")]
    ListenersMax,
    /// `ENOMEM` by `RLIMIT_MEMLOCK`, which rings and registered buffers are charged to (Linux 6.14
    /// or about; and before 5.12).
    #[error(
        "no memory for {what}: RLIMIT_MEMLOCK is {limit_bytes} bytes: raise it with `ulimit -l \
         unlimited` (systemd: `LimitMEMLOCK=infinity`; docker: `--ulimit memlock=-1`)"
    )]
    MemoryLocked {
        /// What was to be made.
        what: &'static str,
        /// `RLIMIT_MEMLOCK`, soft.
        limit_bytes: u64,
    },
    /// `ENOSYS`: the kernel was built without io_uring, or is older than 5.1.
    #[error(
        "this kernel has no io_uring: needs Linux 5.10 or newer with CONFIG_IO_URING=y{}",
        if *seccomp { " (or a seccomp filter hides it: docker: `--security-opt seccomp=unconfined`)" } else { "" }
    )]
    NoIoUring {
        /// A seccomp filter is on, which could have answered as well.
        seccomp: bool,
    },
    /// An option out of its range.
    #[error("{option} = {value} is out of range: {range}")]
    OptionOutOfRange {
        /// The option's field.
        option: &'static str,
        /// What was asked for.
        value: u64,
        /// What may be.
        range: &'static str,
    },
    /// `EPERM`, neither by the sysctl nor by seccomp (a security module).
    #[error(
        "io_uring_setup is refused (EPERM), neither by kernel.io_uring_disabled nor by seccomp: \
         look for a denial of SELinux or AppArmor (`ausearch -m avc`, `dmesg`)"
    )]
    Refused,
    /// `EPERM` by a seccomp filter, as in a container.
    #[error(
        "io_uring is refused by a seccomp filter (containers refuse it by default): run with \
         `--security-opt seccomp=unconfined` (docker, podman), or with a profile that allows \
         io_uring_setup, io_uring_enter and io_uring_register; in Kubernetes \
         `seccompProfile: {{type: Unconfined}}` or a Localhost profile"
    )]
    RefusedBySeccomp,
    /// A send was reported after its batch had returned: the kernel still used its memory then.
    #[error("a send outlived its batch: this kernel does not finish MSG_DONTWAIT sends at once")]
    SendOutlivedBatch,
    /// A system call failed otherwise.
    #[error("{call}: {errno}")]
    System {
        /// Which.
        call: &'static str,
        /// How.
        errno: Errno,
    },
}

impl RingError {
    /// For `map_err`: a failed call, named.
    pub(crate) fn system(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { call, errno: Errno(error.raw_os_error().unwrap_or(libc::EIO)) }
    }
}
