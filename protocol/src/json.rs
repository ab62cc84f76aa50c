//! The few things about JSON that serde_json does not do in place: strings written into a buffer,
//! payloads checked and kept as they are.
//!
//! Knows: RFC 8259. Must not know: what a message says.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

/// Whether these bytes are one JSON value, white space around it allowed.
pub fn is_json(payload: &[u8]) -> bool {
    // Unlike `IgnoredAny`, a raw value has its UTF-8 checked as well.
    is_value(payload, |payload| serde_json::from_slice::<&RawValue>(payload).is_ok())
}

/// The same of bytes that are known to be UTF-8, such as a text message's.
pub fn is_json_text(text: &[u8]) -> bool {
    is_value(text, |text| serde_json::from_slice::<IgnoredAny>(text).is_ok())
}

/// Asks serde_json only what begins like JSON: plain text is told without its error, which allocates.
fn is_value(payload: &[u8], parses: impl FnOnce(&[u8]) -> bool) -> bool {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let Some(at) = payload.iter().position(|byte| !is_space(byte)) else { return false };
    match payload[at] {
        b'"' | b'-' | b'0'..=b'9' | b'[' | b'{' => parses(payload),
        _ => {
            let end = payload.iter().rposition(|byte| !is_space(byte)).map_or(at, |last| last + 1);
            matches!(&payload[at..end], b"false" | b"null" | b"true")
        }
    }
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                let digit = |nibble: u8| HEX[usize::from(nibble)];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(control >> 4), digit(control & 0xF)]);
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

/// Appends a number in decimal.
pub fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a number as 16 hexadecimal digits in quotes: 64 bits that JavaScript reads exactly.
pub fn write_hex(out: &mut Vec<u8>, number: u64) {
    out.push(b'"');
    out.extend(
        number
            .to_be_bytes()
            .iter()
            .flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xF)]]),
    );
    out.push(b'"');
}

/// A string, borrowed from the JSON text where it has no escapes.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use std::string::String;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_written_string_reads_back(text in any::<String>()) {
            let mut out = Vec::new();
            write_json_string(&mut out, &text);
            let back: String = serde_json::from_slice(&out).expect("JSON");
            prop_assert_eq!(back, text);
        }

        #[test]
        fn a_written_number_reads_back(number in any::<u64>()) {
            let mut out = Vec::new();
            write_number(&mut out, number);
            prop_assert_eq!(serde_json::from_slice::<u64>(&out).expect("JSON"), number);
            out.clear();
            write_hex(&mut out, number);
            prop_assert_eq!(out, std::format!("\"{number:016x}\"").into_bytes());
        }
    }

    #[test]
    fn every_control_character_is_escaped() {
        let text: String = (0..=0x20_u8).map(char::from).chain("\"\\/é".chars()).collect();
        let mut out = Vec::new();
        write_json_string(&mut out, &text);
        assert!(out.iter().all(|&byte| byte >= b' '));
        assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), text);
    }

    #[test]
    fn what_is_json() {
        for good in ["1", " {\"a\": [1, 2]} \n", "null", " true\r\n", "\"é\"", "-0.5e3"] {
            assert!(is_json(good.as_bytes()) && is_json_text(good.as_bytes()), "{good}");
        }
        for bad in [
            &b""[..],
            b"{",
            b"1 2",
            b" \n",
            b"nul",
            b"true x",
            b"x",
            b"\x0cnull",
            b"\"\xff\"",
            b"{\"a\":\"\xc3\"}",
            b"01",
        ] {
            assert!(!is_json(bad), "{bad:?}");
            assert!(str::from_utf8(bad).is_err() || !is_json_text(bad), "{bad:?}");
        }
        // Nested as deep as a message is long: no stack is used for it.
        let deep = [&[b'['; 30_000][..], &[b']'; 30_000]].concat();
        assert!(is_json(&deep) && is_json_text(&deep));
    }
}
