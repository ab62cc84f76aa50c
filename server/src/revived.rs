//! Topics as the journal has them, made ready for shards.
//!
//! Knows: what a shard needs of a topic that was there before the process. Must not know: shards, or
//! the journal's files.
//!
//! Every shard holds a topic's history by reference, so its blocks are made once, before the shards
//! start, and shared by all.

use std::sync::Arc;

use tracing::warn;
use uringcast_ring::pool::{Pool, PoolFull, PoolOptions};

use crate::{
    home::topic_hash,
    journal::{RestoredPublication, RestoredTopic},
    publication::{self, Order, Publication},
    topics::names::PastEpoch,
};

/// A topic that was there before the process.
#[derive(Debug)]
pub struct Revived {
    /// Its name.
    pub name: Box<str>,
    /// Its name's hash in this process.
    pub hash: u64,
    /// Drawn for this process.
    pub epoch: u64,
    /// The number before that of its next publication.
    pub seq: u64,
    /// Those before: positions in them hold up to the number that the journal has.
    pub past_epochs: Arc<[PastEpoch]>,
    /// The last publications, without a gap and up to `seq`, or none.
    pub publications: Vec<Publication>,
    /// The publisher's last snapshot.
    pub snapshot: Option<Publication>,
    /// Of what was published up to this time (µs UTC) something is not there any more; 0: all is.
    pub missing_until_us: u64,
    /// The publisher's own number of the last publication that has one.
    pub pub_seq: Option<u64>,
}

/// Makes topics ready, at most so many, those published to last first; their blocks take at most
/// `bytes_max`. What there is no room for begins without its past, or not at all, and a log line says
/// so.
pub fn revive(
    mut restored: Vec<RestoredTopic>,
    seed: u64,
    now_us: u64,
    topics_max: usize,
    bytes_max: usize,
) -> Vec<Revived> {
    let newest = |topic: &RestoredTopic| topic.last.as_ref().map_or(0, |last| last.ts_us);
    restored.sort_by_key(|topic| std::cmp::Reverse(newest(topic)));
    if restored.len() > topics_max {
        let left_out = restored.len() - topics_max;
        warn!(left_out, "the journal has more topics than --topics-max");
        restored.truncate(topics_max);
    }
    let mut pool = Pool::new(PoolOptions { bytes_max, registered_bytes_max: 0 });
    let mut without_past = 0_u64;
    let revived = restored
        .into_iter()
        .map(|topic| {
            let (revived, whole) = Reviving { pool: &mut pool, seed, now_us }.topic(topic);
            without_past += u64::from(!whole);
            revived
        })
        .collect();
    if without_past > 0 {
        warn!(
            topics = without_past,
            "there was no memory for the past of all topics of the journal"
        );
    }
    revived
}

struct Reviving<'r> {
    pool: &'r mut Pool,
    seed: u64,
    now_us: u64,
}

impl Reviving<'_> {
    /// `false`: there was no room for its past.
    fn topic(&mut self, topic: RestoredTopic) -> (Revived, bool) {
        let hash = topic_hash(self.seed, &topic.name);
        let (epoch, seq) = (rand::random(), topic.next_seq - 1);
        let past_epochs = topic
            .epochs
            .iter()
            .map(|range| PastEpoch { epoch: range.epoch, last_seq: range.last_seq })
            .collect();
        let mut past = Vec::from(topic.publications);
        if past.is_empty() {
            // The last value is kept where history is not; after a hole it is not the last any more.
            past.extend(topic.last.filter(|last| last.seq == seq));
        }
        let pub_seq = past.iter().rev().find_map(|publication| publication.pub_seq);
        let mut block = |restored: &RestoredPublication, snapshot| {
            self.block(&topic.name, hash, epoch, restored, snapshot)
        };
        let made: Result<Vec<_>, _> = past.iter().map(|one| block(one, false)).collect();
        let snapshot = topic.snapshot.as_ref().map(|one| block(one, true)).transpose();
        let whole = made.is_ok() && snapshot.is_ok();
        let publications = made.unwrap_or_default();
        let missing_until_us = match publications.first() {
            _ if seq == 0 => 0,
            Some(first) if first.seq() == 1 => 0,
            Some(first) => first.ts_us(),
            None => self.now_us,
        };
        let revived = Revived {
            name: topic.name,
            hash,
            epoch,
            seq,
            past_epochs,
            publications,
            snapshot: snapshot.unwrap_or_default(),
            missing_until_us,
            pub_seq,
        };
        (revived, whole)
    }

    fn block(
        &mut self,
        topic: &str,
        hash: u64,
        epoch: u64,
        restored: &RestoredPublication,
        snapshot: bool,
    ) -> Result<Publication, PoolFull> {
        let &RestoredPublication { seq, ts_us, pub_seq, content, opcode, .. } = restored;
        let draft = publication::draft(self.pool, topic, hash, content, opcode, &restored.payload)?;
        let order = Order { epoch, seq, ts_us, pub_seq, snapshot };
        publication::order(self.pool, draft, order, &mut Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uringcast_protocol::opcode::Opcode;

    use super::*;
    use crate::{journal::EpochRange, publication::PayloadContent};

    fn publication(seq: u64) -> RestoredPublication {
        RestoredPublication {
            epoch: 7,
            seq,
            ts_us: seq * 10,
            pub_seq: seq.is_multiple_of(2).then_some(seq * 100),
            content: PayloadContent::Json,
            opcode: Opcode::Text,
            payload: Bytes::from(format!("{seq}")),
        }
    }

    fn restored(name: &str, held: std::ops::RangeInclusive<u64>, next_seq: u64) -> RestoredTopic {
        let last = publication(*held.end());
        RestoredTopic {
            name: name.into(),
            epochs: vec![EpochRange { epoch: 7, first_seq: 1, last_seq: *held.end() }],
            next_seq,
            publications: held.map(publication).collect(),
            last: Some(last),
            snapshot: Some(publication(3)),
        }
    }

    #[test]
    fn a_topic_goes_on_in_a_new_epoch_and_names_the_old_ones() {
        let revived = revive(vec![restored("a", 4..=9, 10)], 1, 1_000, 9, 1 << 30);
        let topic = &revived[0];
        assert_eq!((topic.seq, topic.pub_seq, topic.hash), (9, Some(800), topic_hash(1, "a")));
        assert_eq!(*topic.past_epochs, [PastEpoch { epoch: 7, last_seq: 9 }]);
        let seqs: Vec<_> = topic.publications.iter().map(Publication::seq).collect();
        assert_eq!((seqs, topic.missing_until_us), (vec![4, 5, 6, 7, 8, 9], 40));
        let all = topic.publications.iter().chain(&topic.snapshot);
        assert!(all.into_iter().all(|block| block.epoch() == topic.epoch && block.topic() == "a"));
        assert_eq!(topic.snapshot.as_ref().map(Publication::seq), Some(3));
        let whole = revive(vec![restored("a", 1..=2, 3)], 1, 1_000, 9, 1 << 30);
        assert_eq!(whole[0].missing_until_us, 0);
    }

    #[test]
    fn a_last_value_stands_alone_but_not_before_a_hole() {
        let mut alone = restored("a", 9..=9, 10);
        alone.publications.clear();
        let mut behind = alone.clone();
        behind.next_seq = 12;
        let revived = revive(vec![alone, behind], 1, 1_000, 9, 1 << 30);
        assert_eq!(revived[0].publications.len(), 1);
        assert_eq!((revived[1].publications.len(), revived[1].seq), (0, 11));
        assert_eq!(revived[1].missing_until_us, 1_000, "what is missing may be of any time");
    }

    #[test]
    fn the_bounds_hold() {
        let topics = vec![restored("old", 1..=2, 3), restored("new", 1..=5, 6)];
        let revived = revive(topics.clone(), 1, 1_000, 1, 1 << 30);
        assert_eq!(revived.iter().map(|topic| &*topic.name).collect::<Vec<_>>(), ["new"]);
        let revived = revive(topics, 1, 1_000, 9, 0);
        assert!(revived.iter().all(|topic| topic.publications.is_empty() && topic.seq > 0));
    }
}
