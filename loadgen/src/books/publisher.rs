//! The publisher's side: which snapshot is due when.
//!
//! Knows: the publisher's books, their schedule. Must not know: sockets, subscribers.

use std::sync::Arc;

use super::market::{Market, PublishersBook};
use super::prologue::snapshot_line;
use crate::recorded::Message;

/// The books of one connection that publishes, and when each is published whole.
pub(crate) struct PublishersBooks {
    market: Arc<Market>,
    /// By book, and the update id of the last snapshot.
    books: Vec<(PublishersBook, u64)>,
    /// From one snapshot to the next, of whichever book: each has its turn.
    step_ns: u64,
    /// Snapshots that have been due so far.
    turns: u64,
}

impl PublishersBooks {
    /// Each is due every `every_ns`.
    pub(crate) fn new(market: &Arc<Market>, every_ns: u64) -> Self {
        let begin = |book| (PublishersBook::new(book), book.update_id);
        let books: Vec<_> = market.origins.iter().map(|origin| begin(&origin.book)).collect();
        let step_ns = (every_ns / books.len() as u64).max(1);
        Self { market: Arc::clone(market), books, step_ns, turns: 0 }
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

    /// The line that publishes the book whose turn it is; `None` if nothing has changed in it.
    pub(crate) fn snapshot(&mut self, topics: &[String]) -> Option<Vec<u8>> {
        let at = self.turns as usize % self.books.len();
        self.turns += 1;
        let (book, shown) = &mut self.books[at];
        if std::mem::replace(shown, book.update_id) == book.update_id {
            return None;
        }
        let topic = &topics[usize::from(self.market.origins[at].stream)];
        Some(snapshot_line(topic, book.update_id, |line| book.write_snapshot(line)))
    }
}
