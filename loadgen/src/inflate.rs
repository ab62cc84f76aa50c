//! Messages of permessage-deflate, inflated (RFC 7692 section 7.2.2).
//!
//! Knows: deflate streams of one message each, since the server must not take its context from one
//! message to the next. Must not know: frames, connections, who agreed to what.

use flate2::{Decompress, FlushDecompress, Status};
use thiserror::Error;

use crate::frames::MESSAGE_BYTES_MAX;

/// One thread's inflater, for all its connections: every message begins with an empty window.
pub(crate) struct Inflater {
    stream: Decompress,
    /// The message inflated last.
    out: Vec<u8>,
    pub(crate) counts: InflateCounts,
}

/// Compressed messages counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct InflateCounts {
    /// Messages that came compressed.
    pub(crate) messages: u64,
    /// Their payloads on the wire, bytes, frame headers not included.
    pub(crate) compressed_bytes: u64,
    /// The same inflated, bytes.
    pub(crate) inflated_bytes: u64,
}

/// What is wrong with a compressed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum InflateError {
    /// Not deflate, or cut in the middle of a block, or something behind its end.
    #[error("a compressed message that is no deflate stream")]
    Invalid,
    /// Over [`MESSAGE_BYTES_MAX`].
    #[error("a message that inflates to more than {MESSAGE_BYTES_MAX} bytes")]
    TooBig,
}

impl InflateCounts {
    /// Adds another thread's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.compressed_bytes += other.compressed_bytes;
        self.inflated_bytes += other.inflated_bytes;
    }
}

impl Inflater {
    pub(crate) fn new() -> Self {
        // Raw deflate (no zlib header); its window is 32 KiB whatever was agreed: a smaller one
        // only says how far back the server may point.
        let stream = Decompress::new(false);
        Self { stream, out: Vec::new(), counts: InflateCounts::default() }
    }

    /// The message whose payload, of all its frames together, is `compressed`.
    ///
    /// # Errors
    /// [`InflateError`]; the next message can be inflated nevertheless.
    pub(crate) fn inflate(&mut self, compressed: &[u8]) -> Result<&[u8], InflateError> {
        self.stream.reset(false);
        self.out.clear();
        self.put(compressed)?;
        if !self.put(&TAIL)? {
            return Err(InflateError::Invalid);
        }
        self.counts.messages += 1;
        self.counts.compressed_bytes += compressed.len() as u64;
        self.counts.inflated_bytes += self.out.len() as u64;
        Ok(&self.out)
    }

    /// Takes all of `input`; whether it ends with the end of a stream.
    fn put(&mut self, mut input: &[u8]) -> Result<bool, InflateError> {
        let mut ended = false;
        loop {
            if self.out.len() == self.out.capacity() {
                self.grow()?;
            }
            let (before_in, before_out) = (self.stream.total_in(), self.out.len());
            let status = self
                .stream
                .decompress_vec(input, &mut self.out, FlushDecompress::None)
                .map_err(|_| InflateError::Invalid)?;
            let taken = (self.stream.total_in() - before_in) as usize;
            input = &input[taken..];
            if self.out.len() > MESSAGE_BYTES_MAX {
                return Err(InflateError::TooBig);
            }
            if status == Status::StreamEnd {
                ended = true;
                // Section 7.2.3.4: a block may be the final one, and others may follow.
                self.stream.reset(false);
            } else if taken > 0 {
                ended = false;
            }
            let has_room = self.out.len() < self.out.capacity();
            if input.is_empty() && has_room {
                return Ok(ended);
            }
            if taken == 0 && self.out.len() == before_out && has_room {
                return Err(InflateError::Invalid);
            }
        }
    }

    fn grow(&mut self) -> Result<(), InflateError> {
        if self.out.len() > MESSAGE_BYTES_MAX {
            return Err(InflateError::TooBig);
        }
        let more = self.out.capacity().clamp(OUT_BYTES_LEAST, MESSAGE_BYTES_MAX);
        self.out.reserve_exact(more);
        Ok(())
    }
}

/// Section 7.2.2: the sender cuts 00 00 FF FF off the end. Behind it a final, empty block: it is
/// understood as such only if the message ended between two blocks.
const TAIL: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];
/// The first room for messages, bytes; it doubles when that does not do.
const OUT_BYTES_LEAST: usize = 4096;

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    fn deflate(message: &[u8], level: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() * 2 + 64);
        let mut compress = Compress::new(Compression::new(level), false);
        compress.compress_vec(message, &mut out, FlushCompress::Sync).expect("room");
        assert_eq!(out.split_off(out.len() - 4), TAIL[..4]);
        out
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7692 sections 7.2.3.1, 7.2.3.3, 7.2.3.4 and 7.2.3.5.
        let examples: [&[u8]; 4] = [
            &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
            &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
            &[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00],
        ];
        let mut inflater = Inflater::new();
        for example in examples {
            assert_eq!(inflater.inflate(example), Ok(&b"Hello"[..]), "{example:02x?}");
        }
        // Section 7.2.3.6, and what a sync flush of nothing leaves.
        assert_eq!(inflater.inflate(&[0x00]), Ok(&b""[..]));
        assert_eq!(inflater.inflate(&[0x02, 0x00]), Ok(&b""[..]));
        let counts = InflateCounts { messages: 6, compressed_bytes: 42, inflated_bytes: 20 };
        assert_eq!(inflater.counts, counts);
    }

    #[test]
    fn a_context_kept_from_the_message_before_is_an_error() {
        // Section 7.2.3.2: the second "Hello" points back into the first.
        let mut inflater = Inflater::new();
        assert!(inflater.inflate(&[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]).is_ok());
        let second = inflater.inflate(&[0xF2, 0x00, 0x11, 0x00, 0x00]);
        assert_eq!(second, Err(InflateError::Invalid));
        assert_eq!(inflater.counts.messages, 1);
    }

    #[test]
    fn cut_wrong_and_longer_ones_are_refused() {
        let mut inflater = Inflater::new();
        let good = deflate(&b"What is repeated is what compresses. ".repeat(30), 6);
        assert!(inflater.inflate(&good).is_ok());
        for end in 0..good.len() {
            assert_eq!(inflater.inflate(&good[..end]), Err(InflateError::Invalid), "{end}");
        }
        let mut longer = good.clone();
        longer.extend_from_slice(b"more");
        assert_eq!(inflater.inflate(&longer), Err(InflateError::Invalid));
        assert_eq!(inflater.inflate(&[0xFF; 40]), Err(InflateError::Invalid));
        assert_eq!(inflater.inflate(&good).map(<[u8]>::len), Ok(37 * 30));
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        // Streams that end at a byte's boundary can be put behind each other.
        let mebibyte = [deflate(&[b'0'; 1 << 20], 6), TAIL[..4].to_vec()].concat();
        let mebibytes = |count| mebibyte.repeat(count)[..mebibyte.len() * count - 4].to_vec();
        let largest = mebibytes(MESSAGE_BYTES_MAX >> 20);
        let mut inflater = Inflater::new();
        assert_eq!(inflater.inflate(&largest).map(<[u8]>::len), Ok(MESSAGE_BYTES_MAX));
        let bomb = mebibytes(4 * (MESSAGE_BYTES_MAX >> 20));
        assert_eq!(inflater.inflate(&bomb), Err(InflateError::TooBig));
        assert!(inflater.out.capacity() <= MESSAGE_BYTES_MAX * 2 + OUT_BYTES_LEAST);
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(
            messages in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..2_000), 1..4,
            ),
            level in 0u32..10,
        ) {
            let mut inflater = Inflater::new();
            for message in &messages {
                prop_assert_eq!(inflater.inflate(&deflate(message, level)), Ok(&message[..]));
            }
        }

        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut inflater = Inflater::new();
            let _ = inflater.inflate(&bytes);
            prop_assert_eq!(inflater.inflate(&[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]), Ok(&b"Hello"[..]));
        }
    }
}
