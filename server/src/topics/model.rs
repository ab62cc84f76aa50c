//! Sweeps against a model, without shards: whatever is published and however long a subscriber
//! stalls, no topic starves, no message of an event or delta topic is missing unsaid, and in the end
//! the newest of every value topic is there.

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use serde_json::Value as Json;
use uringcast_protocol::{Event, Session, opcode::Opcode, session::Role, topic_name::Pattern};
use uringcast_ring::pool::Pool;

use super::*;
use crate::{
    publication::{self, Order, PayloadContent},
    rules::{HistoryBounds, Kind, Overflow, TopicRule},
    topics::{
        names::TopicTerms,
        sweep::{Batch, Need, Owed, Piece, Sweep, SweepStep},
        tally::Tally,
    },
};

const RUNS: u64 = 60;
const PAYLOAD_BYTES_MAX: usize = 20_000;
const HISTORY_MESSAGES_MAX: u32 = 6;

#[derive(Clone, Copy, Debug, Default)]
struct Model {
    id: Option<TopicId>,
    /// What the subscriber stands at.
    seen: u64,
    /// It was told that a snapshot is missing.
    waits: bool,
    /// Batches since the newest that the subscriber had not was published.
    late: usize,
}

struct Bench {
    topics: Topics,
    rules: Rules,
    dice: Pcg64Mcg,
    models: Vec<Model>,
    lane: LaneId,
}

fn name(topic: usize) -> String {
    format!("{}.{topic}", ["v", "e", "d"][topic % 3])
}

impl Bench {
    fn new(seed: u64) -> Self {
        let mut dice = Pcg64Mcg::seed_from_u64(seed);
        let mut rules = Vec::new();
        for (pattern, kind) in [("v.>", Kind::Value), ("e.>", Kind::Event), ("d.>", Kind::Delta)] {
            let mut rule = TopicRule::new(Pattern::parse(pattern).expect("right"), kind);
            let least = u32::from(kind == Kind::Delta);
            let messages = dice.random_range(least..=HISTORY_MESSAGES_MAX);
            rule.history = HistoryBounds { messages, bytes: 1 << 20, age: None };
            rule.history.age = dice.random_bool(0.2).then_some(Duration::from_millis(9));
            rule.overflow = Overflow::Gap;
            rules.push(rule);
        }
        let lag = LagBounds::NONE;
        let names = Names::new(1, 100, 100, dice.random_range(100_000..2_000_000));
        let rules = Rules::new(rules);
        let (pool, census) = (Pool::unregistered(), Arc::default());
        let mut topics = Topics::new(names, pool, 10, lag, rules.clone(), census);
        let pattern = Pattern::parse(">").expect("right");
        let entry = topics.entry_for(&pattern, 0).expect("room");
        let lane = topics.lane_for(&[entry], Format::JSON).expect("room");
        topics.lane_mut(lane).0.sweeping += 1;
        let models = vec![Model::default(); dice.random_range(1..=30)];
        Self { topics, rules, dice, models, lane }
    }

    fn publish(&mut self, topic: usize, snapshot: bool) {
        let name = name(topic);
        let hash = self.topics.names.hash(&name);
        let (kind, epoch) = (self.rules.rule(self.rules.of(&name)).kind, self.dice.random());
        let id = self.models[topic].id.unwrap_or_else(|| {
            let (rule, content) = (self.rules.of(&name), crate::rules::Content::Auto);
            let terms = TopicTerms { rule, kind, content, epoch, base_seq: 0 };
            self.topics.names.create(&name, hash, terms).expect("room")
        });
        self.models[topic].id = Some(id);
        let known = self.topics.names.topic(id);
        let seq = known.seq + u64::from(!snapshot);
        let (epoch, ts_us) = (known.epoch, self.topics.count() * 1_000);
        let payload = format!("\"{}\"", "x".repeat(self.dice.random_range(0..PAYLOAD_BYTES_MAX)));
        let pool = &mut self.topics.memory.pool;
        let json = PayloadContent::Json;
        let lease = publication::draft(pool, &name, hash, json, Opcode::Text, payload.as_bytes());
        let order = Order { epoch, seq, ts_us, pub_seq: Some(seq), snapshot };
        let ordered = publication::order(pool, lease.expect("room"), order, &mut Vec::new());
        let ordered = ordered.expect("room");
        if snapshot {
            self.topics.keep_snapshot(id, ordered);
        } else {
            self.topics.publish(id, &ordered, 1);
        }
    }

    /// The topic goes; its number is another's soon.
    fn delete(&mut self, topic: usize, sweep: &mut Sweep) {
        if let Some(id) = self.models[topic].id.take() {
            sweep.forget(id);
            self.topics.names.remove(id);
            self.models[topic] = Model::default();
        }
    }

    fn sweep(&mut self, sweep: &mut Sweep) -> SweepStep {
        let mut batch = Batch::default();
        let step = self.topics.sweep(self.lane, sweep, &mut batch, &mut Vec::new());
        assert_ne!(step, SweepStep::Lost, "nothing here can't be said");
        let mut session = Session::new(Role::Client, u64::MAX >> 1);
        let (mut message, mut bytes) = (Vec::new(), Vec::new());
        for piece in &batch.pieces {
            match piece {
                Piece::Bytes(own) => bytes.extend_from_slice(own),
                Piece::Shared(frame, range) => bytes.extend_from_slice(&frame[range.clone()]),
            }
        }
        let (full, one) = (sweep.batch_bytes(), PAYLOAD_BYTES_MAX + 400);
        assert!(bytes.len() < full + 2 * one, "{} bytes", bytes.len());
        // Unless the next message did not fit.
        let least = full.saturating_sub(one).max(1);
        assert!(step != SweepStep::More || bytes.len() >= least, "{} bytes", bytes.len());
        let mut input = &bytes[..];
        while let Some(event) = session.receive(&mut input, &mut message).expect("legal frames") {
            assert!(matches!(event, Event::Message(_)));
            self.hear(&serde_json::from_slice(&std::mem::take(&mut message)).expect("JSON"));
        }
        assert!(input.is_empty());
        step
    }

    fn hear(&mut self, message: &Json) {
        let topic = message["topic"].as_str().expect("a topic");
        let topic: usize = topic[2..].parse().expect("a number");
        let kind = topic % 3;
        let model = &mut self.models[topic];
        match (message["op"].as_str(), message["seq"].as_u64()) {
            (Some("gap"), None) => {
                assert_ne!(kind, 0, "values have no gaps");
                assert_eq!(message["from"], model.seen + 1, "of {topic}");
                model.seen = message["to"].as_u64().expect("a number");
            }
            (Some("error"), None) => {
                assert_eq!((kind, message["code"].as_str()), (2, Some("snapshot_unavailable")));
                assert!(!std::mem::replace(&mut model.waits, true), "{topic} was told twice");
            }
            (None, Some(seq)) if message["snapshot"] == true => {
                assert!(kind == 2 && seq <= model.seen, "{topic}: {seq} after {}", model.seen);
                model.seen = seq;
                model.waits = false;
            }
            (None, Some(seq)) => {
                assert!(!model.waits, "{topic}: a delta without what it builds on");
                assert!(seq > model.seen, "{topic}: {seq} after {}", model.seen);
                assert!(kind == 0 || seq == model.seen + 1, "{topic}: {seq} after {}", model.seen);
                model.seen = seq;
                model.late = 0;
            }
            _ => panic!("{message}"),
        }
    }

    fn seq(&self, topic: usize) -> u64 {
        self.models[topic].id.map_or(0, |id| self.topics.names.topic(id).seq)
    }
}

fn run(seed: u64) {
    let mut bench = Bench::new(seed);
    let count = bench.models.len();
    for _ in 0..bench.dice.random_range(0..100) {
        let topic = bench.dice.random_range(0..count);
        bench.publish(topic, false);
    }
    let owed = (0..count).filter(|topic| topic % 3 != 0).filter_map(|topic| {
        let id = bench.models[topic].id?;
        let topic = bench.topics.names.topic(id);
        Some(Owed::from(id, topic, topic.seq + 1, Need::Next))
    });
    let mut sweep = Sweep::new(bench.topics.count(), Tally::default(), owed.collect());
    for topic in 0..count {
        bench.models[topic].seen = bench.seq(topic);
    }
    // All that one round may have to send before it comes to a topic again, and what it began with.
    let frames = (HISTORY_MESSAGES_MAX as usize + 2) * count;
    sweep.slow = bench.dice.random_bool(0.5);
    let late_max = 3 + 4 * frames * (PAYLOAD_BYTES_MAX + 200) / sweep.batch_bytes();
    // Values have half of each batch to themselves, whatever the others have to send.
    let values_late_max =
        1 + count.div_ceil(3) * (PAYLOAD_BYTES_MAX + 200) / (sweep.batch_bytes() / 2);
    let (rate, stall) = (bench.dice.random_range(1..80), bench.dice.random_range(1..6));
    let deletes = bench.dice.random_bool(0.3);
    for _ in 0..bench.dice.random_range(5..200) {
        for _ in 0..bench.dice.random_range(0..rate) {
            let topic = bench.dice.random_range(0..count);
            let published = topic % 3 == 2 && bench.dice.random_bool(0.05);
            bench.publish(topic, published);
        }
        if deletes && bench.dice.random_bool(0.1) {
            let topic = bench.dice.random_range(0..count);
            bench.delete(topic, &mut sweep);
        }
        if bench.dice.random_range(0..stall) > 0 {
            continue;
        }
        bench.sweep(&mut sweep);
        for topic in 0..count {
            let behind = bench.models[topic].seen < bench.seq(topic);
            let model = &mut bench.models[topic];
            model.late = if behind { model.late + 1 } else { 0 };
            let late_max = if topic % 3 == 0 { values_late_max } else { late_max };
            assert!(model.late <= late_max || model.waits, "{topic} starves: {model:?}");
        }
        assert!(sweep.marks_count() <= late_max + 2, "marks pile up");
    }
    // A publisher of deltas is told that a snapshot is wanted.
    for topic in (2..count).step_by(3) {
        if bench.models[topic].id.is_some() {
            bench.publish(topic, true);
        }
    }
    let mut batches = 0;
    while bench.sweep(&mut sweep) != SweepStep::CaughtUp {
        batches += 1;
        assert!(batches <= late_max, "it never ends");
    }
    for topic in 0..count {
        assert_eq!(bench.models[topic].seen, bench.seq(topic), "the newest of {topic}");
    }
    assert_eq!(bench.sweep(&mut sweep), SweepStep::CaughtUp, "and nothing more");
}

/// Regression: with nothing owed, and a lane to which only values were appended so far, event topics
/// that came to be meanwhile were not looked at.
#[test]
fn a_topic_that_came_to_be_is_owed_whatever_its_lane_has_seen() {
    let mut bench = Bench::new(7);
    bench.models.resize(3, Model::default());
    let mut sweep = Sweep::new(bench.topics.count(), Tally::default(), Vec::new());
    bench.publish(1, false);
    // As in a lane made since: its subscriber has another interest now.
    bench.topics.lane_mut(bench.lane).0.only_values = true;
    assert_eq!(bench.sweep(&mut sweep), SweepStep::CaughtUp);
    assert_eq!(bench.models[1].seen, 1);
}

#[test]
fn no_topic_starves_under_any_stalls() {
    for seed in 0..RUNS {
        let run = std::panic::catch_unwind(|| run(seed));
        assert!(run.is_ok(), "the run of seed {seed} failed");
    }
}
