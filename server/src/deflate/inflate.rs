//! One compressed message back to what it was, within a hard bound.
//!
//! Knows: RFC 7692 section 7.2.2. Must not know: what the message says, whether it is UTF-8.

use flate2::{Decompress, FlushDecompress, Status};

use super::SYNC_FLUSH_TAIL;

/// Decompresses messages, each by itself; about 48 KiB, made once per thread.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
}

/// Why a message could not be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InflateError {
    /// It is not DEFLATE, ends in the middle of a block, or has something behind its end.
    #[error("the message is not valid DEFLATE")]
    Invalid,
    /// It is larger than allowed. How much larger is not known: nothing behind the bound was read.
    #[error("the message is larger than allowed when decompressed")]
    TooLarge,
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl Inflater {
    /// For windows of up to 32 KiB, that is, for every sender.
    pub fn new() -> Self {
        Self { stream: Decompress::new(false) }
    }

    /// Appends to `out` what the payload of a compressed message stands for, at most `bytes_max`
    /// bytes (one more while it is found out that they are too many). The four bytes that senders cut
    /// off are not to be appended by the caller.
    ///
    /// An empty payload is an empty message: RFC 7692 section 7.2.3.6 has a byte of 0 for that, but
    /// some senders forget it and it can mean nothing else.
    ///
    /// # Errors
    /// The message is invalid or too large; what of it is in `out` then means nothing.
    pub fn inflate(
        &mut self,
        compressed: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), InflateError> {
        if compressed.is_empty() {
            return Ok(());
        }
        self.stream.reset(false);
        let mut sink = Bounded { start: out.len(), bytes_max, out };
        let (mut rest, mut finals) = (compressed, 0);
        loop {
            match self.run(&mut rest, &mut sink)? {
                // Between blocks or inside one: the tail will show.
                End::Input => break,
                // Ended by its own last block, without the byte that section 7.2.3.4 wants behind it:
                // no less clear.
                End::Stream if rest.is_empty() => return Ok(()),
                // A block may say that it is the last and still be followed by others, which begin at
                // the next byte (section 7.2.1). The window goes on.
                End::Stream => {
                    finals += 1;
                    if finals > FINAL_BLOCKS_MAX {
                        return Err(InflateError::Invalid);
                    }
                    self.go_on(sink.written())?;
                }
            }
        }
        // What the sender cut off, then a last block, which is understood only between blocks.
        let mut tail = &TAIL[..];
        match self.run(&mut tail, &mut sink)? {
            End::Stream if tail.is_empty() => Ok(()),
            End::Stream | End::Input => Err(InflateError::Invalid),
        }
    }

    /// Decompresses until the input or the stream ends. Every turn takes input, gives output or is
    /// the last.
    fn run(&mut self, input: &mut &[u8], sink: &mut Bounded<'_>) -> Result<End, InflateError> {
        loop {
            let (taken_before, given_before) = (self.stream.total_in(), self.stream.total_out());
            let (length, room) = sink.room(input.len())?;
            let room_bytes = room.len();
            let status = self.stream.decompress(input, room, FlushDecompress::Sync);
            // Both are bounded by the slices passed in.
            let taken = (self.stream.total_in() - taken_before) as usize;
            let given = (self.stream.total_out() - given_before) as usize;
            sink.keep(length + given);
            *input = &input[taken..];
            if sink.is_over() {
                return Err(InflateError::TooLarge);
            }
            match status {
                Err(_) => return Err(InflateError::Invalid),
                Ok(Status::StreamEnd) => return Ok(End::Stream),
                // Room left over: there is nothing more to be had from this input.
                Ok(Status::Ok | Status::BufError) if given < room_bytes => {
                    return match input.is_empty() {
                        true => Ok(End::Input),
                        false => Err(InflateError::Invalid),
                    };
                }
                Ok(Status::Ok | Status::BufError) => {}
            }
        }
    }

    /// Begins anew with what was written as its window.
    fn go_on(&mut self, written: &[u8]) -> Result<(), InflateError> {
        self.stream.reset(false);
        let window = &written[written.len().saturating_sub(WINDOW_BYTES_MAX)..];
        if !window.is_empty() {
            self.stream.set_dictionary(window).map_err(|_| InflateError::Invalid)?;
        }
        Ok(())
    }
}

/// Where decompressing stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The input is used up.
    Input,
    /// A block said it is the last.
    Stream,
}

/// The end of a buffer that may grow by `bytes_max`, and by one byte more to show that this is not
/// enough.
struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    bytes_max: usize,
}

impl Bounded<'_> {
    /// The buffer's length, and room behind it, not empty, for what so much input may give.
    fn room(&mut self, input_bytes: usize) -> Result<(usize, &mut [u8]), InflateError> {
        let length = self.out.len();
        let written = length - self.start;
        let left = self.bytes_max.saturating_sub(written).saturating_add(1);
        // Twice as much as there is already: so a message that expands a thousandfold takes few
        // turns, and a small one clears little memory for nothing.
        let wanted = input_bytes.saturating_mul(EXPANSION).max(written).max(ROOM_BYTES_MIN);
        let room_bytes = wanted.min(ROOM_BYTES_MAX).min(left);
        let end = length.checked_add(room_bytes).ok_or(InflateError::TooLarge)?;
        self.out.resize(end, 0);
        Ok((length, &mut self.out[length..]))
    }

    fn keep(&mut self, length: usize) {
        self.out.truncate(length);
    }

    fn is_over(&self) -> bool {
        self.out.len() - self.start > self.bytes_max
    }

    fn written(&self) -> &[u8] {
        &self.out[self.start..]
    }
}

/// What shows that a message ended between two blocks: the tail that its sender cut off and an empty
/// last block behind it.
const TAIL: [u8; 9] = {
    let [a, b, c, d] = SYNC_FLUSH_TAIL;
    [a, b, c, d, 0x01, 0x00, 0x00, 0xFF, 0xFF]
};

/// The largest window (RFC 7692 section 7.1.2.1).
const WINDOW_BYTES_MAX: usize = 1 << 15;

/// Blocks of one message that say they are the last and are not. Each has the window copied, so
/// that without a bound 2 bytes could ask for 32 KiB of work; at this one it is 8 MiB.
const FINAL_BLOCKS_MAX: u32 = 256;

/// What a message mostly grows to, at most: market data in JSON compresses 3 to 8 times.
const EXPANSION: usize = 8;
const ROOM_BYTES_MIN: usize = 512;
const ROOM_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;
    use crate::deflate::puff::puff;

    fn inflate(compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
        let mut out = b"before".to_vec();
        let outcome = Inflater::new().inflate(compressed, &mut out, bytes_max);
        assert!(out.len() <= 6 + bytes_max + 1);
        assert!(out.starts_with(b"before"));
        outcome.map(|()| out.split_off(6))
    }

    /// As a peer would send it.
    fn deflate(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + message.len() / 100 + 64);
        let mut stream = Compress::new(Compression::new(9), false);
        stream.compress_vec(message, &mut out, FlushCompress::Sync).expect("deflates");
        assert!(out.ends_with(&SYNC_FLUSH_TAIL));
        out.truncate(out.len() - 4);
        out
    }

    /// RFC 7692 section 7.2.3: every example that needs no context of an earlier message.
    #[test]
    fn the_examples_of_the_rfc() {
        let hello = |compressed: &[u8]| assert_eq!(inflate(compressed, 100), Ok(b"Hello".to_vec()));
        // 7.2.3.1, 7.2.3.3, 7.2.3.4 and 7.2.3.5.
        hello(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        hello(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00]);
        hello(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]);
        hello(&[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00]);
        // 7.2.3.6, and the same without its byte.
        assert_eq!(inflate(&[0x00], 0), Ok(Vec::new()));
        assert_eq!(inflate(&[], 0), Ok(Vec::new()));
    }

    #[test]
    fn a_last_block_may_be_followed_by_others_that_know_its_window() {
        let last_hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&last_hello, 5), Ok(b"Hello".to_vec()));
        // 7.2.3.2: the second "Hello" as a reference to the first.
        let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
        let both = [&last_hello[..], &again].concat();
        assert_eq!(inflate(&both, 10), Ok(b"HelloHello".to_vec()));
        assert_eq!(inflate(&both, 9), Err(InflateError::TooLarge));
        // Alone it refers to what is not there.
        assert_eq!(inflate(&again, 10), Err(InflateError::Invalid));
        let garbage = [&last_hello[..], b"\xff\xff\xff"].concat();
        assert_eq!(inflate(&garbage, 100), Err(InflateError::Invalid));
    }

    #[test]
    fn last_blocks_without_end_are_refused() {
        let empty_last = [0x03, 0x00];
        let bounded = FINAL_BLOCKS_MAX as usize;
        assert_eq!(inflate(&empty_last.repeat(bounded), 0), Ok(Vec::new()));
        let too_many = empty_last.repeat(bounded + 2);
        assert_eq!(inflate(&too_many, 0), Err(InflateError::Invalid));
    }

    #[test]
    fn an_inflater_forgets_each_message_and_each_failure() {
        let mut inflater = Inflater::new();
        for _ in 0..3 {
            let mut out = Vec::new();
            let reference = [0xf2, 0x00, 0x11, 0x00, 0x00];
            let outcome = inflater.inflate(&reference, &mut out, 100);
            assert_eq!(outcome, Err(InflateError::Invalid), "no context is taken over");
            out.clear();
            inflater.inflate(&deflate(b"Hello"), &mut out, 5).expect("as good as new");
            assert_eq!(out, b"Hello");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let bomb = deflate(&vec![0; 16 << 20]);
        assert!(bomb.len() < 20_000);
        let mut out = Vec::new();
        let outcome = Inflater::new().inflate(&bomb, &mut out, 100_000);
        assert_eq!(outcome, Err(InflateError::TooLarge));
        assert_eq!(out.len(), 100_001);
        assert!(out.capacity() <= 400_000, "{}", out.capacity());
        assert_eq!(inflate(&bomb, 16 << 20).map(|out| out.len()), Ok(16 << 20));
    }

    #[test]
    fn whatever_is_cut_off_or_hung_on_is_refused() {
        let message: Vec<u8> = (0..250_u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        let whole = deflate(&message);
        assert_eq!(inflate(&whole, message.len()), Ok(message));
        let mut inflater = Inflater::new();
        for cut in 1..whole.len() {
            // The byte at the end may hold nothing but the header of the block that was cut off.
            let outcome = inflater.inflate(&whole[..cut], &mut Vec::new(), 10_000);
            assert!(outcome.is_err() || cut + 1 == whole.len(), "{cut}: {outcome:?}");
        }
        // A sender that does not cut the tail off.
        let uncut = [&whole[..], &SYNC_FLUSH_TAIL].concat();
        assert_eq!(inflate(&uncut, 10_000), Err(InflateError::Invalid));
    }

    proptest! {
        #[test]
        fn any_bytes_inflate_or_fail_within_the_bound(
            compressed in prop::collection::vec(any::<u8>(), 0..300),
            bytes_max in 0..2_000_usize,
        ) {
            if let Ok(out) = inflate(&compressed, bytes_max) {
                prop_assert!(out.len() <= bytes_max);
            }
        }

        #[test]
        fn a_message_with_a_wrong_byte_is_understood_as_by_another_decoder_or_refused(
            message in prop::collection::vec(0..4_u8, 0..3_000),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let mut compressed = deflate(&message);
            let at = at.index(compressed.len());
            compressed[at] ^= flip;
            if let Ok(other) = inflate(&compressed, 2 * message.len())
                && let Some(puffed) = puff(&compressed)
            {
                prop_assert_eq!(other, puffed.message);
            }
            compressed[at] ^= flip;
            prop_assert_eq!(puff(&compressed).map(|puffed| puffed.message), Some(message.clone()));
            prop_assert_eq!(inflate(&compressed, message.len()), Ok(message.clone()));
            if !message.is_empty() {
                let short = inflate(&compressed, message.len() - 1);
                prop_assert_eq!(short, Err(InflateError::TooLarge));
            }
        }
    }
}
