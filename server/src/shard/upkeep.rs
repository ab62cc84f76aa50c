//! What time brings: timeouts, pings, heartbeats, overload, the end of the process.
//!
//! Knows: deadlines and stages. Must not know: what connections say.

use std::sync::atomic::Ordering;

use uringcast_protocol::{opcode::CloseCode, refusal::Refusal, writer};
use uringcast_ring::Io;

use super::{Shard, close::Ending, count};
use crate::{
    conn::{Flags, Phase, Role},
    shared::Stage,
    topics::log::Boundary,
};

/// Connections of each timer that are looked at in one tick.
const DUE_PER_TICK: u32 = 256;
/// Connections told to go in one tick.
const DRAIN_SLICE: u32 = 256;
/// A drain ends after this, whoever is left.
const DRAIN_NS_MAX: u64 = 8_000_000_000;
/// Clients are told to come back after so long, spread so that they do not all come at once, ms.
const RECONNECT_MS: std::ops::Range<u64> = 500..5_000;
/// Log bytes are told to the process in steps of so many.
const LOG_BYTES_STEP: u64 = 64 << 10;

/// Everyone is told to go.
#[derive(Debug)]
pub(super) struct Drain {
    started_ns: u64,
    next: u32,
    end: u32,
}

impl Drain {
    pub(super) fn told_everyone(&self) -> bool {
        self.next >= self.end
    }
}

/// Clients are told to come back at times spread evenly: neighbours are a golden ratio apart.
fn reconnect_after_ms(index: u32) -> u64 {
    let spread = u64::from(index.wrapping_mul(0x9e37_79b9));
    let range = RECONNECT_MS.end - RECONNECT_MS.start;
    RECONNECT_MS.start + ((spread * range) >> 32)
}

impl<I: Io> Shard<I> {
    pub(super) fn upkeep(&mut self) {
        self.feed_starved();
        self.run_timers();
        self.run_paces();
        self.judge_ages();
        self.ping();
        self.give_up_compressing();
        self.tell_log_bytes();
        self.watch_overload();
        if !self.journaling.is_idle() {
            self.post_journal();
        }
        self.drain();
    }

    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        let now = self.now.ns;
        let accepts = self.accepts_stopped.contains(&true).then_some(self.accepts_look_ns);
        let drain = self.drain.as_ref().map(|drain| drain.started_ns + DRAIN_NS_MAX);
        let pings = (!self.connections.is_empty()).then(|| self.pings.next_ns());
        [
            self.handshakes.next_ns(now),
            self.closings.next_ns(now),
            self.retries.next_ns(now),
            self.lingers.next_ns(now),
            self.heartbeats.next_ns(),
            self.idles.next_ns(),
            self.next_overload_look_ns(),
            accepts,
            drain,
            pings,
            self.compressing_until_ns(),
            self.journal_retry_ns(),
            self.next_pace_ns(),
            self.topics.next_aged_ns(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Those who are due, so many of each at most: the others are due in the next tick.
    fn run_timers(&mut self) {
        let now = self.now.ns;
        for _ in 0..DUE_PER_TICK {
            let Some(id) = self.handshakes.pop(now) else { break };
            self.head_is_due(id);
        }
        for _ in 0..DUE_PER_TICK {
            let Some((id, _)) = self.idles.pop(now) else { break };
            self.head_is_due(id);
        }
        for _ in 0..DUE_PER_TICK {
            let Some(id) = self.closings.pop(now) else { break };
            self.closing_is_due(id);
        }
        for _ in 0..DUE_PER_TICK {
            let Some(id) = self.retries.pop(now) else { break };
            if self.connections.find(id).is_some_and(|c| c.phase < Phase::Ending) {
                self.unblock(id);
            }
        }
        for _ in 0..DUE_PER_TICK {
            let Some(id) = self.lingers.pop(now) else { break };
            self.linger_is_due(id);
        }
        for _ in 0..DUE_PER_TICK {
            let Some((id, every_ms)) = self.heartbeats.pop(now) else { break };
            if self.heartbeat(id) {
                self.heartbeats.start(now + u64::from(every_ms) * 1_000_000, id, every_ms);
            }
        }
        if self.accepts_stopped.contains(&true) && now >= self.accepts_look_ns {
            self.resume_accepts();
        }
    }

    /// Pings those whose turn it is, and closes those who have not answered theirs.
    fn ping(&mut self) {
        let Some(turn) = self.pings.pop(self.now.ns) else { return };
        let end = self.connections.end();
        let wait_ns = u64::try_from(self.settings.pong_timeout.as_nanos()).unwrap_or(u64::MAX);
        let ago = self.pings.turns_until(wait_ns);
        for index in self.pings.indices(turn, ago, end) {
            let Some(id) = self.connections.id_at(index) else { continue };
            let Some(connection) = self.connections.find(id) else { continue };
            // Whose answer may be there and was not received, because we do not read, is not silent.
            // Who has not room for more has not read the ping yet; see below for who judges them.
            let deaf = connection.flags.has(Flags::READ_PARKED)
                || connection.flags.has(Flags::BLOCKED)
                || connection.stops_reading();
            if connection.phase == Phase::Open && connection.flags.has(Flags::PING_OUT) && !deaf {
                self.close_with(
                    id,
                    CloseCode::POLICY_VIOLATION,
                    "no answer to a ping",
                    Ending::PingTimeout,
                );
            }
        }
        for index in self.pings.indices(turn, 0, end) {
            let Some(id) = self.connections.id_at(index) else { continue };
            // Who takes nothing can't be asked; their lag and TCP_USER_TIMEOUT judge them.
            let Some(connection) = self.connections.find_mut(id) else { continue };
            if connection.phase == Phase::Open
                && !connection.flags.has(Flags::BLOCKED)
                && !connection.has_own()
            {
                if connection.role == Role::Sse {
                    self.ping_stream(id);
                    continue;
                }
                connection.flags.set(Flags::PING_OUT);
                count!(self.pings);
                self.own(id, Boundary::Frame, |out| writer::write_ping(out, b"", None));
            }
        }
    }

    /// Keeps the process's sum of log bytes right, and the logs within their bound.
    fn tell_log_bytes(&mut self) {
        let held = self.topics.memory.held_bytes;
        let told = self.log_bytes_told;
        if held.abs_diff(told) >= LOG_BYTES_STEP || held == 0 && told != 0 {
            if held > told {
                self.shared.log_bytes.fetch_add(held - told, Ordering::Relaxed);
            } else {
                self.shared.log_bytes.fetch_sub(told - held, Ordering::Relaxed);
            }
            self.log_bytes_told = held;
        }
        if held > 0
            && self.shared.log_bytes.load(Ordering::Relaxed) > self.settings.log_bytes_max
            && !self.shed()
        {
            // Nobody is blocked: it is we who are too slow.
            self.overload.begin(self.now.ns);
        }
    }

    /// Tells everyone to go, a slice at a time, once the process is to end.
    fn drain(&mut self) {
        let stage = self.shared.stage();
        if stage < Stage::Draining || self.ended {
            return;
        }
        let (now, all) = (self.now.ns, self.connections.end());
        if self.drain.is_none() {
            self.io.stop_accepting();
            self.drain = Some(Drain { started_ns: now, next: 0, end: all });
            // Everyone is sent what was published before everyone is told to go.
            self.give_up_compressing();
            self.end_paces();
            self.give_up_compressing();
        }
        let Some(drain) = &mut self.drain else { return };
        let slice = drain.next..drain.end.min(drain.next + DRAIN_SLICE);
        drain.next = slice.end;
        let late = now >= drain.started_ns + DRAIN_NS_MAX;
        for index in slice {
            let Some(id) = self.connections.id_at(index) else { continue };
            let Some(connection) = self.connections.find(id) else { continue };
            match connection.phase {
                Phase::Handshake if connection.is_between_requests() => self.leave(id),
                Phase::Handshake => self.refuse(id, Refusal::Draining),
                Phase::Open => self.go_away(id, reconnect_after_ms(index)),
                Phase::Closing | Phase::Ending => {}
            }
        }
        let idle = self.connections.is_empty() && self.journaling.is_idle();
        if idle || late || stage == Stage::Aborting {
            self.end_journal();
            self.ended = true;
            self.shared.ended[self.index].store(true, Ordering::Release);
        }
    }
}
