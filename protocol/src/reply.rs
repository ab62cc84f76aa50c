//! What the server says in JSON, written straight into a buffer.
//!
//! Knows: the form of each answer. Must not know: why it is given, to whom.
//!
//! Topics' names need no escaping, by their grammar; what a client called a topic and is not one
//! is escaped like any text.

use alloc::vec::Vec;

use base64::Engine as _;

use crate::command::{ErrorCode, Id};
use crate::json::{write_hex, write_json_string, write_number};

/// A payload as a topic's content rule has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Any bytes: goes out as base64.
    Binary(&'a [u8]),
    /// Valid JSON, checked: goes out as it is.
    Json(&'a [u8]),
    /// Text: goes out as a JSON string.
    Text(&'a str),
}

/// What is peculiar about a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageFlags {
    /// The last value or a publisher's snapshot, not a live message.
    pub snapshot: bool,
    /// The payload that follows is a string of base64.
    pub base64: bool,
}

/// Appends a whole message: `{"topic":…,"seq":…,"ts":…,"data":…}`. `ts_us` is µs UTC.
pub fn write_message(
    out: &mut Vec<u8>,
    topic: &str,
    seq: u64,
    ts_us: u64,
    snapshot: bool,
    payload: Payload<'_>,
) {
    let base64 = matches!(payload, Payload::Binary(_));
    write_message_head(out, topic.as_bytes(), seq, ts_us, MessageFlags { snapshot, base64 });
    match payload {
        Payload::Binary(bytes) => write_base64(out, bytes),
        Payload::Json(text) => out.extend_from_slice(text),
        Payload::Text(text) => write_json_string(out, text),
    }
    out.extend_from_slice(MESSAGE_TAIL);
}

/// Appends what stands before a message's payload: `{"topic":"…","seq":45,"ts":…,"data":`. The
/// payload and [`MESSAGE_TAIL`] complete it. `topic` is a valid name, `ts_us` µs UTC.
#[inline]
pub fn write_message_head(
    out: &mut Vec<u8>,
    topic: &[u8],
    seq: u64,
    ts_us: u64,
    flags: MessageFlags,
) {
    out.reserve(message_head_bytes_max(topic.len()));
    out.extend_from_slice(b"{\"topic\":\"");
    out.extend_from_slice(topic);
    out.extend_from_slice(b"\",\"seq\":");
    write_number(out, seq);
    out.extend_from_slice(b",\"ts\":");
    write_number(out, ts_us);
    if flags.snapshot {
        out.extend_from_slice(b",\"snapshot\":true");
    }
    out.extend_from_slice(if flags.base64 { b",\"data_base64\":" } else { b",\"data\":" });
}

/// What follows a message's payload.
pub const MESSAGE_TAIL: &[u8] = b"}";

/// No message head is longer than this, for a topic of so many bytes.
pub const fn message_head_bytes_max(topic_bytes: usize) -> usize {
    // The fixed text with both options, and two numbers of at most 20 digits.
    topic_bytes + 10 + 8 + 6 + 16 + 15 + 2 * 20
}

/// Appends bytes as a JSON string of base64, quotes included.
pub fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    base64::engine::general_purpose::STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("four bytes for each three begun");
    out.push(b'"');
}

/// How one topic of a command fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicAck<'a> {
    /// As the client wrote it.
    pub topic: &'a str,
    /// Its terms, or why not.
    pub outcome: Result<Terms, ErrorCode>,
}

/// On what terms a topic is subscribed to; what is `None` is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// `event`, `value`, …
    pub kind: Option<&'static str>,
    /// The topic's; none for a pattern, or before the first publication.
    pub epoch: Option<u64>,
    /// The last publication's; live ones follow it.
    pub seq: Option<u64>,
    /// The pace agreed.
    pub sample_ms: Option<u32>,
    /// After a resume: whether everything missed follows.
    pub recovered: Option<Recovered>,
    /// Nothing was published for longer than the topic's `stale_after`: the time of its last
    /// publication, µs UTC.
    pub stale_since_us: Option<u64>,
}

/// Whether a resume found everything that was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// It follows, in order.
    Yes,
    /// Where the client was can't be read from what it sent.
    NoCursor,
    /// The topic's epoch is another: nothing is known of what was missed.
    NoEpoch,
    /// History holds part of it, or nothing.
    NoHistory,
    /// The client is ahead of what the server knows.
    NoSeq,
}

impl Recovered {
    /// Why not; `None` for [`Self::Yes`].
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Yes => None,
            Self::NoCursor => Some("cursor"),
            Self::NoEpoch => Some("epoch"),
            Self::NoHistory => Some("history"),
            Self::NoSeq => Some("seq"),
        }
    }
}

/// Appends `{"op":"subscribed",…}`.
pub fn write_subscribed<'a>(
    out: &mut Vec<u8>,
    id: Option<&Id>,
    topics: impl IntoIterator<Item = TopicAck<'a>>,
) {
    write_topics(out, "subscribed", id, topics);
}

/// Appends `{"op":"unsubscribed",…}`; terms of topics are usually empty here.
pub fn write_unsubscribed<'a>(
    out: &mut Vec<u8>,
    id: Option<&Id>,
    topics: impl IntoIterator<Item = TopicAck<'a>>,
) {
    write_topics(out, "unsubscribed", id, topics);
}

/// Appends `{"op":"updated",…}`: the terms from now on.
pub fn write_updated<'a>(
    out: &mut Vec<u8>,
    id: Option<&Id>,
    topics: impl IntoIterator<Item = TopicAck<'a>>,
) {
    write_topics(out, "updated", id, topics);
}

/// Appends `{"op":"list",…}`: the connection's subscriptions.
pub fn write_list<'a>(
    out: &mut Vec<u8>,
    id: Option<&Id>,
    topics: impl IntoIterator<Item = TopicAck<'a>>,
) {
    write_topics(out, "list", id, topics);
}

/// Appends `{"op":"pong",…}`; `ts_us` is µs UTC.
pub fn write_pong(out: &mut Vec<u8>, id: Option<&Id>, ts_us: u64) {
    Object::op(out, "pong").id(id).number("ts", ts_us).end();
}

/// What a publisher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published<'a> {
    /// Where.
    pub topic: &'a str,
    /// The topic's epoch.
    pub epoch: u64,
    /// The publication's number; of a duplicate, the topic's last.
    pub seq: u64,
    /// Its `pub_seq` was seen before; it was not published again.
    pub duplicate: bool,
    /// Subscribers wait for a snapshot of this topic.
    pub snapshot_wanted: bool,
}

/// Appends `{"op":"published",…}`.
pub fn write_published(out: &mut Vec<u8>, id: Option<&Id>, published: &Published<'_>) {
    Object::op(out, "published")
        .id(id)
        .text("topic", published.topic)
        .hex("epoch", published.epoch)
        .number("seq", published.seq)
        .flag("duplicate", published.duplicate)
        .flag("snapshot_wanted", published.snapshot_wanted)
        .end();
}

/// What a client is told first, if it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The connection's name in the server's logs.
    pub connection: &'a str,
    /// Now, µs UTC.
    pub ts_us: u64,
    /// How often the server pings, ms.
    pub ping_interval_ms: u64,
    /// The longest message taken from the client, bytes.
    pub message_bytes_max: u64,
    /// The most subscriptions of the connection.
    pub subscriptions_max: u64,
    /// The most topics in one command.
    pub topics_per_command_max: u64,
}

/// Appends `{"op":"hello",…}`.
pub fn write_hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    let mut object = Object::op(out, "hello");
    object
        .text("connection", hello.connection)
        .number("ts", hello.ts_us)
        .number("ping_interval_ms", hello.ping_interval_ms)
        .name("limits");
    Object::begin(object.out)
        .number("message_bytes_max", hello.message_bytes_max)
        .number("subscriptions_max", hello.subscriptions_max)
        .number("topics_per_command_max", hello.topics_per_command_max)
        .end();
    object.end();
}

/// Appends `{"op":"heartbeat",…}`; `ts_us` is µs UTC.
pub fn write_heartbeat(out: &mut Vec<u8>, ts_us: u64) {
    Object::op(out, "heartbeat").number("ts", ts_us).end();
}

/// Appends `{"op":"error",…}`.
pub fn write_error(out: &mut Vec<u8>, id: Option<&Id>, code: ErrorCode, message: &str) {
    let mut object = Object::op(out, "error");
    object.id(id).text("code", code.as_str()).text("message", message);
    object.name("retry").out.extend_from_slice(if code.retry() { b"true" } else { b"false" });
    object.end();
}

/// Appends `{"op":"gap",…}`: messages `from` to `to`, both included, are not coming.
pub fn write_gap(out: &mut Vec<u8>, topic: &str, from: u64, to: u64, reason: &str) {
    Object::op(out, "gap")
        .text("topic", topic)
        .number("from", from)
        .number("to", to)
        .text("reason", reason)
        .end();
}

/// Appends `{"op":"stale",…}`: nothing was published since `since_us`, µs UTC, for longer than the
/// topic's rule allows.
pub fn write_stale(out: &mut Vec<u8>, topic: &str, since_us: u64) {
    Object::op(out, "stale").text("topic", topic).number("since", since_us).end();
}

/// Appends an error that is about a topic and answers no command.
pub fn write_topic_error(out: &mut Vec<u8>, topic: &str, code: ErrorCode, message: &str) {
    let mut object = Object::op(out, "error");
    object.text("topic", topic).text("code", code.as_str()).text("message", message);
    object.name("retry").out.extend_from_slice(if code.retry() { b"true" } else { b"false" });
    object.end();
}

/// Appends `{"op":"goaway",…}`.
pub fn write_goaway(out: &mut Vec<u8>, reconnect_after_ms: u64) {
    Object::op(out, "goaway").number("reconnect_after_ms", reconnect_after_ms).end();
}

fn write_topics<'a>(
    out: &mut Vec<u8>,
    op: &str,
    id: Option<&Id>,
    topics: impl IntoIterator<Item = TopicAck<'a>>,
) {
    let mut object = Object::op(out, op);
    object.id(id).name("topics").out.push(b'[');
    for (index, ack) in topics.into_iter().enumerate() {
        if index != 0 {
            object.out.push(b',');
        }
        write_ack(object.out, &ack);
    }
    object.out.push(b']');
    object.end();
}

fn write_ack(out: &mut Vec<u8>, ack: &TopicAck<'_>) {
    let mut object = Object::begin(out);
    object.text("topic", ack.topic);
    match ack.outcome {
        Err(code) => {
            object.text("error", code.as_str());
        }
        Ok(terms) => {
            if let Some(kind) = terms.kind {
                object.text("kind", kind);
            }
            if let Some(epoch) = terms.epoch {
                object.hex("epoch", epoch);
            }
            if let Some(seq) = terms.seq {
                object.number("seq", seq);
            }
            if let Some(sample_ms) = terms.sample_ms {
                object.number("sample_ms", u64::from(sample_ms));
            }
            if let Some(recovered) = terms.recovered {
                let reason = recovered.reason();
                let word: &[u8] = if reason.is_none() { b"true" } else { b"false" };
                object.name("recovered").out.extend_from_slice(word);
                if let Some(reason) = reason {
                    object.text("reason", reason);
                }
            }
            if let Some(since) = terms.stale_since_us {
                object.number("stale_since", since);
            }
        }
    }
    object.end();
}

/// A JSON object being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    fn op(out: &'a mut Vec<u8>, op: &str) -> Self {
        let mut object = Self::begin(out);
        object.text("op", op);
        object
    }

    /// The name of a member whose value the caller writes next.
    fn name(&mut self, name: &str) -> &mut Self {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self
    }

    fn id(&mut self, id: Option<&Id>) -> &mut Self {
        match id {
            None => self,
            Some(Id::Integer(number)) => self.number("id", *number),
            Some(Id::Text(text)) => self.text("id", text),
        }
    }

    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        write_json_string(self.name(name).out, value);
        self
    }

    fn number(&mut self, name: &str, value: u64) -> &mut Self {
        write_number(self.name(name).out, value);
        self
    }

    fn hex(&mut self, name: &str, value: u64) -> &mut Self {
        write_hex(self.name(name).out, value);
        self
    }

    /// Present only when true.
    fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        if value {
            self.name(name).out.extend_from_slice(b"true");
        }
        self
    }

    fn end(&mut self) {
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        let text = String::from_utf8(out).expect("text");
        let _: serde::de::IgnoredAny = serde_json::from_str(&text).expect("JSON");
        text
    }

    #[test]
    fn messages() {
        let message = |snapshot, payload| {
            written(|out| write_message(out, "md.X", 45, 1_723_161_253_937_085, snapshot, payload))
        };
        assert_eq!(
            message(false, Payload::Json(b"{\"p\": 1.50}")),
            r#"{"topic":"md.X","seq":45,"ts":1723161253937085,"data":{"p": 1.50}}"#
        );
        assert_eq!(
            message(true, Payload::Text("a\"b")),
            r#"{"topic":"md.X","seq":45,"ts":1723161253937085,"snapshot":true,"data":"a\"b"}"#
        );
        assert_eq!(
            message(false, Payload::Binary(&[0, 255])),
            r#"{"topic":"md.X","seq":45,"ts":1723161253937085,"data_base64":"AP8="}"#
        );
    }

    #[test]
    fn the_longest_head_is_as_long_as_said() {
        let mut out = Vec::new();
        let topic = "x".repeat(255);
        let flags = MessageFlags { snapshot: true, base64: true };
        write_message_head(&mut out, topic.as_bytes(), u64::MAX, u64::MAX, flags);
        assert_eq!(out.len(), message_head_bytes_max(topic.len()));
    }

    #[test]
    fn acks() {
        let id = Id::Integer(1);
        let event = Terms {
            kind: Some("event"),
            epoch: Some(0x9f2c),
            seq: Some(44),
            recovered: Some(Recovered::Yes),
            ..Terms::default()
        };
        let value = Terms { kind: Some("value"), sample_ms: Some(250), ..Terms::default() };
        let topics = [
            TopicAck { topic: "a.b", outcome: Ok(event) },
            TopicAck { topic: "a.*", outcome: Ok(value) },
            TopicAck { topic: "a.\"", outcome: Err(ErrorCode::TopicInvalid) },
        ];
        assert_eq!(
            written(|out| write_subscribed(out, Some(&id), topics)),
            "{\"op\":\"subscribed\",\"id\":1,\"topics\":[\
             {\"topic\":\"a.b\",\"kind\":\"event\",\"epoch\":\"0000000000009f2c\",\"seq\":44,\"recovered\":true},\
             {\"topic\":\"a.*\",\"kind\":\"value\",\"sample_ms\":250},\
             {\"topic\":\"a.\\\"\",\"error\":\"topic_invalid\"}]}"
        );
        let terms = Terms {
            recovered: Some(Recovered::NoHistory),
            stale_since_us: Some(9),
            ..Terms::default()
        };
        assert_eq!(
            written(|out| write_updated(out, None, [TopicAck { topic: "a", outcome: Ok(terms) }])),
            "{\"op\":\"updated\",\"topics\":[{\"topic\":\"a\",\"recovered\":false,\
             \"reason\":\"history\",\"stale_since\":9}]}"
        );
        assert_eq!(
            written(|out| write_unsubscribed(out, None, [])),
            r#"{"op":"unsubscribed","topics":[]}"#
        );
        let listed = TopicAck { topic: "a", outcome: Ok(Terms::default()) };
        assert_eq!(
            written(|out| write_list(out, Some(&Id::Text("x".into())), [listed])),
            r#"{"op":"list","id":"x","topics":[{"topic":"a"}]}"#
        );
    }

    #[test]
    fn answers() {
        let id = Id::Text("q\"1".into());
        assert_eq!(
            written(|out| write_pong(out, Some(&id), 7)),
            r#"{"op":"pong","id":"q\"1","ts":7}"#
        );
        let mut published =
            Published { topic: "a", epoch: 1, seq: 46, duplicate: false, snapshot_wanted: false };
        assert_eq!(
            written(|out| write_published(out, None, &published)),
            r#"{"op":"published","topic":"a","epoch":"0000000000000001","seq":46}"#
        );
        published.duplicate = true;
        published.snapshot_wanted = true;
        assert_eq!(
            written(|out| write_published(out, None, &published)),
            "{\"op\":\"published\",\"topic\":\"a\",\"epoch\":\"0000000000000001\",\"seq\":46,\
             \"duplicate\":true,\"snapshot_wanted\":true}"
        );
        assert_eq!(
            written(|out| write_error(out, None, ErrorCode::Busy, "wait")),
            r#"{"op":"error","code":"busy","message":"wait","retry":true}"#
        );
        assert_eq!(
            written(|out| write_error(out, None, ErrorCode::Limit, "no")),
            r#"{"op":"error","code":"limit","message":"no","retry":false}"#
        );
        assert_eq!(
            written(|out| write_gap(out, "a", 46, 87, "slow")),
            r#"{"op":"gap","topic":"a","from":46,"to":87,"reason":"slow"}"#
        );
        assert_eq!(
            written(|out| write_stale(out, "a", 7)),
            r#"{"op":"stale","topic":"a","since":7}"#
        );
        let code = ErrorCode::SnapshotUnavailable;
        assert_eq!(
            written(|out| write_topic_error(out, "a", code, "none yet")),
            "{\"op\":\"error\",\"topic\":\"a\",\"code\":\"snapshot_unavailable\",\
             \"message\":\"none yet\",\"retry\":false}"
        );
        assert_eq!(
            written(|out| write_goaway(out, 1800)),
            r#"{"op":"goaway","reconnect_after_ms":1800}"#
        );
        assert_eq!(written(|out| write_heartbeat(out, 3)), r#"{"op":"heartbeat","ts":3}"#);
        let hello = Hello {
            connection: "c81f",
            ts_us: 3,
            ping_interval_ms: 25_000,
            message_bytes_max: 65_536,
            subscriptions_max: 1_024,
            topics_per_command_max: 1_024,
        };
        assert_eq!(
            written(|out| write_hello(out, &hello)),
            "{\"op\":\"hello\",\"connection\":\"c81f\",\"ts\":3,\"ping_interval_ms\":25000,\
             \"limits\":{\"message_bytes_max\":65536,\"subscriptions_max\":1024,\
             \"topics_per_command_max\":1024}}"
        );
    }
}
