//! One run: shards on simulated kernels, model clients, a control thread, and a clock.
//!
//! Knows: in which order everything moves, as the dice have it. Must not know: what is right; the
//! oracle and the clients say so.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use uringcast::{
    clock::Now,
    home::{home_of, topic_hash},
    ids::NodeId,
    mail::{Answer, Ingest, Mail, Origin, Publisher as Whose},
    publication,
    rules::{HistoryBounds, Kind as RuleKind, Overflow, Rules, SnapshotSource, TopicRule},
    settings::Settings,
    shard::{Parts, Shard},
    shared::{Shared, Stage},
};
use uringcast_mesh::grid::{Node, Wake, grid};
use uringcast_protocol::{Opcode, Pattern};
use uringcast_ring::pool::{Pool, PoolOptions};

use crate::{
    clients::{Client, Role},
    dice::Dice,
    helper::SimHelper,
    io::SimIo,
    net::{ENDS_ALWAYS, Faults, Net},
    oracle::{Content, Entry, Kind, Published, Seqs, Truth},
    publisher::some_covered,
};

/// What a run is like; drawn from its seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shards: usize,
    /// Nobody stalls, resets or breaks rules, and the clock does not jump.
    pub(crate) calm: bool,
    pub(crate) steps: usize,
    pub(crate) topics: usize,
    /// Delta topics, besides those.
    pub(crate) books: usize,
    pub(crate) clients_max: usize,
    pub(crate) pad_max: usize,
    pub(crate) faults: Faults,
    pub(crate) drain: bool,
    /// Busy times, each with a quiet point after it.
    pub(crate) cycles: usize,
    pub(crate) jumps: bool,
    /// The pools have little memory: publications are refused, lanes given up, observers too.
    pub(crate) poor: bool,
    /// There is a helper thread; it may lose what it is sent.
    pub(crate) helper: Option<Loses>,
}

/// Whether the helper loses mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loses {
    Never,
    AtTimes,
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let calm = dice.chance(250);
        let faults = if dice.chance(300) {
            Faults::default()
        } else {
            Faults {
                short: dice.below(300),
                false_room: dice.below(200),
                // One in four: the base tier.
                ends: if dice.chance(250) { ENDS_ALWAYS } else { dice.below(100) },
                accept: dice.below(50),
            }
        };
        let poor = !calm && dice.chance(100);
        Self {
            shards: dice.between(1, 4),
            calm,
            books: if poor { 0 } else { dice.below(4) },
            steps: dice.scale(300, 6_000),
            topics: dice.between(1, 12),
            clients_max: dice.between(2, 60),
            pad_max: *dice.pick(&[40, 200, 2_000, 10_000, 300_000]),
            faults: if calm { Faults { accept: 0, ..faults } } else { faults },
            drain: dice.chance(300),
            cycles: dice.between(1, 3),
            jumps: !calm && dice.chance(400),
            poor,
            helper: *dice.pick(&[
                None,
                Some(Loses::Never),
                Some(Loses::Never),
                Some(Loses::AtTimes),
            ]),
        }
    }
}

/// Everything of a run.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) net: Rc<RefCell<Net>>,
    pub(crate) shards: Vec<Shard<SimIo>>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) truth: Truth,
    pub(crate) clients: Vec<Client>,
    pub(crate) now: Now,
    control: Node<Mail>,
    control_pool: Pool,
    pub(crate) helper: Option<SimHelper>,
    /// Publications of the control thread: answered with which number, or refused.
    pub(crate) tickets: Vec<(usize, Option<Option<u64>>)>,
    /// Topics that a shard said it deleted.
    deleted: usize,
    /// When each shard's wait ends by itself.
    deadlines: Vec<Option<u64>>,
}

/// A world in which this many turns bring nothing nearer its end will never be at rest.
const FRUITLESS_TURNS_MAX: usize = 30_000;

/// The publisher that is nobody's connection.
pub(crate) const CONTROL: usize = usize::MAX;

impl World {
    /// With bounds as the dice have them.
    pub(crate) fn drawn(plan: Plan, mut dice: Dice) -> Self {
        let settings = draw_settings(&plan, &mut dice);
        Self::new(plan, dice, settings)
    }

    pub(crate) fn new(plan: Plan, mut dice: Dice, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let shared = Arc::new(Shared::new(plan.shards, dice.word()).with_rules(&settings.rules));
        let now = Now { ns: 1_000_000_000, utc_us: 1_700_000_000_000_000 };
        let count = plan.shards + 1 + usize::from(plan.helper.is_some());
        let mut nodes = grid::<Mail>(count, 1 << dice.between(1, 8));
        let helper_node = plan.helper.and_then(|_| nodes.pop());
        let control = nodes.pop().expect("one more than shards");
        let slots = dice.between(plan.clients_max / 2 + 8, plan.clients_max + 64);
        let mut net = Net::new(Dice::new(dice.word()), Faults::default());
        for _ in 0..plan.shards {
            // Large publications in tiny pieces would take most of the time and show nothing more.
            let bytes_min = (plan.pad_max / 1_000).max(16);
            let (buffers, bytes) = (dice.scale(1, 32), dice.scale(bytes_min, 4_096));
            net.add_kernel(slots, buffers, bytes);
        }
        let net = Rc::new(RefCell::new(net));
        let bytes_max = if plan.poor { 5 << 19 } else { 512 << 20 };
        let pool = || Pool::new(PoolOptions { bytes_max, registered_bytes_max: 0 });
        let helper = plan.helper.zip(helper_node).map(|(loses, node)| {
            let bytes_min = settings.deflate_min_bytes as usize;
            SimHelper::new(node, bytes_min, bytes_max, loses == Loses::AtTimes)
        });
        let shards = nodes
            .into_iter()
            .enumerate()
            .map(|(shard, node)| {
                let io = SimIo { net: Rc::clone(&net), shard };
                let (settings, shared) = (Arc::clone(&settings), Arc::clone(&shared));
                Shard::new(Parts { io, pool: pool(), node, settings, shared, journal: None }, now)
            })
            .collect();
        let mut truth = Truth::default();
        for topic in 0..plan.topics {
            let is_value = topic % 2 == 1;
            let (letter, kind) = if is_value { ('v', Kind::Value) } else { ('e', Kind::Event) };
            let deep = if topic % 3 == 2 { ".x" } else { "" };
            truth.add_topic(format!("{letter}.{}{deep}", topic / 2), kind, false);
        }
        for book in 0..plan.books {
            let name = format!("d.{book}");
            let source = settings.rules.rule(settings.rules.of(&name)).snapshot;
            truth.add_topic(name, Kind::Delta, source == SnapshotSource::Published);
        }
        shared.advance(Stage::Ready);
        Self {
            deadlines: vec![Some(0); plan.shards],
            plan,
            net,
            shards,
            settings,
            shared,
            truth,
            clients: Vec::new(),
            now,
            control,
            control_pool: pool(),
            helper,
            tickets: Vec::new(),
            deleted: 0,
        }
    }

    /// The last numbers of all topics on a shard.
    pub(crate) fn seqs(&self, shard: usize) -> Seqs {
        let names = self.truth.names.iter().enumerate();
        names
            .map(|(topic, name)| self.truth.number(topic, self.shards[shard].topic_seq(name)))
            .collect()
    }

    pub(crate) fn advance(&mut self, ns: u64) {
        self.now.ns += ns;
        self.now.utc_us += ns / 1_000;
    }

    pub(crate) fn chance(&self, permille: usize) -> bool {
        self.net.borrow_mut().dice.chance(permille)
    }

    pub(crate) fn below(&self, end: usize) -> usize {
        self.net.borrow_mut().dice.below(end)
    }

    fn can_run(&self, shard: usize) -> bool {
        self.deadlines[shard].is_some_and(|at| at <= self.now.ns)
            || self.net.borrow().has_pending(shard)
    }

    /// One turn of a shard's reactor, if it would run now. Whether completions came.
    pub(crate) fn turn(&mut self, shard: usize) -> bool {
        // A wait may also end for no reason.
        if self.shards[shard].has_ended() || !self.can_run(shard) && !self.chance(5) {
            return false;
        }
        let mut completions = Vec::new();
        let count = self.net.borrow_mut().dice.scale(1, 64);
        for _ in 0..count {
            let completion = self.net.borrow_mut().deliver(shard);
            completions.extend(completion);
        }
        let moved = !completions.is_empty();
        for completion in completions.drain(..) {
            self.net.borrow_mut().note(|| format!("shard {shard}: {}", brief(&completion)));
            self.shards[shard].complete(completion, self.now);
        }
        self.shards[shard].tick(self.now).expect("the simulated ring never fails");
        if !self.shards[shard].has_ended() {
            let timeout = self.shards[shard].timeout();
            self.deadlines[shard] = timeout.map(|wait| self.now.ns + wait.as_nanos() as u64);
        }
        moved
    }

    /// The control thread publishes.
    pub(crate) fn control_publish(&mut self, topic: usize) {
        let pad = self.net.borrow_mut().dice.scale(1, self.plan.pad_max);
        let content = *self.net.borrow_mut().dice.pick(&[Content::Json, Content::Binary]);
        let id = self.truth.publish(topic, content, pad, CONTROL);
        self.control_send(id);
    }

    /// The control thread sends a publication or a snapshot. Whether it was taken.
    fn control_send(&mut self, id: usize) -> bool {
        let Published { topic, content, snapshot, covers, .. } = self.truth.published[id];
        let delta = self.truth.kind(topic) == Kind::Delta;
        let pub_seq = delta.then_some(covers as u64);
        let name = &self.truth.names[topic];
        let hash = topic_hash(self.shared.hash_seed, name);
        let (content, opcode) = match content {
            Content::Binary => (publication::PayloadContent::Binary, Opcode::Binary),
            _ => (publication::PayloadContent::Json, Opcode::Text),
        };
        let payload = &self.truth.published[id].payload;
        let pool = &mut self.control_pool;
        let Ok(lease) = publication::draft(pool, name, hash, content, opcode, payload) else {
            assert!(self.plan.poor, "the control thread's pool has room");
            self.tickets.push((id, Some(None)));
            return false;
        };
        let ticket = self.tickets.len() as u64;
        let publisher = Whose::Request { ticket };
        let origin = Origin { node: NodeId(self.plan.shards as u16), publisher };
        let home = usize::from(home_of(hash, self.plan.shards).0);
        let mail = Mail::Ingest(Ingest { lease, origin, pub_seq, snapshot });
        match self.control.send(home, mail) {
            Ok(wake) => {
                self.tickets.push((id, None));
                if wake == Wake::Needed {
                    self.net.borrow_mut().wake(home);
                }
            }
            // The ring is full: the request is answered 503.
            Err(_) => {
                self.tickets.push((id, Some(None)));
                return false;
            }
        }
        true
    }

    /// The control thread publishes a snapshot of a delta topic.
    pub(crate) fn control_snapshot(&mut self, topic: usize) {
        let (covers, pad) = {
            let net = &mut *self.net.borrow_mut();
            (some_covered(net, &self.truth, topic), net.dice.scale(1, self.plan.pad_max))
        };
        let id = self.truth.snapshot(topic, covers, pad, CONTROL);
        self.control_send(id);
    }

    /// Every delta topic gets a snapshot of all that was published, when all is quiet.
    pub(crate) fn refresh_books(&mut self) {
        for topic in 0..self.truth.names.len() {
            if self.truth.has_snapshots[topic] && self.seqs(0)[topic] & 0xffff_ffff > 0 {
                let id = self.truth.published.len();
                let pad = self.net.borrow_mut().dice.scale(1, self.plan.pad_max);
                self.truth.snapshot(topic, id, pad, CONTROL);
                assert!(self.control_send(id), "all is quiet, and the ring is full");
                self.settle();
            }
        }
    }

    /// The control thread deletes a topic, when all is quiet.
    pub(crate) fn delete(&mut self, topic: usize) {
        let name = self.truth.names[topic].clone();
        self.net.borrow_mut().note(|| format!("{name} is deleted"));
        let there = self.shards[0].topic_seq(&name) > 0;
        self.ask_delete(&name);
        self.deleted = 0;
        self.settle();
        // A snapshot makes a topic that nothing was published to.
        let empty = self.deleted == 1 && self.truth.kind(topic) == Kind::Delta;
        assert!(self.deleted == usize::from(there) || empty, "its home deletes it if it is there");
        if self.deleted > 0 {
            self.truth.deleted[topic] += 1;
            let number = self.truth.number(topic, 0);
            for client in &mut self.clients {
                if let Role::Subscriber(subscriber) = &mut client.role {
                    subscriber.log.push(Entry::Deleted { topic, number });
                }
            }
        }
        for shard in &self.shards {
            assert_eq!(shard.topic_seq(&name), 0, "deleted everywhere");
        }
    }

    pub(crate) fn ask_delete(&mut self, name: &str) {
        for shard in 0..self.plan.shards {
            let sent =
                self.control.send(shard, Mail::DeleteTopic { topic: name.into(), ticket: 0 });
            assert!(sent.is_ok(), "all is quiet, and the ring is full");
            self.net.borrow_mut().wake(shard);
        }
    }

    /// The control thread reads its mail. Whether there was any.
    pub(crate) fn control_turn(&mut self) -> bool {
        let (tickets, truth) = (&mut self.tickets, &self.truth);
        let deleted = &mut self.deleted;
        let count = self.control.receive(64, |_, mail| match mail {
            Mail::Published { ticket, seq, .. } => {
                let (id, answer) = &mut tickets[ticket as usize];
                let seq = truth.number(truth.published[*id].topic, seq);
                assert!(answer.replace(Some(seq)).is_none(), "a request answered twice");
            }
            Mail::Refused {
                origin: Origin { publisher: Whose::Request { ticket }, .. }, ..
            } => {
                let answer = &mut tickets[ticket as usize].1;
                assert!(answer.replace(None).is_none(), "a request answered twice");
            }
            Mail::Answer { answer: Answer::Deleted(was_there), .. } => {
                *deleted += usize::from(was_there);
            }
            other => panic!("not the control thread's: {other:?}"),
        });
        count > 0
    }

    /// The helper's thread runs. Whether there is anything still to be done by it.
    pub(crate) fn helper_turn(&mut self) -> bool {
        let (net, now_ns) = (&mut self.net.borrow_mut(), self.now.ns);
        self.helper.as_mut().is_some_and(|helper| helper.turn(net, now_ns))
    }

    /// One client moves. Whether anything did.
    pub(crate) fn client_turn(&mut self, who: usize) -> bool {
        let mut heard = Vec::new();
        let shard = self.clients[who].wire.shard;
        let moved = self.clients[who].wire.step(&mut self.net.borrow_mut(), &mut heard);
        if heard.is_empty() {
            return moved;
        }
        let seqs = self.seqs(shard);
        let client = &mut self.clients[who];
        for heard in heard {
            match &mut client.role {
                Role::Subscriber(subscriber) => subscriber.hear(heard, &mut self.truth, &seqs),
                Role::Publisher(publisher) => publisher.hear(heard, &self.truth),
                Role::Vandal(_) | Role::Mute => {}
            }
        }
        moved
    }

    /// Lets everything move, without anything new, until nothing does any more. Large publications
    /// into few and small receive buffers take their time: what may not last is movement that
    /// leaves as much to be received as there was.
    pub(crate) fn settle(&mut self) {
        let mut idle = 0;
        let mut least = usize::MAX;
        let mut turns = 0;
        while turns < FRUITLESS_TURNS_MAX {
            let mut moved = false;
            for shard in 0..self.plan.shards {
                moved |= self.turn(shard);
            }
            moved |= self.control_turn();
            moved |= self.helper_turn();
            for who in 0..self.clients.len() {
                moved |= self.client_turn(who);
            }
            self.advance(2_000_000);
            idle = if moved { 0 } else { idle + 1 };
            if idle > 30 {
                return;
            }
            let unwritten: usize = self.clients.iter().map(|client| client.wire.unwritten()).sum();
            let left = unwritten + self.net.borrow().bytes_to_servers();
            turns = if left < least { 0 } else { turns + 1 };
            least = least.min(left);
        }
        panic!("it never comes to rest");
    }

    /// Time goes by.
    pub(crate) fn pass(&mut self, wait: Duration) {
        let end = self.now.ns + wait.as_nanos() as u64;
        while self.now.ns < end {
            self.advance(200_000_000);
            self.settle();
        }
    }
}

fn brief<B>(completion: &uringcast_ring::Completion<B>) -> String
where
    B: std::ops::Deref<Target = [u8]> + std::fmt::Debug,
{
    match completion {
        uringcast_ring::Completion::Received { token, data, armed } => {
            format!("received {} bytes, {token:?}, armed: {armed}", data.len())
        }
        other => format!("{other:?}"),
    }
}

pub(crate) fn rule(pattern: &str, kind: RuleKind) -> TopicRule {
    TopicRule::new(Pattern::parse(pattern).expect("a pattern"), kind)
}

/// With little history and low bounds, or with much and high ones.
fn draw_rule(dice: &mut Dice, pattern: &str, kind: RuleKind, tight: bool) -> TopicRule {
    let delta = kind == RuleKind::Delta;
    let mut new = rule(pattern, kind);
    if delta || dice.chance(500) {
        let messages = if dice.chance(700) { dice.scale(1, 30) } else { 1_000 };
        let bytes = if dice.chance(300) { dice.scale(1_000, 200_000) } else { 4 << 20 };
        let age = dice.chance(200).then(|| Duration::from_millis(dice.scale(10, 20_000) as u64));
        new.history = HistoryBounds { messages: messages as u32, bytes: bytes as u64, age };
    }
    if kind == RuleKind::Event && dice.chance(500) {
        new.overflow = Overflow::Gap;
    }
    if tight && dice.chance(400) {
        new.lag_bytes_max = Some(dice.scale(100, 50_000) as u64);
        new.lag_messages_max = Some(dice.scale(1, 100) as u64);
    }
    if dice.chance(if delta { 100 } else { 200 }) {
        new.snapshot = SnapshotSource::None;
    }
    new
}

/// Topics of `v.>` are values, of `d.>` deltas, all others events.
pub(crate) fn usual_settings() -> Settings {
    let rules = vec![rule("v.>", RuleKind::Value), rule("d.>", RuleKind::Delta)];
    Settings { rules: Rules::new(rules), ..Settings::default() }
}

fn draw_settings(plan: &Plan, dice: &mut Dice) -> Settings {
    let tight = !plan.calm && dice.chance(600);
    let small = |dice: &mut Dice, low, high, usual| {
        if dice.chance(150) { dice.between(low, high) as u32 } else { usual }
    };
    let rules = [
        ("e.*.x", RuleKind::Event),
        ("v.>", RuleKind::Value),
        ("d.0", RuleKind::Delta),
        ("d.>", RuleKind::Delta),
        ("e.>", RuleKind::Event),
    ];
    let rules = rules.map(|(pattern, kind)| draw_rule(dice, pattern, kind, tight));
    Settings {
        rules: Rules::new(rules.to_vec()),
        history_bytes_max: if dice.chance(200) { 200_000 } else { 1 << 30 },
        message_bytes_max: 400_000,
        publish_bytes_max: 600_000,
        publish_from: vec!["127.0.0.0/8".parse().expect("a network")],
        ping_interval: Duration::from_millis(dice.scale(8_000, 25_000) as u64),
        lag_bytes_max: if tight { dice.scale(500, 100_000) as u64 } else { 1 << 30 },
        lag_messages_max: if tight { dice.scale(3, 1_000) as u64 } else { 1 << 30 },
        log_bytes_max: if tight && dice.chance(200) { 200_000 } else { 1 << 40 },
        lanes_max: small(dice, 2, 20, 1_000),
        patterns_max: small(dice, 2, 6, 1_000),
        subscriptions_max: small(dice, 1, 4, 1_024),
        topics_max: small(dice, 1, 12, 1_000),
        deflate_min_bytes: *dice.pick(&[0, 64, 256, 2_000]),
        connections_max: if plan.calm { 1_000 } else { small(dice, 8, 40, 1_000) },
        overload_rotation: Duration::from_micros(if tight {
            dice.scale(100, 100_000) as u64
        } else {
            100_000
        }),
        ..usual_settings()
    }
}
