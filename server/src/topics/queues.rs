//! Which lanes have something to send, and when: at once, or at the time their batch is due.
//!
//! Knows: lanes of few and of many subscribers, batches' deadlines, what an append leaves to be done.
//! Must not know: topics, entries, sockets.

use std::collections::VecDeque;

use uringcast_ring::pool::PoolFull;

use crate::{
    ids::LaneId,
    topics::{
        Appended,
        lane::Lane,
        pace::{Deadlines, RulePace},
    },
};

/// Lanes with at most so many subscribers wait in the queue of the few.
const FEW_SUBSCRIBERS_MAX: usize = 32;

/// Lanes that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Those of few subscribers and those of many; they take turns.
    pub(super) few: VecDeque<LaneId>,
    pub(super) many: VecDeque<LaneId>,
    pub(super) many_next: bool,
    /// Those that wait for the time of their batch.
    pub(super) due: Deadlines<LaneId>,
}

impl Lines {
    /// A lane waits for its turn, or for the time of its batch.
    pub(super) fn add(&mut self, id: LaneId, lane: &mut Lane, now_ns: u64) {
        if lane.queued || !lane.is_pending() {
            return;
        }
        if let Some(due_ns) = lane.batch_waits(now_ns) {
            if lane.batch.due_ns != due_ns {
                lane.batch.due_ns = due_ns;
                self.due.set(due_ns, id);
            }
            return;
        }
        lane.queued = true;
        if lane.subscribers.len() > FEW_SUBSCRIBERS_MAX {
            self.many.push_back(id);
        } else {
            self.few.push_back(id);
        }
    }
}

/// What an append touches besides the lane.
pub(super) struct Queues<'t> {
    pub(super) lines: &'t mut Lines,
    pub(super) appended: &'t mut Appended,
}

impl Queues<'_> {
    /// What there is to do once a lane was given something.
    #[inline]
    pub(super) fn settle(
        &mut self,
        id: LaneId,
        lane: &mut Lane,
        appended: Result<bool, PoolFull>,
        pace: &RulePace,
        now_ns: u64,
    ) {
        match appended {
            Ok(true) => {
                lane.lag.lower(pace.lag);
                lane.only_values &= pace.is_value;
                if lane.sweeping > 0
                    && let Some(rule) = pace.conflates
                {
                    lane.away.add(rule, 1);
                }
                lane.batch.every_ns = lane.batch.every_ns.min(pace.batch_ns);
                if !lane.awaiting.is_empty() && !std::mem::replace(&mut lane.awaited, true) {
                    self.appended.awaited.push(id);
                }
                self.lines.add(id, lane, now_ns);
                if !lane.lag_marks.is_empty() && !lane.judged && lane.worst_lag().is_some() {
                    lane.judged = true;
                    self.appended.lagging.push(id);
                }
            }
            Ok(false) => {}
            Err(_) => self.appended.failed.push(id),
        }
    }
}
