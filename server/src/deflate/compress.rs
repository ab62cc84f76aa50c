//! One message compressed by itself, for a window of any size.
//!
//! Knows: RFC 7692 section 7.2.1, which window sizes the library can do. Must not know: who
//! receives, what a frame is.

use flate2::{Compress, Compression, FlushCompress};

use super::SYNC_FLUSH_TAIL;

/// Compresses messages, each by itself; about 300 KiB per window size in use, made at its first use
/// and kept.
///
/// A message of n bytes holds no distance above n - 1, so for one that is no longer than the window
/// the size of the library's own window does not matter. Only longer messages for windows below 32
/// KiB need a stream of their own.
#[derive(Debug)]
pub struct Compressor {
    /// By window size, from [`WINDOW_BITS_OWN_MIN`] on.
    streams: [Option<Compress>; STREAMS],
    level: u32,
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Compressor {
    /// For messages that many receive: each is compressed once, and its size counts for all of them.
    pub fn new() -> Self {
        Self { streams: Default::default(), level: LEVEL_SHARED }
    }

    /// For messages that one receives.
    pub fn fast() -> Self {
        Self { streams: Default::default(), level: LEVEL_SINGLE }
    }

    /// Compresses a message for a receiver with a window of 2^`window_bits` bytes (8 to 15) to the
    /// front of `out`: DEFLATE ended by a sync flush, without that flush's last four bytes, as
    /// permessage-deflate has it. The length written.
    ///
    /// `None` if that leaves less than 5 bytes of `out` unused (which the cut-off end needs in
    /// between): with an `out` as long as the message, where it is not worth it. The same where the
    /// library cannot do it: for windows of 256 bytes and longer messages, and for window sizes that
    /// there are not. Then send it plain, which is legal for every single message (section 6).
    pub fn compress(&mut self, window_bits: u8, message: &[u8], out: &mut [u8]) -> Option<usize> {
        let level = Compression::new(self.level);
        let place = self.place(window_bits, message.len())?;
        let (stream, bits) = (&mut *place.stream, place.bits);
        let stream =
            stream.get_or_insert_with(|| Compress::new_with_window_bits(level, false, bits));
        stream.reset();
        let outcome = stream.compress(message, out, FlushCompress::Sync);
        // Both are bounded by the slices passed in.
        let (taken, given) = (stream.total_in() as usize, stream.total_out() as usize);
        // A full buffer may have more behind it; one that is not full has all.
        if outcome.is_ok() && taken == message.len() && given < out.len() {
            return out[..given].strip_suffix(&SYNC_FLUSH_TAIL).map(<[u8]>::len);
        }
        if outcome.is_err() || !drain(stream, &message[taken..]) {
            *place.stream = None;
        }
        None
    }

    fn place(&mut self, window_bits: u8, message_bytes: usize) -> Option<Place<'_>> {
        if !(WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&window_bits) {
            return None;
        }
        let fits = message_bytes <= 1 << window_bits;
        let bits = if fits { WINDOW_BITS_MAX } else { window_bits };
        let index = bits.checked_sub(WINDOW_BITS_OWN_MIN)?;
        let stream = self.streams.get_mut(usize::from(index))?;
        Some(Place { stream, bits })
    }
}

/// Where the stream for a window of 2^`bits` bytes is, or goes.
struct Place<'a> {
    stream: &'a mut Option<Compress>,
    bits: u8,
}

/// Finishes a message whose output has no room, for nothing: resetting a stream that still holds
/// output leaves zlib-rs 0.6.8 with a wrong offset into its buffer, and it panics later. Little is
/// left, because a message outgrows an output of its own length only near its end. Whether the stream
/// may be used again.
fn drain(stream: &mut Compress, mut rest: &[u8]) -> bool {
    let mut nowhere = [0; 1024];
    loop {
        let (taken_before, given_before) = (stream.total_in(), stream.total_out());
        if stream.compress(rest, &mut nowhere, FlushCompress::Sync).is_err() {
            return false;
        }
        rest = &rest[(stream.total_in() - taken_before) as usize..];
        if stream.total_out() - given_before < nowhere.len() as u64 {
            return rest.is_empty();
        }
    }
}

/// Window sizes of permessage-deflate (RFC 7692 section 7.1.2.1), as powers of two.
const WINDOW_BITS_MIN: u8 = 8;
const WINDOW_BITS_MAX: u8 = 15;

/// The smallest window that the library compresses for.
const WINDOW_BITS_OWN_MIN: u8 = 9;

const STREAMS: usize = (WINDOW_BITS_MAX - WINDOW_BITS_OWN_MIN + 1) as usize;

/// On recorded market data, message by message, level 2 saves 44 % in 7.4 µs a message where level 1
/// saves 31 % in 2.9 µs; level 6 adds 1 % and takes four times as long for large ones
/// (`benches/runs`).
const LEVEL_SHARED: u32 = 2;
const LEVEL_SINGLE: u32 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::deflate::{Inflater, puff::puff};

    fn compress(compressor: &mut Compressor, bits: u8, message: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0xAA; message.len()];
        let length = compressor.compress(bits, message, &mut out)?;
        out.truncate(length);
        Some(out)
    }

    /// Text that repeats itself at every distance, and some of it exactly at the window's edges.
    fn repetitive(bytes: usize, period: usize) -> Vec<u8> {
        let mut noise = 1_u32;
        let mut message = Vec::with_capacity(bytes);
        while message.len() < bytes {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let random = b'a' + (noise >> 24) as u8 % 26;
            let back = message.len().checked_sub(period).map(|at| message[at]);
            message.push(match back {
                Some(before) if !(noise >> 16).is_multiple_of(64) => before,
                _ => random,
            });
        }
        message
    }

    #[test]
    fn a_smaller_window_is_enough_for_what_is_compressed_for_it() {
        let mut compressors = [Compressor::new(), Compressor::fast()];
        for (bits, compressor) in (9..=15).flat_map(|bits| [(bits, 0), (bits, 1)]) {
            let (window, compressor) = (1_usize << bits, &mut compressors[compressor]);
            for bytes in [window, window + 1, window + 300, 3 * window] {
                for period in [window - 300, window - 262, window - 1, window, window + 1] {
                    let message = repetitive(bytes, period);
                    // Far repetitions are out of reach and may compress to nothing less.
                    let Some(compressed) = compress(compressor, bits, &message) else {
                        continue;
                    };
                    let puffed = puff(&compressed).expect("valid");
                    assert!(puffed.distance_max <= window, "{bits} {bytes} {period}");
                    assert_eq!(puffed.message, message, "{bits} {bytes} {period}");
                }
            }
        }
    }

    /// What the test before relies on: with room for it, references reach further.
    #[test]
    fn a_larger_window_is_used() {
        for bits in 9..=13 {
            let window = 1 << bits;
            let message = repetitive(3 * window, window + 50);
            let compressed = compress(&mut Compressor::new(), 15, &message).expect("smaller");
            let puffed = puff(&compressed).expect("valid");
            assert!(puffed.distance_max >= window + 50, "{bits}: {}", puffed.distance_max);
            assert_eq!(puffed.message, message);
        }
    }

    #[test]
    fn near_repetitions_are_found_in_every_window() {
        let mut compressor = Compressor::new();
        for bits in 8..=15 {
            let short = repetitive(250, 50);
            let compressed = compress(&mut compressor, bits, &short).expect("smaller");
            assert!(compressed.len() < 200);
            let long = repetitive(3 << bits, 60);
            let outcome = compress(&mut compressor, bits, &long);
            // Windows of 256 bytes are not in the library.
            assert_eq!(outcome.is_some(), bits != 8);
        }
        assert_eq!(compress(&mut compressor, 8, &repetitive(257, 20)), None);
        for bits in [0, 7, 16, 255] {
            assert_eq!(compress(&mut compressor, bits, &repetitive(250, 20)), None);
        }
    }

    #[test]
    fn what_does_not_shrink_goes_plain() {
        let mut compressor = Compressor::new();
        for message in [&b""[..], b"a", b"Hello", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]] {
            assert_eq!(compress(&mut compressor, 15, message), None);
        }
        // In a buffer that is large enough they are messages like others.
        let mut out = [0; 64];
        let length = compressor.compress(15, b"", &mut out).expect("room");
        assert_eq!(&out[..length], [0]);
    }

    #[test]
    fn room_is_judged_to_the_byte() {
        let message = repetitive(1_500, 80);
        for mut compressor in [Compressor::new(), Compressor::fast()] {
            let whole = compress(&mut compressor, 15, &message).expect("smaller");
            for room in 0..whole.len() + 10 {
                let mut out = vec![0; room];
                let length = compressor.compress(15, &message, &mut out);
                assert_eq!(length, (room >= whole.len() + 5).then_some(whole.len()), "{room}");
                if let Some(length) = length {
                    assert_eq!(out[..length], whole);
                }
            }
        }
    }

    #[test]
    fn a_compressor_is_as_good_as_new_after_any_message() {
        let messages: Vec<_> = (0..24_usize)
            .map(|n| match n % 3 {
                0 => repetitive(n * 700, 90),
                1 => (0..n * 1_000).map(|i| ((i * i * 7) >> 3) as u8 ^ (i >> 7) as u8).collect(),
                _ => repetitive(n * 30, 10_000),
            })
            .collect();
        for fresh in [Compressor::new, Compressor::fast] {
            let mut used = fresh();
            for (bits, message) in
                [9, 12, 15].iter().flat_map(|&b| messages.iter().map(move |m| (b, m)))
            {
                let expected = compress(&mut fresh(), bits, message);
                for room in [message.len() / 9, message.len() / 2, message.len().saturating_sub(8)]
                {
                    used.compress(bits, message, &mut vec![0; room]);
                }
                assert_eq!(compress(&mut used, bits, message), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_compressed_inflates_to_itself(
            pieces in prop::collection::vec(
                prop::collection::vec(any::<u8>(), 1..40).prop_flat_map(|piece| {
                    (Just(piece), 1..60_usize)
                }),
                1..30,
            ),
            bits in 8..=15_u8,
            fast in any::<bool>(),
        ) {
            let message: Vec<u8> =
                pieces.iter().flat_map(|(piece, times)| piece.repeat(*times)).collect();
            let mut compressor = if fast { Compressor::fast() } else { Compressor::new() };
            if let Some(compressed) = compress(&mut compressor, bits, &message) {
                prop_assert!(compressed.len() < message.len());
                let mut out = Vec::new();
                let outcome = Inflater::new().inflate(&compressed, &mut out, message.len());
                prop_assert_eq!(outcome, Ok(()));
                prop_assert_eq!(&out, &message);
                let puffed = puff(&compressed).expect("valid");
                prop_assert!(puffed.distance_max <= 1 << bits);
                prop_assert_eq!(puffed.message, message);
            }
        }
    }
}
