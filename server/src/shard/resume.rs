//! Where a subscriber begins: at a snapshot, where it was, or at a time.
//!
//! Knows: positions in topics, and what can be told of them. Must not know: how it is sent.

use std::{borrow::Cow, collections::BTreeMap};

use uringcast_protocol::{command::Position, reply::Recovered, topic_name::Pattern};
use uringcast_ring::Io;

use super::{Shard, count};
use crate::{
    ids::TopicId,
    rules::{Kind, Pace, RuleId, SnapshotSource},
    topics::sweep::{Need, Owed},
};

/// With `resume_from` everything is sent that was published since so long before the time given, µs:
/// `ts` is the home shard's, and others may have been on their way to this one.
const RESUME_SLACK_US: u64 = 2_000_000;

/// Where a client wants to begin.
#[derive(Debug, Default)]
pub(super) struct Wish<'a> {
    /// With the last value, or the publisher's snapshot.
    pub(super) snapshot: bool,
    /// Behind the last message it has, by topic.
    pub(super) resume: BTreeMap<Cow<'a, str>, Position>,
    /// With everything of this time (µs UTC) and later.
    pub(super) resume_from_us: Option<u64>,
    /// Why nothing is known of where it was, though it has been here.
    pub(super) lost: Option<Recovered>,
    /// The cursor that its answer carries, where the format has one.
    pub(super) cursor_us: Option<u64>,
    /// The newest every so many ms.
    pub(super) sample_ms: Option<u32>,
}

impl<I: Io> Shard<I> {
    /// Where a subscriber begins in what a pattern matches; what is not named begins now. Says
    /// whether a resume finds everything.
    pub(super) fn starts(
        &self,
        pattern: &Pattern,
        wish: &Wish<'_>,
        starts: &mut Vec<Owed>,
    ) -> Option<Recovered> {
        // Whatever its pace, it matches the same.
        let matched = self.topics.names.entries_of(pattern.as_str()).next();
        let matched = matched.map_or(&[][..], |entry| &self.topics.names.entry(entry).topics);
        let recovered = if let Some(&position) = wish.resume.get(pattern.as_str()) {
            let topic = matched.first().filter(|_| pattern.is_exact());
            let recovered =
                topic.map_or(Recovered::NoEpoch, |&id| self.resume_at(id, position, starts));
            self.count_resumed(self.settings.rules.of(pattern.as_str()), recovered);
            Some(recovered)
        } else if let Some(from_us) = wish.resume_from_us {
            Some(self.resume_from(matched, from_us, starts))
        } else {
            wish.lost.inspect(|&lost| {
                self.count_resumed(self.settings.rules.of(pattern.as_str()), lost);
            })
        };
        if wish.snapshot && matches!(recovered, None | Some(Recovered::NoCursor)) {
            starts.extend(matched.iter().filter_map(|&id| {
                let topic = self.topics.names.topic(id);
                let source = self.topics.rule(topic.rule).snapshot;
                (source != SnapshotSource::None)
                    .then(|| Owed::from(id, topic, topic.seq + 1, Need::Snapshot))
            }));
        }
        recovered
    }

    fn count_resumed(&self, rule: RuleId, recovered: Recovered) {
        if recovered == Recovered::Yes {
            count!(self.resumed);
            self.of_rule(rule).resumed.add(1);
        } else {
            count!(self.resumed_not);
            self.of_rule(rule).resumed_not.add(1);
        }
    }

    /// Behind the last message it has.
    fn resume_at(&self, id: TopicId, position: Position, starts: &mut Vec<Owed>) -> Recovered {
        let topic = self.topics.names.topic(id);
        let next = position.seq.saturating_add(1);
        let Some(last_seq) = topic.last_seq_of(position.epoch) else {
            return self.begin_anew(id, Recovered::NoEpoch, starts);
        };
        if position.seq > last_seq {
            return self.begin_anew(id, Recovered::NoSeq, starts);
        }
        if next > topic.seq || topic.history.first_seq().is_some_and(|first| first <= next) {
            starts.push(Owed::from(id, topic, next, Need::Next));
            return Recovered::Yes;
        }
        match topic.kind {
            Kind::Event | Kind::Delta => starts.push(Owed::from(id, topic, next, Need::NextOrGap)),
            // The newest, whatever its rule's snapshots are.
            Kind::Value => starts.push(Owed::from(id, topic, topic.seq, Need::Next)),
        }
        Recovered::NoHistory
    }

    /// Where it was can't be told: of event topics nothing can be said but where they stand.
    fn begin_anew(&self, id: TopicId, why: Recovered, starts: &mut Vec<Owed>) -> Recovered {
        let topic = self.topics.names.topic(id);
        // Where there are none, nothing is to be sent, and what a sweep still has to send stays owed.
        let has_none = self.topics.rule(topic.rule).snapshot == SnapshotSource::None;
        match topic.kind {
            Kind::Event => {}
            Kind::Value if has_none => {}
            Kind::Value | Kind::Delta => {
                starts.push(Owed::from(id, topic, topic.seq + 1, Need::Snapshot))
            }
        }
        why
    }

    /// With everything since a time, of many topics.
    fn resume_from(&self, matched: &[TopicId], from_us: u64, starts: &mut Vec<Owed>) -> Recovered {
        // Of what was published before this process there is nothing.
        let known = from_us >= self.shared.history_from_us;
        let from_us = from_us.saturating_sub(RESUME_SLACK_US);
        let mut all = known;
        for &id in matched {
            let topic = self.topics.names.topic(id);
            let mut recovered = known;
            // A sample may have waited so long at home for its turn.
            let waited = match self.topics.rule(topic.rule).pace {
                Pace::Sample(every) => u64::try_from(every.as_micros()).unwrap_or(u64::MAX),
                Pace::Batch(_) | Pace::Live => 0,
            };
            match topic.history.seq_at(from_us.saturating_sub(waited)) {
                Ok(Some(next)) => starts.push(Owed::from(id, topic, next, Need::Next)),
                Ok(None) => {}
                Err(_) if topic.kind == Kind::Value => {
                    // The newest is all that matters, and it is there.
                    starts.push(Owed::from(id, topic, topic.seq, Need::Next));
                }
                Err(_) => {
                    // Which of them the client has is not known: all that are gone are named.
                    recovered = false;
                    starts.push(Owed::from(id, topic, topic.base_seq + 1, Need::NextOrGap));
                }
            }
            all &= recovered;
            let outcome = if recovered { Recovered::Yes } else { Recovered::NoHistory };
            self.count_resumed(topic.rule, outcome);
        }
        if all { Recovered::Yes } else { Recovered::NoHistory }
    }
}
