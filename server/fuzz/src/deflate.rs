//! permessage-deflate: messages inflated, within a bound, as two other ways of inflating have them;
//! messages compressed and inflated again with the window agreed on; offers and answers.
//!
//! Knows: RFC 7692. Must not know: frames, connections.
//!
//! Input: a byte for which of the three, then what each of them says.

use flate2::{Decompress, FlushDecompress, Status};
use miniz_oxide::inflate::{
    TINFLStatus,
    core::{DecompressorOxide, decompress, inflate_flags},
};
use uringcast::deflate::{Compressor, InflateError, Inflater};
use uringcast_protocol::deflate::{Agreement, Offer, Policy, Window, agree};

use crate::tape::Tape;

/// One of the three.
pub fn check(data: &[u8]) {
    let mut tape = Tape::new(data);
    match tape.byte() % 4 {
        0 => check_inflate(tape),
        1 => check_compress(tape),
        2 => check_text(tape),
        _ => check_offer(tape),
    }
}

/// Input: the bound (two bytes), the compressed message.
fn check_inflate(mut tape: Tape<'_>) {
    let bytes_max = tape.number();
    let compressed = tape.rest();
    let mut inflater = Inflater::new();
    let mut out = b"before".to_vec();
    let outcome = inflater.inflate(compressed, &mut out, bytes_max);
    assert!(out.len() <= 6 + bytes_max + 1 && out.starts_with(b"before"));
    let plain = inflate_plainly(compressed, bytes_max);
    match outcome {
        Ok(()) => {
            let message = &out[6..];
            assert!(message.len() <= bytes_max);
            assert_eq!(plain.as_deref(), Ok(message));
            assert_eq!(inflate_with_miniz(compressed, bytes_max).as_deref(), Some(message));
        }
        Err(InflateError::TooLarge) => assert_eq!(plain, Err(Unfit::TooLarge)),
        // How much is given out before the fault shows is the library's own affair.
        Err(InflateError::Invalid) => assert!(plain.is_err()),
    }
    // It is as good as new, whatever that was.
    let mut hello = Vec::new();
    let outcome = inflater.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", &mut hello, 5);
    assert_eq!((outcome, &hello[..]), (Ok(()), &b"Hello"[..]));
}

#[derive(Debug, PartialEq, Eq)]
enum Unfit {
    Invalid,
    TooLarge,
}

/// The whole message and its tail at once, into memory for all that may come.
fn inflate_plainly(compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, Unfit> {
    if compressed.is_empty() {
        return Ok(Vec::new());
    }
    let whole = [compressed, TAIL].concat();
    let mut out: Vec<u8> = Vec::with_capacity(bytes_max + 1);
    let mut at = 0;
    for _ in 0..=LAST_BLOCKS_MAX {
        let mut stream = Decompress::new(false);
        if !out.is_empty() {
            let window = &out[out.len().saturating_sub(1 << 15)..];
            stream.set_dictionary(window).expect("raw");
        }
        let rest = &whole[at..];
        let status = stream.decompress_vec(rest, &mut out, FlushDecompress::Sync);
        if out.len() > bytes_max {
            return Err(Unfit::TooLarge);
        }
        at += stream.total_in() as usize;
        match status {
            // By its own last block, or by the one hung on.
            Ok(Status::StreamEnd) if at == compressed.len() || at == whole.len() => return Ok(out),
            Ok(Status::StreamEnd) if at < compressed.len() => {}
            _ => return Err(Unfit::Invalid),
        }
    }
    Err(Unfit::Invalid)
}

/// The same by other people's hands. It is less strict, so it is asked only about what is valid.
fn inflate_with_miniz(compressed: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    if compressed.is_empty() {
        return Some(Vec::new());
    }
    let whole = [compressed, TAIL].concat();
    let (mut out, mut have, mut at) = (vec![0; bytes_max + 1], 0, 0);
    loop {
        let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let mut state = DecompressorOxide::new();
        let (status, taken, given) = decompress(&mut state, &whole[at..], &mut out, have, flags);
        at += taken;
        have += given;
        if status != TINFLStatus::Done || at > compressed.len() && at != whole.len() {
            return None;
        }
        if at >= compressed.len() {
            out.truncate(have);
            return Some(out);
        }
    }
}

/// Input: the window, what to do with the room for the output (two bytes), two messages of a seed
/// and a length each.
fn check_compress(mut tape: Tape<'_>) {
    let (window_bits, spare) = (tape.byte() % 8 + 8, tape.number());
    let mut compressor = Compressor::new();
    let mut inflater = Inflater::new();
    while !tape.is_empty() {
        // Up to twice the window.
        let length = tape.number() % (2 << window_bits);
        let seed_bytes = usize::from(tape.byte());
        let seed = tape.take(seed_bytes);
        let message: Vec<u8> = seed.iter().copied().cycle().take(length).collect();
        // With as much room as the server gives, and with less or more.
        for room in [message.len(), spare % (message.len() * 2 + 64)] {
            let mut out = vec![0xAA; room];
            let Some(compressed_bytes) = compressor.compress(window_bits, &message, &mut out)
            else {
                continue;
            };
            let compressed = &out[..compressed_bytes];
            let mut back = Vec::new();
            inflater.inflate(compressed, &mut back, message.len()).expect("as it was");
            assert_eq!(back, message);
            assert_eq!(inflate_in_window(window_bits, compressed), message);
        }
    }
    for bits in [0, 7, 16, 255] {
        assert_eq!(compressor.compress(bits, b"aaaaaaaaaaaaaaaaaaaaaaaa", &mut [0; 64]), None);
    }
}

/// By a receiver that has this window and no more: in steps, so that nothing is left of the output
/// but what is in its window.
fn inflate_in_window(window_bits: u8, compressed: &[u8]) -> Vec<u8> {
    // The library has none of 256 bytes; what was compressed for that must fit in it as a whole.
    let mut stream = Decompress::new_with_window_bits(false, window_bits.max(9));
    let whole = [compressed, &TAIL[..4]].concat();
    let (mut out, mut step) = (Vec::new(), [0; 64]);
    loop {
        let (taken, given) = (stream.total_in() as usize, stream.total_out());
        stream.decompress(&whole[taken..], &mut step, FlushDecompress::Sync).expect("valid");
        let new = (stream.total_out() - given) as usize;
        out.extend_from_slice(&step[..new]);
        if new < step.len() {
            assert_eq!(stream.total_in() as usize, whole.len());
            assert!(window_bits > 8 || out.len() <= 256);
            return out;
        }
    }
}

/// Offers as any text has them. Input: the policy, the elements of the field, one a line.
fn check_text(mut tape: Tape<'_>) {
    let policy = Policy { client_window_bits_max: tape.byte() };
    let Ok(text) = std::str::from_utf8(tape.rest()) else { return };
    let offers: Vec<&str> = text.lines().collect();
    let agreed = agree(&offers, &policy);
    // The first offer that is accepted by itself is the one that is accepted.
    let alone = offers.iter().find_map(|offer| agree(&[offer], &policy).map(|a| (offer, a)));
    assert_eq!(agreed, alone.map(|(_, agreement)| agreement));
    if let Some((offer, agreement)) = alone {
        let offer = offer.to_ascii_lowercase();
        let offered = |name: &str| offer.contains(name);
        is_legal(&agreement, &policy, offered("server_max_w"), offered("client_max_w"));
    }
    // As answers, to clients that offered little or much.
    for answer in offers {
        for window in [None, Some(Window::Any), Some(Window::Bits(9))] {
            let offer = Offer {
                server_no_context_takeover: window.is_some(),
                client_max_window_bits: window,
                ..Offer::default()
            };
            if let Ok(agreement) = offer.judge(answer) {
                assert!((8..=15).contains(&agreement.server_window_bits));
                assert!((8..=15).contains(&agreement.client_window_bits));
                assert!(agreement.server_no_context_takeover || window.is_none());
                // Said anew it is the same answer.
                assert_eq!(offer.judge(&agreement.to_string()), Ok(agreement));
            }
        }
    }
}

/// An offer by the rules is accepted, and the client that made it takes the answer. Input: the
/// policy, flags, two windows.
fn check_offer(mut tape: Tape<'_>) {
    let policy = Policy { client_window_bits_max: tape.byte() };
    let flags = tape.byte();
    let mut bits = || tape.byte() % 8 + 8;
    let offer = Offer {
        server_no_context_takeover: flags & 1 != 0,
        client_no_context_takeover: flags & 2 != 0,
        server_max_window_bits: (flags & 4 != 0).then(&mut bits),
        client_max_window_bits: match flags >> 3 & 3 {
            0 => None,
            1 => Some(Window::Any),
            _ => Some(Window::Bits(bits())),
        },
    };
    let agreement = agree(&[&offer.to_string()], &policy).expect("legal, so accepted");
    let (server, client) = (offer.server_max_window_bits, offer.client_max_window_bits);
    is_legal(&agreement, &policy, server.is_some(), client.is_some());
    let theirs = offer.judge(&agreement.to_string()).expect("legal, so taken");
    assert_eq!(theirs.server_window_bits, agreement.server_window_bits);
    assert!(theirs.client_window_bits <= agreement.client_window_bits);
    assert!(server.is_none_or(|bits| agreement.server_window_bits == bits));
    assert!(theirs.server_no_context_takeover && theirs.client_no_context_takeover);
}

/// RFC 7692 section 7.1: what the answer may hold.
fn is_legal(agreement: &Agreement, policy: &Policy, server_offered: bool, client_offered: bool) {
    let text = agreement.to_string();
    let mut parameters: Vec<&str> = text.split("; ").collect();
    assert_eq!(parameters.remove(0), "permessage-deflate");
    let mut window = |name: &str| {
        let at = parameters.iter().position(|parameter| parameter.starts_with(name))?;
        let (_, bits) = parameters.remove(at).split_once('=').expect("a value in an answer");
        Some(bits.parse::<u8>().expect("a number"))
    };
    let (server, client) = (window("server_max_window_bits"), window("client_max_window_bits"));
    assert_eq!(server.is_some(), server_offered, "{text}");
    assert!(server.is_none_or(|bits| (8..=15).contains(&bits)), "{text}");
    assert!(client.is_none() || client_offered && policy.client_window_bits_max < 15, "{text}");
    assert!(client.is_none_or(|bits| (8..=15).contains(&bits)), "{text}");
    assert_eq!(parameters, ["server_no_context_takeover", "client_no_context_takeover"]);
}

/// What the sender cut off, and a last block, empty.
const TAIL: &[u8] = &[0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];

/// As the inflater has it: blocks that say they are the last and are not.
const LAST_BLOCKS_MAX: usize = 256;
