//! Bytes of requests: the PROXY line before the first, then one head after the other, until one of
//! them is an upgrade or the last.
//!
//! Knows: what of the bytes is whom to tell, and how long a head may take. Must not know: what a
//! request asks for.
//!
//! Nothing is lost and nothing is smuggled: what stands behind an upgrade's head is handed over to the
//! WebSocket, once and whole; what stands behind a refusal that closes is thrown away unread; and
//! nothing that has a body is followed by another request.

use std::{mem, net::SocketAddr};

use uringcast_protocol::{
    handshake,
    proxy_line::{self, ProxyLineError},
    refusal::Refusal,
};
use uringcast_ring::Io;

use super::Shard;
use crate::{
    conn::{Flags, Inbox, Phase},
    ids::ConnectionId,
    settings::ProxyProtocol,
};

impl<I: Io> Shard<I> {
    /// Bytes of a connection that is not upgraded.
    pub(super) fn receive_heads(&mut self, id: ConnectionId, data: &[u8]) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let mut kept = match &mut connection.inbox {
            Inbox::Head(heading) => mem::take(&mut heading.bytes),
            _ => Vec::new(),
        };
        if kept.is_empty() {
            let used = self.read_heads(id, data);
            self.hand_over(id, &data[used..]);
        } else {
            kept.extend_from_slice(data);
            let used = self.read_heads(id, &kept);
            self.hand_over(id, &kept[used..]);
        }
    }

    /// Goes on with requests that were put off, because their answers were not taken.
    pub(super) fn resume_heads(&mut self, id: ConnectionId) {
        let waiting = self.connections.find(id).is_some_and(|connection| {
            matches!(&connection.inbox, Inbox::Head(heading) if !heading.bytes.is_empty())
        });
        if waiting {
            self.receive_heads(id, &[]);
        }
    }

    /// What was not read of the bytes: more of it is to come, or it is the WebSocket's, or nobody's.
    fn hand_over(&mut self, id: ConnectionId, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let Some(connection) = self.connections.find_mut(id) else { return };
        match connection.phase {
            Phase::Handshake => connection.heading_mut().bytes.extend_from_slice(rest),
            Phase::Open => self.take_frames(id, rest),
            Phase::Closing | Phase::Ending => {}
        }
    }

    /// Acts on every whole head; returns how many bytes these were.
    fn read_heads(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        let Some(mut at) = self.read_proxy_line(id, bytes) else { return 0 };
        while let Some(connection) = self.connections.find(id) {
            if connection.phase != Phase::Handshake || connection.stops_reading() {
                break;
            }
            let rest = &bytes[at..];
            match handshake::parse(rest) {
                Ok(Some(request)) => {
                    at += request.head_bytes;
                    self.requested(id, &request);
                }
                Ok(None) => break,
                Err(Refusal::HeadInvalid) if at == 0 && proxy_line::is_begun(rest) => {
                    self.refuse(id, Refusal::ProxyLineUntrusted);
                }
                Err(refusal) => self.refuse(id, refusal),
            }
        }
        at
    }

    /// The PROXY line's length, 0 if none is due. `None`: more is needed, or it is wrong.
    fn read_proxy_line(&mut self, id: ConnectionId, bytes: &[u8]) -> Option<usize> {
        let connection = self.connections.find_mut(id)?;
        if !connection.flags.has(Flags::PROXY_LINE_DUE) {
            return Some(0);
        }
        let line = match proxy_line::parse(bytes) {
            Ok(line) => line?,
            Err(ProxyLineError::Absent)
                if self.settings.proxy_protocol == ProxyProtocol::Optional =>
            {
                connection.flags.clear(Flags::PROXY_LINE_DUE);
                return Some(0);
            }
            Err(ProxyLineError::Absent) => {
                self.refuse(id, Refusal::ProxyLineMissing);
                return None;
            }
            Err(error) => {
                tracing::debug!(peer = %connection.peer, %error, "a PROXY line");
                self.refuse(id, Refusal::ProxyLineInvalid);
                return None;
            }
        };
        connection.flags.clear(Flags::PROXY_LINE_DUE);
        connection.flags.set(Flags::PROXY_LINE);
        if let Some(source) = line.source
            && let Err(refusal) = self.comes_from(id, source)
        {
            self.refuse(id, refusal);
            return None;
        }
        Some(line.bytes)
    }

    /// A PROXY line said so. The source may be a proxy as well, and is then believed as such.
    fn comes_from(&mut self, id: ConnectionId, source: SocketAddr) -> Result<(), Refusal> {
        let trusted = self.trusts(source.ip());
        let Some(connection) = self.connections.find_mut(id) else { return Ok(()) };
        connection.flags.set(Flags::NAMED);
        if let Inbox::Head(heading) = &mut connection.inbox {
            heading.hop = source;
        }
        if trusted {
            connection.peer = source;
            return Ok(());
        }
        connection.flags.clear(Flags::TRUSTED_HOP);
        self.admit(id, source)
    }

    /// A connection's time for a head may be over.
    pub(super) fn head_is_due(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        if connection.phase != Phase::Handshake {
            return;
        }
        if let Inbox::Head(heading) = &connection.inbox
            && heading.requests > 0
        {
            let due_ns = heading.since_ns + self.handshakes.wait_ns();
            if due_ns > self.now.ns {
                return self.idles.start(due_ns, id, 0);
            }
            if heading.bytes.is_empty() || connection.has_own() {
                // It may just be sending its next request, and would take a 408 for the answer.
                return self.leave(id);
            }
        }
        self.refuse(id, Refusal::Timeout);
    }
}
