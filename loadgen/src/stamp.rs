//! What a generated payload carries: which publication it is, when it was meant to be sent, and
//! when it was.
//!
//! Knows: the marker and the digits after it. Must not know: connections, sockets, what servers do
//! to the marker ([`crate::marker`]).
//!
//! ```text
//!   {"uc":"PPPPPPPPPPPPPPPPIIIIIIIIIIIIIIIITTTTTTTTTTTTTTTT......"}
//!          place: bits 48 to 63 the stream, 0 to 39 the number within it
//!                          intended time, CLOCK_MONOTONIC ns: bits 0 to 59 (36 years)
//!                                          time of sending, likewise
//!                                                          padding to the wanted size
//!   in the bits left free, 40 to 47 and 60 to 63: a checksum of the others
//! ```
//! Each of the three is a number of 64 bits in 16 digits, written `@` to `O`, which no JSON writer
//! escapes. The first eight are the low halves of its bytes, the least byte first, the other eight the
//! high halves. So a digit's value and whether it is one are half a byte each, and eight digits are
//! read at once, with an AND and a shift: every message received pays for this.
//!
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
        let mut words = [place, self.intended_ns & TIME_MASK, self.sent_ns & TIME_MASK];
        let sum = checksum(words);
        words[0] |= sum >> 8 << PLACE_CHECK_BITS;
        words[1] |= sum >> 4 << 60;
        words[2] |= sum << 60;
        for (word, digits) in words.iter().zip(digits.as_chunks_mut::<16>().0) {
            let (low, high) = digits.split_at_mut(8);
            low.copy_from_slice(&(ZEROS | word & LOW_HALVES).to_le_bytes());
            high.copy_from_slice(&(ZEROS | word >> 4 & LOW_HALVES).to_le_bytes());
        }
    }

    /// Reads the digits at the front of `digits`; `None` if there are too few bytes, or they are
    /// none that [`Self::write`] has written.
    #[inline]
    pub(crate) fn read(digits: &[u8]) -> Option<Self> {
        let digits = digits.first_chunk::<DIGITS>()?;
        let (eights, _) = digits.as_chunks::<8>();
        let halves = |index: usize| u64::from_le_bytes(eights[index]) ^ ZEROS;
        let words = [0, 2, 4].map(|low| halves(low) & LOW_HALVES | halves(low + 1) << 4);
        let are_digits = (0..6).fold(0, |any, index| any | halves(index)) & !LOW_HALVES == 0;
        let [place, intended, sent] = words;
        let found = (place >> PLACE_CHECK_BITS & 0xFF) << 8 | intended >> 60 << 4 | sent >> 60;
        let words = [place & !PLACE_CHECK_MASK, intended & TIME_MASK, sent & TIME_MASK];
        let is_right = are_digits & (found == checksum(words));
        is_right.then_some(Self {
            stream: (place >> PLACE_BITS) as u16,
            number: place & NUMBER_MASK,
            intended_ns: words[1],
            sent_ns: words[2],
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
    payload.resize(DIGITS_OFFSET + DIGITS, ZERO);
    payload.resize(bytes.max(PAYLOAD_BYTES_MIN) - END.len(), b'.');
    payload.extend_from_slice(END);
    payload
}

/// Whether `payload`, which has a stamp, is but for it what [`template`] made.
#[inline]
pub(crate) fn is_intact(payload: &[u8], template: &[u8]) -> bool {
    payload.len() == template.len()
        && payload[..DIGITS_OFFSET] == template[..DIGITS_OFFSET]
        && is_equal(&payload[DIGITS_OFFSET + DIGITS..], &template[DIGITS_OFFSET + DIGITS..])
}

/// Whether both are the same; short ones without a call.
#[inline]
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    const STEP: usize = 16;
    if one.len() != other.len() || !(STEP..=8 * STEP).contains(&one.len()) {
        return one == other;
    }
    // The last step overlaps with the one before it.
    let (ones, others) = (one.as_chunks::<STEP>().0, other.as_chunks::<STEP>().0);
    one.last_chunk::<STEP>() == other.last_chunk::<STEP>()
        && ones.iter().zip(others).all(|(one, other)| one == other)
}

#[inline]
fn after_marker(payload: &[u8], offset: usize) -> Option<&[u8]> {
    payload.get(offset..)?.strip_prefix(MARKER)
}

/// 16 bits, of three words without any: a single wrong digit always changes the value that is
/// multiplied, and so does nearly everything else.
#[inline]
fn checksum([place, intended, sent]: [u64; WORDS]) -> u64 {
    (place ^ intended.rotate_left(21) ^ sent.rotate_left(43)).wrapping_mul(MIX) >> 48
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
/// The digit for nothing; the others follow.
const ZERO: u8 = b'@';
/// Eight of it.
const ZEROS: u64 = u64::from_le_bytes([ZERO; 8]);
/// Of each byte the low half.
const LOW_HALVES: u64 = u64::from_le_bytes([0xF; 8]);
/// Numbers in a stamp: the place, and two times.
const WORDS: usize = DIGITS / 16;
const PLACE_BITS: u32 = 48;
const NUMBER_MASK: u64 = (1 << 40) - 1;
const TIME_MASK: u64 = (1 << 60) - 1;
/// Where the checksum's first eight bits are; the others are above either time.
const PLACE_CHECK_BITS: u32 = 40;
const PLACE_CHECK_MASK: u64 = 0xFF << PLACE_CHECK_BITS;
/// Odd, so that no two values become one.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

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
    fn whatever_is_not_as_it_was_made_is_seen() {
        for bytes in PAYLOAD_BYTES_MIN..PAYLOAD_BYTES_MIN + 200 {
            let template = template(bytes);
            let mut payload = template.clone();
            assert!(is_intact(&payload, &template) && !is_intact(&payload[..bytes - 1], &template));
            for at in (0..DIGITS_OFFSET).chain(DIGITS_OFFSET + DIGITS..bytes) {
                payload[at] ^= 1;
                assert!(!is_intact(&payload, &template), "byte {at} of {bytes}");
                payload[at] ^= 1;
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
