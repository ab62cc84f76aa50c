//! The clocks.
//!
//! Knows: how to ask the system for the time. Must not know: what is timed.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The time this thread has spent on a processor, ns. What other threads do to the machine shows in
/// it only through the caches, so it says more about code than the time on the wall.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// The time that all threads of this process have spent on processors, ns.
pub fn process_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// The time on the wall since some beginning, ns; never steps back.
pub fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

fn nanoseconds(time: Timespec) -> u64 {
    // Neither clock is ever negative.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn all_advance() {
        let (cpu_ns, all_ns, wall_ns) = (thread_cpu_ns(), process_cpu_ns(), monotonic_ns());
        for n in 0..1_000_000_u64 {
            black_box(n);
        }
        assert!(thread_cpu_ns() > cpu_ns);
        assert!(process_cpu_ns() > all_ns);
        assert!(monotonic_ns() > wall_ns);
    }
}
