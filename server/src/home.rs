//! Which shard is a topic's home.
//!
//! Knows: names and how many shards there are. Must not know: what a home does.

use std::hash::BuildHasher as _;

use foldhash::quality::FixedState;

use crate::ids::NodeId;

/// A topic name's hash: the same on every shard, new at each start of the process.
pub fn topic_hash(seed: u64, name: &str) -> u64 {
    FixedState::with_seed(seed).hash_one(name)
}

/// The shard that orders a topic's publications.
pub fn home_of(hash: u64, shards: usize) -> NodeId {
    // The high bits: the low ones choose the bucket in the shards' tables.
    NodeId(((u128::from(hash) * shards as u128) >> 64) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_is_home_to_its_share() {
        let mut homes = [0; 7];
        for i in 0..7_000 {
            homes[usize::from(home_of(topic_hash(1, &format!("md.{i}")), 7).0)] += 1;
        }
        assert!(homes.iter().all(|&n| n > 800), "{homes:?}");
    }
}
