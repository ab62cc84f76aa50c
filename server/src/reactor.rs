//! When: wait, reap, run, flush, again and again, on one thread.
//!
//! Knows: the order of a tick and its clock. Must not know: what a connection or topic is.

use std::sync::Arc;

use uringcast_ring::{Io, error::RingError};

use crate::{
    clock,
    counters::Counters,
    gathering::{GATHERING, Gathering, Reading},
    shard::Shard,
    shared::Shared,
};

/// Runs a shard on the calling thread until it has ended.
///
/// # Errors
/// Only what the ring cannot go on after.
pub fn run<I: Io>(
    shard: &mut Shard<I>,
    shared: &Arc<Shared>,
    index: usize,
) -> Result<(), RingError> {
    let mut completions = Vec::new();
    let mut lengths = Lengths::new();
    let mut gathering = Gathering::new(lengths.read_ns, lengths.cpu_ns);
    let (mut is_gathering, mut waits) = (false, 0);
    while !shard.has_ended() {
        let timeout = shard.timeout();
        let polls = timeout.is_some_and(|timeout| timeout.is_zero());
        if gathering.is_due(lengths.read_ns) {
            let received_bytes = shared.counters[index].received_bytes.value();
            let gathers = gathering.look(Reading { received_bytes, waits, ..lengths.reading() });
            is_gathering = shard.io_mut().set_min_wait(gathers.then_some(GATHERING));
        }
        waits += u64::from(!polls);
        if is_gathering && !polls {
            shared.counters[index].waits_gathered.add(1);
        }
        shard.io_mut().wait(timeout, &mut completions)?;
        let mut busy = polls || !completions.is_empty();
        let mut may_have_slept = !polls;
        let mut left = completions.drain(..);
        loop {
            let now = clock::now();
            for completion in left.by_ref().take(COMPLETIONS_PER_TICK) {
                shard.complete(completion, now);
                shard.relieve()?;
            }
            shard.tick(now)?;
            let end_ns = clock::monotonic_ns();
            if shard.has_rounds() {
                shard.record_rounds(end_ns);
            }
            let woken_ns = may_have_slept.then_some(now.ns);
            lengths.tick(&shared.counters[index], woken_ns, end_ns, busy);
            if left.len() == 0 || shard.has_ended() {
                break;
            }
            (busy, may_have_slept) = (true, false);
        }
    }
    Ok(())
}

/// Completions in one tick at most: what else there is to do comes between.
const COMPLETIONS_PER_TICK: usize = 256;

/// How long ticks are, on the wall and in the thread's CPU time; what the kernel does for a tick in
/// `wait` is part of it, sleeping is not.
struct Lengths {
    /// The last tick ended then.
    end_ns: u64,
    /// The CPU clock was read last then, and said so.
    read_ns: u64,
    cpu_ns: u64,
}

impl Lengths {
    fn new() -> Self {
        let now_ns = clock::monotonic_ns();
        Self { end_ns: now_ns, read_ns: now_ns, cpu_ns: clock::thread_cpu_ns() }
    }

    /// When the CPU clock was read, and what it said.
    fn reading(&self) -> Reading {
        Reading { now_ns: self.read_ns, cpu_ns: self.cpu_ns, ..Reading::default() }
    }

    /// A tick ended. `woken_ns`: it may have slept until then.
    fn tick(&mut self, counters: &Counters, woken_ns: Option<u64>, end_ns: u64, busy: bool) {
        let begun_ns = woken_ns.unwrap_or(self.end_ns);
        self.end_ns = end_ns;
        if busy {
            counters.tick_wall.record_ns(end_ns.saturating_sub(begun_ns));
        }
        // That clock is a system call. A tick takes no more CPU time than time on the wall, so no long
        // one escapes; short ones count together, and a long one with the short ones just before it.
        if end_ns.saturating_sub(self.read_ns) >= CPU_READ_NS {
            let before_ns = std::mem::replace(&mut self.cpu_ns, clock::thread_cpu_ns());
            self.read_ns = end_ns;
            // Idle ones do not count, and are not to be counted with the next that does.
            if busy {
                counters.tick_cpu.record_ns(self.cpu_ns - before_ns);
            }
        }
    }
}

/// The CPU clock is read when so long has passed since it was last.
const CPU_READ_NS: u64 = 250_000;
