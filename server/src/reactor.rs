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
    while !shard.has_ended() {
        let timeout = shard.timeout();
        shard.io_mut().wait(timeout, &mut completions)?;
        let now = clock::now();
        let busy = !completions.is_empty();
        for completion in completions.drain(..) {
            shard.complete(completion, now);
            shard.relieve()?;
        }
        shard.tick(now)?;
        if shard.has_rounds() {
            shard.record_rounds(clock::now());
        }
        // A tick's length is the thread's CPU time since the last one: what the kernel did for it
        // in `wait` is part of it, sleeping is not.
        if busy || timeout.is_some_and(|timeout| timeout.is_zero()) {
            let before = std::mem::replace(&mut cpu_ns, clock::thread_cpu_ns());
            counters.tick_cpu.record_ns(cpu_ns - before);
        }
    }
    Ok(())
}
