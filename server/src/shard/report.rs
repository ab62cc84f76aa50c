//! Answers to the control thread's questions.
//!
//! Knows: what a shard can tell of itself. Must not know: HTTP.

use std::{cmp::Reverse, time::Duration};

use uringcast_ring::Io;

use super::Shard;
use crate::{
    conn::{Flags, Seat},
    ids::{ConnectionId, TopicId},
    mail::{Answer, ConnectionReport, ConnectionState, Question, TopicReport},
    publication::Publication,
    topics::sweep::Sweep,
};

/// Rows of one answer at most.
const ROWS_MAX: usize = 10_000;
/// Topics looked at for one answer to find out how far subscribers are behind, at most: a few ms.
const OWED_LOOKS_MAX: usize = 1_000_000;

impl<I: Io> Shard<I> {
    pub(super) fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Connections { limit, by_lag } => {
                Answer::Connections(self.report_connections(limit as usize, by_lag))
            }
            Question::Topic { topic } => {
                let hash = self.topics.names.hash(&topic);
                let found = self.topics.names.find(&*topic, hash);
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
        let rule = self.topics.rule(topic.rule);
        let ts = topic.last().map_or(0, |last| last.ts_us());
        let silent_us = self.now.utc_us.saturating_sub(ts);
        let is_stale = |after: Duration| ts > 0 && u128::from(silent_us) > after.as_micros();
        TopicReport {
            topic: topic.name.to_string(),
            kind: topic.kind.name(),
            epoch: format!("{:016x}", topic.epoch),
            seq: topic.seq,
            ts,
            last_bytes: topic.last().map_or(0, |last| last.payload_bytes() as u64),
            subscribers: self.topics.subscribers_of(id),
            rule: self.shared.rule_name(topic.rule).pattern.clone(),
            history_messages: topic.history.len() as u64,
            history_bytes: topic.history.bytes(),
            first_seq: topic.history.first_seq(),
            snapshot_seq: topic.snapshot.as_ref().map(Publication::seq),
            snapshot_usable: topic.usable_snapshot().is_some(),
            stale_since: rule.stale_after.filter(|&after| is_stale(after)).map(|_| ts),
        }
    }

    fn report_connections(&self, limit: usize, by_lag: bool) -> Vec<ConnectionReport> {
        let limit = limit.min(ROWS_MAX);
        let mut ids: Vec<_> = self.connections.iter().map(|(id, _)| (Lag::default(), id)).collect();
        if by_lag {
            let mut looks = OWED_LOOKS_MAX;
            for (lag, id) in &mut ids {
                *lag = self.lag_of(*id, &mut looks);
            }
            ids.sort_unstable_by_key(|&(lag, _)| Reverse(lag));
        }
        ids.truncate(limit);
        let mut looks = OWED_LOOKS_MAX;
        ids.into_iter().filter_map(|(_, id)| self.report_connection(id, &mut looks)).collect()
    }

    /// How bad it is, to be compared: who was judged too slow is worse than who is only behind.
    fn lag_of(&self, id: ConnectionId, looks: &mut usize) -> Lag {
        let (sweep, bytes) = (self.sweeps.get(&id.index), self.backlog_bytes(id));
        let messages = sweep.map_or(0, |sweep| self.swept_behind(id, sweep, looks));
        Lag { swept: sweep.is_some(), messages, bytes }
    }

    fn report_connection(&self, id: ConnectionId, looks: &mut usize) -> Option<ConnectionReport> {
        let connection = self.connections.find(id)?;
        let seat = connection.seat;
        let interest = |seat: Seat| self.topics.lane(seat.lane).interest.len() as u32;
        let sweep = self.sweeps.get(&id.index);
        let blocked = connection.flags.has(Flags::BLOCKED);
        let behind_messages = match (sweep, seat) {
            (Some(sweep), _) => self.swept_behind(id, sweep, looks),
            (None, Some(Seat { lane, index })) if index != Seat::AWAY => {
                let lane = self.topics.lane(lane);
                lane.log.unsent(lane.subscribers[index as usize].cursor).count() as u64
            }
            _ => 0,
        };
        let state = match sweep {
            Some(sweep) if sweep.awaiting_in.is_some() => ConnectionState::AwaitingSnapshot,
            Some(sweep) if sweep.lagged => ConnectionState::Lagging,
            Some(_) => ConnectionState::CatchingUp,
            None if blocked => ConnectionState::Blocked,
            None => ConnectionState::Live,
        };
        Some(ConnectionReport {
            connection: self.connection_name(id),
            peer: connection.client(),
            proxied: connection.flags.has(Flags::NAMED),
            path: connection.role.path(),
            subscriptions: seat.map_or(0, interest),
            backlog_bytes: self.backlog_bytes(id),
            behind_messages,
            state,
            since: sweep.map(|sweep| sweep.since_us),
            lagging: sweep.is_some(),
            blocked,
        })
    }

    /// Messages that a sweep's subscriber has not been sent: all that it is owed, and what was
    /// published of its value topics since it left the log. Beyond so many looks only the latter.
    fn swept_behind(&self, id: ConnectionId, sweep: &Sweep, looks: &mut usize) -> u64 {
        let Some(seat) = self.connections.find(id).and_then(|c| c.seat) else { return 0 };
        let values: u64 = self.missed_values(sweep, seat.lane).iter().map(|(_, n)| n).sum();
        let owed = sweep.all_owed();
        let Some(left) = looks.checked_sub(owed.len()) else { return values };
        *looks = left;
        let unsent = owed.iter().filter_map(|owed| {
            let topic = self.topics.names.topic_if(owed.topic)?;
            (topic.epoch == owed.epoch).then(|| (topic.seq + 1).saturating_sub(owed.next))
        });
        values + unsent.sum::<u64>()
    }
}

/// How far a connection is behind; the last is the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Lag {
    swept: bool,
    messages: u64,
    bytes: u64,
}
