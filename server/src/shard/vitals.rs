//! What a shard holds, for tests that watch it come and go.
//!
//! Knows: the sizes of everything that grows. Must not know: what is done about them.

use uringcast_ring::Io;

use super::Shard;

/// What a shard holds. All but `topics` is 0 once everyone has left and the last timers are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Acknowledgements that publishers wait for.
    pub acks: usize,
    /// Connections, closing ones included.
    pub connections: usize,
    /// Names and patterns that someone is subscribed to.
    pub entries: usize,
    /// Publications out at the helper, and what waits behind them.
    pub held: usize,
    /// Lanes.
    pub lanes: usize,
    /// Bytes of all lanes' logs.
    pub log_bytes: u64,
    /// The most own output that one connection has, bytes.
    pub own_bytes_most: usize,
    /// Messages parked for nodes whose rings are full.
    pub parked: usize,
    /// Publishers who wait for the end of an overload, of all or of their topic's lanes.
    pub slowed: usize,
    /// Receives put off for want of buffers.
    pub starved: usize,
    /// Connections served by sweeps.
    pub sweeps: usize,
    /// Topics that were published to.
    pub topics: usize,
}

impl<I: Io> Shard<I> {
    /// What it holds now; walks all connections.
    pub fn vitals(&self) -> Vitals {
        let own_bytes = self
            .connections
            .iter()
            .filter_map(|(_, connection)| Some(connection.outbox.as_ref()?.bytes()));
        Vitals {
            acks: self.acks.len(),
            connections: self.connections.len(),
            entries: self.topics.names.entries_count(),
            held: self.held.count(),
            lanes: self.topics.lanes_count(),
            log_bytes: self.topics.memory.held_bytes,
            own_bytes_most: own_bytes.max().unwrap_or(0),
            parked: self.parked.iter().map(std::collections::VecDeque::len).sum(),
            slowed: self.overload.slowed(),
            starved: self.starved.len(),
            sweeps: self.sweeps.len(),
            topics: self.topics.names.topics_count(),
        }
    }

    /// The number of a topic's last publication here; 0 if there was none.
    pub fn topic_seq(&self, name: &str) -> u64 {
        let hash = self.topics.names.hash(name);
        self.topics.names.find(name, hash).map_or(0, |id| self.topics.names.topic(id).seq)
    }
}
