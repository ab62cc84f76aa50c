//! A frame's header: 2–14 bytes ⇄ [`Header`] (RFC 6455 section 5.2).
//!
//! Knows: the layout, and what is wrong whatever the role or state. Must not know: payloads, who
//! must mask, whether the frame is legal now, whether an extension gave RSV1 a meaning.
//!
//! ```text
//!   byte 0   FIN RSV1 RSV2 RSV3 opcode(4)
//!   byte 1   MASK length(7)       0–125 itself, 126: 2 bytes follow, 127: 8 bytes follow
//!   ...      length, big-endian   0, 2 or 8 bytes
//!   ...      masking key          0 or 4 bytes
//! ```

use crate::error::PeerError;
use crate::limits::{CONTROL_PAYLOAD_BYTES_MAX, HEADER_BYTES_MAX};
use crate::opcode::Opcode;

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last fragment of its message.
    pub fin: bool,
    /// For an extension such as permessage-deflate; illegal without.
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key; clients mask, servers do not (RFC 6455 section 5.1).
    pub mask: Option<[u8; 4]>,
    /// The payload's length, bytes, below 2^63.
    pub payload_bytes: u64,
}

impl Header {
    /// Reads the header at the front of `bytes`: it and its own length. `None`: more is needed.
    ///
    /// # Errors
    /// As soon as the bytes at hand allow: reserved bits 2 and 3, reserved opcodes, fragmented or
    /// long control frames, lengths with the highest bit set or not in the shortest form.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, PeerError> {
        let [first, second, ..] = *bytes else {
            return decode_one(bytes);
        };
        // The frequent case in one test: no reserved bits, a short length.
        let opcode = opcode_of(first)?;
        let length = second & LENGTH_MASK;
        let (payload_bytes, length_bytes) = if length < LENGTH_16 {
            (u64::from(length), 0)
        } else {
            if opcode.is_control() {
                return Err(PeerError::ControlTooLong);
            }
            match decode_length(&bytes[2..], length)? {
                Some(found) => found,
                None => return Ok(None),
            }
        };
        let mut header_bytes = 2 + length_bytes;
        let mask = if second & MASK_BIT != 0 {
            let Some(key) = bytes.get(header_bytes..).and_then(<[u8]>::first_chunk::<4>) else {
                return Ok(None);
            };
            header_bytes += 4;
            Some(*key)
        } else {
            None
        };
        let fin = first & FIN_BIT != 0;
        let rsv1 = first & RSV1_BIT != 0;
        Ok(Some((Self { fin, rsv1, opcode, mask, payload_bytes }, header_bytes)))
    }

    /// Writes the header to the front of `out`; returns its length.
    #[inline]
    pub fn encode(&self, out: &mut [u8; HEADER_BYTES_MAX]) -> usize {
        out[0] = u8::from(self.fin) << 7 | u8::from(self.rsv1) << 6 | self.opcode.bits();
        let mask_bit = if self.mask.is_some() { MASK_BIT } else { 0 };
        let mut header_bytes = match self.payload_bytes {
            // In each arm the range makes the cast exact.
            short @ 0..=125 => {
                out[1] = mask_bit | short as u8;
                2
            }
            middle @ 126..=0xFFFF => {
                out[1] = mask_bit | LENGTH_16;
                out[2..4].copy_from_slice(&(middle as u16).to_be_bytes());
                4
            }
            long => {
                out[1] = mask_bit | LENGTH_64;
                out[2..10].copy_from_slice(&long.to_be_bytes());
                10
            }
        };
        if let Some(key) = self.mask {
            out[header_bytes..header_bytes + 4].copy_from_slice(&key);
            header_bytes += 4;
        }
        header_bytes
    }

    /// The length of the header of a frame with such a payload, bytes.
    #[inline]
    pub const fn encoded_bytes(payload_bytes: u64, masked: bool) -> usize {
        let length_bytes = match payload_bytes {
            0..=125 => 0,
            126..=0xFFFF => 2,
            _ => 8,
        };
        2 + length_bytes + if masked { 4 } else { 0 }
    }
}

/// With less than two bytes nothing can be complete, but the first can be wrong already.
#[cold]
fn decode_one(bytes: &[u8]) -> Result<Option<(Header, usize)>, PeerError> {
    if let Some(&first) = bytes.first() {
        opcode_of(first)?;
    }
    Ok(None)
}

/// The opcode in a frame's first byte, if all of that byte is legal.
#[inline]
fn opcode_of(first: u8) -> Result<Opcode, PeerError> {
    if first & RSV23_BITS != 0 {
        return Err(PeerError::ReservedBits);
    }
    let opcode = Opcode::from_bits(first & OPCODE_BITS).ok_or(PeerError::ReservedOpcode)?;
    if opcode.is_control() && first & FIN_BIT == 0 {
        return Err(PeerError::ControlFragmented);
    }
    Ok(opcode)
}

/// An extended length and the bytes it takes; `rest` begins behind the frame's second byte.
#[inline]
fn decode_length(rest: &[u8], marker: u8) -> Result<Option<(u64, usize)>, PeerError> {
    if marker == LENGTH_16 {
        let Some(&field) = rest.first_chunk::<2>() else {
            return Ok(None);
        };
        let length = u64::from(u16::from_be_bytes(field));
        // "the minimal number of bytes MUST be used to encode the length" (section 5.2).
        if length <= CONTROL_PAYLOAD_BYTES_MAX as u64 {
            return Err(PeerError::LengthNotMinimal);
        }
        return Ok(Some((length, 2)));
    }
    // "the most significant bit MUST be 0" (section 5.2): known from the first byte.
    if rest.first().is_some_and(|&first| first & 0x80 != 0) {
        return Err(PeerError::LengthTooLarge);
    }
    // Six zero bytes leave at most 16 bits: not minimal whatever follows.
    if rest.first_chunk::<6>() == Some(&[0; 6]) {
        return Err(PeerError::LengthNotMinimal);
    }
    Ok(rest.first_chunk::<8>().map(|&field| (u64::from_be_bytes(field), 8)))
}

pub(crate) const FIN_BIT: u8 = 0x80;
pub(crate) const RSV1_BIT: u8 = 0x40;
const RSV23_BITS: u8 = 0x30;
const OPCODE_BITS: u8 = 0x0F;
pub(crate) const MASK_BIT: u8 = 0x80;
const LENGTH_MASK: u8 = 0x7F;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_header() -> impl Strategy<Value = Header> {
        let opcodes = prop_oneof![
            Just(Opcode::Continuation),
            Just(Opcode::Text),
            Just(Opcode::Binary),
            Just(Opcode::Close),
            Just(Opcode::Ping),
            Just(Opcode::Pong)
        ];
        let lengths = prop_oneof![0..300_u64, 65_500..65_600_u64, 0..1_u64 << 63];
        (any::<bool>(), any::<bool>(), opcodes, any::<Option<[u8; 4]>>(), lengths).prop_map(
            |(fin, rsv1, opcode, mask, length)| {
                let control = opcode.is_control();
                let payload_bytes = if control { length % 126 } else { length };
                Header { fin: fin || control, rsv1, opcode, mask, payload_bytes }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_no_prefix_is(header in any_header()) {
            let mut bytes = [0; HEADER_BYTES_MAX];
            let length = header.encode(&mut bytes);
            prop_assert_eq!(length, Header::encoded_bytes(header.payload_bytes, header.mask.is_some()));
            prop_assert_eq!(Header::decode(&bytes), Ok(Some((header, length))));
            for cut in 0..length {
                prop_assert_eq!(Header::decode(&bytes[..cut]), Ok(None));
            }
        }

        #[test]
        fn any_bytes_decode_or_fail_and_a_failure_never_heals(bytes in any::<[u8; 14]>()) {
            let whole = Header::decode(&bytes);
            for cut in 0..14 {
                match Header::decode(&bytes[..cut]) {
                    Ok(None) => {}
                    early => prop_assert_eq!(early, whole),
                }
            }
            if let Ok(Some((header, length))) = whole {
                let mut again = [0; HEADER_BYTES_MAX];
                prop_assert_eq!(header.encode(&mut again), length);
                prop_assert_eq!(&again[..length], &bytes[..length]);
            }
        }
    }

    #[test]
    fn each_offence_is_found_at_its_byte() {
        let earliest: [(&[u8], PeerError); 11] = [
            (&[0xA1], PeerError::ReservedBits),
            (&[0x91], PeerError::ReservedBits),
            (&[0x83], PeerError::ReservedOpcode),
            (&[0x8B], PeerError::ReservedOpcode),
            (&[0x09], PeerError::ControlFragmented),
            (&[0x89, 0x7E], PeerError::ControlTooLong),
            (&[0x88, 0xFF], PeerError::ControlTooLong),
            (&[0x82, 0x7E, 0, 125], PeerError::LengthNotMinimal),
            (&[0x82, 0x7F, 0, 0, 0, 0, 0, 0], PeerError::LengthNotMinimal),
            (&[0x82, 0x7F, 0x80], PeerError::LengthTooLarge),
            (&[0x82, 0xFF, 0xFF], PeerError::LengthTooLarge),
        ];
        for (bytes, offence) in earliest {
            assert_eq!(Header::decode(bytes), Err(offence), "{bytes:02x?}");
            let before = &bytes[..bytes.len() - 1];
            assert_eq!(Header::decode(before), Ok(None), "{before:02x?}");
        }
    }
}
