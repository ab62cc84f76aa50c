//! A run from beginning to end: a busy time, a quiet point, everyone's leave.
//!
//! Knows: what must be true at which of these points. Must not know: how anything gets there.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use uringcast::shared::Stage;

use crate::{
    clients::Role,
    dice::Dice,
    net::Net,
    oracle::Entry,
    stand::check_subscriber,
    wire::{Pace, Stage as WireStage},
    world::{CONTROL, Plan, World},
};

/// Counters by name and labels.
pub(crate) type Sums = BTreeMap<(&'static str, &'static str), u64>;

/// No connection may have more own output than this: what it may have when it asks for last values,
/// and those.
const OWN_BYTES_MAX: usize = 4 << 20;

/// What was done last, for when a run fails.
#[derive(Default)]
pub(crate) struct Trace(RefCell<Option<(Plan, Rc<RefCell<Net>>)>>);

impl Trace {
    pub(crate) fn print(&self) {
        let Some((plan, net)) = &*self.0.borrow() else { return };
        eprintln!("{plan:?}");
        match net.try_borrow() {
            Ok(net) => net.trace.iter().for_each(|line| eprintln!("  {line}")),
            Err(_) => eprintln!("  (the network is in use)"),
        }
    }
}

/// Does a run; every counter's sum over its shards.
pub(crate) fn run(seed: u64, trace: &Trace) -> Sums {
    let mut dice = Dice::new(seed);
    let plan = Plan::draw(&mut dice);
    let mut world = World::drawn(plan, dice);
    *trace.0.borrow_mut() = Some((world.plan.clone(), Rc::clone(&world.net)));
    world.add_observers();
    world.settle();
    world.net.borrow_mut().faults = world.plan.faults;
    for _ in 0..world.plan.cycles {
        busy(&mut world);
        quiet(&mut world);
        for topic in 0..world.truth.names.len() {
            if world.chance(100) {
                world.delete(topic);
            }
        }
    }
    everyone_leaves(&mut world);
    let mut sums = Sums::new();
    for counters in &world.shared.counters {
        for (description, value) in counters.each() {
            *sums.entry((description.name, description.labels)).or_default() += value;
        }
    }
    sums
}

fn busy(world: &mut World) {
    for at in 0..world.plan.steps {
        step(world);
        if at % 64 == 0 {
            for shard in &world.shards {
                let most = shard.vitals().own_bytes_most;
                assert!(most < OWN_BYTES_MAX, "{most} bytes of own output of one connection");
            }
        }
    }
}

fn step(world: &mut World) {
    let short = world.below(200_000) as u64;
    world.advance(short);
    if world.plan.jumps && world.chance(2) {
        let jump = world.below(40_000) as u64;
        world.net.borrow_mut().note(|| format!("the clock jumps {jump} ms"));
        world.advance(jump * 1_000_000);
        // Whatever waited for something may have waited too long now.
        world.clients.iter_mut().for_each(|client| client.wire.diligent = false);
    }
    match world.below(100) {
        0..45 => {
            let shard = world.below(world.plan.shards);
            world.turn(shard);
        }
        45..85 => {
            let who = world.below(world.clients.len());
            world.client_turn(who);
        }
        85..96 => {
            let who = world.below(world.clients.len());
            world.whim(who);
        }
        96 => {
            world.control_turn();
            world.helper_turn();
        }
        97 => {
            let topic = world.below(world.truth.names.len());
            if world.truth.has_snapshots[topic] && world.chance(300) {
                world.control_snapshot(topic);
            } else {
                world.control_publish(topic);
            }
        }
        _ => {
            let here = world.clients.iter().filter(|client| !client.wire.is_over()).count();
            if here < world.plan.clients_max {
                world.add_client();
            }
        }
    }
}

/// Rounds of strikes before all is quiet; each lets in as many as it sees off.
const STRIKES_MAX: usize = 10;

/// Every vandal that is there breaks its rule. Whether there was one.
fn strike(world: &mut World) -> bool {
    let mut struck = false;
    for client in &mut world.clients {
        if let Role::Vandal(vandal) = &mut client.role
            && client.wire.stage == WireStage::Open
            && client.wire.closed.is_none()
        {
            vandal.strike(&mut client.wire);
            struck = true;
        }
    }
    struck
}

/// Everyone reads, nothing new happens: whatever was to come must have come.
fn quiet(world: &mut World) {
    world.net.borrow_mut().note(|| "quiet".to_owned());
    for client in &mut world.clients {
        client.wire.pace = Pace::Eager;
    }
    // Also who could not be accepted for a while.
    world.pass(Duration::from_secs(1));
    // Some are accepted only when those who struck before are gone, and their slots free.
    for round in 0..STRIKES_MAX {
        if !strike(world) && round > 0 {
            break;
        }
        world.settle();
        world.pass(Duration::from_secs(12));
    }
    // Whoever still waits for a snapshot gets one.
    world.refresh_books();
    world.settle();
    // A ping that falls due in its last turn may find no room; who is stuck is so after any time.
    for _ in 0..5 {
        let blocked = world.shared.counters.iter().any(|shard| shard.blocked.value() > 0);
        if blocked {
            world.settle();
        }
    }
    check_clients(world);
    check_shards(world);
    if world.plan.poor {
        check_poor(world);
    } else {
        check_truth(world);
    }
}

/// Nobody was sent anything behind a gap, even where nobody can tell all that was published.
fn check_poor(world: &World) {
    for (who, client) in world.clients.iter().enumerate() {
        match &client.role {
            Role::Subscriber(subscriber) if !subscriber.raw => {
                check_subscriber(&world.truth, who, &subscriber.log);
            }
            _ => {}
        }
    }
}

/// Everyone was sent what it was due.
fn check_truth(world: &World) {
    for topic in 0..world.truth.names.len() {
        let seqs = world.seqs(0);
        world.truth.check_order(topic, seqs[topic]);
    }
    for (who, client) in world.clients.iter().enumerate() {
        match &client.role {
            Role::Subscriber(subscriber) => {
                check_subscriber(&world.truth, who, &subscriber.log);
                for &(id, seq) in &subscriber.answers {
                    assert_eq!(world.truth.published[id].seq, seq, "what its command became");
                }
            }
            Role::Publisher(publisher) => {
                publisher.check(&world.truth, client.wire.stage == WireStage::Open);
            }
            Role::Vandal(vandal) => vandal.check(who, &client.wire),
            Role::Mute => {}
        }
    }
    for (id, answer) in &world.tickets {
        let published = &world.truth.published[*id];
        assert_eq!(published.by, CONTROL);
        if published.snapshot {
            assert!(answer.is_some(), "the control thread's answer");
        } else {
            assert_eq!(*answer, Some(published.seq), "the control thread's answer");
        }
    }
}

fn check_clients(world: &mut World) {
    for who in 0..world.clients.len() {
        let seqs = world.seqs(world.clients[who].wire.shard);
        let client = &mut world.clients[who];
        let wire = &client.wire;
        if client.observer && !world.plan.poor {
            assert_eq!(wire.stage, WireStage::Open, "observer {who} was cut: {:?}", wire.closed);
        }
        if let (Some(code), true) = (wire.closed, wire.diligent && !world.plan.poor) {
            let fine = matches!(code, Some(1013)) || wire.close_code == Some(code);
            let vandal = matches!(client.role, Role::Vandal(_));
            assert!(fine || vandal, "client {who}, who did no wrong, was closed with {code:?}");
        }
        if wire.stage != WireStage::Open || !wire.polite {
            continue;
        }
        assert!(
            !wire.left,
            "client {who} has sent FIN, and the server does not close: {client:?}, {}",
            world.net.borrow().describe(wire.socket)
        );
        assert!(wire.is_said(), "client {who}: what it says is not read");
        assert_eq!(wire.pongs_owed, 0, "client {who} waits for pongs");
        assert!(wire.closed.is_none() && !wire.close_sent, "client {who} is never closed");
        match &mut client.role {
            Role::Subscriber(subscriber) => {
                assert!(subscriber.is_answered(), "client {who} waits: {subscriber:?}");
                subscriber.log.push(Entry::Quiet { seqs });
            }
            Role::Publisher(publisher) => {
                assert!(publisher.is_answered(), "client {who} waits: {publisher:?}");
            }
            Role::Vandal(_) | Role::Mute => {}
        }
    }
}

fn check_shards(world: &World) {
    let open = |shard: usize| {
        world.clients.iter().filter(move |client| {
            let wire = &client.wire;
            wire.shard == shard && wire.stage == WireStage::Open && wire.closed.is_none()
        })
    };
    let (mut deliveries, mut skipped) = (0, 0);
    for shard in 0..world.plan.shards {
        assert_eq!(world.seqs(shard), world.seqs(0), "shards 0 and {shard} differ");
        let vitals = world.shards[shard].vitals();
        let counters = &world.shared.counters[shard];
        for (name, gauge) in [
            ("lagging", counters.lagging.value()),
            ("blocked", counters.blocked.value()),
            ("overloaded", counters.overloaded.value()),
            ("parked", vitals.parked as u64),
            ("held", vitals.held as u64),
            ("log bytes", vitals.log_bytes),
            ("acks", vitals.acks as u64),
            ("sweeps", vitals.sweeps as u64),
        ] {
            assert_eq!(gauge, 0, "{name} of shard {shard}, when all is quiet: {vitals:?}");
        }
        let publishers = open(shard).filter(|c| matches!(c.role, Role::Publisher(_))).count();
        assert_eq!(counters.publishers.value(), publishers as u64, "publishers of {shard}");
        let subscribers = open(shard).filter(|client| match &client.role {
            Role::Subscriber(subscriber) => !subscriber.patterns.is_empty(),
            _ => false,
        });
        let subscribers = subscribers.count() as u64;
        assert_eq!(counters.subscribers.value(), subscribers, "subscribers");
        deliveries += counters.deliveries.value();
        skipped += counters.skipped.value();
    }
    if world.plan.calm {
        // But who begins with more than fits into one send is sent the newest values only.
        let small = world.plan.pad_max <= 200 && world.plan.books == 0;
        assert!(skipped == 0 || !small, "nobody lagged, and {skipped} messages were skipped");
        // A batch of a sweep is counted when it is made: who goes does not hear the last one's end.
        let gone = world.clients.iter().any(|client| client.wire.closed.is_some());
        let received = world.truth.delivered;
        let fits = deliveries == received || gone && deliveries > received;
        assert!(fits, "{deliveries} deliveries counted and {received} received");
    }
}

fn everyone_leaves(world: &mut World) {
    world.net.borrow_mut().note(|| "everyone leaves".to_owned());
    if world.plan.drain {
        world.shared.advance(Stage::Draining);
        for shard in 0..world.plan.shards {
            world.net.borrow_mut().wake(shard);
        }
    } else {
        for who in 0..world.clients.len() {
            world.go(who);
        }
    }
    world.settle();
    world.pass(Duration::from_secs(25));
    for (who, client) in world.clients.iter().enumerate() {
        let fine = client.wire.is_over() || matches!(client.role, Role::Mute);
        assert!(fine, "client {who} is still there: {client:?}");
        if world.plan.drain && client.observer && !world.plan.poor {
            assert_eq!(client.wire.closed, Some(Some(1001)), "told to go");
        }
    }
    for shard in 0..world.plan.shards {
        let vitals = world.shards[shard].vitals();
        let topics = vitals.topics;
        let empty = uringcast::shard::Vitals { topics, ..Default::default() };
        assert_eq!(vitals, empty, "shard {shard}, after everyone left");
        assert_eq!(world.net.borrow().slots_used(shard), 0, "slots of shard {shard}");
        assert_eq!(world.shards[shard].has_ended(), world.plan.drain, "shard {shard} has ended");
        let counters = &world.shared.counters[shard];
        assert_eq!(counters.subscribers.value(), 0);
        assert_eq!(counters.publishers.value(), 0);
        assert_eq!(counters.blocked.value(), 0);
        assert_eq!(counters.lagging.value(), 0);
    }
    assert_eq!(world.shared.log_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
}
