//! What a payload is: JSON, text or bytes, by the topic's rule and what its publisher says.
//!
//! Knows: the rule, the claim, the bytes. Must not know: topics, where the payload came from.

use std::borrow::Cow;

use uringcast_protocol::{json, opcode::Opcode, publish::Data};

use crate::{publication::PayloadContent, rules::Content};

/// What whoever published says of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A binary message, or `application/octet-stream`.
    Binary,
    /// `application/json`.
    Json,
    /// A text message: it is UTF-8, which was checked as it came in.
    Message,
    /// `text/*`.
    Text,
    /// Any other type (such as the one that curl sends unasked).
    Unknown,
}

/// The payload is not what the topic's rule, or its publisher, says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is not {wanted}")]
pub struct PayloadInvalid {
    /// What it should be.
    pub wanted: &'static str,
}

/// What the payload counts as. A rule other than `auto` looks at the bytes alone.
///
/// # Errors
/// It is not what the rule (or, under `auto`, its publisher) says.
pub fn settle(
    rule: Content,
    claim: Claim,
    payload: &[u8],
) -> Result<PayloadContent, PayloadInvalid> {
    let as_json = || match json::is_json(payload) {
        true => Ok(PayloadContent::Json),
        false => Err(PayloadInvalid { wanted: "valid JSON" }),
    };
    let as_text = || match is_text(payload) {
        true => Ok(PayloadContent::Text),
        false => Err(PayloadInvalid { wanted: "valid UTF-8" }),
    };
    match (rule, claim) {
        (Content::Binary, _) | (Content::Auto, Claim::Binary) => Ok(PayloadContent::Binary),
        (Content::Text, Claim::Message) => Ok(PayloadContent::Text),
        (Content::Json | Content::Auto, Claim::Message) => match json::is_json_text(payload) {
            true => Ok(PayloadContent::Json),
            false if rule == Content::Auto => Ok(PayloadContent::Text),
            false => Err(PayloadInvalid { wanted: "valid JSON" }),
        },
        (Content::Json, _) | (Content::Auto, Claim::Json) => as_json(),
        (Content::Text, _) | (Content::Auto, Claim::Text) => as_text(),
        (Content::Auto, Claim::Unknown) => {
            Ok(as_json().or_else(|_| as_text()).unwrap_or(PayloadContent::Binary))
        }
    }
}

/// The payload of a publish line or command, and what it counts as. `data` is the payload itself
/// where JSON is right, and the string's text for a topic of text.
///
/// # Errors
/// It is not what the rule says.
pub fn settle_data<'a>(
    rule: Content,
    data: &'a Data<'_>,
) -> Result<(PayloadContent, Cow<'a, [u8]>), PayloadInvalid> {
    let bytes = Cow::Borrowed(data.as_bytes());
    match (data, rule) {
        (Data::Binary(_), Content::Auto) => Ok((PayloadContent::Binary, bytes)),
        (Data::Binary(payload), rule) => Ok((settle(rule, Claim::Binary, payload)?, bytes)),
        (Data::Json(_), Content::Auto | Content::Json) => Ok((PayloadContent::Json, bytes)),
        (Data::Json(_), Content::Text) => match data.text() {
            Some(text) => Ok((PayloadContent::Text, Cow::Owned(text.into_owned().into_bytes()))),
            None => Err(PayloadInvalid { wanted: "a JSON string, for a topic of text" }),
        },
        (Data::Json(_), Content::Binary) => {
            Err(PayloadInvalid { wanted: "data_base64, for a topic of bytes" })
        }
    }
}

/// The opcode of raw messages with this content.
pub fn opcode(content: PayloadContent) -> Opcode {
    match content {
        PayloadContent::Binary => Opcode::Binary,
        PayloadContent::Json | PayloadContent::Text => Opcode::Text,
    }
}

fn is_text(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok()
}

#[cfg(test)]
mod tests {
    use uringcast_protocol::publish::parse_publish_line;

    use super::*;

    const JSON: &[u8] = br#"{"p":1}"#;
    const TEXT: &[u8] = b"p=1";
    const BYTES: &[u8] = &[0xff, 0];

    #[test]
    fn without_a_rule_the_claim_decides_and_without_a_claim_the_bytes() {
        use PayloadContent::{Binary, Json, Text};
        for (claim, payload, content) in [
            (Claim::Unknown, JSON, Some(Json)),
            (Claim::Unknown, TEXT, Some(Text)),
            (Claim::Unknown, BYTES, Some(Binary)),
            (Claim::Unknown, b"".as_slice(), Some(Text)),
            (Claim::Message, JSON, Some(Json)),
            (Claim::Message, TEXT, Some(Text)),
            (Claim::Text, JSON, Some(Text)),
            (Claim::Text, BYTES, None),
            (Claim::Json, JSON, Some(Json)),
            (Claim::Json, TEXT, None),
            (Claim::Binary, JSON, Some(Binary)),
        ] {
            assert_eq!(settle(Content::Auto, claim, payload).ok(), content, "{claim:?}");
        }
    }

    #[test]
    fn a_rule_looks_at_the_bytes_alone() {
        assert_eq!(settle(Content::Json, Claim::Text, JSON), Ok(PayloadContent::Json));
        assert!(settle(Content::Json, Claim::Json, TEXT).is_err());
        assert_eq!(settle(Content::Json, Claim::Message, JSON), Ok(PayloadContent::Json));
        assert!(settle(Content::Json, Claim::Message, TEXT).is_err());
        assert_eq!(settle(Content::Text, Claim::Message, JSON), Ok(PayloadContent::Text));
        assert_eq!(settle(Content::Binary, Claim::Message, JSON), Ok(PayloadContent::Binary));
        assert_eq!(settle(Content::Text, Claim::Json, TEXT), Ok(PayloadContent::Text));
        assert!(settle(Content::Text, Claim::Text, BYTES).is_err());
        assert_eq!(settle(Content::Binary, Claim::Json, TEXT), Ok(PayloadContent::Binary));
    }

    #[test]
    fn data_is_the_payload_but_for_topics_of_text() {
        let settled = |rule, line: &str| {
            let line = parse_publish_line(line.as_bytes()).expect("a right line");
            settle_data(rule, &line.data).map(|(content, bytes)| (content, bytes.into_owned()))
        };
        let string = r#"{"topic":"a","data":"x"}"#;
        let base64 = r#"{"topic":"a","data_base64":"eA=="}"#;
        assert_eq!(settled(Content::Auto, string), Ok((PayloadContent::Json, b"\"x\"".to_vec())));
        assert_eq!(settled(Content::Text, string), Ok((PayloadContent::Text, b"x".to_vec())));
        assert!(settled(Content::Text, r#"{"topic":"a","data":1}"#).is_err());
        assert!(settled(Content::Binary, string).is_err());
        assert_eq!(settled(Content::Auto, base64), Ok((PayloadContent::Binary, b"x".to_vec())));
        assert_eq!(settled(Content::Text, base64), Ok((PayloadContent::Text, b"x".to_vec())));
        assert!(settled(Content::Json, base64).is_err());
    }
}
