//! What a generated payload carries: which publication it is, when it was meant to be sent, and
//! when it was.
//!
//! Knows: the marker and the hexadecimal digits after it. Must not know: connections, sockets, what
//! servers do to the marker ([`crate::marker`]).
//!
//! ```text
//!   {"uc":"SSSSCCNNNNNNNNNNCIIIIIIIIIIIIIIICTTTTTTTTTTTTTTT......"}
//!          stream, 4 digits
//!                number within the stream, 10 digits
//!                           intended time, CLOCK_MONOTONIC ns, 15 digits (36 years)
//!                                           time of sending, likewise
//!                                                          padding to the wanted size
//!              C: 4 digits, a checksum of the others as they stand there
//! ```
//! The checksum tells a damaged stamp from one of another publication: else a number that lost a bit
//! would be a loss, a repeat and a wrong order, all in one.
//!
//! It is JSON and text, so it passes as it is through servers that wrap messages in JSON. The
//! marker `"uc":"` finds it wherever the server puts it.

use crate::marker::{self, Place};

/// The stamp of one publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which sequence of publications: a publisher, or a topic.
    pub(crate) stream: u16,
    /// Its place in the stream, from 0; below 2^40.
    pub(crate) number: u64,
    /// When it should have been sent, ns.
    pub(crate) intended_ns: u64,
    /// When it was given to the kernel, ns.
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// Writes the digits over the first [`DIGITS`] bytes of `out`.
    pub(crate) fn write(&self, out: &mut [u8]) {
        let digits = out.first_chunk_mut::<DIGITS>().expect("room for a stamp");
        let place = u64::from(self.stream) << PLACE_BITS | self.number & NUMBER_MASK;
        let words = [place, self.intended_ns & TIME_MASK, self.sent_ns & TIME_MASK];
        for (word, digits) in words.iter().zip(digits.as_chunks_mut::<16>().0) {
            for (index, digit) in digits.iter_mut().enumerate() {
                *digit = HEX[(word >> (60 - 4 * index) & 0xF) as usize];
            }
        }
        let sum = checksum(digits);
        for (at, digit) in CHECKSUM_AT.into_iter().zip(sum) {
            digits[at] = digit;
        }
    }

    /// Reads the digits at the front of `digits`; `None` if there are too few bytes, or they are
    /// none that [`Self::write`] has written.
    #[inline]
    pub(crate) fn read(digits: &[u8]) -> Option<Self> {
        let digits = digits.first_chunk::<DIGITS>()?;
        if CHECKSUM_AT.map(|at| digits[at]) != checksum(digits) {
            return None;
        }
        let (words, _) = digits.as_chunks::<8>();
        let word = |index: usize| {
            u64::from(hex_value(words[index])) << 32 | u64::from(hex_value(words[index + 1]))
        };
        let place = word(0);
        Some(Self {
            stream: (place >> PLACE_BITS) as u16,
            number: place & NUMBER_MASK,
            intended_ns: word(2) & TIME_MASK,
            sent_ns: word(4) & TIME_MASK,
        })
    }
}

/// Finds stamps: the marker is nearly always where it was in the message before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Finder {
    /// Offset of the marker in the message before, bytes.
    offset: usize,
    /// Of its name, if the marker was not as we publish it.
    name: usize,
    /// The length of the last message that was searched to its end and has one stamp, bytes.
    single_bytes: usize,
}

impl Finder {
    /// The stamp in `payload`, if there is one.
    #[inline]
    pub(crate) fn find(&mut self, payload: &[u8]) -> Option<Stamp> {
        if let Some(digits) = after_marker(payload, self.offset) {
            return Stamp::read(digits);
        }
        self.search(payload)
    }

    /// All stamps in `payload`, in order: servers may put several publications into one message. `None`
    /// is one whose digits are damaged. Returns how many there are.
    #[inline]
    pub(crate) fn each(&mut self, payload: &[u8], mut visit: impl FnMut(Option<Stamp>)) -> usize {
        let first = match after_marker(payload, self.offset) {
            Some(digits) => Some(payload.len() - digits.len()),
            None => self.look(payload).map(|place| place.digits),
        };
        let Some(mut digits) = first else { return 0 };
        let mut count = 0;
        loop {
            let stamp = Stamp::read(&payload[digits..]);
            let end = if stamp.is_some() { digits + DIGITS } else { digits };
            visit(stamp);
            count += 1;
            // All payloads of a run have one length: two of them never fill what one did before.
            let is_single = payload.len() == self.single_bytes;
            if count == 1 && (is_single || payload.len() - end < MARKER.len() + DIGITS) {
                return 1;
            }
            match marker::find(payload, end) {
                Some(place) => digits = place.digits,
                None => break,
            }
        }
        if count == 1 {
            self.single_bytes = payload.len();
        }
        count
    }

    /// A stamp that is not where it was, or not in the form published.
    fn search(&mut self, payload: &[u8]) -> Option<Stamp> {
        Stamp::read(&payload[self.look(payload)?.digits..])
    }

    /// A marker that is not where it was, or not in the form published.
    fn look(&mut self, payload: &[u8]) -> Option<Place> {
        let place = marker::at(payload, self.name).or_else(|| marker::find(payload, 0))?;
        self.name = place.name;
        // There is a quote before it.
        self.offset = place.name - 1;
        Some(place)
    }
}

/// A payload of exactly `bytes` (at least [`PAYLOAD_BYTES_MIN`]) with room for a stamp at
/// [`DIGITS_OFFSET`].
pub(crate) fn template(bytes: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(bytes);
    payload.push(b'{');
    payload.extend_from_slice(MARKER);
    payload.resize(DIGITS_OFFSET + DIGITS, b'0');
    payload.resize(bytes.max(PAYLOAD_BYTES_MIN) - END.len(), b'.');
    payload.extend_from_slice(END);
    payload
}

/// Whether `payload` is, but for its stamp, what [`template`] made.
#[inline]
pub(crate) fn is_intact(payload: &[u8], template: &[u8]) -> bool {
    payload.len() == template.len()
        && payload[..DIGITS_OFFSET] == template[..DIGITS_OFFSET]
        && payload[DIGITS_OFFSET + DIGITS..] == template[DIGITS_OFFSET + DIGITS..]
}

#[inline]
fn after_marker(payload: &[u8], offset: usize) -> Option<&[u8]> {
    payload.get(offset..)?.strip_prefix(MARKER)
}

/// The value of eight hexadecimal digits, all at once: a digit's low nibble is its value, except
/// that letters have bit 6 set and lack 9.
#[inline]
fn hex_value(digits: [u8; 8]) -> u32 {
    let ascii = u64::from_le_bytes(digits);
    let letters = ascii >> 6 & 0x0101_0101_0101_0101;
    let nibbles = (ascii & 0x0F0F_0F0F_0F0F_0F0F) + letters * 9;
    let bytes = (nibbles << 4 | nibbles >> 8) & 0x00FF_00FF_00FF_00FF;
    let halves = (bytes << 8 | bytes >> 16) & 0x0000_FFFF_0000_FFFF;
    (halves << 16 | halves >> 32) as u32
}

/// The checksum's digits, of the bytes of all others: a single wrong one always changes the value
/// that is multiplied, and so does nearly everything else.
#[inline]
fn checksum(digits: &[u8; DIGITS]) -> [u8; 4] {
    let (words, _) = digits.as_chunks::<8>();
    let mixed = (0..6).fold(0, |mixed: u64, index| {
        mixed.rotate_left(11) ^ (u64::from_le_bytes(words[index]) & CHECKED[index])
    });
    let sum = mixed.wrapping_mul(MIX) >> 48;
    [sum >> 12, sum >> 8 & 0xF, sum >> 4 & 0xF, sum & 0xF].map(|digit| HEX[digit as usize])
}

/// Digits of a stamp.
pub(crate) const DIGITS: usize = 48;
/// Where they begin in [`template`].
pub(crate) const DIGITS_OFFSET: usize = 1 + MARKER.len();
/// The shortest payload that holds a stamp, bytes.
pub(crate) const PAYLOAD_BYTES_MIN: usize = DIGITS_OFFSET + DIGITS + END.len();
/// What stands before the digits.
pub(crate) const MARKER: &[u8] = b"\"uc\":\"";
const END: &[u8] = b"\"}";
const PLACE_BITS: u32 = 48;
const NUMBER_MASK: u64 = (1 << 40) - 1;
const TIME_MASK: u64 = (1 << 60) - 1;
/// Where the checksum's digits are: the first two of the number, the first of either time.
const CHECKSUM_AT: [usize; 4] = [4, 5, 16, 32];
/// The bytes of each eight that it is of.
const CHECKED: [u64; 6] = [!(0xFFFF << 32), !0, !0xFF, !0, !0xFF, !0];
/// Odd, so that no two values become one.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stamp_comes_back(
            stream: u16, number in 0..1u64 << 40, intended_ns in 0..1u64 << 60, sent_ns in 0..1u64 << 60,
            bytes in PAYLOAD_BYTES_MIN..400, prefix in "[a-z]{0,40}",
        ) {
            let stamp = Stamp { stream, number, intended_ns, sent_ns };
            let mut payload = template(bytes);
            prop_assert_eq!(payload.len(), bytes);
            stamp.write(&mut payload[DIGITS_OFFSET..]);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&payload).is_ok());
            let mut finder = Finder::default();
            let wrapped = [prefix.as_bytes(), &payload].concat();
            prop_assert_eq!(finder.find(&wrapped), Some(stamp));
            prop_assert_eq!(finder.find(&wrapped), Some(stamp));
            prop_assert_eq!(finder.find(&payload), Some(stamp));
        }

        #[test]
        fn a_wrong_bit_is_seen(
            stream: u16, number in 0..1u64 << 40, intended_ns in 0..1u64 << 60, sent_ns in 0..1u64 << 60,
            bit in 0..8,
        ) {
            let stamp = Stamp { stream, number, intended_ns, sent_ns };
            let seen = |at: usize| {
                let mut digits = [0; DIGITS];
                stamp.write(&mut digits);
                digits[at] ^= 1u8 << bit;
                Stamp::read(&digits).is_none()
            };
            // One in 65,536 is not.
            prop_assert!((0..DIGITS).filter(|&at| seen(at)).count() >= DIGITS - 2);
        }

        #[test]
        fn any_bytes_are_read_or_refused(payload: Vec<u8>) {
            let _ = Finder::default().find(&payload);
            let _ = Finder::default().each(&payload, |_| {});
        }

        #[test]
        fn every_stamp_of_a_message_is_found_in_order(
            counts in proptest::collection::vec(0u64..5, 1..8),
            bytes in PAYLOAD_BYTES_MIN..200, escaped: bool, between in "[a-z \\r\\n]{0,30}",
        ) {
            let mut finder = Finder::default();
            for count in counts {
                let mut message = b"MSG".to_vec();
                for number in 0..count {
                    let mut payload = template(bytes);
                    let stamp = Stamp { stream: 1, number, intended_ns: 2, sent_ns: 3 };
                    stamp.write(&mut payload[DIGITS_OFFSET..]);
                    let text = String::from_utf8(payload).expect("text");
                    let text = if escaped { serde_json::to_string(&text).expect("JSON") } else { text };
                    message.extend_from_slice(text.as_bytes());
                    message.extend_from_slice(between.as_bytes());
                }
                let mut numbers = Vec::new();
                prop_assert_eq!(finder.each(&message, |stamp| numbers.extend(stamp.map(|stamp| stamp.number))), count as usize);
                prop_assert_eq!(numbers, (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_damaged_stamp_among_others_is_told() {
        let payload = |number| {
            let mut payload = template(80);
            let stamp = Stamp { stream: 1, number, intended_ns: 2, sent_ns: 3 };
            stamp.write(&mut payload[DIGITS_OFFSET..]);
            payload
        };
        let mut damaged = payload(1);
        damaged[DIGITS_OFFSET + 9] ^= 1;
        let cut = payload(2)[..30].to_vec();
        let message = [payload(0), damaged, cut, payload(3)].concat();
        let mut finder = Finder::default();
        let mut numbers = Vec::new();
        let count = finder.each(&message, |stamp| numbers.push(stamp.map(|stamp| stamp.number)));
        assert_eq!((count, numbers), (4, vec![Some(0), None, None, Some(3)]));
    }

    #[test]
    fn the_marker_is_what_the_search_finds() {
        let place = marker::find(&template(PAYLOAD_BYTES_MIN), 0).expect("a marker");
        assert_eq!((place.name, place.digits), (2, DIGITS_OFFSET));
    }
}
