//! Where a subscriber stands in each topic, and what may and must come next.
//!
//! Knows: kinds, answers, resumes, gaps, the state that deltas add up to. Must not know: shards,
//! sockets, frames.

use std::collections::BTreeSet;

use uringcast_protocol::Pattern;

use crate::oracle::{Begin, Entry, Kind, Told, Truth};

/// Where a subscriber stands in a topic: the last message it has is from `low` to `high`; these
/// differ as long as nothing came.
#[derive(Clone, Copy, Debug)]
struct Stand {
    low: u64,
    high: u64,
    /// Or it is this one: it resumed what it was subscribed to already.
    also: Option<u64>,
    /// A snapshot may come that it asked for.
    open: bool,
    /// It was told that there is no snapshot, and so no delta may come.
    waits: bool,
    /// What the deltas so far add up to, once that is known.
    book: Option<u64>,
}

impl Stand {
    fn at(low: u64, high: u64) -> Self {
        Self { low, high, also: None, open: false, waits: false, book: None }
    }

    /// Whether this may be the next number of a message or of a gap.
    fn takes(&self, kind: Kind, seq: u64) -> bool {
        let far = kind == Kind::Value;
        seq > self.low && (far || seq <= self.high + 1)
            || self.also.is_some_and(|also| seq == also + 1 || far && seq > also)
    }

    fn reaches(&self) -> u64 {
        self.high.max(self.also.unwrap_or(0))
    }

    fn move_to(&mut self, seq: u64) {
        (self.low, self.high, self.also) = (seq, seq, None);
    }
}

struct Check<'t> {
    truth: &'t Truth,
    who: usize,
    stands: Vec<Option<Stand>>,
    patterns: BTreeSet<&'t str>,
}

/// Goes through what happened to a subscriber.
pub(crate) fn check_subscriber(truth: &Truth, who: usize, log: &[Entry]) {
    let stands = vec![None; truth.names.len()];
    let mut check = Check { truth, who, stands, patterns: BTreeSet::new() };
    for (at, entry) in log.iter().enumerate() {
        let _told = Failed { who, log: &log[..=at] };
        check.entry(entry);
    }
}

/// Says on a failure what happened to the subscriber before.
struct Failed<'l> {
    who: usize,
    log: &'l [Entry],
}

impl Drop for Failed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.log.len().saturating_sub(ENTRIES_SHOWN);
            self.log[from..].iter().for_each(|entry| eprintln!("  {}: {entry:?}", self.who));
        }
    }
}

const ENTRIES_SHOWN: usize = 40;

impl<'t> Check<'t> {
    fn entry(&mut self, entry: &'t Entry) {
        let (truth, who) = (self.truth, self.who);
        match entry {
            Entry::Subscribed { pattern, asked, told, exact, begin } => {
                self.patterns.insert(pattern);
                for topic in matching(truth, pattern) {
                    let range = exact.map_or((asked[topic], told[topic]), |seq| (seq, seq));
                    if self.stands[topic].is_none() {
                        assert!(
                            asked[topic] <= range.0 && range.1 <= told[topic],
                            "client {who}: the answer says {} stands at {}: not from {} to {}",
                            truth.names[topic],
                            range.0,
                            asked[topic],
                            told[topic]
                        );
                    }
                    let old = self.stands[topic];
                    self.stands[topic] = Some(begun(truth, topic, old, range, begin));
                }
            }
            Entry::Unsubscribed { pattern, asked } => {
                self.patterns.remove(pattern.as_str());
                for topic in matching(truth, pattern) {
                    if is_covered(truth, &self.patterns, topic) {
                        continue;
                    }
                    let stand = self.stands[topic].take();
                    if truth.kind(topic) != Kind::Value {
                        self.check_whole(topic, stand, asked[topic], "unsubscribed");
                    }
                }
            }
            Entry::Message { id, snapshot } if truth.published[*id].snapshot => {
                assert!(snapshot, "client {who}: {id}, a snapshot, came as a message");
            }
            Entry::Message { id, snapshot } => {
                let published = &truth.published[*id];
                let seq = published.seq.unwrap_or_else(|| {
                    panic!("client {who} was sent {id}, which no observer was sent")
                });
                self.message(published.topic, *id, seq, *snapshot);
            }
            Entry::Snapshot { id, seq } => self.snapshot(*id, *seq),
            Entry::Told { topic, told } => self.told(*topic, *told),
            Entry::Deleted { topic, number } => {
                if let Some(stand) = &mut self.stands[*topic] {
                    *stand = Stand { book: Some(0), ..Stand::at(*number, *number) };
                }
            }
            Entry::Quiet { seqs } => {
                for (topic, &seq) in seqs.iter().enumerate() {
                    let stand = self.stands[topic];
                    self.check_whole(topic, stand, seq, "quiet");
                    let waits = stand.is_some_and(|stand| stand.waits);
                    assert!(!waits, "client {who} waits for a snapshot of {}", truth.names[topic]);
                    if let Some(Stand { book: Some(book), high, .. }) = stand {
                        let theirs = truth.book(topic, high);
                        assert_eq!(book, theirs, "client {who}: its book {}", truth.names[topic]);
                    }
                }
            }
        }
    }

    fn stand(&mut self, topic: usize, what: &str) -> &mut Stand {
        let (name, who) = (&self.truth.names[topic], self.who);
        let stand = self.stands[topic].as_mut();
        stand.unwrap_or_else(|| panic!("client {who} was sent {what} of {name}, unasked"))
    }

    fn message(&mut self, topic: usize, id: usize, seq: u64, snapshot: bool) {
        let (truth, who) = (self.truth, self.who);
        let (name, kind) = (&truth.names[topic], truth.kind(topic));
        let stand = self.stand(topic, &format!("number {seq}"));
        if snapshot {
            // Of a topic that one had before, it is what was last sent. A value may have moved on.
            let fits = stand.low <= seq && (seq <= stand.high || kind == Kind::Value);
            let fits = fits || stand.also == Some(seq) && kind == Kind::Event;
            assert!(fits, "client {who}: a snapshot of {name} is {seq}: {stand:?}");
            // One that has moved on says nothing of what lies between.
            let same = stand.low == stand.high && seq == stand.high;
            stand.book = stand.book.filter(|_| same);
        } else {
            assert!(stand.takes(kind, seq), "client {who}: {name} {seq} at {stand:?}");
            assert!(!stand.waits, "client {who}: {name} {seq}, without what it builds on");
            // A message that does not follow on what is known begins nothing.
            let follows = stand.low == stand.high && seq == stand.low + 1;
            stand.book = stand.book.filter(|_| follows).map(|book| Truth::add(book, id));
        }
        stand.move_to(seq);
    }

    /// A publisher's snapshot of a delta topic, which stands for everything up to `seq`.
    fn snapshot(&mut self, id: usize, seq: u64) {
        let (truth, who) = (self.truth, self.who);
        let topic = truth.published[id].topic;
        let (name, kind) = (&truth.names[topic], truth.kind(topic));
        truth.check_covers(id, seq);
        let stand = self.stand(topic, "a snapshot");
        assert_eq!(kind, Kind::Delta, "client {who}: a publisher's snapshot of {name}");
        // Who was told that there is none may then have one that covers a little less.
        let covered = seq == stand.high || stand.waits && seq < stand.high;
        let fits = stand.open || stand.low == stand.high && covered;
        assert!(fits, "client {who}: a snapshot of {name} as of {seq} at {stand:?}");
        *stand = Stand { book: Some(truth.book(topic, seq)), ..Stand::at(seq, seq) };
    }

    fn told(&mut self, topic: usize, told: Told) {
        let (truth, who) = (self.truth, self.who);
        let (name, kind) = (&truth.names[topic], truth.kind(topic));
        let stand = self.stand(topic, &format!("{told:?}"));
        match told {
            Told::Gap { from, to } => {
                assert_ne!(kind, Kind::Value, "client {who}: a gap in {name}");
                let fits = stand.takes(kind, from) && from <= to;
                assert!(fits, "client {who}: a gap in {name} from {from} to {to} at {stand:?}");
                stand.move_to(to);
                stand.book = None;
            }
            Told::Unavailable => {
                assert_eq!(kind, Kind::Delta, "client {who}: no snapshot of {name}");
                assert!(!stand.waits, "client {who} was told twice: no snapshot of {name}");
                stand.waits = true;
                stand.book = None;
            }
        }
    }

    fn check_whole(&self, topic: usize, stand: Option<Stand>, seq: u64, when: &str) {
        let Some(stand) = stand else { return };
        let (name, who) = (&self.truth.names[topic], self.who);
        let reaches = stand.reaches();
        assert!(reaches >= seq, "client {who}, {when}: {name} is at {seq}, and it at {stand:?}");
    }
}

/// Where a subscriber stands after an answer, which says that the topic is at `range`.
fn begun(
    truth: &Truth,
    topic: usize,
    old: Option<Stand>,
    (low, high): (u64, u64),
    begin: &Begin,
) -> Stand {
    let kind = truth.kind(topic);
    let is_new = kind == Kind::Delta && high & 0xffff_ffff == 0;
    let fresh = Stand { book: is_new.then_some(0), ..Stand::at(low, high) };
    let base = old.unwrap_or(fresh);
    let asked = Stand { open: kind == Kind::Delta, waits: false, ..base };
    match begin {
        Begin::Now => base,
        Begin::Snapshot => asked,
        Begin::Behind { seq, known } if *known => match old {
            None => {
                let book = (kind == Kind::Delta).then(|| truth.book(topic, *seq));
                Stand { book, ..Stand::at(*seq, *seq) }
            }
            Some(old) => Stand {
                low: old.low.min(*seq),
                high: old.high,
                also: Some(*seq),
                open: old.open || old.waits,
                waits: false,
                book: None,
            },
        },
        // An event topic begins now, others with what they stand at.
        Begin::Behind { .. } if kind == Kind::Event => base,
        Begin::Behind { .. } => asked,
        Begin::From { us } => {
            let era = high >> 32 << 32;
            let first = truth.first_since(topic, era, *us).unwrap_or(u64::MAX).min(high + 1);
            let open = base.open || base.waits;
            let high = (first - 1).max(old.map_or(0, |old| old.high));
            Stand { open, ..Stand::at(era, high) }
        }
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
