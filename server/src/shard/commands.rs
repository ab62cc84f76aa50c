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
    payload, publication,
    rules::Kind,
    topics::{
        log::Boundary,
        pace::granted_ms,
        sweep::{Need, Owed},
    },
};

/// With so much own output a client's commands with long answers are refused until it has read.
const OWN_BYTES_BUSY: usize = 256 << 10;

/// A subscription.
#[derive(Debug)]
pub(super) struct Granted {
    /// To what.
    pattern: Pattern,
    /// Its pace, ms; 0 for live.
    sample_ms: u32,
}

/// With so many tokens of names looked at for new patterns in a tick, it takes no further one.
const TOKENS_PER_TICK: usize = 100_000;

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
            Ok(Command::Update { id: request, topics, sample_ms }) => {
                self.update(id, request, &topics, sample_ms);
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
        let Subscribe { id: request, topics, snapshot, sample_ms, resume, resume_from_us } =
            subscribe;
        let wish = Wish { snapshot, resume, resume_from_us, sample_ms, ..Wish::default() };
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
        let mut starts = Vec::new();
        let mut outcomes = Vec::with_capacity(topics.len());
        for topic in topics {
            let outcome = self.add_entry(id, &mut entries, topic, wish.sample_ms);
            outcomes.push(outcome.map(|granted| {
                let recovered = self.starts(&granted.pattern, wish, &mut starts);
                (granted, recovered)
            }));
        }
        // Of a topic that several of them match: where most is sent, and messages before a snapshot.
        starts
            .sort_unstable_by_key(|start| (start.topic, start.need == Need::Snapshot, start.next));
        starts.dedup_by_key(|start| start.topic);
        self.repace(id, &before, &entries, &mut starts);
        let acks = topics.iter().zip(outcomes).map(|(topic, outcome)| {
            let terms = |(granted, recovered)| self.terms(&granted, recovered);
            TopicAck { topic: topic.as_ref(), outcome: outcome.map(terms) }
        });
        let mut answer = Vec::new();
        let acks: Vec<_> = acks.collect();
        let failed =
            acks.iter().filter_map(|ack| ack.outcome.err()).max_by_key(|code| code.retry());
        reply::write_subscribed(&mut answer, request.as_ref(), acks);
        let write =
            |out: &mut Vec<u8>| body.write_answer(out, "subscribed", wish.cursor_us, &answer);
        self.reseat(id, request, (&before, &entries), &starts, write).err().or(failed)
    }

    /// Another interest for a client, and the answer to its command where one ends and the other
    /// begins.
    ///
    /// # Errors
    /// Its interest is as it was; it has been told.
    fn reseat(
        &mut self,
        id: ConnectionId,
        request: Option<Id>,
        (before, entries): (&[EntryId], &[EntryId]),
        starts: &[Owed],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), ErrorCode> {
        let Some(body) = self.connections.find(id).map(|c| c.role.body()) else { return Ok(()) };
        let seated = if !starts.is_empty() && !entries.is_empty() {
            self.seat_behind(id, entries, body, starts, write)
        } else if entries != before {
            self.change_seat(id, entries, body, write)
        } else {
            self.own(id, Boundary::Message, write);
            Ok(())
        };
        // Entries that no lane took are given back.
        for &entry in entries {
            self.topics.names.release(entry);
        }
        seated.map_err(|refused| {
            self.refuse_command(id, request, refused);
            match refused {
                Refused::Busy => ErrorCode::Busy,
                Refused::Limit => ErrorCode::Limit,
            }
        })
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
        sample_ms: Option<u32>,
    ) -> Result<Granted, ErrorCode> {
        let pattern = Pattern::parse(topic).map_err(|_| ErrorCode::TopicInvalid)?;
        if !self.may_subscribe(id, &pattern) {
            return Err(ErrorCode::Forbidden);
        }
        let sample_ms = sample_ms.map_or(0, |wanted_ms| self.grant_ms(&pattern, wanted_ms));
        let name = pattern.as_str();
        // A new pattern looks at as many names as it matches, or more; a tick takes so many that the
        // others on this core do not feel it.
        if self.topics.names.looked_at() >= TOKENS_PER_TICK
            && !pattern.is_exact()
            && self.topics.names.entry_of(name, sample_ms).is_none()
        {
            return Err(ErrorCode::Busy);
        }
        let entry = self.topics.entry_for(&pattern, sample_ms).map_err(|_| ErrorCode::Limit)?;
        // At one pace only: the last wish holds.
        let others: Vec<EntryId> = self
            .topics
            .names
            .entries_of(pattern.as_str())
            .filter(|&other| other != entry)
            .collect();
        entries.retain(|known| !others.contains(known));
        if let Err(at) = entries.binary_search(&entry) {
            if entries.len() >= self.settings.subscriptions_max as usize {
                self.topics.names.release(entry);
                return Err(ErrorCode::Limit);
            }
            entries.insert(at, entry);
        }
        Ok(Granted { pattern, sample_ms })
    }

    /// The pace that a wish of so many ms is granted, ms: only value topics are sampled. 0 for live.
    fn grant_ms(&self, pattern: &Pattern, wanted_ms: u32) -> u32 {
        let kind = if pattern.is_exact() {
            let name = pattern.as_str();
            let known = self.topics.names.find(name, self.topics.names.hash(name));
            Some(known.map_or_else(|| self.rule_of(name).kind, |t| self.topics.names.topic(t).kind))
        } else {
            self.kind_of_all(pattern)
        };
        if kind.is_none_or(|kind| kind == Kind::Value) { granted_ms(wanted_ms) } else { 0 }
    }

    pub(super) fn terms(&self, granted: &Granted, recovered: Option<Recovered>) -> Terms {
        let Granted { pattern, sample_ms } = granted;
        let sample_ms = Some(*sample_ms).filter(|&ms| ms > 0);
        let mut terms = Terms { recovered, sample_ms, ..Terms::default() };
        if pattern.is_exact() {
            let name = pattern.as_str();
            let hash = self.topics.names.hash(name);
            let found = self.topics.names.find(name, hash);
            let topic = found.map(|id| self.topics.names.topic(id));
            terms.kind = Some(
                topic.map_or_else(|| self.rule_of(name).kind.name(), |topic| topic.kind.name()),
            );
            terms.epoch = topic.map(|topic| topic.epoch);
            terms.seq = topic.map(|topic| topic.seq);
            if let (Some(ms), Some(id)) = (sample_ms, found) {
                // What was not shown yet is still to come.
                let entry = self.topics.names.entry_of(name, ms);
                let view = entry.and_then(|entry| self.topics.view(&[entry], id));
                terms.seq = view.map(|view| view.seq());
            }
            terms.stale_since_us = found.and_then(|id| self.topics.stale_since_us(id, self.now.ns));
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
        let before = entries.clone();
        let mut acks = Vec::with_capacity(topics.len());
        for topic in topics {
            let at =
                self.topics.names.entries_of(topic).find_map(|e| entries.binary_search(&e).ok());
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
        let mut starts = Vec::new();
        self.repace(id, &before, &entries, &mut starts);
        let write = |out: &mut Vec<u8>| write_answer(out, &answer);
        // Why not, it has been told.
        let _ = self.reseat(id, request, (&before, &entries), &starts, write);
    }

    /// Another pace for some of a client's subscriptions.
    fn update(
        &mut self,
        id: ConnectionId,
        request: Option<Id>,
        topics: &[Cow<'_, str>],
        sample_ms: Option<u32>,
    ) {
        if self.is_flooded(id) {
            return self.refuse_command(id, request, Refused::Busy);
        }
        let mut entries = self.entries_of(id);
        let before = entries.clone();
        let mut outcomes = Vec::with_capacity(topics.len());
        for topic in topics {
            let mut known = self.topics.names.entries_of(topic);
            let subscribed = known.any(|entry| entries.binary_search(&entry).is_ok());
            drop(known);
            outcomes.push(match Pattern::parse(topic) {
                Err(_) => Err(ErrorCode::TopicInvalid),
                Ok(_) if !subscribed => Err(ErrorCode::NotSubscribed),
                Ok(_) => self.add_entry(id, &mut entries, topic, sample_ms),
            });
        }
        let mut starts = Vec::new();
        self.repace(id, &before, &entries, &mut starts);
        let acks = topics.iter().zip(outcomes).map(|(topic, outcome)| {
            let outcome = outcome.map(|granted| self.terms(&granted, None));
            TopicAck { topic: topic.as_ref(), outcome }
        });
        let mut answer = Vec::new();
        reply::write_updated(&mut answer, request.as_ref(), acks.collect::<Vec<_>>());
        let write = |out: &mut Vec<u8>| write_answer(out, &answer);
        // Why not, it has been told.
        let _ = self.reseat(id, request, (&before, &entries), &starts, write);
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
        let subscriptions: Vec<Granted> = self
            .entries_of(id)
            .into_iter()
            .map(|entry| self.topics.names.entry(entry))
            .map(|e| Granted { pattern: e.pattern.clone(), sample_ms: e.sample_ms() })
            .collect();
        let acks: Vec<_> = subscriptions
            .iter()
            .map(|granted| TopicAck {
                topic: granted.pattern.as_str(),
                outcome: Ok(self.terms(granted, None)),
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
        if self.is_congested(self.topics.names.hash(&topic)) {
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
