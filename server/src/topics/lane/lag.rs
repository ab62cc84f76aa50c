//! Who of a lane's subscribers lags, and since when.
//!
//! Knows: positions and times at which sockets were full, and the bounds. Must not know: what is done
//! with who lags.

use super::Lane;
use crate::ids::ConnectionId;

/// Since when a blocked subscriber's lag counts.
#[derive(Clone, Copy, Debug)]
pub struct LagMark {
    /// Who.
    pub connection: ConnectionId,
    /// The head's position when its socket was full.
    pub base: u64,
    /// Messages appended by then.
    base_messages: u64,
    /// When that was, ns.
    at_ns: u64,
}

impl Lane {
    /// From now on this subscriber's lag counts; to be called when its socket is full and its
    /// earlier base is behind it. Returns the base.
    pub fn mark_lag(&mut self, connection: ConnectionId, now_ns: u64) -> u64 {
        let (base, base_messages) = (self.log.head(), self.log.messages());
        self.lag_marks.push_back(LagMark { connection, base, base_messages, at_ns: now_ns });
        base
    }

    /// When the next of the marks that there are is too old, ns; not at once, for the sake of those that
    /// are and stay.
    pub fn age_due_ns(&self, now_ns: u64) -> Option<u64> {
        let bound_ns = self.lag.age_ns_max;
        if bound_ns == u64::MAX || self.keeps || self.lag_marks.is_empty() {
            return None;
        }
        let next = self.lag_marks.partition_point(|mark| mark.at_ns + bound_ns <= now_ns);
        let due_ns = self.lag_marks.get(next).map_or(now_ns, |mark| mark.at_ns) + bound_ns;
        Some(if next > 0 { due_ns.max(now_ns + bound_ns / 8) } else { due_ns })
    }

    /// The marks that are too old.
    pub fn aged_marks(&self, now_ns: u64, out: &mut Vec<LagMark>) {
        out.clear();
        let bound_ns = self.lag.age_ns_max;
        if bound_ns < u64::MAX && !self.keeps {
            let aged = self.lag_marks.iter().take_while(|mark| mark.at_ns + bound_ns <= now_ns);
            out.extend(aged);
        }
    }

    /// Whether there are so many marks that most must be out of date.
    pub fn has_stale_marks(&self) -> bool {
        self.lag_marks.len() > 64 + 4 * self.subscribers.len()
    }

    /// The mark that is first to pass the bounds, if it has.
    pub fn worst_lag(&self) -> Option<LagMark> {
        self.lag_marks.front().copied().filter(|mark| {
            self.log.head() - mark.base > self.lag.bytes_max
                || self.log.messages() - mark.base_messages > self.lag.messages_max
        })
    }
}
