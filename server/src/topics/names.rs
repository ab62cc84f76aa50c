//! Topics by name, the entries of interests (exact names and patterns), and which meet which.
//!
//! Knows: names, what a topic's last publication was, which entries match it. Must not know: lanes
//! beyond their numbers, subscribers, sockets.

use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;
use uringcast_protocol::topic_name::Pattern;

use crate::{
    home::topic_hash,
    ids::{EntryId, LaneId, TopicId},
    publication::Publication,
    rules::{Content, HistoryBounds, Kind, RuleId},
    topics::{
        history::{History, Past},
        pace::Sampled,
        tokens::Tokens,
    },
};

/// A topic on this shard.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub name: Box<str>,
    /// Its name's hash.
    pub hash: u64,
    /// Its rule.
    pub rule: RuleId,
    /// What may happen to subscribers that lag.
    pub kind: Kind,
    /// What its payloads are.
    pub content: Content,
    /// New when a topic is made, also when it is made again.
    pub epoch: u64,
    /// The last publication's number.
    pub seq: u64,
    /// The number before this shard's first: what came to be since is all numbered above.
    pub base_seq: u64,
    /// At the topic's home: the publisher's own number of the last publication.
    pub pub_seq: Option<u64>,
    /// The last publication, and those before it that its rule keeps.
    pub history: History,
    /// What the publisher last sent as a snapshot: its `seq` is that of the last publication it
    /// covers.
    pub snapshot: Option<Publication>,
    /// The shard's count of publications at the last one.
    pub last_count: u64,
    /// When the last one was appended here, ns.
    pub last_ns: u64,
    /// When it is looked at whether its subscribers are to be told that it is silent, ns; 0 for never.
    pub stale_check_ns: u64,
    /// The entries that match it.
    pub entries: Vec<EntryId>,
    /// How many of them are sampled; 0 for topics that are not of values.
    pub sampled: u32,
    /// Epochs of before the process, whose numbers go on in this one.
    pub past_epochs: Option<Arc<[PastEpoch]>>,
}

/// An epoch of a topic that ended before the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastEpoch {
    /// The epoch.
    pub epoch: u64,
    /// The last number of it that is known to be the same publication as then; the number before its
    /// first if there is none.
    pub last_seq: u64,
}

impl Topic {
    /// The last number of an epoch, if it is the topic's or one whose numbers go on in it.
    pub fn last_seq_of(&self, epoch: u64) -> Option<u64> {
        if epoch == self.epoch {
            return Some(self.seq);
        }
        let mut past = self.past_epochs.iter().flat_map(|epochs| epochs.iter());
        past.find(|past| past.epoch == epoch).map(|past| past.last_seq)
    }

    /// Whether all from this number on is there, or has yet to be published.
    pub fn has_from(&self, next: u64) -> bool {
        next > self.seq || self.history.first_seq().is_some_and(|first| first <= next)
    }

    /// All that was published when the shard had counted so many publications or more is there.
    pub fn kept_since(&self) -> u64 {
        let first = self.history.first();
        first.filter(|past| past.publication.seq() > self.base_seq + 1).map_or(0, |past| past.count)
    }

    /// The last publication.
    pub fn last(&self) -> Option<&Publication> {
        self.history.last()
    }

    /// Whether its publisher is to send a snapshot: there is none from which on all is still there.
    pub fn wants_snapshot(&self) -> bool {
        self.kind == Kind::Delta && self.usable_snapshot().is_none()
    }

    /// The publisher's snapshot, if all that was published after it is still there.
    pub fn usable_snapshot(&self) -> Option<&Publication> {
        let snapshot = self.snapshot.as_ref()?;
        let covers = snapshot.seq();
        self.has_from(covers + 1).then_some(snapshot)
    }
}

/// An exact name or pattern that someone is subscribed to.
#[derive(Debug)]
pub struct Entry {
    /// The name or pattern.
    pub pattern: Pattern,
    /// Of `pattern`, by which a topic of that name is found too.
    hash: u64,
    /// The topics it matches, by rising number.
    pub topics: Vec<TopicId>,
    /// The event and delta topics of these.
    pub streams: Vec<TopicId>,
    /// The lanes whose interest it is part of.
    pub lanes: Vec<LaneId>,
    /// Its pace; `None` for live.
    pub sampled: Option<Box<Sampled>>,
}

impl Entry {
    /// The hash of the one name that it matches; `None` for a pattern.
    pub fn exact_hash(&self) -> Option<u64> {
        self.pattern.is_exact().then_some(self.hash)
    }

    /// The hash of its pattern.
    pub fn name_hash(&self) -> u64 {
        self.hash
    }

    /// The newest of value topics every so many ms; 0 for live.
    pub fn sample_ms(&self) -> u32 {
        self.sampled.as_ref().map_or(0, |sampled| sampled.ms)
    }

    /// When its tick is due, ns; 0 for never.
    pub fn due_ns(&self) -> u64 {
        self.sampled.as_ref().map_or(0, |sampled| sampled.due_ns)
    }
}

/// What a new topic begins with.
#[derive(Clone, Copy, Debug)]
pub struct TopicTerms {
    /// Its rule.
    pub rule: RuleId,
    /// Of that rule.
    pub kind: Kind,
    /// Of that rule.
    pub content: Content,
    /// Its epoch.
    pub epoch: u64,
    /// The number before its first.
    pub base_seq: u64,
}

/// A bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// All names of a shard.
#[derive(Debug)]
pub struct Names {
    seed: u64,
    topics_max: usize,
    patterns_max: usize,
    topics: Slab<Topic>,
    topics_by_name: HashTable<u32>,
    entries: Slab<Entry>,
    entries_by_name: HashTable<u32>,
    topics_by_token: Tokens<TopicId>,
    /// The entries that are patterns.
    patterns: Tokens<EntryId>,
    patterns_count: usize,
    /// Nodes of `topics_by_token` that were looked at for new patterns in this tick.
    looked_at: usize,
    /// Blocks of all topics' last values, bytes.
    last_bytes: u64,
    /// Blocks of all topics' histories, last values included, bytes.
    history_bytes: u64,
    /// What the histories may hold besides the last values, bytes.
    history_bytes_max: u64,
}

/// With so many bytes of last values no new topic is made.
pub const LAST_BYTES_MAX: u64 = 256 << 20;

impl Names {
    /// None yet. `seed` is the process's for topic hashes.
    pub fn new(seed: u64, topics_max: u32, patterns_max: u32, history_bytes_max: u64) -> Self {
        Self {
            seed,
            topics_max: topics_max as usize,
            patterns_max: patterns_max as usize,
            topics: Slab::new(),
            topics_by_name: HashTable::new(),
            entries: Slab::new(),
            entries_by_name: HashTable::new(),
            topics_by_token: Tokens::new(seed.wrapping_add(1)),
            patterns: Tokens::new(seed.wrapping_add(2)),
            patterns_count: 0,
            looked_at: 0,
            last_bytes: 0,
            history_bytes: 0,
            history_bytes_max,
        }
    }

    /// The hash of a topic name.
    pub fn hash(&self, name: &str) -> u64 {
        topic_hash(self.seed, name)
    }

    /// How many topics there are.
    pub fn topics_count(&self) -> usize {
        self.topics.len()
    }

    /// How many names and patterns someone is subscribed to.
    pub fn entries_count(&self) -> usize {
        self.entries.len()
    }

    /// How many patterns someone is subscribed to.
    pub fn patterns_count(&self) -> usize {
        self.patterns_count
    }

    /// How many tokens of names were looked at for new patterns in this tick.
    pub fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// A tick begins.
    pub fn tick(&mut self) {
        self.looked_at = 0;
    }

    /// A topic by its name and the name's hash.
    pub fn find(&self, name: impl AsRef<[u8]>, hash: u64) -> Option<TopicId> {
        let name = name.as_ref();
        self.topics_by_name
            .find(hash, |&key| {
                let topic = &self.topics[key as usize];
                topic.hash == hash && topic.name.as_bytes() == name
            })
            .map(|&key| TopicId(key))
    }

    /// A topic that exists.
    pub fn topic(&self, id: TopicId) -> &Topic {
        &self.topics[id.0 as usize]
    }

    /// A topic that exists, to be changed.
    pub fn topic_mut(&mut self, id: TopicId) -> &mut Topic {
        &mut self.topics[id.0 as usize]
    }

    /// A topic has a new last publication; its history keeps what `bounds` and the bound of all
    /// histories together leave room for.
    pub fn push(&mut self, id: TopicId, past: Past, bounds: &HistoryBounds, now_ns: u64) {
        let topic = &mut self.topics[id.0 as usize];
        topic.seq = past.publication.seq();
        topic.last_count = past.count;
        topic.last_ns = now_ns;
        let held = |topic: &Topic| topic.last().map_or(0, |last| last.block_bytes() as u64);
        let (last_before, before) = (held(topic), topic.history.bytes());
        topic.history.push(past, bounds);
        self.last_bytes = self.last_bytes + held(topic) - last_before;
        self.history_bytes = self.history_bytes + topic.history.bytes() - before;
        while self.history_bytes - self.last_bytes > self.history_bytes_max {
            match topic.history.shrink() {
                0 => break,
                given_up => self.history_bytes -= given_up,
            }
        }
    }

    /// What all histories hold, bytes.
    pub fn history_bytes(&self) -> u64 {
        self.history_bytes
    }

    /// A topic, if it exists still.
    pub fn topic_if(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(id.0 as usize)
    }

    /// All topics.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        self.topics.iter().map(|(key, topic)| (TopicId(key as u32), topic))
    }

    /// A new topic; its name must not be there yet.
    ///
    /// # Errors
    /// There are as many topics as may be.
    pub fn create(&mut self, name: &str, hash: u64, terms: TopicTerms) -> Result<TopicId, Full> {
        if self.topics.len() >= self.topics_max || self.last_bytes >= LAST_BYTES_MAX {
            return Err(Full);
        }
        Ok(self.create_ordered(name, hash, terms))
    }

    /// The same for a topic that its home has made already, whose bounds hold for all shards.
    pub fn create_ordered(&mut self, name: &str, hash: u64, terms: TopicTerms) -> TopicId {
        let mut entries: Vec<_> = self.entries_of(name).collect();
        self.patterns.matching(name, |entry| entries.push(entry));
        let key = self.topics.vacant_key() as u32;
        let id = TopicId(key);
        let mut sampled_entries = 0;
        for entry in &entries {
            let Entry { topics, streams, sampled, .. } = &mut self.entries[entry.0 as usize];
            let at = topics.partition_point(|&other| other < id);
            topics.insert(at, id);
            if terms.kind != Kind::Value {
                streams.insert(streams.partition_point(|&other| other < id), id);
            }
            if let Some(sampled) = sampled {
                sampled.insert(at);
                sampled_entries += u32::from(terms.kind == Kind::Value);
            }
        }
        self.topics.insert(Topic {
            name: name.into(),
            hash,
            rule: terms.rule,
            kind: terms.kind,
            content: terms.content,
            epoch: terms.epoch,
            seq: terms.base_seq,
            base_seq: terms.base_seq,
            pub_seq: None,
            history: History::default(),
            snapshot: None,
            last_count: 0,
            last_ns: 0,
            stale_check_ns: 0,
            entries,
            past_epochs: None,
            sampled: sampled_entries,
        });
        self.topics_by_token.insert(name, id);
        let topics = &self.topics;
        self.topics_by_name.insert_unique(hash, key, |&k| topics[k as usize].hash);
        id
    }

    /// Forgets a topic. Who is subscribed to its name stays subscribed.
    pub fn remove(&mut self, id: TopicId) {
        let Some(topic) = self.topics.try_remove(id.0 as usize) else { return };
        self.last_bytes -= topic.last().map_or(0, |last| last.block_bytes() as u64);
        self.history_bytes -= topic.history.bytes();
        for entry in &topic.entries {
            let Entry { topics, streams, sampled, .. } = &mut self.entries[entry.0 as usize];
            if let Ok(at) = streams.binary_search(&id) {
                streams.remove(at);
            }
            if let Ok(at) = topics.binary_search(&id) {
                if let Some(sampled) = sampled {
                    sampled.remove(at, |other| topics.binary_search(&other).ok());
                }
                topics.remove(at);
            }
        }
        self.topics_by_token.remove(&topic.name, id);
        if let Ok(found) = self.topics_by_name.find_entry(topic.hash, |&key| key == id.0) {
            found.remove();
        }
    }

    fn find_entry(&self, pattern: &str, sample_ms: u32) -> Option<EntryId> {
        self.entries_of(pattern).find(|&id| self.entry(id).sample_ms() == sample_ms)
    }

    /// The entries of a name or pattern, one for each pace at which someone is subscribed to it.
    pub fn entries_of(&self, pattern: &str) -> impl Iterator<Item = EntryId> {
        let hash = self.hash(pattern);
        self.entries_by_name
            .iter_hash(hash)
            .filter(move |&&key| {
                let entry = &self.entries[key as usize];
                entry.hash == hash && entry.pattern.as_str() == pattern
            })
            .map(|&key| EntryId(key))
    }

    /// The entry of a name or pattern at a pace (0: live), made if need be.
    ///
    /// # Errors
    /// It is a new pattern and there are as many as may be.
    pub fn entry_for(&mut self, pattern: &Pattern, sample_ms: u32) -> Result<EntryId, Full> {
        if let Some(id) = self.find_entry(pattern.as_str(), sample_ms) {
            return Ok(id);
        }
        let exact = pattern.is_exact();
        if !exact && self.patterns_count >= self.patterns_max {
            return Err(Full);
        }
        let hash = self.hash(pattern.as_str());
        let key = self.entries.vacant_key() as u32;
        let id = EntryId(key);
        let topics: Vec<_> = if exact {
            self.find(pattern.as_str(), hash).into_iter().collect()
        } else {
            self.patterns.insert(pattern.as_str(), id);
            self.patterns_count += 1;
            let mut topics = Vec::new();
            self.looked_at +=
                self.topics_by_token.matched_by(pattern.as_str(), |topic| topics.push(topic));
            topics.sort_unstable();
            topics
        };
        for topic in &topics {
            let topic = &mut self.topics[topic.0 as usize];
            topic.entries.push(id);
            topic.sampled += u32::from(sample_ms > 0 && topic.kind == Kind::Value);
        }
        let is_stream = |id: &TopicId| self.topics[id.0 as usize].kind != Kind::Value;
        let streams = topics.iter().copied().filter(is_stream).collect();
        let counts = topics.iter().map(|id| self.topics[id.0 as usize].last_count);
        let sampled = (sample_ms > 0).then(|| Box::new(Sampled::new(sample_ms, counts)));
        let pattern = pattern.clone();
        self.entries.insert(Entry { pattern, hash, topics, streams, lanes: Vec::new(), sampled });
        let entries = &self.entries;
        self.entries_by_name.insert_unique(hash, key, |&k| entries[k as usize].hash);
        Ok(id)
    }

    /// The entry of a name or pattern that someone is subscribed to at this pace (0: live).
    pub fn entry_of(&self, pattern: &str, sample_ms: u32) -> Option<EntryId> {
        self.find_entry(pattern, sample_ms)
    }

    /// An entry, if it exists still.
    pub fn entry_if(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(id.0 as usize)
    }

    /// A topic, and all entries to be changed.
    pub(super) fn topic_and_entries(&mut self, id: TopicId) -> (&Topic, &mut Slab<Entry>) {
        (&self.topics[id.0 as usize], &mut self.entries)
    }

    /// An entry that exists.
    pub fn entry(&self, id: EntryId) -> &Entry {
        &self.entries[id.0 as usize]
    }

    /// An entry that exists, to be changed.
    pub fn entry_mut(&mut self, id: EntryId) -> &mut Entry {
        &mut self.entries[id.0 as usize]
    }

    /// Forgets an entry if no lane has it.
    pub fn release(&mut self, id: EntryId) {
        if self.entries.get(id.0 as usize).is_none_or(|entry| !entry.lanes.is_empty()) {
            return;
        }
        let entry = self.entries.remove(id.0 as usize);
        for topic in &entry.topics {
            let topic = &mut self.topics[topic.0 as usize];
            topic.entries.retain(|&other| other != id);
            topic.sampled -= u32::from(entry.sampled.is_some() && topic.kind == Kind::Value);
        }
        if let Ok(found) = self.entries_by_name.find_entry(entry.hash, |&key| key == id.0) {
            found.remove();
        }
        if !entry.pattern.is_exact() {
            self.patterns.remove(entry.pattern.as_str(), id);
            self.patterns_count -= 1;
        }
    }
}
