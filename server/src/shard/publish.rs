//! Publications: in from publishers, ordered at the topic's home, out to every shard.
//!
//! Knows: homes, order, acknowledgements, mail. Must not know: who subscribes.

use uringcast_mesh::grid::Wake;
use uringcast_protocol::{
    command::{ErrorCode, Id},
    opcode::{CloseCode, Opcode},
    publish::{parse_publish_line, publish_lines},
    reply::{self, Published},
    session::MessageKind,
    writer,
};
use uringcast_ring::{Io, pool::Lease};

use super::{
    MAIL_PER_TICK_MAX, PARKED_MAX, PARKED_SLOW, Shard, close::Ending, count, held::Waiting,
};
use crate::{
    conn::Publishing,
    home::home_of,
    ids::{ConnectionId, TopicId},
    mail::{Ingest, Mail, Origin, Publisher, Refusal},
    payload::{self, Claim},
    publication::{self, Order, Publication},
    rules::{SnapshotSource, TopicRule},
    topics::{log::Boundary, names::TopicTerms},
};

/// An answer that a publisher waits for.
#[derive(Debug)]
pub(super) struct PendingAck {
    /// The command's id.
    pub(super) request: Option<Id>,
    /// Its topic.
    pub(super) topic: Box<str>,
}

/// Answers waited for at most, by all publishers of a shard.
const ACKS_MAX: usize = 1 << 20;

impl<I: Io> Shard<I> {
    /// The rule for a topic of this name.
    pub(super) fn rule_of(&self, name: &str) -> &TopicRule {
        self.settings.rules.rule(self.settings.rules.of(name))
    }

    pub(super) fn terms_of(&self, name: &str, epoch: u64, base_seq: u64) -> TopicTerms {
        let id = self.settings.rules.of(name);
        let rule = self.settings.rules.rule(id);
        TopicTerms { rule: id, kind: rule.kind, content: rule.content, epoch, base_seq }
    }

    /// The same, sooner where there is such a topic.
    pub(super) fn rule_at(&self, name: &str, hash: u64) -> &TopicRule {
        match self.topics.names.find(name, hash) {
            Some(id) => self.topics.rule(self.topics.names.topic(id).rule),
            None => self.rule_of(name),
        }
    }

    /// Whether nothing more can be taken in for this topic for now.
    pub(super) fn is_congested(&self, topic_hash: u64) -> bool {
        self.overload.is_on
            || self.shared.late.is_late(topic_hash, self.now.ns)
            || self.acks.len() >= ACKS_MAX
            || self.held.is_full()
            || self.parked.iter().any(|queue| queue.len() >= PARKED_MAX)
    }

    /// A publisher's message is complete.
    pub(super) fn published_message(
        &mut self,
        id: ConnectionId,
        publishing: &mut Publishing,
        kind: MessageKind,
    ) {
        let Some(topic) = &publishing.topic else {
            return self.published_lines(id, publishing);
        };
        let payload_bytes = std::mem::take(&mut publishing.draft_bytes);
        let lease = match publishing.draft.take() {
            Some(lease) => Ok(lease),
            // A message without a single byte.
            None => publication::reserve(&mut self.topics.memory.pool, &topic.name, 0),
        };
        let ack = publishing.ack.then(|| PendingAck { request: None, topic: topic.name.clone() });
        let origin = self.origin(id, ack);
        let Ok(lease) = lease else { return self.refused(origin, ErrorCode::Busy) };
        let start = publication::payload_offset(&topic.name);
        let message = &lease[start..start + payload_bytes];
        // Text stays text and binary stays binary, whatever the topic's rule takes it for.
        let (claim, opcode) = match kind {
            MessageKind::Text => (Claim::Message, Opcode::Text),
            MessageKind::Binary => (Claim::Binary, Opcode::Binary),
        };
        let Ok(content) = payload::settle(topic.content, claim, message) else {
            return self.refused(origin, ErrorCode::PayloadInvalid);
        };
        let draft = publication::finish_draft(
            &mut self.topics.memory.pool,
            lease,
            &topic.name,
            topic.hash,
            payload_bytes,
            content,
            opcode,
        );
        match draft {
            Ok(lease) => self.ingest(Ingest { lease, origin, pub_seq: None, snapshot: false }),
            Err(_) => self.refused(origin, ErrorCode::Busy),
        }
    }

    fn published_lines(&mut self, id: ConnectionId, publishing: &mut Publishing) {
        let lines = std::mem::take(&mut publishing.lines);
        for line in publish_lines(&lines) {
            match parse_publish_line(line) {
                Ok(line) => {
                    let ack = publishing
                        .ack
                        .then(|| PendingAck { request: None, topic: line.topic.as_ref().into() });
                    let origin = self.origin(id, ack);
                    let number = (line.pub_seq, line.snapshot);
                    self.publish_data(origin, &line.topic, &line.data, number);
                }
                Err(error) => {
                    count!(self.publications_invalid);
                    self.tell_publisher(id, |out| {
                        reply::write_error(out, None, error.code, error.message);
                    });
                }
            }
        }
        publishing.lines = lines;
        publishing.lines.clear();
    }

    fn origin(&mut self, id: ConnectionId, ack: Option<PendingAck>) -> Origin {
        // Beyond the bound publications still go; only their answers do not.
        let ack = ack
            .filter(|_| self.acks.len() < ACKS_MAX)
            .map(|pending| self.acks.insert(pending) as u32);
        Origin { node: self.node_id(), publisher: Publisher::Connection { id, ack } }
    }

    /// Sends a draft to its topic's home.
    pub(super) fn ingest(&mut self, ingest: Ingest) {
        let (_, hash) = publication::draft_topic_bytes(&ingest.lease);
        let home = usize::from(home_of(hash, self.shards).0);
        let publisher = ingest.origin.publisher;
        if home == self.index {
            self.order(ingest);
        } else if self.parked[home].len() >= PARKED_MAX {
            self.refused(ingest.origin, ErrorCode::Busy);
        } else {
            self.post(home, Mail::Ingest(ingest));
        }
        // Of lanes elsewhere it is known by the next publication.
        if let Publisher::Connection { id, .. } = publisher {
            self.slow_if_late(id, hash);
        }
    }

    /// At a topic's home: gives a draft its number and time, and sends it to every shard.
    pub(super) fn order(&mut self, ingest: Ingest) {
        let (name, hash) = publication::draft_topic_bytes(&ingest.lease);
        let known = self.topics.names.find(name, hash);
        if let Some(topic) = known.filter(|&topic| self.held.has(topic)) {
            return self.wait_behind(topic, ingest);
        }
        let Ingest { lease, origin, pub_seq, snapshot } = ingest;
        // Before the topic is made for it.
        if snapshot {
            let (name, _) = publication::draft_topic(&lease);
            let rule = self.rule_of(name);
            if pub_seq.is_none() || rule.snapshot != SnapshotSource::Published {
                return self.refused(origin, ErrorCode::BadRequest);
            }
        }
        let topic = match known {
            Some(topic) => topic,
            None => {
                let (name, _) = publication::draft_topic(&lease);
                let terms = self.terms_of(name, rand::random(), 0);
                let Ok(topic) = self.topics.names.create(name, hash, terms) else {
                    return self.refused(origin, ErrorCode::Limit);
                };
                self.journal_topic(topic);
                self.watch_expiry(topic);
                topic
            }
        };
        if snapshot {
            return self.order_snapshot(topic, lease, origin, pub_seq);
        }
        let state = self.topics.names.topic(topic);
        let sample_ns = self.topics.pace(state.rule).sample_ns;
        let last_ts_us = state.history.last().map_or(0, Publication::ts_us);
        let (last_seq, last_ts_us) = match sample_ns {
            0 => (state.seq, last_ts_us),
            _ => self.samples.last(topic).unwrap_or((state.seq, last_ts_us)),
        };
        if let (Some(new), Some(last)) = (pub_seq, state.pub_seq)
            && new <= last
        {
            let refusal = Refusal::Duplicate { epoch: state.epoch, seq: last_seq };
            return self.answer_refused(origin, refusal);
        }
        let order = Order {
            epoch: state.epoch,
            seq: last_seq + 1,
            // The clock may be set back; in a topic's history time does not.
            ts_us: self.now.utc_us.max(last_ts_us),
            pub_seq,
            snapshot: false,
        };
        let pool = &mut self.topics.memory.pool;
        let Ok(publication) = publication::order(pool, lease, order, &mut self.scratch.head) else {
            return self.refused(origin, ErrorCode::Busy);
        };
        let state = self.topics.names.topic_mut(topic);
        state.pub_seq = pub_seq.or(state.pub_seq);
        if sample_ns > 0 {
            return self.sample(topic, publication, origin, sample_ns);
        }
        if let Some(publication) = self.compress(topic, publication, origin) {
            self.publish(topic, &publication, origin);
        }
    }

    /// At a topic's home: sends an ordered publication to every shard, and appends it here.
    pub(super) fn publish(&mut self, topic: TopicId, publication: &Publication, origin: Origin) {
        if origin.publisher != Publisher::Answered {
            count!(self.publications);
            count!(self.publications_bytes, publication.payload_bytes() as u64);
        }
        for node in 0..self.shards {
            if node != self.index {
                let theirs = (usize::from(origin.node.0) == node).then_some(origin);
                let (frame, deflated) =
                    (publication.frame().clone(), publication.deflated().cloned());
                self.post(node, Mail::Publication { frame, deflated, origin: theirs });
            }
        }
        self.journal_publication(publication);
        self.append(topic, publication);
        self.answer_published(topic, origin, publication.epoch(), publication.seq());
    }

    /// At a topic's home: a snapshot of its publisher finds its place in the topic's order.
    fn order_snapshot(
        &mut self,
        topic: TopicId,
        lease: Lease,
        origin: Origin,
        pub_seq: Option<u64>,
    ) {
        let state = self.topics.names.topic(topic);
        let published = self.topics.rule(state.rule).snapshot == SnapshotSource::Published;
        let Some(number) = pub_seq.filter(|_| published) else {
            return self.refused(origin, ErrorCode::BadRequest);
        };
        let older = |kept: &Publication| kept.pub_seq().is_some_and(|kept| number <= kept);
        if state.snapshot.as_ref().is_some_and(older) {
            let refusal = Refusal::Duplicate { epoch: state.epoch, seq: state.seq };
            return self.answer_refused(origin, refusal);
        }
        let newest = state.pub_seq.is_none_or(|last| number >= last);
        let covers = if newest { Ok(state.seq) } else { state.history.covered_by(number) };
        let epoch = state.epoch;
        // What it covers is so long ago that what came after can't be had any more: nobody could use
        // it, and the answer says that a newer one is wanted.
        let Ok(covers) = covers else {
            let seq = state.seq;
            return match origin.publisher {
                Publisher::Request { .. } | Publisher::Answered => {
                    self.answer_published(topic, origin, epoch, seq)
                }
                Publisher::Connection { .. } => {
                    self.answer_refused(origin, Refusal::Uncovered { epoch, seq });
                }
            };
        };
        let ts_us = self.now.utc_us;
        let order = Order { epoch, seq: covers, ts_us, pub_seq, snapshot: true };
        let pool = &mut self.topics.memory.pool;
        let Ok(snapshot) = publication::order(pool, lease, order, &mut self.scratch.head) else {
            return self.refused(origin, ErrorCode::Busy);
        };
        count!(self.snapshots_published);
        self.of_rule(self.topics.names.topic(topic).rule).snapshots_published.add(1);
        for node in 0..self.shards {
            if node != self.index {
                let theirs = (usize::from(origin.node.0) == node).then_some(origin);
                let frame = snapshot.frame().clone();
                self.post(node, Mail::Snapshot { frame, origin: theirs });
            }
        }
        self.journal_snapshot(&snapshot);
        self.topics.keep_snapshot(topic, snapshot);
        self.answer_published(topic, origin, epoch, covers);
    }

    /// Whether a topic's publisher is to send a snapshot.
    fn wants_snapshot(&self, topic: TopicId) -> bool {
        let topic = self.topics.names.topic(topic);
        self.topics.rule(topic.rule).snapshot == SnapshotSource::Published && topic.wants_snapshot()
    }

    /// At a topic's home: tells the publisher, unless its own shard will.
    pub(super) fn answer_published(
        &mut self,
        topic: TopicId,
        origin: Origin,
        epoch: u64,
        seq: u64,
    ) {
        match origin.publisher {
            Publisher::Request { ticket } => {
                let snapshot_wanted = self.wants_snapshot(topic);
                self.post(self.shards, Mail::Published { ticket, epoch, seq, snapshot_wanted });
            }
            Publisher::Connection { .. } if usize::from(origin.node.0) == self.index => {
                self.acknowledge(origin, epoch, seq, false);
            }
            Publisher::Connection { .. } | Publisher::Answered => {}
        }
    }

    /// A publisher's snapshot that its topic's home has put in order.
    fn deliver_snapshot(&mut self, snapshot: Publication, origin: Option<Origin>) {
        let (name, hash) = (snapshot.topic(), snapshot.topic_hash());
        let (epoch, covers) = (snapshot.epoch(), snapshot.seq());
        let topic = self.topics.names.find(name, hash).unwrap_or_else(|| {
            let terms = self.terms_of(name, epoch, covers);
            self.topics.names.create_ordered(name, hash, terms)
        });
        self.topics.keep_snapshot(topic, snapshot);
        if let Some(origin) = origin {
            self.acknowledge(origin, epoch, covers, false);
        }
    }

    fn append(&mut self, topic: TopicId, publication: &Publication) {
        if let Some(lane) = self.topics.publish(topic, publication, self.now.ns) {
            self.topic_is_late(publication.topic_hash(), lane);
        }
        self.judge_failures();
    }

    /// A publication that its home has ordered.
    fn deliver(&mut self, publication: &Publication, origin: Option<Origin>) {
        let (name, hash) = (publication.topic(), publication.topic_hash());
        let known = self.topics.names.find(name, hash);
        let topic = match known {
            Some(topic) => topic,
            None => {
                let terms = self.terms_of(name, publication.epoch(), publication.seq() - 1);
                // Its home had room for it: the bound is judged there and nowhere else, or shards
                // would differ in what they drop.
                self.topics.names.create_ordered(name, hash, terms)
            }
        };
        self.topics.names.topic_mut(topic).epoch = publication.epoch();
        self.append(topic, publication);
        if let Some(origin) = origin {
            self.acknowledge(origin, publication.epoch(), publication.seq(), false);
        }
    }

    /// A publication is not published.
    pub(super) fn refused(&mut self, origin: Origin, code: ErrorCode) {
        self.answer_refused(origin, Refusal::Code(code));
    }

    fn answer_refused(&mut self, origin: Origin, refusal: Refusal) {
        match refusal {
            Refusal::Duplicate { .. } => count!(self.publications_duplicate),
            Refusal::Uncovered { .. } => {}
            Refusal::Code(ErrorCode::Busy) => count!(self.publications_busy),
            Refusal::Code(ErrorCode::Forbidden) => count!(self.publications_forbidden),
            Refusal::Code(ErrorCode::Limit) => count!(self.publications_limit),
            Refusal::Code(_) => count!(self.publications_invalid),
        }
        let node = usize::from(origin.node.0);
        if node == self.index {
            self.tell_refused(origin, refusal);
        } else {
            self.post(node, Mail::Refused { origin, refusal });
        }
    }

    fn tell_refused(&mut self, origin: Origin, refusal: Refusal) {
        match refusal {
            Refusal::Duplicate { epoch, seq } => self.acknowledge(origin, epoch, seq, true),
            Refusal::Uncovered { epoch, seq } => self.acknowledge(origin, epoch, seq, false),
            Refusal::Code(code) => {
                let Publisher::Connection { id, ack } = origin.publisher else { return };
                let pending = ack.and_then(|ack| self.acks.try_remove(ack as usize));
                let request = pending.and_then(|pending| pending.request);
                // Told in any case: a publisher that wants no acknowledgements still must know.
                self.tell_publisher(id, |out| {
                    reply::write_error(out, request.as_ref(), code, "not published");
                });
                if code == ErrorCode::Busy && ack.is_none() {
                    let reason = "publications refused";
                    self.close_with(id, CloseCode::TRY_AGAIN_LATER, reason, Ending::Budget);
                }
            }
        }
    }

    fn acknowledge(&mut self, origin: Origin, epoch: u64, seq: u64, duplicate: bool) {
        let Publisher::Connection { id, ack: Some(ack) } = origin.publisher else { return };
        let Some(PendingAck { request, topic }) = self.acks.try_remove(ack as usize) else {
            return;
        };
        let hash = self.topics.names.hash(&topic);
        let known = self.topics.names.find(&*topic, hash);
        let snapshot_wanted = known.is_some_and(|topic| self.wants_snapshot(topic));
        self.tell_publisher(id, |out| {
            let published = Published { topic: &topic, epoch, seq, duplicate, snapshot_wanted };
            reply::write_published(out, request.as_ref(), &published);
        });
    }

    fn tell_publisher(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        let mut message = Vec::new();
        write(&mut message);
        self.own(id, Boundary::Message, |out| {
            writer::write_message(out, Opcode::Text, &message, None);
        });
    }

    /// Sends mail, or parks it where the other's ring is full.
    pub(super) fn post(&mut self, to: usize, mail: Mail) {
        if self.parked[to].is_empty() {
            match self.node.send(to, mail) {
                Ok(Wake::Needed) => self.io.wake(to),
                Ok(Wake::NotNeeded) => {}
                Err(mail) => {
                    count!(self.mesh_full);
                    self.parked[to].push_back(mail);
                }
            }
        } else {
            self.parked[to].push_back(mail);
        }
    }

    /// Sends what was parked, as far as there is room now. Whether publishers are to be slowed
    /// because of what is left.
    pub(super) fn post_parked(&mut self) -> bool {
        let mut most = 0;
        for to in 0..self.parked.len() {
            while let Some(mail) = self.parked[to].pop_front() {
                match self.node.send(to, mail) {
                    Ok(Wake::Needed) => self.io.wake(to),
                    Ok(Wake::NotNeeded) => {}
                    Err(mail) => {
                        self.parked[to].push_front(mail);
                        break;
                    }
                }
            }
            most = most.max(self.parked[to].len());
        }
        most >= PARKED_SLOW
    }

    pub(super) fn read_mail(&mut self) {
        let mut mail = std::mem::take(&mut self.scratch.mail);
        let cursor_us = self.next_cursor_us();
        let taken = self.node.receive(MAIL_PER_TICK_MAX, |_, message| mail.push(message));
        for message in mail.drain(..) {
            match message {
                Mail::Ingest(ingest) => self.order(ingest),
                Mail::Publication { frame, deflated, origin } => {
                    self.deliver(&Publication::from_frames(frame, deflated), origin);
                }
                Mail::Deflated { topic, number, deflated, bytes } => {
                    self.compressed(topic, number, deflated, bytes);
                }
                Mail::Snapshot { frame, origin } => {
                    self.deliver_snapshot(Publication::from_frames(frame, None), origin);
                }
                Mail::Ordered { origin, epoch, seq } => {
                    self.acknowledge(origin, epoch, seq, false);
                }
                Mail::Refused { origin, refusal } => self.tell_refused(origin, refusal),
                Mail::DeleteTopic { topic, ticket } => self.delete_topic(&topic, ticket),
                Mail::Forget { topic } => self.forget_topic(&topic),
                Mail::Ask { ticket, question } => {
                    let answer = self.answer(question);
                    self.post(self.shards, Mail::Answer { ticket, answer });
                }
                // The control thread's and the helper's.
                Mail::Published { .. }
                | Mail::Answer { .. }
                | Mail::Deflate { .. }
                | Mail::Journal(_) => {}
            }
        }
        self.scratch.mail = mail;
        if let Some(cursor_us) = cursor_us.filter(|_| taken < MAIL_PER_TICK_MAX) {
            self.topics.memory.cursor_us = cursor_us;
        }
    }

    /// Only the topic's home deletes it, and tells the others in the order of its publications.
    pub(super) fn delete_topic(&mut self, topic: &str, ticket: u64) {
        let hash = self.topics.names.hash(topic);
        let home = usize::from(home_of(hash, self.shards).0) == self.index;
        let known = self.topics.names.find(topic, hash).filter(|_| home);
        if let Some(id) = known.filter(|&id| self.held.has(id)) {
            return self.held.wait(id, Waiting::Delete { topic: topic.into(), ticket });
        }
        if let Some(id) = known {
            self.forget_everywhere(id, topic);
        }
        let answer = crate::mail::Answer::Deleted(known.is_some());
        self.post(self.shards, Mail::Answer { ticket, answer });
    }

    /// At a topic's home.
    pub(super) fn forget_everywhere(&mut self, id: TopicId, topic: &str) {
        self.publish_last_sample(id);
        self.forget_topic(topic);
        self.journal_forget(topic);
        for node in 0..self.shards {
            if node != self.index {
                self.post(node, Mail::Forget { topic: topic.into() });
            }
        }
    }

    fn forget_topic(&mut self, topic: &str) {
        let hash = self.topics.names.hash(topic);
        if let Some(id) = self.topics.names.find(topic, hash) {
            self.topics.show_all(id, self.now.ns);
            self.judge_failures();
            self.forget_owed(id);
            self.topics.forget(id);
        }
    }
}
