//! The only reading of the clocks, at the beginning of a tick and at its end; the ring reads one for how
//! long a batch of sends takes.
//!
//! Knows: the clocks. Must not know: who asks.

use rustix::time::{ClockId, clock_gettime};

/// A reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time, ns. Deadlines are in it.
    pub ns: u64,
    /// Wall-clock time, µs since 1970 UTC.
    pub utc_us: u64,
}

/// Reads both clocks.
pub fn now() -> Now {
    Now { ns: read(ClockId::Monotonic), utc_us: read(ClockId::Realtime) / 1_000 }
}

/// Monotonic time alone, ns.
pub fn monotonic_ns() -> u64 {
    read(ClockId::Monotonic)
}

/// CPU time of the calling thread, ns. A system call, where the others are none.
pub fn thread_cpu_ns() -> u64 {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
