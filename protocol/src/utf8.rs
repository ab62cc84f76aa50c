//! UTF-8 checked as it arrives, refused at the first byte that cannot be right.
//!
//! Knows: the encoding (RFC 3629 section 4). Must not know: messages.

/// The bytes are not UTF-8, or end inside a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not UTF-8")]
pub struct InvalidUtf8;

/// A check of text that comes in pieces cut anywhere; four bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8Checker {
    /// The bytes so far of a character whose end has not come; each is legal where it stands.
    partial: [u8; 3],
    /// How many: 0–3.
    partial_bytes: u8,
}

impl Utf8Checker {
    /// At the beginning of a text.
    pub const fn new() -> Self {
        Self { partial: [0; 3], partial_bytes: 0 }
    }

    /// Checks the next piece. After an error the checker is of no more use.
    ///
    /// # Errors
    /// If some byte cannot follow those before it, whatever comes after.
    #[inline]
    pub fn check(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        let rest = if self.partial_bytes == 0 { piece } else { self.complete(piece)? };
        match simdutf8::compat::from_utf8(rest) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(InvalidUtf8),
            Err(error) => {
                // Only an unfinished character is left, one to three bytes, all of them legal.
                let tail = &rest[error.valid_up_to()..];
                self.partial[..tail.len()].copy_from_slice(tail);
                self.partial_bytes = tail.len() as u8;
                Ok(())
            }
        }
    }

    /// The text ends here.
    ///
    /// # Errors
    /// If it ends inside a character.
    #[inline]
    pub const fn finish(&self) -> Result<(), InvalidUtf8> {
        if self.partial_bytes == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }

    /// Takes bytes until the pending character is complete or `piece` is used up; returns the rest.
    #[cold]
    fn complete<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], InvalidUtf8> {
        let length = character_bytes(self.partial[0]);
        for (taken, &byte) in piece.iter().enumerate() {
            let have = usize::from(self.partial_bytes);
            let legal =
                if have == 1 { second_byte_legal(self.partial[0], byte) } else { is_tail(byte) };
            if !legal {
                return Err(InvalidUtf8);
            }
            if have + 1 == length {
                self.partial_bytes = 0;
                return Ok(&piece[taken + 1..]);
            }
            self.partial[have] = byte;
            self.partial_bytes += 1;
        }
        Ok(&[])
    }
}

/// The length of the character that a legal first byte of two or more begins.
const fn character_bytes(first: u8) -> usize {
    match first {
        0..0xE0 => 2,
        0xE0..0xF0 => 3,
        0xF0.. => 4,
    }
}

/// The rows of RFC 3629 section 4: no overlong forms, no surrogates, nothing above U+10FFFF.
const fn second_byte_legal(first: u8, second: u8) -> bool {
    match first {
        0xE0 => matches!(second, 0xA0..=0xBF),
        0xED => matches!(second, 0x80..=0x9F),
        0xF0 => matches!(second, 0x90..=0xBF),
        0xF4 => matches!(second, 0x80..=0x8F),
        _ => is_tail(second),
    }
}

const fn is_tail(byte: u8) -> bool {
    matches!(byte, 0x80..=0xBF)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// How many bytes are taken before the refusal; `None`: all, and the text may end there.
    fn refused_at(text: &[u8]) -> Option<usize> {
        let mut checker = Utf8Checker::new();
        text.iter().position(|&byte| checker.check(&[byte]).is_err())
    }

    #[test]
    fn refused_at_the_first_byte_that_is_wrong() {
        let cases: [(&[u8], usize); 12] = [
            (&[0x80], 0),
            (&[0xC0, 0x80], 0),
            (&[0xC1, 0x80], 0),
            (&[0xF5, 0x80], 0),
            (&[0xFF], 0),
            (&[b'a', 0xC3, b'('], 2),
            (&[0xE0, 0x80, 0x80], 1),
            (&[0xED, 0xA0, 0x80], 1),
            (&[0xF0, 0x80, 0x80, 0x80], 1),
            (&[0xF4, 0x90, 0x80, 0x80], 1),
            (&[0xE2, 0x82, 0x28], 2),
            (&[0xF0, 0x9F, 0x98, 0x28], 3),
        ];
        for (text, at) in cases {
            assert_eq!(refused_at(text), Some(at), "{text:02x?}");
            // The bytes before it may still become text: with the piece cut anywhere.
            for cut in 0..=at {
                let mut checker = Utf8Checker::new();
                assert_eq!(checker.check(&text[..cut]), Ok(()), "{text:02x?} {cut}");
                assert_eq!(checker.check(&text[cut..=at]), Err(InvalidUtf8), "{text:02x?} {cut}");
            }
        }
    }

    #[test]
    fn every_character_at_every_cut() {
        for character in [
            '\u{7f}',
            '\u{80}',
            '\u{7ff}',
            '\u{800}',
            '\u{d7ff}',
            '\u{e000}',
            '\u{ffff}',
            '\u{10000}',
            '\u{10ffff}',
        ] {
            let mut buffer = [0; 4];
            let text = character.encode_utf8(&mut buffer).as_bytes();
            for cut in 0..=text.len() {
                let mut checker = Utf8Checker::new();
                assert_eq!(checker.check(&text[..cut]), Ok(()));
                let whole = cut == 0 || cut == text.len();
                assert_eq!(checker.finish().is_ok(), whole, "{character:?} {cut}");
                assert_eq!(checker.check(&text[cut..]), Ok(()));
                assert_eq!(checker.finish(), Ok(()));
            }
        }
    }

    fn almost_text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => "\\PC{0,12}".prop_map(|text| text.into_bytes()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
            1 => prop::collection::vec(0x80..=0xFF_u8, 0..4),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library_at_every_cut(text in almost_text()) {
            let expected = core::str::from_utf8(&text);
            for cut in 0..=text.len() {
                let mut checker = Utf8Checker::new();
                let outcome = checker.check(&text[..cut]).and_then(|()| checker.check(&text[cut..]));
                match expected {
                    Ok(_) => prop_assert_eq!(outcome.and_then(|()| checker.finish()), Ok(())),
                    Err(error) if error.error_len().is_some() => prop_assert_eq!(outcome, Err(InvalidUtf8)),
                    Err(_) => {
                        prop_assert_eq!(outcome, Ok(()));
                        prop_assert_eq!(checker.finish(), Err(InvalidUtf8));
                    }
                }
            }
        }
    }
}
