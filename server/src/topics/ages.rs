//! When lanes are looked at for subscribers that have been behind for too long.
//!
//! Knows: deadlines of lanes, and since when all is in history. Must not know: connections, or what is
//! done with who is too old.

use super::Topics;
use crate::ids::{ConnectionId, LaneId};

impl Topics {
    /// From now on this subscriber's lag counts, as [`mark_lag`](super::lane::Lane::mark_lag) says.
    pub fn mark_lag(&mut self, id: LaneId, connection: ConnectionId, now_ns: u64) -> u64 {
        let lane = &mut self.lanes[id.0 as usize];
        let base = lane.mark_lag(connection, now_ns);
        self.lines.watch_ages(id, lane, now_ns);
        base
    }

    /// The next lane in which a subscriber's lag may be too old.
    pub fn next_aged(&mut self, now_ns: u64) -> Option<LaneId> {
        while let Some((due_ns, id)) = self.lines.ages.pop(now_ns) {
            if let Some(lane) = self.lanes.get_mut(id.0 as usize)
                && lane.ages_due_ns == due_ns
            {
                lane.ages_due_ns = 0;
                return Some(id);
            }
        }
        let lanes = &self.lanes;
        self.lines.ages.trim(lanes.len(), |due_ns, id| {
            lanes.get(id.0 as usize).is_some_and(|lane| lane.ages_due_ns == due_ns)
        });
        None
    }

    /// Looks at a lane's ages again in time.
    pub fn watch_ages(&mut self, id: LaneId, now_ns: u64) {
        if let Some(lane) = self.lanes.get_mut(id.0 as usize) {
            self.lines.watch_ages(id, lane, now_ns);
        }
    }

    /// Looks at a lane's ages again in the next tick.
    pub fn postpone_ages(&mut self, id: LaneId, now_ns: u64) {
        if let Some(lane) = self.lanes.get_mut(id.0 as usize) {
            lane.ages_due_ns = now_ns;
            self.lines.ages.set(now_ns, id);
        }
    }

    /// When the next lane's ages are looked at, ns.
    pub fn next_aged_ns(&self) -> Option<u64> {
        self.lines.ages.next_ns()
    }

    /// All that was published to the event and delta topics of a lane's interest when the shard had
    /// counted so many publications or more is in history; and how many topics that are.
    pub fn kept_since(&self, lane: LaneId) -> (u64, usize) {
        let interest = self.lane(lane).interest.iter();
        let streams = interest.flat_map(|member| &self.names.entry(member.entry).streams);
        let kept = streams.map(|&id| self.names.topic(id).kept_since());
        let (since, looks) = kept.fold((0, 0), |(most, looks), count| (count.max(most), looks + 1));
        // Of topics that are gone nothing is there.
        let gone = if self.lane(lane).only_values { 0 } else { self.forgotten_count + 1 };
        (since.max(gone), looks)
    }
}
