//! The live page's figures: sums over all shards.
//!
//! Knows: which figures the page shows. Must not know: the page, HTTP.

use serde::Serialize;

use crate::{
    clock,
    counters::{Counter, Counters, TIME_BUCKETS_US},
    shared::{Shared, Stage},
};

/// `GET /v1/stats`. Totals since the start; the page takes differences.
#[derive(Debug, Serialize)]
pub(super) struct Stats {
    version: &'static str,
    stage: &'static str,
    reactors: usize,
    /// Where the page finds `/ws`.
    data_port: u16,
    connections: u64,
    subscribers: u64,
    publishers: u64,
    lagging: u64,
    /// Of the shard that knows most: every shard knows every topic.
    topics: u64,
    publications: u64,
    deliveries: u64,
    sends: u64,
    sent_bytes: u64,
    skipped: u64,
    overloaded: bool,
    /// Upper bounds, µs; the last bucket of the counts has none.
    publish_to_last_send_us: [u64; TIME_BUCKETS_US.len()],
    publish_to_last_send: Vec<u64>,
}

pub(super) fn stats(shared: &Shared, data_port: u16) -> Stats {
    let sum = |figure: fn(&Counters) -> &Counter| {
        shared.counters.iter().map(|shard| figure(shard).value()).sum()
    };
    let bucket = |index: usize| {
        let of = |shard: &Counters| shard.publish_to_last_send.buckets[index].value();
        shared.counters.iter().map(of).sum()
    };
    Stats {
        version: env!("CARGO_PKG_VERSION"),
        stage: match shared.stage() {
            Stage::Starting => "starting",
            Stage::Ready => "ready",
            Stage::Draining => "draining",
            Stage::Aborting => "aborting",
        },
        reactors: shared.counters.len(),
        data_port,
        connections: sum(|shard| &shard.connections),
        subscribers: sum(|shard| &shard.subscribers),
        publishers: sum(|shard| &shard.publishers),
        lagging: sum(|shard| &shard.lagging),
        topics: shared.counters.iter().map(|shard| shard.topics.value()).max().unwrap_or(0),
        publications: sum(|shard| &shard.publications),
        deliveries: sum(|shard| &shard.deliveries),
        sends: sum(|shard| &shard.sends),
        sent_bytes: sum(|shard| &shard.sent_bytes),
        skipped: sum(|shard| &shard.skipped),
        overloaded: shared.any_overloaded() || shared.late.any(clock::now().ns),
        publish_to_last_send_us: TIME_BUCKETS_US,
        publish_to_last_send: (0..=TIME_BUCKETS_US.len()).map(bucket).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_summed_but_topics_are_not() {
        let shared = Shared::new(2, 0);
        for shard in &shared.counters {
            shard.connections.set(5);
            shard.topics.set(7);
            shard.publish_to_last_send.record_ns(1);
        }
        let stats = stats(&shared, 9001);
        assert_eq!((stats.connections, stats.topics, stats.stage), (10, 7, "starting"));
        assert_eq!(stats.publish_to_last_send[0], 2);
    }
}
