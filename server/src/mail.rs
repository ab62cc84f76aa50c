//! What travels between the threads: shards and the control thread, over the mesh.
//!
//! Knows: the messages. Must not know: how they travel or who acts on them.

use uringcast_protocol::command::ErrorCode;
use uringcast_ring::pool::{Frame, Lease};

use crate::{
    ids::{ConnectionId, NodeId, TopicId},
    publication::{self, deflated::Wanted},
};

/// One message over the mesh.
#[derive(Debug)]
pub enum Mail {
    /// To a topic's home shard: order this.
    Ingest(Ingest),
    /// From a topic's home shard to every shard: append this. `origin` is set on the publisher's
    /// own shard (or for the control thread) only.
    Publication {
        /// The ordered publication (`publication::Publication` reads it).
        frame: Frame,
        /// Its companion block, if it was compressed.
        deflated: Option<Frame>,
        /// Whose publication it was.
        origin: Option<Origin>,
    },
    /// From a topic's home to every shard: its publisher's snapshot, in the order of its
    /// publications.
    Snapshot {
        /// The ordered snapshot.
        frame: Frame,
        /// As in [`Self::Publication`].
        origin: Option<Origin>,
    },
    /// From a topic's home to the helper thread: compress this. Answered by [`Mail::Deflated`] with
    /// the same topic and number.
    Deflate {
        /// The home's number of the topic.
        topic: TopicId,
        /// The home's number of the request.
        number: u64,
        /// For whom.
        wanted: Wanted,
        /// The ordered publication.
        frame: Frame,
    },
    /// The helper's answer.
    Deflated {
        /// As asked.
        topic: TopicId,
        /// As asked.
        number: u64,
        /// The companion block; `None` if it is to go plain.
        deflated: Option<Frame>,
        /// Bytes compressed, and what they became.
        bytes: [u32; 2],
    },
    /// From a topic's home to the publisher's node: ordered, and published later, if nothing newer
    /// takes its place.
    Ordered {
        /// Whose publication it was.
        origin: Origin,
        /// The topic's epoch.
        epoch: u64,
        /// The number the publication got.
        seq: u64,
    },
    /// From a topic's home to the publisher's node: not published (or published before).
    Refused {
        /// Whose publication it was.
        origin: Origin,
        /// Why.
        refusal: Refusal,
    },
    /// From the home of a topic to the control thread: published.
    Published {
        /// The control thread's number of the request.
        ticket: u64,
        /// The topic's epoch.
        epoch: u64,
        /// The number the publication got.
        seq: u64,
        /// The publisher is to send a snapshot.
        snapshot_wanted: bool,
    },
    /// From the control thread to every shard: forget this topic. Its home does, the others answer
    /// no.
    DeleteTopic {
        /// The topic's name.
        topic: Box<str>,
        /// The control thread's number of the request.
        ticket: u64,
    },
    /// From a topic's home to every other shard: forget it, in the order of its publications.
    Forget {
        /// The topic's name.
        topic: Box<str>,
    },
    /// From the control thread: a question, answered by [`Mail::Answer`] with the same ticket.
    Ask {
        /// The control thread's number of the question.
        ticket: u64,
        /// What it wants to know.
        question: Question,
    },
    /// A shard's answer.
    Answer {
        /// The question's number.
        ticket: u64,
        /// What the shard knows.
        answer: Answer,
    },
    /// From a topic's home to the control thread, in the order of the topic: keep this.
    Journal(JournalEntry),
}

/// What a topic's home wants kept beyond the end of the process.
#[derive(Debug)]
pub enum JournalEntry {
    /// The topic began in this process, anew or as it was restored.
    Topic {
        /// Its name.
        topic: Box<str>,
        /// Its epoch.
        epoch: u64,
        /// The number its first publication in this epoch will have.
        first_seq: u64,
    },
    /// An ordered publication.
    Publication {
        /// The block.
        frame: Frame,
    },
    /// A published snapshot.
    Snapshot {
        /// The block; its seq is that of the last publication that it covers.
        frame: Frame,
    },
    /// A publication that could not be sent here: the way was full.
    Dropped {
        /// Its topic.
        topic: Box<str>,
        /// The topic's epoch.
        epoch: u64,
        /// Its number.
        seq: u64,
    },
    /// The topic was deleted or has expired.
    Forget {
        /// Its name.
        topic: Box<str>,
    },
}

impl JournalEntry {
    /// Its topic's name.
    pub fn topic(&self) -> &str {
        match self {
            Self::Topic { topic, .. } | Self::Dropped { topic, .. } | Self::Forget { topic } => {
                topic
            }
            Self::Publication { frame } | Self::Snapshot { frame } => publication::topic_of(frame),
        }
    }

    /// The block it refers to, bytes.
    pub fn block_bytes(&self) -> usize {
        match self {
            Self::Publication { frame } | Self::Snapshot { frame } => frame.len(),
            _ => 0,
        }
    }
}

/// A publication on its way to its topic's home.
#[derive(Debug)]
pub struct Ingest {
    /// The payload in the layout of `publication`, still to be given seq and time.
    pub lease: Lease,
    /// Who published.
    pub origin: Origin,
    /// The publisher's own number, for refusing repeats.
    pub pub_seq: Option<u64>,
    /// The state after everything up to `pub_seq`, not a publication of its own.
    pub snapshot: bool,
}

/// Where a publication came from, and so where its acknowledgement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The node.
    pub node: NodeId,
    /// Whose.
    pub publisher: Publisher,
}

/// Who published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publisher {
    /// Somebody who was answered when it was ordered.
    Answered,
    /// A connection of the node; `ack` is the connection's own number of the request, if it wants
    /// an answer.
    Connection {
        /// Which.
        id: ConnectionId,
        /// Which answer.
        ack: Option<u32>,
    },
    /// A request on the admin port.
    Request {
        /// The control thread's number of it.
        ticket: u64,
    },
}

/// Why a publication was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its `pub_seq` was seen before; the topic stands at this.
    Duplicate {
        /// The topic's epoch.
        epoch: u64,
        /// The topic's last seq.
        seq: u64,
    },
    /// A snapshot older than all that is known; the topic stands at this.
    Uncovered {
        /// The topic's epoch.
        epoch: u64,
        /// The topic's last seq.
        seq: u64,
    },
    /// As the error code says.
    Code(ErrorCode),
}

/// What the control thread asks.
#[derive(Clone, Debug)]
pub enum Question {
    /// Connections, those with the most lag first if asked; at most `limit`.
    Connections {
        /// At most so many.
        limit: u32,
        /// Sorted by lag, the worst first.
        by_lag: bool,
    },
    /// One topic.
    Topic {
        /// Its name.
        topic: Box<str>,
    },
    /// Topics in the order of their names, after this one; at most `limit`.
    Topics {
        /// After this name.
        after: Option<Box<str>>,
        /// At most so many.
        limit: u32,
    },
}

/// What a shard answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Question::Connections`].
    Connections(Vec<ConnectionReport>),
    /// To [`Mail::DeleteTopic`]: whether it was there.
    Deleted(bool),
    /// To [`Question::Topic`] and [`Question::Topics`].
    Topics(Vec<TopicReport>),
}

/// A topic as one shard sees it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TopicReport {
    /// Its name.
    pub topic: String,
    /// `event`, `value` or `delta`.
    pub kind: &'static str,
    /// Sixteen hexadecimal digits.
    pub epoch: String,
    /// The last publication's number, 0 before the first.
    pub seq: u64,
    /// When that was, µs UTC.
    pub ts: u64,
    /// Its payload's size, bytes.
    pub last_bytes: u64,
    /// Subscribers by exact name or pattern; one shard's until summed.
    pub subscribers: u64,
    /// The pattern of its rule, or `(none)`.
    pub rule: String,
    /// Messages kept, the last one included.
    pub history_messages: u64,
    /// Memory of those, bytes.
    pub history_bytes: u64,
    /// The number of the oldest of them; `None` if there is none.
    pub first_seq: Option<u64>,
    /// The number of the last message that the publisher's snapshot covers, if there is one.
    pub snapshot_seq: Option<u64>,
    /// Whether all that came after that snapshot is kept too: else nobody can begin with it.
    pub snapshot_usable: bool,
    /// When the last message was (µs UTC), if that is longer ago than the rule's `stale_after`.
    pub stale_since: Option<u64>,
}

/// What is the matter with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Nothing.
    Live,
    /// Its socket took less than it was given; it has not lagged too far yet.
    Blocked,
    /// It has just subscribed or come back, and is sent what it missed.
    CatchingUp,
    /// It is sent everything but what waits for a publisher's snapshot.
    AwaitingSnapshot,
    /// It lagged too far, and is sent what its topics' kinds say.
    Lagging,
}

/// A connection as its shard sees it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ConnectionReport {
    /// As in `hello`.
    pub connection: String,
    /// The client's address; without a port where a proxy does not say it.
    pub peer: String,
    /// A trusted proxy has said so.
    pub proxied: bool,
    /// Which endpoint it came by.
    pub path: &'static str,
    /// How many subscriptions it has.
    pub subscriptions: u32,
    /// Bytes of its lane's log not yet sent to it.
    pub backlog_bytes: u64,
    /// Messages published and not sent to it. While it lags these include messages of value topics that
    /// it never will be sent, because newer ones stand for them.
    pub behind_messages: u64,
    /// What is the matter with it.
    pub state: ConnectionState,
    /// Since when it is served by sweeps, µs UTC.
    pub since: Option<u64>,
    /// It left the log and is served by sweeps.
    pub lagging: bool,
    /// Its socket took less than it was given.
    pub blocked: bool,
}
