//! The candidate that this build measures, behind one face: a message to the payload of a compressed
//! frame (RFC 7692 section 7.2.1) and back (7.2.2).
//!
//! Knows: the library. Must not know: what the messages are, the clock.

#[cfg(not(feature = "libdeflate"))]
pub(crate) use streams::{CANDIDATE, Codec, LEVELS};
#[cfg(feature = "libdeflate")]
pub(crate) use whole::{CANDIDATE, Codec, LEVELS};

/// What a message can grow to, and the four bytes that an inflater puts behind it.
pub(crate) const fn packed_bytes_max(message_bytes: usize) -> usize {
    message_bytes + message_bytes / 8 + 64
}

/// What a sync flush ends with, and what is not sent.
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

#[cfg(not(feature = "libdeflate"))]
mod streams {
    use std::ops::RangeInclusive;

    use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

    use super::TAIL;

    pub(crate) const CANDIDATE: &str = if cfg!(feature = "zlib-ng") {
        "zlib-ng"
    } else if cfg!(feature = "zlib-rs") {
        "zlib-rs"
    } else if cfg!(feature = "zlib") {
        "zlib"
    } else {
        "miniz_oxide"
    };
    pub(crate) const LEVELS: RangeInclusive<u32> = 1..=9;

    /// A stream each way, reset for each message.
    pub(crate) struct Codec {
        compress: Compress,
        inflate: Decompress,
    }

    impl Codec {
        /// `None`: the library has no such window.
        pub(crate) fn new(level: u32, window_bits: u8) -> Option<Self> {
            let level = Compression::new(level);
            let compress = match window_bits {
                15 => Compress::new(level, false),
                #[cfg(any(feature = "zlib", feature = "zlib-ng", feature = "zlib-rs"))]
                smaller => Compress::new_with_window_bits(level, false, smaller),
                #[cfg(not(any(feature = "zlib", feature = "zlib-ng", feature = "zlib-rs")))]
                _ => return None,
            };
            Some(Self { compress, inflate: Decompress::new(false) })
        }

        /// The payload's length at the front of `out`, which is [`super::packed_bytes_max`] long.
        pub(crate) fn compress(&mut self, message: &[u8], out: &mut [u8]) -> usize {
            self.compress.reset();
            let status = self.compress.compress(message, out, FlushCompress::Sync);
            let bytes = self.compress.total_out() as usize;
            assert!(status.is_ok() && out[..bytes].ends_with(&TAIL), "out is long enough");
            bytes - TAIL.len()
        }

        /// The message's length at the front of `out`; `None`: not a deflated message.
        pub(crate) fn inflate(
            &mut self,
            packed: &mut [u8],
            bytes: usize,
            out: &mut [u8],
        ) -> Option<usize> {
            packed[bytes..bytes + TAIL.len()].copy_from_slice(&TAIL);
            self.inflate.reset(false);
            let input = &packed[..bytes + TAIL.len()];
            self.inflate.decompress(input, out, FlushDecompress::Sync).ok()?;
            Some(self.inflate.total_out() as usize)
        }
    }
}

#[cfg(feature = "libdeflate")]
mod whole {
    use std::ops::RangeInclusive;

    use libdeflater::{CompressionLvl, Compressor, Decompressor};

    use super::TAIL;

    pub(crate) const CANDIDATE: &str = "libdeflate";
    pub(crate) const LEVELS: RangeInclusive<u32> = 1..=12;

    pub(crate) struct Codec {
        compress: Compressor,
        inflate: Decompressor,
    }

    impl Codec {
        /// `None`: it knows one window only.
        pub(crate) fn new(level: u32, window_bits: u8) -> Option<Self> {
            if window_bits != 15 {
                return None;
            }
            let level = CompressionLvl::new(level as i32).ok()?;
            Some(Self { compress: Compressor::new(level), inflate: Decompressor::new() })
        }

        /// It has no sync flush: the last block is final, so a byte with the header of an empty
        /// stored block follows, which the receiver's 00 00 FF FF completes (RFC 7692 section
        /// 7.2.3.4).
        pub(crate) fn compress(&mut self, message: &[u8], out: &mut [u8]) -> usize {
            let bytes = self.compress.deflate_compress(message, out).expect("out is long enough");
            out[bytes] = 0;
            bytes + 1
        }

        /// The message's length at the front of `out`; `None`: not a deflated message.
        pub(crate) fn inflate(
            &mut self,
            packed: &mut [u8],
            bytes: usize,
            out: &mut [u8],
        ) -> Option<usize> {
            // It wants a final block, which a peer's sync flush has not: an empty one behind.
            let end = bytes + TAIL.len();
            packed[bytes..end].copy_from_slice(&TAIL);
            packed[end..end + 5].copy_from_slice(&[1, 0, 0, 0xFF, 0xFF]);
            self.inflate.deflate_decompress(&packed[..end + 5], out).ok()
        }
    }
}
