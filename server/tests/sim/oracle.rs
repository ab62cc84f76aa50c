//! What was published, and in which order each topic's home put it.
//!
//! Knows: payloads, numbers, what subscribers say that they were told. Must not know: shards,
//! sockets, frames.

use std::collections::BTreeMap;

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Binary,
    Json,
    Text,
}

/// What a topic's messages are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    Value,
    /// Its publications have their own numbers as the publisher's.
    Delta,
}

/// A publication, whether or not it was accepted.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) topic: usize,
    pub(crate) content: Content,
    pub(crate) payload: Vec<u8>,
    pub(crate) by: usize,
    /// It is the state after all publications of its topic up to this one.
    pub(crate) snapshot: bool,
    pub(crate) covers: usize,
    /// That one had been ordered when the snapshot was sent.
    sure: bool,
    /// Its place in its topic's order, once some subscriber was told.
    pub(crate) seq: Option<u64>,
}

/// All topics and publications of a run.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) names: Vec<String>,
    pub(crate) kinds: Vec<Kind>,
    /// Per topic: whether its publishers send snapshots.
    pub(crate) has_snapshots: Vec<bool>,
    pub(crate) published: Vec<Published>,
    /// Per topic: how often it was deleted.
    pub(crate) deleted: Vec<u64>,
    /// Per topic: which publication has which number.
    pub(crate) order: Vec<BTreeMap<u64, usize>>,
    /// Per topic: when each number was ordered, µs UTC.
    pub(crate) times: Vec<BTreeMap<u64, u64>>,
    /// Per topic: its epoch, by how often it had been deleted.
    pub(crate) epochs: Vec<BTreeMap<u64, String>>,
    /// Messages that subscribers were sent live.
    pub(crate) delivered: u64,
}

impl Truth {
    pub(crate) fn topic(&self, name: &str) -> usize {
        let found = self.names.iter().position(|known| known == name);
        found.unwrap_or_else(|| panic!("a message of the unknown topic {name:?}"))
    }

    pub(crate) fn kind(&self, topic: usize) -> Kind {
        self.kinds[topic]
    }

    /// A subscriber says that a topic has this epoch.
    pub(crate) fn epoch(&mut self, topic: usize, epoch: &str) {
        let era = self.deleted[topic];
        let known = self.epochs[topic].entry(era).or_insert_with(|| epoch.to_owned());
        assert_eq!(known, epoch, "{} has two epochs", self.names[topic]);
    }

    /// Another message in the sum that a book of deltas is.
    pub(crate) fn add(book: u64, id: usize) -> u64 {
        (book ^ id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    }

    /// What all deltas up to this number make, since the topic was last deleted.
    pub(crate) fn book(&self, topic: usize, seq: u64) -> u64 {
        let era = seq >> 32 << 32;
        self.order[topic].range(era..=seq).fold(0, |book, (_, &id)| Self::add(book, id))
    }

    /// The first number of an era that was ordered at this time or later.
    pub(crate) fn first_since(&self, topic: usize, era: u64, us: u64) -> Option<u64> {
        let times = self.times[topic].range(era..era + (1 << 32));
        times.filter(|&(_, &at)| at >= us).map(|(&seq, _)| seq).next()
    }

    /// A publisher's snapshot was sent as the state after number `seq`.
    pub(crate) fn check_covers(&self, id: usize, seq: u64) {
        let Published { topic, covers, sure, .. } = self.published[id];
        let era = seq >> 32 << 32;
        let known = self.order[topic].range(era..era + (1 << 32));
        let last = known.rev().find(|&(_, &id)| id <= covers).map(|(&seq, _)| seq);
        let last = last.unwrap_or(era);
        // A snapshot that was ahead of its deltas stands for those that were there.
        assert!(
            seq == last || !sure && seq < last,
            "{}: a snapshot up to publication {covers} stands for {last}, not {seq}",
            self.names[topic]
        );
    }

    /// A new snapshot of a topic: the state after publication `covers`.
    pub(crate) fn snapshot(&mut self, topic: usize, covers: usize, pad: usize, by: usize) -> usize {
        let id = self.publish(topic, Content::Json, pad, by);
        self.published[id].snapshot = true;
        self.published[id].covers = covers;
        let covered = &self.published[covers];
        self.published[id].sure = covered.topic == topic && covered.seq.is_some();
        id
    }

    pub(crate) fn add_topic(&mut self, name: String, kind: Kind, has_snapshots: bool) {
        self.names.push(name);
        self.kinds.push(kind);
        self.has_snapshots.push(has_snapshots);
        self.deleted.push(0);
        self.order.push(BTreeMap::new());
        self.times.push(BTreeMap::new());
        self.epochs.push(BTreeMap::new());
    }

    /// A topic's `seq` as a number that rises when it is deleted and begins again.
    pub(crate) fn number(&self, topic: usize, seq: u64) -> u64 {
        self.deleted[topic] << 32 | seq
    }

    /// A new payload for a topic; its number.
    pub(crate) fn publish(
        &mut self,
        topic: usize,
        content: Content,
        pad: usize,
        by: usize,
    ) -> usize {
        let id = self.published.len();
        let payload = match content {
            Content::Json => format!("{{\"n\":{id},\"p\": \"{}\"}}", filler(id, pad)).into_bytes(),
            Content::Text => format!("n{id} \"é\n{}", filler(id, pad)).into_bytes(),
            Content::Binary => {
                let mut bytes = vec![0xff, b'n'];
                bytes.extend(id.to_string().into_bytes());
                bytes.push(0);
                bytes.resize(bytes.len() + pad, 0xc3);
                bytes
            }
        };
        let (snapshot, covers, sure, seq) = (false, id, false, None);
        self.published.push(Published { topic, content, payload, by, snapshot, covers, sure, seq });
        id
    }

    /// Which publication a payload is; byte for byte.
    pub(crate) fn recognize(&self, content: Content, payload: &[u8]) -> usize {
        let digits = payload
            .iter()
            .skip_while(|&&byte| byte != b'n')
            .skip_while(|byte| !byte.is_ascii_digit())
            .take_while(|byte| byte.is_ascii_digit());
        let id = digits.fold(0, |id, digit| id * 10 + usize::from(digit - b'0'));
        let known = self.published.get(id);
        let known = known.unwrap_or_else(|| panic!("a payload that nobody published: {id}"));
        assert!(
            known.payload == payload,
            "payload {id} changed on its way: {} bytes, published {}",
            payload.len(),
            known.payload.len()
        );
        assert_eq!(known.content, content, "payload {id} came as something else");
        id
    }

    /// A subscriber says that a publication has this number.
    pub(crate) fn ordered(&mut self, topic: usize, seq: u64, ts_us: u64, id: usize) {
        let seq = self.number(topic, seq);
        let known = *self.times[topic].entry(seq).or_insert(ts_us);
        assert_eq!(known, ts_us, "number {seq} of {} has two times", self.names[topic]);
        let published = &mut self.published[id];
        assert_eq!(published.topic, topic, "publication {id} came under another topic's name");
        let known = *published.seq.get_or_insert(seq);
        assert_eq!(known, seq, "publication {id} has two numbers");
        let there = *self.order[topic].entry(seq).or_insert(id);
        assert_eq!(there, id, "two publications are number {seq} of {}", self.names[topic]);
    }

    /// The numbers are without gaps up to the last that a topic's home knows, and each publisher's
    /// are in the order it sent them.
    pub(crate) fn check_order(&self, topic: usize, seq_last: u64) {
        let name = &self.names[topic];
        let mut expected = 1;
        let mut era = 0;
        let mut last_of = BTreeMap::new();
        for (&seq, &id) in &self.order[topic] {
            if seq >> 32 != era {
                era = seq >> 32;
                expected = era << 32 | 1;
            }
            assert_eq!(seq, expected, "{name}: a number was never told to anyone");
            expected += 1;
            let by = self.published[id].by;
            if let Some(before) = last_of.insert(by, id) {
                assert!(before < id, "{name}: publisher {by}'s {id} came after its {before}");
            }
        }
        let last = if seq_last >> 32 == era { expected - 1 } else { self.number(topic, 0) };
        assert_eq!(last, seq_last, "{name}: the home's last number");
    }
}

/// Text that hardly compresses in every third publication, and that compresses to nearly nothing in
/// the others.
fn filler(id: usize, bytes: usize) -> String {
    if !id.is_multiple_of(3) {
        return "x".repeat(bytes);
    }
    let mut noise = id as u32;
    let letters = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (noise >> 24) as u8 % 26)
    });
    letters.take(bytes).collect()
}

/// The last number of each topic on a subscriber's shard at some moment.
pub(crate) type Seqs = Vec<u64>;

/// Where a subscriber asked to begin, and what the answer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    Now,
    Snapshot,
    /// Behind this number; whether its topic's epoch is that still, and it was not ahead.
    Behind {
        seq: u64,
        known: bool,
    },
    /// With all of this time and later, µs UTC.
    From {
        us: u64,
    },
}

/// What is said of a topic besides its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// These numbers are not coming.
    Gap { from: u64, to: u64 },
    /// There is no snapshot yet.
    Unavailable,
}

/// What happened to a subscriber, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// An acknowledged subscription: the numbers when it was asked for and when the answer was
    /// there, and what the answer said the exact topic stood at.
    Subscribed {
        pattern: String,
        asked: Seqs,
        told: Seqs,
        exact: Option<u64>,
        begin: Begin,
    },
    /// An acknowledged end of one; the numbers when it was asked for.
    Unsubscribed {
        pattern: String,
        asked: Seqs,
    },
    Message {
        id: usize,
        snapshot: bool,
    },
    /// A publisher's snapshot, and the number that it came with.
    Snapshot {
        id: usize,
        seq: u64,
    },
    /// What it was told of a topic.
    Told {
        topic: usize,
        told: Told,
    },
    /// A topic was deleted; its next number is one above this.
    Deleted {
        topic: usize,
        number: u64,
    },
    /// Everything there was must be here now.
    Quiet {
        seqs: Seqs,
    },
}
