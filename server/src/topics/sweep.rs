//! How a subscriber that is not in its lane's log catches up: topic by topic, from where it stands.
//!
//! Knows: the topics of an interest in the order of their numbers, what a subscriber has last been
//! sent of each, and what its kind says if the rest can't be had. Must not know: sockets, or when a
//! sweep goes on.
//!
//! A sweep goes round the topics in a fixed order, some bytes at a time, and in two rounds: one over
//! value topics, of which only the newest matters, and one over event and delta topics, of which
//! every message does. Every batch begins with values, so that none waits for the large snapshots and
//! long histories of others, and has room for both.
//!
//! Lag, a snapshot on subscribing and a resume are all this one thing, begun at different numbers.

mod batch;
mod serve;
mod streams;
mod values;

use std::ops::Range;

pub use self::batch::{Batch, Piece, Told};
use self::{streams::StreamRound, values::ValueRound};
use crate::{
    ids::{EntryId, LaneId, TopicId},
    publication::Body,
    rules::{Kind, Overflow},
    topics::{Topics, lane::Lane, names::Topic, tally::Tally},
};

/// A batch of a sweep ends when it has so many bytes.
pub const SWEEP_BATCH_BYTES: usize = 64 << 10;
/// The same for who reads slowly: what a batch says of values is old when the batch is through.
pub const SLOW_BATCH_BYTES: usize = 16 << 10;
/// Topics that one round looks at before it is the other's turn in a batch.
const LOOKS_PER_BATCH: usize = 1_024;
/// Topics of an interest looked up at a time.
const LOOK_UP: usize = 256;

/// Where a subscriber stands in one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Which topic.
    pub topic: TopicId,
    /// Its epoch: its number may be another topic's by now.
    pub epoch: u64,
    /// The number of the message that comes next.
    pub next: u64,
    /// What comes first.
    pub need: Need,
    /// The topic's kind.
    pub kind: Kind,
}

impl Owed {
    /// From this number on.
    pub fn from(id: TopicId, topic: &Topic, next: u64, need: Need) -> Self {
        Self { topic: id, epoch: topic.epoch, next, need, kind: topic.kind }
    }

    /// Everything of a topic that came to be while the subscriber was swept.
    fn all(id: TopicId, topic: &Topic) -> Self {
        Self::from(id, topic, topic.base_seq + 1, Need::Next)
    }

    /// The first number of those of the topic's messages that it was not sent.
    pub fn unsent(&self, topic: &Topic) -> Option<u64> {
        (topic.kind != Kind::Value && self.next <= topic.seq).then_some(self.next)
    }
}

/// What a subscriber is to be sent of a topic first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The message that comes next.
    Next,
    /// The same; what is not there any more is told as a gap, whatever the topic's rule says: the
    /// subscriber has just come back.
    NextOrGap,
    /// A snapshot, from which on the rest follows.
    Snapshot,
    /// A snapshot that the publisher has yet to send; the subscriber was told so.
    Awaited,
}

/// Where a sweep stands.
#[derive(Debug)]
pub struct Sweep {
    values: ValueRound,
    streams: StreamRound,
    /// By rising topic: every event and delta topic.
    owed: Vec<Owed>,
    /// By rising topic: value topics that begin with a snapshot or in history.
    begun: Vec<Owed>,
    /// How many topics wait for a snapshot of their publisher.
    awaited: u32,
    /// What was counted of its memory among the logs', bytes.
    pub counted_bytes: u64,
    /// Its subscriber left the log because it was too slow; else it has just come.
    pub lagged: bool,
    /// Its subscriber's socket was full since it began: batches are small, and made when there is
    /// room.
    pub slow: bool,
    /// When it was last asked for that there be room, ns.
    pub asked_ns: u64,
    /// The lane among whose waiting it is.
    pub awaiting_in: Option<LaneId>,
    /// When it began, µs UTC.
    pub since_us: u64,
    /// The shard's count of publications up to which its subscriber had seen its value topics.
    began: u64,
    /// What the lane's [`away`](Lane::away) was when the subscriber left the log, less those that it
    /// had not been sent then.
    pub away: Tally,
    /// Of what was appended since, messages of value topics sent.
    pub shown: Tally,
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
    /// Nothing is left unsent but what waits for a publisher's snapshot: go on when its lane has
    /// something new.
    Waiting,
    /// A message was missed that can't be had any more, and the topic's kind or the wire format
    /// leaves nothing else to be said.
    Lost,
}

/// What became of one topic in a batch.
enum Served {
    /// Nothing is left.
    Done,
    /// What came since the round came here is for the next round.
    ForNow,
    /// The batch is full.
    Partly,
    Lost,
}

/// How far a round came in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Nothing is left in it.
    Through,
    /// The batch is full, or what comes next does not fit.
    Full,
    /// Enough was looked at.
    Tired,
    /// As [`SweepStep::Lost`].
    Lost(TopicId),
}

impl Sweep {
    /// Of value topics everything up to `seen` was sent; the others stand where `owed` says.
    pub fn new(seen: u64, away: Tally, mut owed: Vec<Owed>) -> Self {
        owed.sort_unstable_by_key(|owed| owed.topic);
        owed.dedup_by_key(|owed| owed.topic);
        let (begun, owed) = owed.into_iter().partition(|owed| owed.kind == Kind::Value);
        let mut sweep = Self {
            values: ValueRound::new(seen),
            streams: StreamRound::default(),
            owed,
            begun,
            awaited: 0,
            counted_bytes: 0,
            lagged: false,
            slow: false,
            asked_ns: 0,
            awaiting_in: None,
            since_us: 0,
            began: seen,
            away,
            shown: Tally::default(),
            sent: 0,
        };
        sweep.awaited = sweep.owed.iter().filter(|o| o.need == Need::Awaited).count() as u32;
        sweep
    }

    /// Sets where the subscriber stands in a topic.
    pub fn owe(&mut self, owed: Owed) {
        if owed.kind == Kind::Value {
            match self.begun.binary_search_by_key(&owed.topic, |begun| begun.topic) {
                Ok(at) => self.begun[at] = owed,
                Err(at) => self.begun.insert(at, owed),
            }
            return self.values.restart(owed.topic);
        }
        self.streams.restart(owed.topic);
        self.awaited += u32::from(owed.need == Need::Awaited);
        match self.owed.binary_search_by_key(&owed.topic, |owed| owed.topic) {
            Ok(at) => {
                let before = std::mem::replace(&mut self.owed[at], owed);
                self.awaited -= u32::from(before.need == Need::Awaited);
            }
            Err(at) => self.owed.insert(at, owed),
        }
    }

    /// Takes out where the subscriber stands in a topic, which is not of its interest any more.
    pub fn forget(&mut self, topic: TopicId) {
        if let Ok(at) = self.begun.binary_search_by_key(&topic, |begun| begun.topic) {
            self.begun.remove(at);
        }
        if let Ok(at) = self.owed.binary_search_by_key(&topic, |owed| owed.topic) {
            let owed = self.owed.remove(at);
            self.awaited -= u32::from(owed.need == Need::Awaited);
        }
        self.values.restart(topic);
        self.streams.restart(topic);
    }

    /// What it is owed of a topic of its interest; `None` of a value topic of which only the newest
    /// matters. A topic that came to be since its last round has no entry yet: all of it is owed.
    pub fn owed(&self, id: TopicId, topic: &Topic) -> Option<Owed> {
        let known = if topic.kind == Kind::Value { &self.begun } else { &self.owed };
        let at = known.binary_search_by_key(&id, |owed| owed.topic);
        let owed = at.map(|at| known[at]).ok().filter(|owed| owed.epoch == topic.epoch);
        owed.or_else(|| (topic.kind != Kind::Value).then(|| Owed::all(id, topic)))
    }

    /// The count up to which everything of a value topic was sent that has no entry of its own.
    pub fn seen(&self, topic: TopicId) -> u64 {
        self.values.seen(topic)
    }

    /// Of value topics everything up to `seen`, the shard's count, was sent or never will be; `away`
    /// is the lane's now.
    pub fn settle(&mut self, away: Tally, seen: u64) {
        self.began = seen;
        self.away = away;
        self.shown = Tally::default();
    }

    /// Every event and delta topic.
    pub fn all_owed(&self) -> &[Owed] {
        &self.owed
    }

    /// How many parts of its round over values it tells apart.
    #[cfg(test)]
    pub(super) fn marks_count(&self) -> usize {
        self.values.marks_count()
    }

    /// The memory it takes besides the batch that is on its way, bytes.
    pub fn held_bytes(&self) -> usize {
        let owed = self.owed.capacity() + self.begun.capacity();
        owed * size_of::<Owed>() + self.values.held_bytes()
    }

    /// A batch ends when it has so many bytes.
    pub(super) fn batch_bytes(&self) -> usize {
        if self.slow { SLOW_BATCH_BYTES } else { SWEEP_BATCH_BYTES }
    }
}

impl Topics {
    /// Whether a sweep over this interest may lose messages if it takes long: history does not keep
    /// those of some event topic.
    pub fn is_fragile(&self, lane: LaneId, ids: &mut Vec<TopicId>) -> bool {
        self.streams_of(lane, ids);
        ids.iter().any(|&id| {
            let topic = self.names.topic(id);
            topic.kind == Kind::Event && self.rules.rule(topic.rule).history.messages == 0
        })
    }

    /// Appends one batch of frames to `batch`. `ids` is scratch.
    pub fn sweep(
        &self,
        lane: LaneId,
        sweep: &mut Sweep,
        batch: &mut Batch,
        ids: &mut Vec<TopicId>,
    ) -> SweepStep {
        let lane = self.lane(lane);
        let sent_before = sweep.sent;
        let half = sweep.batch_bytes() / 2;
        batch.make_room(half, false);
        let mut values = self.sweep_values(lane, sweep, batch, ids, LOOKS_PER_BATCH);
        // At least as much again for the others, and what values leave of their half.
        let whole = half.max((2 * half).saturating_sub(batch.bytes()));
        batch.make_room(whole, true);
        let looks = if values == Round::Through { usize::MAX } else { LOOKS_PER_BATCH };
        let mut streams = self.sweep_streams(lane, sweep, batch, ids, looks);
        // Room that is left is for whoever has more: a batch that is not full has said all.
        if values != Round::Through && matches!(streams, Round::Through | Round::Tired) {
            values = self.sweep_values(lane, sweep, batch, ids, usize::MAX);
        }
        if values == Round::Through && streams == Round::Tired {
            streams = self.sweep_streams(lane, sweep, batch, ids, usize::MAX);
        }
        if let Round::Lost(id) = streams {
            // Nothing of this batch goes out.
            batch.told.clear();
            batch.told.push((self.names.topic(id).rule, Told::Lost));
            sweep.sent = sent_before;
            return SweepStep::Lost;
        }
        match (values, streams) {
            (Round::Through, Round::Through) if sweep.awaited > 0 => SweepStep::Waiting,
            (Round::Through, Round::Through) => SweepStep::CaughtUp,
            _ => SweepStep::More,
        }
    }

    /// Every event and delta topic of a lane's interest.
    pub fn streams_of(&self, lane: LaneId, ids: &mut Vec<TopicId>) {
        let lists = |entry| &self.names.entry(entry).streams[..];
        topics_between(self.lane(lane), lists, 0..u32::MAX, usize::MAX, ids);
    }

    /// Whether what a subscriber of a lane is owed of a topic can't be had any more, and nothing
    /// else can be said.
    pub fn is_lost(&self, lane: LaneId, owed: &Owed) -> bool {
        let topic = self.names.topic(owed.topic);
        if topic.has_from(owed.next) {
            return false;
        }
        match topic.kind {
            Kind::Value => false,
            _ if self.lane(lane).format.body == Body::Raw => true,
            Kind::Event => self.rules.rule(topic.rule).overflow == Overflow::Close,
            Kind::Delta => false,
        }
    }
}

/// The topics of a lane's interest with numbers in `range`, in order, each once, as they stand in its
/// entries' lists; about `most`. Returns the end of the range that was looked up.
fn topics_between<'t>(
    lane: &Lane,
    list: impl Fn(EntryId) -> &'t [TopicId],
    range: Range<u32>,
    most: usize,
    ids: &mut Vec<TopicId>,
) -> u32 {
    ids.clear();
    let mut end = range.end;
    for member in &lane.interest {
        let topics = list(member.entry);
        let topics = &topics[topics.partition_point(|t| t.0 < range.start)..];
        let inside = &topics[..topics.partition_point(|t| t.0 < range.end)];
        ids.extend_from_slice(&inside[..inside.len().min(most)]);
        if let Some(cut) = inside.get(most) {
            end = end.min(cut.0);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(ids.partition_point(|t| t.0 < end));
    end
}
