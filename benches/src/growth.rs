//! What more connections, or more topics, make dearer: memory of each, and the parts of a tick.
//!
//! Knows: how a shard is filled, and what is timed. Must not know: what is too much.
//!
//! Memory is the process's resident set, with the server's allocator: what the first thousand
//! connections, or the first topic, took is left out, so that what every process needs is not divided
//! among few. The null ring has no sockets: the kernel's part of a connection is not in it.

use std::{fs, time::Duration};

use uringcast_protocol::{Opcode, writer::write_frame};
use uringcast_ring::Token;

use crate::{clock::thread_cpu_ns, null_ring::RECEIVE_BYTES, null_server::NullServer};

/// How much there is of what grows.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Subscribers of one topic, which share a lane.
    pub connections: u32,
    /// Topics, each published to once.
    pub topics: u32,
}

/// What it took: processor time of the thread, ns, and memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// Resident bytes of a connection beyond the first thousand.
    pub connection_bytes: Option<f64>,
    /// Resident bytes of a topic beyond the first.
    pub topic_bytes: Option<f64>,
    /// A tick with nothing to do.
    pub idle_ns: f64,
    /// A publication to a lane of one: received, appended, sent.
    pub publish_ns: f64,
    /// A subscribe or unsubscribe of one topic by a client that shares its lane with all others.
    pub subscribe_ns: f64,
    /// A pattern that nobody had: subscribed and unsubscribed.
    pub pattern_ns: f64,
    /// A connection: accepted, upgraded, seated in the lane of all.
    pub accept_ns: f64,
    /// A tick in which a turn of pings is due: one 250th of all connections, or 64 neighbours where
    /// that is more.
    pub ping_tick_ns: f64,
}

impl Taken {
    /// The figures in the order of declaration; those that were not measured are not numbers.
    pub fn figures(&self) -> [f64; FIGURES.len()] {
        [
            self.connection_bytes.unwrap_or(f64::NAN),
            self.topic_bytes.unwrap_or(f64::NAN),
            self.idle_ns,
            self.publish_ns,
            self.subscribe_ns,
            self.pattern_ns,
            self.accept_ns,
            self.ping_tick_ns,
        ]
    }
}

/// What [`Taken::figures`] are.
pub const FIGURES: [&str; 8] = [
    "B/connection",
    "B/topic",
    "idle tick, ns",
    "publish to one, ns",
    "subscribe, ns",
    "new pattern, ns",
    "accept, ns",
    "tick of pings, ns",
];

impl Size {
    /// Fills a shard so far, and measures. `said` hears how far it is.
    pub fn measure(self, mut said: impl FnMut(&str)) -> Taken {
        let Self { connections, topics } = self;
        let mut server = NullServer::new(connections + SPARE);
        let publisher = server.publisher("/publish");
        let to_one = server.publisher("/publish/one");
        server.subscribe("/raw/one");
        let client = server.client("/ws?topics=all");
        publish_topic(&mut server, publisher, 0);

        let mut before = None;
        for n in 0..connections {
            if n == FIRST_CONNECTIONS {
                before = Some(resident_bytes());
            }
            if n % PROGRESS_STEP == 0 {
                said(&format!("{n} of {connections} connections"));
            }
            server.subscribe("/ws?topics=all");
        }
        let connection_bytes = before
            .map(|before| (resident_bytes() - before) / f64::from(connections - FIRST_CONNECTIONS));
        let before = resident_bytes();
        for n in 1..topics {
            if n % PROGRESS_STEP == 0 {
                said(&format!("{n} of {topics} topics"));
            }
            publish_topic(&mut server, publisher, n);
        }
        let topic_bytes = (topics > 1).then(|| (resident_bytes() - before) / f64::from(topics - 1));

        said("timing");
        let frame = text_frame(&[b'.'; 128]);
        let subscribe = text_frame(br#"{"op":"subscribe","topics":["probe"]}"#);
        let unsubscribe = text_frame(br#"{"op":"unsubscribe","topics":["probe"]}"#);
        let pattern = text_frame(br#"{"op":"subscribe","topics":["probe.*.x"]}"#);
        let unpattern = text_frame(br#"{"op":"unsubscribe","topics":["probe.*.x"]}"#);
        Taken {
            connection_bytes,
            topic_bytes,
            idle_ns: timed(1_000, || server.tick()),
            publish_ns: timed(200, || tell(&mut server, to_one, &frame)),
            subscribe_ns: timed(100, || {
                tell(&mut server, client, &subscribe);
                tell(&mut server, client, &unsubscribe);
            }) / 2.0,
            pattern_ns: timed(2, || {
                tell(&mut server, client, &pattern);
                tell(&mut server, client, &unpattern);
            }),
            accept_ns: timed(20, || {
                server.subscribe("/ws?topics=all");
            }),
            ping_tick_ns: ping_tick_ns(&mut server),
        }
    }
}

/// Ticks in which a turn is due; what does not fit into one slice of sends goes in the ticks after it.
fn ping_tick_ns(server: &mut NullServer) -> f64 {
    let ticks = (0..ROUNDS).map(|_| {
        server.pass(PING_TURN);
        let begun_ns = thread_cpu_ns();
        server.tick();
        let took_ns = (thread_cpu_ns() - begun_ns) as f64;
        server.settle();
        took_ns
    });
    median(ticks.collect())
}

fn publish_topic(server: &mut NullServer, publisher: Token, n: u32) {
    let line = format!("{{\"topic\":\"market.{n}.trade\",\"data\":{{\"p\":\"{n:0>100}\"}}}}");
    tell(server, publisher, &text_frame(line.as_bytes()));
}

/// Bytes come, and everything that follows from them is done.
fn tell(server: &mut NullServer, whom: Token, frame: &[u8]) {
    for piece in frame.chunks(RECEIVE_BYTES) {
        server.receive(whom, piece.to_vec());
    }
    server.settle();
}

fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, Opcode::Text, true, payload, Some([1, 2, 3, 4]));
    frame
}

/// What one call takes, ns: so many between two readings of the clock, the median of some rounds.
fn timed(calls: u32, mut work: impl FnMut()) -> f64 {
    work();
    let rounds = (0..ROUNDS).map(|_| {
        let begun_ns = thread_cpu_ns();
        (0..calls).for_each(|_| work());
        (thread_cpu_ns() - begun_ns) as f64 / f64::from(calls)
    });
    median(rounds.collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Resident memory of this process.
fn resident_bytes() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    (pages * rustix::param::page_size() as u64) as f64
}

/// Measurements of each, of which the median counts. Pings go unanswered: more turns than these may
/// not pass, or those pinged first are closed.
const ROUNDS: usize = 15;
/// Connections that are made while others are timed, and the publishers.
const SPARE: u32 = 1_000;
/// What the first ones take is the shard's beginning, not theirs.
const FIRST_CONNECTIONS: u32 = 1_000;
const PROGRESS_STEP: u32 = 10_000;
/// The server's default interval has 250 of them.
const PING_TURN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured() {
        let taken = Size { connections: 1_100, topics: 50 }.measure(|_| {});
        assert!(taken.figures().iter().skip(2).all(|&figure| figure > 0.0), "{taken:?}");
        assert!(taken.connection_bytes.is_some() && taken.topic_bytes.is_some());
    }
}
