//! Books in which subscribers stand: one for each different state, shared by all who come through.
//!
//! Knows: states and the steps between them. Must not know: topics' names, seq, connections.
//!
//! Thousands of subscribers rebuild the same few books from the same messages. Every one's book is
//! what *its* snapshot and *its* updates make it, but equal steps (the same update on the same
//! state) are calculated once: a state remembers which one followed, and hands its levels on to it.
//! Whoever comes later follows the links. A subscriber that got something else than the others goes
//! ways of its own: the levels of the state where they part are calculated again from the snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use super::book::{Book, Link};
use super::market::Market;

/// Names a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateId(u32);

/// Some 32 bytes, for each step ever calculated.
struct State {
    /// By which update it was reached, and from where; a snapshot's index if by none.
    from: Result<(StateId, u32), u32>,
    /// By which update the last one left, how that fitted, and where it led.
    next: Option<(u32, Link, StateId)>,
    /// The levels, if they are here.
    book: Option<Box<Book>>,
}

/// One thread's states.
pub(crate) struct Shelf {
    market: Arc<Market>,
    states: Vec<State>,
    /// What snapshots said.
    snapshots: Vec<Book>,
    /// By book, length and hash of a snapshot's text: the state that it makes.
    begins: HashMap<(u16, u64, u64), StateId>,
    /// Steps calculated, and steps taken over.
    pub(crate) calculated: u64,
    pub(crate) shared: u64,
}

impl Shelf {
    pub(crate) fn new(market: Arc<Market>) -> Self {
        Self {
            market,
            states: Vec::new(),
            snapshots: Vec::new(),
            begins: HashMap::new(),
            calculated: 0,
            shared: 0,
        }
    }

    /// The levels of a state.
    pub(crate) fn levels(&mut self, id: StateId, book: u16) -> &Book {
        if self.states[id.0 as usize].book.is_none() {
            let levels = self.take(id, book);
            self.states[id.0 as usize].book = Some(levels);
        }
        self.states[id.0 as usize].book.as_deref().expect("just put there")
    }

    /// Enters the state that a snapshot makes. `name` tells texts apart.
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
        if let Some(&id) = self.begins.get(&name) {
            self.shared += 1;
            return Ok(id);
        }
        let snapshot = parse()?;
        let from = Err(self.snapshots.len() as u32);
        self.snapshots.push(snapshot);
        let id = self.add(State { from, next: None, book: None });
        self.begins.insert(name, id);
        Ok(id)
    }

    /// Goes on from a state by an update.
    #[inline]
    pub(crate) fn step(&mut self, id: StateId, book: u16, number: u32) -> (StateId, Link) {
        if let Some((by, link, to)) = self.states[id.0 as usize].next
            && by == number
        {
            self.shared += 1;
            return (to, link);
        }
        self.calculate(id, book, number)
    }

    fn calculate(&mut self, id: StateId, book: u16, number: u32) -> (StateId, Link) {
        let mut levels = self.take(id, book);
        let link = levels.apply(&self.market.update(book, number));
        let to = self.add(State { from: Ok((id, number)), next: None, book: Some(levels) });
        self.states[id.0 as usize].next = Some((number, link, to));
        (to, link)
    }

    /// A state's levels, out of it, or calculated from the nearest state before that has them.
    fn take(&mut self, id: StateId, book: u16) -> Box<Book> {
        let mut updates = Vec::new();
        let mut at = id;
        let mut levels = loop {
            let is_asked = at == id;
            let state = &mut self.states[at.0 as usize];
            match (&mut state.book, state.from) {
                (Some(_), _) if is_asked => break state.book.take().expect("it was just seen"),
                (Some(levels), _) => break levels.clone(),
                (None, Ok((before, number))) => {
                    updates.push(number);
                    at = before;
                }
                (None, Err(snapshot)) => {
                    break Box::new(self.snapshots[snapshot as usize].clone());
                }
            }
        };
        for &number in updates.iter().rev() {
            levels.apply(&self.market.update(book, number));
        }
        levels
    }

    fn add(&mut self, state: State) -> StateId {
        self.calculated += 1;
        self.states.push(state);
        StateId(self.states.len() as u32 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::market::parse_snapshot;

    /// Five updates, the n-th of which sets the bid at n.
    fn shelf() -> Shelf {
        let update =
            |number: u64| format!(r#"{{"U":{number},"u":{number},"b":[["{number}","1"]],"a":[]}}"#);
        let updates: Vec<_> = (1..=5).map(update).collect();
        let texts = updates.iter().map(String::as_bytes);
        Shelf::new(Arc::new(Market::of_one(SNAPSHOT, texts)))
    }

    fn begin(shelf: &mut Shelf) -> StateId {
        shelf.begin(0, (1, 1), || parse_snapshot(SNAPSHOT)).expect("a snapshot")
    }

    const SNAPSHOT: &[u8] = br#"{"lastUpdateId":0,"bids":[],"asks":[["9","1"]]}"#;

    #[test]
    fn equal_ways_are_gone_once_and_others_apart() {
        let mut shelf = shelf();
        let (mut first, mut second) = (begin(&mut shelf), begin(&mut shelf));
        for number in 0..5 {
            let link;
            (first, link) = shelf.step(first, 0, number);
            assert_eq!(link, Link::Holds);
        }
        assert_eq!((shelf.calculated, shelf.shared), (6, 1));
        // The second never gets the third.
        for (number, expected) in
            [(0, Link::Holds), (1, Link::Holds), (3, Link::Broken), (4, Link::Holds)]
        {
            let link;
            (second, link) = shelf.step(second, 0, number);
            assert_eq!(link, expected, "{number}");
        }
        assert_eq!((shelf.calculated, shelf.shared), (8, 3));
        let prices =
            |book: &Book| book.bids.iter().map(|bid| bid.price / 100_000_000).collect::<Vec<_>>();
        assert_eq!(prices(shelf.levels(second, 0)), [1, 2, 4, 5]);
        assert_eq!(prices(shelf.levels(first, 0)), [1, 2, 3, 4, 5]);
        let again = begin(&mut shelf);
        assert!(prices(shelf.levels(again, 0)).is_empty(), "what the snapshot said");
    }
}
