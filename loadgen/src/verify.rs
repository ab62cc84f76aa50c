//! Whether every subscriber got every publication of every stream once and in order.
//!
//! Knows: streams (numbered sequences from 0), connections, which streams each should get. Must
//! not know: time, bytes, sockets.
//!
//! Per connection and stream one number is kept: the next one expected. What is skipped on an
//! event stream is an open gap; should it still arrive, it was reordered, not lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::interest::Interest;

/// Whether a stream may skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StreamKind {
    /// Every publication must arrive.
    Event,
    /// Only the newest matters: skipping is allowed, going back is not, and the last must arrive.
    Value,
    /// Each builds on the one before: as events, but a snapshot may stand for those before it.
    Delta,
}

impl StreamKind {
    /// The server's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Value => "value",
            Self::Delta => "delta",
        }
    }
}

/// All streams of a run.
#[derive(Debug)]
pub(crate) struct Streams {
    /// In the order of their numbers.
    pub(crate) names: Vec<String>,
    /// Likewise.
    pub(crate) kinds: Vec<StreamKind>,
}

/// Publications that one connection did not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Missed {
    /// The connection's number within its thread, later within the run.
    pub(crate) connection: u32,
    /// The stream's number.
    pub(crate) stream: u16,
    /// The first one missed.
    pub(crate) from: u64,
    /// The last one missed.
    pub(crate) to: u64,
}

/// What was wrong, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Faults {
    /// Deliveries that should have been and were not.
    pub(crate) lost: u64,
    /// Publications delivered again.
    pub(crate) duplicated: u64,
    /// Publications delivered after a later one.
    pub(crate) reordered: u64,
    /// Of streams that the connection did not ask for.
    pub(crate) foreign: u64,
    /// Payloads that are none of those published.
    pub(crate) damaged: u64,
    /// Publications under a topic or sequence number that is not theirs.
    pub(crate) misnamed: u64,
    /// Skipped on value streams: allowed, counted.
    pub(crate) skipped: u64,
}

impl Faults {
    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.damaged += other.damaged;
        self.misnamed += other.misnamed;
        self.skipped += other.skipped;
    }

    /// Nothing but allowed skips.
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self { skipped: self.skipped, ..Self::default() }
    }
}

/// One thread's connections.
pub(crate) struct Ledger {
    streams: Arc<Streams>,
    interests: Arc<[Interest]>,
    /// By connection: its interest, and where its row begins in `next`.
    rows: Vec<(u16, u32)>,
    /// By row and column: the next number expected, or [`FRESH`].
    next: Vec<u64>,
    /// Of the delivery before: what comes in one receive is one connection's, and often one stream's.
    latest: Latest,
    /// (connection, stream, from) → to: skipped on an event stream and not yet arrived.
    gaps: BTreeMap<(u32, u16, u64), u64>,
    /// What can no longer arrive.
    missed: Vec<Missed>,
    /// Beyond [`MISSED_MAX`] entries the ranges are only counted.
    pub(crate) missed_unlisted: u64,
    pub(crate) faults: Faults,
}

/// A cell, and whose it is.
#[derive(Clone, Copy, Debug)]
struct Latest {
    connection: u32,
    stream: u16,
    cell: usize,
}

/// What a delivery was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In order, or the first that this connection gets, or after a gap.
    Advanced,
    /// Duplicated, reordered, or foreign: counted here, and no latency of it.
    Faulty,
}

impl Ledger {
    /// `interest_of` gives each connection's index in `interests`; `None` has none.
    pub(crate) fn new(
        streams: Arc<Streams>,
        interests: Arc<[Interest]>,
        interest_of: impl Iterator<Item = Option<u16>>,
    ) -> Self {
        let mut rows = Vec::new();
        let mut cells = 0;
        for interest in interest_of {
            rows.push((interest.unwrap_or(NO_INTEREST), cells as u32));
            cells += interest.map_or(0, |index| interests[usize::from(index)].streams().len());
        }
        Self {
            streams,
            interests,
            rows,
            next: vec![FRESH; cells],
            // Nobody's.
            latest: Latest { connection: u32::MAX, stream: u16::MAX, cell: usize::MAX },
            gaps: BTreeMap::new(),
            missed: Vec::new(),
            missed_unlisted: 0,
            faults: Faults::default(),
        }
    }

    /// The connection must get everything from the first publication on.
    pub(crate) fn expect_all(&mut self, connection: u32) {
        self.row(connection).fill(0);
    }

    /// Whatever the connection gets first is its beginning.
    pub(crate) fn expect_any(&mut self, connection: u32) {
        self.row(connection).fill(FRESH);
    }

    /// Publication `number` of `stream` has arrived.
    #[inline]
    pub(crate) fn observe(&mut self, connection: u32, stream: u16, number: u64) -> Verdict {
        if (self.latest.connection, self.latest.stream) != (connection, stream) {
            let Some(cell) = self.cell(connection, stream) else {
                self.faults.foreign += 1;
                return Verdict::Faulty;
            };
            self.latest = Latest { connection, stream, cell };
        }
        let cell = self.latest.cell;
        let expected = self.next[cell];
        if number == expected || expected == FRESH {
            self.next[cell] = number + 1;
            return Verdict::Advanced;
        }
        self.out_of_line(connection, stream, number, cell)
    }

    /// The next number expected of a stream; `None` before the first, or without interest.
    pub(crate) fn expected(&self, connection: u32, stream: u16) -> Option<u64> {
        self.cell(connection, stream).map(|cell| self.next[cell]).filter(|&next| next != FRESH)
    }

    /// The connection shall get this stream.
    pub(crate) fn is_wanted(&self, connection: u32, stream: u16) -> bool {
        self.cell(connection, stream).is_some()
    }

    /// From now on this number is expected of the stream; `None`: whatever comes first.
    pub(crate) fn place(&mut self, connection: u32, stream: u16, next: Option<u64>) {
        if let Some(cell) = self.cell(connection, stream) {
            self.next[cell] = next.unwrap_or(FRESH);
        }
    }

    /// The server has said that `from` to `to` will not come. Whether the gap begins where the
    /// connection stands; what lies between is lost.
    pub(crate) fn gap_told(&mut self, connection: u32, stream: u16, from: u64, to: u64) -> bool {
        let Some(cell) = self.cell(connection, stream) else { return false };
        let expected = self.next[cell];
        if expected != FRESH && from < expected {
            return false;
        }
        self.next[cell] = to.saturating_add(1);
        if expected != FRESH && from > expected {
            self.note_missed(Missed { connection, stream, from: expected, to: from - 1 });
            return false;
        }
        true
    }

    /// The stream with this name.
    pub(crate) fn stream_named(&self, name: &str) -> Option<u16> {
        self.stream_of(name.as_bytes())
    }

    /// The same, of a name that may be none.
    pub(crate) fn stream_of(&self, name: &[u8]) -> Option<u16> {
        let at = self.streams.names.iter().position(|known| known.as_bytes() == name)?;
        Some(at as u16)
    }

    /// A stream's name.
    pub(crate) fn name(&self, stream: u16) -> &str {
        &self.streams.names[usize::from(stream)]
    }

    /// A stream's kind.
    pub(crate) fn kind(&self, stream: u16) -> StreamKind {
        self.streams.kinds[usize::from(stream)]
    }

    /// The streams that the connection shall get.
    pub(crate) fn wanted(&self, connection: u32) -> &[u16] {
        self.streams_of(connection).map_or(&[], |(streams, _)| streams)
    }

    /// Cells of all connections together.
    pub(crate) fn cells(&self) -> usize {
        self.next.len()
    }

    /// The connection has left: its open gaps can no longer close.
    pub(crate) fn leave(&mut self, connection: u32) {
        let range = (connection, 0, 0)..=(connection, u16::MAX, u64::MAX);
        let open: Vec<_> = self.gaps.range(range).map(|(&key, &to)| (key, to)).collect();
        for ((_, stream, from), to) in open {
            self.gaps.remove(&(connection, stream, from));
            self.note_missed(Missed { connection, stream, from, to });
        }
    }

    /// Whether the connection has got the last of everything, `published` numbers of each stream.
    pub(crate) fn is_complete(&self, connection: u32, published: impl Fn(u16) -> u64) -> bool {
        let Some((streams, row)) = self.streams_of(connection) else { return true };
        let mut cells = streams.iter().zip(&self.next[row..]);
        cells.all(|(&stream, &next)| next == FRESH || next >= published(stream))
    }

    /// Counts what the connection has not got by the end.
    pub(crate) fn settle(&mut self, connection: u32, published: impl Fn(u16) -> u64) {
        self.leave(connection);
        let Some((streams, row)) = self.streams_of(connection) else { return };
        let tails: Vec<_> = streams
            .iter()
            .zip(&self.next[row..])
            .filter(|&(&stream, &next)| next != FRESH && next < published(stream))
            .map(|(&stream, &next)| Missed {
                connection,
                stream,
                from: next,
                to: published(stream) - 1,
            })
            .collect();
        for mut missed in tails {
            if self.streams.kinds[usize::from(missed.stream)] == StreamKind::Value {
                // Only the last one had to arrive.
                self.faults.skipped += missed.to - missed.from;
                missed.from = missed.to;
            }
            self.note_missed(missed);
        }
    }

    /// Ranges skipped that may still come.
    pub(crate) fn gaps_open(&self) -> u64 {
        self.gaps.len() as u64
    }

    /// What was missed, by connection; at most [`MISSED_MAX`] ranges.
    pub(crate) fn into_missed(self) -> Vec<Missed> {
        self.missed
    }

    #[cold]
    fn out_of_line(&mut self, connection: u32, stream: u16, number: u64, cell: usize) -> Verdict {
        let expected = self.next[cell];
        let kind = self.streams.kinds[usize::from(stream)];
        if number > expected {
            if number - expected > GAP_MAX {
                // No gap is that long: the number itself is damaged.
                self.faults.damaged += 1;
                return Verdict::Faulty;
            }
            self.next[cell] = number + 1;
            match kind {
                StreamKind::Value => self.faults.skipped += number - expected,
                _ if self.gaps.len() < MISSED_MAX => {
                    self.gaps.insert((connection, stream, expected), number - 1);
                }
                StreamKind::Event | StreamKind::Delta => {
                    let to = number - 1;
                    self.note_missed(Missed { connection, stream, from: expected, to });
                }
            }
            return Verdict::Advanced;
        }
        let before = (connection, stream, 0)..=(connection, stream, number);
        let gap = self.gaps.range(before).next_back().map(|(&key, &to)| (key, to));
        match gap {
            Some((key, to)) if number <= to => {
                self.faults.reordered += 1;
                self.gaps.remove(&key);
                let (_, _, from) = key;
                if from < number {
                    self.gaps.insert(key, number - 1);
                }
                if number < to {
                    self.gaps.insert((connection, stream, number + 1), to);
                }
            }
            _ if kind == StreamKind::Value && number + 1 < expected => self.faults.reordered += 1,
            _ => self.faults.duplicated += 1,
        }
        Verdict::Faulty
    }

    /// Counts and lists what can no longer arrive.
    pub(crate) fn note_missed(&mut self, missed: Missed) {
        self.faults.lost = self.faults.lost.saturating_add(missed.to - missed.from + 1);
        let is_full = self.missed.len() >= MISSED_MAX;
        match self.missed.last_mut() {
            Some(last)
                if last.connection == missed.connection
                    && last.stream == missed.stream
                    && last.to + 1 == missed.from =>
            {
                last.to = missed.to;
            }
            _ if is_full => self.missed_unlisted += 1,
            _ => self.missed.push(missed),
        }
    }

    /// Where what is known of one connection and one stream is kept.
    #[inline]
    pub(crate) fn cell(&self, connection: u32, stream: u16) -> Option<usize> {
        let (interest, row) = self.rows[connection as usize];
        let column = self.interests.get(usize::from(interest))?.column(stream)?;
        Some(row as usize + column)
    }

    fn streams_of(&self, connection: u32) -> Option<(&[u16], usize)> {
        let (interest, row) = self.rows[connection as usize];
        let interest = self.interests.get(usize::from(interest))?;
        Some((interest.streams(), row as usize))
    }

    fn row(&mut self, connection: u32) -> &mut [u64] {
        let Some((streams, row)) = self.streams_of(connection) else { return &mut [] };
        let columns = streams.len();
        &mut self.next[row..row + columns]
    }
}

/// Nothing has arrived yet, and anything may be the first. No stream gets that far.
const FRESH: u64 = u64::MAX;
/// Of a connection that shall get nothing.
const NO_INTEREST: u16 = u16::MAX;
/// The longest gap believed: an hour of a million publications a second.
const GAP_MAX: u64 = 1 << 32;
/// Ranges listed per thread, and gaps open at a time; more are only counted.
pub(crate) const MISSED_MAX: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(kind: StreamKind) -> Ledger {
        let streams = Streams { names: vec!["a".into(), "b".into()], kinds: vec![kind; 2] };
        let interests = [Interest::new(2, |_| true), Interest::new(2, |stream| stream == 1)];
        let of = [Some(0), Some(1), None].into_iter();
        Ledger::new(Arc::new(streams), Arc::from(interests), of)
    }

    #[test]
    fn order_is_clean_and_the_end_is_demanded() {
        let mut ledger = ledger(StreamKind::Event);
        ledger.expect_all(0);
        for number in 0..5 {
            assert_eq!(ledger.observe(0, 0, number), Verdict::Advanced);
        }
        assert!(!ledger.is_complete(0, |_| 5));
        assert!(ledger.is_complete(0, |stream| if stream == 0 { 5 } else { 0 }));
        ledger.settle(0, |stream| if stream == 0 { 7 } else { 2 });
        assert_eq!(ledger.faults, Faults { lost: 4, ..Faults::default() });
        let missed = ledger.into_missed();
        assert_eq!(missed[0], Missed { connection: 0, stream: 0, from: 5, to: 6 });
        assert_eq!(missed[1], Missed { connection: 0, stream: 1, from: 0, to: 1 });
    }

    #[test]
    fn gaps_that_close_are_reorderings_and_repeats_are_duplicates() {
        let mut ledger = ledger(StreamKind::Event);
        ledger.expect_any(1);
        for number in [10, 11, 15, 13, 13, 12, 16, 11] {
            ledger.observe(1, 1, number);
        }
        assert_eq!((ledger.faults.reordered, ledger.faults.duplicated), (2, 2));
        ledger.leave(1);
        assert_eq!(ledger.faults.lost, 1);
        assert_eq!(ledger.into_missed(), [Missed { connection: 1, stream: 1, from: 14, to: 14 }]);
    }

    #[test]
    fn values_may_skip_but_not_go_back_and_the_last_must_come() {
        let mut ledger = ledger(StreamKind::Value);
        ledger.expect_all(1);
        for number in [3, 9, 7] {
            ledger.observe(1, 1, number);
        }
        assert_eq!((ledger.faults.skipped, ledger.faults.reordered), (8, 1));
        assert!(ledger.is_complete(1, |_| 10));
        ledger.settle(1, |_| 13);
        assert_eq!((ledger.faults.lost, ledger.faults.skipped), (1, 10));
    }

    #[test]
    fn a_number_beyond_reason_is_damage_and_changes_nothing() {
        let mut ledger = ledger(StreamKind::Event);
        ledger.expect_all(0);
        assert_eq!(ledger.observe(0, 0, 1 << 47), Verdict::Faulty);
        assert_eq!(ledger.observe(0, 0, 0), Verdict::Advanced);
        assert_eq!(ledger.faults, Faults { damaged: 1, ..Faults::default() });
    }

    #[test]
    fn what_was_not_asked_for_is_foreign() {
        let mut ledger = ledger(StreamKind::Event);
        assert_eq!(ledger.observe(1, 0, 0), Verdict::Faulty);
        assert_eq!(ledger.observe(2, 0, 0), Verdict::Faulty);
        assert_eq!(ledger.observe(0, 9, 0), Verdict::Faulty);
        assert_eq!(ledger.faults.foreign, 3);
        ledger.settle(2, |_| 5);
        assert_eq!(ledger.faults.lost, 0);
    }

    #[test]
    fn a_gap_told_must_begin_where_the_connection_stands() {
        let mut ledger = ledger(StreamKind::Delta);
        ledger.expect_all(1);
        assert_eq!(ledger.observe(1, 1, 0), Verdict::Advanced);
        assert!(ledger.gap_told(1, 1, 1, 9));
        assert_eq!(ledger.observe(1, 1, 10), Verdict::Advanced);
        assert_eq!(ledger.faults, Faults::default());
        assert!(!ledger.gap_told(1, 1, 5, 20), "it has those");
        assert_eq!(ledger.expected(1, 1), Some(11));
        assert!(!ledger.gap_told(1, 1, 13, 20), "11 and 12 are missing");
        assert_eq!((ledger.faults.lost, ledger.expected(1, 1)), (2, Some(21)));
        assert!(!ledger.gap_told(0, 9, 1, 2) && !ledger.gap_told(1, 0, 1, 2), "not its own");
        ledger.place(1, 1, None);
        assert!(ledger.gap_told(1, 1, 40, 41), "anything may come first");
    }
}
