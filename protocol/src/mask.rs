//! Masking: XOR of bytes with a repeated key of four (RFC 6455 section 5.3).
//!
//! Knows: bytes, a key, and how far into the key they begin (the phase). Must not know: frames.
//!
//! Both functions work in words of eight bytes read at any alignment; the compiler turns the loop
//! into vector instructions. The phase is the payload's offset modulo four and is carried from
//! call to call, so that a payload may be cut anywhere.

/// Masks or unmasks `data` where it lies; returns the phase at its end (0–3).
#[inline]
pub fn mask_in_place(data: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    let word_key = turn(key, phase);
    let end = phase.wrapping_add(data.len()) & 3;
    let (words, tail) = data.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ word_key).to_le_bytes();
    }
    // Whole words are two whole keys, so the tail begins where the data did.
    let mut rest = word_key;
    for byte in tail {
        *byte ^= rest as u8;
        rest >>= 8;
    }
    end
}

/// Masks or unmasks `src` into `dst`; returns the phase at its end (0–3).
///
/// # Panics
/// If the two lengths differ: the caller cut them itself.
#[inline]
pub fn mask_into(src: &[u8], dst: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    assert_eq!(src.len(), dst.len(), "mask_into wants two slices of one length");
    let word_key = turn(key, phase);
    let (src_words, src_tail) = src.as_chunks::<8>();
    let (dst_words, dst_tail) = dst.as_chunks_mut::<8>();
    for (from, to) in src_words.iter().zip(dst_words) {
        *to = (u64::from_le_bytes(*from) ^ word_key).to_le_bytes();
    }
    let mut rest = word_key;
    for (from, to) in src_tail.iter().zip(dst_tail) {
        *to = from ^ rest as u8;
        rest >>= 8;
    }
    phase.wrapping_add(src.len()) & 3
}

/// The same byte by byte, as the RFC writes it: the reference for tests and benchmarks.
pub fn mask_bytewise(data: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    for (offset, byte) in data.iter_mut().enumerate() {
        *byte ^= key[phase.wrapping_add(offset) & 3];
    }
    phase.wrapping_add(data.len()) & 3
}

/// The key beginning at the phase, twice: the first byte to use is the lowest.
#[inline]
fn turn(key: [u8; 4], phase: usize) -> u64 {
    let half = u64::from(u32::from_le_bytes(key).rotate_right(8 * (phase & 3) as u32));
    half << 32 | half
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_agree_with_bytes(
            data in prop::collection::vec(any::<u8>(), 0..600),
            key in any::<[u8; 4]>(),
            phase in 0..9_usize,
            skip in 0..9_usize,
        ) {
            let data = &data[skip.min(data.len())..];
            let mut expected = data.to_vec();
            let expected_phase = mask_bytewise(&mut expected, key, phase);

            // At every alignment, since the allocation's own is fixed.
            for shift in 0..8 {
                let mut shifted = vec![0; shift];
                shifted.extend_from_slice(data);
                prop_assert_eq!(mask_in_place(&mut shifted[shift..], key, phase), expected_phase);
                prop_assert_eq!(&shifted[shift..], &expected);
            }
            let mut into: Vec<u8> = vec![0; data.len()];
            prop_assert_eq!(mask_into(data, &mut into, key, phase), expected_phase);
            prop_assert_eq!(into, expected);
        }

        #[test]
        fn a_cut_changes_nothing(
            data in prop::collection::vec(any::<u8>(), 0..200),
            key in any::<[u8; 4]>(),
            cut in 0..200_usize,
        ) {
            let mut whole = data.clone();
            mask_in_place(&mut whole, key, 0);
            let mut parts = data;
            let cut = cut.min(parts.len());
            let (front, back) = parts.split_at_mut(cut);
            let phase = mask_in_place(front, key, 0);
            mask_in_place(back, key, phase);
            prop_assert_eq!(whole, parts);
        }
    }
}
