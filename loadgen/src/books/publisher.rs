//! The publisher's side: which snapshot is due when.
//!
//! Knows: the publisher's books, their schedule. Must not know: sockets, subscribers.

use std::sync::Arc;

use super::market::{Market, PublishersBook};
use super::prologue::snapshot_line;
use crate::recorded::Message;
use crate::source::NEVER;

/// The books of one connection that publishes, and when each is published whole.
pub(crate) struct PublishersBooks {
    market: Arc<Market>,
    /// By book, and the update id of the last snapshot.
    books: Vec<(PublishersBook, u64)>,
    /// From one snapshot to the next, of whichever book: each has its turn.
    step_ns: u64,
    /// Snapshots that have been due so far.
    turns: u64,
    /// Books published for the last time.
    last_ones: usize,
}

impl PublishersBooks {
    /// Each is due every `every_ns`.
    pub(crate) fn new(market: &Arc<Market>, every_ns: u64) -> Self {
        let begin = |book| (PublishersBook::new(book), book.update_id);
        let books: Vec<_> = market.origins.iter().map(|origin| begin(&origin.book)).collect();
        let step_ns = (every_ns / books.len() as u64).max(1);
        Self { market: Arc::clone(market), books, step_ns, turns: 0, last_ones: 0 }
    }

    /// When the next snapshot is due.
    pub(crate) fn due_ns(&self, start_ns: u64) -> u64 {
        start_ns.saturating_add((self.turns + 1).saturating_mul(self.step_ns))
    }

    /// A message is being published: its `pub_seq`, if it is an update of a book.
    pub(crate) fn apply(&mut self, message: &Message) -> Option<u64> {
        let book = self.market.book_of[usize::from(message.stream)]?;
        let update = self.market.update(book, message.number);
        self.books[usize::from(book)].0.apply(&update);
        Some(update.last)
    }

    /// Whether there are books left to be published for the last time: who comes later, or has fallen
    /// behind what is in history, would wait for a snapshot for ever.
    pub(crate) fn has_last(&self) -> bool {
        self.last_ones < self.books.len()
    }

    /// The book that is to be published now, before the message that is intended then, or behind the
    /// last one ([`NEVER`]).
    pub(crate) fn next(&mut self, intended_ns: u64, now_ns: u64, start_ns: u64) -> Option<usize> {
        if intended_ns != NEVER {
            let is_due = self.due_ns(start_ns) <= now_ns.min(intended_ns);
            let at = self.turns as usize % self.books.len();
            self.turns += u64::from(is_due);
            return is_due.then_some(at);
        }
        let at = self.last_ones;
        self.last_ones += usize::from(self.has_last());
        (at < self.books.len()).then_some(at)
    }

    /// The line that publishes a book; `None` if nothing has changed in it.
    pub(crate) fn line(&mut self, at: usize, topics: &[String]) -> Option<Vec<u8>> {
        let (book, shown) = &mut self.books[at];
        if std::mem::replace(shown, book.update_id) == book.update_id {
            return None;
        }
        let topic = &topics[usize::from(self.market.origins[at].stream)];
        Some(snapshot_line(topic, book.update_id, |line| book.write_snapshot(line)))
    }
}
