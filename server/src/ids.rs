//! The small numbers that name things, and nothing else.
//!
//! Knows: nothing. Must not know: anything.

/// A connection on one shard: an index into its slab, and how often that index was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Slab index.
    pub index: u32,
    /// Rises when the index is freed, so that a late completion names nobody.
    pub generation: u32,
}

/// A shard: its place among the reactors, from 0. The control thread is the node after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

/// A topic on one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub u32);

/// An entry of interests on one shard: an exact topic name or a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u32);

/// A lane on one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u32);
