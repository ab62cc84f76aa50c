//! How a subscriber that left its lane's log catches up: the newest of each topic, in turn.
//!
//! Knows: the topics of an interest in the order of their numbers, and which count of publications
//! a subscriber has last seen where. Must not know: sockets, or when a sweep goes on.
//!
//! A sweep goes round the topics in a fixed order, some bytes at a time. What it saw at a topic, it
//! saw at the count of publications at that moment; one count for the whole round would make the
//! topics at the end look seen that were not, and starve them. So each batch leaves a mark: from
//! here to there, seen at this count.

use std::collections::VecDeque;

use uringcast_protocol::topic_name::Pattern;

use crate::{
    ids::{LaneId, TopicId},
    settings::Kind,
    topics::Topics,
};

/// A batch of a sweep ends when it has so many bytes.
pub const SWEEP_BATCH_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Topics below this number, from the mark before on.
    end: u32,
    /// Were seen at this count.
    seen: u64,
}

/// Where a sweep stands.
#[derive(Debug)]
pub struct Sweep {
    /// The next topic to look at.
    at: u32,
    /// From `at` to the highest number, and from 0 to `at`.
    marks: VecDeque<Mark>,
    /// Messages the lane had appended, less those the subscriber was sent, when it left the log.
    pub left_at_messages: u64,
    /// Messages sent by sweeps so far.
    pub sent: u64,
}

/// What a batch did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepStep {
    /// There is more; go on when this is sent.
    More,
    /// With this batch nothing is left unsent: back to the log's head.
    CaughtUp,
    /// An event was missed that can't be had any more.
    Lost,
}

impl Sweep {
    /// Everything up to `seen` was sent.
    pub fn new(seen: u64, left_at_messages: u64) -> Self {
        let marks = VecDeque::from([Mark { end: u32::MAX, seen }]);
        Self { at: 0, marks, left_at_messages, sent: 0 }
    }
}

impl Topics {
    /// Appends one batch of frames to `out`. `ids` is scratch.
    pub fn sweep(
        &self,
        lane: LaneId,
        sweep: &mut Sweep,
        out: &mut Vec<u8>,
        ids: &mut Vec<TopicId>,
    ) -> SweepStep {
        let lane = self.lane(lane);
        let limit = out.len() + SWEEP_BATCH_BYTES;
        let mut old_marks = sweep.marks.len();
        while old_marks > 0 {
            let mark = sweep.marks[0];
            ids.clear();
            for member in &lane.interest {
                let topics = &self.names.entry(member.entry).topics;
                let from = topics.partition_point(|t| t.0 < sweep.at);
                let to = topics.partition_point(|t| t.0 < mark.end);
                ids.extend_from_slice(&topics[from..to]);
            }
            ids.sort_unstable();
            ids.dedup();
            for &id in ids.iter() {
                let topic = self.names.topic(id);
                if topic.last_count <= mark.seen {
                    continue;
                }
                if topic.kind == Kind::Event && topic.previous_count > mark.seen {
                    return SweepStep::Lost;
                }
                if let Some(last) = &topic.last {
                    let start = out.len();
                    let encoded = last.encoded(lane.format);
                    out.resize(start + encoded.bytes(), 0);
                    encoded.write(&mut out[start..]);
                    sweep.sent += 1;
                }
                if out.len() >= limit {
                    sweep.at = id.0 + 1;
                    sweep.marks.push_back(Mark { end: sweep.at, seen: self.count() });
                    return SweepStep::More;
                }
            }
            sweep.marks.pop_front();
            old_marks -= 1;
            if mark.end == u32::MAX {
                sweep.marks.push_back(Mark { end: u32::MAX, seen: self.count() });
                sweep.at = 0;
            } else {
                sweep.at = mark.end;
            }
        }
        SweepStep::CaughtUp
    }

    /// The last value of each topic that the pattern matches, as snapshot messages, appended to
    /// `out`; `false` (and nothing appended) if that would be more than `bytes_max`.
    pub fn snapshot(&self, pattern: &Pattern, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        let start = out.len();
        let Some(entry) = self.names.entry_of(pattern.as_str()) else { return false };
        for &id in &self.names.entry(entry).topics {
            if let Some(last) = &self.names.topic(id).last {
                last.write_snapshot(out);
            }
            if out.len() - start > bytes_max {
                out.truncate(start);
                return false;
            }
        }
        true
    }
}
