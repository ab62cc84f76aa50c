//! The only reader of clocks.
//!
//! Knows: CLOCK_MONOTONIC and a thread's CPU clock, in nanoseconds. Must not know: who asks.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// CLOCK_MONOTONIC, ns: the same for all processes of the host, so stamps may cross them.
#[inline]
pub(crate) fn now_ns() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// CPU time of the calling thread, ns.
pub(crate) fn thread_cpu_ns() -> u64 {
    nanos(clock_gettime(ClockId::ThreadCPUTime))
}

/// Wall-clock time, seconds since the Unix epoch.
pub(crate) fn unix_seconds() -> u64 {
    nanos(clock_gettime(ClockId::Realtime)) / NANOS_PER_SECOND
}

#[inline]
fn nanos(time: Timespec) -> u64 {
    // None of these clocks is negative.
    time.tv_sec as u64 * NANOS_PER_SECOND + time.tv_nsec as u64
}

/// Nanoseconds in a second.
pub(crate) const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub(crate) const NANOS_PER_MILLI: u64 = 1_000_000;
