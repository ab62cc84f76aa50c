//! Books in which subscribers stand: one for each different state, shared by all who are in it.
//!
//! Knows: states and the steps between them. Must not know: topics' names, seq, connections.
//!
//! Thousands of subscribers rebuild the same few books from the same messages. Every one's book is
//! what *its* snapshot and *its* updates make it, but equal steps (the same update on the same
//! state) are calculated once: a state remembers which one followed. A subscriber that got
//! something else than the others gets a state of its own, and keeps it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use super::book::{Book, Link};
use super::market::Market;

/// Names a state that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StateId {
    key: u32,
    /// Keys are used again; this is not.
    unique: u64,
}

struct State {
    unique: u64,
    book: Book,
    /// Subscribers in it.
    holders: u32,
    /// By which update the last one left, how that fitted, and where it led.
    next: Option<(u32, Link, StateId)>,
}

/// One thread's states.
pub(crate) struct Shelf {
    market: Arc<Market>,
    states: Slab<State>,
    /// States that nobody is in are kept for those to come, up to [`RECENT_MAX`] of them.
    recent: VecDeque<StateId>,
    /// By book, update id and hash of a snapshot's text: the state that it makes.
    snapshots: HashMap<(u16, u64, u64), StateId>,
    made: u64,
    /// Steps calculated, and steps taken over.
    pub(crate) calculated: u64,
    pub(crate) shared: u64,
}

impl Shelf {
    pub(crate) fn new(market: Arc<Market>) -> Self {
        Self {
            market,
            states: Slab::new(),
            recent: VecDeque::new(),
            snapshots: HashMap::new(),
            made: 0,
            calculated: 0,
            shared: 0,
        }
    }

    /// The book of a state that is held.
    pub(crate) fn book(&self, id: StateId) -> &Book {
        &self.states[id.key as usize].book
    }

    /// Enters the state that a snapshot makes. `name` is a hash of its text.
    ///
    /// # Errors
    /// It is no snapshot.
    pub(crate) fn begin(
        &mut self,
        book: u16,
        name: (u64, u64),
        parse: impl FnOnce() -> Result<Book, String>,
    ) -> Result<StateId, String> {
        let name = (book, name.0, name.1);
        if let Some(&id) = self.snapshots.get(&name)
            && self.is_there(id)
        {
            self.hold(id);
            self.shared += 1;
            return Ok(id);
        }
        let id = self.make(parse()?);
        if self.snapshots.len() >= SNAPSHOTS_MAX {
            self.snapshots.clear();
        }
        self.snapshots.insert(name, id);
        Ok(id)
    }

    /// Goes on from a state by an update.
    #[inline]
    pub(crate) fn step(&mut self, from: StateId, book: u16, number: u32) -> (StateId, Link) {
        let known = self.states[from.key as usize].next;
        let (to, link) = match known {
            Some((by, link, to)) if by == number && self.is_there(to) => {
                self.hold(to);
                self.shared += 1;
                (to, link)
            }
            _ => {
                let mut next = self.states[from.key as usize].book.clone();
                let link = next.apply(&self.market.update(book, number));
                let to = self.make(next);
                self.states[from.key as usize].next = Some((number, link, to));
                (to, link)
            }
        };
        self.leave(from);
        (to, link)
    }

    /// A subscriber is no longer in a state.
    pub(crate) fn leave(&mut self, id: StateId) {
        let state = &mut self.states[id.key as usize];
        state.holders -= 1;
        if state.holders > 0 {
            return;
        }
        self.recent.push_back(id);
        while self.recent.len() > RECENT_MAX
            && let Some(old) = self.recent.pop_front()
        {
            // It may have been entered again since, and be further back in the queue.
            if self.is_there(old) && self.states[old.key as usize].holders == 0 {
                self.states.remove(old.key as usize);
            }
        }
    }

    fn make(&mut self, book: Book) -> StateId {
        self.made += 1;
        self.calculated += 1;
        let state = State { unique: self.made, book, holders: 1, next: None };
        StateId { key: self.states.insert(state) as u32, unique: self.made }
    }

    fn is_there(&self, id: StateId) -> bool {
        self.states.get(id.key as usize).is_some_and(|state| state.unique == id.unique)
    }

    fn hold(&mut self, id: StateId) {
        self.states[id.key as usize].holders += 1;
    }
}

/// States kept that nobody is in: some 30 MB.
const RECENT_MAX: usize = 512;
/// Snapshots remembered.
const SNAPSHOTS_MAX: usize = 4096;
