//! Where a stamp is in what a server made of its payload.
//!
//! Knows: the marker's name, and what JSON encoders do to the quotes around it. Must not know: what
//! stands in a stamp, who looks for it.
//!
//! ```text
//!   {"uc":"0123…                        as it was published
//!   {"data":{"uc": "0123…               read and written anew, with spaces
//!   {"data":"{\"uc\":\"0123…            as a string
//!   {"data":"{\u0022uc\u0022:\u0022…    as a string, by an encoder that fears quotes
//!   "{\\\"uc\\\":\\\"0123…              as a string in a string, and so on
//! ```

/// A marker that has been found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where its name begins, behind the quote.
    pub(crate) name: usize,
    /// Where the digits begin.
    pub(crate) digits: usize,
}

/// The first marker whose name begins at `from` or behind.
pub(crate) fn find(payload: &[u8], from: usize) -> Option<Place> {
    let rest = payload.get(from..)?;
    memchr::memmem::find_iter(rest, NAME).find_map(|offset| at(payload, from + offset))
}

/// The marker whose name begins at `name`, if one does.
pub(crate) fn at(payload: &[u8], name: usize) -> Option<Place> {
    let before = payload.get(..name)?;
    let behind = payload[name..].strip_prefix(NAME)?;
    if !before.ends_with(b"\"") && !before.ends_with(UNICODE_QUOTE) {
        return None;
    }
    let behind = quote(behind)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let digits = quote(behind)?;
    Some(Place { name, digits: payload.len() - digits.len() })
}

/// What is left behind a quote, however often it has been escaped.
fn quote(bytes: &[u8]) -> Option<&[u8]> {
    let backslashes = bytes.iter().take_while(|&&byte| byte == b'\\').count();
    let behind = &bytes[backslashes..];
    behind.strip_prefix(b"\"").or_else(|| {
        let escaped = behind.strip_prefix(&UNICODE_QUOTE[1..]);
        escaped.filter(|_| backslashes > 0)
    })
}

/// The name in [`crate::stamp::MARKER`]: no digit of a stamp, and seldom in other words.
const NAME: &[u8] = b"uc";
const UNICODE_QUOTE: &[u8] = b"\\u0022";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found_and_its_digits_behind_it() {
        let payload = r#"{"uc":"0123"}"#;
        let string = serde_json::to_string(payload).expect("a string");
        let twice = serde_json::to_string(&string).expect("a string");
        let spaced = payload.replace(':', " : ");
        let unicode = string.replace("\\\"", "\\u0022");
        for form in [payload, &string, &twice, &spaced, &unicode] {
            let text = format!(r#"{{"success":"lucky duck","data":{form}}}"#);
            let place = find(text.as_bytes(), 0).expect(form);
            assert!(text[place.digits..].starts_with("0123"), "{text}");
            assert_eq!(at(text.as_bytes(), place.name), Some(place));
            assert_eq!(find(text.as_bytes(), place.digits), None);
        }
    }

    #[test]
    fn what_only_looks_like_it_is_not() {
        for text in
            ["uc", "\"uc\"", "\"uc\":", "\"uc\":0123", "uc\":\"0", "\"duc\":\"0", "\"ucu0022:"]
        {
            assert_eq!(find(text.as_bytes(), 0), None, "{text}");
        }
        assert_eq!(find(b"", 1), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_searched(text in r#"[\\"uc: 0d2]{0,40}"#, from in 0usize..50, bytes: Vec<u8>) {
            let _ = (find(text.as_bytes(), from), at(text.as_bytes(), from), find(&bytes, from));
        }
    }
}
