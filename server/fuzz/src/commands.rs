//! Commands of the JSON protocol: read, written anew, read again; ids against another reader of
//! JSON; the answers as JSON, whatever names and ids are in them.
//!
//! Knows: how a command is written. Must not know: what is done with one.
//!
//! Input: a message.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use serde_json::{Value, value::RawValue};
use uringcast_protocol::{
    command::{self, Command, CommandError, ErrorCode, Id},
    json,
    limits::{ID_BYTES_MAX, ID_INTEGER_END, TOPIC_BYTES_MAX, TOPICS_PER_COMMAND_MAX},
    publish::Data,
    reply::{self, Hello, Published, Recovered, Terms, TopicAck},
};

/// A command or an error, with the id that was in it.
pub fn check(data: &[u8]) {
    let parsed = command::parse(data);
    let value: Option<Value> = serde_json::from_slice(data).ok();
    match &parsed {
        Ok(command) => {
            assert!(data.trim_ascii_start().starts_with(b"{"));
            if let Some(value) = &value {
                assert_eq!(id(command).cloned(), value.get("id").and_then(id_of), "{value}");
            }
            let again = write(command);
            let reread = command::parse(&again).expect("written by the rules");
            assert_eq!(shown(&reread), shown(command));
            assert_eq!(write(&reread), again);
            answers(command);
        }
        Err(error) => {
            assert!(!error.message.is_empty());
            if let Some(value) = &value
                && error.id.is_some()
            {
                assert_eq!(error.id, value.get("id").and_then(id_of), "{value}");
            }
            answer(|out| reply::write_error(out, error.id.as_ref(), error.code, error.message));
            // Fields that are not known are skipped, UTF-8 or not.
            if std::str::from_utf8(data).is_ok_and(|text| !json::is_json(text.as_bytes())) {
                assert_eq!((&error.id, error.code), (&None, ErrorCode::BadRequest));
            }
            if let Some(value) = &value {
                refused_for_a_reason(error, value);
            }
        }
    }
}

/// An object whose fields come once, with an id as it should be, never loses that id.
fn refused_for_a_reason(error: &CommandError, value: &Value) {
    let Value::Object(fields) = value else {
        return assert_eq!(error.code, ErrorCode::BadRequest);
    };
    let twice = error.message.contains("twice");
    let id_wrong = error.message.starts_with("id must");
    match fields.get("id").filter(|id| !id.is_null()) {
        None => assert_eq!(error.id, None),
        Some(_) if twice => assert_eq!(error.id, None),
        Some(id) => assert_eq!(id_of(id).is_none(), id_wrong, "{id}"),
    }
}

/// What a right id is, once more. A field given twice was refused before it came to this.
fn id_of(value: &Value) -> Option<Id> {
    match value {
        Value::Number(number) => {
            number.as_u64().filter(|number| *number < ID_INTEGER_END).map(Id::Integer)
        }
        Value::String(text) => (text.len() <= ID_BYTES_MAX).then(|| Id::Text(text.as_str().into())),
        _ => None,
    }
}

fn id<'a>(command: &'a Command<'_>) -> Option<&'a Id> {
    match command {
        Command::Auth { id }
        | Command::List { id }
        | Command::Ping { id }
        | Command::Unsubscribe { id, .. }
        | Command::Update { id, .. } => id.as_ref(),
        Command::Publish(publish) => publish.id.as_ref(),
        Command::Subscribe(subscribe) => subscribe.id.as_ref(),
    }
}

/// A command as it goes on the wire.
#[derive(Default, Serialize)]
struct Written<'a> {
    op: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<&'a [Cow<'a, str>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub_seq: Option<u64>,
    snapshot: Option<bool>,
    sample_ms: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    resume: BTreeMap<&'a str, Place>,
    resume_from: Option<Time>,
}

/// Where a client stands in a topic.
#[derive(Serialize)]
struct Place {
    epoch: String,
    seq: u64,
}

#[derive(Serialize)]
struct Time {
    ts: u64,
}

fn write(command: &Command<'_>) -> Vec<u8> {
    let id = id(command).map(|id| match id {
        Id::Integer(number) => Value::from(*number),
        Id::Text(text) => Value::from(&**text),
    });
    let empty = Written { id, ..Written::default() };
    let written = match command {
        Command::Auth { .. } => Written { op: "auth", ..empty },
        Command::List { .. } => Written { op: "list", ..empty },
        Command::Ping { .. } => Written { op: "ping", ..empty },
        Command::Unsubscribe { topics, .. } => {
            Written { op: "unsubscribe", topics: Some(topics), ..empty }
        }
        Command::Update { topics, sample_ms, .. } => {
            Written { op: "update", topics: Some(topics), sample_ms: *sample_ms, ..empty }
        }
        Command::Publish(publish) => {
            let (data, data_base64) = data_fields(&publish.data);
            Written {
                op: "publish",
                topic: Some(&publish.topic),
                data,
                data_base64,
                pub_seq: publish.pub_seq,
                snapshot: Some(publish.snapshot),
                ..empty
            }
        }
        Command::Subscribe(subscribe) => Written {
            op: "subscribe",
            topics: Some(&subscribe.topics),
            snapshot: Some(subscribe.snapshot),
            sample_ms: subscribe.sample_ms,
            resume: subscribe
                .resume
                .iter()
                .map(|(topic, at)| {
                    (&**topic, Place { epoch: format!("{:x}", at.epoch), seq: at.seq })
                })
                .collect(),
            resume_from: subscribe.resume_from_us.map(|ts| Time { ts }),
            ..empty
        },
    };
    serde_json::to_vec(&written).expect("a command is JSON")
}

/// A payload as the one or the other of its two fields.
pub(crate) fn data_fields<'a>(data: &Data<'a>) -> (Option<&'a RawValue>, Option<Value>) {
    match data {
        Data::Json(raw) => (Some(*raw), None),
        Data::Binary(bytes) => {
            let mut encoded = Vec::new();
            reply::write_base64(&mut encoded, bytes);
            (None, Some(serde_json::from_slice(&encoded).expect("a JSON string")))
        }
    }
}

fn shown(command: &Command<'_>) -> String {
    format!("{command:?}")
}

/// Answers that name what the command named.
fn answers(command: &Command<'_>) {
    let id = id(command);
    let terms = Terms {
        kind: Some("event"),
        epoch: Some(u64::MAX),
        seq: Some(0),
        sample_ms: Some(u32::MAX),
        recovered: Some(Recovered::NoHistory),
        stale_since_us: Some(u64::MAX),
    };
    match command {
        Command::Auth { .. } | Command::Ping { .. } => {
            let pong = answer(|out| reply::write_pong(out, id, u64::MAX));
            assert_eq!(pong.get("id").and_then(id_of).as_ref(), id);
        }
        Command::List { .. } => {
            answer(|out| {
                let hello = Hello {
                    connection: "0",
                    ts_us: 1,
                    ping_interval_ms: 2,
                    message_bytes_max: 3,
                    subscriptions_max: 4,
                    topics_per_command_max: TOPICS_PER_COMMAND_MAX as u64,
                };
                reply::write_hello(out, &hello);
            });
        }
        Command::Subscribe(command::Subscribe { topics, .. })
        | Command::Unsubscribe { topics, .. }
        | Command::Update { topics, .. } => {
            assert!(topics.len() <= TOPICS_PER_COMMAND_MAX);
            for outcome in [Ok(terms), Ok(Terms::default()), Err(ErrorCode::TopicInvalid)] {
                let acks = topics.iter().map(|topic| TopicAck { topic, outcome });
                let value = answer(|out| reply::write_subscribed(out, id, acks));
                assert_eq!(value.get("id").and_then(id_of).as_ref(), id);
                let named = value["topics"].as_array().expect("an array").iter();
                assert!(
                    named.map(|ack| ack["topic"].as_str()).eq(topics.iter().map(|t| Some(&**t)))
                );
            }
        }
        Command::Publish(publish) => {
            assert!(publish.topic.len() <= TOPIC_BYTES_MAX);
            let value = answer(|out| {
                let published = Published {
                    topic: &publish.topic,
                    epoch: 0,
                    seq: u64::MAX,
                    duplicate: publish.snapshot,
                    snapshot_wanted: true,
                };
                reply::write_published(out, id, &published);
            });
            assert_eq!(value["topic"].as_str(), Some(&*publish.topic));
            answer(|out| reply::write_gap(out, &publish.topic, 0, u64::MAX, "slow"));
            answer(|out| reply::write_stale(out, &publish.topic, u64::MAX));
        }
    }
}

/// What is written, as another reader has it.
fn answer(write: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", out.escape_ascii()))
}
