//! The opening handshake: from a new connection to its role.
//!
//! Knows: paths and what they ask for. Must not know: how heads are parsed, who may do what, or how
//! answers look.

use std::net::SocketAddr;

use uringcast_protocol::{
    deflate::{self, Policy},
    handshake::{self, Request, Switching},
    opcode::{CloseCode, Opcode},
    refusal::Refusal,
    reply,
    topic_name::{Pattern, validate_name},
    writer,
};
use uringcast_ring::{AcceptFailure, Io, ListenerId, Operation, Slot};

use super::{
    DATA_LISTENER, PUBLISH_LISTENER, Shard, close::Ending, count, seats::Refused,
    sse::StreamOptions,
};
use crate::{
    conn::{Connection, FixedTopic, Flags, Inbox, Phase, Publishing, Role},
    ids::ConnectionId,
    publication::Body,
    settings::ProxyProtocol,
    shared::Stage,
    topics::log::Boundary,
};

/// Accepts that failed for want of something are tried again after this.
const ACCEPT_RETRY_NS: u64 = 100_000_000;
/// The subprotocols of `/ws`, the one preferred first. A client that offers none, or others only, is
/// served without; it may refuse that (RFC 6455 section 4.1).
const JSON_SUBPROTOCOLS: [&str; 1] = ["uringcast.v1.json"];
/// The shortest interval between heartbeats that a client may ask for, ms.
const HEARTBEAT_MS_MIN: u32 = 100;
/// The longest.
const HEARTBEAT_MS_MAX: u32 = 3_600_000;

/// What a request asks for.
enum Route {
    Echo,
    Health,
    Json(JsonOptions),
    Publish { topic: Option<Box<str>>, ack: bool },
    Raw(Pattern),
    Sse(StreamOptions),
}

#[derive(Default)]
struct JsonOptions {
    topics: Vec<String>,
    hello: bool,
    heartbeat_ms: Option<u32>,
}

impl<I: Io> Shard<I> {
    pub(super) fn accepted(&mut self, listener: ListenerId, slot: Slot, peer: SocketAddr) {
        count!(self.accepted);
        let full = self.connections.len() >= self.settings.connections_max as usize;
        let publish_port = listener == PUBLISH_LISTENER;
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let id = self.connections.insert(Connection::new(slot, peer, publish_port));
        self.receive_first(id);
        self.handshakes.start(self.now.ns, id);
        let admitted = self.meet(id, peer, publish_port);
        if full {
            count!(self.refused_limit);
            self.refuse(id, Refusal::ConnectionsFull);
        } else if self.drain.is_some() || self.shared.stage() >= Stage::Draining {
            self.refuse(id, Refusal::Draining);
        } else if let Err(refusal) = admitted {
            self.refuse(id, refusal);
        }
    }

    /// Whom a new connection is from: a client, or a proxy that is to say so.
    fn meet(
        &mut self,
        id: ConnectionId,
        peer: SocketAddr,
        publish_port: bool,
    ) -> Result<(), Refusal> {
        if publish_port || !self.trusts(peer.ip()) {
            return self.admit(id, peer);
        }
        if let Some(connection) = self.connections.find_mut(id) {
            connection.flags.set(Flags::TRUSTED_HOP);
            if self.settings.proxy_protocol != ProxyProtocol::Off {
                connection.flags.set(Flags::PROXY_LINE_DUE);
            }
        }
        Ok(())
    }

    pub(super) fn accept_failed(&mut self, listener: ListenerId, failure: AcceptFailure) {
        match failure {
            AcceptFailure::Peer(_) => count!(self.accept_peer),
            AcceptFailure::Stopped => {}
            AcceptFailure::TableFull => {
                count!(self.accept_table_full);
                self.pause_accepts(listener);
            }
            AcceptFailure::System(errno) => {
                count!(self.accept_system);
                tracing::warn!(?errno, "accept failed");
                self.pause_accepts(listener);
            }
        }
    }

    /// Until a slot is freed, or a while has passed.
    fn pause_accepts(&mut self, listener: ListenerId) {
        self.accepts_stopped[usize::from(listener.0 & 1)] = true;
        self.accepts_look_ns = self.now.ns + ACCEPT_RETRY_NS;
    }

    /// Accepts again after a failure; called when a slot was freed, and by a timer.
    pub(super) fn resume_accepts(&mut self) {
        for listener in [DATA_LISTENER, PUBLISH_LISTENER] {
            if std::mem::take(&mut self.accepts_stopped[usize::from(listener.0)]) {
                self.io.resume_accepts(listener);
            }
        }
    }

    /// A whole request.
    pub(super) fn requested(&mut self, id: ConnectionId, request: &Request<'_>) {
        let Some(connection) = self.connections.find(id) else { return };
        let publish_port = connection.flags.has(Flags::PUBLISH_PORT);
        let outcome = self.find_client(id, request).and_then(|known| {
            let route = self.route(request, publish_port)?;
            if let Route::Health = route {
                return Ok((route, None, known));
            }
            if let Route::Sse(_) = route {
                self.check_rights(request, publish_port)?;
                self.check_rule(id, &route)?;
                return Ok((route, None, known));
            }
            let upgrade = request.upgrade()?;
            self.check_rights(request, publish_port)?;
            self.check_rule(id, &route)?;
            Ok((route, Some(upgrade), known))
        });
        let (route, upgrade, known) = match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => return self.refuse_request(id, refusal, request),
        };
        let Some(upgrade) = upgrade else {
            return match route {
                Route::Sse(options) => self.begin_stream(id, request, &options),
                _ => self.answer_ok(id, request, b"ok\n"),
            };
        };
        count!(self.handshakes);
        let protocols: &[_] = if let Route::Json(_) = route { &JSON_SUBPROTOCOLS } else { &[] };
        let protocol = handshake::choose_protocol(protocols, upgrade.protocols);
        let may_publish = known && self.may_publish(id, request);
        let offers = if self.settings.deflate { upgrade.extensions } else { &[] };
        let agreement = deflate::agree(offers, &Policy::default());
        let extensions = agreement.map(|agreement| agreement.to_string());
        if let Some(connection) = self.connections.find_mut(id) {
            tracing::debug!(peer = %connection.peer, path = &*request.path, "upgraded");
            connection.phase = Phase::Open;
            connection.inbox = Inbox::None;
            connection.window_bits = agreement.map_or(0, |agreement| agreement.server_window_bits);
            if may_publish {
                connection.flags.set(Flags::MAY_PUBLISH);
            }
        }
        let headers = &self.settings.http.headers;
        let extensions = extensions.as_deref();
        let answer = Switching { key: upgrade.key, protocol, extensions, headers };
        let mut bytes = std::mem::take(&mut self.scratch.answer);
        handshake::write_switching(&mut bytes, &answer);
        self.own(id, Boundary::Message, |out| out.extend_from_slice(&bytes));
        bytes.clear();
        self.scratch.answer = bytes;
        self.take_role(id, route);
    }

    fn route(&self, request: &Request<'_>, publish_port: bool) -> Result<Route, Refusal> {
        let path = &*request.path;
        if path == "/healthz" && !publish_port {
            let plain = matches!(request.method, "GET" | "HEAD") && !request.wants_upgrade;
            return if plain { Ok(Route::Health) } else { Err(Refusal::MethodNotAllowed) };
        }
        if publish_port {
            let ack = request.query().any(|(key, value)| key == "ack" && value == "1");
            return match path.strip_prefix("/publish") {
                Some("") => Ok(Route::Publish { topic: None, ack }),
                Some(rest) => {
                    let name = rest.strip_prefix('/').ok_or(Refusal::NotFound)?;
                    validate_name(name).map_err(|_| Refusal::TopicInvalid)?;
                    Ok(Route::Publish { topic: Some(name.into()), ack })
                }
                None => Err(Refusal::NotFound),
            };
        }
        if path == "/ws" {
            return self.json_options(request).map(Route::Json);
        }
        if path == "/sse" {
            return self.stream_options(request).map(Route::Sse);
        }
        if path == "/echo" && self.settings.echo {
            return Ok(Route::Echo);
        }
        let topic = path.strip_prefix("/raw/").ok_or(Refusal::NotFound)?;
        Pattern::parse(topic).map(Route::Raw).map_err(|_| Refusal::TopicInvalid)
    }

    /// What a topic's rule says of this client, where the path names the topic: decided once.
    fn check_rule(&self, id: ConnectionId, route: &Route) -> Result<(), Refusal> {
        let allowed = match route {
            Route::Publish { topic: Some(name), .. } => self.may_publish_to(id, self.rule_of(name)),
            Route::Raw(pattern) => self.may_subscribe(id, pattern),
            Route::Sse(options) => self.may_subscribe_any(id, options),
            Route::Echo | Route::Health | Route::Json(_) | Route::Publish { topic: None, .. } => {
                true
            }
        };
        if allowed { Ok(()) } else { Err(Refusal::Forbidden) }
    }

    fn json_options(&self, request: &Request<'_>) -> Result<JsonOptions, Refusal> {
        let mut options = JsonOptions::default();
        for (key, value) in request.query() {
            match &*key {
                "topics" => {
                    let topics = value.split(',').filter(|topic| !topic.is_empty());
                    options.topics.extend(topics.map(str::to_owned));
                }
                "hello" => options.hello = value == "1",
                "heartbeat_ms" => {
                    let every = value.parse().map_err(|_| Refusal::QueryInvalid)?;
                    if !(HEARTBEAT_MS_MIN..=HEARTBEAT_MS_MAX).contains(&every) {
                        return Err(Refusal::QueryInvalid);
                    }
                    options.heartbeat_ms = Some(every);
                }
                // `token` is reserved; others are the client's own (cache busters and the like).
                _ => {}
            }
        }
        if options.topics.len() > self.settings.subscriptions_max as usize {
            return Err(Refusal::QueryInvalid);
        }
        Ok(options)
    }

    fn take_role(&mut self, id: ConnectionId, route: Route) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        match route {
            Route::Echo => connection.role = Role::Echo,
            Route::Health | Route::Sse(_) => {}
            Route::Json(options) => {
                connection.role = Role::Json;
                self.greet(id, &options);
            }
            Route::Publish { topic, ack } => {
                connection.role = Role::Publisher;
                let fixed = topic.map(|name| {
                    let hash = self.topics.names.hash(&name);
                    let content = self.rule_at(&name, hash).content;
                    FixedTopic { name, hash, content }
                });
                self.take_publisher(id, fixed, ack);
            }
            Route::Raw(pattern) => {
                connection.role = Role::Raw;
                if self.subscribe_raw(id, &pattern).is_err() {
                    self.close_with(id, CloseCode::TRY_AGAIN_LATER, "limit", Ending::Policy);
                }
            }
        }
    }

    fn take_publisher(&mut self, id: ConnectionId, topic: Option<FixedTopic>, ack: bool) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        count!(self.publishers);
        connection.inbox = Inbox::Publisher(Box::new(Publishing {
            session: connection.session(u64::from(self.settings.publish_bytes_max)),
            topic,
            ack,
            draft: None,
            draft_bytes: 0,
            lines: Vec::new(),
        }));
        // Publishers speak all the time: from poll to a receive that stays armed. It is armed when
        // the poll has ended.
        if connection.flags.has(Flags::POLL_ARMED) {
            self.io.cancel(Operation::PollReadable, Self::token(id));
        } else {
            self.resume_reading(id);
        }
    }

    fn greet(&mut self, id: ConnectionId, options: &JsonOptions) {
        let ts_us = self.now.utc_us;
        if options.hello {
            let connection = self.connection_name(id);
            let hello = reply::Hello {
                connection: &connection,
                ts_us,
                ping_interval_ms: self.settings.ping_interval.as_millis() as u64,
                message_bytes_max: u64::from(self.settings.message_bytes_max),
                subscriptions_max: u64::from(self.settings.subscriptions_max),
                topics_per_command_max: uringcast_protocol::limits::TOPICS_PER_COMMAND_MAX as u64,
            };
            let mut message = Vec::new();
            reply::write_hello(&mut message, &hello);
            self.own(id, Boundary::Message, |out| {
                writer::write_message(out, Opcode::Text, &message, None);
            });
        }
        if let Some(every_ms) = options.heartbeat_ms {
            self.heartbeats.start(self.now.ns + u64::from(every_ms) * 1_000_000, id, every_ms);
        }
        if !options.topics.is_empty() {
            let topics: Vec<_> = options.topics.iter().map(|topic| topic.as_str().into()).collect();
            self.subscribe(id, None, &topics, false);
        }
    }

    fn subscribe_raw(&mut self, id: ConnectionId, pattern: &Pattern) -> Result<(), Refused> {
        let entry = self.topics.entry_for(pattern, 0).map_err(|_| Refused::Limit)?;
        let seated = self.change_seat(id, &[entry], Body::Raw, |_| {});
        self.topics.names.release(entry);
        seated
    }

    /// A connection's name in `hello` and reports.
    pub(super) fn connection_name(&self, id: ConnectionId) -> String {
        format!("{:x}-{:x}-{:x}", self.index, id.index, id.generation)
    }
}
