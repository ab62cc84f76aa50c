//! What the journal's records say together: topics as they were.
//!
//! Knows: what each record changes. Must not know: files. A topic's publications need not stand in
//! their order, since what is copied forward stands behind what is newer; nothing is taken to be
//! contiguous but numbers that follow each other.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use uringcast_protocol::opcode::Opcode;

use super::{
    ledger::{Keep, Ledger, Place, SnapshotId},
    record::{EpochRange, Head, Hole, Record},
    shelf::Segment,
};
use crate::publication::PayloadContent;

/// What was found in a journal.
#[derive(Debug, Default)]
pub struct Restored {
    /// In no order.
    pub topics: Vec<RestoredTopic>,
    /// Bytes of records that were not written to their end, and have been cut off.
    pub torn_bytes: u64,
    /// What can't be read.
    pub damaged: Vec<Damage>,
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// From this time on (µs UTC) nothing that was published is missing but what its topic did not
    /// keep; `None`: the process before ended otherwise than by having written all.
    pub complete_from_us: Option<u64>,
}

/// The rest of a segment that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number.
    pub segment: u64,
    /// From this byte on.
    pub at: u64,
    /// So many bytes.
    pub bytes: u64,
}

/// A topic as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredTopic {
    /// Its name.
    pub name: Box<str>,
    /// Its epochs, the oldest first, at most 65, each with the last number that is in the journal.
    pub epochs: Vec<EpochRange>,
    /// The number that the next publication, in a new epoch, has to have: behind all that are known
    /// to have been given.
    pub next_seq: u64,
    /// History within the topic's bounds: contiguous, over epochs, and up to `next_seq - 1`. Empty
    /// where something is known to be missing right before `next_seq`.
    pub publications: VecDeque<RestoredPublication>,
    /// The newest publication.
    pub last: Option<RestoredPublication>,
    /// The last published snapshot; its seq is that of the last publication that it covers.
    pub snapshot: Option<RestoredPublication>,
}

/// A publication, or a snapshot, as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredPublication {
    /// Its epoch.
    pub epoch: u64,
    /// Its number.
    pub seq: u64,
    /// When it was ordered, µs UTC.
    pub ts_us: u64,
    /// The publisher's own number.
    pub pub_seq: Option<u64>,
    /// What the payload is.
    pub content: PayloadContent,
    /// How it travels verbatim.
    pub opcode: Opcode,
    /// The payload.
    pub payload: Bytes,
}

impl RestoredPublication {
    fn new(head: &Head<'_>, payload: &[u8]) -> Self {
        let Head { epoch, seq, ts_us, pub_seq, content, opcode, .. } = *head;
        let payload = Bytes::copy_from_slice(payload);
        Self { epoch, seq, ts_us, pub_seq, content, opcode, payload }
    }
}

/// A topic's payloads while the journal is being read.
#[derive(Debug, Default)]
struct Past {
    /// By seq; gaps are looked for at the end.
    publications: VecDeque<(u64, RestoredPublication)>,
    bytes: u64,
    snapshot: Option<RestoredPublication>,
}

impl Past {
    /// Puts a publication in its place. One that is there already was copied, and both are the same.
    fn insert(&mut self, sum: u64, publication: RestoredPublication, keep: &Keep) {
        let at = self.publications.partition_point(|(_, other)| other.seq < publication.seq);
        if self.publications.get(at).is_some_and(|(_, other)| other.seq == publication.seq) {
            return;
        }
        self.bytes += publication.payload.len() as u64;
        self.publications.insert(at, (sum, publication));
        while self.publications.len() > 1
            && (self.publications.len() as u64 > keep.messages || self.bytes > keep.bytes)
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, first)) = self.publications.pop_front() {
            self.bytes -= first.payload.len() as u64;
        }
    }

    fn newest(&self) -> Place {
        self.publications.back().map_or_else(Place::default, |(sum, last)| Place {
            epoch: last.epoch,
            seq: last.seq,
            ts_us: last.ts_us,
            sum: *sum,
        })
    }
}

/// Reads records in the order of segments.
pub(super) struct Reading<'k> {
    pub(super) ledger: Ledger,
    pasts: HashMap<u64, Past, foldhash::fast::RandomState>,
    keep: &'k dyn Fn(&str) -> Keep,
}

impl<'k> Reading<'k> {
    pub(super) fn new(keep: &'k dyn Fn(&str) -> Keep) -> Self {
        Self { ledger: Ledger::default(), pasts: HashMap::default(), keep }
    }

    /// Takes one record of this size from this segment.
    pub(super) fn record(
        &mut self,
        record: Record<'_>,
        copied: bool,
        bytes: usize,
        segment: &mut Segment,
    ) {
        match record {
            Record::Topic { topic, epochs, hole } => {
                let id = self.topic(topic, epochs, hole, segment.number);
                segment.said(id, bytes);
            }
            Record::Publication { head, sum, payload } => {
                self.publication(&head, sum, payload, bytes, segment);
            }
            Record::Snapshot { head, payload } => {
                self.snapshot(&head, payload, copied, bytes, segment);
            }
            Record::End { topic, epoch, hole } => self.end(topic, epoch, hole),
            Record::Forget { topic } => {
                if let Some(id) = self.ledger.forget(topic) {
                    self.pasts.remove(&id);
                }
            }
        }
    }

    /// What a topic's own record says replaces all that was known: what is not of its epochs is not
    /// of this topic.
    fn topic(&mut self, name: &str, epochs: Vec<EpochRange>, hole: Hole, segment: u64) -> u64 {
        let first = epochs[0];
        let id = self.ledger.find(name).unwrap_or_else(|| {
            self.ledger.make(name, (self.keep)(name), first.epoch, first.first_seq)
        });
        let past = self.pasts.entry(id).or_default();
        let of_it = |publication: &RestoredPublication| {
            let holds = |range: &EpochRange| {
                range.epoch == publication.epoch
                    && (range.first_seq..=range.last_seq).contains(&publication.seq)
            };
            epochs.iter().any(holds)
        };
        past.publications.retain(|(_, publication)| of_it(publication));
        past.bytes = past.publications.iter().map(|(_, p)| p.payload.len() as u64).sum();
        let known = |snapshot: &RestoredPublication| {
            epochs.iter().any(|range| range.epoch == snapshot.epoch)
        };
        past.snapshot = past.snapshot.take().filter(known);
        let (last, snapshot) = (past.newest(), past.snapshot.as_ref().map(snapshot_id));
        if let Some(topic) = self.ledger.topic_mut(id) {
            topic.epochs = epochs;
            topic.hole = hole;
            topic.announced_in = segment;
            topic.last = last;
            topic.snapshot = snapshot;
        }
        id
    }

    /// The topic that a record belongs to. What says so stands before it in the same segment; where it
    /// does not, the record is nobody's.
    fn of_epoch(&self, head: &Head<'_>) -> Option<u64> {
        let id = self.ledger.find(head.topic)?;
        let topic = self.ledger.topic(id)?;
        topic.epochs.iter().any(|range| range.epoch == head.epoch).then_some(id)
    }

    fn publication(
        &mut self,
        head: &Head<'_>,
        sum: u64,
        payload: &[u8],
        bytes: usize,
        segment: &mut Segment,
    ) {
        let Some(id) = self.of_epoch(head) else { return };
        let Some(topic) = self.ledger.topic_mut(id) else { return };
        let current = topic.epochs.last_mut().filter(|range| range.epoch == head.epoch);
        if let Some(current) = current {
            current.last_seq = current.last_seq.max(head.seq);
        }
        let holds = |range: &EpochRange| {
            range.epoch == head.epoch && (range.first_seq..=range.last_seq).contains(&head.seq)
        };
        if !topic.epochs.iter().any(holds) {
            return;
        }
        let place = Place { epoch: head.epoch, seq: head.seq, ts_us: head.ts_us, sum };
        if place.seq > topic.last.seq {
            topic.last = place;
        }
        segment.publication(id, place, bytes);
        let past = self.pasts.entry(id).or_default();
        past.insert(sum, RestoredPublication::new(head, payload), &topic.keep);
    }

    fn snapshot(
        &mut self,
        head: &Head<'_>,
        payload: &[u8],
        copied: bool,
        bytes: usize,
        segment: &mut Segment,
    ) {
        let Some(id) = self.of_epoch(head) else { return };
        let Some(topic) = self.ledger.topic_mut(id) else { return };
        let this = SnapshotId::of(head);
        if copied && topic.snapshot.is_some_and(|there| there >= this) {
            return;
        }
        topic.snapshot = Some(this);
        segment.snapshot(id, this, bytes);
        self.pasts.entry(id).or_default().snapshot = Some(RestoredPublication::new(head, payload));
    }

    fn end(&mut self, name: &str, epoch: u64, hole: Hole) {
        let topic = self.ledger.find(name).and_then(|id| self.ledger.topic_mut(id));
        let of_it = topic.filter(|topic| topic.epochs.iter().any(|range| range.epoch == epoch));
        if let Some(topic) = of_it
            && hole.last > topic.hole.last
        {
            topic.hole = hole;
        }
    }

    /// All topics as they were, and the ledger to go on with.
    pub(super) fn finish(mut self, now_us: u64) -> (Ledger, Vec<RestoredTopic>) {
        let mut topics = Vec::with_capacity(self.ledger.len());
        for (id, topic) in self.ledger.topics() {
            let past = self.pasts.remove(&id).unwrap_or_default();
            let last = past.publications.back().map(|(_, publication)| publication.clone());
            let mut publications = VecDeque::new();
            let mut wanted = topic.next_seq() - 1;
            for (sum, publication) in past.publications.into_iter().rev() {
                let RestoredPublication { epoch, seq, ts_us, .. } = publication;
                let place = Place { epoch, seq, ts_us, sum };
                let newest = seq == topic.last.seq && topic.keep.messages > 0;
                if seq != wanted || !(newest || topic.is_history(&place, now_us)) {
                    break;
                }
                wanted -= 1;
                publications.push_front(publication);
            }
            topics.push(RestoredTopic {
                name: topic.name.clone(),
                epochs: topic.epochs.clone(),
                next_seq: topic.next_seq(),
                publications,
                last,
                snapshot: past.snapshot,
            });
        }
        (self.ledger, topics)
    }
}

fn snapshot_id(snapshot: &RestoredPublication) -> SnapshotId {
    let RestoredPublication { epoch, seq, ts_us, pub_seq, .. } = *snapshot;
    SnapshotId { covers: seq, ts_us, pub_seq, epoch }
}
