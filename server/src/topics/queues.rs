//! Which lanes have something to send, and when: at once, or at the time their batch is due.
//!
//! Knows: lanes of few and of many subscribers, batches' deadlines, what an append leaves to be done.
//! Must not know: topics, entries, sockets.

use std::collections::VecDeque;

use uringcast_ring::pool::PoolFull;

use crate::{
    ids::LaneId,
    publication::Body,
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
    /// Those with blocked subscribers whose lag may be too old in time.
    pub(super) ages: Deadlines<LaneId>,
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
        self.queue_of(lane).push_back(id);
    }

    /// Where a lane waits.
    pub(super) fn queue_of(&mut self, lane: &Lane) -> &mut VecDeque<LaneId> {
        if lane.subscribers.len() > FEW_SUBSCRIBERS_MAX { &mut self.many } else { &mut self.few }
    }

    /// A lane's marks are looked at when the first of them is too old. Those that stay then are looked
    /// at again with the next ones, or after as long a time.
    pub(super) fn watch_ages(&mut self, id: LaneId, lane: &mut Lane, now_ns: u64) {
        let Some(due_ns) = lane.age_due_ns(now_ns) else { return };
        if (1..=due_ns).contains(&lane.ages_due_ns) {
            return;
        }
        lane.ages_due_ns = due_ns;
        self.ages.set(due_ns, id);
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
                if lane.settled != Some(pace.rule) {
                    self.settle_terms(id, lane, pace, now_ns);
                }
                // Nobody is swept: nobody waits either.
                if lane.sweeping > 0 {
                    if pace.conflates {
                        lane.away.add(pace.rule, 1);
                    }
                    if !lane.awaiting.is_empty() && !std::mem::replace(&mut lane.awaited, true) {
                        self.appended.awaited.push(id);
                    }
                }
                if !lane.queued {
                    self.lines.add(id, lane, now_ns);
                }
                if !lane.lag_marks.is_empty() && !lane.judged && lane.worst_lag().is_some() {
                    lane.judged = true;
                    self.appended.lagging.push(id);
                }
            }
            Ok(false) => {}
            Err(_) => self.appended.failed.push(id),
        }
    }

    /// The terms of a rule, of which the last publication was none.
    #[cold]
    fn settle_terms(&mut self, id: LaneId, lane: &mut Lane, pace: &RulePace, now_ns: u64) {
        lane.settled = Some(pace.rule);
        lane.lag.lower(pace.lag);
        lane.only_values &= pace.is_value;
        lane.keeps |= pace.keeps || lane.format.body == Body::Raw && !pace.is_value;
        lane.batch.every_ns = lane.batch.every_ns.min(pace.batch_ns);
        if !lane.lag_marks.is_empty() {
            self.lines.watch_ages(id, lane, now_ns);
        }
    }
}
