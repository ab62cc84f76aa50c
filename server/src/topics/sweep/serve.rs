//! One topic's turn in a batch of a sweep.
//!
//! Knows: what a subscriber is owed of the topic, and what its kind says where that can't be had any
//! more. Must not know: other topics, marks.

use uringcast_protocol::{command::ErrorCode, reply};

use super::{Batch, Need, Owed, Served, Told};
use crate::{
    publication::{Body, Format, Publication},
    rules::{Kind, Overflow, SnapshotSource},
    topics::names::Topic,
};

/// One topic's turn in a batch.
pub(super) struct Server<'s> {
    pub(super) topic: &'s Topic,
    pub(super) format: Format,
    pub(super) batch: &'s mut Batch,
    pub(super) owed: Owed,
    pub(super) until: u64,
    pub(super) sent: u64,
}

impl Server<'_> {
    pub(super) fn serve(&mut self, overflow: Overflow, source: SnapshotSource) -> Served {
        if let Some(snapshot) = self.snapshot_to_come(source)
            && !self.batch.has_room_for(snapshot, self.format)
        {
            return Served::Partly;
        }
        match self.owed.need {
            Need::Snapshot => self.snapshot(source),
            Need::Awaited => match self.topic.usable_snapshot() {
                Some(snapshot) => self.published(snapshot, "slow"),
                None => return Served::Done,
            },
            Need::Next | Need::NextOrGap => {}
        }
        if self.owed.next > self.topic.seq || self.owed.need == Need::Awaited {
            return Served::Done;
        }
        if !self.topic.has_from(self.owed.next) && !self.bridge(overflow, source) {
            return Served::Lost;
        }
        if self.owed.need == Need::Awaited {
            return Served::Done;
        }
        for publication in self.topic.history.from_seq(self.owed.next) {
            if self.owed.next > self.until {
                return Served::ForNow;
            }
            if !self.batch.has_room_for(publication, self.format) {
                return Served::Partly;
            }
            self.batch.push(publication, self.format);
            self.sent += 1;
            self.owed.next = publication.seq() + 1;
            self.owed.need = Need::Next;
        }
        Served::Done
    }

    /// The publisher's snapshot, if that is what comes first.
    fn snapshot_to_come(&self, source: SnapshotSource) -> Option<&Publication> {
        let comes = source == SnapshotSource::Published
            && match self.owed.need {
                Need::Snapshot | Need::Awaited => true,
                Need::Next | Need::NextOrGap => !self.topic.has_from(self.owed.next),
            };
        self.topic.usable_snapshot().filter(|_| comes)
    }

    /// What was asked for on subscribing.
    fn snapshot(&mut self, source: SnapshotSource) {
        self.owed.need = Need::Next;
        let topic = self.topic;
        match source {
            SnapshotSource::None => {}
            // Every message since the answer is owed, and they say more than the last one does.
            SnapshotSource::Last if topic.kind == Kind::Event && topic.seq >= self.owed.next => {}
            SnapshotSource::Last => {
                self.owed.next = topic.seq + 1;
                if let Some(last) = topic.last() {
                    self.batch.told.push((topic.rule, Told::Snapshot));
                    self.batch.push_snapshot(last, self.format.body);
                }
            }
            SnapshotSource::Published => match topic.usable_snapshot() {
                Some(snapshot) => {
                    self.owed.next = snapshot.seq() + 1;
                    self.published(snapshot, "");
                }
                None => self.want_snapshot(),
            },
        }
    }

    /// The publisher's snapshot; what it covers and was not sent is told as a gap.
    fn published(&mut self, snapshot: &Publication, reason: &str) {
        let covers = snapshot.seq();
        if self.owed.next <= covers {
            self.batch.gap(self.format.body, self.topic, self.owed.next, covers, reason);
        }
        self.batch.told.push((self.topic.rule, Told::Snapshot));
        self.batch.push(snapshot, self.format);
        self.owed.next = covers + 1;
        self.owed.need = Need::Next;
        // What follows a snapshot follows it at once.
        self.until = self.topic.seq;
    }

    fn want_snapshot(&mut self) {
        self.batch.told.push((self.topic.rule, Told::SnapshotMissing));
        self.owed.need = Need::Awaited;
        let name = &self.topic.name;
        let message = "follows as soon as the publisher sends one";
        self.batch.say(self.format.body, "error", |out| {
            reply::write_topic_error(out, name, ErrorCode::SnapshotUnavailable, message);
        });
    }

    /// The next message is not in history any more. `false`: it can't be gone without.
    fn bridge(&mut self, overflow: Overflow, source: SnapshotSource) -> bool {
        let topic = self.topic;
        let first = topic.history.first_seq().unwrap_or(topic.seq + 1);
        if topic.kind == Kind::Value {
            self.owed.next = topic.seq;
            return true;
        }
        if self.format.body == Body::Raw {
            return false;
        }
        let back = self.owed.need == Need::NextOrGap;
        let reason = if back { "history" } else { "slow" };
        match topic.kind {
            Kind::Event if back || overflow == Overflow::Gap => {
                self.batch.gap(self.format.body, topic, self.owed.next, first - 1, reason);
                self.owed.next = first;
                true
            }
            Kind::Event => false,
            // The publisher sends no snapshots: how to go on is the subscriber's affair.
            Kind::Delta if source != SnapshotSource::Published => {
                self.batch.gap(self.format.body, topic, self.owed.next, first - 1, reason);
                self.owed.next = first;
                true
            }
            _ => {
                match topic.usable_snapshot() {
                    Some(snapshot) => self.published(snapshot, reason),
                    None => {
                        let body = self.format.body;
                        self.batch.gap(body, topic, self.owed.next, topic.seq, reason);
                        self.owed.next = topic.seq + 1;
                        self.want_snapshot();
                    }
                }
                true
            }
        }
    }
}
