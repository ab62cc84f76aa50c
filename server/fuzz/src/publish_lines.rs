//! Lines of the publish socket, what their payloads count as, and the messages made of them.
//!
//! Knows: how a line is written. Must not know: topics' rules in force.
//!
//! Input: a message of lines.

use serde::Serialize;
use serde_json::{Value, value::RawValue};
use uringcast::{
    payload::{self, Claim},
    publication::PayloadContent,
    rules::Content,
};
use uringcast_protocol::{
    json,
    publish::{PublishLine, parse_publish_line, publish_lines},
    reply::{self, Payload},
};

use crate::commands::data_fields;

/// Each line by itself, then the message as a payload.
pub fn check(data: &[u8]) {
    for line in publish_lines(data) {
        assert!(!line.is_empty() && !line.contains(&b'\n'));
        match parse_publish_line(line) {
            Ok(parsed) => right(&parsed),
            Err(error) => assert!(error.id.is_none() && !error.message.is_empty()),
        }
    }
    for rule in RULES {
        for claim in [Claim::Binary, Claim::Json, Claim::Text, Claim::Unknown] {
            if let Ok(content) = payload::settle(rule, claim, data) {
                holds(content, data);
                delivered(content, "a", data);
            }
        }
    }
}

#[derive(Serialize)]
struct Written<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<Value>,
    pub_seq: Option<u64>,
    snapshot: bool,
}

fn right(line: &PublishLine<'_>) {
    let (data, data_base64) = data_fields(&line.data);
    let written = Written {
        topic: &line.topic,
        data,
        data_base64,
        pub_seq: line.pub_seq,
        snapshot: line.snapshot,
    };
    let written = serde_json::to_vec(&written).expect("a line is JSON");
    let again = parse_publish_line(&written).expect("written by the rules");
    assert_eq!(format!("{again:?}"), format!("{line:?}"));
    for rule in RULES {
        if let Ok((content, bytes)) = payload::settle_data(rule, &line.data) {
            holds(content, &bytes);
            delivered(content, &line.topic, &bytes);
        }
    }
}

/// The payload is what it counts as.
fn holds(content: PayloadContent, bytes: &[u8]) {
    match content {
        PayloadContent::Binary => {}
        PayloadContent::Json => assert!(json::is_json(bytes)),
        PayloadContent::Text => assert!(std::str::from_utf8(bytes).is_ok()),
    }
}

/// The message to subscribers is JSON, with the payload in it.
fn delivered(content: PayloadContent, topic: &str, bytes: &[u8]) {
    let payload = match content {
        PayloadContent::Binary => Payload::Binary(bytes),
        PayloadContent::Json => Payload::Json(bytes),
        PayloadContent::Text => Payload::Text(std::str::from_utf8(bytes).expect("checked")),
    };
    let mut out = Vec::new();
    reply::write_message(&mut out, topic, 1, u64::MAX, true, payload);
    assert!(json::is_json(&out), "{}", out.escape_ascii());
    // This reader has bounds of its own: depth, and the size of numbers.
    let Ok(message) = serde_json::from_slice::<Value>(&out) else { return };
    assert_eq!(message["topic"].as_str(), Some(topic));
    match content {
        PayloadContent::Binary => assert!(message["data_base64"].is_string()),
        PayloadContent::Json => {
            assert_eq!(serde_json::from_slice::<Value>(bytes).ok().as_ref(), message.get("data"));
        }
        PayloadContent::Text => {
            assert_eq!(message["data"].as_str().map(str::as_bytes), Some(bytes));
        }
    }
}

const RULES: [Content; 4] = [Content::Auto, Content::Binary, Content::Json, Content::Text];
