//! Subscribers that change their pace at any moment, against what they may be sent.

use std::{collections::HashMap, sync::Arc};

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use uringcast_protocol::{opcode::Opcode, topic_name::Pattern};
use uringcast_ring::pool::Pool;

use super::*;
use crate::{
    ids::LaneId,
    publication::{self, Format, Order, PayloadContent},
    rules::{Content, RuleId, Rules, TopicRule},
    topics::{
        LagBounds,
        names::{Names, TopicTerms},
        sweep::{Batch, Piece, SweepStep},
        tally::Tally,
    },
};

const RUNS: u64 = 300;
const TOPICS: usize = 4;
/// The first topics are of values, the last is of events.
const EVENT: usize = TOPICS - 1;
const PATTERNS: [&str; 4] = ["t.0", "t.*", "t.1", "t.3"];
const PACES_MS: [u32; 3] = [0, 20, 50];
const MS: u64 = 1_000_000;

#[derive(Debug)]
enum Place {
    Nowhere,
    /// In the lane's log.
    Seated(LaneId, u32),
    /// Served by a sweep.
    Away(LaneId, Box<Sweep>),
}

#[derive(Debug)]
struct Reader {
    /// Its pace by pattern.
    paces: HashMap<&'static str, u32>,
    place: Place,
    /// By topic: the last number it was sent while subscribed, when, and what it began behind.
    last: [Option<(u64, u64)>; TOPICS],
    began: [u64; TOPICS],
}

struct Bench {
    topics: Topics,
    dice: Pcg64Mcg,
    ids: Vec<TopicId>,
    now_ns: u64,
    readers: Vec<Reader>,
    /// When anyone last changed anything that may bring a tick forward.
    changed_ns: u64,
}

fn name(topic: usize) -> String {
    format!("t.{topic}")
}

impl Bench {
    fn new(seed: u64) -> Self {
        let mut value = TopicRule::new(Pattern::parse("t.3").expect("right"), Kind::Event);
        value.history.messages = 1_000;
        let all = TopicRule::new(Pattern::parse(">").expect("right"), Kind::Value);
        let rules = Rules::new(vec![value, all]);
        let lag = LagBounds::NONE;
        let names = Names::new(1, 100, 100, 1 << 30);
        let (pool, census) = (Pool::unregistered(), Arc::default());
        let mut topics = Topics::new(names, pool, 100, lag, rules, census);
        let ids = (0..TOPICS).map(|topic| {
            let (rule, kind) = match topic {
                EVENT => (RuleId(0), Kind::Event),
                _ => (RuleId(1), Kind::Value),
            };
            let terms = TopicTerms { rule, kind, content: Content::Auto, epoch: 7, base_seq: 0 };
            let name = name(topic);
            let hash = topics.names.hash(&name);
            topics.names.create(&name, hash, terms).expect("room")
        });
        let ids = ids.collect();
        let reader = || Reader {
            paces: HashMap::new(),
            place: Place::Nowhere,
            last: [None; TOPICS],
            began: [0; TOPICS],
        };
        let readers = (0..4).map(|_| reader()).collect();
        let dice = Pcg64Mcg::seed_from_u64(seed);
        Self { topics, dice, ids, now_ns: 1_000 * MS, readers, changed_ns: 0 }
    }

    fn publish(&mut self, topic: usize) {
        let id = self.ids[topic];
        let (name, hash) = (name(topic), self.topics.names.topic(id).hash);
        let seq = self.topics.names.topic(id).seq + 1;
        let pool = &mut self.topics.memory.pool;
        let draft = publication::draft(pool, &name, hash, PayloadContent::Json, Opcode::Text, b"1");
        let order = Order { epoch: 7, seq, ts_us: 0, pub_seq: None, snapshot: false };
        let publication = publication::order(pool, draft.expect("room"), order, &mut Vec::new());
        self.topics.publish(id, &publication.expect("room"), self.now_ns);
    }

    fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ns += MS;
            while let Some(entry) = self.topics.next_tick(self.now_ns) {
                self.topics.tick(entry, self.now_ns);
                // Whoever reads at once shows when it was sent.
                (0..self.readers.len()).for_each(|reader| self.read(reader));
            }
        }
    }

    /// Frames of short messages, as they come.
    fn hear(&mut self, reader: usize, mut bytes: &[u8]) {
        while let [_, length, rest @ ..] = bytes {
            let (message, rest) = rest.split_at(usize::from(*length));
            bytes = rest;
            let message: serde_json::Value = serde_json::from_slice(message).expect("JSON");
            let topic = message["topic"].as_str().expect("a topic");
            let topic: usize = topic[2..].parse().expect("a number");
            let seq = message["seq"].as_u64().expect("a number");
            self.heard(reader, topic, seq);
        }
    }

    fn heard(&mut self, at: usize, topic: usize, seq: u64) {
        let (now_ns, changed_ns) = (self.now_ns, self.changed_ns);
        let pace_ms = self.pace_ms(at, topic);
        let reader = &mut self.readers[at];
        if let Some((last, last_ns)) = reader.last[topic] {
            assert!(seq > last, "{topic}: {seq} after {last}");
            let pace_ms = pace_ms.expect("subscribed");
            let undisturbed = last_ns > changed_ns && matches!(reader.place, Place::Seated(..));
            if topic == EVENT {
                assert_eq!(seq, last + 1, "an event is missing");
            } else if pace_ms > 0 && undisturbed {
                let ago_ns = now_ns - last_ns;
                assert!(ago_ns >= u64::from(pace_ms) * MS, "{topic}: {ago_ns} ns after the last");
            }
        }
        // What a sweep sends was shown before.
        let seated = matches!(reader.place, Place::Seated(..));
        reader.last[topic] = Some((seq, if seated { now_ns } else { 0 }));
    }

    /// The pace at which a reader should see a topic.
    fn pace_ms(&self, reader: usize, topic: usize) -> Option<u32> {
        let paces = &self.readers[reader].paces;
        let name = name(topic);
        let matching = |pattern: &str| Pattern::parse(pattern).expect("right").matches(&name);
        paces.iter().filter(|(pattern, _)| matching(pattern)).map(|(_, &ms)| ms).min()
    }

    /// A seated reader reads all that its lane has for it.
    fn read(&mut self, at: usize) {
        let Place::Seated(lane, index) = self.readers[at].place else { return };
        loop {
            let (lane, memory) = self.topics.lane_mut(lane);
            let cursor = lane.subscribers[index as usize].cursor;
            let Some(bytes) = lane.log.visit(cursor, 64 << 10).map(<[u8]>::to_vec) else { break };
            lane.advance(index, cursor + bytes.len() as u64, memory);
            self.hear(at, &bytes);
        }
    }

    fn entries(&mut self, at: usize) -> Vec<EntryId> {
        let paces = self.readers[at].paces.clone();
        let entry = |(pattern, ms): (&str, u32)| {
            let pattern = Pattern::parse(pattern).expect("right");
            self.topics.entry_for(&pattern, ms).expect("room")
        };
        let mut entries: Vec<_> = paces.into_iter().map(entry).collect();
        entries.sort_unstable();
        entries
    }

    fn leave(&mut self, at: usize) {
        match std::mem::replace(&mut self.readers[at].place, Place::Nowhere) {
            Place::Nowhere => {}
            Place::Seated(lane_id, index) => {
                let (lane, memory) = self.topics.lane_mut(lane_id);
                if let Some(moved) = lane.leave(index, memory) {
                    let moved = &mut self.readers[moved as usize].place;
                    *moved = Place::Seated(lane_id, index);
                }
                self.topics.release_lane(lane_id);
            }
            Place::Away(lane, _) => {
                self.topics.lane_mut(lane).0.sweeping -= 1;
                self.topics.release_lane(lane);
            }
        }
    }

    fn sit(&mut self, at: usize, lane: LaneId) {
        let index = self.topics.lane_mut(lane).0.join(at as u32, at as u32);
        self.topics.lane_mut(lane).0.hold(index, false);
        self.readers[at].place = Place::Seated(lane, index);
    }

    /// Another interest: a subscribe, an unsubscribe or an update.
    fn change(&mut self, at: usize) {
        self.read(at);
        let before = self.entries(at);
        let paces_before: Vec<_> = (0..TOPICS).map(|topic| self.pace_ms(at, topic)).collect();
        let pattern = PATTERNS[self.dice.random_range(0..PATTERNS.len())];
        let pace = PACES_MS[self.dice.random_range(0..PACES_MS.len())];
        if self.dice.random_bool(0.25) {
            self.readers[at].paces.remove(pattern);
        } else {
            self.readers[at].paces.insert(pattern, pace);
        }
        let after = self.entries(at);
        let mut starts = Vec::new();
        let place = std::mem::replace(&mut self.readers[at].place, Place::Nowhere);
        let sweep = match &place {
            Place::Away(_, sweep) => Some(&**sweep),
            _ => None,
        };
        self.topics.repace((&before, &after), sweep, &mut starts, self.now_ns);
        self.changed_ns = self.now_ns;
        self.readers[at].place = place;
        // What was appended by that is of now, and what this one's old lane has is still of that.
        (0..self.readers.len()).for_each(|reader| self.read(reader));
        for (topic, before) in paces_before.into_iter().enumerate() {
            if before.is_none() || self.pace_ms(at, topic).is_none() {
                self.readers[at].last[topic] = None;
                self.readers[at].began[topic] = self.topics.names.topic(self.ids[topic]).seq;
                let id = self.ids[topic];
                let state = self.topics.names.topic(id);
                // As seats do it: what is new begins now.
                starts.retain(|start| start.topic != id);
                if self.pace_ms(at, topic).is_some() {
                    let next = state.seq + 1;
                    starts.push(Owed::from(id, state, next, Need::Next));
                }
            }
        }
        if after.is_empty() {
            self.leave(at);
            return;
        }
        let lane = self.topics.lane_for(&after, Format::JSON).expect("room");
        self.topics.lane_mut(lane).0.sweeping += 1;
        let old = match std::mem::replace(&mut self.readers[at].place, Place::Nowhere) {
            Place::Away(old, sweep) => {
                self.topics.lane_mut(old).0.sweeping -= 1;
                self.topics.release_lane(old);
                Some(sweep)
            }
            seated => {
                self.readers[at].place = seated;
                self.leave(at);
                None
            }
        };
        before.iter().chain(&after).for_each(|&entry| self.topics.names.release(entry));
        let swept = old.is_some();
        let mut sweep = old.unwrap_or_else(|| {
            let id = self.ids[EVENT];
            let next = self.topics.names.topic(id).seq + 1;
            let event = Owed::from(id, self.topics.names.topic(id), next, Need::Next);
            Box::new(Sweep::new(self.topics.count(), Tally::default(), vec![event]))
        });
        for start in starts {
            sweep.owe(start);
        }
        self.readers[at].place = Place::Away(lane, sweep);
        if !swept {
            self.sweep(at);
        }
    }

    /// A reader lags, and leaves the log with some of it unread.
    fn lag(&mut self, at: usize) {
        let Place::Seated(lane_id, index) = self.readers[at].place else { return };
        let lane = self.topics.lane(lane_id);
        let cursor = lane.subscribers[index as usize].cursor;
        let unsent: Vec<_> = lane.log.unsent(cursor).collect();
        let seen = unsent.first().map_or_else(|| self.topics.count(), |end| end.count - 1);
        let id = self.ids[EVENT];
        let missed = unsent.iter().filter(|end| end.topic == id).count() as u64;
        let next = self.topics.names.topic(id).seq + 1 - missed;
        let event = Owed::from(id, self.topics.names.topic(id), next, Need::Next);
        let sweep = Sweep::new(seen, Tally::default(), vec![event]);
        self.topics.lane_mut(lane_id).0.sweeping += 1;
        self.leave(at);
        self.readers[at].place = Place::Away(lane_id, Box::new(sweep));
    }

    fn sweep(&mut self, at: usize) {
        let Place::Away(lane, sweep) = &mut self.readers[at].place else { return };
        let (lane, mut batch) = (*lane, Batch::default());
        let step = self.topics.sweep(lane, sweep, &mut batch, &mut Vec::new());
        assert_eq!(step, SweepStep::CaughtUp, "all of it fits a batch");
        for piece in batch.pieces {
            let Piece::Bytes(bytes) = piece else { unreachable!("short messages are copied") };
            self.hear(at, &bytes);
        }
        self.sit(at, lane);
        self.topics.lane_mut(lane).0.sweeping -= 1;
    }

    fn step(&mut self) {
        let reader = self.dice.random_range(0..self.readers.len());
        match self.dice.random_range(0..10) {
            0..4 => {
                let topic = self.dice.random_range(0..TOPICS);
                self.publish(topic);
            }
            4 => {
                let ms = self.dice.random_range(1..30);
                self.pass_ms(ms);
            }
            5..7 => self.read(reader),
            7 => self.lag(reader),
            8 => self.sweep(reader),
            _ => self.change(reader),
        }
    }

    fn end(&mut self) {
        self.pass_ms(200);
        for at in 0..self.readers.len() {
            self.sweep(at);
            self.read(at);
            for topic in 0..TOPICS {
                let newest = self.topics.names.topic(self.ids[topic]).seq;
                let reader = &self.readers[at];
                if self.pace_ms(at, topic).is_none() || newest <= reader.began[topic] {
                    continue;
                }
                let last = reader.last[topic].map(|(seq, _)| seq);
                assert_eq!(last, Some(newest), "{at} ends with the newest of {topic}");
            }
        }
        (0..self.readers.len()).for_each(|at| self.leave(at));
        assert_eq!((self.topics.lanes_count(), self.topics.names.entries_count()), (0, 0));
        assert_eq!(self.topics.next_tick(u64::MAX), None, "nothing has a tick any more");
        assert_eq!(self.topics.memory.held_bytes, 0);
    }
}

#[test]
fn nothing_comes_twice_or_too_often_and_the_newest_always_comes() {
    for seed in 0..RUNS {
        let run = std::panic::catch_unwind(|| {
            let mut bench = Bench::new(seed);
            for _ in 0..bench.dice.random_range(10..400) {
                bench.step();
            }
            bench.end();
        });
        assert!(run.is_ok(), "the run of seed {seed} failed");
    }
}
