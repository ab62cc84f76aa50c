//! `/sse`: streams of Server-Sent Events.
//!
//! Knows: what such a request may ask for, how a stream begins, breathes and ends. Must not know: how
//! events look, or what is published.
//!
//! A stream is a subscriber as any other, in lanes of its own format. It takes no input, so all that a
//! client wants stands in its request; and nobody answers pings, so TCP alone knows who is gone.

use uringcast_protocol::{
    command::ErrorCode,
    handshake::Request,
    opcode::CloseCode,
    refusal::Refusal,
    reply::{self, Recovered},
    sse,
    topic_name::Pattern,
};
use uringcast_ring::Io;

use super::{Shard, close::Ending, count, resume::Wish};
use crate::{
    conn::{Flags, Inbox, Phase, Role, Seat},
    ids::ConnectionId,
    topics::log::Boundary,
};

/// Whoever sends more than so many bytes into a stream is closed.
const INPUT_BYTES_MAX: u32 = 16 << 10;
/// A cursor may be ahead of this shard's clock by as much as clocks were set back; beyond it is not
/// one of ours, µs.
const CURSOR_AHEAD_US: u64 = 60_000_000;

/// What a stream is to be of.
#[derive(Debug, Default)]
pub(super) struct StreamOptions {
    topics: Vec<String>,
    snapshot: bool,
    /// As it came back; `None` from whoever has had nothing yet.
    last_id: Option<Vec<u8>>,
}

impl<I: Io> Shard<I> {
    /// What a request for a stream asks for.
    pub(super) fn stream_options(&self, request: &Request<'_>) -> Result<StreamOptions, Refusal> {
        if request.method != "GET" || request.wants_upgrade {
            return Err(Refusal::MethodNotAllowed);
        }
        let mut options = StreamOptions::default();
        for (key, value) in request.query() {
            match &*key {
                "topics" => {
                    let topics = value.split(',').filter(|topic| !topic.is_empty());
                    options.topics.extend(topics.map(str::to_owned));
                }
                "snapshot" => options.snapshot = value == "1",
                "last_event_id" if !value.is_empty() => {
                    options.last_id = Some(value.as_bytes().to_vec());
                }
                // `token` is reserved; others are the client's own (cache busters and the like).
                _ => {}
            }
        }
        // A browser comes back to the same address, and says in the header where it was since.
        if let Some(id) = request.last_event_id {
            options.last_id = Some(id.to_vec());
        }
        if options.topics.is_empty()
            || options.topics.len() > self.settings.subscriptions_max as usize
        {
            return Err(Refusal::QueryInvalid);
        }
        // Else the first event tells which are not; a client would come back for ever for none.
        if options.topics.iter().all(|topic| Pattern::parse(topic).is_err()) {
            return Err(Refusal::TopicInvalid);
        }
        Ok(options)
    }

    /// Whether this client may subscribe to anything that a stream is to be of.
    pub(super) fn may_subscribe_any(&self, id: ConnectionId, options: &StreamOptions) -> bool {
        let mut patterns = options.topics.iter().filter_map(|topic| Pattern::parse(topic).ok());
        patterns.any(|pattern| self.may_subscribe(id, &pattern))
    }

    /// Answers with a stream.
    pub(super) fn begin_stream(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
        options: &StreamOptions,
    ) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        count!(self.handshakes_stream);
        count!(self.streams);
        tracing::debug!(peer = %connection.peer, path = &*request.path, "a stream");
        connection.phase = Phase::Open;
        connection.role = Role::Sse;
        connection.inbox = Inbox::Ignored(0);
        let mut bytes = std::mem::take(&mut self.scratch.answer);
        // Only an origin that is allowed has come so far.
        sse::write_head(&mut bytes, &self.settings.http.headers, request.origin);
        self.own(id, Boundary::Message, |out| out.extend_from_slice(&bytes));
        bytes.clear();
        self.scratch.answer = bytes;

        let back = options.last_id.as_deref().map(sse::parse_id);
        let newest_us = self.now.utc_us.saturating_add(CURSOR_AHEAD_US);
        let back = back.map(|cursor_us| cursor_us.filter(|&cursor_us| cursor_us <= newest_us));
        let wish = Wish {
            snapshot: options.snapshot,
            resume_from_us: back.flatten(),
            lost: (back == Some(None)).then_some(Recovered::NoCursor),
            // Who has to come back before it has caught up begins where it began now.
            cursor_us: Some(back.flatten().unwrap_or(self.topics.memory.cursor_us)),
            ..Wish::default()
        };
        let topics: Vec<_> = options.topics.iter().map(|topic| topic.as_str().into()).collect();
        let failed = self.subscribe_with(id, None, &topics, &wish);
        if failed.is_some_and(|code| code.retry() || code == ErrorCode::Limit) {
            // It can't ask again but by coming back.
            self.close_with(id, CloseCode::TRY_AGAIN_LATER, "try again", Ending::Policy);
        }
    }

    /// Shows that the stream is alive, and where it is if it has had everything.
    pub(super) fn ping_stream(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        let seat = connection.seat.filter(|_| !connection.flags.has(Flags::SWEEPING));
        let has_all = seat.is_some_and(|Seat { lane, index }| {
            let lane = self.topics.lane(lane);
            index != Seat::AWAY && lane.subscribers[index as usize].cursor == lane.log.head()
        });
        let cursor_us = has_all.then_some(self.topics.memory.cursor_us);
        count!(self.pings);
        self.own(id, Boundary::Message, |out| sse::write_ping(out, cursor_us));
    }

    /// A client has sent something into its stream.
    pub(super) fn ignore_input(&mut self, id: ConnectionId, bytes: usize) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Inbox::Ignored(ignored) = &mut connection.inbox else { return };
        *ignored = ignored.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if *ignored > INPUT_BYTES_MAX {
            let reason = "this stream takes no input";
            self.close_with(id, CloseCode::POLICY_VIOLATION, reason, Ending::Policy);
        }
    }

    /// Tells a stream to come back later, behind all that its lane holds for it: who comes back at
    /// once, as a page may, has had it.
    pub(super) fn send_away(&mut self, id: ConnectionId, reconnect_after_ms: u64) {
        self.owe_all(id);
        self.own(id, Boundary::Message, |out| {
            sse::write_retry(out, reconnect_after_ms);
            let mut message = Vec::new();
            reply::write_goaway(&mut message, reconnect_after_ms);
            sse::write_event(out, Some("goaway"), None, &message);
        });
    }
}

/// The last words of a stream that ends. Who was sent away knows already.
pub(super) fn write_end(out: &mut Vec<u8>, code: Option<CloseCode>, reason: &str) {
    let code = match code {
        None | Some(CloseCode::GOING_AWAY) => return,
        Some(CloseCode::TRY_AGAIN_LATER) => ErrorCode::Busy,
        Some(_) => ErrorCode::BadRequest,
    };
    let mut message = Vec::new();
    reply::write_error(&mut message, None, code, reason);
    sse::write_event(out, Some("error"), None, &message);
}
