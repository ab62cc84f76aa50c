//! The JSON protocol of `/ws`: what each command does.
//!
//! Knows: commands and their answers. Must not know: frames, lanes' logs.

use std::borrow::Cow;

use uringcast_protocol::{
    command::{self, Command, CommandError, ErrorCode, Id, Publish, Subscribe},
    opcode::{CloseCode, Opcode},
    publish::Data,
    reply::{self, Recovered, Terms, TopicAck},
    topic_name::Pattern,
    writer,
};
use uringcast_ring::Io;

use super::{Shard, close::Ending, count, publish::PendingAck, resume::Wish, seats::Refused};
use crate::{
    conn::{Flags, Role},
    ids::{ConnectionId, EntryId},
    mail::{Ingest, Origin, Publisher},
    payload,
    publication::{self, Body},
    rules::Kind,
    topics::{log::Boundary, sweep::Need},
};

/// With so much own output a client's commands with long answers are refused until it has read.
const OWN_BYTES_BUSY: usize = 256 << 10;

/// Names compared with new patterns in one tick, about 70 ns each.
const COMPARISONS_PER_TICK: usize = 100_000;

impl<I: Io> Shard<I> {
    pub(super) fn command(&mut self, id: ConnectionId, message: &[u8]) {
        match command::parse(message) {
            Ok(Command::Auth { id: request }) => {
                self.fail(id, request, ErrorCode::Forbidden, "tokens are not in use here");
            }
            Ok(Command::List { id: request }) => self.list(id, request),
            Ok(Command::Ping { id: request }) => {
                let ts_us = self.now.utc_us;
                self.reply(id, |out| reply::write_pong(out, request.as_ref(), ts_us));
            }
            Ok(Command::Publish(publish)) => self.publish_command(id, publish),
            Ok(Command::Subscribe(subscribe)) => self.subscribe_command(id, subscribe),
            Ok(Command::Update { id: request, topics, .. }) => {
                self.update(id, request, &topics);
            }
            Ok(Command::Unsubscribe { id: request, topics }) => {
                self.unsubscribe(id, request, &topics);
            }
            Err(CommandError { id: request, code, message }) => {
                count!(self.offence_command);
                self.fail(id, request, code, message);
            }
        }
    }

    /// An answer, as a message of its own.
    fn reply(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        self.notify(id, "answer", write);
    }

    fn fail(&mut self, id: ConnectionId, request: Option<Id>, code: ErrorCode, message: &str) {
        self.notify(id, "error", |out| {
            reply::write_error(out, request.as_ref(), code, message);
        });
    }

    fn subscribe_command(&mut self, id: ConnectionId, subscribe: Subscribe<'_>) {
        let Subscribe { id: request, topics, snapshot, resume, resume_from_us, .. } = subscribe;
        let wish = Wish { snapshot, resume, resume_from_us, ..Wish::default() };
        self.subscribe_with(id, request, &topics, &wish);
    }

    /// Subscribes to topics and patterns, one by one, and answers for each.
    pub(super) fn subscribe(
        &mut self,
        id: ConnectionId,
        request: Option<Id>,
        topics: &[Cow<'_, str>],
        snapshot: bool,
    ) {
        let wish = Wish { snapshot, ..Wish::default() };
        self.subscribe_with(id, request, topics, &wish);
    }

    /// Returns why some of them are not subscribed to, an error that may pass first.
    pub(super) fn subscribe_with(
        &mut self,
        id: ConnectionId,
        request: Option<Id>,
        topics: &[Cow<'_, str>],
        wish: &Wish<'_>,
    ) -> Option<ErrorCode> {
        let body = self.connections.find(id)?.role.body();
        if self.is_flooded(id) {
            self.refuse_command(id, request, Refused::Busy);
            return Some(ErrorCode::Busy);
        }
        let mut entries = self.entries_of(id);
        let before = entries.clone();
        let mut acks = Vec::with_capacity(topics.len());
        let mut starts = Vec::new();
        for topic in topics {
            let outcome = self.add_entry(id, &mut entries, topic);
            let outcome = outcome.map(|pattern| {
                let recovered = self.starts(&pattern, wish, &mut starts);
                self.terms(&pattern, recovered)
            });
            acks.push(TopicAck { topic: topic.as_ref(), outcome });
        }
        // Of a topic that several of them match: where most is sent, and messages before a snapshot.
        starts
            .sort_unstable_by_key(|start| (start.topic, start.need == Need::Snapshot, start.next));
        starts.dedup_by_key(|start| start.topic);
        let mut answer = Vec::new();
        let failed =
            acks.iter().filter_map(|ack| ack.outcome.err()).max_by_key(|code| code.retry());
        reply::write_subscribed(&mut answer, request.as_ref(), acks);
        let write =
            |out: &mut Vec<u8>| body.write_answer(out, "subscribed", wish.cursor_us, &answer);
        let seated = if !starts.is_empty() {
            self.seat_behind(id, &entries, body, &starts, write)
        } else if entries != before {
            self.change_seat(id, &entries, body, write)
        } else {
            self.own(id, Boundary::Message, write);
            Ok(())
        };
        // Entries that no lane took are given back.
        for &entry in &entries {
            self.topics.names.release(entry);
        }
        if let Err(refused) = seated {
            self.refuse_command(id, request, refused);
            return Some(match refused {
                Refused::Busy => ErrorCode::Busy,
                Refused::Limit => ErrorCode::Limit,
            });
        }
        failed
    }

    fn refuse_command(&mut self, id: ConnectionId, request: Option<Id>, refused: Refused) {
        match refused {
            Refused::Busy => {
                self.fail(id, request, ErrorCode::Busy, "catching up; try again in a moment");
            }
            Refused::Limit => self.fail(id, request, ErrorCode::Limit, "too many interests"),
        }
    }

    fn add_entry(
        &mut self,
        id: ConnectionId,
        entries: &mut Vec<EntryId>,
        topic: &str,
    ) -> Result<Pattern, ErrorCode> {
        let pattern = Pattern::parse(topic).map_err(|_| ErrorCode::TopicInvalid)?;
        if !self.may_subscribe(id, &pattern) {
            return Err(ErrorCode::Forbidden);
        }
        if !pattern.is_exact() && self.topics.names.entry_of(pattern.as_str()).is_none() {
            // A new pattern is compared with every topic. One is always taken; of more, a tick takes
            // so many that the others on this core do not feel it.
            let cost = self.topics.names.topics_count();
            if self.comparisons > 0 && self.comparisons + cost > COMPARISONS_PER_TICK {
                return Err(ErrorCode::Busy);
            }
            self.comparisons += cost;
        }
        let entry = self.topics.entry_for(&pattern).map_err(|_| ErrorCode::Limit)?;
        if let Err(at) = entries.binary_search(&entry) {
            if entries.len() >= self.settings.subscriptions_max as usize {
                self.topics.names.release(entry);
                return Err(ErrorCode::Limit);
            }
            entries.insert(at, entry);
        }
        Ok(pattern)
    }

    pub(super) fn terms(&self, pattern: &Pattern, recovered: Option<Recovered>) -> Terms {
        let mut terms = Terms { recovered, ..Terms::default() };
        if pattern.is_exact() {
            let name = pattern.as_str();
            let hash = self.topics.names.hash(name);
            let topic = self.topics.names.find(name, hash).map(|id| self.topics.names.topic(id));
            terms.kind = Some(
                topic.map_or_else(|| self.rule_of(name).kind.name(), |topic| topic.kind.name()),
            );
            terms.epoch = topic.map(|topic| topic.epoch);
            terms.seq = topic.map(|topic| topic.seq);
        } else {
            terms.kind = self.kind_of_all(pattern).map(Kind::name);
        }
        terms
    }

    /// The kind of whatever a pattern matches, where that is one and the same.
    fn kind_of_all(&self, pattern: &Pattern) -> Option<Kind> {
        let mut rules = self.settings.rules.iter();
        let first = rules.next()?.kind;
        // A rule for this very pattern, and before it none of another kind; or all alike.
        let mut kinds = self.settings.rules.iter().take_while(|rule| rule.kind == first);
        let same = kinds.any(|rule| rule.pattern == *pattern) || rules.all(|r| r.kind == first);
        same.then_some(first)
    }

    fn entries_of(&self, id: ConnectionId) -> Vec<EntryId> {
        self.connections
            .find(id)
            .and_then(|connection| connection.seat)
            .map_or_else(Vec::new, |seat| {
                self.topics.lane(seat.lane).interest.iter().map(|m| m.entry).collect()
            })
    }

    fn unsubscribe(&mut self, id: ConnectionId, request: Option<Id>, topics: &[Cow<'_, str>]) {
        let mut entries = self.entries_of(id);
        let before = entries.len();
        let mut acks = Vec::with_capacity(topics.len());
        for topic in topics {
            let at = self
                .topics
                .names
                .entry_of(topic)
                .and_then(|entry| entries.binary_search(&entry).ok());
            let outcome = match at {
                Some(at) => {
                    entries.remove(at);
                    Ok(Terms::default())
                }
                None if Pattern::parse(topic).is_err() => Err(ErrorCode::TopicInvalid),
                None => Err(ErrorCode::NotSubscribed),
            };
            acks.push(TopicAck { topic: topic.as_ref(), outcome });
        }
        let mut answer = Vec::new();
        reply::write_unsubscribed(&mut answer, request.as_ref(), acks);
        let seated = if entries.len() == before {
            self.own(id, Boundary::Message, |out| write_answer(out, &answer));
            Ok(())
        } else {
            self.change_seat(id, &entries, Body::Json, |out| write_answer(out, &answer))
        };
        if let Err(refused) = seated {
            self.refuse_command(id, request, refused);
        }
    }

    /// Answers on which terms a client's subscriptions go on.
    fn update(&mut self, id: ConnectionId, request: Option<Id>, topics: &[Cow<'_, str>]) {
        let entries = self.entries_of(id);
        let mut acks = Vec::with_capacity(topics.len());
        for topic in topics {
            let entry = self.topics.names.entry_of(topic);
            let subscribed = entry.is_some_and(|entry| entries.binary_search(&entry).is_ok());
            let outcome = match Pattern::parse(topic) {
                Err(_) => Err(ErrorCode::TopicInvalid),
                Ok(_) if !subscribed => Err(ErrorCode::NotSubscribed),
                Ok(pattern) => Ok(self.terms(&pattern, None)),
            };
            acks.push(TopicAck { topic: topic.as_ref(), outcome });
        }
        self.reply(id, |out| reply::write_updated(out, request.as_ref(), acks));
    }

    /// Whether a client asks for more than it reads. (It is not read any further, but one receive
    /// may hold many commands.)
    fn is_flooded(&self, id: ConnectionId) -> bool {
        self.connections
            .find(id)
            .and_then(|connection| connection.outbox.as_ref())
            .is_some_and(|outbox| outbox.bytes() >= OWN_BYTES_BUSY)
    }

    fn list(&mut self, id: ConnectionId, request: Option<Id>) {
        if self.is_flooded(id) {
            return self.refuse_command(id, request, Refused::Busy);
        }
        let patterns: Vec<Pattern> = self
            .entries_of(id)
            .into_iter()
            .map(|entry| self.topics.names.entry(entry).pattern.clone())
            .collect();
        let acks: Vec<_> = patterns
            .iter()
            .map(|pattern| TopicAck {
                topic: pattern.as_str(),
                outcome: Ok(self.terms(pattern, None)),
            })
            .collect();
        self.reply(id, |out| reply::write_list(out, request.as_ref(), acks));
    }

    fn publish_command(&mut self, id: ConnectionId, publish: Publish<'_>) {
        let Publish { id: request, topic, data, pub_seq, snapshot } = publish;
        let may = self.connections.find(id).is_some_and(|c| c.flags.has(Flags::MAY_PUBLISH));
        if !may {
            let message = "publishing is not allowed from here";
            return self.fail(id, request, ErrorCode::Forbidden, message);
        }
        if self.is_congested() {
            return self.fail(id, request, ErrorCode::Busy, "publishers are being slowed");
        }
        let ack = self.acks.insert(PendingAck { request, topic: topic.as_ref().into() });
        let publisher = Publisher::Connection { id, ack: Some(ack as u32) };
        let origin = Origin { node: self.node_id(), publisher };
        self.publish_data(origin, &topic, &data, (pub_seq, snapshot));
    }

    /// Publishes what came as JSON: a command or a line.
    pub(super) fn publish_data(
        &mut self,
        origin: Origin,
        topic: &str,
        data: &Data<'_>,
        (pub_seq, snapshot): (Option<u64>, bool),
    ) {
        let hash = self.topics.names.hash(topic);
        let rule = self.rule_at(topic, hash);
        if let Publisher::Connection { id, .. } = origin.publisher
            && !self.may_publish_to(id, rule)
        {
            return self.refused(origin, ErrorCode::Forbidden);
        }
        let Ok((content, payload)) = payload::settle_data(rule.content, data) else {
            return self.refused(origin, ErrorCode::PayloadInvalid);
        };
        if payload.len() > self.settings.publish_bytes_max as usize {
            return self.refused(origin, ErrorCode::PayloadTooLarge);
        }
        let pool = &mut self.topics.memory.pool;
        let opcode = payload::opcode(content);
        match publication::draft(pool, topic, hash, content, opcode, &payload) {
            Ok(lease) => self.ingest(Ingest { lease, origin, pub_seq, snapshot }),
            Err(_) => self.refused(origin, ErrorCode::Busy),
        }
    }

    /// An application-level heartbeat is due. `false` if it is over.
    pub(super) fn heartbeat(&mut self, id: ConnectionId) -> bool {
        if self.connections.find(id).is_none() {
            return false;
        }
        if !self.is_behind(id) {
            let ts_us = self.now.utc_us;
            self.reply(id, |out| reply::write_heartbeat(out, ts_us));
        }
        true
    }

    /// Tells a JSON client that the server goes, and closes.
    pub(super) fn go_away(&mut self, id: ConnectionId, reconnect_after_ms: u64) {
        match self.connections.find(id).map(|connection| connection.role) {
            Some(Role::Json) => self.reply(id, |out| reply::write_goaway(out, reconnect_after_ms)),
            Some(Role::Sse) => self.send_away(id, reconnect_after_ms),
            _ => {}
        }
        self.close_with(id, CloseCode::GOING_AWAY, "server shutting down", Ending::Shutdown);
    }
}

fn write_answer(out: &mut Vec<u8>, answer: &[u8]) {
    writer::write_message(out, Opcode::Text, answer, None);
}
