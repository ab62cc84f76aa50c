//! Which recorded message a received payload is.
//!
//! Knows: the recording, the JSON protocol's wrapper. Must not know: sockets, what order is right.
//!
//! Recorded payloads carry no stamp, so all of them are in a table by their hash; a hit is
//! compared byte for byte. Payloads that occur more than once are told apart by what the
//! connection expects next.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;

use crate::recorded::{Message, Recording};
use crate::shared::Shared;
use crate::verify::Ledger;

/// A recording with its table and the times of its run; the threads share it.
pub(crate) struct Catalogue {
    pub(crate) recording: Recording,
    /// Open addressing: upper half of the hash, and the message's index plus 1; 0 is free.
    slots: Vec<(u32, u32)>,
    hasher: FixedState,
    /// By message: when it was given to the kernel, ns.
    sent_ns: Vec<AtomicU64>,
    /// Recorded time is divided by this; 0: as fast as possible.
    speed: f64,
}

impl Catalogue {
    pub(crate) fn new(recording: Recording, speed: f64) -> Self {
        let count = recording.messages.len();
        let mut slots = vec![(0, 0); (count * 2).next_power_of_two()];
        let hasher = FixedState::default();
        for (index, message) in recording.messages.iter().enumerate() {
            let hash = hasher.hash_one(recording.payload(message));
            let mut at = hash as usize & (slots.len() - 1);
            while slots[at].1 != 0 {
                at = (at + 1) & (slots.len() - 1);
            }
            slots[at] = ((hash >> 32) as u32, index as u32 + 1);
        }
        let sent_ns = (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { recording, slots, hasher, sent_ns, speed }
    }

    /// When a message is due, ns after the start; `None` if as fast as possible.
    pub(crate) fn offset_ns(&self, message: &Message) -> Option<u64> {
        let first_ns = self.recording.messages.first()?.at_ns;
        (self.speed > 0.0).then(|| ((message.at_ns - first_ns) as f64 / self.speed) as u64)
    }

    /// The message has been given to the kernel.
    pub(crate) fn set_sent(&self, index: u32, now_ns: u64) {
        self.sent_ns[index as usize].store(now_ns, Ordering::Release);
    }

    /// The message with this payload; of several the one of the lowest rank, of these the first.
    #[inline]
    fn find(&self, payload: &[u8], rank: impl Fn(&Message) -> Rank) -> Option<u32> {
        let hash = self.hasher.hash_one(payload);
        let tag = (hash >> 32) as u32;
        let mut at = hash as usize & (self.slots.len() - 1);
        let mut best: Option<(Rank, u32)> = None;
        loop {
            let (slot_tag, index_plus_1) = self.slots[at];
            if index_plus_1 == 0 {
                return best.map(|(_, index)| index);
            }
            let index = index_plus_1 - 1;
            let message = &self.recording.messages[index as usize];
            if slot_tag == tag && self.recording.payload(message) == payload {
                let candidate = (rank(message), index);
                if best.is_none_or(|best| candidate < best) {
                    best = Some(candidate);
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

/// How well a message with the right payload fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It may come next.
    Due,
    /// The connection has got it already, or it has another number.
    Past,
    /// Another topic's.
    Foreign,
}

/// What a message was recognised as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recognized<'m> {
    /// None of ours.
    Unknown,
    /// The last value or a publisher's snapshot, asked for with the subscription: no delivery of
    /// its own. `sent_ns`: when the message with this text and number was published, if one was.
    Snapshot { topic: &'m [u8], seq: u64, data: &'m [u8], sent_ns: Option<u64> },
    /// A publication.
    Publication { stream: u16, number: u64, intended_ns: u64, sent_ns: u64 },
    /// The payload is a publication's, but its wrapper names another topic or sequence number.
    Misnamed,
}

/// One thread's view of the catalogue.
pub(crate) struct Recognizer {
    catalogue: Arc<Catalogue>,
    shared: Arc<Shared>,
    json: bool,
    /// By stream: the server's sequence number of our first message, once known.
    seq_base: Vec<Option<u64>>,
}

impl Recognizer {
    pub(crate) fn new(catalogue: Arc<Catalogue>, shared: Arc<Shared>, json: bool) -> Self {
        let seq_base = vec![None; catalogue.recording.topics.len()];
        Self { catalogue, shared, json, seq_base }
    }

    /// What the message is, to this connection.
    #[inline]
    pub(crate) fn recognize<'m>(
        &mut self,
        ledger: &Ledger,
        connection: u32,
        message: &'m [u8],
    ) -> Recognized<'m> {
        let Some(wrapper) =
            (if self.json { Wrapper::cut(message) } else { Some(Wrapper::none(message)) })
        else {
            return Recognized::Unknown;
        };
        if wrapper.snapshot
            && let Some((topic, seq)) = wrapper.name
        {
            return self.snapshot(topic, seq, wrapper.data);
        }
        let rank = |message: &Message| {
            let (stream, number) = (message.stream, u64::from(message.number));
            let Some((topic, seq)) = wrapper.name else {
                return match ledger.expected(connection, stream) {
                    _ if !ledger.is_wanted(connection, stream) => Rank::Foreign,
                    Some(expected) if number < expected => Rank::Past,
                    _ => Rank::Due,
                };
            };
            let stream = usize::from(stream);
            match self.seq_base[stream] {
                _ if self.catalogue.recording.topics[stream].as_bytes() != topic => Rank::Foreign,
                Some(base) if number != seq.wrapping_sub(base) => Rank::Past,
                _ => Rank::Due,
            }
        };
        let Some(index) = self.catalogue.find(wrapper.data, rank) else {
            return Recognized::Unknown;
        };
        let message = self.catalogue.recording.messages[index as usize];
        let (stream, number) = (message.stream, u64::from(message.number));
        if let Some((topic, seq)) = wrapper.name
            && !self.is_named(stream, number, topic, seq)
        {
            return Recognized::Misnamed;
        }
        let sent_ns = self.catalogue.sent_ns[index as usize].load(Ordering::Acquire);
        let intended_ns = match self.catalogue.offset_ns(&message) {
            Some(offset_ns) => self.shared.start_ns().saturating_add(offset_ns),
            None => sent_ns,
        };
        Recognized::Publication { stream, number, intended_ns, sent_ns }
    }

    /// The server gives the first publication of every topic the number 1.
    pub(crate) fn begin_with_one(&mut self) {
        self.seq_base.fill(Some(1));
    }

    #[cold]
    fn snapshot<'m>(&self, topic: &'m [u8], seq: u64, data: &'m [u8]) -> Recognized<'m> {
        let recording = &self.catalogue.recording;
        let is_it = |message: &Message| {
            let stream = usize::from(message.stream);
            recording.topics[stream].as_bytes() == topic
                && self.seq_base[stream].is_none_or(|base| base + u64::from(message.number) == seq)
        };
        let rank = |message: &Message| if is_it(message) { Rank::Due } else { Rank::Foreign };
        let index = self.catalogue.find(data, rank);
        let sent_ns = index
            .filter(|&index| is_it(&recording.messages[index as usize]))
            .map(|index| self.catalogue.sent_ns[index as usize].load(Ordering::Acquire))
            .filter(|&sent_ns| sent_ns > 0);
        Recognized::Snapshot { topic, seq, data, sent_ns }
    }

    /// The server's numbers of a topic rise with ours, one by one.
    fn is_named(&mut self, stream: u16, number: u64, topic: &[u8], seq: u64) -> bool {
        let stream = usize::from(stream);
        let base = seq.wrapping_sub(number);
        self.catalogue.recording.topics[stream].as_bytes() == topic
            && *self.seq_base[stream].get_or_insert(base) == base
    }
}

/// A message of the JSON protocol, taken apart.
struct Wrapper<'a> {
    name: Option<(&'a [u8], u64)>,
    snapshot: bool,
    data: &'a [u8],
}

impl<'a> Wrapper<'a> {
    fn none(data: &'a [u8]) -> Self {
        Self { name: None, snapshot: false, data }
    }

    /// `{"topic":"…","seq":45,"ts":…,"snapshot":true,"data":…}` with `snapshot` or without.
    #[inline]
    fn cut(message: &'a [u8]) -> Option<Self> {
        let rest = message.strip_prefix(b"{\"topic\":\"")?;
        let topic_end = memchr::memchr(b'"', rest)?;
        let (topic, rest) = rest.split_at(topic_end);
        let rest = rest.strip_prefix(b"\",\"seq\":")?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).take(20);
        let (mut seq, mut count) = (0u64, 0);
        for digit in digits {
            seq = seq.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            count += 1;
        }
        let rest = &rest[count..];
        let data_start = memchr::memmem::find(&rest[..rest.len().min(HEAD_BYTES_MAX)], DATA)?;
        let snapshot = memchr::memmem::find(&rest[..data_start], SNAPSHOT).is_some();
        let data = rest[data_start + DATA.len()..].strip_suffix(b"}")?;
        Some(Self { name: Some((topic, seq)), snapshot, data })
    }
}

/// The wrapper's fields after `seq` take no more, bytes.
const HEAD_BYTES_MAX: usize = 128;
const DATA: &[u8] = b",\"data\":";
const SNAPSHOT: &[u8] = b",\"snapshot\":true";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interest::Interest;
    use crate::verify::{StreamKind, Streams};

    fn catalogue(lines: &str) -> Catalogue {
        use std::sync::atomic::AtomicU32;
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("loadgen-recognizer-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, lines).expect("written");
        let recording = Recording::load(std::slice::from_ref(&path)).expect("readable");
        std::fs::remove_file(path).expect("our own file");
        Catalogue::new(recording, 2.0)
    }

    fn setting(lines: &str, json: bool) -> (Recognizer, Ledger) {
        let catalogue = Arc::new(catalogue(lines));
        let streams = Streams {
            names: catalogue.recording.topics.clone(),
            kinds: vec![StreamKind::Event; catalogue.recording.topics.len()],
        };
        let interest = Interest::new(streams.names.len(), |_| true);
        let mut ledger =
            Ledger::new(Arc::new(streams), Arc::from([interest]), [Some(0)].into_iter());
        ledger.expect_all(0);
        let shared = Arc::new(Shared::new(1, 2).expect("an eventfd"));
        shared.set_window(1_000_000, u64::MAX);
        (Recognizer::new(catalogue, shared, json), ledger)
    }

    const LINES: &str = r#"{"topic":"a","data":{"x":1},"ts":1}
{"topic":"b","data":{"x":2},"ts":2}
{"topic":"a","data":{"x":1},"ts":3}
{"topic":"a","data":{"x":3},"ts":4}"#;

    #[test]
    fn equal_payloads_are_told_apart_by_what_is_expected() {
        let (mut recognizer, mut ledger) = setting(LINES, false);
        for (payload, stream, number, offset_ns) in
            [(r#"{"x":1}"#, 0, 0, 0), (r#"{"x":2}"#, 1, 0, 500), (r#"{"x":1}"#, 0, 1, 1000)]
        {
            let found = recognizer.recognize(&ledger, 0, payload.as_bytes());
            let intended_ns = 1_000_000 + offset_ns;
            let expected = Recognized::Publication { stream, number, intended_ns, sent_ns: 0 };
            assert_eq!(found, expected);
            ledger.observe(0, stream, number);
        }
        let again = recognizer.recognize(&ledger, 0, br#"{"x":1}"#);
        assert!(matches!(again, Recognized::Publication { stream: 0, number: 0 | 1, .. }));
        assert_eq!(recognizer.recognize(&ledger, 0, br#"{"x":4}"#), Recognized::Unknown);
    }

    proptest::proptest! {
        #[test]
        fn any_wrapper_is_cut_or_refused(
            middle in "[a-z\",:0-9{}]{0,60}", bytes: Vec<u8>,
        ) {
            let _ = Wrapper::cut(&bytes);
            let near = format!("{{\"topic\":\"a\",\"seq\":{middle},\"data\":{middle}}}");
            let _ = Wrapper::cut(near.as_bytes());
        }
    }

    #[test]
    fn the_wrapper_must_name_the_topic_and_its_number() {
        let (mut recognizer, ledger) = setting(LINES, true);
        let mut recognize = |text: &'static str| recognizer.recognize(&ledger, 0, text.as_bytes());
        let found = recognize(r#"{"topic":"b","seq":45,"ts":12,"data":{"x":2}}"#);
        assert!(matches!(found, Recognized::Publication { stream: 1, number: 0, .. }));
        let found = recognize(r#"{"topic":"b","seq":46,"ts":12,"data":{"x":2}}"#);
        assert_eq!(found, Recognized::Misnamed);
        let found = recognize(r#"{"topic":"a","seq":45,"ts":12,"data":{"x":2}}"#);
        assert_eq!(found, Recognized::Misnamed);
        let found = recognize(r#"{"topic":"a","seq":7,"ts":12,"snapshot":true,"data":{"x":1}}"#);
        let data = br#"{"x":1}"#;
        assert_eq!(found, Recognized::Snapshot { topic: b"a", seq: 7, data, sent_ns: None });
        for text in ["", "{", r#"{"topic":"a"#, r#"{"topic":"a","seq":1,"ts":1,"data":{"x":1}"#] {
            assert_eq!(recognize(text), Recognized::Unknown, "{text}");
        }
    }
}
