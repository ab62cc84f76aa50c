//! How a subscriber that is not in its lane's log catches up: topic by topic, from where it stands.
//!
//! Knows: the topics of an interest in the order of their numbers, what a subscriber has last been
//! sent of each, and what its kind says if the rest can't be had. Must not know: sockets, or when a
//! sweep goes on.
//!
//! A sweep goes round the topics in a fixed order, some bytes at a time. Of a value topic only the
//! newest matters: what was seen there, was seen at the shard's count of publications at that
//! moment. One count for the whole round would make the topics at the end look seen that were not,
//! and starve them; so each batch leaves a mark: from here to there, seen at this count. Of event and
//! delta topics every message matters: each has an entry with the number that comes next.
//!
//! Lag, a snapshot on subscribing and a resume are all this one thing, begun at different numbers.

mod serve;
mod view;

use std::{collections::VecDeque, ops::Range};

use uringcast_protocol::reply;
use uringcast_ring::pool::Frame;

use self::serve::Server;
use crate::{
    ids::{LaneId, TopicId},
    publication::{Body, Format, Publication},
    rules::{Kind, Overflow, RuleId},
    topics::{Topics, lane::Lane, names::Topic, tally::Tally},
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
}

impl Owed {
    /// Everything of a topic that came to be while the subscriber was swept.
    fn all(id: TopicId, topic: &Topic) -> Self {
        Self { topic: id, epoch: topic.epoch, next: topic.base_seq + 1, need: Need::Next }
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
    /// The next topic to look at.
    at: u32,
    /// From `at` to the highest number, and from 0 to `at`.
    marks: VecDeque<Mark>,
    /// By rising topic: every event and delta topic, and value topics that begin with a snapshot or
    /// in history.
    owed: Vec<Owed>,
    /// The topic at `at` is served up to this number in this round, so that one which is published to
    /// faster than the subscriber reads does not keep the round from going on.
    until: Option<u64>,
    /// How many topics wait for a snapshot of their publisher.
    awaited: u32,
    /// What was counted of its memory among the logs', bytes.
    pub counted_bytes: u64,
    /// Its subscriber left the log because it was too slow; else it has just come.
    pub lagged: bool,
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

/// A batch: pieces in the order in which they go out.
#[derive(Debug, Default)]
pub struct Batch {
    /// The pieces.
    pub pieces: Vec<Piece>,
    bytes: usize,
    /// What else than messages it tells, of topics of which rule.
    pub told: Vec<(RuleId, Told)>,
}

/// What a subscriber is told of a topic besides its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Messages are not coming.
    Gap,
    /// Messages can't be had any more, and there is nothing else to say.
    Lost,
    /// A snapshot.
    Snapshot,
    /// There is no snapshot.
    SnapshotMissing,
}

/// A piece of a batch.
#[derive(Debug)]
pub enum Piece {
    /// Frames, copied.
    Bytes(Vec<u8>),
    /// Frames that lie in a block.
    Shared(Frame, Range<usize>),
}

impl Batch {
    fn bytes_mut(&mut self) -> &mut Vec<u8> {
        if !matches!(self.pieces.last(), Some(Piece::Bytes(_))) {
            self.pieces.push(Piece::Bytes(Vec::new()));
        }
        match self.pieces.last_mut() {
            Some(Piece::Bytes(bytes)) => bytes,
            _ => unreachable!("a piece of bytes was just seen to be there"),
        }
    }

    /// Appends a publication's frame as its lane would have it.
    fn push(&mut self, publication: &Publication, format: Format) {
        let encoded = publication.encoded(format);
        let frame_bytes = encoded.bytes();
        self.bytes += frame_bytes;
        if let Some((block, range, _)) = encoded.shared() {
            self.pieces.push(Piece::Shared(block.clone(), range));
        } else {
            let out = self.bytes_mut();
            let start = out.len();
            out.resize(start + frame_bytes, 0);
            encoded.write(&mut out[start..]);
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let out = self.bytes_mut();
        let before = out.len();
        write(out);
        let written = out.len() - before;
        self.bytes += written;
    }

    /// Appends a message of the server's own.
    fn say(&mut self, body: Body, event: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let mut message = Vec::new();
        write(&mut message);
        self.write(|out| body.write_notice(out, event, &message));
    }

    fn gap(&mut self, body: Body, topic: &Topic, from: u64, to: u64, reason: &str) {
        self.told.push((topic.rule, Told::Gap));
        self.say(body, "gap", |out| reply::write_gap(out, &topic.name, from, to, reason));
    }
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

impl Sweep {
    /// Of value topics everything up to `seen` was sent; the others stand where `owed` says.
    pub fn new(seen: u64, away: Tally, mut owed: Vec<Owed>) -> Self {
        let marks = VecDeque::from([Mark { end: u32::MAX, seen }]);
        owed.sort_unstable_by_key(|owed| owed.topic);
        owed.dedup_by_key(|owed| owed.topic);
        let awaited = owed.iter().filter(|owed| owed.need == Need::Awaited).count() as u32;
        Self {
            at: 0,
            marks,
            owed,
            until: None,
            awaited,
            counted_bytes: 0,
            lagged: false,
            awaiting_in: None,
            since_us: 0,
            began: seen,
            away,
            shown: Tally::default(),
            sent: 0,
        }
    }

    /// Sets where the subscriber stands in a topic.
    pub fn owe(&mut self, owed: Owed) {
        match self.owed.binary_search_by_key(&owed.topic, |owed| owed.topic) {
            Ok(at) => {
                self.awaited -= u32::from(self.owed[at].need == Need::Awaited);
                self.owed[at] = owed;
            }
            Err(at) => self.owed.insert(at, owed),
        }
        if owed.topic.0 == self.at {
            self.until = None;
        }
    }

    /// Takes out where the subscriber stands in a topic, which is not of its interest any more.
    pub fn forget(&mut self, topic: TopicId) {
        if let Ok(at) = self.owed.binary_search_by_key(&topic, |owed| owed.topic) {
            let owed = self.owed.remove(at);
            self.awaited -= u32::from(owed.need == Need::Awaited);
        }
        if topic.0 == self.at {
            self.until = None;
        }
    }

    /// The topics from `at` up to `end`, at least one, were looked at when `seen` publications had
    /// been counted. The mark that said when they were before has been taken out, or is the first.
    fn passed(&mut self, end: u32, seen: u64) {
        match self.marks.back_mut() {
            Some(last) if last.end == self.at && last.seen == seen => last.end = end,
            _ => self.marks.push_back(Mark { end, seen }),
        }
        self.at = if end == u32::MAX { 0 } else { end };
    }

    /// What it is owed of a topic of its interest; `None` of a value topic of which only the newest
    /// matters. A topic that came to be since its last round has no entry yet: all of it is owed.
    pub fn owed(&self, id: TopicId, topic: &Topic) -> Option<Owed> {
        let at = self.owed.binary_search_by_key(&id, |owed| owed.topic);
        let owed = at.map(|at| self.owed[at]).ok().filter(|owed| owed.epoch == topic.epoch);
        owed.or_else(|| (topic.kind != Kind::Value).then(|| Owed::all(id, topic)))
    }

    /// Of value topics everything up to `seen`, the shard's count, was sent or never will be; `away`
    /// is the lane's now.
    pub fn settle(&mut self, away: Tally, seen: u64) {
        self.began = seen;
        self.away = away;
        self.shown = Tally::default();
    }

    /// Every event and delta topic, and value topics that begin in history.
    pub fn all_owed(&self) -> &[Owed] {
        &self.owed
    }

    /// How many parts of its round it tells apart.
    #[cfg(test)]
    pub(super) fn marks_count(&self) -> usize {
        self.marks.len()
    }

    /// The memory it takes besides the batch that is on its way, bytes.
    pub fn held_bytes(&self) -> usize {
        self.owed.capacity() * size_of::<Owed>() + self.marks.capacity() * size_of::<Mark>()
    }
}

impl Topics {
    /// Whether a sweep over this interest may lose messages if it takes long: history does not keep
    /// those of some event topic.
    pub fn is_fragile(&self, lane: LaneId, ids: &mut Vec<TopicId>) -> bool {
        self.topics_of(lane, ids);
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
        let mut old_marks = sweep.marks.len();
        let sent_before = sweep.sent;
        let mut behind = false;
        while old_marks > 0 {
            let mark = sweep.marks[0];
            self.topics_between(lane, sweep.at, mark.end, ids);
            for &id in ids.iter() {
                if id.0 != sweep.at {
                    sweep.until = None;
                }
                let served = self.serve(lane, sweep, id, mark.seen, batch);
                let at = match served {
                    Served::Lost => {
                        // Nothing of this batch goes out.
                        batch.told.clear();
                        batch.told.push((self.names.topic(id).rule, Told::Lost));
                        sweep.sent = sent_before;
                        return SweepStep::Lost;
                    }
                    Served::Done | Served::ForNow if batch.bytes < SWEEP_BATCH_BYTES => {
                        behind |= matches!(served, Served::ForNow);
                        continue;
                    }
                    Served::Done | Served::ForNow => id.0 + 1,
                    Served::Partly => id.0,
                };
                if at != id.0 {
                    sweep.until = None;
                }
                // Where the batch before ended in the same topic, nothing lies between.
                if at != sweep.at {
                    sweep.passed(at, self.count());
                }
                return SweepStep::More;
            }
            sweep.until = None;
            sweep.marks.pop_front();
            old_marks -= 1;
            sweep.passed(mark.end, self.count());
            if old_marks == 0 && std::mem::take(&mut behind) {
                // One more round, for what came while the batches before were on their way.
                old_marks = sweep.marks.len();
            }
        }
        if sweep.awaited > 0 { SweepStep::Waiting } else { SweepStep::CaughtUp }
    }

    /// The topics of a lane's interest with numbers in `[from, to)`, in order, each once.
    fn topics_between(&self, lane: &Lane, from: u32, to: u32, ids: &mut Vec<TopicId>) {
        ids.clear();
        for member in &lane.interest {
            let topics = &self.names.entry(member.entry).topics;
            let first = topics.partition_point(|t| t.0 < from);
            let end = topics.partition_point(|t| t.0 < to);
            ids.extend_from_slice(&topics[first..end]);
        }
        ids.sort_unstable();
        ids.dedup();
    }

    /// Every topic of a lane's interest.
    pub fn topics_of(&self, lane: LaneId, ids: &mut Vec<TopicId>) {
        self.topics_between(self.lane(lane), 0, u32::MAX, ids);
    }

    /// Whether what a subscriber of a lane is owed of a topic can't be had any more, and nothing
    /// else can be said.
    pub fn is_lost(&self, lane: LaneId, owed: &Owed) -> bool {
        let topic = self.names.topic(owed.topic);
        if owed.next > topic.seq || topic.history.first_seq().is_some_and(|f| f <= owed.next) {
            return false;
        }
        match topic.kind {
            Kind::Value => false,
            _ if self.lane(lane).format.body == Body::Raw => true,
            Kind::Event => self.rules.rule(topic.rule).overflow == Overflow::Close,
            Kind::Delta => false,
        }
    }

    fn serve(
        &self,
        lane: &Lane,
        sweep: &mut Sweep,
        id: TopicId,
        seen: u64,
        batch: &mut Batch,
    ) -> Served {
        let format = lane.format;
        let topic = self.names.topic(id);
        if lane.sampled
            && topic.kind == Kind::Value
            && let Some(view) = self.view_in(lane, id).filter(|view| view.entry.is_some())
        {
            return view::serve(format, sweep, topic, (id, seen), view, batch);
        }
        let found = sweep.owed.binary_search_by_key(&id, |owed| owed.topic);
        if topic.kind == Kind::Value && found.is_err() {
            if topic.last_count > seen
                && let Some(last) = topic.last()
            {
                batch.push(last, format);
                sweep.sent += 1;
                sweep.shown.add(topic.rule, 1);
            }
            return Served::Done;
        }
        // A topic that came to be meanwhile is owed from its beginning on.
        let fresh = Owed::all(id, topic);
        let at = found.unwrap_or_else(|at| {
            sweep.owed.insert(at, fresh);
            at
        });
        let mut owed = sweep.owed[at];
        let awaited = owed.need == Need::Awaited;
        if owed.epoch != topic.epoch {
            owed = fresh;
        }
        let until = *sweep.until.get_or_insert(topic.seq);
        let rule = self.rules.rule(topic.rule);
        let mut server = Server { topic, format, batch, owed, until, sent: 0 };
        let served = server.serve(rule.overflow, rule.snapshot);
        let Server { owed, sent, .. } = server;
        sweep.sent += sent;
        if topic.kind == Kind::Value {
            // What it resumes from is older than its sweep.
            let new = (owed.next.saturating_sub(sent)..owed.next)
                .filter(|&seq| topic.history.of_seq(seq).is_some_and(|p| p.count > sweep.began));
            sweep.shown.add(topic.rule, new.count() as u64);
        }
        sweep.awaited = sweep.awaited + u32::from(owed.need == Need::Awaited) - u32::from(awaited);
        if topic.kind == Kind::Value && matches!(served, Served::Done) {
            // From here on only the newest matters.
            sweep.owed.remove(at);
        } else {
            sweep.owed[at] = owed;
        }
        served
    }
}
