//! What goes around a payload when a server's protocol wants more than the payload.
//!
//! Knows: the placeholders of a template. Must not know: what is sent over what.
//!
//! ```text
//!   {"channel":"bench","data":%s}      the payload as it is
//!   {"event":"tick","data":%j}         the payload as a string of JSON, with its quotes
//!   PUB bench %b\r\n%s\r\n             its length in bytes
//! ```

use std::str::FromStr;

use thiserror::Error;

use crate::escapes::unescape;
use crate::marker;

/// A template, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Payload,
    PayloadAsJson,
    PayloadBytes,
}

/// Why it is none.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// It must carry the payload once.
    #[error("should have the payload once, as %s or %j, and has it {0} times")]
    Payload(usize),
    /// A percent sign before something else.
    #[error(
        "%{0} is no placeholder: use %s (the payload), %j (as a JSON string), %b (its bytes) or %%"
    )]
    Unknown(String),
}

impl Template {
    /// The template around a stamped payload, and where the stamp's digits begin in it.
    pub(crate) fn render(&self, payload: &[u8]) -> (Vec<u8>, usize) {
        let mut out = Vec::with_capacity(payload.len() + 64);
        let mut digits = 0;
        for part in &self.parts {
            let inner = match part {
                Part::Text(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                Part::PayloadBytes => {
                    out.extend_from_slice(payload.len().to_string().as_bytes());
                    continue;
                }
                Part::Payload => payload.to_vec(),
                Part::PayloadAsJson => {
                    serde_json::to_vec(&String::from_utf8_lossy(payload)).unwrap_or_default()
                }
            };
            digits = out.len() + marker::find(&inner, 0).map_or(0, |place| place.digits);
            out.extend_from_slice(&inner);
        }
        (out, digits)
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                literal.push(character);
                continue;
            }
            let part = match characters.next() {
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                Some('s') => Part::Payload,
                Some('j') => Part::PayloadAsJson,
                Some('b') => Part::PayloadBytes,
                other => return Err(TemplateError::Unknown(other.into_iter().collect())),
            };
            parts.push(Part::Text(unescape(&std::mem::take(&mut literal))));
            parts.push(part);
        }
        parts.push(Part::Text(unescape(&literal)));
        let is_payload = |part: &&Part| matches!(part, Part::Payload | Part::PayloadAsJson);
        match parts.iter().filter(is_payload).count() {
            1 => Ok(Self { parts }),
            count => Err(TemplateError::Payload(count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{DIGITS, Finder, Stamp, template};

    #[test]
    fn a_payload_in_a_template_can_be_stamped_and_found() {
        for (text, front, end) in [
            (r#"{"channel":"bench","data":%s}"#, r#"{"channel":"bench","data":{"uc":""#, "\"}}"),
            (r#"{"d":%j,"b":%b}"#, r#"{"d":"{\"uc\":\""#, "\\\"}\",\"b\":100}"),
            (r"PUB bench %b\r\n%s\r\n", "PUB bench 100\r\n{\"uc\":\"", "\"}\r\n"),
            ("100%% %s", "100% {\"uc\":\"", "\"}"),
        ] {
            let template_of: Template = text.parse().expect(text);
            let (mut bytes, digits) = template_of.render(&template(100));
            assert!(
                bytes.starts_with(front.as_bytes()) && bytes.ends_with(end.as_bytes()),
                "{text}"
            );
            let stamp = Stamp { stream: 3, number: 77, intended_ns: 1, sent_ns: 2 };
            stamp.write(&mut bytes[digits..digits + DIGITS]);
            assert_eq!(Finder::default().find(&bytes), Some(stamp), "{text}");
        }
    }

    #[test]
    fn a_wrong_one_says_why() {
        let error = |text: &str| text.parse::<Template>().expect_err("refused");
        assert_eq!(error("nothing"), TemplateError::Payload(0));
        assert_eq!(error("%s%j"), TemplateError::Payload(2));
        assert_eq!(error("%s %d"), TemplateError::Unknown("d".to_owned()));
        assert_eq!(error("%s 5%"), TemplateError::Unknown(String::new()));
    }
}
