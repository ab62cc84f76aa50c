//! Connections by index, each index with a generation that rises when it is freed.
//!
//! Knows: indices and generations. Must not know: what a connection does.

use slab::Slab;

use crate::{conn::Connection, ids::ConnectionId};

/// All connections of a shard.
#[derive(Debug, Default)]
pub struct Table {
    slab: Slab<Connection>,
    generations: Vec<u32>,
}

/// Generations as the ring carries them.
const GENERATION_MASK: u32 = (1 << 24) - 1;

impl Table {
    /// With room for so many, so that the table never moves: growing by doubling would leave as much
    /// again behind. Memory is only touched as connections come.
    pub fn with_capacity(connections: usize) -> Self {
        Self {
            slab: Slab::with_capacity(connections),
            generations: Vec::with_capacity(connections),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// One above the highest index ever used.
    pub fn end(&self) -> u32 {
        self.generations.len() as u32
    }

    /// Takes a connection in.
    pub fn insert(&mut self, connection: Connection) -> ConnectionId {
        let index = self.slab.insert(connection);
        if index == self.generations.len() {
            self.generations.push(0);
        }
        ConnectionId { index: index as u32, generation: self.generations[index] }
    }

    /// Frees a connection's index; no operation of it may be in the kernel.
    pub fn remove(&mut self, id: ConnectionId) {
        if self.find(id).is_some() {
            debug_assert!(!self.slab[id.index as usize].is_armed(), "freed while armed");
            self.slab.remove(id.index as usize);
            let generation = &mut self.generations[id.index as usize];
            *generation = (*generation + 1) & GENERATION_MASK;
        }
    }

    /// A connection, if that is still the one.
    pub fn find(&self, id: ConnectionId) -> Option<&Connection> {
        (*self.generations.get(id.index as usize)? == id.generation)
            .then(|| self.slab.get(id.index as usize))
            .flatten()
    }

    /// A connection to be changed, if that is still the one.
    pub fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        (*self.generations.get(id.index as usize)? == id.generation)
            .then(|| self.slab.get_mut(id.index as usize))
            .flatten()
    }

    /// Who has this index now.
    pub fn id_at(&self, index: u32) -> Option<ConnectionId> {
        self.slab
            .contains(index as usize)
            .then(|| ConnectionId { index, generation: self.generations[index as usize] })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.slab.iter().map(|(index, connection)| {
            let generation = self.generations[index];
            (ConnectionId { index: index as u32, generation }, connection)
        })
    }
}

#[cfg(test)]
mod tests {
    use uringcast_ring::Slot;

    use super::*;

    #[test]
    fn a_late_name_names_nobody() {
        let mut table = Table::default();
        let peer = "127.0.0.1:1".parse().expect("an address");
        let first = table.insert(Connection::new(Slot(7), peer, false));
        table.remove(first);
        let second = table.insert(Connection::new(Slot(8), peer, false));
        assert_eq!(first.index, second.index);
        assert!(table.find(first).is_none());
        assert_eq!(table.find(second).map(|c| c.slot), Some(Slot(8)));
        table.remove(first);
        assert!(table.find(second).is_some());
    }
}
