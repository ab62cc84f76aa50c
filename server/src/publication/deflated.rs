//! A publication's companion block: its messages compressed, ready as frames, for all subscribers
//! that agreed on permessage-deflate (RFC 7692).
//!
//! Knows: the block's layout, which windows one result serves, what is worth compressing. Must not
//! know: who subscribes, when and where compressing happens.
//!
//! ```text
//! 0            DIRECTORY_BYTES
//! ├─ directory ┼─ frames of a result ┼─ frames of another …
//! directory: for each body and window a start and an end (u32 each), equal where there is nothing
//! ```
//!
//! A message of n bytes holds no distance above n - 1, so one result serves every window that is as
//! large as the message; smaller windows have a result each. Every message is compressed by itself
//! (`server_no_context_takeover`), which is why all receivers can share it.

use std::ops::Range;

use uringcast_protocol::{
    limits::HEADER_BYTES_MAX,
    opcode::Opcode,
    writer::{fragmented_bytes, fragments},
};
use uringcast_ring::pool::{Frame, Pool};

use super::{Body, Format, Publication, u32_at};
use crate::deflate::Compressor;

/// Which windows receivers of each body inflate with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By body; bit i stands for the window of 2^(8 + i) bytes.
    windows: [u8; BODIES],
}

impl Wanted {
    /// Receivers with this format are among them. A plain format adds nothing.
    pub fn add(&mut self, format: Format) {
        if let Some(slot) = window_slot(format.window_bits) {
            self.windows[format.body as usize] |= 1 << slot;
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.windows == [0; BODIES]
    }

    /// The largest first: where input is bounded, the windows that nearly everyone has are served.
    fn windows(self, body: Body) -> impl Iterator<Item = u8> {
        let windows = self.windows[body as usize];
        let slots = (0..WINDOWS as u8).rev();
        slots.filter(move |slot| windows & 1 << slot != 0).map(|slot| 8 + slot)
    }

    /// The longest message of this publication that is to be compressed, bytes; 0 if there is none.
    pub fn longest(self, publication: &Publication, bytes_min: usize) -> usize {
        [Body::Json, Body::Raw]
            .into_iter()
            .filter(|&body| self.windows[body as usize] != 0)
            .map(|body| publication.message_bytes(body))
            .filter(|&bytes| bytes >= bytes_min)
            .max()
            .unwrap_or(0)
    }
}

/// A thread's means for compressing publications; what it needs is kept from one to the next.
#[derive(Debug, Default)]
pub struct Deflater {
    compressor: Compressor,
    /// A message whose frames do not lie together.
    message: Vec<u8>,
    /// A compressed message.
    compressed: Vec<u8>,
    /// The block as it grows.
    block: Vec<u8>,
}

/// What compressing a publication came to.
#[derive(Debug, Default)]
pub struct Deflated {
    /// The companion block; `None` if nothing became smaller or there is no room for it.
    pub block: Option<Frame>,
    /// Bytes compressed; a message counts once for each result that was tried.
    pub bytes_in: usize,
    /// Bytes that they became, frame headers included.
    pub bytes_out: usize,
}

impl Deflater {
    /// Compresses the messages of at least `bytes_min` bytes, each once for every distinct result.
    /// Those that would make it more than `input_bytes_max` in all stay plain, as do those that do
    /// not become smaller.
    pub fn deflate(
        &mut self,
        publication: &Publication,
        wanted: Wanted,
        bytes_min: usize,
        input_bytes_max: usize,
        pool: &mut Pool,
    ) -> Deflated {
        let mut bytes_in = 0;
        self.block.clear();
        self.block.resize(DIRECTORY_BYTES, 0);
        for body in [Body::Json, Body::Raw] {
            let bytes = publication.message_bytes(body);
            let mut windows = wanted.windows(body).peekable();
            if bytes < bytes_min || windows.peek().is_none() {
                continue;
            }
            self.gather(publication, body);
            let mut whole = None;
            for window_bits in windows {
                let reaches = bytes <= 1 << window_bits;
                let range = match whole.take().filter(|_| reaches) {
                    Some(range) => range,
                    None if bytes_in + bytes > input_bytes_max => break,
                    // The compressor has no window of 256 bytes.
                    None if window_bits == 8 && !reaches => break,
                    None => {
                        bytes_in += bytes;
                        self.compress(publication.opcode_as(body), window_bits)
                    }
                };
                let at = entry_at(body, window_bits - 8);
                put_u32(&mut self.block, at, range.start);
                put_u32(&mut self.block, at + 4, range.end);
                whole = reaches.then_some(range);
            }
        }
        let bytes_out = self.block.len() - DIRECTORY_BYTES;
        let block = (bytes_out > 0).then(|| pool.take(self.block.len()).ok()).flatten();
        let block = block.map(|mut lease| {
            lease[..self.block.len()].copy_from_slice(&self.block);
            lease.freeze()
        });
        Deflated { block, bytes_in, bytes_out }
    }

    fn gather(&mut self, publication: &Publication, body: Body) {
        self.message.clear();
        for piece in publication.pieces(body) {
            self.message.extend_from_slice(piece);
        }
    }

    /// Appends the message's frames to the block; where. Empty if it does not become smaller.
    fn compress(&mut self, opcode: Opcode, window_bits: u8) -> Range<usize> {
        let start = self.block.len();
        if self.compressed.len() < self.message.len() {
            self.compressed.resize(self.message.len(), 0);
        }
        let room = &mut self.compressed[..self.message.len()];
        let Some(bytes) = self.compressor.compress(window_bits, &self.message, room) else {
            return start..start;
        };
        self.block.reserve(fragmented_bytes(bytes));
        for fragment in fragments(opcode, bytes).deflated() {
            let mut header = [0; HEADER_BYTES_MAX];
            let header_bytes = fragment.header(&mut header);
            self.block.extend_from_slice(&header[..header_bytes]);
            self.block.extend_from_slice(&self.compressed[fragment.range]);
        }
        start..self.block.len()
    }
}

/// Where a companion block has the frames of this format, if it has them.
pub(super) fn find(block: &[u8], format: Format) -> Option<Range<usize>> {
    let at = entry_at(format.body, window_slot(format.window_bits)?);
    let range = u32_at(block, at)..u32_at(block, at + 4);
    (!range.is_empty()).then_some(range)
}

/// Position of a window in the directory; `None` if there is no such window.
fn window_slot(window_bits: u8) -> Option<u8> {
    window_bits.checked_sub(8).filter(|&slot| usize::from(slot) < WINDOWS)
}

fn entry_at(body: Body, slot: u8) -> usize {
    (body as usize * WINDOWS + usize::from(slot)) * 8
}

fn put_u32(block: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).expect("a publication is bounded far below 4 GiB");
    block[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Kinds of bodies.
pub const BODIES: usize = 2;
/// Window sizes of permessage-deflate: 2^8 to 2^15 (RFC 7692 section 7.1.2.1).
pub const WINDOWS: usize = 8;
const DIRECTORY_BYTES: usize = BODIES * WINDOWS * 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uringcast_protocol::{
        Event, Session,
        limits::FRAME_BYTES_MAX,
        session::{MessageKind, Role},
    };

    use super::*;
    use crate::{
        deflate::Inflater,
        publication::{self, Block, Encoded, Order, PayloadContent, SHARED_FRAME_BYTES_MIN},
    };

    const ALL: [Body; 2] = [Body::Json, Body::Raw];

    fn publication(payload: &[u8], content: PayloadContent) -> Publication {
        let pool = &mut Pool::unregistered();
        let opcode = match content {
            PayloadContent::Binary => Opcode::Binary,
            _ => Opcode::Text,
        };
        let lease = publication::draft(pool, "md.X", 7, content, opcode, payload).expect("room");
        let order = Order {
            epoch: 3,
            seq: 45,
            ts_us: 1_723_161_253_937_085,
            pub_seq: None,
            snapshot: false,
        };
        publication::order(pool, lease, order, &mut Vec::new()).expect("room")
    }

    fn wanted(formats: impl IntoIterator<Item = (Body, u8)>) -> Wanted {
        let mut wanted = Wanted::default();
        for (body, window_bits) in formats {
            wanted.add(Format { body, window_bits });
        }
        wanted
    }

    fn deflated(publication: &mut Publication, wanted: Wanted, bytes_min: usize) -> [usize; 2] {
        let pool = &mut Pool::unregistered();
        let outcome = Deflater::default().deflate(publication, wanted, bytes_min, usize::MAX, pool);
        publication.set_deflated(outcome.block);
        [outcome.bytes_in, outcome.bytes_out]
    }

    fn frames(publication: &Publication, format: Format) -> Vec<u8> {
        let encoded = publication.encoded(format);
        let mut out = vec![0; encoded.bytes()];
        encoded.write(&mut out);
        assert_eq!(encoded.frames().sum::<usize>(), out.len());
        out
    }

    /// What a client with this window makes of it; whether it was compressed.
    fn received(publication: &Publication, format: Format) -> (MessageKind, Vec<u8>, bool) {
        let bytes = frames(publication, format);
        let mut session = Session::new(Role::Client, 1 << 30);
        if format.window_bits != 0 {
            session = session.with_deflate();
        }
        let (mut input, mut message) = (&bytes[..], Vec::new());
        let event = session.receive(&mut input, &mut message).expect("legal frames");
        assert!(input.is_empty(), "one message");
        match event.expect("a whole message") {
            Event::Message(kind) => (kind, message, false),
            Event::Deflated(kind) => (kind, inflate(&message, format.window_bits), true),
            other => panic!("{other:?}"),
        }
    }

    /// With exactly this window, a few bytes at a time, so that references are served from it.
    fn inflate(compressed: &[u8], window_bits: u8) -> Vec<u8> {
        let mut whole = Vec::new();
        Inflater::new().inflate(compressed, &mut whole, 1 << 30).expect("valid");
        // The library has no window of 256 bytes; nothing longer is compressed for it.
        assert!(window_bits > 8 || whole.len() <= 256);
        let mut stream = flate2::Decompress::new_with_window_bits(false, window_bits.max(9));
        let input = [compressed, &[0, 0, 0xFF, 0xFF]].concat();
        let (mut out, mut step) = (Vec::new(), [0; 64]);
        loop {
            let (taken, given) = (stream.total_in() as usize, stream.total_out() as usize);
            let flush = flate2::FlushDecompress::Sync;
            stream.decompress(&input[taken..], &mut step, flush).expect("valid");
            let new = stream.total_out() as usize - given;
            out.extend_from_slice(&step[..new]);
            if new < step.len() {
                break;
            }
        }
        assert_eq!(out, whole, "window {window_bits}");
        whole
    }

    fn rows(bytes: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(bytes + 40);
        payload.push(b'[');
        while payload.len() < bytes {
            let n = payload.len() * 7_919 % 10_007;
            payload.extend_from_slice(format!("{{\"price\":\"{n}\"}},").as_bytes());
        }
        payload.extend_from_slice(b"0]");
        payload
    }

    #[test]
    fn one_result_serves_all_windows_that_reach_over_the_message() {
        let mut p = publication(&rows(1_000), PayloadContent::Json);
        let json = p.message_bytes(Body::Json);
        assert!((1_000..1_200).contains(&json), "above 2^9 and 2^10 for raw and JSON");
        let [bytes_in, _] =
            deflated(&mut p, wanted((11..=15).map(|window| (Body::Json, window))), 0);
        assert_eq!(bytes_in, json);
        let first = frames(&p, Format { body: Body::Json, window_bits: 11 });
        for window_bits in 12..=15 {
            assert_eq!(frames(&p, Format { body: Body::Json, window_bits }), first);
        }
        // Two windows that do not, and what nobody wants.
        let [bytes_in, _] =
            deflated(&mut p, wanted([(Body::Json, 9), (Body::Json, 10), (Body::Json, 15)]), 0);
        assert_eq!(bytes_in, 3 * json);
        for (window_bits, there) in [(9, true), (10, true), (11, false), (15, true), (8, false)] {
            let format = Format { body: Body::Json, window_bits };
            assert_eq!(received(&p, format).2, there, "{window_bits}");
        }
        assert!(!received(&p, Format { body: Body::Raw, window_bits: 15 }).2);
    }

    #[test]
    fn short_messages_and_what_does_not_shrink_stay_plain() {
        let mut noise = 1_u32;
        let random: Vec<u8> = (0..2_000)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        let both = wanted([(Body::Json, 15), (Body::Raw, 15)]);
        let mut p = publication(&random, PayloadContent::Binary);
        let [_, bytes_out] = deflated(&mut p, both, 0);
        assert!(bytes_out > 2_000, "base64 shrinks to about the payload");
        assert!(!received(&p, Format { body: Body::Raw, window_bits: 15 }).2);
        assert!(received(&p, Format { body: Body::Json, window_bits: 15 }).2);

        let mut p = publication(&rows(200), PayloadContent::Json);
        let raw = p.message_bytes(Body::Raw);
        assert_eq!(both.longest(&p, raw + 1), p.message_bytes(Body::Json));
        let [bytes_in, _] = deflated(&mut p, both, raw + 1);
        assert_eq!(bytes_in, p.message_bytes(Body::Json));
        assert_eq!(deflated(&mut p, both, 10_000), [0, 0]);
        assert!(p.deflated().is_none());
        assert_eq!(both.longest(&p, 10_000), 0);
    }

    #[test]
    fn the_input_is_bounded() {
        let p = publication(&rows(3_000), PayloadContent::Json);
        let all = wanted(ALL.into_iter().flat_map(|body| (8..=15).map(move |w| (body, w))));
        for most in [0, 2_999, 5_000, 20_000] {
            let pool = &mut Pool::unregistered();
            let outcome = Deflater::default().deflate(&p, all, 0, most, pool);
            assert!(outcome.bytes_in <= most);
            assert_eq!(outcome.block.is_some(), most >= 5_000);
        }
    }

    #[test]
    fn long_results_go_in_fragments_and_by_reference() {
        let mut noise = 1_u32;
        let digits: String = (0..600_000)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(b'0' + (noise >> 24) as u8 % 10)
            })
            .collect();
        let payload = format!("\"{digits}\"");
        let mut p = publication(payload.as_bytes(), PayloadContent::Json);
        deflated(&mut p, wanted([(Body::Raw, 15), (Body::Json, 12)]), 256);
        let format = Format { body: Body::Raw, window_bits: 15 };
        let encoded = p.encoded(format);
        assert!(encoded.frames().count() > 2);
        assert!(encoded.frames().all(|frame| frame <= FRAME_BYTES_MAX));
        assert!(encoded.bytes() >= SHARED_FRAME_BYTES_MIN && encoded.bytes() < payload.len());
        assert!(matches!(encoded, Encoded::Ready { kind: Block::Deflated, .. }));
        assert_eq!(received(&p, format), (MessageKind::Text, payload.into_bytes(), true));
        let (_, json, compressed) = received(&p, Format { body: Body::Json, window_bits: 12 });
        assert!(compressed && json.starts_with(b"{\"topic\":\"md.X\""));
    }

    #[test]
    fn a_full_pool_sends_it_plain() {
        let mut p = publication(&rows(1_000), PayloadContent::Json);
        let pool = &mut Pool::new(uringcast_ring::pool::PoolOptions {
            bytes_max: 0,
            registered_bytes_max: 0,
        });
        let both = wanted([(Body::Json, 15), (Body::Raw, 15)]);
        let outcome = Deflater::default().deflate(&p, both, 0, usize::MAX, pool);
        assert!(outcome.block.is_none());
        p.set_deflated(outcome.block);
        assert!(!received(&p, Format { body: Body::Raw, window_bits: 15 }).2);
    }

    proptest! {
        /// Whatever is published, whoever wants it: every lane's bytes say the plain message.
        #[test]
        fn every_lane_is_sent_the_same_message(
            pieces in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..40), 1..60_usize),
                0..40,
            ),
            content in prop::sample::select(vec![
                PayloadContent::Binary,
                PayloadContent::Json,
                PayloadContent::Text,
            ]),
            windows in prop::collection::vec((any::<bool>(), 8..=15_u8), 0..8),
            bytes_min in 0..600_usize,
        ) {
            let mut payload: Vec<u8> =
                pieces.iter().flat_map(|(piece, times)| piece.repeat(*times)).collect();
            if content != PayloadContent::Binary {
                payload = payload.iter().map(|byte| b'a' + byte % 26).collect();
            }
            if content == PayloadContent::Json {
                payload = [b"\"", &payload[..], b"\""].concat();
            }
            let bodies = windows.into_iter().map(|(json, window_bits)| {
                (if json { Body::Json } else { Body::Raw }, window_bits)
            });
            let mut p = publication(&payload, content);
            let plain = ALL.map(|body| received(&p, Format { body, window_bits: 0 }));
            deflated(&mut p, wanted(bodies), bytes_min);
            for body in ALL {
                let (kind, message, _) = &plain[body as usize];
                for window_bits in [0, 8, 9, 10, 11, 12, 13, 14, 15] {
                    let format = Format { body, window_bits };
                    let (its_kind, its_message, compressed) = received(&p, format);
                    prop_assert_eq!(its_kind, *kind);
                    prop_assert_eq!(&its_message, message);
                    prop_assert!(!compressed || message.len() >= bytes_min);
                    prop_assert!(frames(&p, format).len() <= frames(&p, plain_of(body)).len());
                }
            }
        }
    }

    fn plain_of(body: Body) -> Format {
        Format { body, window_bits: 0 }
    }
}
