//! Plain HTTP: answers that are no upgrade, and whether another request may follow.
//!
//! Knows: how an answer is put, counted and followed. Must not know: why a request is refused, or
//! what it asked for.

use uringcast_protocol::{
    handshake::Request,
    refusal::{Manner, Refusal},
    response::Response,
};
use uringcast_ring::Io;

use super::{Shard, count};
use crate::{
    conn::{Flags, Inbox, Phase, Role},
    ids::ConnectionId,
    shared::Stage,
};

/// Requests on one connection, at most: now and then it is to be balanced anew.
const REQUESTS_MAX: u32 = 1_000;

impl<I: Io> Shard<I> {
    /// Whether another request may follow this one on its connection. Not if the bytes behind it could
    /// be taken for something else than they are.
    fn may_stay(&self, id: ConnectionId, request: &Request<'_>) -> bool {
        let requests = match self.connections.find(id).map(|connection| &connection.inbox) {
            Some(Inbox::Head(heading)) => heading.requests,
            _ => 0,
        };
        request.keep_alive
            && !request.has_body()
            && !request.means_upgrade()
            && requests + 1 < REQUESTS_MAX
            && self.shared.stage() < Stage::Draining
    }

    /// Answers 200.
    pub(super) fn answer_ok(&mut self, id: ConnectionId, request: &Request<'_>, body: &[u8]) {
        count!(self.handshakes_plain);
        let stays = self.may_stay(id, request);
        let mut bytes = std::mem::take(&mut self.scratch.answer);
        let answer = Response {
            status: 200,
            headers: &self.settings.http.headers,
            content_type: "text/plain; charset=utf-8",
            body,
            keep_alive: stays,
            head_only: request.method == "HEAD",
        };
        answer.write(&mut bytes);
        self.answer_plain(id, stays, bytes);
    }

    /// Answers that a whole request is refused.
    pub(super) fn refuse_request(
        &mut self,
        id: ConnectionId,
        refusal: Refusal,
        request: &Request<'_>,
    ) {
        // Who has too many connections is not left with one more.
        let stays = refusal != Refusal::AddressFull && self.may_stay(id, request);
        self.answer_refusal(id, refusal, stays, request.method == "HEAD");
    }

    /// Answers that a connection, or what is no request, is refused, and closes.
    pub(super) fn refuse(&mut self, id: ConnectionId, refusal: Refusal) {
        self.answer_refusal(id, refusal, false, false);
    }

    fn answer_refusal(&mut self, id: ConnectionId, refusal: Refusal, stays: bool, head_only: bool) {
        match refusal.status() {
            403 => count!(self.handshakes_forbidden),
            404 => count!(self.handshakes_not_found),
            405 => count!(self.handshakes_method),
            408 => count!(self.handshakes_timeout),
            426 => count!(self.handshakes_version),
            429 => count!(self.handshakes_too_many),
            431 => {
                count!(self.handshakes_too_large);
                // There is more to come of it, to be thrown away.
                if let Some(connection) = self.connections.find_mut(id) {
                    connection.flags.set(Flags::OFFENDED);
                }
            }
            503 => count!(self.handshakes_busy),
            505 => count!(self.handshakes_version_http),
            _ => count!(self.handshakes_bad_request),
        }
        if let Some(connection) = self.connections.find(id) {
            tracing::debug!(peer = %connection.peer, reason = refusal.as_str(), "refused");
        }
        let mut bytes = std::mem::take(&mut self.scratch.answer);
        let manner = Manner {
            headers: &self.settings.http.headers,
            page: self.settings.http.page(refusal.status()),
            keep_alive: stays,
            head_only,
        };
        refusal.respond_as(&mut bytes, &manner);
        self.answer_plain(id, stays, bytes);
    }

    /// Ends a connection that is not upgraded, without a word more than what is on its way.
    pub(super) fn leave(&mut self, id: ConnectionId) {
        self.answer_plain(id, false, Vec::new());
    }

    /// `bytes` is the scratch memory, with the answer in it.
    fn answer_plain(&mut self, id: ConnectionId, stays: bool, mut bytes: Vec<u8>) {
        let now_ns = self.now.ns;
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.role = Role::Http;
        if stays {
            let heading = connection.heading_mut();
            heading.requests += 1;
            heading.since_ns = now_ns;
        } else {
            connection.phase = Phase::Closing;
            connection.inbox = Inbox::None;
            self.closings.start(now_ns, id);
        }
        self.own_bytes(id, |out| out.extend_from_slice(&bytes));
        bytes.clear();
        self.scratch.answer = bytes;
    }
}
