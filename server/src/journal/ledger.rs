//! What the journal holds of each topic, and what of it is still needed.
//!
//! Knows: epochs, numbers and sums of bytes by topic. Must not know: payloads, files, bytes of records.
//!
//! No memory per publication: a record says how many bytes of its topic were written up to it
//! (`sum`), so that its own numbers, compared with the topic's newest, tell whether it is needed.

use std::{collections::HashMap, time::Duration};

use super::record::{EPOCHS_MAX, EpochRange, Head, Hole};

/// How much of a topic's past is kept, besides its last value and its last snapshot: what is within
/// all three bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many publications.
    pub messages: u64,
    /// The newest so many bytes of payload.
    pub bytes: u64,
    /// Those not older; `None`: of any age.
    pub age: Option<Duration>,
}

/// What tells one snapshot of a topic from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SnapshotId {
    pub(super) covers: u64,
    pub(super) ts_us: u64,
    pub(super) pub_seq: Option<u64>,
    pub(super) epoch: u64,
}

impl SnapshotId {
    pub(super) fn of(head: &Head<'_>) -> Self {
        Self { covers: head.seq, ts_us: head.ts_us, pub_seq: head.pub_seq, epoch: head.epoch }
    }
}

/// A publication's place in its topic, without its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) ts_us: u64,
    /// Payload bytes of the topic up to and including it.
    pub(super) sum: u64,
}

/// Whether a record is still needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The last value or snapshot.
    State,
    /// History.
    History,
    No,
}

/// One topic.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: Box<str>,
    pub(super) keep: Keep,
    /// 1 to [`EPOCHS_MAX`] of them, the current one last. Numbers rise from one to the next.
    pub(super) epochs: Vec<EpochRange>,
    pub(super) hole: Hole,
    /// The newest publication; its seq is 0 before the first.
    pub(super) last: Place,
    pub(super) snapshot: Option<SnapshotId>,
    /// The segment with the topic's newest `Topic` record; 0: it has none yet.
    pub(super) announced_in: u64,
    /// A hole that the journal does not tell of yet.
    pub(super) owes_end: bool,
    /// Up to here all that is in the journal is on the disk.
    pub(super) durable_seq: u64,
}

impl Topic {
    fn new(name: &str, keep: Keep, first: EpochRange) -> Self {
        Self {
            name: name.into(),
            keep,
            epochs: vec![first],
            hole: Hole::default(),
            last: Place::default(),
            snapshot: None,
            announced_in: 0,
            owes_end: false,
            durable_seq: 0,
        }
    }

    pub(super) fn current(&self) -> EpochRange {
        *self.epochs.last().expect("a topic has an epoch, from its making on")
    }

    /// The number after all that are known to have been given.
    pub(super) fn next_seq(&self) -> u64 {
        let covered = self.snapshot.map_or(0, |snapshot| snapshot.covers);
        let current = self.current();
        self.last.seq.max(self.hole.last).max(covered).max(current.last_seq) + 1
    }

    /// Makes room for an epoch: the oldest goes that nothing was published in, so that a topic at rest
    /// keeps its last value over any number of starts; else the oldest.
    fn forget_epoch(&mut self) {
        let snapshot = self.snapshot.map(|snapshot| snapshot.epoch);
        let empty =
            |range: &EpochRange| range.last_seq < range.first_seq && Some(range.epoch) != snapshot;
        let at = self.epochs.iter().position(empty).unwrap_or(0);
        self.epochs.remove(at);
    }

    fn knows(&self, epoch: u64, seq: u64) -> bool {
        let holds = |range: &&EpochRange| range.epoch == epoch;
        let range = self.epochs.iter().find(holds);
        range.is_some_and(|range| (range.first_seq..=range.last_seq).contains(&seq))
    }

    /// Whether a publication at this place is needed at this time.
    pub(super) fn need(&self, place: &Place, now_us: u64) -> Need {
        if !self.knows(place.epoch, place.seq) || place.seq > self.last.seq {
            return Need::No;
        }
        if place.seq == self.last.seq {
            return Need::State;
        }
        // Nothing leads over a hole, so what is before it serves nobody once something is behind it.
        let cut_off = place.seq <= self.hole.last && self.last.seq > self.hole.last;
        let age_us = now_us.saturating_sub(place.ts_us);
        let wanted = self.last.seq - place.seq < self.keep.messages
            && self.last.sum.saturating_sub(place.sum) < self.keep.bytes
            && self.keep.age.is_none_or(|age| u128::from(age_us) <= age.as_micros());
        if wanted && !cut_off { Need::History } else { Need::No }
    }

    /// Whether a publication other than the last is needed.
    pub(super) fn is_history(&self, place: &Place, now_us: u64) -> bool {
        self.need(place, now_us) == Need::History
    }

    /// Whether a snapshot is the topic's last.
    pub(super) fn needs_snapshot(&self, snapshot: &SnapshotId) -> bool {
        self.snapshot == Some(*snapshot)
    }
}

/// All topics. An id is given once, so that one that is kept too long names nobody.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    topics: HashMap<u64, Topic, foldhash::fast::RandomState>,
    by_name: HashMap<Box<str>, u64, foldhash::fast::RandomState>,
    ids_given: u64,
}

impl Ledger {
    pub(super) fn find(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    pub(super) fn topic(&self, id: u64) -> Option<&Topic> {
        self.topics.get(&id)
    }

    pub(super) fn topic_mut(&mut self, id: u64) -> Option<&mut Topic> {
        self.topics.get_mut(&id)
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = (u64, &Topic)> {
        self.topics.iter().map(|(&id, topic)| (id, topic))
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    /// Forgets it; its id then, if it was there.
    pub(super) fn forget(&mut self, name: &str) -> Option<u64> {
        let id = self.by_name.remove(name)?;
        self.topics.remove(&id);
        Some(id)
    }

    /// A topic that was not there, or was another of this name.
    pub(super) fn make(&mut self, name: &str, keep: Keep, epoch: u64, first_seq: u64) -> u64 {
        self.forget(name);
        self.ids_given += 1;
        let first_seq = first_seq.max(1);
        let first = EpochRange { epoch, first_seq, last_seq: first_seq - 1 };
        self.topics.insert(self.ids_given, Topic::new(name, keep, first));
        self.by_name.insert(name.into(), self.ids_given);
        self.ids_given
    }

    /// The topic begins an epoch whose first publication has this number. If that is behind all that
    /// were known, the topic goes on; else it is another one of the same name. `true`: this is new.
    pub(super) fn begin(
        &mut self,
        name: &str,
        epoch: u64,
        first_seq: u64,
        keep: impl FnOnce() -> Keep,
    ) -> (u64, bool) {
        let Some(id) = self.find(name) else {
            return (self.make(name, keep(), epoch, first_seq), true);
        };
        let topic = self.topics.get_mut(&id).expect("by_name names topics that are there");
        if topic.current().epoch == epoch {
            return (id, false);
        }
        if first_seq < topic.next_seq() {
            let keep = topic.keep;
            return (self.make(name, keep, epoch, first_seq), true);
        }
        if topic.epochs.len() >= EPOCHS_MAX {
            topic.forget_epoch();
        }
        topic.epochs.push(EpochRange { epoch, first_seq, last_seq: first_seq - 1 });
        topic.announced_in = 0;
        (id, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(published: u64) -> (Ledger, u64) {
        let mut ledger = Ledger::default();
        let keep = Keep { messages: 4, bytes: 30, age: Some(Duration::from_secs(1)) };
        let id = ledger.make("a", keep, 7, 1);
        let topic = ledger.topic_mut(id).expect("made");
        for seq in 1..=published {
            topic.last = place(seq);
            topic.epochs[0].last_seq = seq;
        }
        (ledger, id)
    }

    fn place(seq: u64) -> Place {
        Place { epoch: 7, seq, ts_us: seq * 100_000, sum: seq * 10 }
    }

    #[test]
    fn what_is_needed_is_within_all_bounds_or_the_last() {
        let (ledger, id) = ledger(10);
        let topic = ledger.topic(id).expect("made");
        assert_eq!(topic.need(&place(10), u64::MAX), Need::State);
        assert_eq!(topic.need(&place(8), 1_000_000), Need::History);
        assert_eq!(topic.need(&place(7), 1_000_000), Need::No, "30 bytes are 8, 9 and 10");
        assert_eq!(topic.need(&place(9), 1_900_001), Need::No, "too old");
        assert_eq!(topic.need(&place(11), 0), Need::No, "not known");
        assert_eq!(topic.need(&Place { epoch: 8, ..place(9) }, 0), Need::No, "another epoch");
        assert_eq!(topic.next_seq(), 11);
    }

    #[test]
    fn what_is_before_a_hole_is_needed_until_something_is_behind_it() {
        let (mut ledger, id) = ledger(8);
        let topic = ledger.topic_mut(id).expect("made");
        topic.hole = Hole { first: 9, last: 9 };
        assert_eq!(topic.need(&place(7), 0), Need::History);
        assert_eq!(topic.next_seq(), 10);
        topic.last = place(10);
        topic.epochs[0].last_seq = 10;
        assert_eq!(topic.need(&place(8), 0), Need::No);
        assert_eq!(topic.need(&place(10), 0), Need::State);
    }

    #[test]
    fn an_epoch_that_goes_on_keeps_those_before_and_another_does_not() {
        let (mut ledger, id) = ledger(3);
        assert_eq!(ledger.begin("a", 7, 1, Keep::default), (id, false));
        assert_eq!(ledger.begin("a", 8, 4, Keep::default), (id, true));
        let topic = ledger.topic(id).expect("made");
        assert_eq!(topic.epochs.len(), 2);
        assert_eq!(topic.need(&place(3), 0), Need::State, "the last value is of an old epoch");
        let (other, new) = ledger.begin("a", 9, 2, Keep::default);
        assert!(new && other != id && ledger.topic(id).is_none());
        assert_eq!(ledger.topic(other).expect("made").epochs.len(), 1);
    }

    #[test]
    fn old_epochs_are_bounded() {
        let (mut ledger, id) = ledger(1);
        for epoch in 8..200 {
            ledger.begin("a", epoch, 2, Keep::default);
        }
        let topic = ledger.topic(id).expect("made");
        assert_eq!(topic.epochs.len(), EPOCHS_MAX);
        assert_eq!(topic.current().epoch, 199);
        assert_eq!(topic.need(&place(1), 0), Need::State, "the last value stays");
    }
}
