//! The round over value topics.
//!
//! Knows: up to which count of the shard's publications each part of the round was seen. Must not
//! know: event and delta topics.
//!
//! What was seen of a value topic, was seen at the shard's count of publications at that moment. One
//! count for the whole round would make the topics at the end look seen that were not, and starve
//! them; so each batch leaves a mark: from here to there, seen at this count.

use std::collections::VecDeque;

use super::{
    Batch, LOOK_UP, Need, Owed, Round, Served, Sweep, Told, serve::Server, topics_between,
};
use crate::{
    ids::TopicId,
    publication::Format,
    rules::Kind,
    topics::{Topics, lane::Lane, names::Topic, pace::View},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Topics below this number, from the mark before on.
    end: u32,
    /// Were seen at this count.
    seen: u64,
}

/// Where the round over value topics stands.
#[derive(Debug)]
pub(super) struct ValueRound {
    /// The next topic to look at.
    at: u32,
    /// From `at` to the highest number, and from 0 to `at`.
    marks: VecDeque<Mark>,
    /// The topic at `at`, which begins in history, is served up to this number in this round.
    until: Option<u64>,
}

impl ValueRound {
    /// All was seen at this count.
    pub(super) fn new(seen: u64) -> Self {
        Self { at: 0, marks: VecDeque::from([Mark { end: u32::MAX, seen }]), until: None }
    }

    /// A topic begins elsewhere.
    pub(super) fn restart(&mut self, topic: TopicId) {
        if topic.0 == self.at {
            self.until = None;
        }
    }

    pub(super) fn seen(&self, topic: TopicId) -> u64 {
        let mut from = self.at;
        for mark in &self.marks {
            if (from..mark.end).contains(&topic.0) {
                return mark.seen;
            }
            from = if mark.end == u32::MAX { 0 } else { mark.end };
        }
        0
    }

    #[cfg(test)]
    pub(super) fn marks_count(&self) -> usize {
        self.marks.len()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.marks.capacity() * size_of::<Mark>()
    }

    /// The topics from `at` up to `end` were looked at when `seen` publications had been counted.
    /// The mark that said when they were before has been taken out, or is the first.
    fn passed(&mut self, end: u32, seen: u64) {
        // Where the batch before ended in the same topic, nothing lies between.
        if end == self.at {
            return;
        }
        match self.marks.back_mut() {
            Some(last) if last.end == self.at && last.seen == seen => last.end = end,
            _ => self.marks.push_back(Mark { end, seen }),
        }
        self.at = if end == u32::MAX { 0 } else { end };
        self.until = None;
    }
}

impl Topics {
    /// Goes on with the round until everything in it was seen now, the batch is full, or about
    /// `looks` topics were looked at.
    pub(super) fn sweep_values(
        &self,
        lane: &Lane,
        sweep: &mut Sweep,
        batch: &mut Batch,
        ids: &mut Vec<TopicId>,
        mut looks: usize,
    ) -> Round {
        let now = self.count();
        let list = |entry| &self.names.entry(entry).topics[..];
        let mut old_marks = sweep.values.marks.len();
        let mut behind = false;
        if batch.is_full() {
            return Round::Full;
        }
        while old_marks > 0 {
            let mark = sweep.values.marks[0];
            let mut end = mark.end;
            // Of what was seen at this very count there is nothing newer.
            if mark.seen < now || !sweep.begun.is_empty() {
                if looks == 0 {
                    return Round::Tired;
                }
                let range = sweep.values.at..mark.end;
                end = topics_between(lane, list, range, LOOK_UP.min(looks), ids);
                looks = looks.saturating_sub(ids.len().max(1));
                for &id in ids.iter() {
                    let topic = self.names.topic(id);
                    if topic.kind != Kind::Value {
                        continue;
                    }
                    if id.0 != sweep.values.at {
                        sweep.values.until = None;
                    }
                    let served = self.serve_value(lane, sweep, (id, topic), mark.seen, batch);
                    behind |= matches!(served, Served::ForNow);
                    if matches!(served, Served::Partly) {
                        sweep.values.passed(id.0, now);
                        return Round::Full;
                    }
                    sweep.values.until = None;
                    if batch.is_full() {
                        sweep.values.passed(id.0 + 1, now);
                        return Round::Full;
                    }
                }
            }
            if end == mark.end {
                sweep.values.marks.pop_front();
                old_marks -= 1;
            }
            sweep.values.passed(end, now);
            if old_marks == 0 && std::mem::take(&mut behind) {
                // One more round, for what came while the batches before were on their way.
                old_marks = sweep.values.marks.len();
            }
        }
        Round::Through
    }

    fn serve_value(
        &self,
        lane: &Lane,
        sweep: &mut Sweep,
        (id, topic): (TopicId, &Topic),
        seen: u64,
        batch: &mut Batch,
    ) -> Served {
        let format = lane.format;
        if lane.sampled
            && let Some(view) = self.view_in(lane, id).filter(|view| view.entry.is_some())
        {
            return serve_view(format, sweep, topic, (id, seen), view, batch);
        }
        let Ok(at) = sweep.begun.binary_search_by_key(&id, |begun| begun.topic) else {
            if topic.last_count > seen
                && let Some(last) = topic.last()
            {
                batch.push(last, format);
                sweep.sent += 1;
                sweep.shown.add(topic.rule, 1);
            }
            return Served::Done;
        };
        let mut owed = sweep.begun[at];
        if owed.epoch != topic.epoch {
            owed = Owed::all(id, topic);
        }
        let until = *sweep.values.until.get_or_insert(topic.seq);
        let rule = self.rules.rule(topic.rule);
        let mut server = Server { topic, format, batch, owed, until, sent: 0 };
        let served = server.serve(rule.overflow, rule.snapshot);
        let Server { owed, sent, .. } = server;
        sweep.sent += sent;
        // What it resumes from is older than its sweep.
        let new = (owed.next.saturating_sub(sent)..owed.next)
            .filter(|&seq| topic.history.of_seq(seq).is_some_and(|p| p.count > sweep.began));
        sweep.shown.add(topic.rule, new.count() as u64);
        if matches!(served, Served::Done) {
            // From here on only the newest matters.
            sweep.begun.remove(at);
        } else {
            sweep.begun[at] = owed;
        }
        served
    }
}

/// A sampled entry's topic: of it there is what was shown last, and nothing else.
fn serve_view(
    format: Format,
    sweep: &mut Sweep,
    topic: &Topic,
    (id, seen): (TopicId, u64),
    view: View<'_>,
    batch: &mut Batch,
) -> Served {
    let found = sweep.begun.binary_search_by_key(&id, |begun| begun.topic).ok();
    let owed = found.map(|at| sweep.begun.remove(at)).filter(|owed| owed.epoch == topic.epoch);
    let Some(publication) = view.publication else { return Served::Done };
    match owed {
        Some(Owed { need: Need::Snapshot, .. }) => {
            batch.told.push((topic.rule, Told::Snapshot));
            batch.push_snapshot(publication, format.body);
        }
        Some(owed) if owed.next > view.seq() => {}
        None if view.at <= seen => {}
        _ => {
            batch.push(publication, format);
            sweep.sent += 1;
            if view.at > sweep.began {
                sweep.shown.add(topic.rule, 1);
            }
        }
    }
    Served::Done
}
