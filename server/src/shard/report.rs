//! Answers to the control thread's questions.
//!
//! Knows: what a shard can tell of itself. Must not know: HTTP.

use uringcast_ring::Io;

use super::Shard;
use crate::{
    conn::{Flags, Seat},
    ids::TopicId,
    mail::{Answer, ConnectionReport, Question, TopicReport},
};

/// Rows of one answer at most.
const ROWS_MAX: usize = 10_000;

impl<I: Io> Shard<I> {
    pub(super) fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Connections { limit, by_lag } => {
                Answer::Connections(self.report_connections(limit as usize, by_lag))
            }
            Question::Topic { topic } => {
                let hash = self.topics.names.hash(&topic);
                let found = self.topics.names.find(&topic, hash);
                Answer::Topics(found.map(|id| self.report_topic(id)).into_iter().collect())
            }
            Question::Topics { after, limit } => {
                let limit = (limit as usize).min(ROWS_MAX);
                let mut ids: Vec<_> = self
                    .topics
                    .names
                    .topics()
                    .filter(|(_, topic)| after.as_ref().is_none_or(|after| topic.name > *after))
                    .map(|(id, topic)| (&topic.name, id))
                    .collect();
                if ids.len() > limit {
                    ids.select_nth_unstable(limit);
                    ids.truncate(limit);
                }
                ids.sort_unstable();
                Answer::Topics(ids.into_iter().map(|(_, id)| self.report_topic(id)).collect())
            }
        }
    }

    fn report_topic(&self, id: TopicId) -> TopicReport {
        let topic = self.topics.names.topic(id);
        TopicReport {
            topic: topic.name.to_string(),
            kind: topic.kind.name(),
            epoch: format!("{:016x}", topic.epoch),
            seq: topic.seq,
            ts: topic.last().map_or(0, |last| last.ts_us()),
            last_bytes: topic.last().map_or(0, |last| last.payload_bytes() as u64),
            subscribers: self.topics.subscribers_of(id),
        }
    }

    fn report_connections(&self, limit: usize, by_lag: bool) -> Vec<ConnectionReport> {
        let limit = limit.min(ROWS_MAX);
        let mut ids: Vec<_> = self
            .connections
            .iter()
            .map(|(id, c)| {
                let lagging = c.flags.has(Flags::SWEEPING);
                ((!lagging, u64::MAX - self.backlog_bytes(id)), id)
            })
            .collect();
        if by_lag {
            ids.sort_unstable_by_key(|&(key, _)| key);
        }
        ids.truncate(limit);
        ids.into_iter()
            .filter_map(|(_, id)| {
                let connection = self.connections.find(id)?;
                let subscriptions = connection
                    .seat
                    .map_or(0, |Seat { lane, .. }| self.topics.lane(lane).interest.len() as u32);
                Some(ConnectionReport {
                    connection: self.connection_name(id),
                    peer: connection.client(),
                    proxied: connection.flags.has(Flags::NAMED),
                    path: connection.role.path(),
                    subscriptions,
                    backlog_bytes: self.backlog_bytes(id),
                    lagging: connection.flags.has(Flags::SWEEPING),
                    blocked: connection.flags.has(Flags::BLOCKED),
                })
            })
            .collect()
    }
}
