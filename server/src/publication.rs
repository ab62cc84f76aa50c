//! A publication: one block of pooled memory that every shard reads by reference.
//!
//! Knows: the block's layout, and how a publication looks as a frame in each wire format. Must not
//! know: who publishes, who subscribes, or sockets.
//!
//! ```text
//! 0          META_BYTES                                          (small frames)
//! ├─ meta ───┼─ topic ─┼─ room for the JSON head │ JSON body = payload │ } │
//!                                  right-aligned ┘        (or, where the payload is not JSON,
//!                                                          JSON body } payload)
//! large frames (either body 8 KiB or more): meta, topic, raw frames, JSON frames
//! ```
//!
//! The publisher's shard unmasks the payload to its final place (a *draft*); the topic's home shard
//! writes seq, time and the JSON head before it. A small publication's payload exists once; a large
//! one is written out once per body, in fragments, because subscribers are sent it from here. For
//! receivers with permessage-deflate there may be a companion block ([`deflated`]).

pub mod deflated;
mod encoded;
mod event;
mod notice;
mod snapshot;

use std::ops::Range;

pub use self::{
    encoded::{Block, Encoded},
    event::Event,
};
use uringcast_protocol::{
    header::Header,
    json::write_json_string,
    limits::{HEADER_BYTES_MAX, TOPIC_BYTES_MAX},
    opcode::Opcode,
    reply,
    writer::{fragmented_bytes, fragments},
};
use uringcast_ring::pool::{Frame, Lease, Pool, PoolFull};

/// Frames of this many bytes or more are held by reference instead of being copied into logs.
pub const SHARED_FRAME_BYTES_MIN: usize = 8 << 10;

/// What of a publication subscribers are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// `{"topic":…,"seq":…,"ts":…,"data":…}`
    Json,
    /// The payload alone.
    Raw,
    /// A Server-Sent Event with the same data as [`Self::Json`].
    Sse,
}

/// A wire format of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// What is sent.
    pub body: Body,
    /// The window that its receivers inflate with, as a power of two (8 to 15); 0 for receivers
    /// that are sent everything plain.
    pub window_bits: u8,
}

impl Format {
    /// JSON messages, plain.
    pub const JSON: Self = Self { body: Body::Json, window_bits: 0 };
    /// Payloads, plain.
    pub const RAW: Self = Self { body: Body::Raw, window_bits: 0 };
}

/// What a payload turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadContent {
    /// Not text; `data_base64` in JSON messages.
    Binary,
    /// Valid JSON; stands in JSON messages as it is.
    Json,
    /// UTF-8; a JSON string in JSON messages.
    Text,
}

/// What the home shard gives a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The topic's epoch.
    pub epoch: u64,
    /// Its number within the epoch, from 1.
    pub seq: u64,
    /// When it was ordered, µs UTC.
    pub ts_us: u64,
    /// The publisher's own number.
    pub pub_seq: Option<u64>,
    /// It is the state after the publication with this seq, not one of its own.
    pub snapshot: bool,
}

const META_BYTES: usize = 72;
/// The JSON head without the name: braces, keys, two numbers of up to 20 digits, snapshot flag.
const JSON_HEAD_BYTES: usize = 112;

// Offsets of the meta fields.
const SEQ: usize = 0;
const TS: usize = 8;
const EPOCH: usize = 16;
const HASH: usize = 24;
const JSON_START: usize = 32;
const JSON_END: usize = 36;
const PAYLOAD_START: usize = 40;
const PAYLOAD_END: usize = 44;
const RAW_FRAMES_START: usize = 48;
const JSON_FRAMES_START: usize = 52;
const FRAMES_END: usize = 56;
const TOPIC_BYTES: usize = 60;
const CONTENT: usize = 61;
const OPCODE: usize = 62;
const LARGE: usize = 63;
const PUB_SEQ: usize = 64;
/// Stands for no number of the publisher's.
const PUB_SEQ_NONE: u64 = u64::MAX;

/// Where a draft's payload goes, for a topic of this name.
pub fn payload_offset(topic: &str) -> usize {
    META_BYTES + topic.len() + JSON_HEAD_BYTES + topic.len()
}

/// The bytes a draft needs, for a payload of this size which is valid JSON.
pub fn draft_bytes(topic: &str, payload_bytes: usize) -> usize {
    payload_offset(topic) + payload_bytes + 1
}

/// A lease for a draft, into which the payload is then written at [`payload_offset`].
///
/// # Errors
/// The pool is at its bound.
pub fn reserve(pool: &mut Pool, topic: &str, payload_bytes: usize) -> Result<Lease, PoolFull> {
    pool.take(draft_bytes(topic, payload_bytes))
}

/// Finishes a draft whose payload stands at [`payload_offset`]: writes the meta data, and for a
/// payload that is not JSON its JSON body, which takes another block.
///
/// # Errors
/// The pool is at its bound.
pub fn finish_draft(
    pool: &mut Pool,
    mut lease: Lease,
    topic: &str,
    topic_hash: u64,
    payload_bytes: usize,
    content: PayloadContent,
    opcode: Opcode,
) -> Result<Lease, PoolFull> {
    let start = payload_offset(topic);
    let payload = start..start + payload_bytes;
    if content == PayloadContent::Json {
        lease[payload.end] = b'}';
        write_meta(&mut lease, topic, topic_hash, content, opcode);
        put_u32(&mut lease, JSON_START, payload.start);
        put_u32(&mut lease, JSON_END, payload.end + 1);
        put_u32(&mut lease, PAYLOAD_START, payload.start);
        put_u32(&mut lease, PAYLOAD_END, payload.end);
        return Ok(lease);
    }
    let mut body = Vec::new();
    match content {
        PayloadContent::Text => {
            let text = std::str::from_utf8(&lease[payload.clone()]).unwrap_or_default();
            write_json_string(&mut body, text);
        }
        _ => {
            reply::write_base64(&mut body, &lease[payload.clone()]);
        }
    }
    body.push(b'}');
    let mut copy = pool.take(start + body.len() + payload_bytes)?;
    write_meta(&mut copy, topic, topic_hash, content, opcode);
    let json_end = start + body.len();
    copy[start..json_end].copy_from_slice(&body);
    copy[json_end..json_end + payload_bytes].copy_from_slice(&lease[payload]);
    put_u32(&mut copy, JSON_START, start);
    put_u32(&mut copy, JSON_END, json_end);
    put_u32(&mut copy, PAYLOAD_START, json_end);
    put_u32(&mut copy, PAYLOAD_END, json_end + payload_bytes);
    Ok(copy)
}

/// A whole draft of a payload that lies elsewhere.
///
/// # Errors
/// The pool is at its bound.
pub fn draft(
    pool: &mut Pool,
    topic: &str,
    topic_hash: u64,
    content: PayloadContent,
    opcode: Opcode,
    payload: &[u8],
) -> Result<Lease, PoolFull> {
    let mut lease = reserve(pool, topic, payload.len())?;
    let start = payload_offset(topic);
    lease[start..start + payload.len()].copy_from_slice(payload);
    finish_draft(pool, lease, topic, topic_hash, payload.len(), content, opcode)
}

/// The topic and its hash that a draft is for.
pub fn draft_topic(lease: &Lease) -> (&str, u64) {
    (topic_of(lease), u64_at(lease, HASH))
}

/// The same with the name as bytes, which is enough to look it up: they are not checked to be text once
/// more.
pub fn draft_topic_bytes(lease: &Lease) -> (&[u8], u64) {
    (topic_bytes_of(lease), u64_at(lease, HASH))
}

/// What a draft's payload is, and its size in bytes.
pub fn draft_payload(lease: &Lease) -> (PayloadContent, usize) {
    (content_of(lease), u32_at(lease, PAYLOAD_END) - u32_at(lease, PAYLOAD_START))
}

/// Gives a draft its place in the order of its topic. From here on nobody writes it.
///
/// # Errors
/// The pool is at its bound (only where the publication is large and takes another block).
pub fn order(
    pool: &mut Pool,
    mut lease: Lease,
    order: Order,
    scratch: &mut Vec<u8>,
) -> Result<Publication, PoolFull> {
    scratch.clear();
    let content = content_of(&lease);
    let base64 = content == PayloadContent::Binary;
    let flags = reply::MessageFlags { snapshot: order.snapshot, base64 };
    reply::write_message_head(scratch, topic_bytes_of(&lease), order.seq, order.ts_us, flags);
    lease[SEQ..SEQ + 8].copy_from_slice(&order.seq.to_le_bytes());
    lease[TS..TS + 8].copy_from_slice(&order.ts_us.to_le_bytes());
    lease[EPOCH..EPOCH + 8].copy_from_slice(&order.epoch.to_le_bytes());
    let pub_seq = order.pub_seq.unwrap_or(PUB_SEQ_NONE);
    lease[PUB_SEQ..PUB_SEQ + 8].copy_from_slice(&pub_seq.to_le_bytes());
    let body = u32_at(&lease, JSON_START);
    let head = body - scratch.len();
    lease[head..body].copy_from_slice(scratch);
    put_u32(&mut lease, JSON_START, head);

    let json_bytes = fragmented_bytes(u32_at(&lease, JSON_END) - head);
    let raw_bytes = fragmented_bytes(u32_at(&lease, PAYLOAD_END) - u32_at(&lease, PAYLOAD_START));
    if json_bytes.max(raw_bytes) < SHARED_FRAME_BYTES_MIN {
        return Ok(Publication::from_frames(lease.freeze(), None));
    }
    let topic_end = META_BYTES + topic_bytes_of(&lease).len();
    let mut large = pool.take(topic_end + raw_bytes + json_bytes)?;
    large[..topic_end].copy_from_slice(&lease[..topic_end]);
    let payload = &lease[u32_at(&lease, PAYLOAD_START)..u32_at(&lease, PAYLOAD_END)];
    let raw_end = write_fragments(&mut large, topic_end, opcode_of(&lease), payload);
    let json = &lease[head..u32_at(&lease, JSON_END)];
    let json_end = write_fragments(&mut large, raw_end, Opcode::Text, json);
    put_u32(&mut large, RAW_FRAMES_START, topic_end);
    put_u32(&mut large, JSON_FRAMES_START, raw_end);
    put_u32(&mut large, FRAMES_END, json_end);
    large[LARGE] = 1;
    Ok(Publication::from_frames(large.freeze(), None))
}

fn write_fragments(out: &mut [u8], mut at: usize, opcode: Opcode, payload: &[u8]) -> usize {
    for fragment in fragments(opcode, payload.len()) {
        let mut header = [0; HEADER_BYTES_MAX];
        let header_bytes = fragment.header(&mut header);
        out[at..at + header_bytes].copy_from_slice(&header[..header_bytes]);
        at += header_bytes;
        let piece = &payload[fragment.range];
        out[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    at
}

fn write_meta(
    lease: &mut Lease,
    topic: &str,
    topic_hash: u64,
    content: PayloadContent,
    opcode: Opcode,
) {
    debug_assert!(topic.len() <= TOPIC_BYTES_MAX, "names are validated where they come in");
    lease[HASH..HASH + 8].copy_from_slice(&topic_hash.to_le_bytes());
    lease[TOPIC_BYTES] = topic.len() as u8;
    lease[CONTENT] = content as u8;
    lease[OPCODE] = opcode.bits();
    lease[LARGE] = 0;
    lease[META_BYTES..META_BYTES + topic.len()].copy_from_slice(topic.as_bytes());
}

/// An ordered publication.
#[derive(Clone, Debug)]
pub struct Publication {
    frame: Frame,
    deflated: Option<Frame>,
    /// Its Server-Sent Event with an id, where this shard has made one.
    event: Option<Frame>,
}

impl Publication {
    /// Reads blocks that came over the mesh.
    pub fn from_frames(frame: Frame, deflated: Option<Frame>) -> Self {
        Self { frame, deflated, event: None }
    }

    /// The block.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The companion block, if it was compressed.
    pub fn deflated(&self) -> Option<&Frame> {
        self.deflated.as_ref()
    }

    /// From now on it goes with this companion block.
    pub fn set_deflated(&mut self, deflated: Option<Frame>) {
        self.deflated = deflated;
    }

    /// Its blocks, bytes.
    pub fn block_bytes(&self) -> usize {
        let others = [&self.deflated, &self.event].into_iter().flatten();
        self.frame.len() + others.map(|block| block.len()).sum::<usize>()
    }

    /// Its number within the epoch.
    pub fn seq(&self) -> u64 {
        u64_at(&self.frame, SEQ)
    }

    /// When it was ordered, µs UTC.
    pub fn ts_us(&self) -> u64 {
        u64_at(&self.frame, TS)
    }

    /// Its topic's epoch.
    pub fn epoch(&self) -> u64 {
        u64_at(&self.frame, EPOCH)
    }

    /// The publisher's own number.
    pub fn pub_seq(&self) -> Option<u64> {
        Some(u64_at(&self.frame, PUB_SEQ)).filter(|&number| number != PUB_SEQ_NONE)
    }

    /// Its topic's hash.
    pub fn topic_hash(&self) -> u64 {
        u64_at(&self.frame, HASH)
    }

    /// Its topic's name.
    pub fn topic(&self) -> &str {
        topic_of(&self.frame)
    }

    /// The payload's size, bytes.
    pub fn payload_bytes(&self) -> usize {
        u32_at(&self.frame, PAYLOAD_END) - u32_at(&self.frame, PAYLOAD_START)
    }

    /// What its payload is.
    pub fn content(&self) -> PayloadContent {
        content_of(&self.frame)
    }

    /// How its payload travels to subscribers that get it verbatim.
    pub fn opcode(&self) -> Opcode {
        opcode_of(&self.frame)
    }

    /// The payload, in pieces one after the other; one piece unless it is large.
    pub fn payload_pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces(Body::Raw)
    }

    /// Whether its frames are held by reference instead of being copied into logs.
    pub fn is_large(&self) -> bool {
        self.frame[LARGE] == 1
    }

    /// What subscribers with this format are sent of it, from history. Where nothing is compressed for the format's window,
    /// it is the plain message, which is legal for every single one (RFC 7692 section 6).
    pub fn encoded(&self, format: Format) -> Encoded<'_> {
        if format.window_bits != 0
            && let Some(block) = &self.deflated
            && let Some(range) = deflated::find(block, format)
        {
            return Encoded::Ready { block, range, kind: Block::Deflated };
        }
        if format.body == Body::Sse {
            return self.event(None);
        }
        if self.is_large() {
            let range = self.large_frames(format.body);
            return Encoded::Ready { block: &self.frame, range, kind: Block::Plain };
        }
        let (opcode, body) = self.bare(format.body);
        Encoded::Bare { opcode, body }
    }

    /// The opcode of its messages with this body.
    fn opcode_as(&self, body: Body) -> Opcode {
        match body {
            Body::Json | Body::Sse => Opcode::Text,
            Body::Raw => opcode_of(&self.frame),
        }
    }

    /// The message of one that is not large.
    fn bare(&self, body: Body) -> (Opcode, &[u8]) {
        let (start, end) = match body {
            Body::Json | Body::Sse => (JSON_START, JSON_END),
            Body::Raw => (PAYLOAD_START, PAYLOAD_END),
        };
        let range = u32_at(&self.frame, start)..u32_at(&self.frame, end);
        (self.opcode_as(body), &self.frame[range])
    }

    /// Where a large publication's frames lie in the block.
    fn large_frames(&self, body: Body) -> Range<usize> {
        let json = u32_at(&self.frame, JSON_FRAMES_START);
        match body {
            Body::Json | Body::Sse => json..u32_at(&self.frame, FRAMES_END),
            Body::Raw => u32_at(&self.frame, RAW_FRAMES_START)..json,
        }
    }

    /// The message with this body, in the pieces that it is sent in.
    fn pieces(&self, body: Body) -> impl Iterator<Item = &[u8]> {
        let plain = self.encoded(Format { body, window_bits: 0 });
        let mut at = match &plain {
            Encoded::Ready { range, .. } => range.start,
            Encoded::Bare { .. } | Encoded::Event(_) => 0,
        };
        plain.frames().map(move |bytes| {
            if !self.is_large() {
                return self.bare(body).1;
            }
            at += bytes;
            &self.frame[at - fragment_payload_bytes(bytes)..at]
        })
    }

    /// The message's length with this body, bytes.
    pub fn message_bytes(&self, body: Body) -> usize {
        self.pieces(body).map(<[u8]>::len).sum()
    }
}

/// The payload of an unmasked frame of this size, bytes.
fn fragment_payload_bytes(frame_bytes: usize) -> usize {
    [2, 4, 10]
        .into_iter()
        .map(|header| frame_bytes.saturating_sub(header))
        .find(|&payload| Header::encoded_bytes(payload as u64, false) + payload == frame_bytes)
        .unwrap_or(0)
}

/// The topic that a block is of.
pub(crate) fn topic_of(block: &[u8]) -> &str {
    std::str::from_utf8(topic_bytes_of(block)).expect("written from a str by write_meta")
}

fn topic_bytes_of(block: &[u8]) -> &[u8] {
    &block[META_BYTES..META_BYTES + usize::from(block[TOPIC_BYTES])]
}

fn content_of(block: &[u8]) -> PayloadContent {
    const BINARY: u8 = PayloadContent::Binary as u8;
    const JSON: u8 = PayloadContent::Json as u8;
    match block[CONTENT] {
        BINARY => PayloadContent::Binary,
        JSON => PayloadContent::Json,
        _ => PayloadContent::Text,
    }
}

fn opcode_of(block: &[u8]) -> Opcode {
    if block[OPCODE] == Opcode::Binary.bits() { Opcode::Binary } else { Opcode::Text }
}

fn put_u32(lease: &mut Lease, at: usize, value: usize) {
    let value = u32::try_from(value).expect("a publication is bounded far below 4 GiB");
    lease[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn u32_at(block: &[u8], at: usize) -> usize {
    u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes")) as usize
}

fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(payload: &[u8], content: PayloadContent, opcode: Opcode) -> Publication {
        let mut pool = Pool::unregistered();
        let lease = draft(&mut pool, "md.X", 7, content, opcode, payload).expect("room");
        assert_eq!(draft_topic(&lease), ("md.X", 7));
        assert_eq!(draft_topic_bytes(&lease), (b"md.X".as_slice(), 7));
        let order_ = Order {
            epoch: 3,
            seq: 45,
            ts_us: 1_723_161_253_937_085,
            pub_seq: None,
            snapshot: false,
        };
        order(&mut pool, lease, order_, &mut Vec::new()).expect("room")
    }

    fn encoded(publication: &Publication, format: Format) -> Vec<u8> {
        let encoded = publication.encoded(format);
        let mut out = vec![0; encoded.bytes()];
        encoded.write(&mut out);
        out
    }

    fn message(frames: &[u8]) -> (Opcode, Vec<u8>) {
        let (mut at, mut whole, mut first) = (0, Vec::new(), None);
        while at < frames.len() {
            let (header, bytes) = Header::decode(&frames[at..]).expect("legal").expect("whole");
            first.get_or_insert(header.opcode);
            let end = at + bytes + header.payload_bytes as usize;
            whole.extend_from_slice(&frames[at + bytes..end]);
            assert_eq!(header.fin, end == frames.len());
            at = end;
        }
        (first.expect("one frame"), whole)
    }

    #[test]
    fn a_small_publication_in_both_formats() {
        let p = publication(br#"{"p":1}"#, PayloadContent::Json, Opcode::Text);
        assert!(!p.is_large());
        assert_eq!(message(&encoded(&p, Format::RAW)), (Opcode::Text, br#"{"p":1}"#.to_vec()));
        let json = br#"{"topic":"md.X","seq":45,"ts":1723161253937085,"data":{"p":1}}"#;
        assert_eq!(message(&encoded(&p, Format::JSON)), (Opcode::Text, json.to_vec()));
        assert_eq!((p.topic(), p.seq(), p.epoch(), p.payload_bytes()), ("md.X", 45, 3, 7));
        assert_eq!(p.payload_pieces().collect::<Vec<_>>(), [br#"{"p":1}"#]);
    }

    #[test]
    fn text_becomes_a_string_and_binary_base64() {
        let p = publication("a\"é".as_bytes(), PayloadContent::Text, Opcode::Text);
        let (_, json) = message(&encoded(&p, Format::JSON));
        let value: serde_json::Value = serde_json::from_slice(&json).expect("valid");
        assert_eq!(value["data"], "a\"é");
        let p = publication(&[0, 255], PayloadContent::Binary, Opcode::Binary);
        assert_eq!(message(&encoded(&p, Format::RAW)), (Opcode::Binary, vec![0, 255]));
        let (_, json) = message(&encoded(&p, Format::JSON));
        let value: serde_json::Value = serde_json::from_slice(&json).expect("valid");
        assert_eq!(value["data_base64"], "AP8=");
    }

    #[test]
    fn a_large_publication_goes_in_fragments() {
        for bytes in [9_000, 65_522, 65_523, 200_000] {
            let payload = format!("\"{}\"", "x".repeat(bytes - 2));
            let p = publication(payload.as_bytes(), PayloadContent::Json, Opcode::Text);
            assert!(p.is_large());
            let raw = encoded(&p, Format::RAW);
            assert_eq!(p.encoded(Format::RAW).frames().sum::<usize>(), raw.len());
            assert_eq!(message(&raw).1, payload.as_bytes());
            assert_eq!(p.payload_pieces().collect::<Vec<_>>().concat(), payload.as_bytes());
            let json = message(&encoded(&p, Format::JSON)).1;
            let live: serde_json::Value = serde_json::from_slice(&json).expect("valid");
            assert_eq!(live["data"].as_str().map(str::len), Some(bytes - 2));
        }
    }
}
