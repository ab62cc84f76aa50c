//! What becomes of a received message: which publication it is, whether its time was right, how
//! late it came.
//!
//! Knows: payloads, ledger, histograms. Must not know: sockets, frames, clocks.

use std::collections::VecDeque;

use crate::acks::Acks;
use crate::books::{Follower, Sort, words};
use crate::escapes::legible;
use crate::ready::Ready;
use crate::recognizer::{Recognized, Recognizer};
use crate::record::Recorder;
use crate::replies::Replies;
use crate::report::Slowness;
use crate::spread::Spread;
use crate::stamp::{Finder, Stamp, is_intact, template};
use crate::verify::{Ledger, StreamKind, Verdict};
use crate::watchlists::Changes;

/// One thread's judge.
pub(crate) struct Judge {
    pub(crate) ledger: Ledger,
    pub(crate) recorder: Recorder,
    pub(crate) spread: Spread,
    pub(crate) counts: Counts,
    identify: Identify,
    /// What payloads must be but for their stamps, where servers pass them on as they are.
    template: Option<Box<[u8]>>,
    seen: Option<Seen>,
    /// With --books.
    pub(crate) follower: Option<Box<Follower>>,
    /// With --changing.
    pub(crate) changes: Option<Box<Changes>>,
    /// What slow subscribers saw.
    pub(crate) slowness: Slowness,
    /// Where publications are answered.
    pub(crate) acks: Option<Box<Acks>>,
    /// With --ready.
    pub(crate) ready: Option<Ready>,
    /// With --answer.
    pub(crate) replies: Option<Replies>,
    /// The first error that the server announced in JSON.
    pub(crate) first_error: Option<String>,
    /// The first message without a stamp, see [`Counts::unrecognised`].
    pub(crate) first_unrecognised: Option<String>,
    /// The beginning of the last message of others' to a connection that subscribes to nothing.
    pub(crate) last_aside: Vec<u8>,
}

/// How a payload is recognised.
pub(crate) enum Identify {
    /// By its stamps, in whatever a server of others makes of them: several in a message, or none
    /// in what it says besides.
    Foreign(Finder),
    /// By nothing: idle connections.
    Nothing,
    /// By what was recorded and published.
    Recorded(Recognizer),
    /// By its stamp.
    Stamp(Finder),
}

/// Messages counted.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Counts {
    /// Publications delivered, faulty ones too.
    pub(crate) messages: u64,
    /// Their payloads as received, bytes.
    pub(crate) payload_bytes: u64,
    /// Acknowledgements and other messages of the JSON protocol.
    pub(crate) control_messages: u64,
    /// Last values that came with a subscription.
    pub(crate) snapshots: u64,
    /// Gaps that the server announced.
    pub(crate) gaps_announced: u64,
    /// Errors that the server announced.
    pub(crate) errors_announced: u64,
    /// Messages to subscribers of a server of others in which, once publishing had begun, no stamp
    /// was found: its own words, or payloads in a form that hides it.
    pub(crate) unrecognised: u64,
}

impl Counts {
    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.messages += other.messages;
        self.payload_bytes += other.payload_bytes;
        self.control_messages += other.control_messages;
        self.snapshots += other.snapshots;
        self.gaps_announced += other.gaps_announced;
        self.errors_announced += other.errors_announced;
        self.unrecognised += other.unrecognised;
    }
}

impl Judge {
    pub(crate) fn new(
        ledger: Ledger,
        identify: Identify,
        payload_bytes: Option<usize>,
        spread: Spread,
    ) -> Self {
        Self {
            ledger,
            recorder: Recorder::new(),
            spread,
            counts: Counts::default(),
            identify,
            template: payload_bytes.map(|bytes| template(bytes).into_boxed_slice()),
            seen: None,
            follower: None,
            changes: None,
            slowness: Slowness::default(),
            acks: None,
            ready: None,
            replies: None,
            first_error: None,
            first_unrecognised: None,
            last_aside: Vec::new(),
        }
    }

    /// From now on counts which publications of stream 0 all `subscribers` have got.
    pub(crate) fn watch_seen(&mut self, subscribers: u32) {
        self.seen = Some(Seen { base: 0, counts: VecDeque::new(), subscribers });
    }

    /// A message has arrived.
    #[inline]
    pub(crate) fn message(&mut self, connection: u32, payload: &[u8], counted: bool, now_ns: u64) {
        // The frequent case by itself: what it costs is what the load generator can take.
        let Identify::Stamp(finder) = &mut self.identify else {
            return self.message_without_our_stamp(connection, payload, counted, now_ns);
        };
        match finder.find(payload) {
            Some(Stamp { stream, number, intended_ns, sent_ns }) => {
                let found = (stream, number, intended_ns, sent_ns);
                self.delivered(connection, payload, found, counted, now_ns);
            }
            None => self.other(connection, payload, now_ns),
        }
    }

    #[inline(never)]
    fn message_without_our_stamp(
        &mut self,
        connection: u32,
        payload: &[u8],
        counted: bool,
        now_ns: u64,
    ) {
        let recognizer = match &mut self.identify {
            Identify::Recorded(recognizer) => recognizer,
            Identify::Foreign(_) => return self.foreign(connection, payload, counted, now_ns),
            Identify::Nothing | Identify::Stamp(_) => {
                return self.aside(connection, payload, now_ns);
            }
        };
        match recognizer.recognize(&self.ledger, connection, payload) {
            Recognized::Publication { stream, number, intended_ns, sent_ns } => {
                let found = (stream, number, intended_ns, sent_ns);
                self.delivered(connection, payload, found, counted, now_ns);
            }
            Recognized::Misnamed => {
                self.counts.messages += 1;
                self.ledger.faults.misnamed += 1;
            }
            Recognized::Snapshot { topic, seq, data, sent_ns } => {
                self.counts.snapshots += 1;
                let place = self.ledger.stream_of(topic).zip(Some(seq));
                self.snapshot(connection, place, data, sent_ns.is_some());
            }
            Recognized::Unknown => self.other(connection, payload, now_ns),
        }
    }

    /// `payload` has been delivered: nothing else is in it.
    #[inline(always)]
    fn delivered(
        &mut self,
        connection: u32,
        payload: &[u8],
        found: (u16, u64, u64, u64),
        counted: bool,
        now_ns: u64,
    ) {
        self.counts.payload_bytes += payload.len() as u64;
        if self.template.as_ref().is_some_and(|template| !is_intact(payload, template)) {
            self.counts.messages += 1;
            self.ledger.faults.damaged += 1;
            return;
        }
        self.publication(connection, found, counted, now_ns);
    }

    /// Whatever a server of others sends: each stamp in it is a delivery.
    fn foreign(&mut self, connection: u32, payload: &[u8], counted: bool, now_ns: u64) {
        let Identify::Foreign(finder) = &self.identify else { return };
        let mut finder = *finder;
        let stamps = finder.each(payload, |stamp| match stamp {
            Some(Stamp { stream, number, intended_ns, sent_ns }) => {
                let found = (stream, number, intended_ns, sent_ns);
                self.publication(connection, found, counted, now_ns);
            }
            None => {
                self.counts.messages += 1;
                self.ledger.faults.damaged += 1;
            }
        });
        self.identify = Identify::Foreign(finder);
        match stamps {
            0 => self.unrecognised(connection, payload),
            _ => self.counts.payload_bytes += payload.len() as u64,
        }
    }

    /// A publication, by stream, number, intended time and time of sending, has been delivered. Inlined
    /// for each caller: it is the larger part of what a message costs.
    #[inline(always)]
    fn publication(
        &mut self,
        connection: u32,
        found: (u16, u64, u64, u64),
        counted: bool,
        now_ns: u64,
    ) {
        let (stream, number, intended_ns, sent_ns) = found;
        self.counts.messages += 1;
        let expected = match (&self.seen, counted) {
            (Some(_), true) => self.ledger.expected(connection, stream),
            _ => None,
        };
        let verdict = match &mut self.changes {
            Some(changes) if changes.is_apart(stream) => {
                changes.observe(&mut self.ledger, connection, stream, number)
            }
            _ => self.ledger.observe(connection, stream, number),
        };
        if verdict == Verdict::Faulty {
            return;
        }
        if let Some(follower) = &mut self.follower {
            follower.advanced(&self.ledger, connection, stream, number);
            match follower.sort(connection) {
                Sort::Steady => {}
                // What it catches up with was not late but awaited.
                Sort::Churning => return,
                Sort::Slow => {
                    let is_value = self.ledger.kind(stream) == StreamKind::Value;
                    self.slowness.record.record(intended_ns, sent_ns, now_ns);
                    if is_value {
                        self.slowness.value(sent_ns, now_ns);
                    }
                    return;
                }
            }
        }
        let is_measured = self.recorder.record(intended_ns, sent_ns, now_ns);
        if is_measured && self.spread.wants(number) {
            self.spread.note(stream, number, connection, now_ns.saturating_sub(intended_ns));
        }
        if let (Some(seen), Some(expected)) = (&mut self.seen, expected) {
            seen.advance(expected, number);
        }
    }

    #[cold]
    fn snapshot(&mut self, connection: u32, place: Option<(u16, u64)>, data: &[u8], known: bool) {
        match (&mut self.follower, place) {
            (Some(follower), Some(place)) => {
                follower.snapshot(&mut self.ledger, connection, place, data, known);
            }
            (Some(_), None) => self.ledger.faults.foreign += 1,
            (None, _) => {}
        }
    }

    /// What the connection has to send to subscribe; `None` if its URL says it.
    pub(crate) fn subscription(&mut self, connection: u32) -> Option<String> {
        Some(self.follower.as_mut()?.subscribe(&self.ledger, connection))
    }

    /// The connection has ended.
    pub(crate) fn unsubscribed(&mut self, connection: u32) {
        if let Some(follower) = &mut self.follower {
            follower.left(connection);
        }
        if let Some(ready) = &mut self.ready {
            ready.end(connection);
        }
    }

    /// The connection has said what it says at first.
    pub(crate) fn greeted(&mut self, connection: u32) {
        if let Some(ready) = &mut self.ready {
            ready.begin(connection);
        }
    }

    /// Words of the server's own: perhaps those that were waited for.
    fn hear(&mut self, connection: u32, payload: &[u8]) {
        if let Some(ready) = &mut self.ready {
            ready.hear(connection, payload);
        }
        if let Some(replies) = &mut self.replies {
            replies.hear(payload);
        }
    }

    /// Moves to the end of `out` what is to be answered to what has just been received.
    #[inline]
    pub(crate) fn take_replies(&mut self, out: &mut Vec<u8>) {
        if let Some(replies) = &mut self.replies {
            replies.take(out);
        }
    }

    /// Every publication that should be answered is; `published` says how many each publisher has
    /// sent.
    pub(crate) fn is_answered(&self, published: impl Fn(u16) -> u64) -> bool {
        self.acks.as_ref().is_none_or(|acks| acks.is_complete(published))
    }

    /// Publishing begins, and what of it is measured, ns.
    pub(crate) fn begin(&mut self, start_ns: u64, window_ns: std::ops::Range<u64>) {
        if let Some(acks) = &mut self.acks {
            acks.start_ns = start_ns;
            acks.window_ns = window_ns.clone();
        }
        self.recorder.set_window(window_ns.clone());
        self.slowness.record.set_window(window_ns);
    }

    /// Subscriptions without an answer.
    pub(crate) fn unanswered(&self) -> u64 {
        self.follower.as_ref().map_or(0, |follower| follower.unanswered())
            + self.ready.as_ref().map_or(0, Ready::waiting)
    }

    /// The connection's subscription is without an answer.
    pub(crate) fn is_unanswered(&self, connection: u32) -> bool {
        self.follower.as_ref().is_some_and(|follower| follower.is_unanswered(connection))
            || self.ready.as_ref().is_some_and(|ready| ready.is_waiting(connection))
    }

    /// Connections that come back go on where they were.
    pub(crate) fn resumes(&self) -> bool {
        self.follower.as_ref().is_some_and(|follower| follower.resumes())
    }

    /// Whether the connection has all there is.
    pub(crate) fn is_complete(&self, connection: u32, published: impl Fn(u16) -> u64) -> bool {
        let has_books = |follower: &Follower| follower.is_complete(&self.ledger, connection);
        let has_changes = |changes: &Changes| changes.is_complete(connection, &published);
        self.ledger.is_complete(connection, &published)
            && self.changes.as_deref().is_none_or(has_changes)
            && self.follower.as_deref().is_none_or(has_books)
    }

    /// The end of a connection's deliveries; its books are compared if it is still open.
    pub(crate) fn settle(
        &mut self,
        connection: u32,
        open: bool,
        published: impl Fn(u16) -> u64 + Copy,
    ) {
        if let Some(follower) = &mut self.follower
            && open
        {
            follower.settle(&self.ledger, connection, published);
        }
        if let Some(changes) = &self.changes {
            changes.settle(&mut self.ledger, connection, published);
        }
        self.ledger.settle(connection, published);
    }

    /// A message to a connection that subscribes to nothing: a publisher's acknowledgements.
    pub(crate) fn aside(&mut self, connection: u32, payload: &[u8], now_ns: u64) {
        if let Some(acks) = &mut self.acks {
            acks.answer(connection, payload, now_ns);
        }
        self.hear(connection, payload);
        if payload.starts_with(b"{\"op\":\"") {
            return self.other(0, payload, now_ns);
        }
        self.counts.control_messages += 1;
        self.last_aside.clear();
        self.last_aside.extend_from_slice(shown(payload));
    }

    /// A subscriber that counted in the closed loop is gone, or never came.
    pub(crate) fn gone(&mut self, connection: u32) {
        if let Some(seen) = &mut self.seen {
            seen.gone(self.ledger.expected(connection, 0).unwrap_or(0));
        }
    }

    /// Publications that all counted subscribers of this thread have got.
    pub(crate) fn seen_by_all(&self) -> u64 {
        match &self.seen {
            Some(seen) if seen.subscribers > 0 => seen.base,
            _ => u64::MAX,
        }
    }

    /// No stamp in it. What comes before anything is published greets or confirms.
    #[cold]
    fn unrecognised(&mut self, connection: u32, payload: &[u8]) {
        let is_asked = self.ready.as_ref().is_some_and(|ready| ready.is_waiting(connection));
        self.hear(connection, payload);
        if is_asked || self.recorder.window_ns.start == 0 {
            self.counts.control_messages += 1;
            return;
        }
        self.counts.unrecognised += 1;
        self.first_unrecognised.get_or_insert_with(|| legible(shown(payload)));
    }

    /// Not a publication: the JSON protocol's own words, or damage.
    #[cold]
    fn other(&mut self, connection: u32, payload: &[u8], now_ns: u64) {
        if !payload.starts_with(b"{\"op\":\"") {
            self.counts.messages += 1;
            self.ledger.faults.damaged += 1;
            return;
        }
        self.counts.control_messages += 1;
        self.hear(connection, payload);
        self.counts.gaps_announced += u64::from(payload.starts_with(b"{\"op\":\"gap\""));
        if let Some(follower) = &mut self.follower
            && let Some(word) = words::read(payload)
            && follower.word(&mut self.ledger, connection, &word)
        {
            return;
        }
        if let Some(changes) = &mut self.changes
            && changes.word(&self.ledger, connection, payload, now_ns)
        {
            return;
        }
        let has_error = memchr::memmem::find(payload, b"\"error\"").is_some();
        if has_error {
            self.counts.errors_announced += 1;
            let text = || String::from_utf8_lossy(&payload[..payload.len().min(200)]).into_owned();
            self.first_error.get_or_insert_with(text);
        }
    }
}

/// As much of a message as is told.
fn shown(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(SHOWN_BYTES_MAX)]
}

/// In a closed loop: how many subscribers have got each publication that not all have.
struct Seen {
    /// All have got those before this one.
    base: u64,
    /// From `base` on.
    counts: VecDeque<u32>,
    subscribers: u32,
}

impl Seen {
    /// A subscriber has got what was `expected`, or skipped from there to `number`.
    fn advance(&mut self, expected: u64, number: u64) {
        let first = expected.max(self.base) - self.base;
        let end = (number + 1).saturating_sub(self.base);
        if end > SEEN_MAX {
            // Never published: the ledger has counted it.
            return;
        }
        if self.counts.len() < end as usize {
            self.counts.resize(end as usize, 0);
        }
        for count in self.counts.range_mut(first as usize..end as usize) {
            *count += 1;
        }
        self.settle();
    }

    fn gone(&mut self, expected: u64) {
        let end = expected.saturating_sub(self.base) as usize;
        let end = end.min(self.counts.len());
        for count in self.counts.range_mut(..end) {
            *count -= 1;
        }
        self.subscribers = self.subscribers.saturating_sub(1);
        self.settle();
    }

    fn settle(&mut self) {
        while self.counts.front().is_some_and(|&count| count >= self.subscribers) {
            self.counts.pop_front();
            self.base += 1;
        }
    }
}

/// Of a message that is shown, bytes.
const SHOWN_BYTES_MAX: usize = 100;
/// More publications are never outstanding (--outstanding goes to 100,000).
const SEEN_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_seen_when_the_last_subscriber_has_it_or_is_gone() {
        let mut seen = Seen { base: 0, counts: VecDeque::new(), subscribers: 3 };
        seen.advance(0, 0);
        seen.advance(0, 2);
        assert_eq!(seen.base, 0);
        seen.advance(0, 1);
        assert_eq!(seen.base, 1);
        // The first one leaves with 0 only: the other two have 1.
        seen.gone(1);
        assert_eq!((seen.base, seen.subscribers), (2, 2));
        seen.advance(2, 2);
        assert_eq!(seen.base, 3);
    }
}
