//! One connection: what it is, what the kernel has of it, what it is owed.
//!
//! Knows: phases, roles, which operations are armed, own output, what is half received. Must not
//! know: the topic tables, other connections, or io_uring.

pub mod outbox;
pub mod table;

use std::net::SocketAddr;

use uringcast_protocol::session::{Role as Side, Session};
use uringcast_ring::{Slot, pool::Lease};

use crate::{conn::outbox::Outbox, ids::LaneId, publication::Body, rules::Content};

/// How far a connection's life has come; it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The request's head is being received.
    Handshake,
    /// Upgraded.
    Open,
    /// Our Close frame (or last HTTP bytes) is on its way; what comes in is drained.
    Closing,
    /// Nothing is sent or read any more; operations are being ended, then the slot is closed.
    Ending,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not known yet.
    Unknown,
    /// `/echo`
    Echo,
    /// A plain HTTP request.
    Http,
    /// `/ws`
    Json,
    /// `/publish/<topic>` and `/publish`
    Publisher,
    /// `/raw/<topic>`
    Raw,
    /// `/sse`
    Sse,
}

impl Role {
    /// Its endpoint, for reports.
    pub fn path(self) -> &'static str {
        match self {
            Self::Unknown => "-",
            Self::Echo => "/echo",
            Self::Http => "http",
            Self::Json => "/ws",
            Self::Publisher => "/publish",
            Self::Raw => "/raw",
            Self::Sse => "/sse",
        }
    }

    /// What its subscriptions are sent.
    pub fn body(self) -> Body {
        match self {
            Self::Raw => Body::Raw,
            Self::Sse => Body::Sse,
            Self::Unknown | Self::Echo | Self::Http | Self::Json | Self::Publisher => Body::Json,
        }
    }
}

/// Facts about a connection that are true or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($name:ident = $bit:literal, $doc:literal;)*) => {
        impl Flags {
            $(#[doc = $doc] pub const $name: Self = Self(1 << $bit);)*
        }
    };
}

flags! {
    POLL_ARMED = 0, "A poll for input is armed.";
    RECEIVE_ARMED = 1, "A receive is armed.";
    WRITE_ARMED = 2, "A poll for room to write is armed.";
    BLOCKED = 3, "Its socket is full, or is asked for room first: nothing is sent until there is.";
    WOKEN = 4, "There was said to be room, and no output of its own was sent since.";
    READ_WANTED = 5, "There may be more to read.";
    READ_PARKED = 6, "Its receive waits for buffers, or for the end of what slows publishers.";
    PING_OUT = 7, "A ping was sent and nothing has come since.";
    MAY_PUBLISH = 8, "It may publish by command.";
    PUBLISH_PORT = 9, "It came in by the publish port.";
    CLOSE_RECEIVED = 10, "The peer's Close frame has come.";
    OWN_QUEUED = 11, "It stands in the queue of own output.";
    SWEEPING = 12, "It left its lane's log and is served by sweeps.";
    SLOW = 13, "It is being closed for being slow.";
    EOF = 14, "The peer has sent FIN.";
    OFFENDED = 15, "It broke a rule: nothing of it is understood any more.";
    SLOT_CLOSING = 16, "Its slot is being closed.";
    WAITS = 20, "The receive that is armed ends only when something comes: the first of a connection.";
    HUNG_UP = 18, "The peer is known to have hung up; what it sent before may still be unread.";
    TRUSTED_HOP = 24, "It comes from a proxy that is believed when it says who its client is.";
    PROXY_LINE_DUE = 25, "Its first bytes are, or may be, a PROXY line.";
    PROXY_LINE = 26, "It began with a PROXY line.";
    NAMED = 28, "A trusted proxy has said who its client is.";
    COUNTED = 27, "It counts among the connections of its address.";
    SLOWED = 19, "A publisher of a topic that can't be sent on as fast: it is not received from for a while.";
    SILENT = 17, "It broke a rule, was told to go, and has sent nothing since the last look.";
}

impl Flags {
    /// Whether all of these hold.
    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    /// Whether any of these hold.
    pub fn any(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    /// These hold from now on. Returns whether they did.
    pub fn set(&mut self, flag: Self) -> bool {
        let had = self.has(flag);
        self.0 |= flag.0;
        had
    }

    /// These hold no longer. Returns whether they did.
    pub fn clear(&mut self, flag: Self) -> bool {
        let had = self.has(flag);
        self.0 &= !flag.0;
        had
    }

    /// All of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A connection's place in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Which lane.
    pub lane: LaneId,
    /// Its index among the lane's subscribers; [`Seat::AWAY`] while it is served by sweeps.
    pub index: u32,
}

impl Seat {
    /// The index of a subscriber that is not in the rotation.
    pub const AWAY: u32 = u32::MAX;
}

/// What is half received; `None` for the many that are silent.
#[derive(Debug, Default)]
pub enum Inbox {
    /// Nothing.
    #[default]
    None,
    /// A stream's: so many bytes came and mean nothing.
    Ignored(u32),
    /// Part of a request's head, or what an earlier request left to be known.
    Head(Box<Heading>),
    /// Part of a frame or message.
    Message(Box<Assembly>),
    /// A publisher's: kept for as long as it is connected.
    Publisher(Box<Publishing>),
}

/// A connection that is not upgraded yet, and has done something already.
#[derive(Debug)]
pub struct Heading {
    /// Bytes not acted on: part of a head, or whole heads whose answers must wait.
    pub bytes: Vec<u8>,
    /// Who is at the other end, a proxy perhaps; the connection's `peer` is its client.
    pub hop: SocketAddr,
    /// Requests answered.
    pub requests: u32,
    /// When the last of them was.
    pub since_ns: u64,
}

/// A session with a message begun.
#[derive(Debug)]
pub struct Assembly {
    /// The protocol's state.
    pub session: Session,
    /// The message so far.
    pub message: Vec<u8>,
}

/// A publishing connection.
#[derive(Debug)]
pub struct Publishing {
    /// The protocol's state.
    pub session: Session,
    /// Its one topic; `None` where each line names its own.
    pub topic: Option<FixedTopic>,
    /// Each message is answered.
    pub ack: bool,
    /// The message begun: where the topic is fixed, in its final place.
    pub draft: Option<Lease>,
    /// Payload bytes in the draft.
    pub draft_bytes: usize,
    /// The lines begun, where the topic is not fixed.
    pub lines: Vec<u8>,
}

/// The topic of a publisher that has only one.
#[derive(Debug)]
pub struct FixedTopic {
    /// Its name.
    pub name: Box<str>,
    /// The name's hash.
    pub hash: u64,
    /// What the topic's rule says of payloads.
    pub content: Content,
}

/// A connection, as small as can be: most are silent.
#[derive(Debug)]
pub struct Connection {
    /// Its direct descriptor.
    pub slot: Slot,
    /// How far its life has come.
    pub phase: Phase,
    /// What it is for.
    pub role: Role,
    /// Facts.
    pub flags: Flags,
    /// Its place in a lane, if it is subscribed to anything.
    pub seat: Option<Seat>,
    /// From where in the lane's log its lag counts; `u64::MAX` if it does not.
    pub lag_base: u64,
    /// Its own output, if any.
    pub outbox: Option<Box<Outbox>>,
    /// What is half received.
    pub inbox: Inbox,
    /// The client's address: the peer's, or what a trusted proxy said, with port 0 where it did not
    /// say one.
    pub peer: SocketAddr,
    /// permessage-deflate: the window, as a power of two, that it can inflate with; 0 if that
    /// extension was not agreed upon. Neither side keeps a window from one message to the next.
    pub window_bits: u8,
}

impl Connection {
    /// Just accepted.
    pub fn new(slot: Slot, peer: SocketAddr, publish_port: bool) -> Self {
        let mut flags = Flags::default();
        if publish_port {
            flags.set(Flags::PUBLISH_PORT);
        }
        Self {
            slot,
            phase: Phase::Handshake,
            role: Role::Unknown,
            flags,
            seat: None,
            lag_base: u64::MAX,
            outbox: None,
            inbox: Inbox::None,
            peer,
            window_bits: 0,
        }
    }

    /// What is kept of it before it is upgraded.
    pub fn heading_mut(&mut self) -> &mut Heading {
        if !matches!(self.inbox, Inbox::Head(_)) {
            let (bytes, hop) = (Vec::new(), self.peer);
            self.inbox = Inbox::Head(Box::new(Heading { bytes, hop, requests: 0, since_ns: 0 }));
        }
        match &mut self.inbox {
            Inbox::Head(heading) => heading,
            _ => unreachable!("it was made so above"),
        }
    }

    /// Who is at the other end, a proxy perhaps; only before it is upgraded.
    pub fn hop(&self) -> SocketAddr {
        match &self.inbox {
            Inbox::Head(heading) => heading.hop,
            _ => self.peer,
        }
    }

    /// Whether it has had its answers, and nothing of a next request has come.
    pub fn is_between_requests(&self) -> bool {
        matches!(&self.inbox, Inbox::Head(heading) if heading.requests > 0 && heading.bytes.is_empty())
    }

    /// Its client's address for people.
    pub fn client(&self) -> String {
        match self.peer.port() {
            0 => self.peer.ip().to_string(),
            _ => self.peer.to_string(),
        }
    }

    /// A session at its beginning: what it agreed to, and no message of more than so many bytes.
    pub fn session(&self, message_bytes_max: u64) -> Session {
        let session = Session::new(Side::Server, message_bytes_max);
        if self.window_bits == 0 { session } else { session.with_deflate() }
    }

    /// Whether the kernel has an operation of it.
    pub fn is_armed(&self) -> bool {
        self.flags.any(Flags::POLL_ARMED.and(Flags::RECEIVE_ARMED).and(Flags::WRITE_ARMED))
    }

    /// Own output not sent yet, bytes; ranges of lanes apart.
    pub fn own_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.pending_bytes())
    }

    /// Its own output, to be added to; with none yet it takes a spare one.
    #[allow(clippy::vec_box, reason = "it is held as a box")]
    pub fn outbox_mut(&mut self, spares: &mut Vec<Box<Outbox>>) -> &mut Outbox {
        self.outbox.get_or_insert_with(|| spares.pop().unwrap_or_default())
    }

    /// Whether there is own output to send.
    pub fn has_own(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| !outbox.is_empty())
    }

    /// Whether what it sends is only thrown away, to be closed when there is no more: a plain request
    /// that was answered, a stream, or a peer that broke a rule. (Closing with input unread would be a reset,
    /// which may overtake our last words.)
    pub fn drains(&self) -> bool {
        self.phase == Phase::Closing
            && (matches!(self.role, Role::Http | Role::Sse) || self.flags.has(Flags::OFFENDED))
            && !self.has_own()
    }

    /// Whether the client is to be read no further for now.
    pub fn stops_reading(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.stops_reading())
    }
}

/// A silent connection costs this and 16 B in its lane (the goal is 200 B in all).
const _: () = assert!(size_of::<Connection>() <= 128);
