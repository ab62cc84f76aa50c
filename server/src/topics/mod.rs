//! To whom: topics, the patterns that match them, interests, and the lanes that carry them.
//!
//! Knows: names, patterns, interests, lanes and their logs, last values. Must not know: sockets,
//! sessions, the ring's operations, or connections beyond their numbers.

mod ages;
pub mod history;
pub mod lane;
pub mod log;
#[cfg(test)]
mod model;
pub mod names;
pub mod pace;
mod queues;
mod repace;
pub mod sweep;
pub mod tally;
mod tokens;

use std::{
    borrow::Cow,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;
use slab::Slab;
use uringcast_protocol::topic_name::Pattern;
use uringcast_ring::pool::Pool;

use crate::{
    census::Census,
    ids::{EntryId, LaneId, TopicId},
    publication::{Body, Format, Publication},
    rules::{RuleId, Rules},
    topics::{
        history::Past,
        lane::{Lane, Member},
        log::LogMemory,
        names::{Full, Names},
        pace::{Deadlines, RulePace},
        queues::{Lines, Queues},
    },
};

/// What appending a publication did.
#[derive(Debug, Default)]
pub struct Appended {
    /// Lanes that could not take it: the pool is at its bound.
    pub failed: Vec<LaneId>,
    /// Lanes in which a blocked subscriber may have passed its lag bound.
    pub lagging: Vec<LaneId>,
    /// Lanes with something new, of which some subscribers' sweeps wait for that.
    pub awaited: Vec<LaneId>,
}

/// The lag bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagBounds {
    /// Bytes appended since the socket was full.
    pub bytes_max: u64,
    /// Messages appended since the socket was full.
    pub messages_max: u64,
    /// For so long the socket was full and what was there then is not sent, ns.
    pub age_ns_max: u64,
}

impl LagBounds {
    /// Of a lane to which nothing was appended yet.
    pub const NONE: Self =
        Self { bytes_max: u64::MAX, messages_max: u64::MAX, age_ns_max: u64::MAX };

    /// The smallest of each.
    pub fn lower(&mut self, other: Self) {
        self.bytes_max = self.bytes_max.min(other.bytes_max);
        self.messages_max = self.messages_max.min(other.messages_max);
        self.age_ns_max = self.age_ns_max.min(other.age_ns_max);
    }
}

/// A shard's topics.
#[derive(Debug)]
pub struct Topics {
    /// Names and entries.
    pub names: Names,
    /// What the lanes' logs share.
    pub memory: LogMemory,
    /// Filled by [`Self::publish`]; the shard acts on it and clears it.
    pub appended: Appended,
    lanes: Slab<Lane>,
    lanes_by_interest: HashTable<u32>,
    lanes_max: usize,
    /// Lanes of Server-Sent Events.
    event_lanes: usize,
    rules: Rules,
    /// By rule.
    paces: Vec<RulePace>,
    census: Arc<Census>,
    /// Lanes with something to send.
    lines: Lines,
    /// The sampled entries' ticks.
    ticks: Deadlines<EntryId>,
    /// When topics are looked at whether they are silent for too long.
    stale_checks: Deadlines<TopicId>,
    /// The count when a topic was last forgotten.
    forgotten_count: u64,
    /// Publications appended on this shard, and once more for each that a sampled entry showed.
    count: u64,
    interest_seeds: [RandomState; 2],
}

impl Topics {
    /// None yet. `census` counts the process's deflated lanes.
    pub fn new(
        names: Names,
        pool: Pool,
        lanes_max: u32,
        lag: LagBounds,
        rules: Rules,
        census: Arc<Census>,
    ) -> Self {
        let lag_of = |rule: &crate::rules::TopicRule| LagBounds {
            bytes_max: rule.lag_bytes_max.unwrap_or(lag.bytes_max),
            messages_max: rule.lag_messages_max.unwrap_or(lag.messages_max),
            age_ns_max: rule.lag_age_max.map_or(u64::MAX, pace::nanos),
        };
        Self {
            paces: (0..)
                .map(RuleId)
                .zip(rules.iter())
                .map(|(id, rule)| RulePace::new(id, rule, lag_of(rule)))
                .collect(),
            rules,
            names,
            memory: LogMemory::new(pool),
            appended: Appended::default(),
            lanes: Slab::new(),
            lanes_by_interest: HashTable::new(),
            lanes_max: lanes_max as usize,
            event_lanes: 0,
            census,
            lines: Lines::default(),
            ticks: Deadlines::default(),
            stale_checks: Deadlines::default(),
            forgotten_count: 0,
            count: 0,
            interest_seeds: [RandomState::new(), RandomState::new()],
        }
    }

    /// Publications appended on this shard.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many lanes there are.
    pub fn lanes_count(&self) -> usize {
        self.lanes.len()
    }

    /// A lane that exists.
    pub fn lane(&self, id: LaneId) -> &Lane {
        &self.lanes[id.0 as usize]
    }

    /// A lane, if it exists.
    pub fn lane_if(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(id.0 as usize)
    }

    /// A lane that exists, to be changed, and the memory that its log needs for that.
    pub fn lane_mut(&mut self, id: LaneId) -> (&mut Lane, &mut LogMemory) {
        (&mut self.lanes[id.0 as usize], &mut self.memory)
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        self.lanes.iter().map(|(key, lane)| (LaneId(key as u32), lane))
    }

    /// Appends an ordered publication of `topic` to every lane that wants it, and makes it the
    /// topic's last value. [`Self::appended`] says what else there is to do. Returns one of
    /// them that is late, if any is: the topic's publishers are too fast for it.
    pub fn publish(
        &mut self,
        id: TopicId,
        publication: &Publication,
        now_ns: u64,
    ) -> Option<LaneId> {
        self.count += 1;
        let publication = &*self.with_event(publication);
        let topic = self.names.topic(id);
        let rule = topic.rule;
        let (is_sampled, is_checked) = (topic.sampled > 0, topic.stale_check_ns > 0);
        if is_sampled {
            self.mark_dirty(id, now_ns);
        }
        let pace = &self.paces[usize::from(rule.0)];
        if pace.stale_ns > 0 && !is_checked {
            let check_ns = now_ns + pace.stale_ns;
            self.names.topic_mut(id).stale_check_ns = check_ns;
            self.stale_checks.set(check_ns, id);
        }
        let past = Past { count: self.count, publication: publication.clone() };
        self.names.push(id, past, &self.rules.rule(rule).history, now_ns);
        let mut queues = Queues { lines: &mut self.lines, appended: &mut self.appended };
        let mut late = None;
        let topic = self.names.topic(id);
        for &entry in &topic.entries {
            let entry = self.names.entry(entry);
            if is_sampled && entry.sampled.is_some() {
                continue;
            }
            for &lane_id in &entry.lanes {
                let lane = &mut self.lanes[lane_id.0 as usize];
                if now_ns < lane.late_until_ns {
                    late = Some(lane_id);
                }
                let appended = lane.append(publication, id, self.count, now_ns, &mut self.memory);
                queues.settle(lane_id, lane, appended, pace, now_ns);
            }
        }
        late
    }

    /// Adds a publication of before the process to a topic's history; it goes to nobody.
    pub fn restore(&mut self, id: TopicId, publication: Publication, now_ns: u64) {
        self.count += 1;
        let rule = self.names.topic(id).rule;
        let past = Past { count: self.count, publication };
        self.names.push(id, past, &self.rules.rule(rule).history, now_ns);
    }

    /// With an event to be referred to, if it is large and that is wanted.
    fn with_event<'p>(&mut self, publication: &'p Publication) -> Cow<'p, Publication> {
        if self.event_lanes == 0 || !publication.is_large() {
            return Cow::Borrowed(publication);
        }
        let cursor = self.memory.cursor_us;
        let made = publication.with_event(&mut self.memory.pool, cursor);
        // A lane that finds no room either is told by its log.
        made.map_or(Cow::Borrowed(publication), Cow::Owned)
    }

    /// A publisher's snapshot of a topic: it goes to nobody but those who wait for it.
    pub fn keep_snapshot(&mut self, id: TopicId, snapshot: Publication) {
        let snapshot = self.with_event(&snapshot).into_owned();
        let topic = self.names.topic_mut(id);
        topic.snapshot = Some(snapshot);
        let topic = self.names.topic(id);
        for &entry in &topic.entries {
            for &lane_id in &self.names.entry(entry).lanes {
                let lane = &mut self.lanes[lane_id.0 as usize];
                if !lane.awaiting.is_empty() && !std::mem::replace(&mut lane.awaited, true) {
                    self.appended.awaited.push(lane_id);
                }
            }
        }
    }

    /// A rule.
    pub fn rule(&self, id: RuleId) -> &crate::rules::TopicRule {
        self.rules.rule(id)
    }

    /// What a rule says of publications' way into lanes.
    pub fn pace(&self, id: RuleId) -> &RulePace {
        &self.paces[usize::from(id.0)]
    }

    /// Puts a lane into its queue if it has something to send, or sets the time at which it goes
    /// there.
    pub fn enqueue(&mut self, id: LaneId, now_ns: u64) {
        let Some(lane) = self.lanes.get_mut(id.0 as usize) else { return };
        self.lines.add(id, lane, now_ns);
    }

    /// The same for the sake of a subscriber that has room again.
    pub fn enqueue_for(&mut self, id: LaneId, index: u32, now_ns: u64) {
        if let Some(due_ns) = self.lanes[id.0 as usize].hurry(index, now_ns) {
            self.lines.due.set(due_ns, id);
        }
        self.enqueue(id, now_ns);
    }

    /// Forgets a topic. Who is subscribed to its name stays subscribed.
    pub fn forget(&mut self, id: TopicId) {
        self.forgotten_count = self.count;
        self.names.remove(id);
    }

    /// Whether any lane has something to send now.
    pub fn has_pending(&self) -> bool {
        !self.lines.few.is_empty() || !self.lines.many.is_empty()
    }

    /// Whose slice it is: lanes of many subscribers, or of few, by turns; as many lanes as it takes for
    /// so many visits. The lanes leave their queue; [`Self::enqueue`] puts back those that have more.
    pub fn slice(&mut self, visits: usize, out: &mut Vec<LaneId>) {
        out.clear();
        let lines = &mut self.lines;
        let many = lines.few.is_empty() || !lines.many.is_empty() && lines.many_next;
        lines.many_next = !many;
        let queue = if many { &mut lines.many } else { &mut lines.few };
        let mut left = visits as u64;
        while left > 0
            && let Some(id) = queue.pop_front()
        {
            // A lane that ended is still named here, and a new one may have its number: that one stands
            // in the queue too if it is queued, but must have one turn only.
            if let Some(lane) = self.lanes.get_mut(id.0 as usize)
                && std::mem::take(&mut lane.queued)
            {
                left = left.saturating_sub(u64::from(lane.pending_count()).max(1));
                out.push(id);
            }
        }
    }

    /// Puts a lane that had no room in its slice back to the front.
    pub fn requeue_front(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id.0 as usize) else { return };
        if lane.queued || !lane.is_pending() {
            return;
        }
        lane.queued = true;
        self.lines.queue_of(lane).push_front(id);
    }

    /// The entry of a name or pattern at a pace (0: live), made if need be. Without a lane it must be
    /// given back by [`Names::release`].
    ///
    /// # Errors
    /// There are as many patterns as may be.
    pub fn entry_for(&mut self, pattern: &Pattern, sample_ms: u32) -> Result<EntryId, Full> {
        self.names.entry_for(pattern, sample_ms)
    }

    fn interest_hash<'a>(&self, entries: impl Iterator<Item = &'a EntryId>) -> u128 {
        entries.fold(0_u128, |sum, entry| {
            let high = u128::from(self.interest_seeds[0].hash_one(entry.0));
            let low = u128::from(self.interest_seeds[1].hash_one(entry.0));
            sum.wrapping_add(high << 64 | low)
        })
    }

    /// The lane of an interest (entries by rising number, at least one), made if need be.
    ///
    /// # Errors
    /// There are as many lanes as may be.
    pub fn lane_for(&mut self, entries: &[EntryId], format: Format) -> Result<LaneId, Full> {
        debug_assert!(entries.is_sorted() && !entries.is_empty(), "interests are sorted sets");
        let hash = self.interest_hash(entries.iter());
        if let Some(id) = self.find_lane(hash, entries, format) {
            return Ok(id);
        }
        if self.lanes.len() >= self.lanes_max {
            return Err(Full);
        }
        let id = LaneId(self.lanes.vacant_key() as u32);
        let interest = entries.iter().map(|&entry| self.add_member(entry, id, format)).collect();
        let mut lane = Lane::new(format, interest, hash);
        lane.sampled = self.has_sampled(entries);
        self.lanes.insert(lane);
        self.event_lanes += usize::from(format.body == Body::Sse);
        self.index_lane(id, hash);
        Ok(id)
    }

    /// Whether any of these entries is sampled.
    pub fn has_sampled(&self, entries: &[EntryId]) -> bool {
        entries.iter().any(|&entry| self.names.entry(entry).sampled.is_some())
    }

    fn find_lane(&self, hash: u128, entries: &[EntryId], format: Format) -> Option<LaneId> {
        self.lanes_by_interest
            .find(hash as u64, |&key| {
                let lane = &self.lanes[key as usize];
                lane.interest_hash == hash
                    && lane.format == format
                    && lane.interest.iter().map(|m| m.entry).eq(entries.iter().copied())
            })
            .map(|&key| LaneId(key))
    }

    fn index_lane(&mut self, id: LaneId, hash: u128) {
        let lanes = &self.lanes;
        self.lanes_by_interest
            .insert_unique(hash as u64, id.0, |&key| lanes[key as usize].interest_hash as u64);
    }

    fn unindex_lane(&mut self, id: LaneId) {
        let hash = self.lanes[id.0 as usize].interest_hash as u64;
        if let Ok(found) = self.lanes_by_interest.find_entry(hash, |&key| key == id.0) {
            found.remove();
        }
    }

    fn add_member(&mut self, entry: EntryId, lane: LaneId, format: Format) -> Member {
        let known = self.names.entry_mut(entry);
        self.census.add(known.exact_hash(), format);
        let lanes = &mut known.lanes;
        lanes.push(lane);
        Member { entry, place: lanes.len() as u32 - 1 }
    }

    /// Takes a lane out of an entry's list; the lane that takes over its place learns so.
    fn remove_member(&mut self, member: Member, format: Format) {
        let known = self.names.entry_mut(member.entry);
        self.census.remove(known.exact_hash(), format);
        let lanes = &mut known.lanes;
        lanes.swap_remove(member.place as usize);
        if let Some(&moved) = lanes.get(member.place as usize) {
            let interest = &mut self.lanes[moved.0 as usize].interest;
            if let Ok(at) = interest.binary_search_by_key(&member.entry, |m| m.entry) {
                interest[at].place = member.place;
            }
        }
        self.names.release(member.entry);
    }

    /// Gives a lane another interest, in place: only for a lane that one connection has, and only
    /// where no other lane has that interest. `false` if one has.
    pub fn change_interest(&mut self, id: LaneId, entries: &[EntryId]) -> bool {
        let hash = self.interest_hash(entries.iter());
        let format = self.lanes[id.0 as usize].format;
        if entries.is_empty() || self.find_lane(hash, entries, format).is_some() {
            return false;
        }
        self.unindex_lane(id);
        let old = std::mem::take(&mut self.lanes[id.0 as usize].interest);
        let kept = |entry: &EntryId| old.binary_search_by_key(entry, |m| m.entry);
        let mut interest = Vec::with_capacity(entries.len());
        for entry in entries {
            interest.push(match kept(entry) {
                Ok(at) => old[at],
                Err(_) => self.add_member(*entry, id, format),
            });
        }
        self.lanes[id.0 as usize].interest = interest;
        for gone in old.iter().filter(|m| entries.binary_search(&m.entry).is_err()) {
            // The place may have moved since `old` was taken: the list itself knows.
            let lanes = &self.names.entry(gone.entry).lanes;
            if let Some(place) = lanes.iter().position(|&lane| lane == id) {
                let member = Member { entry: gone.entry, place: place as u32 };
                self.remove_member(member, format);
            }
        }
        let sampled = self.has_sampled(entries);
        let lane = &mut self.lanes[id.0 as usize];
        lane.interest_hash = hash;
        lane.sampled = sampled;
        lane.lag = LagBounds::NONE;
        lane.keeps = false;
        lane.settled = None;
        lane.batch.every_ns = u64::MAX;
        self.index_lane(id, hash);
        true
    }

    /// Drops a lane that nobody needs any more, and the entries that only it had.
    pub fn release_lane(&mut self, id: LaneId) {
        if self.lanes.get(id.0 as usize).is_none_or(|lane| !lane.is_unused()) {
            return;
        }
        self.unindex_lane(id);
        let mut lane = self.lanes.remove(id.0 as usize);
        self.event_lanes -= usize::from(lane.format.body == Body::Sse);
        lane.log.clear(&mut self.memory);
        for &member in &lane.interest {
            self.remove_member(member, lane.format);
        }
    }

    /// How many subscribers a topic has, by whatever entry; each once.
    pub fn subscribers_of(&self, id: TopicId) -> u64 {
        let mut lanes: Vec<_> = self
            .names
            .topic(id)
            .entries
            .iter()
            .flat_map(|&entry| self.names.entry(entry).lanes.iter().copied())
            .collect();
        lanes.sort_unstable();
        lanes.dedup();
        lanes
            .iter()
            .map(|&lane| self.lane(lane))
            .map(|lane| lane.subscribers.len() as u64 + u64::from(lane.sweeping))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use uringcast_protocol::opcode::Opcode;
    use uringcast_ring::pool::Pool;

    use super::*;
    use crate::{
        publication::{self, Order, PayloadContent},
        rules::{Content, Kind},
        topics::names::TopicTerms,
    };

    fn subscribed(topics: &mut Topics, connection: u32) -> LaneId {
        let pattern = Pattern::parse("t").expect("a name");
        let entry = topics.entry_for(&pattern, 0).expect("room");
        let lane = topics.lane_for(&[entry], Format::RAW).expect("room");
        let index = topics.lane_mut(lane).0.join(connection, connection);
        topics.lane_mut(lane).0.hold(index, false);
        lane
    }

    fn publish(topics: &mut Topics, topic: TopicId, seq: u64) {
        let pool = &mut topics.memory.pool;
        let draft = publication::draft(pool, "t", 1, PayloadContent::Json, Opcode::Text, b"1");
        let order = Order { epoch: 1, seq, ts_us: 0, pub_seq: None, snapshot: false };
        let publication =
            publication::order(pool, draft.expect("room"), order, &mut Vec::new()).expect("room");
        topics.publish(topic, &publication, 1);
    }

    /// Regression: two visits in one batch would have sent everything twice.
    #[test]
    fn a_lane_that_takes_over_a_number_has_one_turn() {
        let lag = LagBounds { bytes_max: 1 << 20, messages_max: 1 << 20, ..LagBounds::NONE };
        let names = Names::new(1, 10, 10, 1 << 20);
        let (pool, rules) = (Pool::unregistered(), Rules::default());
        let mut topics = Topics::new(names, pool, 10, lag, rules, Arc::default());
        let hash = topics.names.hash("t");
        let terms = TopicTerms {
            rule: RuleId(0),
            kind: Kind::Event,
            content: Content::Auto,
            epoch: 1,
            base_seq: 0,
        };
        let topic = topics.names.create("t", hash, terms).expect("room");
        let first = subscribed(&mut topics, 1);
        publish(&mut topics, topic, 1);
        let (lane, memory) = topics.lane_mut(first);
        lane.leave(0, memory);
        topics.release_lane(first);
        let second = subscribed(&mut topics, 2);
        assert_eq!(first, second, "the number is used again");
        publish(&mut topics, topic, 2);
        let mut slice = Vec::new();
        topics.slice(256, &mut slice);
        assert_eq!(slice, [second]);
        assert!(!topics.has_pending());
    }

    #[test]
    fn deflated_lanes_are_counted_from_their_making_to_their_end() {
        let lag = LagBounds { bytes_max: 1 << 20, messages_max: 1 << 20, ..LagBounds::NONE };
        let census = Arc::<Census>::default();
        let names = Names::new(1, 10, 10, 1 << 20);
        let mut topics = Topics::new(
            names,
            Pool::unregistered(),
            10,
            lag,
            Rules::default(),
            Arc::clone(&census),
        );
        let [a, b, all] = ["a", "b", ">"].map(|pattern| {
            topics.entry_for(&Pattern::parse(pattern).expect("a pattern"), 0).expect("room")
        });
        let wanted = |name| !census.wanted(crate::home::topic_hash(1, name)).is_empty();
        let plain = topics.lane_for(&[a], Format::RAW).expect("room");
        assert_eq!(census.entries(), 0, "plain lanes do not count");
        let format = Format { window_bits: 15, ..Format::JSON };
        let lane = topics.lane_for(&[a, b], format).expect("room");
        assert_ne!(lane, plain);
        assert_eq!(topics.lane_for(&[a, b], format), Ok(lane), "one lane for all of them");
        assert_eq!((census.entries(), wanted("a"), wanted("b")), (2, true, true));
        assert!(topics.change_interest(lane, &[b]));
        assert_eq!((census.entries(), wanted("a"), wanted("b")), (1, false, true));
        assert!(topics.change_interest(lane, &[all]));
        assert_eq!((census.entries(), wanted("a"), wanted("b")), (1, true, true));
        topics.release_lane(lane);
        topics.release_lane(plain);
        assert_eq!((census.entries(), topics.lanes_count()), (0, 0));
    }
}
