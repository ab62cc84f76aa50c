//! What publishers send: payloads, and the lines of the many-topics publish socket.
//!
//! Knows: their grammar. Must not know: topics' rules, who may publish.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use base64::Engine as _;
use serde_json::value::RawValue;

use crate::command::{CommandError, ErrorCode, Fault, Fields, read};
use crate::json::Text;

/// A payload as it stands in JSON.
#[derive(Clone, Debug)]
pub enum Data<'a> {
    /// `data`: the JSON text, byte for byte as it was sent.
    Json(&'a RawValue),
    /// `data_base64`, decoded.
    Binary(Vec<u8>),
}

impl Data<'_> {
    /// The payload's bytes: the JSON text, or the decoded binary.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Json(raw) => raw.get().as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text that a JSON string stands for, for topics whose content is text; `None` if it is
    /// something else.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Json(raw) => Some(serde_json::from_str::<Text<'_>>(raw.get()).ok()?.0),
            Self::Binary(_) => None,
        }
    }
}

/// One line of a message on the publish socket.
#[derive(Clone, Debug)]
pub struct PublishLine<'a> {
    /// A valid name.
    pub topic: Cow<'a, str>,
    /// The payload.
    pub data: Data<'a>,
    /// The publisher's own number, rising per topic.
    pub pub_seq: Option<u64>,
    /// The state after everything up to `pub_seq`, not an event of its own.
    pub snapshot: bool,
}

/// The lines of a message; empty ones do not count.
pub fn publish_lines(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    message.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// Reads one line: `{"topic":…,"data"|"data_base64":…,"pub_seq"?,"snapshot"?}`.
///
/// # Errors
/// What is wrong; the error's id is empty, since lines have none.
pub fn parse_publish_line(line: &[u8]) -> Result<PublishLine<'_>, CommandError> {
    let fields = Fields::read(line)?;
    line_of(&fields).map_err(|(code, message)| CommandError { id: None, code, message })
}

fn line_of<'a>(fields: &Fields<'a>) -> Result<PublishLine<'a>, Fault> {
    Ok(PublishLine {
        topic: fields.topic()?,
        data: data_of(fields)?,
        pub_seq: fields.pub_seq()?,
        snapshot: fields.snapshot()?,
    })
}

/// The payload: one of `data` and `data_base64`.
pub(crate) fn data_of<'a>(fields: &Fields<'a>) -> Result<Data<'a>, Fault> {
    match (fields.data, fields.data_base64) {
        (Some(raw), None) => Ok(Data::Json(raw)),
        (None, Some(raw)) => {
            let encoded = read::<Text<'_>>(raw, "data_base64 must be a string")?.0;
            let decoded = BASE64.decode(&*encoded);
            decoded
                .map(Data::Binary)
                .map_err(|_| (ErrorCode::PayloadInvalid, "data_base64 is not base64"))
        }
        (Some(_), Some(_)) => {
            Err((ErrorCode::BadRequest, "data and data_base64 exclude each other"))
        }
        (None, None) => Err((ErrorCode::BadRequest, "data or data_base64 is missing")),
    }
}

/// The standard alphabet; padding may be left out.
const BASE64: base64::engine::GeneralPurpose = base64::engine::GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    base64::engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_kept_byte_for_byte() {
        for payload in ["null", "1.50", "{\"b\": 1,  \"a\":2}", "\"\\u00e9\"", "[ ]", "1e400"] {
            let line = std::format!("{{\"topic\":\"a.b\",\"data\": {payload} ,\"pub_seq\":7}}");
            let parsed = parse_publish_line(line.as_bytes()).expect("a good line");
            assert_eq!(parsed.data.as_bytes(), payload.as_bytes());
            assert_eq!((&*parsed.topic, parsed.pub_seq), ("a.b", Some(7)));
            assert!(!parsed.snapshot);
        }
    }

    #[test]
    fn text_and_binary() {
        let parse = |line: &'static str| parse_publish_line(line.as_bytes());
        let text = parse("{\"topic\":\"a\",\"data\":\"x\\ny\",\"snapshot\":true}").expect("good");
        assert_eq!(text.data.text().as_deref(), Some("x\ny"));
        assert!(text.snapshot);
        for line in [
            "{\"topic\":\"a\",\"data_base64\":\"AP8=\"}",
            "{\"topic\":\"a\",\"data_base64\":\"AP8\"}",
        ] {
            let binary = parse(line).expect("good");
            assert_eq!(binary.data.as_bytes(), [0, 255]);
            assert_eq!(binary.data.text(), None);
        }
    }

    #[test]
    fn wrong_lines() {
        for (line, code) in [
            ("{\"topic\":\"a\"}", ErrorCode::BadRequest),
            ("{\"data\":1}", ErrorCode::BadRequest),
            ("{\"topic\":1,\"data\":1}", ErrorCode::BadRequest),
            ("{\"topic\":\"a\",\"data\":1,\"data_base64\":\"\"}", ErrorCode::BadRequest),
            ("{\"topic\":\"a\",\"data\":1,\"pub_seq\":-1}", ErrorCode::BadRequest),
            ("{\"topic\":\"a\",\"data\":1,\"snapshot\":1}", ErrorCode::BadRequest),
            ("{\"topic\":\"a\",\"data\":1", ErrorCode::BadRequest),
            ("{\"topic\":\"a.*\",\"data\":1}", ErrorCode::TopicInvalid),
            ("{\"topic\":\"a\",\"data_base64\":\"?\"}", ErrorCode::PayloadInvalid),
        ] {
            let error = parse_publish_line(line.as_bytes()).expect_err(line);
            assert_eq!(error.code, code, "{line}");
        }
    }

    #[test]
    fn lines_of_a_message() {
        let lines: Vec<&[u8]> = publish_lines(b"a\r\n\n  b \nc").collect();
        assert_eq!(lines, [b"a", b"b", b"c"]);
    }
}
