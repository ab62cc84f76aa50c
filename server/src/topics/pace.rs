//! When publications reach lanes and lanes are visited, where that is not at once.
//!
//! Knows: sampled entries, what each has last shown of its topics, batched lanes, deadlines. Must not
//! know: clocks, subscribers, why someone wants it so.
//!
//! A sampled entry shows the newest publication of a value topic at its tick. Between two ticks what
//! it shows is what it has shown last: a sweep and a snapshot send that, so that the tick brings
//! nothing twice. Nothing is kept of topics that nothing was published to since the tick but when
//! that was, and an entry all of whose topics are such has no deadline.

use std::{cmp::Reverse, collections::BinaryHeap};

use uringcast_protocol::limits::SAMPLE_MS_MIN;

use crate::{
    ids::{EntryId, LaneId, TopicId},
    publication::{Body, Publication},
    rules::{Kind, Overflow, Pace, RuleId, TopicRule},
    topics::{LagBounds, Topics, lane::Lane, queues::Queues},
};

/// What rules say of publications' way into lanes, small enough to be read with each.
#[derive(Clone, Copy, Debug)]
pub struct RulePace {
    /// Whose they are.
    pub rule: RuleId,
    /// What those who lag are not sent is counted.
    pub conflates: bool,
    /// Its topics are of values.
    pub is_value: bool,
    /// Its topics' subscribers are closed if they miss something, so they are kept in the log for as
    /// long as its bounds allow.
    pub keeps: bool,
    /// Lag bounds.
    pub lag: LagBounds,
    /// Lanes are visited every so often, ns; 0 for at once.
    pub batch_ns: u64,
    /// The home publishes the newest every so often, ns; 0 for all at once.
    pub sample_ns: u64,
    /// Who is subscribed is told when nothing was published for so long, ns; 0 for never.
    pub stale_ns: u64,
    /// The topic is forgotten when nothing was published for so long, ns; 0 for never.
    pub expire_ns: u64,
}

impl RulePace {
    pub(super) fn new(id: RuleId, rule: &TopicRule, lag: LagBounds) -> Self {
        let (batch_ns, sample_ns) = match rule.pace {
            Pace::Live => (0, 0),
            Pace::Batch(every) => (nanos(every), 0),
            Pace::Sample(every) => (0, nanos(every)),
        };
        let sample_ns = if rule.kind == Kind::Value { sample_ns } else { 0 };
        Self {
            rule: id,
            conflates: rule.kind == Kind::Value,
            is_value: rule.kind == Kind::Value,
            keeps: rule.kind == Kind::Event && rule.overflow == Overflow::Close,
            lag,
            batch_ns,
            sample_ns,
            stale_ns: rule.stale_after.map_or(0, nanos),
            expire_ns: rule.expire.map_or(0, nanos),
        }
    }
}

/// A time as a number, within what deadlines can be.
pub(super) fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4).clamp(1, u64::MAX / 4)
}

/// Deadlines of things that exist now and may not when they are due: whoever set one knows whether it
/// still holds.
#[derive(Debug)]
pub struct Deadlines<K>(BinaryHeap<Reverse<(u64, K)>>);

impl<K: Ord + Copy> Deadlines<K> {
    /// At `due_ns`.
    pub fn set(&mut self, due_ns: u64, key: K) {
        self.0.push(Reverse((due_ns, key)));
    }

    /// The next that is due, and when it was.
    pub fn pop(&mut self, now_ns: u64) -> Option<(u64, K)> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.0.pop().map(|Reverse(due)| due)
    }

    /// When the next is due, ns.
    pub fn next_ns(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// Drops those that do not hold any more once most of them must be such: there can be `most`.
    pub fn trim(&mut self, most: usize, holds: impl Fn(u64, K) -> bool) {
        if self.0.len() > TRIM_FROM + 2 * most {
            self.0.retain(|&Reverse((due_ns, key))| holds(due_ns, key));
        }
    }
}

/// So many deadlines that do not hold any more are not worth looking for.
const TRIM_FROM: usize = 1_024;

impl<K: Ord> Default for Deadlines<K> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

/// The first tick after `now_ns` of those every `period_ns`. `phase` spreads what has one period.
pub fn next_tick_ns(now_ns: u64, period_ns: u64, phase: u64) -> u64 {
    let since = (now_ns % period_ns + period_ns - phase % period_ns) % period_ns;
    now_ns + (period_ns - since)
}

/// What a wish of so many ms is granted: two significant digits of it, so that wishes that hardly
/// differ share their lanes, and no name has more than some hundred paces.
pub fn granted_ms(wanted_ms: u32) -> u32 {
    let wanted_ms = wanted_ms.max(SAMPLE_MS_MIN);
    let step = 10_u32.pow(wanted_ms.ilog10() - 1);
    wanted_ms / step * step
}

/// An entry's pace.
#[derive(Debug)]
pub struct Sampled {
    /// The newest every so often, ms.
    pub ms: u32,
    /// When the next tick is; 0 while there is nothing to show.
    pub due_ns: u64,
    /// What was published to since the tick, in that order.
    dirty: Vec<Dirty>,
    /// By the entry's topics, in their order.
    shown: Vec<Shown>,
}

#[derive(Debug)]
struct Dirty {
    topic: TopicId,
    /// What was shown last.
    shown: Option<Publication>,
}

/// When a topic was last shown.
#[derive(Clone, Copy, Debug)]
struct Shown {
    /// The shard's count then.
    at: u64,
    /// Its place among the dirty, or [`CLEAN`].
    dirty: u32,
}

const CLEAN: u32 = u32::MAX;

impl Sampled {
    /// For an entry with topics that were last published to at these counts: what is there now counts
    /// as shown.
    pub(super) fn new(ms: u32, last_counts: impl Iterator<Item = u64>) -> Self {
        let shown = last_counts.map(|at| Shown { at, dirty: CLEAN }).collect();
        Self { ms, due_ns: 0, dirty: Vec::new(), shown }
    }

    /// What was published to since the tick.
    pub fn dirty(&self) -> impl Iterator<Item = TopicId> + '_ {
        self.dirty.iter().map(|dirty| dirty.topic)
    }

    /// The entry has a topic more, at this place.
    pub(super) fn insert(&mut self, place: usize) {
        self.shown.insert(place, Shown { at: 0, dirty: CLEAN });
    }

    /// The topic at this place is no more. `place_of` finds others' places.
    pub(super) fn remove(&mut self, place: usize, place_of: impl Fn(TopicId) -> Option<usize>) {
        self.clean(place, place_of);
        self.shown.remove(place);
    }

    fn mark(&mut self, place: usize, topic: TopicId, last: Option<&Publication>) -> bool {
        if self.shown[place].dirty != CLEAN {
            return false;
        }
        self.shown[place].dirty = self.dirty.len() as u32;
        self.dirty.push(Dirty { topic, shown: last.cloned() });
        true
    }

    fn clean(&mut self, place: usize, place_of: impl Fn(TopicId) -> Option<usize>) {
        let at = std::mem::replace(&mut self.shown[place].dirty, CLEAN) as usize;
        if at == CLEAN as usize {
            return;
        }
        self.dirty.swap_remove(at);
        if let Some(place) = self.dirty.get(at).and_then(|moved| place_of(moved.topic)) {
            self.shown[place].dirty = at as u32;
        }
    }
}

/// What subscribers of an interest see of a value topic.
#[derive(Clone, Copy, Debug)]
pub struct View<'t> {
    /// The sampled entry by which they are served; `None` for live.
    pub entry: Option<EntryId>,
    /// The shard's count when it was shown.
    pub at: u64,
    /// What was shown last.
    pub publication: Option<&'t Publication>,
}

impl View<'_> {
    /// The number of what was shown last; 0 for nothing.
    pub fn seq(&self) -> u64 {
        self.publication.map_or(0, Publication::seq)
    }
}

impl Topics {
    /// What subscribers of these entries (rising) see of a topic; `None` if none of them matches it.
    /// The fastest entry that matches serves it.
    pub fn view(&self, entries: &[EntryId], id: TopicId) -> Option<View<'_>> {
        self.view_by(id, |entry| entries.binary_search(&entry).is_ok())
    }

    /// The same for the subscribers of a lane.
    pub(super) fn view_in(&self, lane: &Lane, id: TopicId) -> Option<View<'_>> {
        self.view_by(id, |entry| lane.has(entry))
    }

    fn view_by(&self, id: TopicId, has: impl Fn(EntryId) -> bool) -> Option<View<'_>> {
        let topic = self.names.topic(id);
        let live = View { entry: None, at: topic.last_count, publication: topic.last() };
        let mine = topic.entries.iter().copied().filter(|&entry| has(entry));
        let (ms, entry) = mine.map(|e| (self.names.entry(e).sample_ms(), e)).min()?;
        if ms == 0 || topic.kind != Kind::Value {
            return Some(live);
        }
        let known = self.names.entry(entry);
        let (Some(sampled), Ok(place)) = (&known.sampled, known.topics.binary_search(&id)) else {
            return Some(live);
        };
        let Shown { at, dirty } = sampled.shown[place];
        let publication = match sampled.dirty.get(dirty as usize) {
            Some(dirty) => dirty.shown.as_ref(),
            None => live.publication,
        };
        Some(View { entry: Some(entry), at, publication })
    }

    /// A topic is about to have a new last publication: the sampled entries that match it show it at
    /// their ticks.
    pub(super) fn mark_dirty(&mut self, id: TopicId, now_ns: u64) {
        let (topic, entries) = self.names.topic_and_entries(id);
        for &entry_id in &topic.entries {
            let Some(entry) = entries.get_mut(entry_id.0 as usize) else { continue };
            let hash = entry.name_hash();
            let (Some(sampled), Ok(place)) = (&mut entry.sampled, entry.topics.binary_search(&id))
            else {
                continue;
            };
            if sampled.mark(place, id, topic.last()) && sampled.due_ns == 0 {
                let period_ns = u64::from(sampled.ms) * 1_000_000;
                sampled.due_ns = next_tick_ns(now_ns, period_ns, hash);
                self.ticks.set(sampled.due_ns, entry_id);
            }
        }
    }

    /// The next entry whose tick is due; everyone may have to be told by [`Self::tick`].
    pub fn next_tick(&mut self, now_ns: u64) -> Option<EntryId> {
        while let Some((due_ns, id)) = self.ticks.pop(now_ns) {
            if self.names.entry_if(id).is_some_and(|entry| entry.due_ns() == due_ns) {
                return Some(id);
            }
        }
        let (most, names) = (self.names.entries_count(), &self.names);
        self.ticks.trim(most, |due_ns, id| {
            names.entry_if(id).is_some_and(|entry| entry.due_ns() == due_ns)
        });
        None
    }

    /// An entry's tick: its lanes have the newest of what was published to since the last one. Returns
    /// how many topics that were.
    pub fn tick(&mut self, id: EntryId, now_ns: u64) -> u64 {
        let Some(sampled) = &mut self.names.entry_mut(id).sampled else { return 0 };
        sampled.due_ns = 0;
        let mut dirty = std::mem::take(&mut sampled.dirty);
        for Dirty { topic, .. } in &dirty {
            self.count += 1;
            let entry = self.names.entry_mut(id);
            if let (Some(sampled), Ok(place)) =
                (&mut entry.sampled, entry.topics.binary_search(topic))
            {
                sampled.shown[place] = Shown { at: self.count, dirty: CLEAN };
            }
            self.append_shown(id, *topic, now_ns);
        }
        let topics = dirty.len() as u64;
        dirty.clear();
        if let Some(sampled) = &mut self.names.entry_mut(id).sampled {
            sampled.dirty = dirty;
        }
        topics
    }

    /// Brings one topic's tick of an entry forward, if anything was published since the last.
    pub fn show(&mut self, id: EntryId, topic: TopicId, now_ns: u64) {
        let entry = self.names.entry_mut(id);
        let (Some(sampled), Ok(place)) = (&mut entry.sampled, entry.topics.binary_search(&topic))
        else {
            return;
        };
        if sampled.shown[place].dirty == CLEAN {
            return;
        }
        let topics = &entry.topics;
        sampled.clean(place, |other| topics.binary_search(&other).ok());
        self.count += 1;
        sampled.shown[place].at = self.count;
        self.append_shown(id, topic, now_ns);
    }

    /// The same for all entries of a topic: it is about to be forgotten.
    pub fn show_all(&mut self, topic: TopicId, now_ns: u64) {
        if self.names.topic(topic).sampled == 0 {
            return;
        }
        for entry in self.names.topic(topic).entries.clone() {
            self.show(entry, topic, now_ns);
        }
    }

    /// The same for all that waits: the process is to end.
    pub fn show_everything(&mut self, now_ns: u64) {
        while let Some(entry) = self.next_tick(u64::MAX) {
            self.tick(entry, now_ns);
        }
    }

    /// Appends a topic's last publication to an entry's lanes, but for those that another entry of
    /// theirs serves faster. It has a count of its own, so that counts rise in every log.
    fn append_shown(&mut self, id: EntryId, topic: TopicId, now_ns: u64) {
        let state = self.names.topic(topic);
        let Some(publication) = state.last() else { return };
        let pace = &self.paces[usize::from(state.rule.0)];
        let entry = self.names.entry(id);
        let rank = (entry.sample_ms(), id);
        for &lane_id in &entry.lanes {
            let lane = &self.lanes[lane_id.0 as usize];
            let faster = |&other: &EntryId| {
                (self.names.entry(other).sample_ms(), other) < rank && lane.has(other)
            };
            if lane.interest.len() > 1 && state.entries.iter().any(faster) {
                continue;
            }
            let (lanes, memory) = (&mut self.lanes, &mut self.memory);
            let mut queues = Queues { lines: &mut self.lines, appended: &mut self.appended };
            let lane = &mut lanes[lane_id.0 as usize];
            let appended = lane.append(publication, topic, self.count, now_ns, memory);
            queues.settle(lane_id, lane, appended, pace, now_ns);
        }
    }

    /// Puts the lanes into their queues whose batches are due by `due_by_ns`.
    pub fn run_batches(&mut self, due_by_ns: u64, now_ns: u64) {
        while let Some((due_ns, id)) = self.lines.due.pop(due_by_ns) {
            let Some(lane) = self.lanes.get_mut(id.0 as usize) else { continue };
            if lane.batch.due_ns == due_ns {
                lane.begin_batch(now_ns);
                self.enqueue(id, now_ns);
            }
        }
        let lanes = &self.lanes;
        self.lines.due.trim(lanes.len(), |due_ns, id| {
            lanes.get(id.0 as usize).is_some_and(|lane| lane.batch.due_ns == due_ns)
        });
    }

    /// When the next tick or batch is due, ns.
    pub fn next_due_ns(&self) -> Option<u64> {
        [self.ticks.next_ns(), self.lines.due.next_ns(), self.stale_checks.next_ns()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next topic to which nothing was published for so long that its subscribers are told.
    pub fn next_stale(&mut self, now_ns: u64) -> Option<TopicId> {
        while let Some((due_ns, id)) = self.stale_checks.pop(now_ns) {
            let Some(topic) = self.names.topic_if(id) else { continue };
            if topic.stale_check_ns != due_ns {
                continue;
            }
            let stale_ns = topic.last_ns + self.paces[usize::from(topic.rule.0)].stale_ns;
            if stale_ns <= now_ns {
                self.names.topic_mut(id).stale_check_ns = 0;
                return Some(id);
            }
            self.names.topic_mut(id).stale_check_ns = stale_ns;
            self.stale_checks.set(stale_ns, id);
        }
        let (most, names) = (self.names.topics_count(), &self.names);
        self.stale_checks.trim(most, |due_ns, id| {
            names.topic_if(id).is_some_and(|topic| topic.stale_check_ns == due_ns)
        });
        None
    }

    /// Since when nothing was published, µs UTC, if that is for longer than the topic's rule allows.
    pub fn stale_since_us(&self, id: TopicId, now_ns: u64) -> Option<u64> {
        let topic = self.names.topic(id);
        let stale_ns = self.paces[usize::from(topic.rule.0)].stale_ns;
        let is_stale = stale_ns > 0 && topic.last_ns + stale_ns <= now_ns;
        topic.last().filter(|_| is_stale).map(Publication::ts_us)
    }

    /// Appends the server's own words on a topic to every lane that has it, once each. `notice` gives
    /// them by format; `None` where the format has no place for them.
    pub fn notify(
        &mut self,
        id: TopicId,
        now_ns: u64,
        notice: impl Fn(Body) -> Option<Vec<u8>>,
    ) -> bool {
        let topic = self.names.topic(id);
        // It is nothing that could be conflated.
        let pace = RulePace { conflates: false, ..self.paces[usize::from(topic.rule.0)] };
        let mut lanes: Vec<LaneId> = topic
            .entries
            .iter()
            .flat_map(|&entry| self.names.entry(entry).lanes.iter().copied())
            .collect();
        lanes.sort_unstable();
        lanes.dedup();
        for &lane_id in &lanes {
            let lane = &mut self.lanes[lane_id.0 as usize];
            let Some(bytes) = notice(lane.format.body) else { continue };
            let appended = lane.append_notice(&bytes, id, now_ns, &mut self.memory);
            let mut queues = Queues { lines: &mut self.lines, appended: &mut self.appended };
            queues.settle(lane_id, lane, appended, &pace, now_ns);
        }
        !lanes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_aligned_and_ahead() {
        for (now, phase, tick) in [(0, 0, 10), (9, 0, 10), (10, 0, 20), (3, 4, 4), (4, 14, 14)] {
            assert_eq!(next_tick_ns(now, 10, phase), tick, "{now} {phase}");
        }
        assert!(next_tick_ns(u64::MAX / 2, 7, u64::MAX) > u64::MAX / 2);
    }

    #[test]
    fn paces_are_granted_to_two_digits_and_never_slower() {
        let wishes = [(1, 10), (10, 10), (99, 99), (250, 250), (333, 330), (60_000, 60_000)];
        for (wanted_ms, granted) in wishes {
            assert_eq!(granted_ms(wanted_ms), granted);
        }
        let paces: std::collections::BTreeSet<_> = (10..=60_000).map(granted_ms).collect();
        assert!(paces.len() < 350, "{}", paces.len());
    }

    #[test]
    fn deadlines_that_do_not_hold_are_dropped_in_the_end() {
        let mut deadlines = Deadlines::default();
        for key in 0..10_000_u32 {
            deadlines.set(u64::from(10_000 - key), key);
            deadlines.trim(10, |_, other| other == key);
        }
        assert!(deadlines.0.len() <= TRIM_FROM + 21);
        assert_eq!((deadlines.next_ns(), deadlines.pop(0)), (Some(1), None));
        assert_eq!(deadlines.pop(1), Some((1, 9_999)));
    }
}
