//! The recorded books: every update taken apart once, and the publisher's own books.
//!
//! Knows: the exchange's JSON of depth updates and snapshots. Must not know: subscribers, sockets.
//!
//! The publisher keeps its books in another way than subscribers do (a map by price), so that a
//! mistake of one is not the other's too.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;

use serde::Deserialize;
use thiserror::Error;

use super::book::{Book, Level, Update, decimal, units};
use crate::recorded::Recording;

/// All depth streams of a recording.
pub(crate) struct Market {
    /// By stream: its number among the books.
    pub(crate) book_of: Vec<Option<u16>>,
    /// By book.
    pub(crate) origins: Vec<Origin>,
    levels: Vec<Level>,
}

/// A depth stream.
pub(crate) struct Origin {
    pub(crate) stream: u16,
    /// The snapshot that the recorder fetched: the JSON as recorded.
    pub(crate) snapshot: Vec<u8>,
    pub(crate) book: Book,
    /// By the message's number.
    updates: Vec<Entry>,
}

struct Entry {
    first: u64,
    last: u64,
    previous: Option<u64>,
    bids: Range<u32>,
    asks: Range<u32>,
}

/// Why a recording's books can't be rebuilt.
#[derive(Debug, Error)]
pub(crate) enum MarketError {
    /// A message of a depth stream.
    #[error("message {number} of {topic} is no depth update: {error}")]
    Message { topic: String, number: u32, error: String },
    /// There is no depth stream.
    #[error("no topic matches --delta")]
    NoBook,
    /// A depth stream without a line to begin from.
    #[error("{topic} has no snapshot (a line with lastUpdateId, bids and asks, but no wrapper)")]
    NoSnapshot { topic: String },
    /// The line to begin from.
    #[error("the snapshot of {topic}: {error}")]
    Snapshot { topic: String, error: String },
}

#[derive(Deserialize)]
struct DepthUpdate<'a> {
    #[serde(rename = "U")]
    first: u64,
    #[serde(rename = "u")]
    last: u64,
    #[serde(rename = "pu")]
    previous: Option<u64>,
    #[serde(rename = "b", borrow)]
    bids: Vec<[&'a str; 2]>,
    #[serde(rename = "a", borrow)]
    asks: Vec<[&'a str; 2]>,
}

#[derive(Deserialize)]
struct DepthSnapshot<'a> {
    #[serde(rename = "lastUpdateId")]
    update_id: u64,
    #[serde(borrow)]
    bids: Vec<[&'a str; 2]>,
    #[serde(borrow)]
    asks: Vec<[&'a str; 2]>,
}

impl Market {
    /// Takes apart the messages of the streams for which `is_book` says so.
    ///
    /// # Errors
    /// [`MarketError`].
    pub(crate) fn new(
        recording: &Recording,
        is_book: impl Fn(&str) -> bool,
    ) -> Result<Self, MarketError> {
        let mut market = Self { book_of: Vec::new(), origins: Vec::new(), levels: Vec::new() };
        for (stream, topic) in recording.topics.iter().enumerate() {
            if !is_book(topic) {
                market.book_of.push(None);
                continue;
            }
            let is_of =
                |prefix: &str| topic.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
            let snapshot = recording
                .unwrapped
                .iter()
                .find(|(prefix, json)| is_of(prefix) && json.contains("\"lastUpdateId\""))
                .ok_or_else(|| MarketError::NoSnapshot { topic: topic.clone() })?;
            let snapshot = snapshot.1.as_bytes().to_vec();
            let book = parse_snapshot(&snapshot)
                .map_err(|error| MarketError::Snapshot { topic: topic.clone(), error })?;
            market.book_of.push(Some(market.origins.len() as u16));
            let stream = stream as u16;
            market.origins.push(Origin { stream, snapshot, book, updates: Vec::new() });
        }
        if market.origins.is_empty() {
            return Err(MarketError::NoBook);
        }
        for message in &recording.messages {
            let Some(book) = market.book_of[usize::from(message.stream)] else { continue };
            let added = market.add(book, recording.payload(message));
            added.map_err(|error| MarketError::Message {
                topic: recording.topics[usize::from(message.stream)].clone(),
                number: message.number,
                error,
            })?;
        }
        Ok(market)
    }

    /// One book, stream 0.
    #[cfg(test)]
    pub(super) fn of_one<'a>(snapshot: &[u8], updates: impl Iterator<Item = &'a [u8]>) -> Self {
        let book = parse_snapshot(snapshot).expect("a snapshot");
        let origin = Origin { stream: 0, snapshot: snapshot.to_vec(), book, updates: Vec::new() };
        let mut market = Self { book_of: vec![Some(0)], origins: vec![origin], levels: Vec::new() };
        for update in updates {
            market.add(0, update).expect("an update");
        }
        market
    }

    fn add(&mut self, book: u16, payload: &[u8]) -> Result<(), String> {
        let update: DepthUpdate<'_> =
            serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let mut keep = |side: &[[&str; 2]]| {
            let start = self.levels.len() as u32;
            self.levels.extend(levels(side)?);
            Ok::<_, String>(start..self.levels.len() as u32)
        };
        let (bids, asks) = (keep(&update.bids)?, keep(&update.asks)?);
        let DepthUpdate { first, last, previous, .. } = update;
        let entry = Entry { first, last, previous, bids, asks };
        self.origins[usize::from(book)].updates.push(entry);
        Ok(())
    }

    /// The update with this number.
    pub(crate) fn update(&self, book: u16, number: u32) -> Update<'_> {
        let entry = &self.origins[usize::from(book)].updates[number as usize];
        let levels = |range: &Range<u32>| &self.levels[range.start as usize..range.end as usize];
        Update {
            first: entry.first,
            last: entry.last,
            previous: entry.previous,
            bids: levels(&entry.bids),
            asks: levels(&entry.asks),
        }
    }

    /// The publisher's book after so many updates.
    pub(crate) fn book_after(&self, book: u16, updates: u64) -> PublishersBook {
        let mut own = PublishersBook::new(&self.origins[usize::from(book)].book);
        for number in 0..updates as u32 {
            own.apply(&self.update(book, number));
        }
        own
    }
}

/// A book as its publisher keeps it.
#[derive(Clone, Debug)]
pub(crate) struct PublishersBook {
    /// The last event in it.
    pub(crate) update_id: u64,
    bids: BTreeMap<u64, u64>,
    asks: BTreeMap<u64, u64>,
}

impl PublishersBook {
    pub(crate) fn new(book: &Book) -> Self {
        let map = |side: &[Level]| side.iter().map(|level| (level.price, level.size)).collect();
        Self { update_id: book.update_id, bids: map(&book.bids), asks: map(&book.asks) }
    }

    /// Applies what the book does not have yet; the recording's chain is taken to hold.
    pub(crate) fn apply(&mut self, update: &Update<'_>) {
        if update.last <= self.update_id {
            return;
        }
        self.update_id = update.last;
        for (side, changes) in [(&mut self.bids, update.bids), (&mut self.asks, update.asks)] {
            for change in changes {
                if change.size == 0 {
                    side.remove(&change.price);
                } else {
                    side.insert(change.price, change.size);
                }
            }
        }
    }

    /// Bids and asks by rising price.
    pub(crate) fn sides(&self) -> (Vec<Level>, Vec<Level>) {
        let list = |side: &BTreeMap<u64, u64>| {
            side.iter().map(|(&price, &size)| Level { price, size }).collect()
        };
        (list(&self.bids), list(&self.asks))
    }

    /// Appends it in the form of the exchange's snapshots, best levels first.
    pub(crate) fn write_snapshot(&self, out: &mut Vec<u8>) {
        // Writing to a vector can't fail.
        let _ = write!(out, "{{\"lastUpdateId\":{},\"bids\":[", self.update_id);
        write_levels(out, self.bids.iter().rev());
        out.extend_from_slice(b"],\"asks\":[");
        write_levels(out, self.asks.iter());
        out.extend_from_slice(b"]}");
    }
}

/// Reads a snapshot in the exchange's form.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_snapshot(json: &[u8]) -> Result<Book, String> {
    let snapshot: DepthSnapshot<'_> =
        serde_json::from_slice(json).map_err(|error| error.to_string())?;
    Ok(Book::of_snapshot(snapshot.update_id, levels(&snapshot.bids)?, levels(&snapshot.asks)?))
}

fn write_levels<'a>(out: &mut Vec<u8>, side: impl Iterator<Item = (&'a u64, &'a u64)>) {
    for (at, (&price, &size)) in side.enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(out, "{comma}[\"{}\",\"{}\"]", decimal(price), decimal(size));
    }
}

fn levels(side: &[[&str; 2]]) -> Result<Vec<Level>, String> {
    let level = |[price, size]: &[&str; 2]| match (units(price), units(size)) {
        (Some(price), Some(size)) => Ok(Level { price, size }),
        _ => Err(format!("[{price}, {size}] should be decimal numbers")),
    };
    side.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_the_publishers_book_is_the_subscribers_book() {
        let json = br#"{"lastUpdateId":7,"bids":[["2.5","1"],["2.4","3"]],"asks":[["2.6","4"]]}"#;
        let book = parse_snapshot(json).expect("a snapshot");
        let mut own = PublishersBook::new(&book);
        let change = [Level { price: 240_000_000, size: 0 }];
        own.apply(&Update { first: 6, last: 7, previous: None, bids: &change, asks: &[] });
        assert_eq!(own.sides(), (book.bids.clone(), book.asks), "it has that already");
        own.apply(&Update { first: 8, last: 9, previous: None, bids: &change, asks: &[] });
        let mut text = Vec::new();
        own.write_snapshot(&mut text);
        let again = parse_snapshot(&text).expect("a snapshot");
        assert_eq!((again.bids.clone(), again.asks.clone()), own.sides());
        assert_eq!((again.update_id, again.bids.len()), (9, 1));
        assert!(parse_snapshot(br#"{"lastUpdateId":7,"bids":[["x","1"]],"asks":[]}"#).is_err());
    }
}
