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
//! large frames (either format 8 KiB or more): meta, topic, raw frames, JSON frames
//! ```
//!
//! The publisher's shard unmasks the payload to its final place (a *draft*); the topic's home shard
//! writes seq, time and the JSON head before it. A small publication's payload exists once; a large
//! one is written out once per format, in fragments, because subscribers are sent it from here.

use uringcast_protocol::{
    header::Header,
    json::write_json_string,
    limits::{FRAGMENT_BYTES_MAX, HEADER_BYTES_MAX, TOPIC_BYTES_MAX},
    opcode::Opcode,
    reply,
    writer::{fragmented_bytes, fragments},
};
use uringcast_ring::pool::{Frame, Lease, Pool, PoolFull};

/// Frames of this many bytes or more are held by reference instead of being copied into logs.
pub const SHARED_FRAME_BYTES_MIN: usize = 8 << 10;

/// A wire format of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `{"topic":…,"seq":…,"ts":…,"data":…}`
    Json,
    /// The payload alone.
    Raw,
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
    let flags = reply::MessageFlags { snapshot: false, base64: content == PayloadContent::Binary };
    reply::write_message_head(scratch, topic_of(&lease), order.seq, order.ts_us, flags);
    lease[SEQ..SEQ + 8].copy_from_slice(&order.seq.to_le_bytes());
    lease[TS..TS + 8].copy_from_slice(&order.ts_us.to_le_bytes());
    lease[EPOCH..EPOCH + 8].copy_from_slice(&order.epoch.to_le_bytes());
    let body = u32_at(&lease, JSON_START);
    let head = body - scratch.len();
    lease[head..body].copy_from_slice(scratch);
    put_u32(&mut lease, JSON_START, head);

    let json_bytes = fragmented_bytes(u32_at(&lease, JSON_END) - head);
    let raw_bytes = fragmented_bytes(u32_at(&lease, PAYLOAD_END) - u32_at(&lease, PAYLOAD_START));
    if json_bytes.max(raw_bytes) < SHARED_FRAME_BYTES_MIN {
        return Ok(Publication { frame: lease.freeze() });
    }
    let topic_end = META_BYTES + topic_of(&lease).len();
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
    Ok(Publication { frame: large.freeze() })
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
}

impl Publication {
    /// Reads a block that came over the mesh.
    pub fn from_frame(frame: Frame) -> Self {
        Self { frame }
    }

    /// The block.
    pub fn frame(&self) -> &Frame {
        &self.frame
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

    /// Whether its frames are held by reference instead of being copied into logs.
    pub fn is_large(&self) -> bool {
        self.frame[LARGE] == 1
    }

    /// The size of its frame (large: of its fragments) in this format, bytes.
    pub fn encoded_bytes(&self, format: Format) -> usize {
        if self.is_large() {
            return self.large_frame(format).len();
        }
        let (_, body) = self.body(format);
        Header::encoded_bytes(body.len() as u64, false) + body.len()
    }

    /// Writes its frame into exactly [`encoded_bytes`](Self::encoded_bytes).
    pub fn encode_into(&self, format: Format, out: &mut [u8]) {
        if self.is_large() {
            out.copy_from_slice(&self.frame[self.large_frame(format)]);
            return;
        }
        let (opcode, body) = self.body(format);
        let header =
            Header { fin: true, rsv1: false, opcode, mask: None, payload_bytes: body.len() as u64 };
        let mut bytes = [0; HEADER_BYTES_MAX];
        let header_bytes = header.encode(&mut bytes);
        out[..header_bytes].copy_from_slice(&bytes[..header_bytes]);
        out[header_bytes..].copy_from_slice(body);
    }

    fn body(&self, format: Format) -> (Opcode, &[u8]) {
        match format {
            Format::Json => (
                Opcode::Text,
                &self.frame[u32_at(&self.frame, JSON_START)..u32_at(&self.frame, JSON_END)],
            ),
            Format::Raw => (
                opcode_of(&self.frame),
                &self.frame[u32_at(&self.frame, PAYLOAD_START)..u32_at(&self.frame, PAYLOAD_END)],
            ),
        }
    }

    /// Where a large publication's frames in this format lie in the block.
    pub fn large_frame(&self, format: Format) -> std::ops::Range<usize> {
        let json = u32_at(&self.frame, JSON_FRAMES_START);
        match format {
            Format::Json => json..u32_at(&self.frame, FRAMES_END),
            Format::Raw => u32_at(&self.frame, RAW_FRAMES_START)..json,
        }
    }

    /// The sizes of a large publication's fragments in this format, headers included, bytes.
    pub fn large_fragments(&self, format: Format) -> impl Iterator<Item = usize> {
        const WHOLE: usize =
            FRAGMENT_BYTES_MAX + Header::encoded_bytes(FRAGMENT_BYTES_MAX as u64, false);
        let total = self.large_frame(format).len();
        (0..total.div_ceil(WHOLE)).map(move |i| WHOLE.min(total - i * WHOLE))
    }

    /// Appends the JSON message that shows this publication as its topic's last value, as frames.
    pub fn write_snapshot(&self, out: &mut Vec<u8>) {
        let mut message = Vec::new();
        let flags = reply::MessageFlags {
            snapshot: true,
            base64: content_of(&self.frame) == PayloadContent::Binary,
        };
        reply::write_message_head(&mut message, self.topic(), self.seq(), self.ts_us(), flags);
        self.write_json_body(&mut message);
        uringcast_protocol::writer::write_message(out, Opcode::Text, &message, None);
    }

    /// The JSON message without its head, closing brace included.
    fn write_json_body(&self, out: &mut Vec<u8>) {
        let mut plain = Vec::new();
        let flags = reply::MessageFlags {
            snapshot: false,
            base64: content_of(&self.frame) == PayloadContent::Binary,
        };
        reply::write_message_head(&mut plain, self.topic(), self.seq(), self.ts_us(), flags);
        let head_bytes = plain.len();
        if !self.is_large() {
            out.extend_from_slice(&self.body(Format::Json).1[head_bytes..]);
            return;
        }
        let mut skip = head_bytes;
        let mut at = self.large_frame(Format::Json).start;
        for bytes in self.large_fragments(Format::Json) {
            let payload_bytes = fragment_payload_bytes(bytes);
            let piece = &self.frame[at + bytes - payload_bytes..at + bytes];
            out.extend_from_slice(&piece[skip.min(piece.len())..]);
            skip = skip.saturating_sub(piece.len());
            at += bytes;
        }
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

fn topic_of(block: &[u8]) -> &str {
    let bytes = usize::from(block[TOPIC_BYTES]);
    std::str::from_utf8(&block[META_BYTES..META_BYTES + bytes])
        .expect("written from a str by write_meta")
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
        let order_ = Order { epoch: 3, seq: 45, ts_us: 1_723_161_253_937_085 };
        order(&mut pool, lease, order_, &mut Vec::new()).expect("room")
    }

    fn encoded(publication: &Publication, format: Format) -> Vec<u8> {
        let mut out = vec![0; publication.encoded_bytes(format)];
        publication.encode_into(format, &mut out);
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
        assert_eq!(message(&encoded(&p, Format::Raw)), (Opcode::Text, br#"{"p":1}"#.to_vec()));
        let json = br#"{"topic":"md.X","seq":45,"ts":1723161253937085,"data":{"p":1}}"#;
        assert_eq!(message(&encoded(&p, Format::Json)), (Opcode::Text, json.to_vec()));
        assert_eq!((p.topic(), p.seq(), p.epoch(), p.payload_bytes()), ("md.X", 45, 3, 7));
    }

    #[test]
    fn text_becomes_a_string_and_binary_base64() {
        let p = publication("a\"é".as_bytes(), PayloadContent::Text, Opcode::Text);
        let (_, json) = message(&encoded(&p, Format::Json));
        let value: serde_json::Value = serde_json::from_slice(&json).expect("valid");
        assert_eq!(value["data"], "a\"é");
        let p = publication(&[0, 255], PayloadContent::Binary, Opcode::Binary);
        assert_eq!(message(&encoded(&p, Format::Raw)), (Opcode::Binary, vec![0, 255]));
        let (_, json) = message(&encoded(&p, Format::Json));
        let value: serde_json::Value = serde_json::from_slice(&json).expect("valid");
        assert_eq!(value["data_base64"], "AP8=");
    }

    #[test]
    fn a_large_publication_goes_in_fragments_and_its_snapshot_says_the_same() {
        for bytes in [9_000, 65_522, 65_523, 200_000] {
            let payload = format!("\"{}\"", "x".repeat(bytes - 2));
            let p = publication(payload.as_bytes(), PayloadContent::Json, Opcode::Text);
            assert!(p.is_large());
            let raw = encoded(&p, Format::Raw);
            assert_eq!(p.large_fragments(Format::Raw).sum::<usize>(), raw.len());
            assert_eq!(message(&raw).1, payload.as_bytes());
            let json = message(&encoded(&p, Format::Json)).1;
            let live: serde_json::Value = serde_json::from_slice(&json).expect("valid");
            let mut out = Vec::new();
            p.write_snapshot(&mut out);
            let snapshot: serde_json::Value =
                serde_json::from_slice(&message(&out).1).expect("valid");
            assert_eq!(snapshot["data"], live["data"]);
            assert_eq!(snapshot["snapshot"], true);
        }
    }
}
