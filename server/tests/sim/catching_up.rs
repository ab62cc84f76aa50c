//! Single bugs of catching up: sweeps, resumes, snapshots, and interests that change meanwhile.
//!
//! Knows: one client's steps at a time. Must not know: dice; nothing here is left to chance.

use uringcast::{
    rules::{HistoryBounds, Kind as RuleKind, Overflow, Rules, SnapshotSource, TopicRule},
    settings::Settings,
};
use uringcast_protocol::Opcode;

use crate::{
    clients::{Client, Role},
    dice::Dice,
    net::Faults,
    oracle::{Begin, Entry, Told},
    publisher::Publisher,
    scenarios::{ask, closed, publish, publisher, subscriber, turns},
    stand::check_subscriber,
    subscriber::{Resume, Wish},
    wire::{Pace, Wire},
    world::{Plan, World, rule, usual_settings},
};

/// The topic `e.0`.
const EVENT: usize = 0;
/// The topic `v.0`.
const VALUE: usize = 1;
/// The topic `e.1.x`.
const OTHER_EVENT: usize = 2;
/// The topic `d.0`.
const DELTA: usize = 4;

/// Events are kept for later, and gaps are told.
fn world(shards: usize, change: impl FnOnce(&mut TopicRule, &mut Settings)) -> World {
    let plan = Plan {
        shards,
        calm: true,
        steps: 0,
        topics: 4,
        books: 1,
        clients_max: 10,
        pad_max: 1_000,
        faults: Faults::default(),
        drain: false,
        cycles: 1,
        jumps: false,
        poor: false,
        helper: None,
    };
    let mut settings = usual_settings();
    let mut event = rule("e.>", RuleKind::Event);
    event.history = history(100);
    event.overflow = Overflow::Gap;
    change(&mut event, &mut settings);
    let given = settings.rules.given().to_vec();
    settings.rules = Rules::new([vec![event], given].concat());
    World::new(plan, Dice::new(1), settings)
}

fn history(messages: u32) -> HistoryBounds {
    HistoryBounds { messages, bytes: 1 << 20, age: None }
}

fn control(world: &mut World, topic: usize) {
    world.control_publish(topic);
    world.settle();
}

fn subscribe(world: &mut World, who: usize, topics: &[&str], wish: Wish) {
    ask(world, who, |subscriber, net, wire, seqs| {
        subscriber.subscribe_with(net, wire, topics, (wish, seqs));
    });
    world.settle();
}

fn unsubscribe(world: &mut World, who: usize, topics: &[&str]) {
    ask(world, who, |subscriber, net, wire, seqs| {
        subscriber.unsubscribe(net, wire, topics, seqs);
    });
    world.settle();
}

/// What happened to a subscriber, which must be right and whole.
fn checked(world: &mut World, who: usize) -> &[Entry] {
    world.settle();
    let seqs = world.seqs(0);
    let Role::Subscriber(subscriber) = &mut world.clients[who].role else {
        unreachable!("a subscriber")
    };
    assert!(subscriber.is_answered());
    subscriber.log.push(Entry::Quiet { seqs });
    let Role::Subscriber(subscriber) = &world.clients[who].role else {
        unreachable!("a subscriber")
    };
    check_subscriber(&world.truth, who, &subscriber.log);
    &subscriber.log
}

/// Someone waits for a snapshot of the delta topic, and so is swept.
fn waiting(world: &mut World, topics: &[&str]) -> usize {
    let _observer = subscriber(world, Ok(&[">"]), 1 << 20);
    control(world, DELTA);
    let who = subscriber(world, Ok(topics), 1 << 20);
    subscribe(world, who, &["d.0"], Wish { snapshot: true, ..Wish::default() });
    assert_eq!(world.shards[0].vitals().sweeps, 1);
    who
}

/// It had waited for a snapshot of a topic that it then unsubscribed from, and never came back to
/// its lane's log.
#[test]
fn who_waits_for_nothing_any_more_is_not_swept() {
    let mut world = world(1, |_, _| {});
    let who = waiting(&mut world, &["v.0"]);
    control(&mut world, VALUE);
    unsubscribe(&mut world, who, &["d.0"]);
    assert_eq!(world.shards[0].vitals().sweeps, 0);
    checked(&mut world, who);
}

/// A deleted topic's snapshot never comes.
#[test]
fn who_waited_for_a_deleted_topic_is_not_swept() {
    let mut world = world(1, |_, _| {});
    let who = waiting(&mut world, &["v.0"]);
    world.delete(DELTA);
    control(&mut world, VALUE);
    assert_eq!(world.shards[0].vitals().sweeps, 0);
    control(&mut world, DELTA);
    // It was told that there is none, and of the new topic it has all.
    let log = checked(&mut world, who);
    assert!(matches!(log.iter().rev().nth(1), Some(Entry::Message { snapshot: false, .. })));
}

/// While it was swept it unsubscribed and subscribed again, and was sent what came between.
#[test]
fn a_second_subscription_while_swept_begins_at_its_own_answer() {
    let mut world = world(1, |_, _| {});
    let who = waiting(&mut world, &["e.0"]);
    unsubscribe(&mut world, who, &["e.0"]);
    control(&mut world, EVENT);
    control(&mut world, EVENT);
    subscribe(&mut world, who, &["e.0"], Wish::default());
    control(&mut world, EVENT);
    assert_eq!(world.shards[0].vitals().sweeps, 1, "it waits still");
    world.refresh_books();
    checked(&mut world, who);
    assert_eq!(world.shards[0].vitals().sweeps, 0);
}

/// Of a topic that came to be while it was swept, and that it unsubscribed from before its sweep had
/// come to it, it was neither sent anything nor told so.
#[test]
fn unsubscribed_from_a_topic_that_its_sweep_has_not_seen() {
    let mut world = world(1, |_, settings| settings.lag_bytes_max = 5_000);
    let _observer = subscriber(&mut world, Ok(&[">"]), 1 << 20);
    let who = subscriber(&mut world, Ok(&["e.0", "e.1.x"]), 500);
    let source = publisher(&mut world, EVENT);
    world.clients[who].wire.pace = Pace::Stalled;
    (0..30).for_each(|_| publish(&mut world, source, EVENT, 1_000));
    assert_eq!(world.shards[0].vitals().sweeps, 1);
    control(&mut world, OTHER_EVENT);
    unsubscribe(&mut world, who, &["e.1.x"]);
    world.clients[who].wire.pace = Pace::Eager;
    let log = checked(&mut world, who);
    let gap = Entry::Told { topic: OTHER_EVENT, told: Told::Gap { from: 1, to: 1 } };
    assert!(log.contains(&gap));
}

/// A value that it was owed by a pattern was taken for seen when it subscribed to the name as well.
#[test]
fn a_name_within_a_pattern_makes_nothing_seen() {
    let mut world = world(1, |_, _| {});
    let _observer = subscriber(&mut world, Ok(&[">"]), 1 << 20);
    control(&mut world, DELTA);
    let who = subscriber(&mut world, Ok(&["v.>"]), 700);
    subscribe(&mut world, who, &["d.0"], Wish { snapshot: true, ..Wish::default() });
    world.clients[who].wire.pace = Pace::Stalled;
    for _ in 0..20 {
        control(&mut world, VALUE);
    }
    subscribe(&mut world, who, &["v.0"], Wish::default());
    assert_eq!(world.shards[0].vitals().sweeps, 1);
    world.clients[who].wire.pace = Pace::Eager;
    world.settle();
    world.refresh_books();
    checked(&mut world, who);
}

/// A snapshot that a pattern asked for came in place of the messages that a resume had promised.
#[test]
fn a_resume_beside_a_snapshot_of_the_same_topic() {
    let mut world = world(1, |_, _| {});
    let _observer = subscriber(&mut world, Ok(&[">"]), 1 << 20);
    (0..5).for_each(|_| control(&mut world, EVENT));
    let who = subscriber(&mut world, Ok(&["e.0"]), 1 << 20);
    unsubscribe(&mut world, who, &["e.0"]);
    let epoch = world.truth.epochs[EVENT][&0].clone();
    let resume = Resume { topic: EVENT, name: "e.0".to_owned(), epoch, seq: 2, number: 2 };
    let wish = Wish { snapshot: true, resume: vec![resume], ..Wish::default() };
    subscribe(&mut world, who, &["e.0", ">"], wish);
    let log = checked(&mut world, who);
    let answer = |entry: &Entry| {
        matches!(entry, Entry::Subscribed { begin: Begin::Behind { seq: 2, known: true }, .. })
    };
    let at = log.iter().position(answer).expect("the answer");
    let after = log[at..].iter().filter(|entry| matches!(entry, Entry::Message { .. })).count();
    assert_eq!(after, 3, "numbers 3, 4 and 5: {:?}", &log[at..]);
}

/// Who named an epoch that is unknown, while its sweep still had the newest value to send, was never
/// sent it where the topic's rule has no snapshots.
#[test]
fn a_resume_from_nowhere_takes_nothing_from_a_sweep() {
    let mut world = world(1, |_, settings| {
        settings.lag_bytes_max = 5_000;
        let mut value = rule("v.>", RuleKind::Value);
        value.snapshot = SnapshotSource::None;
        let given = settings.rules.given().to_vec();
        settings.rules = Rules::new([vec![value], given].concat());
    });
    let _observer = subscriber(&mut world, Ok(&[">"]), 1 << 20);
    control(&mut world, EVENT);
    subscriber(&mut world, Ok(&["e.0"]), 1 << 20);
    world.settle();
    let source = publisher(&mut world, VALUE);
    let who = subscriber(&mut world, Ok(&["v.0"]), 500);
    world.clients[who].wire.pace = Pace::Stalled;
    for _ in 0..30 {
        publish(&mut world, source, VALUE, 1_000);
    }
    assert_eq!(world.shards[0].vitals().sweeps, 1);
    let epoch = world.truth.epochs[EVENT][&0].clone();
    let resume = Resume { topic: VALUE, name: "v.0".to_owned(), epoch, seq: 2, number: 2 };
    subscribe(&mut world, who, &["v.0"], Wish { resume: vec![resume], ..Wish::default() });
    world.clients[who].wire.pace = Pace::Eager;
    let log = checked(&mut world, who);
    let nowhere = |entry: &Entry| {
        matches!(entry, Entry::Subscribed { begin: Begin::Behind { known: false, .. }, .. })
    };
    assert!(log.iter().any(nowhere), "{log:?}");
}

/// What a sweep had still to send of a topic was lost in silence when the topic was deleted.
#[test]
fn what_is_owed_of_a_deleted_topic_is_a_gap() {
    let mut world = world(1, |_, settings| settings.lag_bytes_max = 5_000);
    let source = publisher(&mut world, EVENT);
    let who = subscriber(&mut world, Ok(&["e.0"]), 500);
    let raw = subscriber(&mut world, Err("e.0"), 500);
    for who in [who, raw] {
        world.clients[who].wire.pace = Pace::Stalled;
    }
    for _ in 0..30 {
        publish(&mut world, source, EVENT, 1_000);
    }
    assert_eq!(world.shards[0].vitals().sweeps, 2);
    world.ask_delete("e.0");
    turns(&mut world, 20);
    for who in [who, raw] {
        world.clients[who].wire.pace = Pace::Eager;
    }
    world.settle();
    assert_eq!(closed(&world, raw), Some(1013), "it can't be told");
    assert_eq!(closed(&world, who), None);
    let Role::Subscriber(subscriber) = &world.clients[who].role else {
        unreachable!("a subscriber")
    };
    let last = subscriber.log.last();
    assert!(
        matches!(last, Some(Entry::Told { topic: EVENT, told: Told::Gap { to: 30, .. } })),
        "{last:?}"
    );
    assert_eq!(world.shards[0].vitals().sweeps, 0);
}

/// It left its lane's log after a topic was deleted of which it had not been sent all: nobody could
/// tell what was missing, and nobody told that something was.
#[test]
fn leaving_the_log_with_messages_of_a_deleted_topic() {
    let mut world = world(1, |_, settings| settings.lag_bytes_max = 5_000);
    let (gone, other) = (publisher(&mut world, EVENT), publisher(&mut world, OTHER_EVENT));
    let who = subscriber(&mut world, Ok(&["e.>"]), 300);
    world.clients[who].wire.pace = Pace::Stalled;
    (0..3).for_each(|_| publish(&mut world, gone, EVENT, 500));
    assert_eq!(world.shards[0].vitals().sweeps, 0);
    world.ask_delete("e.0");
    turns(&mut world, 20);
    (0..10).for_each(|_| publish(&mut world, other, OTHER_EVENT, 1_000));
    world.clients[who].wire.pace = Pace::Eager;
    world.settle();
    assert_eq!(closed(&world, who), Some(1013));
}

/// A publisher on another shard than its topic's home never had an answer to a snapshot of the
/// distant past, and the place where its answer was waited for was never free again.
#[test]
fn a_snapshot_of_the_distant_past_is_answered() {
    let mut world = world(2, |_, settings| {
        let mut delta = rule("d.>", RuleKind::Delta);
        delta.history = history(2);
        settings.rules = Rules::new(vec![delta]);
    });
    for _ in 0..5 {
        control(&mut world, DELTA);
    }
    for shard in 0..2 {
        let mut wire = Wire::new(&mut world.net.borrow_mut(), shard, 1, 1 << 20);
        let role = Publisher::new(&mut wire, &world.truth, world.clients.len(), None, true);
        world.clients.push(Client { wire, role: Role::Publisher(role), observer: false });
        world.settle();
        let line = br#"{"topic":"d.0","snapshot":true,"pub_seq":1,"data":[]}"#;
        let wire = &mut world.clients.last_mut().expect("just come").wire;
        wire.say(&mut world.net.borrow_mut(), Opcode::Text, line);
        world.settle();
        assert_eq!(world.shards[shard].vitals().acks, 0, "shard {shard} waits for an answer");
    }
}

/// A name that could not have snapshots became a topic by a snapshot that was refused.
#[test]
fn a_refused_snapshot_makes_no_topic() {
    let mut world = world(1, |_, _| {});
    let mut wire = Wire::new(&mut world.net.borrow_mut(), 0, 1, 1 << 20);
    let role = Publisher::new(&mut wire, &world.truth, 0, None, false);
    // It is not asked what it makes of the refusal.
    drop(role);
    world.clients.push(Client { wire, role: Role::Mute, observer: false });
    world.settle();
    let line = br#"{"topic":"x.y","snapshot":true,"pub_seq":1,"data":[]}"#;
    world.clients[0].wire.say(&mut world.net.borrow_mut(), Opcode::Text, line);
    world.settle();
    assert_eq!(world.shards[0].vitals().topics, 0);
}
