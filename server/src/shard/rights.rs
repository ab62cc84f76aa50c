//! Who a connection is from, and what it may therefore do.
//!
//! Knows: trusted proxies, origins, limits by address, the addresses in topics' rules. Must not know: paths, or how a refusal is
//! answered.

use std::net::{IpAddr, SocketAddr};

use uringcast_protocol::{
    forwarded::Client, handshake::Request, refusal::Refusal, topic_name::Pattern,
};
use uringcast_ring::Io;

use super::{Shard, origin};
use crate::{conn::Flags, ids::ConnectionId, rules::TopicRule};

impl<I: Io> Shard<I> {
    /// Whether a proxy at this address is believed.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.settings.trust_proxy.iter().any(|net| net.contains(&address))
    }

    /// Finds out whom a request is from, by the word of the proxy if it came from a trusted one.
    /// Returns whether the client may be given rights for its address.
    ///
    /// # Errors
    /// The client has as many connections as it may.
    pub(super) fn find_client(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> Result<bool, Refusal> {
        let Some(connection) = self.connections.find_mut(id) else { return Ok(false) };
        if connection.flags.has(Flags::PUBLISH_PORT) {
            return Ok(false);
        }
        let hop = connection.hop();
        let through_line = connection.flags.has(Flags::PROXY_LINE);
        if !connection.flags.has(Flags::TRUSTED_HOP) {
            // A header that anybody may have written says nothing of the client, but that the
            // connection may be somebody else's.
            let loopback = through_line && hop.ip().is_loopback();
            return Ok(!(request.forwarded || loopback));
        }
        let named = request.client(self.settings.proxy_header, |address| self.trusts(address));
        let client = match named {
            Client::Address(client) => client,
            Client::Hidden(nearest) => nearest.unwrap_or(hop),
            Client::Unnamed => hop,
        };
        let is_named = matches!(named, Client::Address(_));
        if let Some(connection) = self.connections.find_mut(id) {
            if client != hop {
                // The next request on this connection may be somebody else's.
                connection.heading_mut().hop = hop;
            }
            if is_named {
                connection.flags.set(Flags::NAMED);
            }
        }
        self.admit(id, client)?;
        // A proxy that names nobody has no rights to give; and nobody comes from this host's
        // loopback through another.
        Ok(is_named && !client.ip().is_loopback())
    }

    /// The connection is from this client; it counts among those of its address.
    ///
    /// # Errors
    /// The client has as many connections as it may.
    pub(super) fn admit(&mut self, id: ConnectionId, client: SocketAddr) -> Result<(), Refusal> {
        let Some(connection) = self.connections.find_mut(id) else { return Ok(()) };
        let before = std::mem::replace(&mut connection.peer, client);
        if !self.addresses.are_counted() || connection.flags.has(Flags::PUBLISH_PORT) {
            return Ok(());
        }
        if connection.flags.clear(Flags::COUNTED) {
            self.addresses.remove(before.ip());
        }
        if self.addresses.add(client.ip()) {
            connection.flags.set(Flags::COUNTED);
            Ok(())
        } else {
            Err(Refusal::AddressFull)
        }
    }

    /// The connection is gone.
    pub(super) fn dismiss(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id)
            && connection.flags.has(Flags::COUNTED)
        {
            self.addresses.remove(connection.peer.ip());
        }
    }

    /// Behind a proxy every client looks like loopback, and any page in a browser on this host can
    /// reach it: so neither has the publish port's rights.
    pub(super) fn check_rights(
        &self,
        request: &Request<'_>,
        publish_port: bool,
    ) -> Result<(), Refusal> {
        if publish_port {
            return match (request.origin, request.forwarded) {
                (Some(_), _) => Err(Refusal::OriginForbidden),
                (None, true) => Err(Refusal::Forbidden),
                (None, false) => Ok(()),
            };
        }
        match request.origin {
            Some(page) if !origin::is_allowed(page, request.host, &self.settings.allow_origin) => {
                Err(Refusal::OriginForbidden)
            }
            _ => Ok(()),
        }
    }

    /// Whether a client of the data port, known by its address, may publish.
    pub(super) fn may_publish(&self, id: ConnectionId, request: &Request<'_>) -> bool {
        let Some(connection) = self.connections.find(id) else { return false };
        let address = connection.peer.ip();
        request.origin.is_none()
            && self.settings.publish_from.iter().any(|net| net.contains(&address))
    }

    /// Whether a client may publish to the topics of a rule, if it may publish at all.
    pub(super) fn may_publish_to(&self, id: ConnectionId, rule: &TopicRule) -> bool {
        rule.publish_from.is_empty()
            || self.connections.find(id).is_some_and(|c| rule.may_publish(c.peer.ip()))
    }

    /// Whether this client may subscribe to all that a pattern can match.
    pub(super) fn may_subscribe(&self, id: ConnectionId, pattern: &Pattern) -> bool {
        let Some(connection) = self.connections.find(id) else { return false };
        let from = connection.peer.ip();
        if pattern.is_exact() {
            return self.rule_of(pattern.as_str()).may_subscribe(from);
        }
        let mut rules = self.settings.rules.iter();
        rules.all(|rule| rule.may_subscribe(from) || !rule.pattern.overlaps(pattern))
    }
}
