//! When publishers are slowed: their receive is not armed again until what was the reason is over.
//!
//! Knows: all are slowed while logs or mail of any shard fill up with nobody to blame, and those of
//! a topic while a lane that it goes to is late. Must not know: what makes a lane late, or how
//! publications travel.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::Ordering,
};

use uringcast_ring::{Io, Operation};

use super::{OVERLOAD_NS, Shard, count};
use crate::{
    conn::{Flags, Role},
    ids::{ConnectionId, LaneId},
    late::Late,
};

/// While all publishers are slowed, the reason is looked at again after this.
const LOOK_NS: u64 = 10_000_000;

/// Topics of late lanes are marked again after this.
const KEEP_NS: u64 = OVERLOAD_NS / 4;

/// Who is slowed here, and why.
#[derive(Debug, Default)]
pub(super) struct Overload {
    /// All publishers of the process are slowed.
    pub(super) is_on: bool,
    /// For this shard's sake until then, ns.
    until_ns: u64,
    /// Some lane of this shard is late until then, ns.
    late_until_ns: u64,
    /// Publishers whose receive waits for the end of it.
    waiting: Vec<ConnectionId>,
    /// Publishers of late topics: each is in it once.
    late: VecDeque<Slowed>,
    /// Topics that were published to late lanes of this shard, by their bucket in [`Late`], and one of
    /// those lanes each. While that is late, so is the topic, also when its publishers wait.
    kept_late: BTreeMap<u16, (u64, LaneId)>,
    /// When those are looked at next, ns.
    keep_due_ns: u64,
}

#[derive(Debug)]
struct Slowed {
    /// Looked at then, ns.
    due_ns: u64,
    id: ConnectionId,
    topic_hash: u64,
}

impl Overload {
    /// Publishers that wait.
    pub(super) fn slowed(&self) -> usize {
        self.waiting.len() + self.late.len()
    }

    /// There is too much of what nobody can be blamed for.
    pub(super) fn begin(&mut self, now_ns: u64) {
        self.until_ns = now_ns + OVERLOAD_NS;
    }

    /// A lane is late. Until when it is taken to be, ns.
    pub(super) fn lane_is_late(&mut self, now_ns: u64) -> u64 {
        self.late_until_ns = now_ns + OVERLOAD_NS;
        self.late_until_ns
    }

    /// A publisher's receive waits for the end.
    pub(super) fn wait(&mut self, id: ConnectionId) {
        self.waiting.push(id);
    }
}

impl<I: Io> Shard<I> {
    /// Whether there is more to do here than time for it: what is not needed is left out.
    pub(super) fn is_pressed(&self) -> bool {
        self.overload.is_on || self.now.ns < self.overload.late_until_ns
    }

    /// When to look again.
    pub(super) fn next_overload_look_ns(&self) -> Option<u64> {
        let overload = &self.overload;
        let all = overload.is_on || !overload.waiting.is_empty();
        let lateness = (self.now.ns < overload.late_until_ns).then_some(overload.late_until_ns);
        let late = overload.late.front().map(|slowed| slowed.due_ns);
        let keep = (!overload.kept_late.is_empty()).then_some(overload.keep_due_ns);
        [all.then_some(self.now.ns + LOOK_NS), lateness, late, keep].into_iter().flatten().min()
    }

    /// Slows all publishers while any shard is overloaded, and ends what is over.
    pub(super) fn watch_overload(&mut self) {
        self.keep_late();
        self.release_late();
        let parked = self.post_parked();
        let mine = parked || self.held.is_slow() || self.now.ns < self.overload.until_ns;
        let flag = &self.shared.overloaded[self.index];
        if flag.load(Ordering::Relaxed) != mine {
            flag.store(mine, Ordering::Relaxed);
        }
        let shown = u64::from(mine || self.now.ns < self.overload.late_until_ns);
        let gauge = &self.shared.counters[self.index].overloaded;
        if gauge.value() != shown {
            gauge.set(shown);
        }
        let any = mine || self.shared.any_overloaded();
        if any == self.overload.is_on {
            return;
        }
        self.overload.is_on = any;
        if any {
            let publishers: Vec<ConnectionId> = self
                .connections
                .iter()
                .filter(|(_, c)| c.role == Role::Publisher && c.flags.has(Flags::RECEIVE_ARMED))
                .map(|(id, _)| id)
                .collect();
            for id in publishers {
                self.io.cancel(Operation::Receive, Self::token(id));
            }
        } else {
            for id in std::mem::take(&mut self.overload.waiting) {
                self.receive_again(id);
            }
        }
    }

    /// A publisher has published to a topic: if that is late, no more is received from it for now.
    /// What was received already is published.
    pub(super) fn slow_if_late(&mut self, id: ConnectionId, topic_hash: u64) {
        if !self.shared.late.is_late(topic_hash, self.now.ns) {
            return;
        }
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.role != Role::Publisher || connection.flags.set(Flags::SLOWED) {
            return;
        }
        if connection.flags.has(Flags::RECEIVE_ARMED) {
            self.io.cancel(Operation::Receive, Self::token(id));
        }
        count!(self.publishers_slowed);
        let due_ns = self.now.ns + OVERLOAD_NS;
        self.overload.late.push_back(Slowed { due_ns, id, topic_hash });
    }

    /// A topic was published to a late lane.
    pub(super) fn topic_is_late(&mut self, topic_hash: u64, lane: LaneId) {
        self.shared.late.mark(topic_hash, self.now.ns);
        let overload = &mut self.overload;
        if overload.kept_late.is_empty() {
            overload.keep_due_ns = self.now.ns + KEEP_NS;
        }
        overload.kept_late.insert(Late::bucket(topic_hash), (topic_hash, lane));
    }

    /// Marks topics again whose lanes are still late.
    fn keep_late(&mut self) {
        let now_ns = self.now.ns;
        let overload = &mut self.overload;
        if overload.kept_late.is_empty() || now_ns < overload.keep_due_ns {
            return;
        }
        overload.keep_due_ns = now_ns + KEEP_NS;
        let (topics, late) = (&self.topics, &self.shared.late);
        overload.kept_late.retain(|_, (topic_hash, lane)| {
            let is_late = topics.lane_if(*lane).is_some_and(|lane| now_ns < lane.late_until_ns);
            if is_late {
                late.mark(*topic_hash, now_ns);
            }
            is_late
        });
    }

    /// Publishers whose topic is not late any more.
    fn release_late(&mut self) {
        let now_ns = self.now.ns;
        while let Some(slowed) = self.overload.late.pop_front_if(|slowed| slowed.due_ns <= now_ns) {
            let Slowed { id, topic_hash, .. } = slowed;
            if self.connections.find(id).is_none() {
                continue;
            }
            if self.shared.late.is_late(topic_hash, now_ns) {
                self.overload.late.push_back(Slowed { due_ns: now_ns + OVERLOAD_NS, ..slowed });
                continue;
            }
            if let Some(connection) = self.connections.find_mut(id) {
                connection.flags.clear(Flags::SLOWED);
            }
            self.receive_again(id);
        }
    }

    fn receive_again(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find_mut(id) {
            connection.flags.clear(Flags::READ_PARKED);
            self.resume_reading(id);
        }
    }
}
