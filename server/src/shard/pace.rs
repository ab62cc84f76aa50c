//! What goes out later than it came in, and what time does to topics that nothing comes in for.
//!
//! Knows: at a topic's home, publications that wait for their tick and topics that expire; here,
//! ticks of sampled entries, batches, silence. Must not know: lanes' logs, how often is asked for.

use std::collections::HashMap;

use uringcast_protocol::reply;
use uringcast_ring::Io;

use super::{Shard, count};
use crate::{
    ids::{ConnectionId, EntryId, TopicId},
    mail::{Mail, Origin, Publisher},
    publication::{Body, Publication},
    topics::{
        pace::{Deadlines, next_tick_ns},
        sweep::Owed,
    },
};

/// Publications that wait for their tick on a shard, bytes of their blocks; beyond it they do not
/// wait.
const SAMPLES_BYTES_MAX: usize = 64 << 20;
/// Of each kind of deadline so many are acted on in one tick.
const DUE_PER_TICK_MAX: usize = 512;

/// At topics' homes: what is ordered and waits, and when topics are looked at whether they expire.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// At most one per topic.
    pending: HashMap<TopicId, Pending>,
    due: Deadlines<TopicId>,
    bytes: usize,
    /// By number and epoch.
    expiries: Deadlines<(TopicId, u64)>,
}

/// The newest of a topic, ordered and answered.
#[derive(Debug)]
struct Pending {
    publication: Publication,
    due_ns: u64,
}

impl Samples {
    /// The number given out last and its time (µs UTC), if what has it waits.
    pub(super) fn last(&self, topic: TopicId) -> Option<(u64, u64)> {
        let Pending { publication, .. } = self.pending.get(&topic)?;
        Some((publication.seq(), publication.ts_us()))
    }

    fn take(&mut self, topic: TopicId) -> Option<Publication> {
        let Pending { publication, .. } = self.pending.remove(&topic)?;
        self.bytes -= publication.block_bytes();
        Some(publication)
    }

    fn holds(&self, due_ns: u64, topic: TopicId) -> bool {
        self.pending.get(&topic).is_some_and(|pending| pending.due_ns == due_ns)
    }

    fn next_ns(&self) -> Option<u64> {
        [self.due.next_ns(), self.expiries.next_ns()].into_iter().flatten().min()
    }
}

/// What waits was answered when it was ordered.
impl Origin {
    fn answered(node: crate::ids::NodeId) -> Self {
        Self { node, publisher: Publisher::Answered }
    }
}

impl<I: Io> Shard<I> {
    /// At a topic's home: an ordered publication waits for the topic's tick, and takes the place of
    /// one that waits already.
    pub(super) fn sample(
        &mut self,
        topic: TopicId,
        publication: Publication,
        origin: Origin,
        every_ns: u64,
    ) {
        count!(self.publications);
        count!(self.publications_bytes, publication.payload_bytes() as u64);
        let (epoch, seq) = (publication.epoch(), publication.seq());
        self.samples.bytes += publication.block_bytes();
        if let Some(pending) = self.samples.pending.get_mut(&topic) {
            count!(self.sampled);
            self.samples.bytes -= pending.publication.block_bytes();
            pending.publication = publication;
        } else {
            let due_ns = next_tick_ns(self.now.ns, every_ns, publication.topic_hash());
            self.samples.due.set(due_ns, topic);
            self.samples.pending.insert(topic, Pending { publication, due_ns });
        }
        let node = usize::from(origin.node.0);
        match origin.publisher {
            Publisher::Connection { ack: Some(_), .. } if node != self.index => {
                self.post(node, Mail::Ordered { origin, epoch, seq });
            }
            _ => self.answer_published(topic, origin, epoch, seq),
        }
        if self.samples.bytes > SAMPLES_BYTES_MAX || self.drain.is_some() {
            self.publish_sample(topic);
        }
    }

    /// At a topic's home: what waits for its tick waits no more.
    fn publish_sample(&mut self, topic: TopicId) {
        let Some(publication) = self.samples.take(topic) else { return };
        let origin = Origin::answered(self.node_id());
        if let Some(publication) = self.compress(topic, publication, origin) {
            self.publish(topic, &publication, origin);
        }
    }

    /// The same for a topic that is about to be deleted: it goes plain, since nothing of the topic may
    /// be out at the helper then.
    pub(super) fn publish_last_sample(&mut self, topic: TopicId) {
        if let Some(publication) = self.samples.take(topic) {
            self.publish(topic, &publication, Origin::answered(self.node_id()));
        }
    }

    /// At a topic's home: it was made.
    pub(super) fn watch_expiry(&mut self, topic: TopicId) {
        let state = self.topics.names.topic(topic);
        let expire_ns = self.topics.pace(state.rule).expire_ns;
        if expire_ns > 0 {
            self.samples.expiries.set(self.now.ns + expire_ns, (topic, state.epoch));
        }
    }

    /// When something is due next, ns.
    pub(super) fn next_pace_ns(&self) -> Option<u64> {
        [self.samples.next_ns(), self.topics.next_due_ns()].into_iter().flatten().min()
    }

    /// Acts on all that is due.
    pub(super) fn run_paces(&mut self) {
        let now = self.now.ns;
        if self.next_pace_ns().is_none_or(|due_ns| due_ns > now) {
            return;
        }
        for _ in 0..DUE_PER_TICK_MAX {
            let Some((due_ns, topic)) = self.samples.due.pop(now) else { break };
            if self.samples.holds(due_ns, topic) {
                self.publish_sample(topic);
            }
        }
        let Samples { pending, due, .. } = &mut self.samples;
        due.trim(pending.len(), |due_ns, topic| {
            pending.get(&topic).is_some_and(|pending| pending.due_ns == due_ns)
        });
        for _ in 0..DUE_PER_TICK_MAX {
            let Some(entry) = self.topics.next_tick(now) else { break };
            self.topics.tick(entry, now);
            self.judge_failures();
        }
        self.topics.run_batches(now, now);
        for _ in 0..DUE_PER_TICK_MAX {
            let Some(topic) = self.topics.next_stale(now) else { break };
            self.tell_stale(topic);
        }
        self.expire();
    }

    /// All that waits goes now: the process is to end.
    pub(super) fn end_paces(&mut self) {
        while let Some((due_ns, topic)) = self.samples.due.pop(u64::MAX) {
            if self.samples.holds(due_ns, topic) {
                self.publish_sample(topic);
            }
        }
        self.topics.show_everything(self.now.ns);
        self.judge_failures();
        self.topics.run_batches(u64::MAX, self.now.ns);
    }

    fn tell_stale(&mut self, topic: TopicId) {
        let now = self.now.ns;
        let Some(since_us) = self.topics.stale_since_us(topic, now) else { return };
        let state = self.topics.names.topic(topic);
        let (rule, name) = (state.rule, state.name.clone());
        if self.topics.notify(topic, now, |body| stale_notice(body, &name, since_us)) {
            self.of_rule(rule).stale.add(1);
        }
        self.judge_failures();
    }

    /// Forgets topics, here at their home, that nothing was published to for so long.
    fn expire(&mut self) {
        let now = self.now;
        for _ in 0..DUE_PER_TICK_MAX {
            let Some((_, key)) = self.samples.expiries.pop(now.ns) else { break };
            let Some(topic) = self.topics.names.topic_if(key.0).filter(|t| t.epoch == key.1) else {
                continue;
            };
            let expire_ns = self.topics.pace(topic.rule).expire_ns;
            let busy = self.held.has(key.0) || self.samples.last(key.0).is_some();
            let snapshot_us = topic.snapshot.as_ref().map_or(0, Publication::ts_us);
            let snapshot_ago_ns = now.utc_us.saturating_sub(snapshot_us).saturating_mul(1_000);
            let silent_ns = now.ns.saturating_sub(topic.last_ns).min(snapshot_ago_ns);
            if busy || silent_ns < expire_ns {
                let silent_ns = if busy { 0 } else { silent_ns };
                self.samples.expiries.set(now.ns + expire_ns - silent_ns, key);
                continue;
            }
            count!(self.expired);
            let name = topic.name.clone();
            self.forget_everywhere(key.0, &name);
        }
        let names = &self.topics.names;
        self.samples.expiries.trim(names.topics_count(), |_, (topic, epoch)| {
            names.topic_if(topic).is_some_and(|topic| topic.epoch == epoch)
        });
    }

    /// What a client has to be sent first as it changes from one interest to another (rising
    /// entries).
    pub(super) fn repace(
        &mut self,
        id: ConnectionId,
        before: &[EntryId],
        after: &[EntryId],
        starts: &mut Vec<Owed>,
    ) {
        let sweep = self.sweeps.get(&id.index);
        self.topics.repace((before, after), sweep, starts, self.now.ns);
        self.judge_failures();
    }
}

/// That a topic is silent, in the format of a lane; `None` where it can't be said.
fn stale_notice(body: Body, topic: &str, since_us: u64) -> Option<Vec<u8>> {
    if body == Body::Raw {
        return None;
    }
    let (mut message, mut out) = (Vec::new(), Vec::new());
    reply::write_stale(&mut message, topic, since_us);
    body.write_notice(&mut out, "stale", &message);
    Some(out)
}
