//! Commands of the JSON protocol, from clients.
//!
//! Knows: their grammar. Must not know: subscriptions, rights, which topics exist.
//!
//! A command is one JSON object. Fields not known here are ignored, so that the protocol can grow;
//! a field that is `null` counts as absent, but for a payload.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::Text;
use crate::limits::{
    ID_BYTES_MAX, ID_INTEGER_END, SAMPLE_MS_MAX, SAMPLE_MS_MIN, TOPICS_PER_COMMAND_MAX,
};
use crate::publish::{Data, data_of};
use crate::topic_name::validate_name;

/// Reads one command.
///
/// # Errors
/// What is wrong, with the command's id wherever that could be read.
pub fn parse(message: &[u8]) -> Result<Command<'_>, CommandError> {
    let fields = Fields::read(message)?;
    let id = match fields.id.map(Id::read) {
        None => None,
        Some(Some(id)) => Some(id),
        Some(None) => {
            let message = "id must be an integer below 2^53 or a string of up to 36 bytes";
            return Err(CommandError { id: None, code: ErrorCode::BadRequest, message });
        }
    };
    fields.command(id.clone()).map_err(|(code, message)| CommandError { id, code, message })
}

/// What a client wants.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// Reserved; answered as an unknown operation until tokens exist.
    Auth {
        /// To be echoed.
        id: Option<Id>,
    },
    /// What the connection is subscribed to.
    List {
        /// To be echoed.
        id: Option<Id>,
    },
    /// Is anyone there, and what is the time.
    Ping {
        /// To be echoed.
        id: Option<Id>,
    },
    /// One publication.
    Publish(Publish<'a>),
    /// More subscriptions.
    Subscribe(Subscribe<'a>),
    /// Another pace for some of them.
    Update {
        /// To be echoed.
        id: Option<Id>,
        /// Names or patterns, as they were subscribed to; not checked.
        topics: Vec<Cow<'a, str>>,
        /// As in [`Subscribe`]; `None`: live again.
        sample_ms: Option<u32>,
    },
    /// Fewer.
    Unsubscribe {
        /// To be echoed.
        id: Option<Id>,
        /// Names or patterns, as they were subscribed to; not checked.
        topics: Vec<Cow<'a, str>>,
    },
}

/// `{"op":"subscribe",…}`.
#[derive(Clone, Debug)]
pub struct Subscribe<'a> {
    /// To be echoed.
    pub id: Option<Id>,
    /// Names or patterns, at most 1,024, not checked: each is answered for itself.
    pub topics: Vec<Cow<'a, str>>,
    /// The last value (or the publisher's snapshot) first.
    pub snapshot: bool,
    /// At most one message per topic in so many ms, 10 to 60,000.
    pub sample_ms: Option<u32>,
    /// Where to go on, by topic.
    pub resume: BTreeMap<Cow<'a, str>, Position>,
    /// Where to go on, for all topics: everything of this time (µs UTC) and later.
    pub resume_from_us: Option<u64>,
}

/// Where a client stands in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The topic's epoch, as its acknowledgement or answer named it.
    pub epoch: u64,
    /// The number of the last message it has; 0 for none.
    pub seq: u64,
}

/// `{"op":"publish",…}`.
#[derive(Clone, Debug)]
pub struct Publish<'a> {
    /// To be echoed.
    pub id: Option<Id>,
    /// A valid name.
    pub topic: Cow<'a, str>,
    /// The payload.
    pub data: Data<'a>,
    /// The publisher's own number, rising per topic.
    pub pub_seq: Option<u64>,
    /// The state after everything up to `pub_seq`, not an event of its own.
    pub snapshot: bool,
}

/// The client's name of its command, echoed in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Id {
    /// Below 2^53.
    Integer(u64),
    /// At most 36 bytes.
    Text(Box<str>),
}

impl Id {
    fn read(raw: &RawValue) -> Option<Self> {
        if let Ok(number) = serde_json::from_str::<u64>(raw.get()) {
            return (number < ID_INTEGER_END).then_some(Self::Integer(number));
        }
        let text = serde_json::from_str::<Text<'_>>(raw.get()).ok()?.0;
        (text.len() <= ID_BYTES_MAX).then(|| Self::Text(text.into()))
    }
}

/// A command that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct CommandError {
    /// The command's, where it could be read.
    pub id: Option<Id>,
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: &'static str,
}

/// Error codes, a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not JSON, or not of the form the operation wants.
    BadRequest,
    /// Too much is going on; try again.
    Busy,
    /// Not allowed.
    Forbidden,
    /// A bound was reached.
    Limit,
    /// Not subscribed.
    NotSubscribed,
    /// No such operation.
    OpUnknown,
    /// The payload is not what the topic's content rule wants.
    PayloadInvalid,
    /// The payload is too large.
    PayloadTooLarge,
    /// Too many requests.
    RateLimited,
    /// No snapshot can be had.
    SnapshotUnavailable,
    /// Not a topic name or pattern.
    TopicInvalid,
}

impl ErrorCode {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Busy => "busy",
            Self::Forbidden => "forbidden",
            Self::Limit => "limit",
            Self::NotSubscribed => "not_subscribed",
            Self::OpUnknown => "op_unknown",
            Self::PayloadInvalid => "payload_invalid",
            Self::PayloadTooLarge => "payload_too_large",
            Self::RateLimited => "rate_limited",
            Self::SnapshotUnavailable => "snapshot_unavailable",
            Self::TopicInvalid => "topic_invalid",
        }
    }

    /// The same request may succeed later.
    pub const fn retry(self) -> bool {
        matches!(self, Self::Busy | Self::RateLimited)
    }
}

/// Every field of every command and publish line, each still raw: a wrong one must not hide the
/// id. A field given twice is an error of the whole.
#[derive(Deserialize)]
pub(crate) struct Fields<'a> {
    #[serde(borrow)]
    op: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    topics: Option<&'a RawValue>,
    #[serde(borrow)]
    topic: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(crate) data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) data_base64: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) pub_seq: Option<&'a RawValue>,
    #[serde(borrow)]
    snapshot: Option<&'a RawValue>,
    #[serde(borrow)]
    sample_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    resume: Option<&'a RawValue>,
    #[serde(borrow)]
    resume_from: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawPosition<'a> {
    #[serde(borrow)]
    epoch: Text<'a>,
    seq: u64,
}

#[derive(Deserialize)]
struct RawTime {
    ts: u64,
}

/// `null` is a payload like any other.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// What is wrong, before the id is put to it.
pub(crate) type Fault = (ErrorCode, &'static str);

impl<'a> Fields<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, CommandError> {
        let fault = |message| CommandError { id: None, code: ErrorCode::BadRequest, message };
        // A derived struct could also be read from an array; the protocol has objects only.
        if message.trim_ascii_start().first() != Some(&b'{') {
            return Err(fault("a JSON object is wanted"));
        }
        serde_json::from_slice(message)
            .map_err(|_| fault("not a JSON object, or one with a field twice"))
    }

    fn command(&self, id: Option<Id>) -> Result<Command<'a>, Fault> {
        let Some(op) = self.op else {
            return Err((ErrorCode::BadRequest, "op is missing"));
        };
        let op = read::<Text<'_>>(op, "op must be a string")?.0;
        match &*op {
            "auth" => Ok(Command::Auth { id }),
            "list" => Ok(Command::List { id }),
            "ping" => Ok(Command::Ping { id }),
            "publish" => Ok(Command::Publish(Publish {
                id,
                topic: self.topic()?,
                data: data_of(self)?,
                pub_seq: self.pub_seq()?,
                snapshot: self.snapshot()?,
            })),
            "subscribe" => Ok(Command::Subscribe(Subscribe {
                id,
                topics: self.topics()?,
                snapshot: self.snapshot()?,
                sample_ms: self.sample_ms()?,
                resume: self.resume()?,
                resume_from_us: self.resume_from_us()?,
            })),
            "update" => {
                Ok(Command::Update { id, topics: self.topics()?, sample_ms: self.sample_ms()? })
            }
            "unsubscribe" => Ok(Command::Unsubscribe { id, topics: self.topics()? }),
            _ => Err((ErrorCode::OpUnknown, "no such operation")),
        }
    }

    /// The name published to.
    pub(crate) fn topic(&self) -> Result<Cow<'a, str>, Fault> {
        let topic = self.topic.ok_or((ErrorCode::BadRequest, "topic is missing"))?;
        let name = read::<Text<'_>>(topic, "topic must be a string")?.0;
        validate_name(&name)
            .map_err(|_| (ErrorCode::TopicInvalid, "topic is not a topic's name"))?;
        Ok(name)
    }

    fn topics(&self) -> Result<Vec<Cow<'a, str>>, Fault> {
        let topics = self.topics.ok_or((ErrorCode::BadRequest, "topics is missing"))?;
        let topics = read::<Vec<Text<'_>>>(topics, "topics must be an array of strings")?;
        if topics.len() > TOPICS_PER_COMMAND_MAX {
            return Err((ErrorCode::Limit, "more than 1024 topics in one command"));
        }
        Ok(topics.into_iter().map(|topic| topic.0).collect())
    }

    pub(crate) fn snapshot(&self) -> Result<bool, Fault> {
        self.snapshot.map_or(Ok(false), |raw| read(raw, "snapshot must be true or false"))
    }

    pub(crate) fn pub_seq(&self) -> Result<Option<u64>, Fault> {
        self.pub_seq.map(|raw| read(raw, "pub_seq must be an integer below 2^64")).transpose()
    }

    fn resume(&self) -> Result<BTreeMap<Cow<'a, str>, Position>, Fault> {
        let wanted =
            "resume must be an object of {\"epoch\":\"<hexadecimal>\",\"seq\":<integer>} by topic";
        let Some(raw) = self.resume else { return Ok(BTreeMap::new()) };
        let positions = read::<BTreeMap<Text<'_>, RawPosition<'_>>>(raw, wanted)?;
        if positions.len() > TOPICS_PER_COMMAND_MAX {
            return Err((ErrorCode::Limit, "more than 1024 topics in one command"));
        }
        positions
            .into_iter()
            .map(|(topic, position)| {
                let epoch = position.epoch.0;
                // `from_str_radix` would take a sign as well.
                let is_hex = epoch.len() <= 16 && epoch.bytes().all(|b| b.is_ascii_hexdigit());
                let epoch = u64::from_str_radix(&epoch, 16).ok().filter(|_| is_hex);
                let epoch = epoch.ok_or((ErrorCode::BadRequest, wanted))?;
                Ok((topic.0, Position { epoch, seq: position.seq }))
            })
            .collect()
    }

    fn resume_from_us(&self) -> Result<Option<u64>, Fault> {
        let wanted = "resume_from must be {\"ts\":<microseconds>}";
        let from = self.resume_from.map(|raw| read::<RawTime>(raw, wanted)).transpose()?;
        Ok(from.map(|from| from.ts))
    }

    fn sample_ms(&self) -> Result<Option<u32>, Fault> {
        let wanted = "sample_ms must be an integer from 10 to 60000";
        let sample_ms: Option<u32> = self.sample_ms.map(|raw| read(raw, wanted)).transpose()?;
        match sample_ms {
            Some(ms) if !(SAMPLE_MS_MIN..=SAMPLE_MS_MAX).contains(&ms) => {
                Err((ErrorCode::BadRequest, wanted))
            }
            other => Ok(other),
        }
    }
}

pub(crate) fn read<'a, T: Deserialize<'a>>(
    raw: &'a RawValue,
    wanted: &'static str,
) -> Result<T, Fault> {
    serde_json::from_str(raw.get()).map_err(|_| (ErrorCode::BadRequest, wanted))
}
