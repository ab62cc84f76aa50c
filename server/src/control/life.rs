//! The process's life: ready when all shards are, draining on a signal, over when all have ended.
//!
//! Knows: stages, signals, how long draining may take. Must not know: what a shard does meanwhile.

use std::{io, sync::atomic::Ordering, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};
use uringcast_ring::WakeHandle;

use crate::{
    logging::DroppedLines,
    shared::{Shared, Stage},
};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A second signal: out at once, without waiting for shards.
    Aborted,
    /// All shards told their clients and ended.
    Drained,
    /// Some shards did not end in time; they must be left behind.
    DrainTimeout,
    /// A shard ended though nobody asked it to.
    ShardFailed,
}

impl Outcome {
    /// 0 clean, 1 failed while running.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::Aborted | Self::DrainTimeout | Self::ShardFailed => 1,
        }
    }

    /// Whether the shards' threads have ended or are about to, so that they can be joined.
    pub const fn shards_ended(self) -> bool {
        matches!(self, Self::Drained)
    }
}

/// SIGTERM and SIGINT, caught from now on.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Watches until it is over.
pub(super) async fn watch(
    shared: &Shared,
    bells: &[WakeHandle],
    mut signals: Signals,
    lines_dropped: Option<DroppedLines>,
) -> Outcome {
    let mut next_look = Instant::now();
    let mut dropped = Dropped { lines: lines_dropped, told: 0, next: next_look + TELL_EVERY };
    let mut failed = false;
    // Far away until draining begins.
    let mut deadline = None;
    loop {
        tokio::select! {
            name = signals.next() => {
                if shared.stage() >= Stage::Draining {
                    warn!(signal = name, "a second signal: exiting at once, with status 1");
                    advance(shared, bells, Stage::Aborting);
                    return Outcome::Aborted;
                }
                info!(signal = name, "draining: telling every client 1001");
                advance(shared, bells, Stage::Draining);
            }
            () = sleep_until(next_look) => {
                dropped.tell();
                failed |= look(shared, bells);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let left = unset(&shared.ended);
                error!(shards = ?left, "not ended within {} s of draining", DRAIN_TIMEOUT.as_secs());
                return if failed { Outcome::ShardFailed } else { Outcome::DrainTimeout };
            }
        }
        if shared.stage() >= Stage::Draining {
            if unset(&shared.ended).is_empty() {
                return if failed { Outcome::ShardFailed } else { Outcome::Drained };
            }
            deadline.get_or_insert_with(|| Instant::now() + DRAIN_TIMEOUT);
        }
        next_look = Instant::now() + look_every(shared.stage());
    }
}

/// Somebody waits for the end of starting and of draining. Between them only a reactor that fails is there to be
/// seen, and an idle processor is not to be woken often for it: a look costs up to 80 µs there.
const fn look_every(stage: Stage) -> Duration {
    match stage {
        Stage::Starting | Stage::Draining | Stage::Aborting => Duration::from_millis(100),
        Stage::Ready => Duration::from_secs(1),
    }
}

/// Ready when all shards are. True: a shard ended unasked, and the others are now draining.
fn look(shared: &Shared, bells: &[WakeHandle]) -> bool {
    match shared.stage() {
        Stage::Starting if unset(&shared.ready).is_empty() => {
            shared.advance(Stage::Ready);
            info!(reactors = bells.len(), "ready");
        }
        Stage::Draining => return false,
        Stage::Aborting => {
            // A reactor that failed said so; the others may be asleep.
            bells.iter().for_each(WakeHandle::ring_bell);
            return false;
        }
        Stage::Starting | Stage::Ready => {}
    }
    let lost = shared.ended.iter().position(|ended| ended.load(Ordering::Acquire));
    if let Some(shard) = lost {
        error!(shard, "a shard has ended unasked: draining the others");
        advance(shared, bells, Stage::Draining);
    }
    lost.is_some()
}

fn advance(shared: &Shared, bells: &[WakeHandle], stage: Stage) {
    shared.advance(stage);
    bells.iter().for_each(WakeHandle::ring_bell);
}

/// The shards whose flag is not set.
fn unset(flags: &[std::sync::atomic::AtomicBool]) -> Vec<usize> {
    let each = flags.iter().enumerate();
    each.filter(|(_, flag)| !flag.load(Ordering::Acquire)).map(|(shard, _)| shard).collect()
}

/// Tells of dropped log lines, in the log, when there may be room again.
struct Dropped {
    lines: Option<DroppedLines>,
    told: u64,
    next: Instant,
}

impl Dropped {
    fn tell(&mut self) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + TELL_EVERY;
        let count = self.lines.as_ref().map_or(0, DroppedLines::count);
        if count > self.told {
            warn!(lines = count - self.told, "log lines were dropped: stderr is too slow");
            self.told = count;
        }
    }
}

const TELL_EVERY: Duration = Duration::from_secs(10);
/// Shards need `--close-timeout` for clients that do not answer; then they reset.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
