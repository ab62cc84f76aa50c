//! What a client sends: the same bytes for every crate.
//!
//! Knows: frames. Must not know: who reads them.

use std::sync::Arc;

use uringcast_protocol::{Opcode, writer::write_frame};

/// Masked frames, to be sent over and over.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) wire: Arc<[u8]>,
    /// Messages in `wire`.
    pub(crate) messages: u64,
    /// Their payload, bytes.
    pub(crate) payload_bytes: u64,
}

/// Every input, small ones first.
pub(crate) fn all() -> Vec<Input> {
    let mut inputs = Vec::new();
    for bytes in [16, 64, 125, 512, 4 << 10, 64 << 10] {
        let messages = (MANY_BYTES / bytes).clamp(1, 256);
        inputs.push(whole(format!("receive text of {bytes} B"), Opcode::Text, bytes, messages));
    }
    inputs.push(whole("receive binary of 64 KiB".into(), Opcode::Binary, 64 << 10, 1));
    inputs.push(whole("receive binary of 1 MiB".into(), Opcode::Binary, 1 << 20, 1));
    inputs.push(fragmented("receive text of 4 KiB in 10 fragments", 4 << 10, false));
    inputs.push(fragmented("the same, a ping between fragments", 4 << 10, true));
    inputs
}

/// Text as an exchange sends it, all ASCII, of exactly so many bytes.
pub(crate) fn ascii(bytes: usize) -> String {
    let tick = r#"{"e":"trade","s":"BTCUSDT","p":"61837.63000000","q":"0.02000000","m":true}"#;
    tick.chars().cycle().take(bytes).collect()
}

fn whole(name: String, opcode: Opcode, bytes: usize, messages: usize) -> Input {
    let text = ascii(bytes);
    let mut wire = Vec::new();
    for number in 0..messages {
        write_frame(&mut wire, opcode, true, text.as_bytes(), Some(key(number)));
    }
    input(name, wire, messages, bytes)
}

/// Half of the characters take two to four bytes, and most cuts go through one.
fn fragmented(name: &str, bytes: usize, pings: bool) -> Input {
    const MESSAGES: usize = 8;
    let mut text: String = "preis 61.837,63 € größer als 60.000 価格 📈 ".repeat(bytes / 32);
    text.truncate(text.floor_char_boundary(bytes));
    let mut wire = Vec::new();
    for number in 0..MESSAGES {
        let pieces = text.as_bytes().chunks(text.len().div_ceil(10));
        let last = pieces.len() - 1;
        for (index, piece) in pieces.enumerate() {
            let opcode = if index == 0 { Opcode::Text } else { Opcode::Continuation };
            write_frame(&mut wire, opcode, index == last, piece, Some(key(number * 10 + index)));
            if pings && index < last {
                write_frame(&mut wire, Opcode::Ping, true, b"12345678", Some(key(index)));
            }
        }
    }
    input(name.to_owned(), wire, MESSAGES, text.len())
}

fn input(name: String, wire: Vec<u8>, messages: usize, bytes: usize) -> Input {
    let (messages, payload_bytes) = (messages as u64, (messages * bytes) as u64);
    Input { name, wire: wire.into(), messages, payload_bytes }
}

/// Masking keys that are no two alike in a row.
fn key(number: usize) -> [u8; 4] {
    (number as u32).wrapping_mul(0x9E37_79B9).wrapping_add(0x37FA_213D).to_be_bytes()
}

/// Small messages come many in a buffer.
const MANY_BYTES: usize = 16 << 10;
