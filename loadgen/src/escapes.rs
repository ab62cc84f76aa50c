//! `\r`, `\n` and such in what is typed, as the bytes that they stand for, and back.
//!
//! Knows: C's escapes, as far as protocols of lines need them. Must not know: what is sent.

/// `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH` are what they are in C; any other backslash stays, so that
/// JSON may be typed as it is.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let (byte, taken) = match (byte, behind) {
            (b'\\', [b'r', ..]) => (b'\r', 1),
            (b'\\', [b'n', ..]) => (b'\n', 1),
            (b'\\', [b't', ..]) => (b'\t', 1),
            (b'\\', [b'0', ..]) => (0, 1),
            (b'\\', [b'\\', ..]) => (b'\\', 1),
            (b'\\', [b'x', high, low, ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => (byte, 0),
            },
            _ => (byte, 0),
        };
        out.push(byte);
        rest = &behind[taken..];
    }
    out
}

/// The bytes in one line: control characters as they would be typed.
pub(crate) fn legible(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        match character.is_control() {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
    out
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_bytes_and_other_backslashes_stay() {
        for (text, bytes) in [
            (r"PUB a\r\n", &b"PUB a\r\n"[..]),
            (r"\t\0\\n", b"\t\0\\n"),
            (r"\x00\xfF\xg0\x1", b"\x00\xff\\xg0\\x1"),
            (r#"{"a":"\"\u00e9"}\"#, br#"{"a":"\"\u00e9"}\"#),
        ] {
            assert_eq!(unescape(text), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_one_line() {
        assert_eq!(legible(b"INFO {\"a\":1}\r\n\xC3\xA4\xFF"), "INFO {\"a\":1}\\r\\nä\u{FFFD}");
    }
}
