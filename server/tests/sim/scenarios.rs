//! Single bugs that were found, each by the shortest way to it.
//!
//! Knows: one client's steps at a time. Must not know: dice; nothing here is left to chance.

use std::time::Duration;

use uringcast_protocol::{Opcode, deflate::Offer};

use crate::{
    clients::{Client, Role},
    dice::Dice,
    net::{Faults, Net},
    oracle::{Content, Entry, Seqs},
    publisher::Publisher,
    stand::check_subscriber,
    subscriber::Subscriber,
    wire::{Pace, Stage, Wire},
    world::{Loses, Plan, World, usual_settings},
};

/// A world of one shard, in which nothing goes wrong by itself.
fn world(change: impl FnOnce(&mut uringcast::settings::Settings)) -> World {
    world_of(4, change)
}

fn world_of(topics: usize, change: impl FnOnce(&mut uringcast::settings::Settings)) -> World {
    world_with(topics, None, change)
}

fn world_with(
    topics: usize,
    helper: Option<Loses>,
    change: impl FnOnce(&mut uringcast::settings::Settings),
) -> World {
    let plan = Plan {
        shards: 1,
        calm: true,
        steps: 0,
        topics,
        books: 0,
        clients_max: 200,
        pad_max: 30_000,
        faults: Faults::default(),
        drain: false,
        cycles: 1,
        jumps: false,
        poor: false,
        helper,
    };
    let mut settings = usual_settings();
    change(&mut settings);
    World::new(plan, Dice::new(1), settings)
}

pub(crate) fn subscriber(world: &mut World, path: Result<&[&str], &str>, room: usize) -> usize {
    subscriber_with(world, path, room, None)
}

fn subscriber_with(
    world: &mut World,
    path: Result<&[&str], &str>,
    room: usize,
    offer: Option<Offer>,
) -> usize {
    let mut wire = Wire::new(&mut world.net.borrow_mut(), 0, 0, room);
    wire.offer = offer;
    let seqs = world.seqs(0);
    let role = Role::Subscriber(match path {
        Ok(topics) => Subscriber::json(&mut wire, topics, false, seqs),
        Err(raw) => Subscriber::raw(&mut wire, raw, seqs),
    });
    world.clients.push(Client { wire, role, observer: false });
    world.settle();
    world.clients.len() - 1
}

pub(crate) fn publisher(world: &mut World, topic: usize) -> usize {
    let mut wire = Wire::new(&mut world.net.borrow_mut(), 0, 1, 1 << 20);
    let me = world.clients.len();
    let role = Publisher::new(&mut wire, &world.truth, me, Some(topic), false);
    world.clients.push(Client { wire, role: Role::Publisher(role), observer: false });
    world.settle();
    me
}

pub(crate) fn publish(world: &mut World, who: usize, topic: usize, pad: usize) {
    say(world, who, topic, pad);
    world.settle();
}

fn say(world: &mut World, who: usize, topic: usize, pad: usize) {
    let id = world.truth.publish(topic, Content::Json, pad, who);
    let payload = world.truth.published[id].payload.clone();
    world.clients[who].wire.say(&mut world.net.borrow_mut(), Opcode::Text, &payload);
}

/// What a subscriber was sent, in order.
fn messages(world: &World, who: usize) -> Vec<usize> {
    let Role::Subscriber(subscriber) = &world.clients[who].role else {
        unreachable!("a subscriber")
    };
    let ids = subscriber.log.iter().filter_map(|entry| match entry {
        Entry::Message { id, .. } => Some(*id),
        _ => None,
    });
    ids.collect()
}

pub(crate) fn turns(world: &mut World, count: usize) {
    for _ in 0..count {
        world.turn(0);
    }
}

/// A shard runs until something is out at the helper, which does not run.
fn run_to_helper(world: &mut World, source: usize) {
    for _ in 0..200 {
        world.client_turn(source);
        world.turn(0);
        if world.clients[source].wire.is_said() && world.shards[0].vitals().held > 0 {
            // What is behind it comes in the same packets or the next.
            turns(world, 50);
            return;
        }
    }
    panic!("nothing went to the helper");
}

/// A JSON subscriber asks for something.
pub(crate) fn ask(
    world: &mut World,
    who: usize,
    ask: impl FnOnce(&mut Subscriber, &mut Net, &mut Wire, Seqs),
) {
    let seqs = world.seqs(0);
    let net = &mut *world.net.borrow_mut();
    let Client { wire, role: Role::Subscriber(subscriber), .. } = &mut world.clients[who] else {
        unreachable!("a subscriber")
    };
    ask(subscriber, net, wire, seqs);
}

pub(crate) fn closed(world: &World, who: usize) -> Option<u16> {
    world.clients[who].wire.closed.flatten()
}

/// It stood at the head when its socket filled up, by an answer: its lag was never judged.
#[test]
fn blocked_by_its_own_output_at_the_head() {
    let mut world = world(|settings| settings.lag_bytes_max = 10_000);
    let who = subscriber(&mut world, Ok(&["e.0"]), 150);
    let source = publisher(&mut world, 0);
    world.clients[who].wire.pace = Pace::Stalled;
    for _ in 0..10 {
        ask(&mut world, who, |subscriber, net, wire, _| subscriber.list(net, wire));
    }
    world.settle();
    for _ in 0..100 {
        publish(&mut world, source, 0, 1_000);
    }
    let held = world.shards[0].vitals().log_bytes;
    assert!(held < 100_000, "{held} bytes are held for who reads nothing");
}

/// An operation that waits for room must be cancelled when the connection is given up, or its slot
/// is kept for as long as the client reads nothing.
#[test]
fn a_stalled_client_is_given_up() {
    let mut world = world(|settings| settings.lag_bytes_max = 10_000);
    let who = subscriber(&mut world, Err("e.0"), 500);
    let source = publisher(&mut world, 0);
    world.clients[who].wire.pace = Pace::Stalled;
    for _ in 0..30 {
        publish(&mut world, source, 0, 1_000);
    }
    assert_eq!(world.shared.counters[0].closed_slow.value(), 1);
    assert_eq!(world.shards[0].vitals().connections, 2);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.shards[0].vitals().connections, 1);
    assert_eq!(world.shared.counters[0].closed_slow_reset.value(), 1);
}

/// It changed its interest while its socket was full: in its new lane its lag was never judged.
#[test]
fn blocked_when_it_comes_to_a_lane() {
    let mut world = world(|settings| settings.lag_bytes_max = 10_000);
    let who = subscriber(&mut world, Ok(&["e.0"]), 150);
    let _other = subscriber(&mut world, Ok(&["e.0", "e.1.x"]), 1 << 20);
    let source = publisher(&mut world, 0);
    world.clients[who].wire.pace = Pace::Stalled;
    publish(&mut world, source, 0, 1_000);
    ask(&mut world, who, |subscriber, net, wire, seqs| {
        subscriber.subscribe(net, wire, &["e.1.x"], false, seqs);
    });
    world.settle();
    let elsewhere = publisher(&mut world, 2);
    for _ in 0..100 {
        publish(&mut world, elsewhere, 2, 1_000);
    }
    let held = world.shards[0].vitals().log_bytes;
    assert!(held < 100_000, "{held} bytes are held for who reads nothing");
}

/// A command in the same packet as an offence was obeyed, and answered behind the Close frame.
#[test]
fn a_subscribe_behind_an_offence() {
    let mut world = world(|_| {});
    let who = subscriber(&mut world, Ok(&[]), 1 << 20);
    world.clients[who].wire.polite = false;
    let wire = &mut world.clients[who].wire;
    wire.say(&mut world.net.borrow_mut(), Opcode::Binary, b"no command");
    ask(&mut world, who, |subscriber, net, wire, seqs| {
        subscriber.subscribe(net, wire, &["e.0"], false, seqs);
    });
    world.settle();
    assert_eq!(closed(&world, who), Some(1003));
    world.pass(Duration::from_secs(6));
    assert_eq!(world.clients[who].wire.stage, Stage::Over);
    assert_eq!(world.shards[0].vitals().connections, 0);
}

/// Data and FIN as one event: the FIN was never received.
#[test]
fn data_and_fin_in_one_event() {
    let mut world = world(|_| {});
    let who = subscriber(&mut world, Err("e.0"), 1 << 20);
    world.clients[who].wire.ping(&mut world.net.borrow_mut());
    world.clients[who].wire.shut();
    while !world.clients[who].wire.left {
        world.client_turn(who);
    }
    world.settle();
    assert_eq!(world.clients[who].wire.stage, Stage::Over);
    assert_eq!(world.shared.counters[0].closed_abnormal.value(), 1);
}

/// A subscriber freed after a long stall looked like a rotation as long as the stall, and publishers
/// were slowed for it.
#[test]
fn one_stalled_subscriber_is_no_overload() {
    let mut world = world(|_| {});
    let who = subscriber(&mut world, Err("e.0"), 2_000);
    let source = publisher(&mut world, 0);
    world.clients[who].wire.pace = Pace::Stalled;
    for _ in 0..300 {
        publish(&mut world, source, 0, 1_000);
    }
    world.pass(Duration::from_secs(3));
    world.clients[who].wire.pace = Pace::Eager;
    world.settle();
    let counters = &world.shared.counters[0];
    assert_eq!(counters.overload_rotations.value(), 0);
    assert_eq!(counters.deliveries.value(), 300);
}

/// Overload slowed the publishers of all topics, not only of those whose lanes were late: a lane of
/// few beside one of thousands waited for the end of it.
#[test]
fn only_publishers_of_late_lanes_are_slowed() {
    let mut world = world(|settings| settings.overload_rotation = Duration::from_millis(5));
    // More than fits into two slices: after them, some wait for longer than that.
    for _ in 0..120 {
        subscriber(&mut world, Err("e.0"), 1 << 20);
    }
    let few = subscriber(&mut world, Err("e.1.x"), 1 << 20);
    let (busy, calm) = (publisher(&mut world, 0), publisher(&mut world, 2));
    let counters = |world: &World| {
        let counters = &world.shared.counters[0];
        (counters.publications.value(), counters.publishers_slowed.value())
    };
    // Dice say in how many turns a large message comes; when its lane is late, one that is at hand comes in.
    let loud = publisher(&mut world, 0);
    say(&mut world, loud, 0, 29_000);
    let mut said = 1;
    for _ in 0..2_000 {
        if world.shared.counters[0].overloaded.value() == 1 && said < 6 {
            say(&mut world, busy, 0, 10);
            said += 1;
        }
        world.client_turn(busy);
        world.client_turn(loud);
        world.turn(0);
        world.advance(5_100_000);
        if counters(&world).1 > 0 {
            break;
        }
    }
    let (before, slowed) = counters(&world);
    assert_eq!(slowed, 1, "the lane was late when it was published to again");
    assert_eq!(world.shared.counters[0].overloaded.value(), 1);
    for _ in 0..20 {
        say(&mut world, busy, 0, 10);
        say(&mut world, calm, 2, 10);
    }
    for _ in 0..60 {
        world.client_turn(busy);
        world.client_turn(calm);
        world.client_turn(few);
        world.turn(0);
        world.advance(1_000_000);
    }
    assert_eq!(messages(&world, few).len(), 20, "a lane of one beside a late one");
    let (after, _) = counters(&world);
    assert!(after <= before + 20 + 6, "the late lane's publisher went on: {before}, {after}");
    world.pass(Duration::from_secs(1));
    let (after, _) = counters(&world);
    assert_eq!(after, said + 20 + 20, "once it is over all is received");
    assert_eq!(world.shared.counters[0].overloaded.value(), 0);
}

/// While nothing was published, because publishers were slowed, no topic was marked as late: they came
/// back every 100 ms, and logs grew without end.
#[test]
fn publishers_are_slowed_for_as_long_as_a_lane_is_late() {
    let mut world = world(|settings| settings.overload_rotation = Duration::from_millis(5));
    for _ in 0..120 {
        subscriber(&mut world, Err("e.0"), 64 << 20);
    }
    let source = publisher(&mut world, 0);
    let publications = |world: &World| world.shared.counters[0].publications.value();
    // More than a slice of 1 MiB in each turn, at no time at all: what is left takes seconds.
    for _ in 0..150 {
        for _ in 0..4 {
            world.control_publish(0);
        }
        world.turn(0);
        world.control_turn();
    }
    let counted = publications(&world);
    let all = counted * 120;
    let left = all - world.shared.counters[0].deliveries.value();
    assert!(left * 5 > all, "{left} of {all} deliveries are left");
    let is_slowed = |world: &World| world.shared.counters[0].publishers_slowed.value() > 0;
    let tick = |world: &mut World| {
        world.client_turn(source);
        world.turn(0);
        world.advance(5_100_000);
    };
    let mut told = 0;
    while !is_slowed(&world) {
        assert!(told < 50, "the lane is late");
        say(&mut world, source, 0, 10);
        told += 1;
        tick(&mut world);
    }
    say(&mut world, source, 0, 10);
    for _ in 0..5 {
        tick(&mut world);
    }
    let before = publications(&world);
    for _ in 0..30 {
        tick(&mut world);
    }
    assert_eq!(publications(&world), before, "it was received from while the lane was late");
    world.pass(Duration::from_secs(1));
    assert_eq!(publications(&world), counted + told + 1);
}

/// A last value asked for again overtook the messages that led to it.
#[test]
fn a_last_value_behind_all_that_led_to_it() {
    let mut world = world(|_| {});
    let who = subscriber(&mut world, Ok(&["e.0"]), 500);
    let source = publisher(&mut world, 0);
    world.clients[who].wire.pace = Pace::Stalled;
    for _ in 0..20 {
        publish(&mut world, source, 0, 300);
    }
    ask(&mut world, who, |subscriber, net, wire, seqs| {
        subscriber.subscribe(net, wire, &["e.0"], true, seqs);
    });
    world.settle();
    world.clients[who].wire.pace = Pace::Eager;
    world.settle();
    let Role::Subscriber(subscriber) = &world.clients[who].role else {
        unreachable!("a subscriber")
    };
    assert!(subscriber.is_answered());
    let snapshot = Entry::Message { id: 19, snapshot: true };
    assert_eq!(subscriber.log.last(), Some(&snapshot));
    check_subscriber(&world.truth, who, &subscriber.log);
}

/// A sweep that compared all topics with one count took those at the end for seen, and starved them.
#[test]
fn no_topic_starves_in_sweeps() {
    let mut world = world_of(60, |settings| settings.lag_bytes_max = 50_000);
    let who = subscriber(&mut world, Err("v.>"), 20_000);
    for _ in 0..100 {
        for topic in (1..60).step_by(2) {
            world.control_publish(topic);
            world.turn(0);
            world.control_turn();
        }
        for _ in 0..3 {
            world.client_turn(who);
            world.turn(0);
        }
        world.advance(1_000_000);
    }
    assert!(
        world.shared.counters[0].skipped.value() + world.shared.counters[0].lagging.value() > 0
    );
    let Role::Subscriber(subscriber) = &world.clients[who].role else {
        unreachable!("a subscriber")
    };
    let mut seen = [0; 60];
    for entry in &subscriber.log {
        if let Entry::Message { id, .. } = entry {
            seen[world.truth.published[*id].topic] += 1;
        }
    }
    let values = seen.into_iter().skip(1).step_by(2);
    let (least, most) = (values.clone().min().unwrap_or(0), values.max().unwrap_or(0));
    assert!(least > 10 && most < 2 * least, "from {least} to {most} messages of a topic");
}

/// One long publication waits for the helper, and so does all that is published to its topic after
/// it; another topic does not.
#[test]
fn what_is_published_behind_a_long_one_waits_for_it() {
    let mut world = world_with(4, Some(Loses::Never), |_| {});
    let deflated = subscriber_with(&mut world, Err(">"), 1 << 20, Some(Offer::default()));
    let plain = subscriber(&mut world, Err(">"), 1 << 20);
    let source = publisher(&mut world, 0);
    let elsewhere = publisher(&mut world, 2);
    for pad in [30_000, 10, 50_000, 20] {
        say(&mut world, source, 0, pad);
    }
    run_to_helper(&mut world, source);
    assert_eq!(world.shards[0].vitals().held, 4, "one out, three behind it");
    say(&mut world, elsewhere, 2, 1_000);
    for _ in 0..200 {
        world.client_turn(elsewhere);
        world.turn(0);
    }
    assert_eq!(world.shards[0].topic_seq("e.1.x"), 1, "another topic goes on");
    assert_eq!(world.shards[0].topic_seq("e.0"), 0, "nothing of that topic is published yet");
    world.settle();
    for who in [deflated, plain] {
        assert_eq!(messages(&world, who), [4, 0, 1, 2, 3]);
    }
    // All that is not too short or random: 0 hardly compresses, but has its JSON around it.
    assert!(world.clients[deflated].wire.inflated >= 2);
    assert_eq!(world.clients[plain].wire.inflated, 0);
    let counters = &world.shared.counters[0];
    assert_eq!(counters.deflate_helper.value(), 2);
    assert_eq!(world.helper.as_ref().map(|helper| helper.compressed), Some(2));
    assert_eq!(world.shards[0].vitals().held, 0);
}

/// A delete stands in the order of its topic's publications, too.
#[test]
fn a_delete_behind_a_long_publication_comes_after_it() {
    let mut world = world_with(1, Some(Loses::Never), |_| {});
    let who = subscriber_with(&mut world, Err("e.0"), 1 << 20, Some(Offer::default()));
    let source = publisher(&mut world, 0);
    say(&mut world, source, 0, 30_000);
    run_to_helper(&mut world, source);
    world.ask_delete("e.0");
    turns(&mut world, 20);
    say(&mut world, source, 0, 10);
    (0..20).for_each(|_| {
        world.client_turn(source);
        world.turn(0);
    });
    assert_eq!(world.shards[0].vitals().held, 3, "the publication, the delete, the next one");
    world.settle();
    assert_eq!(messages(&world, who), [0, 1]);
    assert_eq!(world.shards[0].topic_seq("e.0"), 1, "the topic began again");
}

/// A helper that is dead: what it was sent goes plain in a quarter of a second, in order.
#[test]
fn without_an_answer_of_the_helper_it_goes_plain() {
    let mut world = world_with(2, Some(Loses::Never), |_| {});
    world.helper = None;
    let who = subscriber_with(&mut world, Err(">"), 1 << 20, Some(Offer::default()));
    let source = publisher(&mut world, 0);
    for pad in [30_000, 10, 50_000] {
        say(&mut world, source, 0, pad);
    }
    run_to_helper(&mut world, source);
    assert!(messages(&world, who).is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(messages(&world, who), [0, 1, 2]);
    assert_eq!(world.clients[who].wire.inflated, 0);
    assert_eq!(world.shared.counters[0].deflate_skipped.value(), 2);
    assert_eq!(world.shards[0].vitals().held, 0);
}

/// The end of the process does not wait for the helper, and nobody misses what is out there.
#[test]
fn a_drain_publishes_what_is_out_at_the_helper() {
    let mut world = world_with(2, Some(Loses::Never), |_| {});
    world.helper = None;
    let who = subscriber_with(&mut world, Err(">"), 1 << 20, Some(Offer::default()));
    let source = publisher(&mut world, 0);
    say(&mut world, source, 0, 30_000);
    run_to_helper(&mut world, source);
    world.shared.advance(uringcast::shared::Stage::Draining);
    world.net.borrow_mut().wake(0);
    world.settle();
    assert_eq!(messages(&world, who), [0]);
    assert_eq!(closed(&world, who), Some(1001));
}
