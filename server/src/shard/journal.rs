//! What topics' homes tell the journal, and what they begin with out of it.
//!
//! Knows: the order of a topic's entries, what becomes of those the way has no room for. Must not
//! know: files, or when something is on the disk.
//!
//! Nobody waits for the journal. What the ring to the control thread does not take waits here within
//! a bound; beyond it entries are dropped, and it is only remembered, by topic, what the journal must
//! be told so that it never takes what comes later for contiguous.

use std::collections::{HashMap, VecDeque};

use uringcast_mesh::grid::Wake;
use uringcast_ring::Io;

use super::{Shard, count};
use crate::{
    home::home_of,
    ids::TopicId,
    mail::{JournalEntry, Mail},
    publication::Publication,
    revived::Revived,
};

/// Entries that wait for the ring to the control thread at most, and their blocks, bytes.
const WAITING_MAX: usize = 4_096;
const WAITING_BYTES_MAX: usize = 32 << 20;
/// No bell tells that the ring has room again.
const RETRY_NS: u64 = 1_000_000;

/// A home's side of the journal.
#[derive(Debug, Default)]
pub(super) struct Journaling {
    on: bool,
    waiting: VecDeque<JournalEntry>,
    waiting_bytes: usize,
    /// What was dropped, by topic.
    owed: HashMap<Box<str>, Owed>,
}

/// What the journal must be told of a topic before anything else, in the order of the fields.
#[derive(Debug, Default)]
struct Owed {
    forget: bool,
    /// Epoch and first number.
    begun: Option<(u64, u64)>,
    /// Epoch and number of the last publication that was dropped.
    dropped: Option<(u64, u64)>,
}

impl Journaling {
    pub(super) fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.owed.is_empty()
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX && self.waiting_bytes < WAITING_BYTES_MAX
    }

    fn push_back(&mut self, entry: JournalEntry) {
        self.waiting_bytes += entry.block_bytes();
        self.waiting.push_back(entry);
    }

    fn pop_front(&mut self) -> Option<JournalEntry> {
        let entry = self.waiting.pop_front()?;
        self.waiting_bytes -= entry.block_bytes();
        Some(entry)
    }

    fn push_front(&mut self, entry: JournalEntry) {
        self.waiting_bytes += entry.block_bytes();
        self.waiting.push_front(entry);
    }

    /// To the end of what waits, behind what its topic owes. `false`: it is dropped.
    fn wait(&mut self, entry: JournalEntry) -> bool {
        let name = entry.topic();
        if self.has_room() {
            if let Some((name, owed)) = self.owed.remove_entry(name) {
                self.say(&name, &owed);
            }
            self.push_back(entry);
            return true;
        }
        if !matches!(entry, JournalEntry::Snapshot { .. }) {
            if !self.owed.contains_key(name) {
                self.owed.insert(name.into(), Owed::default());
            }
            if let Some(owed) = self.owed.get_mut(name) {
                owed.note(&entry);
            }
        }
        false
    }

    /// What is owed of one topic more, once nothing else waits.
    fn settle_one(&mut self) {
        if !self.waiting.is_empty() {
            return;
        }
        let Some(name) = self.owed.keys().next().cloned() else { return };
        if let Some(owed) = self.owed.remove(&name) {
            self.say(&name, &owed);
        }
    }

    fn say(&mut self, topic: &str, owed: &Owed) {
        if owed.forget {
            self.push_back(JournalEntry::Forget { topic: topic.into() });
        }
        if let Some((epoch, first_seq)) = owed.begun {
            self.push_back(JournalEntry::Topic { topic: topic.into(), epoch, first_seq });
        }
        if let Some((epoch, seq)) = owed.dropped {
            self.push_back(JournalEntry::Dropped { topic: topic.into(), epoch, seq });
        }
    }
}

impl Owed {
    fn note(&mut self, entry: &JournalEntry) {
        match entry {
            JournalEntry::Topic { epoch, first_seq, .. } => {
                self.begun = Some((*epoch, *first_seq));
                self.dropped = None;
            }
            JournalEntry::Publication { frame } => {
                let publication = Publication::from_frames(frame.clone(), None);
                self.dropped = Some((publication.epoch(), publication.seq()));
            }
            JournalEntry::Dropped { epoch, seq, .. } => self.dropped = Some((*epoch, *seq)),
            JournalEntry::Forget { .. } => *self = Self { forget: true, ..Self::default() },
            // The one before still stands.
            JournalEntry::Snapshot { .. } => {}
        }
    }
}

impl<I: Io> Shard<I> {
    /// Makes the topics that were there before the process.
    pub(super) fn restore(&mut self, topics: &[Revived]) {
        for old in topics {
            let terms = self.terms_of(&old.name, old.epoch, 0);
            let id = self.topics.names.create_ordered(&old.name, old.hash, terms);
            self.topics.names.topic_mut(id).history.miss(old.missing_until_us);
            for publication in &old.publications {
                // As long ago as it was then, so that what goes by silence goes on.
                let age_us = self.now.utc_us.saturating_sub(publication.ts_us());
                let then_ns = self.now.ns.saturating_sub(age_us.saturating_mul(1_000));
                self.topics.restore(id, publication.clone(), then_ns);
            }
            let topic = self.topics.names.topic_mut(id);
            topic.seq = old.seq;
            topic.past_epochs = Some(old.past_epochs.clone());
            topic.pub_seq = old.pub_seq;
            topic.snapshot.clone_from(&old.snapshot);
            if usize::from(home_of(old.hash, self.shards).0) == self.index {
                self.watch_expiry(id);
            }
        }
    }

    /// At its home: a topic came to be.
    pub(super) fn journal_topic(&mut self, id: TopicId) {
        if self.journaling.on {
            let topic = self.topics.names.topic(id);
            let (epoch, first_seq) = (topic.epoch, topic.seq + 1);
            self.journal(JournalEntry::Topic { topic: topic.name.clone(), epoch, first_seq });
        }
    }

    /// At its topic's home: a publication went out.
    pub(super) fn journal_publication(&mut self, publication: &Publication) {
        if self.journaling.on {
            self.journal(JournalEntry::Publication { frame: publication.frame().clone() });
        }
    }

    /// At its topic's home: a publisher's snapshot went out.
    pub(super) fn journal_snapshot(&mut self, snapshot: &Publication) {
        if self.journaling.on {
            self.journal(JournalEntry::Snapshot { frame: snapshot.frame().clone() });
        }
    }

    /// At its home: a topic is no more.
    pub(super) fn journal_forget(&mut self, topic: &str) {
        if self.journaling.on {
            self.journal(JournalEntry::Forget { topic: topic.into() });
        }
    }

    fn journal(&mut self, entry: JournalEntry) {
        let entry = if self.journaling.is_idle() {
            match self.send_to_journal(entry) {
                Ok(()) => return,
                Err(entry) => entry,
            }
        } else {
            entry
        };
        if !self.journaling.wait(entry) {
            count!(self.journal_unsent);
        }
    }

    fn send_to_journal(&mut self, entry: JournalEntry) -> Result<(), JournalEntry> {
        let control = self.shards;
        match self.node.send(control, Mail::Journal(entry)) {
            Ok(Wake::Needed) => self.io.wake(control),
            Ok(Wake::NotNeeded) => {}
            Err(Mail::Journal(entry)) => return Err(entry),
            Err(_) => unreachable!("a full ring gives back what it was given"),
        }
        Ok(())
    }

    /// Sends what waits, as far as there is room now.
    pub(super) fn post_journal(&mut self) {
        loop {
            self.journaling.settle_one();
            let Some(entry) = self.journaling.pop_front() else { return };
            if let Err(entry) = self.send_to_journal(entry) {
                return self.journaling.push_front(entry);
            }
        }
    }

    /// When it is tried again to send what waits.
    pub(super) fn journal_retry_ns(&self) -> Option<u64> {
        (!self.journaling.is_idle()).then_some(self.now.ns + RETRY_NS)
    }

    /// The shard ends: what still waits is not kept.
    pub(super) fn end_journal(&mut self) {
        self.post_journal();
        let left = self.journaling.waiting.len() + self.journaling.owed.len();
        if left > 0 {
            count!(self.journal_unsent, left as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use uringcast_protocol::opcode::Opcode;
    use uringcast_ring::pool::Pool;

    use super::*;
    use crate::publication::{self, Order, PayloadContent};

    fn publication(topic: &str, epoch: u64, seq: u64, bytes: usize) -> JournalEntry {
        let pool = &mut Pool::unregistered();
        let payload = vec![b'x'; bytes];
        let (content, opcode) = (PayloadContent::Text, Opcode::Text);
        let draft = publication::draft(pool, topic, 1, content, opcode, &payload);
        let order = Order { epoch, seq, ts_us: seq, pub_seq: None, snapshot: false };
        let ordered =
            publication::order(pool, draft.expect("room"), order, &mut Vec::new()).expect("room");
        JournalEntry::Publication { frame: ordered.frame().clone() }
    }

    fn topic(epoch: u64) -> JournalEntry {
        JournalEntry::Topic { topic: "a".into(), epoch, first_seq: 1 }
    }

    fn said(journaling: &mut Journaling) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            journaling.settle_one();
            let Some(entry) = journaling.pop_front() else { return said };
            said.push(match entry {
                JournalEntry::Publication { frame } => {
                    format!("publication {}", Publication::from_frames(frame, None).seq())
                }
                JournalEntry::Snapshot { .. } => "snapshot".to_owned(),
                JournalEntry::Topic { epoch, .. } => format!("topic {epoch}"),
                JournalEntry::Dropped { epoch, seq, .. } => format!("dropped {epoch}:{seq}"),
                JournalEntry::Forget { .. } => "forget".to_owned(),
            });
        }
    }

    /// Until nothing more is taken.
    fn fill(journaling: &mut Journaling) -> usize {
        let mut taken = 0;
        while journaling.wait(publication("other", 1, 1, 100 << 10)) {
            taken += 1;
        }
        taken
    }

    #[test]
    fn what_waits_is_bounded_and_what_was_dropped_is_said_first() {
        let mut journaling = Journaling::new(true);
        let taken = fill(&mut journaling);
        assert!(taken < 400 && journaling.waiting_bytes < WAITING_BYTES_MAX + (1 << 20));
        assert!(!journaling.wait(publication("a", 7, 5, 1)));
        assert!(!journaling.wait(publication("a", 7, 6, 1)));
        while journaling.pop_front().is_some() {}
        journaling.owed.remove("other");
        assert_eq!((journaling.waiting_bytes, journaling.is_idle()), (0, false));
        assert!(journaling.wait(publication("a", 7, 7, 1)));
        assert_eq!(said(&mut journaling), ["dropped 7:6", "publication 7"]);
        assert!(journaling.is_idle());
    }

    #[test]
    fn a_topic_that_came_back_unheard_is_another_one() {
        let mut journaling = Journaling::new(true);
        fill(&mut journaling);
        for entry in [
            publication("a", 7, 5, 1),
            JournalEntry::Forget { topic: "a".into() },
            topic(8),
            publication("a", 8, 1, 1),
        ] {
            assert!(!journaling.wait(entry));
        }
        while journaling.pop_front().is_some() {}
        journaling.owed.remove("other");
        assert_eq!(said(&mut journaling), ["forget", "topic 8", "dropped 8:1"]);
    }

    #[test]
    fn what_is_owed_is_said_though_nothing_follows() {
        let mut journaling = Journaling::new(true);
        let taken = fill(&mut journaling);
        assert!(!journaling.wait(publication("a", 7, 5, 1)));
        let said = said(&mut journaling);
        assert_eq!(said.len(), taken + 2);
        assert!(said.contains(&"dropped 7:5".to_owned()) && journaling.is_idle());
    }
}
