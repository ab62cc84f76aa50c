//! The round over event and delta topics.
//!
//! Knows: which topic's turn it is. Must not know: value topics.

use super::{Batch, LOOK_UP, Need, Owed, Round, Served, Sweep, serve::Server, topics_between};
use crate::{
    ids::TopicId,
    topics::{Topics, lane::Lane},
};

/// Where the round over event and delta topics stands.
#[derive(Debug, Default)]
pub(super) struct StreamRound {
    /// The next topic to look at.
    at: u32,
    /// The topic at `at` is served up to this number in this round, so that one which is published to
    /// faster than the subscriber reads does not keep the round from going on.
    until: Option<u64>,
}

impl StreamRound {
    /// A topic begins elsewhere.
    pub(super) fn restart(&mut self, topic: TopicId) {
        if topic.0 == self.at {
            self.until = None;
        }
    }

    fn move_to(&mut self, at: u32) {
        if at != self.at {
            self.until = None;
        }
        self.at = at;
    }
}

impl Topics {
    /// Goes on with the round until nothing is left, the batch is full, or about `looks` topics were
    /// looked at.
    pub(super) fn sweep_streams(
        &self,
        lane: &Lane,
        sweep: &mut Sweep,
        batch: &mut Batch,
        ids: &mut Vec<TopicId>,
        mut looks: usize,
    ) -> Round {
        let list = |entry| &self.names.entry(entry).streams[..];
        let start = sweep.streams.at;
        let mut behind = true;
        // Once more for what came while the batches before were on their way.
        while std::mem::take(&mut behind) {
            for range in [start..u32::MAX, 0..start] {
                let mut from = range.start;
                while from < range.end {
                    if looks == 0 {
                        return Round::Tired;
                    }
                    let end = topics_between(lane, list, from..range.end, LOOK_UP.min(looks), ids);
                    looks = looks.saturating_sub(ids.len());
                    for &id in ids.iter() {
                        if batch.is_full() {
                            sweep.streams.move_to(id.0);
                            return Round::Full;
                        }
                        sweep.streams.move_to(id.0);
                        match self.serve_stream(lane, sweep, id, batch) {
                            Served::Done => {}
                            Served::ForNow => behind = true,
                            Served::Partly => return Round::Full,
                            Served::Lost => return Round::Lost(id),
                        }
                        sweep.streams.move_to(id.0 + 1);
                    }
                    from = end;
                }
            }
        }
        Round::Through
    }

    fn serve_stream(
        &self,
        lane: &Lane,
        sweep: &mut Sweep,
        id: TopicId,
        batch: &mut Batch,
    ) -> Served {
        let topic = self.names.topic(id);
        // A topic that came to be meanwhile is owed from its beginning on.
        let fresh = Owed::all(id, topic);
        let at = sweep.owed.binary_search_by_key(&id, |owed| owed.topic).unwrap_or_else(|at| {
            sweep.owed.insert(at, fresh);
            at
        });
        let mut owed = sweep.owed[at];
        let awaited = owed.need == Need::Awaited;
        if owed.epoch != topic.epoch {
            owed = fresh;
        }
        let until = *sweep.streams.until.get_or_insert(topic.seq);
        let rule = self.rules.rule(topic.rule);
        let mut server = Server { topic, format: lane.format, batch, owed, until, sent: 0 };
        let served = server.serve(rule.overflow, rule.snapshot);
        let Server { owed, sent, .. } = server;
        sweep.sent += sent;
        sweep.awaited = sweep.awaited + u32::from(owed.need == Need::Awaited) - u32::from(awaited);
        sweep.owed[at] = owed;
        served
    }
}
