//! A lane's log: encoded frames in segments, and how many readers stand in each.
//!
//! Knows: bytes, positions, frame ends and reader counts. Must not know: who the readers are, what
//! the frames say, or sockets.
//!
//! A *position* counts all bytes ever appended; it never falls. A reader that has everything stands
//! at the head and is counted in no segment (`idle`); any other is counted in the segment that
//! holds its next byte. So appending and advancing cost O(1), a segment is freed as soon as nobody
//! stands in it or before it, and a lane whose readers are all at the head holds no memory.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use uringcast_ring::pool::{Frame, Lease, Pool, PoolFull};

use crate::{
    ids::TopicId,
    publication::{self, Encoded, Format, Publication},
};

/// One visit sends at most so many bytes.
pub const VISIT_BYTES_MAX: usize = 64 << 10;
const CHUNK_BYTES_MAX: usize = 64 << 10;
const CHUNK_BYTES_MIN: usize = 512;
/// Chunks start at this size where many read them, so that one SEND can cover more.
const CHUNK_BYTES_MANY: usize = 16 << 10;
/// From so many readers on, [`CHUNK_BYTES_MANY`] is the first chunk's size.
const MANY_READERS: usize = 16;

/// Where a frame or a fragment of one ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEnd {
    /// Bytes from the segment's start.
    end: u32,
    /// Whose publication.
    pub topic: TopicId,
    /// The shard's count of publications when it was appended.
    pub count: u64,
    /// The message ends here; `false` for a fragment with more to follow.
    message: bool,
    /// The message is the server's own, and counts as none.
    notice: bool,
}

/// What a boundary must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// Between frames: a control frame may stand there (RFC 6455 section 5.4).
    Frame,
    /// Between messages.
    Message,
}

#[derive(Debug)]
enum Body {
    Chunk(Lease),
    /// `charged`: its bytes count here. One lane of those that refer to a block bears them all.
    Shared {
        frame: Frame,
        offset: usize,
        charged: bool,
    },
}

#[derive(Debug)]
struct Segment {
    start: u64,
    bytes: u32,
    /// Readers whose next byte is in this segment.
    readers: u32,
    body: Body,
    ends: Vec<FrameEnd>,
    /// How many of the ends are notices'.
    notices: u32,
    /// How many messages of each topic end here, once someone asked who nothing can be appended to any
    /// more.
    tally: Option<Box<[(TopicId, u32)]>>,
}

/// How many messages of each topic a reader has not been sent whole.
#[derive(Debug, Default)]
pub struct Unsent {
    /// By topic.
    pub messages: HashMap<TopicId, u64, RandomState>,
    /// The shard's count of publications at the first of them.
    pub first_count: Option<u64>,
    /// How much was looked at to know that.
    pub looks: usize,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + u64::from(self.bytes)
    }

    fn held_bytes(&self) -> usize {
        match &self.body {
            Body::Chunk(lease) => lease.len(),
            Body::Shared { charged: true, .. } => self.bytes as usize,
            Body::Shared { charged: false, .. } => size_of::<Self>(),
        }
    }

    fn slice(&self, from: u64, to: u64) -> &[u8] {
        let (from, to) = ((from - self.start) as usize, (to - self.start) as usize);
        match &self.body {
            Body::Chunk(lease) => &lease[from..to],
            Body::Shared { frame, offset, .. } => &frame[offset + from..offset + to],
        }
    }

    /// How many messages end at or before `position`.
    fn messages_before(&self, position: u64) -> u64 {
        let offset = (position - self.start).min(u64::from(self.bytes)) as u32;
        match &self.body {
            Body::Chunk(_) => {
                let ends = self.ends.partition_point(|e| e.end <= offset);
                let notices = match self.notices {
                    0 => 0,
                    _ => self.ends[..ends].iter().filter(|e| e.notice).count(),
                };
                (ends - notices) as u64
            }
            Body::Shared { .. } => u64::from(offset == self.bytes),
        }
    }
}

/// Part of a log, taken out of it.
#[derive(Debug)]
pub enum Detached<'l> {
    /// Less than [`crate::publication::SHARED_FRAME_BYTES_MIN`], to be copied.
    Bytes(&'l [u8]),
    /// Part of a block.
    Shared {
        /// The block.
        frame: Frame,
        /// From here.
        at: usize,
        /// To here.
        to: usize,
    },
}

/// What the logs of a shard share: memory and spare lists, so that a steady tick allocates nothing.
#[derive(Debug)]
pub struct LogMemory {
    /// The shard's registered buffers.
    pub pool: Pool,
    spare_ends: Vec<Vec<FrameEnd>>,
    /// Bytes that the logs of this shard hold now.
    pub held_bytes: u64,
    /// Up to this time (µs UTC) everything is in the logs: the id of the events appended now.
    pub cursor_us: u64,
    /// Count of the last publication of which a lane was charged with the block, for each kind of
    /// block.
    charged: [u64; publication::Block::KINDS],
}

/// At most so many spare lists of frame ends are kept.
const SPARE_ENDS_MAX: usize = 256;
/// A list that grew beyond this is not kept.
const SPARE_ENDS_CAPACITY_MAX: usize = 1_024;

impl LogMemory {
    /// Over a pool.
    pub fn new(pool: Pool) -> Self {
        let charged = [0; publication::Block::KINDS];
        Self { pool, spare_ends: Vec::new(), held_bytes: 0, cursor_us: 0, charged }
    }

    fn drop_segment(&mut self, segment: Segment) {
        self.held_bytes -= segment.held_bytes() as u64;
        let mut ends = segment.ends;
        if self.spare_ends.len() < SPARE_ENDS_MAX && ends.capacity() <= SPARE_ENDS_CAPACITY_MAX {
            ends.clear();
            self.spare_ends.push(ends);
        }
    }
}

/// A lane's log.
#[derive(Debug, Default)]
pub struct Log {
    segments: VecDeque<Segment>,
    /// The position after the last byte.
    head: u64,
    /// Messages ever appended.
    messages: u64,
    /// Readers at the head.
    idle: u32,
    /// Readers anywhere.
    readers: u32,
}

impl Log {
    /// The position after the last byte appended.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Messages ever appended.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Readers, of which some may be ranges still to be sent from a lane that a connection left.
    pub fn readers(&self) -> u32 {
        self.readers
    }

    /// Appends a publication's frame.
    ///
    /// # Errors
    /// The pool is at its bound; the log is as it was.
    pub fn append(
        &mut self,
        publication: &Publication,
        format: Format,
        topic: TopicId,
        count: u64,
        memory: &mut LogMemory,
    ) -> Result<(), PoolFull> {
        if self.readers == 0 {
            self.messages += 1;
            return Ok(());
        }
        let encoded = publication.encoded_at(format, memory.cursor_us);
        let bytes = encoded.bytes();
        if let Some((block, range, kind)) = encoded.shared() {
            let charged = &mut memory.charged[kind as usize];
            let charged = std::mem::replace(charged, count) != count;
            let body = Body::Shared { frame: block.clone(), offset: range.start, charged };
            self.append_shared(body, &encoded, topic, count, memory);
        } else {
            self.reserve(bytes, memory)?;
            let segment = self.segments.back_mut().expect("reserve leaves a segment with room");
            let Body::Chunk(lease) = &mut segment.body else {
                unreachable!("reserve leaves a chunk at the back")
            };
            let at = segment.bytes as usize;
            encoded.write(&mut lease[at..at + bytes]);
            segment.bytes += bytes as u32;
            segment.ends.push(FrameEnd {
                end: segment.bytes,
                topic,
                count,
                message: true,
                notice: false,
            });
            segment.readers += self.idle;
        }
        self.idle = 0;
        self.head += bytes as u64;
        self.messages += 1;
        Ok(())
    }

    /// Appends frames of the server's own, which are no publication.
    ///
    /// # Errors
    /// The pool is at its bound; the log is as it was.
    pub fn append_notice(
        &mut self,
        bytes: &[u8],
        topic: TopicId,
        memory: &mut LogMemory,
    ) -> Result<(), PoolFull> {
        if self.readers == 0 {
            return Ok(());
        }
        self.reserve(bytes.len(), memory)?;
        let segment = self.segments.back_mut().expect("reserve leaves a segment with room");
        let Body::Chunk(lease) = &mut segment.body else {
            unreachable!("reserve leaves a chunk at the back")
        };
        let at = segment.bytes as usize;
        lease[at..at + bytes.len()].copy_from_slice(bytes);
        segment.bytes += bytes.len() as u32;
        let end = segment.bytes;
        segment.ends.push(FrameEnd { end, topic, count: 0, message: true, notice: true });
        segment.notices += 1;
        segment.readers += self.idle;
        self.idle = 0;
        self.head += bytes.len() as u64;
        Ok(())
    }

    fn append_shared(
        &mut self,
        body: Body,
        encoded: &Encoded<'_>,
        topic: TopicId,
        count: u64,
        memory: &mut LogMemory,
    ) {
        let mut ends = memory.spare_ends.pop().unwrap_or_default();
        let mut at = 0;
        for frame in encoded.frames() {
            at += frame as u32;
            ends.push(FrameEnd { end: at, topic, count, message: false, notice: false });
        }
        if let Some(last) = ends.last_mut() {
            last.message = true;
        }
        let segment = Segment {
            start: self.head,
            bytes: at,
            readers: self.idle,
            body,
            ends,
            notices: 0,
            tally: None,
        };
        memory.held_bytes += segment.held_bytes() as u64;
        self.segments.push_back(segment);
    }

    /// Leaves a chunk with `bytes` free at the back.
    fn reserve(&mut self, bytes: usize, memory: &mut LogMemory) -> Result<(), PoolFull> {
        let mut size =
            if self.readers as usize >= MANY_READERS { CHUNK_BYTES_MANY } else { CHUNK_BYTES_MIN };
        if let Some(last) = self.segments.back()
            && let Body::Chunk(lease) = &last.body
        {
            if lease.len() - last.bytes as usize >= bytes {
                return Ok(());
            }
            size = lease.len() * 4;
        }
        let lease = memory.pool.take(size.min(CHUNK_BYTES_MAX).max(bytes))?;
        memory.held_bytes += lease.len() as u64;
        self.segments.push_back(Segment {
            start: self.head,
            bytes: 0,
            readers: 0,
            body: Body::Chunk(lease),
            ends: memory.spare_ends.pop().unwrap_or_default(),
            notices: 0,
            tally: None,
        });
        Ok(())
    }

    /// A new reader at the head.
    pub fn join(&mut self) -> u64 {
        self.readers += 1;
        self.idle += 1;
        self.head
    }

    /// A new reader at a position where another reader stands.
    pub fn join_at(&mut self, position: u64) {
        self.readers += 1;
        match self.segment_index(position) {
            Some(index) => self.segments[index].readers += 1,
            None => self.idle += 1,
        }
    }

    /// A reader goes.
    pub fn leave(&mut self, position: u64, memory: &mut LogMemory) {
        self.readers -= 1;
        match self.segment_index(position) {
            Some(index) => self.segments[index].readers -= 1,
            None => self.idle -= 1,
        }
        self.collect(memory);
    }

    /// A reader moves on.
    pub fn advance(&mut self, from: u64, to: u64, memory: &mut LogMemory) {
        let Some(index) = self.segment_index(from) else { return };
        if to < self.segments[index].end() {
            return;
        }
        self.segments[index].readers -= 1;
        match self.segment_index_after(index, to) {
            Some(next) => self.segments[next].readers += 1,
            None => self.idle += 1,
        }
        if self.segments[0].readers == 0 {
            self.collect(memory);
        }
    }

    fn collect(&mut self, memory: &mut LogMemory) {
        while self.segments.front().is_some_and(|s| s.readers == 0)
            && let Some(segment) = self.segments.pop_front()
        {
            memory.drop_segment(segment);
        }
    }

    fn segment_index(&self, position: u64) -> Option<usize> {
        if position >= self.head {
            return None;
        }
        // Nearly every reader stands in the first or the last segment.
        let last = self.segments.len() - 1;
        if position >= self.segments[last].start {
            return Some(last);
        }
        if position < self.segments[0].end() {
            return Some(0);
        }
        Some(self.segments.partition_point(|s| s.end() <= position))
    }

    fn segment_index_after(&self, index: usize, position: u64) -> Option<usize> {
        if position >= self.head {
            return None;
        }
        (index..self.segments.len()).find(|&i| position < self.segments[i].end())
    }

    /// What one SEND takes from `position`: up to the segment's end, at most `bytes_max`.
    /// `None` at the head.
    pub fn visit(&self, position: u64, bytes_max: usize) -> Option<&[u8]> {
        let segment = &self.segments[self.segment_index(position)?];
        let to = segment.end().min(position + bytes_max as u64);
        Some(segment.slice(position, to))
    }

    /// How many visits of at most `bytes_max` a reader at its beginning needs to its end.
    pub fn visits(&self, bytes_max: usize) -> u32 {
        self.segments.iter().map(|segment| segment.bytes.div_ceil(bytes_max as u32)).sum()
    }

    /// How many messages end in `(from, to]`, both in one segment or at its ends.
    pub fn messages_between(&self, from: u64, to: u64) -> u64 {
        self.segment_index(from).map_or(0, |index| {
            let segment = &self.segments[index];
            segment.messages_before(to) - segment.messages_before(from)
        })
    }

    /// The first boundary at or after `position`.
    pub fn boundary(&self, position: u64, boundary: Boundary) -> u64 {
        let Some(index) = self.segment_index(position) else { return position };
        let segment = &self.segments[index];
        let offset = (position - segment.start) as u32;
        if offset == 0 {
            return position;
        }
        segment
            .ends
            .iter()
            .skip(segment.ends.partition_point(|e| e.end < offset))
            .find(|e| e.message || boundary == Boundary::Frame)
            .map_or_else(|| segment.end(), |e| segment.start + u64::from(e.end))
    }

    /// The ends of the messages that end after `position`, oldest first: what a reader there has
    /// not been sent whole.
    pub fn unsent(&self, position: u64) -> impl Iterator<Item = FrameEnd> + '_ {
        let first = self.segment_index(position).unwrap_or(self.segments.len());
        self.segments.range(first..).flat_map(move |segment| {
            let offset = position.saturating_sub(segment.start).min(u64::from(u32::MAX)) as u32;
            let skip = segment.ends.partition_point(|e| e.end <= offset);
            segment.ends[skip..].iter().copied().filter(|e| e.message && !e.notice)
        })
    }

    /// The same in numbers, by topic. What lies in segments that are full is counted once for all who
    /// ask.
    pub fn unsent_by_topic(&mut self, position: u64) -> Unsent {
        let mut unsent = Unsent::default();
        let first = self.segment_index(position).unwrap_or(self.segments.len());
        unsent.first_count = self.unsent(position).next().map(|end| end.count);
        let last = self.segments.len().saturating_sub(1);
        for index in first..self.segments.len() {
            let segment = &mut self.segments[index];
            if index > first && index < last {
                let tally = segment.tally.get_or_insert_with(|| {
                    unsent.looks += segment.ends.len();
                    let mut messages = HashMap::<TopicId, u32, RandomState>::default();
                    for end in segment.ends.iter().filter(|e| e.message && !e.notice) {
                        *messages.entry(end.topic).or_insert(0) += 1;
                    }
                    messages.into_iter().collect()
                });
                unsent.looks += tally.len();
                for &(topic, messages) in tally.iter() {
                    *unsent.messages.entry(topic).or_insert(0) += u64::from(messages);
                }
                continue;
            }
            let offset = position.saturating_sub(segment.start).min(u64::from(u32::MAX)) as u32;
            let skip = segment.ends.partition_point(|e| e.end <= offset);
            unsent.looks += segment.ends.len() - skip;
            for end in segment.ends[skip..].iter().filter(|e| e.message && !e.notice) {
                *unsent.messages.entry(end.topic).or_insert(0) += 1;
            }
        }
        unsent
    }

    /// The bytes in `[from, to)`, which lie in one segment, to be kept apart from the log: by
    /// reference where the log itself holds them so.
    pub fn detach(&self, from: u64, to: u64) -> Option<Detached<'_>> {
        let segment = &self.segments[self.segment_index(from)?];
        Some(match &segment.body {
            Body::Chunk(_) => Detached::Bytes(segment.slice(from, to)),
            Body::Shared { frame, offset, .. } => Detached::Shared {
                frame: frame.clone(),
                at: offset + (from - segment.start) as usize,
                to: offset + (to - segment.start) as usize,
            },
        })
    }

    /// Drops everything; for a lane that ends.
    pub fn clear(&mut self, memory: &mut LogMemory) {
        while let Some(segment) = self.segments.pop_front() {
            memory.drop_segment(segment);
        }
    }
}
