//! What must be true of what subscribers were sent.
//!
//! Knows: what was published, in which order each topic's home put it, and what a subscriber may
//! and must be sent of it. Must not know: shards, sockets, frames.

use std::collections::{BTreeMap, BTreeSet};

use uringcast_protocol::Pattern;

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Binary,
    Json,
    Text,
}

/// A publication, whether or not it was accepted.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) topic: usize,
    pub(crate) content: Content,
    pub(crate) payload: Vec<u8>,
    pub(crate) by: usize,
    /// Its place in its topic's order, once some subscriber was told.
    pub(crate) seq: Option<u64>,
}

/// All topics and publications of a run.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) names: Vec<String>,
    pub(crate) is_value: Vec<bool>,
    pub(crate) published: Vec<Published>,
    /// Per topic: how often it was deleted.
    pub(crate) deleted: Vec<u64>,
    /// Per topic: which publication has which number.
    pub(crate) order: Vec<BTreeMap<u64, usize>>,
    /// Messages that subscribers were sent live.
    pub(crate) delivered: u64,
}

impl Truth {
    pub(crate) fn topic(&self, name: &str) -> usize {
        let found = self.names.iter().position(|known| known == name);
        found.unwrap_or_else(|| panic!("a message of the unknown topic {name:?}"))
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
        self.published.push(Published { topic, content, payload, by, seq: None });
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
    pub(crate) fn ordered(&mut self, topic: usize, seq: u64, id: usize) {
        let seq = self.number(topic, seq);
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

#[derive(Clone, Copy, Debug)]
enum Stand {
    /// Subscribed, nothing seen yet: the next is above the one and at most one above the other.
    Fresh(u64, u64),
    Seen(u64),
}

/// Goes through what happened to a subscriber.
pub(crate) fn check_subscriber(truth: &Truth, who: usize, log: &[Entry]) {
    let mut patterns: BTreeSet<&str> = BTreeSet::new();
    let mut stands: Vec<Option<Stand>> = vec![None; truth.names.len()];
    for entry in log {
        match entry {
            Entry::Subscribed { pattern, asked, told, exact } => {
                patterns.insert(pattern);
                for topic in matching(truth, pattern) {
                    let stand = &mut stands[topic];
                    if stand.is_none() {
                        let (low, high) =
                            exact.map_or((asked[topic], told[topic]), |seq| (seq, seq));
                        assert!(
                            asked[topic] <= low && high <= told[topic],
                            "client {who}: the answer says {} stands at {low}: not between {} \
                             and {}",
                            truth.names[topic],
                            asked[topic],
                            told[topic]
                        );
                        *stand = Some(Stand::Fresh(low, high));
                    }
                }
            }
            Entry::Unsubscribed { pattern, asked } => {
                patterns.remove(pattern.as_str());
                for topic in matching(truth, pattern) {
                    if is_covered(truth, &patterns, topic) {
                        continue;
                    }
                    let stand = stands[topic].take();
                    if !truth.is_value[topic] {
                        check_whole(truth, who, topic, stand, asked[topic], "unsubscribed");
                    }
                }
            }
            Entry::Message { id, snapshot } => {
                let published = &truth.published[*id];
                let topic = published.topic;
                let seq = published.seq.unwrap_or_else(|| {
                    panic!("client {who} was sent {id}, which no observer was sent")
                });
                let Some(stand) = &mut stands[topic] else {
                    panic!("client {who} was sent {id} of {}, unasked", truth.names[topic])
                };
                take(truth, who, topic, stand, seq, *snapshot);
            }
            Entry::Deleted { topic, number } => {
                if let Some(stand) = &mut stands[*topic] {
                    *stand = Stand::Fresh(*number, *number);
                }
            }
            Entry::Quiet { seqs } => {
                for topic in 0..truth.names.len() {
                    if stands[topic].is_some() {
                        check_whole(truth, who, topic, stands[topic], seqs[topic], "quiet");
                    }
                }
            }
        }
    }
}

fn take(truth: &Truth, who: usize, topic: usize, stand: &mut Stand, seq: u64, snapshot: bool) {
    let name = &truth.names[topic];
    let last = match *stand {
        _ if snapshot => {
            // Of a topic that one had before, it is what was last sent.
            match *stand {
                Stand::Fresh(low, high) => {
                    // A value may have moved on since the answer.
                    assert!(
                        low <= seq && (seq <= high || truth.is_value[topic]),
                        "client {who}: a snapshot of {name} is {seq}: not from {low} to {high}"
                    );
                }
                Stand::Seen(last) => {
                    assert!(
                        seq >= last,
                        "client {who}: a snapshot of {name} is {seq}, after {last}"
                    );
                }
            }
            *stand = Stand::Seen(seq);
            return;
        }
        Stand::Fresh(low, high) => {
            assert!(seq > low, "client {who}: {name} {seq}, and it stood at {low} already");
            if !truth.is_value[topic] {
                assert!(seq <= high + 1, "client {who}: {name} begins at {seq}, not {high} + 1");
            }
            *stand = Stand::Seen(seq);
            return;
        }
        Stand::Seen(last) => last,
    };
    if truth.is_value[topic] {
        assert!(seq > last, "client {who}: {name} {seq} after {last}");
    } else {
        assert_eq!(seq, last + 1, "client {who}: {name} after {last}");
    }
    *stand = Stand::Seen(seq);
}

fn check_whole(
    truth: &Truth,
    who: usize,
    topic: usize,
    stand: Option<Stand>,
    seq: u64,
    when: &str,
) {
    let name = &truth.names[topic];
    match stand {
        Some(Stand::Fresh(_, high)) => {
            assert!(seq <= high, "client {who}, {when}: nothing of {name} came, which is at {seq}");
        }
        Some(Stand::Seen(last)) => {
            assert!(last >= seq, "client {who}, {when}: {name} ended at {last}, not {seq}");
        }
        None => {}
    }
}

fn matching<'t>(truth: &'t Truth, pattern: &str) -> impl Iterator<Item = usize> + use<'t> {
    let pattern = Pattern::parse(pattern).expect("only good patterns are acknowledged");
    (0..truth.names.len()).filter(move |&topic| pattern.matches(&truth.names[topic]))
}

fn is_covered(truth: &Truth, patterns: &BTreeSet<&str>, topic: usize) -> bool {
    patterns.iter().any(|pattern| {
        Pattern::parse(pattern).is_ok_and(|pattern| pattern.matches(&truth.names[topic]))
    })
}
