//! What a process arranges with the system before rings run.
//!
//! Knows: CPU affinity, limits. Must not know: who runs where.

use std::io;

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};

/// Keeps the calling thread on one CPU, by the kernel's number of it.
///
/// # Errors
/// `EINVAL`: there is no such CPU, or the process may not use it.
pub fn pin_current_thread(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None, &cpus)?)
}

/// Raises the soft limit of open files to the hard one, which bounds a ring's direct descriptors, and
/// says what it is now (`u64::MAX`: none).
///
/// # Errors
/// What the system says.
pub fn raise_nofile_limit() -> io::Result<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}
