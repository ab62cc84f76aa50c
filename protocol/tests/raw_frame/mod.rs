//! Frames that the crate's own writer would not write.
//!
//! Knows: the layout of a short masked frame (RFC 6455 section 5.2). Must not know: what is legal.

/// The mask.
pub(crate) const KEY: [u8; 4] = [0xA5, 0x00, 0xFF, 0x3C];

/// A masked frame of which every bit of the head is free, with a payload below 126 bytes.
pub(crate) fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, d] = KEY;
    let bytes = [first, 0x80 | payload.len() as u8, a, b, c, d];
    let masked = payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key);
    bytes.into_iter().chain(masked).collect()
}
