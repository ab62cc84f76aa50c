//! When: wait, reap, run, flush, again and again, on one thread.
//!
//! Knows: the order of a tick and its clock. Must not know: what a connection or topic is.

use std::sync::Arc;

use uringcast_ring::{Io, error::RingError};

use crate::{clock, shard::Shard, shared::Shared};

/// Runs a shard on the calling thread until it has ended.
///
/// # Errors
/// Only what the ring cannot go on after.
pub fn run<I: Io>(
    shard: &mut Shard<I>,
    shared: &Arc<Shared>,
    index: usize,
) -> Result<(), RingError> {
    let counters = &shared.counters[index];
    let mut completions = Vec::new();
    let mut cpu_ns = clock::thread_cpu_ns();
    let (mut measured_ns, mut to_measure) = (0, false);
    while !shard.has_ended() {
        let timeout = shard.timeout();
        shard.io_mut().wait(timeout, &mut completions)?;
        let now = clock::now();
        // A tick's length is the thread's CPU time from after one `wait` to after the next: what the
        // kernel did in there is part of it, sleeping is not. That clock is a system call, a twentieth
        // of a tick that brings one message: ticks that follow each other at once are measured as one.
        if to_measure && now.ns >= measured_ns + MEASURED_TOGETHER_NS {
            (measured_ns, to_measure) = (now.ns, false);
            let before = std::mem::replace(&mut cpu_ns, clock::thread_cpu_ns());
            counters.tick_cpu.record_ns(cpu_ns - before);
        }
        to_measure |= !completions.is_empty() || timeout.is_some_and(|timeout| timeout.is_zero());
        for completion in completions.drain(..) {
            shard.complete(completion, now);
            shard.relieve()?;
        }
        shard.tick(now)?;
        if shard.has_rounds() {
            shard.record_rounds(clock::now());
        }
    }
    Ok(())
}

/// Ticks that begin within so long of each other have their CPU time measured together. A long one is
/// never hidden by that, only made longer by so much at most.
const MEASURED_TOGETHER_NS: u64 = 100_000;
