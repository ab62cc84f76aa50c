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

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::thread::{sched_getaffinity, sched_getcpu};

    use super::*;

    #[test]
    fn a_pinned_thread_stays() {
        let allowed = sched_getaffinity(None).expect("of this thread");
        let cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
        let pinned = |cpu| {
            thread::spawn(move || {
                pin_current_thread(cpu).expect("allowed");
                thread::yield_now();
                assert_eq!(sched_getcpu(), cpu);
            })
        };
        cpus.for_each(|cpu| pinned(cpu).join().expect("on its CPU"));
        let nowhere = pin_current_thread(CpuSet::MAX_CPU).expect_err("no such CPU");
        assert_eq!(nowhere.raw_os_error(), Some(libc::EINVAL));
    }
}
