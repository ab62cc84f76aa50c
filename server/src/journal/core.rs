//! What is to be written, and where: the journal without its files.
//!
//! Knows: topics, segments, the queue and its bound, what is owed. Must not know: how bytes get to a
//! disk, or when. Everything here is a step without waiting.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use tracing::{error, info};

use super::{
    Fsync, KeepOf, Options,
    clean::Tidiness,
    figures::Figures,
    ledger::{Ledger, Place, SnapshotId},
    record::{self, Head, Hole, Record, SEQ_MAX},
    segment,
    shelf::{Segment, Shelf},
};
use crate::{mail::JournalEntry, publication::Publication};

/// The journal without its files.
pub(super) struct Core {
    pub(super) options: Options,
    pub(super) figures: Arc<Figures>,
    pub(super) ledger: Ledger,
    pub(super) shelf: Shelf,
    keep: KeepOf,
    queue: Queue,
    /// Topics with a hole that the journal does not tell of yet.
    owed_ends: Vec<u64>,
    /// Topics that are gone, which the journal does not tell of yet.
    owed_forgets: HashSet<Box<str>>,
    failing: bool,
    dropping: bool,
    pub(super) tidiness: Tidiness,
}

/// Bytes on their way to one place of one segment.
#[derive(Debug, Default)]
struct Chunk {
    number: u64,
    segment: u64,
    offset: u64,
    bytes: Vec<u8>,
    /// By topic: its newest publication in here.
    newest: HashMap<u64, u64, foldhash::fast::RandomState>,
}

/// Chunks in order: written but not synced, being written, waiting, and the open one.
#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// The first so many are written.
    written: usize,
    /// The one after those is out, being written.
    out: bool,
    /// The last one takes more.
    open: bool,
    bytes: usize,
    chunks_made: u64,
    /// All chunks up to this number are on the disk.
    durable: u64,
    spare: Vec<Vec<u8>>,
}

/// What to write next.
#[derive(Debug)]
pub(super) struct Job {
    /// In the segment of [`next_segment`](Core::next_segment).
    pub(super) offset: u64,
    /// To be given back, as they are.
    pub(super) bytes: Vec<u8>,
}

impl Core {
    pub(super) fn new(options: Options, keep: KeepOf, ledger: Ledger, shelf: Shelf) -> Self {
        let core = Self {
            options,
            figures: Arc::default(),
            ledger,
            shelf,
            keep,
            queue: Queue::default(),
            owed_ends: Vec::new(),
            owed_forgets: HashSet::new(),
            failing: false,
            dropping: false,
            tidiness: Tidiness::default(),
        };
        core.show();
        core
    }

    /// Takes in what a shard says. Never waits; what there is no room for is dropped and noted.
    pub(super) fn take(&mut self, entry: &JournalEntry) {
        match entry {
            JournalEntry::Topic { topic, epoch, first_seq } => {
                if *first_seq < SEQ_MAX {
                    let (id, new) = self.begin(topic, *epoch, *first_seq);
                    if new && self.has_room(0) {
                        self.introduce(id, 0);
                    }
                }
            }
            JournalEntry::Publication { frame } => {
                self.publication(&Publication::from_frames(frame.clone(), None));
            }
            JournalEntry::Snapshot { frame } => {
                self.snapshot(&Publication::from_frames(frame.clone(), None));
            }
            JournalEntry::Dropped { topic, epoch, seq } => {
                if *seq < SEQ_MAX {
                    let id = self.of_epoch(topic, *epoch, *seq);
                    self.drop_publication(id, *seq);
                }
            }
            JournalEntry::Forget { topic } => self.forget(topic),
        }
        self.show();
    }

    fn begin(&mut self, name: &str, epoch: u64, first_seq: u64) -> (u64, bool) {
        let keep = &self.keep;
        self.ledger.begin(name, epoch, first_seq, || keep(name))
    }

    /// The topic, in this epoch: begun with this number if it has not.
    fn of_epoch(&mut self, name: &str, epoch: u64, seq: u64) -> u64 {
        let known = self.ledger.find(name);
        let current = known.and_then(|id| self.ledger.topic(id)).map(|topic| topic.current().epoch);
        match known {
            Some(id) if current == Some(epoch) => id,
            _ => self.begin(name, epoch, seq).0,
        }
    }

    fn publication(&mut self, publication: &Publication) {
        let (name, seq) = (publication.topic(), publication.seq());
        let id = self.of_epoch(name, publication.epoch(), seq);
        let bytes = record::publication_bytes(name, publication.payload_bytes());
        let Some(topic) = self.ledger.topic(id) else { return };
        if seq >= SEQ_MAX || seq < topic.next_seq() {
            // Its number was given before: whoever sends it again is wrong, and what is there stands.
            return self.figures.dropped.add(1);
        }
        if !self.has_room(bytes) {
            return self.drop_publication(id, seq);
        }
        self.introduce(id, bytes);
        let Some(topic) = self.ledger.topic_mut(id) else { return };
        let sum = topic.last.sum.saturating_add(publication.payload_bytes() as u64);
        let place = Place { epoch: publication.epoch(), seq, ts_us: publication.ts_us(), sum };
        topic.last = place;
        if let Some(current) = topic.epochs.last_mut() {
            current.last_seq = seq;
        }
        let head = head_of(publication);
        let segment = self.append(bytes, |out| {
            record::write_publication(out, false, &head, sum, publication.payload_pieces());
        });
        segment.publication(id, place, bytes);
        self.note_newest(id, seq);
        self.figures.records.add(1);
    }

    fn snapshot(&mut self, publication: &Publication) {
        let covers = publication.seq();
        if covers >= SEQ_MAX {
            return;
        }
        let id = self.of_epoch(publication.topic(), publication.epoch(), covers + 1);
        // As long as a publication, but for the sum.
        let bytes = record::publication_bytes(publication.topic(), publication.payload_bytes()) - 8;
        if !self.has_room(bytes) {
            // The one before still stands, and the publications behind it.
            return self.note_drop();
        }
        self.introduce(id, bytes);
        let head = head_of(publication);
        let this = SnapshotId::of(&head);
        if let Some(topic) = self.ledger.topic_mut(id) {
            topic.snapshot = Some(this);
        }
        let segment = self.append(bytes, |out| {
            record::write_snapshot(out, false, &head, publication.payload_pieces());
        });
        segment.snapshot(id, this, bytes);
        self.figures.records.add(1);
    }

    fn forget(&mut self, name: &str) {
        if self.ledger.forget(name).is_none() {
            return;
        }
        if self.has_room(0) {
            self.write_forget(name);
        } else {
            self.note_drop();
            self.owed_forgets.insert(name.into());
        }
    }

    fn write_forget(&mut self, name: &str) {
        self.make_room(record::HEAD_BYTES + 1 + name.len());
        self.write_said(&Record::Forget { topic: name });
    }

    /// A publication that will not be in the journal: what is before it leads nowhere.
    fn drop_publication(&mut self, id: u64, seq: u64) {
        self.note_drop();
        let Some(topic) = self.ledger.topic_mut(id) else { return };
        if seq <= topic.last.seq || seq <= topic.hole.last {
            return;
        }
        // One hole with the one before, if nothing was written between them.
        let first = if topic.hole.last > topic.last.seq { topic.hole.first } else { seq };
        topic.hole = Hole { first, last: seq };
        if !topic.owes_end {
            topic.owes_end = true;
            self.owed_ends.push(id);
        }
    }

    fn note_drop(&mut self) {
        self.figures.dropped.add(1);
        if !self.dropping {
            self.dropping = true;
            error!(
                queue_bytes = self.queue.bytes,
                "the journal can't keep up, or can't be written: dropping what comes; \
                 topics are not recoverable beyond it"
            );
        }
    }

    /// Before a record of this size is added for a topic: sees that there is room for it in the
    /// segment, and that the segment says all about the topic before it. So whatever can be read of a
    /// segment can be understood, whatever became of the others.
    pub(super) fn introduce(&mut self, id: u64, bytes: usize) {
        let Some(topic) = self.ledger.topic(id) else { return };
        let here = self.shelf.current().number == topic.announced_in;
        let said = if here && !topic.owes_end { 0 } else { record::topic_bytes(topic) };
        self.make_room(said + bytes);
        let number = self.shelf.current().number;
        let Some(topic) = self.ledger.topic_mut(id) else { return };
        let owes_end = std::mem::take(&mut topic.owes_end);
        if topic.announced_in != number {
            self.announce(id);
        } else if owes_end {
            let (name, epoch, hole) = (topic.name.clone(), topic.current().epoch, topic.hole);
            self.write_said(&Record::End { topic: &name, epoch, hole });
        }
    }

    /// Says what is owed, as far as there is room.
    pub(super) fn settle(&mut self) {
        while self.has_room(SETTLE_ROOM) && !self.failing {
            if let Some(id) = self.owed_ends.pop() {
                if self.ledger.topic(id).is_some_and(|topic| topic.owes_end) {
                    self.introduce(id, 0);
                }
            } else if let Some(name) = self.owed_forgets.iter().next().cloned() {
                self.owed_forgets.remove(&name);
                // Where it is back, its own record has said so already.
                if self.ledger.find(&name).is_none() {
                    self.write_forget(&name);
                }
            } else {
                if self.dropping && self.queue.bytes < self.options.queue_bytes_max / 2 {
                    self.dropping = false;
                    info!("the journal keeps up again");
                }
                break;
            }
        }
        self.show();
    }

    /// Says all about a topic but its publications.
    fn announce(&mut self, id: u64) {
        let Some(topic) = self.ledger.topic_mut(id) else { return };
        topic.owes_end = false;
        let (name, epochs, hole) = (topic.name.clone(), topic.epochs.clone(), topic.hole);
        let bytes = self.write_said(&Record::Topic { topic: &name, epochs, hole });
        let current = self.shelf.current();
        current.said(id, bytes);
        let number = current.number;
        if let Some(topic) = self.ledger.topic_mut(id) {
            topic.announced_in = number;
        }
    }

    /// Writes a small record, for which there is room; its size.
    fn write_said(&mut self, said: &Record<'_>) -> usize {
        let mut bytes = Vec::new();
        said.write(&mut bytes, false);
        self.append(bytes.len(), |out| out.extend_from_slice(&bytes));
        self.figures.records.add(1);
        bytes.len()
    }

    /// Writes a record again, which stands in a segment that is to go.
    pub(super) fn copy(&mut self, id: u64, said: &Record<'_>, place: Option<Place>) {
        let mut bytes = Vec::new();
        said.write(&mut bytes, true);
        self.introduce(id, bytes.len());
        let segment = self.append(bytes.len(), |out| out.extend_from_slice(&bytes));
        match (said, place) {
            (Record::Publication { .. }, Some(place)) => {
                segment.publication(id, place, bytes.len());
            }
            (Record::Snapshot { head, .. }, _) => {
                segment.snapshot(id, SnapshotId::of(head), bytes.len());
            }
            _ => {}
        }
        self.figures.copied.add(1);
        self.tidiness.copied(bytes.len());
    }

    /// Begins the next segment if there is no room for so much in the current one.
    fn make_room(&mut self, bytes: usize) {
        let current = self.shelf.current();
        let fresh = current.bytes <= segment::HEADER_BYTES as u64;
        if fresh || current.bytes + bytes as u64 <= self.options.segment_bytes_max {
            return;
        }
        let number = current.number + 1;
        self.shelf.segments.push_back(Segment::new(number));
        self.queue.open(number, 0, bytes);
        self.queue.add(|out| out.extend_from_slice(&segment::header(number)));
    }

    /// Adds a record of this size to the current segment.
    fn append(&mut self, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> &mut Segment {
        let current = self.shelf.current();
        self.queue.make_open(current.number, current.bytes, bytes);
        let added = self.queue.add(write);
        debug_assert_eq!(added, bytes, "sizes are known beforehand");
        current.bytes += added as u64;
        self.tidiness.added(added);
        current
    }

    fn note_newest(&mut self, id: u64, seq: u64) {
        if let Some(chunk) = self.queue.chunks.back_mut() {
            chunk.newest.insert(id, seq);
        }
    }

    /// Whether a record of this size may be taken in.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.queue.bytes == 0 || self.queue.bytes + bytes <= self.options.queue_bytes_max
    }

    /// Whether so much is not yet on the disk that only what comes from outside may be added.
    pub(super) fn is_crowded(&self) -> bool {
        self.queue.bytes > self.options.queue_bytes_max / 4
    }

    /// Whether nothing was dropped and all is on the disk.
    pub(super) fn is_complete(&self) -> bool {
        self.queue.chunks.is_empty() && !self.failing && self.figures.dropped.value() == 0
    }

    /// Where the newest record is; [`is_durable`](Self::is_durable) tells when it is on the disk.
    pub(super) fn newest_chunk(&self) -> u64 {
        self.queue.chunks_made
    }

    pub(super) fn is_durable(&self, chunk: u64) -> bool {
        self.queue.durable >= chunk
    }

    /// What is to be written next, if there is anything. It is to be given back with
    /// [`wrote`](Self::wrote) or [`give_back`](Self::give_back).
    pub(super) fn next_job(&mut self) -> Option<Job> {
        let queue = &mut self.queue;
        debug_assert!(!queue.out, "one after the other");
        if queue.written + 1 >= queue.chunks.len() {
            queue.open = false;
        }
        let chunk = queue.chunks.get_mut(queue.written)?;
        queue.out = true;
        let bytes = std::mem::take(&mut chunk.bytes);
        Some(Job { offset: chunk.offset, bytes })
    }

    /// The segment that the next job is for.
    pub(super) fn next_segment(&self) -> Option<u64> {
        self.queue.chunks.get(self.queue.written).map(|chunk| chunk.segment)
    }

    /// The oldest segment that is not wholly on the disk.
    pub(super) fn oldest_queued(&self) -> Option<u64> {
        self.queue.chunks.front().map(|chunk| chunk.segment)
    }

    /// The job was done.
    pub(super) fn wrote(&mut self, job: Job) {
        self.figures.written_bytes.add(job.bytes.len() as u64);
        self.give_back(job);
        self.queue.written += 1;
        if self.options.fsync == Fsync::Off {
            self.synced();
        }
        self.works();
    }

    /// All that was written is on the disk (or as good as, where nobody asks for more).
    pub(super) fn synced(&mut self) {
        for _ in 0..std::mem::take(&mut self.queue.written) {
            let Some(chunk) = self.queue.chunks.pop_front() else { break };
            self.queue.durable = chunk.number;
            self.queue.bytes -= chunk.bytes.len();
            for (id, seq) in chunk.newest {
                if let Some(topic) = self.ledger.topic_mut(id) {
                    topic.durable_seq = seq;
                }
            }
            self.queue.recycle(chunk.bytes);
        }
        self.works();
        self.show();
    }

    /// An operation failed: all that is not on the disk will be written again, since after a failed
    /// fsync the kernel may have forgotten what it did not write.
    pub(super) fn failed(&mut self, reason: &std::io::Error) {
        self.queue.written = 0;
        self.figures.errors.add(1);
        if !self.failing {
            self.failing = true;
            error!(%reason, "the journal can't be written; trying again every second");
        }
        self.show();
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    fn works(&mut self) {
        if self.failing {
            self.failing = false;
            info!("the journal can be written again");
        }
    }

    /// The job was not done, or not to its end.
    pub(super) fn give_back(&mut self, job: Job) {
        self.queue.out = false;
        if let Some(chunk) = self.queue.chunks.get_mut(self.queue.written) {
            chunk.bytes = job.bytes;
        }
    }

    pub(super) fn show(&self) {
        let figures = &self.figures;
        figures.alarm.set(u64::from(self.failing || self.dropping));
        figures.queue_bytes.set(self.queue.bytes as u64);
        figures.segments.set(self.shelf.segments.len() as u64);
        figures.segments_bytes.set(self.shelf.bytes());
        figures.topics.set(self.ledger.len() as u64);
    }
}

impl Queue {
    /// Begins a chunk.
    fn open(&mut self, segment: u64, offset: u64, bytes: usize) {
        self.chunks_made += 1;
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.reserve(bytes);
        let newest = HashMap::default();
        let number = self.chunks_made;
        self.chunks.push_back(Chunk { number, segment, offset, bytes: buffer, newest });
        self.open = true;
    }

    /// Begins a chunk if the last one takes no more.
    fn make_open(&mut self, segment: u64, offset: u64, bytes: usize) {
        let full = |chunk: &Chunk| chunk.bytes.len() >= CHUNK_BYTES;
        if !self.open || self.chunks.back().is_none_or(full) {
            self.open(segment, offset, bytes);
        }
    }

    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let Some(chunk) = self.chunks.back_mut() else { return 0 };
        let before = chunk.bytes.len();
        write(&mut chunk.bytes);
        let added = chunk.bytes.len() - before;
        self.bytes += added;
        added
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && buffer.capacity() <= 2 * CHUNK_BYTES {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

fn head_of(publication: &Publication) -> Head<'_> {
    Head {
        topic: publication.topic(),
        epoch: publication.epoch(),
        seq: publication.seq(),
        ts_us: publication.ts_us(),
        pub_seq: publication.pub_seq(),
        content: publication.content(),
        opcode: publication.opcode(),
    }
}

/// What one write is, about.
const CHUNK_BYTES: usize = 1 << 20;
/// Buffers kept for chunks to come.
const SPARE_MAX: usize = 4;
/// Room for the longest record that says something about a topic.
const SETTLE_ROOM: usize = 4 << 10;
