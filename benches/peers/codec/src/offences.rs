//! What RFC 6455 forbids a client: the bytes, where the offence shows, and the close code due.
//!
//! Knows: the RFC. Must not know: who is tested with it.

use uringcast_protocol::{Opcode, writer::write_frame};

/// One illegal input.
pub(crate) struct Offence {
    pub(crate) name: &'static str,
    /// Of RFC 6455.
    pub(crate) section: &'static str,
    pub(crate) wire: Vec<u8>,
    /// After so many bytes nothing that follows could make it right: the whole header for what is
    /// wrong in one.
    pub(crate) shown: usize,
    pub(crate) code: u16,
}

/// Messages of more bytes are too big.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// All of them.
pub(crate) fn all() -> Vec<Offence> {
    let mut all = frames();
    all.extend(control());
    all.extend(text());
    all.extend(sizes());
    all
}

fn frames() -> Vec<Offence> {
    let unfinished = frame(Opcode::Text, false, b"hel");
    let second = unfinished.len() + 6;
    vec![
        offence("RSV1 without an extension", "5.2", masked(&[0xC1], b"hello"), 6, 1002),
        offence("RSV3", "5.2", masked(&[0x91], b"hello"), 6, 1002),
        offence("reserved data opcode 3", "5.2", masked(&[0x83], b"hello"), 6, 1002),
        offence("reserved control opcode 11", "5.2", masked(&[0x8B], b"hello"), 6, 1002),
        offence("unmasked frame", "5.1", b"\x81\x05hello".to_vec(), 2, 1002),
        offence("5 B with a length of 16 bits", "5.2", long(&[0xFE, 0, 5], b"hello"), 8, 1002),
        offence(
            "5 B with a length of 64 bits",
            "5.2",
            long(&[0xFF, 0, 0, 0, 0, 0, 0, 0, 5], b"hello"),
            14,
            1002,
        ),
        offence(
            "length with its highest bit set",
            "5.2",
            long(&[0xFF, 0x80, 0, 0, 0, 0, 0, 0, 5], b"hello"),
            14,
            1002,
        ),
        offence("continuation of nothing", "5.4", masked(&[0x80], b"hello"), 6, 1002),
        offence(
            "new message in an unfinished one",
            "5.4",
            [unfinished, frame(Opcode::Text, true, b"lo")].concat(),
            second,
            1002,
        ),
    ]
}

fn control() -> Vec<Offence> {
    let close = |payload: &[u8]| frame(Opcode::Close, true, payload);
    let whole = |name, section, wire: Vec<u8>, code| {
        let shown = wire.len();
        offence(name, section, wire, shown, code)
    };
    vec![
        offence("ping of 126 B", "5.5", frame(Opcode::Ping, true, &[b'x'; 126]), 8, 1002),
        offence("close of 126 B", "5.5", frame(Opcode::Close, true, &[3; 126]), 8, 1002),
        offence("fragmented ping", "5.5", frame(Opcode::Ping, false, b"hello"), 6, 1002),
        whole("close of 1 B", "5.5.1", close(&[3]), 1002),
        whole("close code 999", "7.4.2", close(&999_u16.to_be_bytes()), 1002),
        whole("close code 1005", "7.4.1", close(&1005_u16.to_be_bytes()), 1002),
        whole("close code 1006", "7.4.1", close(&1006_u16.to_be_bytes()), 1002),
        whole("close code 1016, not assigned", "7.4.2", close(&1016_u16.to_be_bytes()), 1002),
        whole("close reason that is not UTF-8", "5.5.1", close(b"\x03\xE8\xFF"), 1007),
    ]
}

/// "Fail the connection" is due when invalid bytes are found; who waits for the message's end takes
/// all of it first.
fn text() -> Vec<Offence> {
    let header = |payload: &[u8]| frame(Opcode::Text, true, payload).len() - payload.len();
    let mut early = vec![b'a'; 4096];
    early[0] = 0xFF;
    let first = frame(Opcode::Text, false, b"abc\xFF");
    let first_bytes = first.len();
    let surrogate = b"\xED\xA0\x80";
    let cut = frame(Opcode::Text, true, b"\xE2\x82");
    let cut_bytes = cut.len();
    let fragments = [first, frame(Opcode::Continuation, true, b"def")].concat();
    let shown = header(&early) + 1;
    vec![
        offence(
            "FF as the first of 4,096 B",
            "8.1",
            frame(Opcode::Text, true, &early),
            shown,
            1007,
        ),
        offence("FF in the first of two fragments", "8.1", fragments, first_bytes, 1007),
        offence("half of a surrogate pair", "8.1", frame(Opcode::Text, true, surrogate), 8, 1007),
        offence("a character cut by the end", "8.1", cut, cut_bytes, 1007),
    ]
}

fn sizes() -> Vec<Offence> {
    let payload = vec![b'a'; MESSAGE_BYTES_MAX];
    let first = frame(Opcode::Binary, false, &payload);
    let shown = first.len() + 6;
    let two = [first, frame(Opcode::Continuation, true, b"a")].concat();
    let one = frame(Opcode::Binary, true, &[&payload[..], b"a"].concat());
    vec![
        offence("frame over the limit", "10.4", one, 14, 1009),
        offence("fragments over the limit", "10.4", two, shown, 1009),
    ]
}

fn offence(
    name: &'static str,
    section: &'static str,
    wire: Vec<u8>,
    shown: usize,
    code: u16,
) -> Offence {
    Offence { name, section, wire, shown, code }
}

fn frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, opcode, fin, payload, Some(KEY));
    out
}

/// A short masked frame with this first byte.
fn masked(first: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = frame(Opcode::Text, true, payload);
    out[..first.len()].copy_from_slice(first);
    out
}

/// A masked text frame with this length.
fn long(length: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = frame(Opcode::Text, true, payload);
    out.splice(1..2, length.iter().copied());
    out
}

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
