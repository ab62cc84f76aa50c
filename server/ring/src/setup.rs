//! Making a ring, or saying why the system refuses one.
//!
//! Knows: flags of `io_uring_setup`, sysctls, limits. Must not know: what the ring is for.

use std::{fs, io};

use io_uring::{Builder, IoUring};
use rustix::process::{Resource, getrlimit};

use crate::{
    capabilities::{Capabilities, TierChoice},
    error::{Errno, RingError},
    mapping::Mapping,
    sys::EnterFd,
};

/// Sizes of a ring. All memory is taken when the ring is made.
#[derive(Clone, Debug)]
pub struct RingOptions {
    /// Submissions per enter at most, 1 to 32,768; the kernel rounds up to a power of two. Default
    /// 1,024.
    pub sq_entries: u32,
    /// Completions kept without the kernel having to allocate, `sq_entries` to 65,536. Default
    /// 16,384.
    pub cq_entries: u32,
    /// Direct descriptors: connections that can be open, 1 to 1,048,576 (and `RLIMIT_NOFILE`). 16 B
    /// each. Default 16,384.
    pub slots: u32,
    /// Shared receive buffers, a power of two, 1 to 32,768. Default 1,024.
    pub receive_buffers: u16,
    /// Bytes in one of them, 64 to 1 MiB. Default 2,048.
    pub receive_buffer_bytes: u32,
    /// Accepts in flight per listener, 1 to 1,024. Default 64.
    pub accepts: u16,
    /// Ask for no completion of a send that took everything. `false`: a completion per send, as where
    /// the self-test fails. Default `true`.
    pub skip_success: bool,
    /// Which tier to run. Default [`TierChoice::Auto`].
    pub tier: TierChoice,
    /// What is only measured. Default: nothing of it.
    #[cfg(feature = "experiments")]
    pub experiments: crate::experiments::Experiments,
}

impl RingOptions {
    pub(crate) fn check(&self) -> Result<(), RingError> {
        let out = |option, value, range| Err(RingError::OptionOutOfRange { option, value, range });
        match *self {
            Self { sq_entries: n, .. } if !(1..=32_768).contains(&n) => {
                out("sq_entries", n.into(), "1 to 32768")
            }
            Self { cq_entries: n, sq_entries, .. } if !(sq_entries..=65_536).contains(&n) => {
                out("cq_entries", n.into(), "sq_entries to 65536")
            }
            Self { slots: n, .. } if !(1..=1 << 20).contains(&n) => {
                out("slots", n.into(), "1 to 1048576")
            }
            Self { receive_buffers: n, .. } if !n.is_power_of_two() => {
                out("receive_buffers", n.into(), "a power of two up to 32768")
            }
            Self { receive_buffer_bytes: n, .. } if !(64..=1 << 20).contains(&n) => {
                out("receive_buffer_bytes", n.into(), "64 to 1048576")
            }
            Self { accepts: n, .. } if !(1..=1024).contains(&n) => {
                out("accepts", n.into(), "1 to 1024")
            }
            _ => Ok(()),
        }
    }
}

impl Default for RingOptions {
    fn default() -> Self {
        Self {
            sq_entries: 1024,
            cq_entries: 16_384,
            slots: 16_384,
            receive_buffers: 1024,
            receive_buffer_bytes: 2048,
            accepts: 64,
            skip_success: true,
            tier: TierChoice::Auto,
            #[cfg(feature = "experiments")]
            experiments: crate::experiments::Experiments::default(),
        }
    }
}

/// The queues of a ring of this thread.
pub(crate) fn queues(
    capabilities: &Capabilities,
    sq_entries: u32,
    cq_entries: u32,
) -> Result<IoUring, RingError> {
    builder(capabilities, cq_entries).build(sq_entries).map_err(|error| refused(&error))
}

/// What is asked for of the set-up.
pub(crate) fn builder(capabilities: &Capabilities, cq_entries: u32) -> Builder {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(cq_entries);
    if capabilities.submit_all {
        builder.setup_submit_all();
    }
    if capabilities.defer_taskrun {
        builder.setup_single_issuer().setup_defer_taskrun();
    } else if capabilities.coop_taskrun {
        builder.setup_coop_taskrun();
    }
    builder
}

/// Gives the ring an empty table of `slots` descriptors, or as many as this kernel's tables hold.
/// Returns how many.
pub(crate) fn make_table(
    uring: &IoUring,
    capabilities: &Capabilities,
    slots: u32,
) -> Result<u32, RingError> {
    let make = |slots: u32| match capabilities.sparse_tables {
        true => uring.submitter().register_files_sparse(slots),
        false => uring.submitter().register_files(&vec![-1; slots as usize]),
    };
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let mut made = make(slots).map(|()| slots);
    if let Err(error) = &made
        && error.raw_os_error() == Some(libc::EMFILE)
        && slots > OLD_SLOTS_MAX
        && u64::from(slots) <= limit
    {
        made = make(OLD_SLOTS_MAX).map(|()| OLD_SLOTS_MAX);
    }
    made.map_err(|error| match error.raw_os_error() {
        Some(libc::EMFILE) => RingError::DescriptorLimit { wanted: slots, limit },
        Some(libc::ENOMEM) => memory_locked("the table of direct descriptors"),
        _ => RingError::system("io_uring_register(FILES)")(error),
    })
}

/// Whether buffers can be given back by memory: a kernel before 5.19 does not know the registration.
pub(crate) fn has_buffer_rings(uring: &IoUring) -> bool {
    let Ok(mapping) = Mapping::new(PAGE_BYTES) else { return false };
    let at = mapping.start() as u64;
    // SAFETY: the mapping is a page and outlives the registration, which ends two lines on.
    let registered = unsafe { uring.submitter().register_buf_ring_with_flags(at, 1, 0, 0) };
    registered.is_ok() && uring.submitter().unregister_buf_ring(0).is_ok()
}

/// Whether this thread can enter a ring by an index.
pub(crate) fn can_be_registered(uring: &IoUring) -> bool {
    match EnterFd::registered(uring) {
        Ok(place) => {
            place.unregister(uring);
            true
        }
        // All places of the thread are taken: the kernel knows it.
        Err(errno) => errno == Errno(libc::EBUSY),
    }
}

/// `ENOMEM`, with the limit that is most likely the cause.
pub(crate) fn memory_locked(what: &'static str) -> RingError {
    let limit_bytes = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    RingError::MemoryLocked { what, limit_bytes }
}

pub(crate) fn refused(error: &io::Error) -> RingError {
    match error.raw_os_error() {
        // Who refuses by the sysctl says EPERM, and so do the default seccomp profiles of docker (25
        // and later), containerd and podman.
        Some(libc::EPERM | libc::EACCES) => {
            let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            refused_why(sysctl.ok().as_deref(), &status())
        }
        // An unknown flag: older than 6.1 (DEFER_TASKRUN), 6.0 (SINGLE_ISSUER), 5.19 (COOP_TASKRUN),
        // 5.18 (SUBMIT_ALL), or, of those that are always asked for, 5.5 (CQSIZE).
        Some(libc::EINVAL) => RingError::KernelTooOld { missing: "IORING_SETUP_CQSIZE" },
        Some(libc::ENOMEM) => memory_locked("the ring's queues"),
        Some(libc::ENOSYS) => RingError::NoIoUring { seccomp: filtered(&status()) },
        errno => {
            RingError::System { call: "io_uring_setup", errno: Errno(errno.unwrap_or(libc::EIO)) }
        }
    }
}

/// Tells the causes of `EPERM` apart.
fn refused_why(sysctl: Option<&str>, status: &str) -> RingError {
    match sysctl.and_then(|value| value.trim().parse().ok()) {
        Some(value @ 2..) => RingError::DisabledBySysctl { value },
        // 1 lets root through; then it is something else that refuses.
        Some(1) if !rustix::process::geteuid().is_root() => {
            RingError::DisabledBySysctl { value: 1 }
        }
        _ if filtered(status) => RingError::RefusedBySeccomp,
        _ => RingError::Refused,
    }
}

fn status() -> String {
    // Filters are per thread.
    fs::read_to_string("/proc/thread-self/status").unwrap_or_default()
}

/// Whether a seccomp filter is on (`Seccomp: 2`, proc(5)).
fn filtered(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"))
        .is_some_and(|mode| mode.trim() == "2")
}

/// The most that a table of descriptors holds before Linux 5.18 or about.
const OLD_SLOTS_MAX: u32 = 32_768;
const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_told_apart() {
        let filtered = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let open = "Name:\tx\nSeccomp:\t0\n";
        let why = |sysctl, status| refused_why(sysctl, status).to_string();
        assert!(why(Some("2\n"), filtered).contains("sysctl -w kernel.io_uring_disabled=0"));
        assert!(why(Some("0\n"), filtered).contains("--security-opt seccomp=unconfined"));
        assert!(why(None, filtered).contains("--security-opt seccomp=unconfined"));
        assert!(why(Some("0\n"), open).contains("SELinux"));
    }

    /// The real thing: a filter on this thread that answers EPERM, as docker's does.
    #[test]
    fn a_seccomp_filter_is_recognised() {
        let refused = std::thread::spawn(|| {
            filter_io_uring_setup();
            queues(&Capabilities::BASE, 8, 16).map(drop)
        });
        let refused = refused.join().expect("no panic").expect_err("filtered");
        let message = refused.to_string();
        // Unless the machine refuses before the filter does.
        assert!(
            matches!(refused, RingError::RefusedBySeccomp | RingError::DisabledBySysctl { .. }),
            "{message}"
        );
    }

    fn filter_io_uring_setup() {
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let mut program = [
            // The number of the call is the first word of what a filter sees.
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            step(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                0,
                1,
                libc::SYS_io_uring_setup as u32,
            ),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: changes a flag of this thread.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        // SAFETY: the kernel copies the program, which is whole.
        let set = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn errors_of_setup_name_their_fix() {
        let say = |errno| refused(&io::Error::from_raw_os_error(errno)).to_string();
        assert!(say(libc::ENOMEM).contains("ulimit -l unlimited"), "{}", say(libc::ENOMEM));
        assert!(say(libc::ENOSYS).contains("CONFIG_IO_URING"));
        assert!(say(libc::EINVAL).contains("needs Linux 5.10 or newer"));
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let bad = |options: RingOptions| options.check().unwrap_err().to_string();
        assert!(bad(RingOptions { sq_entries: 0, ..Default::default() }).contains("sq_entries"));
        assert!(bad(RingOptions { cq_entries: 8, ..Default::default() }).contains("cq_entries"));
        assert!(bad(RingOptions { slots: 0, ..Default::default() }).contains("slots"));
        assert!(bad(RingOptions { accepts: 0, ..Default::default() }).contains("accepts"));
        let odd = RingOptions { receive_buffers: 3, ..Default::default() };
        assert!(bad(odd).contains("power of two"));
        let small = RingOptions { receive_buffer_bytes: 1, ..Default::default() };
        assert!(bad(small).contains("receive_buffer_bytes"));
    }
}
