//! The hot path: a slice of visits to subscribers, one SEND each, as one batch.
//!
//! Knows: whose turn it is, and what became of each send. Must not know: what is sent.
//!
//! Nothing here allocates, locks or asks the kernel per message: a slice is one `io_uring_enter` for
//! up to [`SENDS_PER_SLICE`] subscribers, however many messages each is sent.

use arrayvec::ArrayVec;
use uringcast_ring::{Io, Send, SendOutcome, error::RingError};

use super::{Shard, count};
use crate::ids::LaneId;

/// Sends in one slice at most: between slices everything else has its turn.
pub(super) const SENDS_PER_SLICE: usize = 256;
/// Fewer are hardly worth a system call.
const SENDS_PER_SLICE_MIN: usize = 32;
/// What a small send takes on a quiet machine, and what it is taken for until it was measured.
const SEND_NS: u64 = 2_500;
/// Where sends take longer, a slice has fewer of them, so that it takes no longer than this.
const SLICE_NS: u64 = 640_000;
/// What is measured goes up to here.
const SEND_NS_FOUND_MAX: u64 = 25_000;
/// A send to loopback takes up to 5 µs on a machine that is not loaded; more than five times that is no
/// send, but something that should not be.
const SEND_NS_ALLOWED: std::ops::RangeInclusive<u64> = 5_000..=25_000;
/// Larger ones take longer by what they copy, and those that grow so large are behind.
const SMALL_SEND_BYTES_MAX: usize = 4 << 10;
/// Bytes in one slice at most.
const BYTES_PER_SLICE: usize = 1 << 20;

/// What a send takes here.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendCost {
    /// The kernel's part alone, of sends of any size.
    send_ns: u64,
    /// Of small ones, as far as a full slice in a busy tick tells: the kernel's part, and what else has
    /// its turn between slices.
    turn_ns: u64,
    /// Sends of the last slice, if it was such.
    told: usize,
}

impl Default for SendCost {
    fn default() -> Self {
        Self { send_ns: SEND_NS, turn_ns: SEND_NS, told: 0 }
    }
}

impl SendCost {
    /// So many sends went out, and took so long.
    pub(super) fn sent(&mut self, sends: usize, took_ns: u64) {
        if sends >= SENDS_PER_SLICE_MIN {
            self.send_ns = mean(self.send_ns, took_ns / sends as u64);
        }
    }

    /// A slice of so many sends went out, of `sends_max` that it could have had.
    fn slice(&mut self, sends: usize, sends_max: usize, bytes: usize) {
        let tells = sends == sends_max && bytes <= sends * SMALL_SEND_BYTES_MAX;
        self.told = if tells { sends } else { 0 };
    }

    /// Sends that fit into a slice's time.
    pub(super) fn sends_per_slice(self) -> usize {
        let sends = (SLICE_NS / self.send_ns) as usize;
        sends.clamp(SENDS_PER_SLICE_MIN, SENDS_PER_SLICE)
    }

    /// The next tick begins so long after the one before, which did not sleep if it was `busy`.
    pub(super) fn tick(&mut self, since_ns: u64, busy: bool) {
        let sends = std::mem::take(&mut self.told);
        if sends > 0 && busy {
            self.turn_ns = mean(self.turn_ns, since_ns / sends as u64);
        }
    }

    /// What a rotation may take for each connection: two sends, since lanes of few and of many share
    /// them, and as much as one for what delays a core now and then.
    fn allowed_ns(self) -> u64 {
        3 * self.turn_ns.clamp(*SEND_NS_ALLOWED.start(), *SEND_NS_ALLOWED.end())
    }
}

/// What is taken for a send's time, one more having been found.
fn mean(before_ns: u64, found_ns: u64) -> u64 {
    (before_ns * 15 + found_ns.clamp(SEND_NS, SEND_NS_FOUND_MAX)) / 16
}

/// A visit that is on its way.
#[derive(Clone, Copy)]
struct Visited {
    lane: LaneId,
    index: u32,
    from: u64,
    bytes: u32,
}

impl<I: Io> Shard<I> {
    /// One slice of the lanes' rotation.
    pub(super) fn send_slice(&mut self) -> Result<(), RingError> {
        if !self.topics.has_pending() {
            return Ok(());
        }
        let mut lanes = std::mem::take(&mut self.scratch.lanes);
        let sends_max = self.send_cost.sends_per_slice();
        self.topics.slice(sends_max, &mut lanes);
        let mut sends: ArrayVec<Send<'_>, SENDS_PER_SLICE> = ArrayVec::new();
        let mut visits: ArrayVec<Visited, SENDS_PER_SLICE> = ArrayVec::new();
        let mut steps: ArrayVec<u32, SENDS_PER_SLICE> = ArrayVec::new();
        let mut bytes_left = BYTES_PER_SLICE;
        for &lane in &lanes {
            if sends.len() == sends_max || bytes_left == 0 {
                break;
            }
            steps.push(self.topics.lane(lane).turns(|visit| {
                let bytes = visit.bytes.len();
                sends.push(Send { slot: uringcast_ring::Slot(visit.address), bytes: visit.bytes });
                visits.push(Visited {
                    lane,
                    index: visit.index,
                    from: visit.from,
                    bytes: bytes as u32,
                });
                bytes_left = bytes_left.saturating_sub(bytes);
                sends.len() < sends_max && bytes_left > 0
            }));
        }
        self.io.send(&sends, &mut self.scratch.troubles)?;
        drop(sends);
        self.send_cost.sent(visits.len(), self.io.last_send_ns());
        self.send_cost.slice(visits.len(), sends_max, BYTES_PER_SLICE - bytes_left);
        self.settle_visits(&visits);
        self.finish_slice(&lanes, &steps);
        self.scratch.lanes = lanes;
        Ok(())
    }

    /// Moves the cursors by what was sent, and counts.
    fn settle_visits(&mut self, visits: &[Visited]) {
        let troubles = std::mem::take(&mut self.scratch.troubles);
        let mut troubled = troubles.iter().peekable();
        let mut dead: ArrayVec<u32, SENDS_PER_SLICE> = ArrayVec::new();
        let (mut sent_bytes, mut deliveries) = (0, 0);
        // Most visits of a slice are to the same bytes.
        let mut last = (LaneId(u32::MAX), 0, 0, 0);
        for (place, visit) in visits.iter().enumerate() {
            let outcome = troubled.next_if(|t| t.index == place as u32).map(|t| t.outcome);
            let sent = match outcome {
                None => visit.bytes,
                Some(SendOutcome::Short(bytes)) => bytes,
                Some(SendOutcome::Full | SendOutcome::Dead(_)) => 0,
            };
            let to = visit.from + u64::from(sent);
            let (lane, memory) = self.topics.lane_mut(visit.lane);
            if last.0 != visit.lane || last.1 != visit.from || last.2 != to {
                last = (visit.lane, visit.from, to, lane.log.messages_between(visit.from, to));
            }
            deliveries += last.3;
            sent_bytes += u64::from(sent);
            if sent > 0 {
                lane.advance(visit.index, to, memory);
            }
            if let Some(outcome) = outcome {
                let connection = lane.subscribers[visit.index as usize].connection;
                if let SendOutcome::Dead(_) = outcome {
                    count!(self.sends_dead);
                    dead.push(connection);
                } else if let Some(id) = self.connections.id_at(connection) {
                    self.block(id, outcome);
                }
            }
        }
        count!(self.deliveries, deliveries);
        count!(self.sent_bytes, sent_bytes);
        count!(self.sends, visits.len() as u64);
        self.scratch.troubles = troubles;
        // Only now: whoever leaves a lane moves another's index.
        for connection in dead {
            if let Some(id) = self.connections.id_at(connection) {
                self.lost(id);
            }
        }
    }

    /// Whether rounds were completed that [`Self::record_rounds`] has not counted.
    pub fn has_rounds(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// Counts the rounds that the last tick completed. `now_ns` is after its sends: the tick's own time
    /// is from before them, and a round that fits into one tick would seem to take none.
    pub fn record_rounds(&mut self, now_ns: u64) {
        let since_ns = now_ns.saturating_sub(self.now.ns);
        let late_ns = self.late_ns();
        let counters = &self.shared.counters[self.index];
        for round in self.rounds.drain(..) {
            let rotation_ns = round.rotation_ns + since_ns;
            counters.rotation.record_ns(rotation_ns);
            if let Some(oldest_ns) = round.oldest_ns {
                counters.publish_to_last_send.record_ns(oldest_ns + since_ns);
            }
            if rotation_ns > late_ns {
                counters.overload_rotations.add(1);
            }
        }
    }

    /// A rotation that takes longer is overload. One over everybody takes as long as it takes, and where
    /// that is more than the bound, it says nothing by itself.
    fn late_ns(&self) -> u64 {
        let bound_ns = u64::try_from(self.settings.overload_rotation.as_nanos());
        let everybody_ns = self.connections.len() as u64 * self.send_cost.allowed_ns();
        bound_ns.unwrap_or(u64::MAX).max(everybody_ns)
    }

    fn finish_slice(&mut self, lanes: &[LaneId], steps: &[u32]) {
        let late_ns = self.late_ns();
        for (&id, &steps) in lanes.iter().zip(steps) {
            if self.topics.lane_if(id).is_none() {
                continue;
            }
            let (lane, _) = self.topics.lane_mut(id);
            let started_ns = lane.round_started_ns();
            if let Some(round) = lane.stepped(steps, self.now.ns) {
                self.rounds.push(round);
            }
            if started_ns > 0 && self.now.ns.saturating_sub(started_ns) > late_ns {
                lane.late_until_ns = self.overload.lane_is_late(self.now.ns);
            }
            self.topics.enqueue(id, self.now.ns);
        }
        for &id in lanes.iter().skip(steps.len()).rev() {
            self.topics.requeue_front(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_slices_of_small_sends_in_busy_ticks_tell_what_a_turn_takes() {
        let mut cost = SendCost::default();
        let (all, before) = (SENDS_PER_SLICE, cost.allowed_ns());
        assert_eq!(before, 15_000);
        let slow_ns = 12_000 * all as u64;
        cost.tick(slow_ns, true);
        cost.slice(all - 1, all, 1_000);
        cost.tick(slow_ns, true);
        cost.slice(all, all, all * SMALL_SEND_BYTES_MAX + 1);
        cost.tick(slow_ns, true);
        cost.slice(all, all, 1_000);
        cost.tick(slow_ns, false);
        assert_eq!(cost.allowed_ns(), before);
        for _ in 0..200 {
            cost.slice(all, all, 1_000);
            cost.tick(slow_ns, true);
        }
        assert!((35_000..=36_000).contains(&cost.allowed_ns()), "{cost:?}");
        assert_eq!(cost.sends_per_slice(), all, "a turn is long because of what is no send");
        for _ in 0..200 {
            cost.slice(all, all, 1_000);
            cost.tick(u64::MAX, true);
        }
        assert!(cost.allowed_ns() <= 3 * SEND_NS_ALLOWED.end());
    }

    /// A slice of 256 sends of 20 µs was 5 ms for all others.
    #[test]
    fn a_slice_has_as_many_sends_as_fit_into_its_time() {
        let mut cost = SendCost::default();
        assert_eq!(cost.sends_per_slice(), SENDS_PER_SLICE);
        let mut times = |each_ns: u64| {
            for _ in 0..200 {
                let sends = cost.sends_per_slice();
                cost.sent(sends, each_ns.saturating_mul(sends as u64));
            }
            cost.sends_per_slice()
        };
        assert_eq!(times(2_000), SENDS_PER_SLICE);
        let some = times(10_000);
        assert!((64..=65).contains(&some), "{some}: as many as take 640 µs");
        assert_eq!(times(u64::MAX), SENDS_PER_SLICE_MIN);
        assert_eq!(times(1_000), SENDS_PER_SLICE, "and again as many once they are fast");
        cost.sent(SENDS_PER_SLICE_MIN - 1, u64::MAX);
        assert_eq!(cost.sends_per_slice(), SENDS_PER_SLICE, "a few say nothing");
    }
}
