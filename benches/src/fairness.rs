//! Whether a lane waits for others, counted in sends: what is counted does not depend on the machine.
//!
//! Knows: which slots are which lane's, and what left the shard in what order. Must not know: how the
//! shard chooses.

use std::mem;

use uringcast_protocol::{Opcode, writer::write_frame};
use uringcast_ring::Token;

use crate::{
    clock::thread_cpu_ns,
    null_ring::{Noted, RECEIVE_BYTES},
    null_server::NullServer,
    suite::Summary,
};

/// A small lane beside a large one that always has something to send.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// Subscribers of the large one.
    pub large: u32,
    /// Subscribers of the small one.
    pub small: u32,
    /// To the small one.
    pub publications: u64,
    /// Of a publication to the large one.
    pub payload_bytes: usize,
    /// When the small one is published to.
    pub arrival: Arrival,
}

/// When something is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// As soon as everyone has had what was before: the small lane's slice has just been, so each
    /// waits for as long as it may.
    Close,
    /// In one tick of so many on average (at least 1), always the same ones.
    Chance(u64),
}

/// How long the small lane's deliveries waited.
#[derive(Clone, Debug)]
pub struct Waits {
    /// By delivery: sends to others since its publication was appended; rising.
    pub sends: Vec<u64>,
    /// The same in bytes.
    pub bytes: Vec<u64>,
    /// What a tick with a slice of the large lane took of the thread's CPU time, ns.
    pub slice_ns: Summary,
    /// Ticks that sent nothing: the large lane was not always waiting.
    pub idle_ticks: u64,
}

impl Beside {
    /// Runs it.
    pub fn run(&self) -> Waits {
        let Self { large, small, publications, .. } = *self;
        let mut server = NullServer::new(large + small + 2);
        // The small lane has the first slots.
        for (count, path) in [(small, "/raw/small"), (large, "/raw/large")] {
            for _ in 0..count {
                server.subscribe(path);
            }
        }
        let to_small = server.publisher("/publish/small");
        let to_large = server.publisher("/publish/large");
        let small_frame = frame("/raw/small", 128);
        let large_frame = frame("/raw/large", self.payload_bytes);
        server.ring().noted = Some(Vec::new());

        let mut chance = Chance(1);
        // By subscriber of the small lane: (sends, bytes) to others when each publication that it has
        // yet to get was appended.
        let mut waiting = vec![Vec::new(); small as usize];
        let (mut published, mut others) = (0, (0, 0));
        let (mut sends, mut bytes, mut slices_ns) = (Vec::new(), Vec::new(), Vec::new());
        let (mut idle_ticks, mut since_large) = (0, u64::MAX);
        for _ in 0..publications.saturating_mul(TICKS_MAX) {
            let is_over = waiting.iter().all(Vec::is_empty);
            if is_over && published == publications {
                break;
            }
            // Half a round before the last of them has what is there.
            if since_large >= u64::from(large / 2) {
                publish(&mut server, to_large, &large_frame);
                since_large = 0;
            }
            let is_time = match self.arrival {
                Arrival::Close => is_over,
                Arrival::Chance(ticks) => chance.next().is_multiple_of(ticks),
            };
            if is_time && published < publications {
                publish(&mut server, to_small, &small_frame);
                published += 1;
                waiting.iter_mut().for_each(|since| since.push(others));
            }
            let (noted, took_ns) = tick(&mut server);
            idle_ticks += u64::from(noted.is_empty());
            if noted.first().is_some_and(|sent| sent.slot >= small) {
                slices_ns.push(took_ns);
            }
            for sent in noted {
                if sent.slot >= small {
                    others = (others.0 + 1, others.1 + u64::from(sent.bytes));
                    since_large += 1;
                    continue;
                }
                for since in waiting[sent.slot as usize].drain(..) {
                    sends.push(others.0 - since.0);
                    bytes.push(others.1 - since.1);
                }
            }
        }
        // Whoever was never served has waited until now.
        for since in waiting.into_iter().flatten() {
            sends.push(others.0 - since.0);
            bytes.push(others.1 - since.1);
        }
        sends.sort_unstable();
        bytes.sort_unstable();
        Waits { sends, bytes, slice_ns: Summary::of(&slices_ns), idle_ticks }
    }
}

/// Lanes of one, each with a topic of its own, and a lane of many; all of them always have something
/// to send.
#[derive(Clone, Copy, Debug)]
pub struct Among {
    /// Lanes of one.
    pub ones: u32,
    /// Subscribers of the other.
    pub many: u32,
    /// For how long.
    pub slices: u64,
}

/// What both kinds got.
#[derive(Clone, Debug)]
pub struct Shares {
    /// The lanes of one.
    pub ones: Served,
    /// The lane of many.
    pub many: Served,
    /// Ticks that sent nothing.
    pub idle_ticks: u64,
}

/// What some subscribers got.
#[derive(Clone, Debug)]
pub struct Served {
    /// Sends to them.
    pub sends: u64,
    /// Sends from one visit to the next of the same subscriber, its own counted; rising.
    pub rotations: Vec<u64>,
    /// The longest of them, also of those that were still waiting at the end.
    pub rotation_max: u64,
    /// Of the subscriber that was visited least.
    pub visits_min: u64,
    /// The longest run of sends to others while these waited.
    pub wait_max: u64,
    /// What a tick with a slice of theirs took of the thread's CPU time, ns.
    pub slice_ns: Summary,
}

impl Among {
    /// Runs it.
    pub fn run(&self) -> Shares {
        let Self { ones, many, slices } = *self;
        let mut server = NullServer::new(ones + many + 2);
        for n in 0..ones {
            server.subscribe(&format!("/raw/own.{n}"));
        }
        for _ in 0..many {
            server.subscribe("/raw/many");
        }
        let to_ones = server.publisher("/publish");
        let to_many = server.publisher("/publish/many");
        let many_frame = frame("/raw/many", 128);
        let line = |slot: u32| {
            let line = format!("{{\"topic\":\"own.{slot}\",\"data\":{{\"p\":\"{slot:0>118}\"}}}}");
            text_frame(line.as_bytes())
        };
        (0..ones).for_each(|n| publish(&mut server, to_ones, &line(n)));
        server.settle();
        server.ring().noted = Some(Vec::new());

        (0..ones).for_each(|n| publish(&mut server, to_ones, &line(n)));
        let mut counts = [Count::new(ones), Count::new(many)];
        let (mut sends, mut idle_ticks, mut since_many) = (0, 0, u64::MAX);
        for _ in 0..slices {
            if since_many >= u64::from(many / 2) {
                publish(&mut server, to_many, &many_frame);
                since_many = 0;
            }
            let (noted, took_ns) = tick(&mut server);
            match noted.first() {
                Some(sent) => counts[usize::from(sent.slot >= ones)].slices_ns.push(took_ns),
                None => idle_ticks += 1,
            }
            for sent in noted {
                sends += 1;
                let is_many = sent.slot >= ones;
                let [of_ones, of_many] = &mut counts;
                let (served, waits) = if is_many { (of_many, of_ones) } else { (of_ones, of_many) };
                served.visit(sent.slot - if is_many { ones } else { 0 }, sends);
                waits.wait();
                if is_many {
                    since_many += 1;
                } else {
                    publish(&mut server, to_ones, &line(sent.slot));
                }
            }
        }
        let [ones, many] = counts.map(|count| count.served(sends));
        Shares { ones, many, idle_ticks }
    }
}

/// What is counted of one kind.
struct Count {
    sends: u64,
    rotations: Vec<u64>,
    wait: u64,
    wait_max: u64,
    slices_ns: Vec<f64>,
    /// By subscriber: visits, and sends to all at the last of them.
    visits: Vec<(u64, u64)>,
}

impl Count {
    fn new(subscribers: u32) -> Self {
        Self {
            sends: 0,
            rotations: Vec::new(),
            wait: 0,
            wait_max: 0,
            slices_ns: Vec::new(),
            visits: vec![(0, 0); subscribers as usize],
        }
    }

    fn visit(&mut self, subscriber: u32, at: u64) {
        self.sends += 1;
        self.wait = 0;
        let (visits, last) = &mut self.visits[subscriber as usize];
        if *visits > 0 {
            self.rotations.push(at - *last);
        }
        (*visits, *last) = (*visits + 1, at);
    }

    fn wait(&mut self) {
        self.wait += 1;
        self.wait_max = self.wait_max.max(self.wait);
    }

    fn served(mut self, end: u64) -> Served {
        self.rotations.sort_unstable();
        let open = self.visits.iter().map(|(_, last)| end - last).max();
        Served {
            sends: self.sends,
            rotation_max: open.max(self.rotations.last().copied()).unwrap_or_default(),
            rotations: self.rotations,
            visits_min: self.visits.iter().map(|&(visits, _)| visits).min().unwrap_or_default(),
            wait_max: self.wait_max,
            slice_ns: Summary::of(&self.slices_ns),
        }
    }
}

/// What it takes to append one publication to so many lanes of one that share its topic, of the
/// thread's CPU time, ns. It is one step: no slice comes between.
pub fn append_ns(lanes: u32, publications: u64) -> Summary {
    let mut server = NullServer::new(lanes + 1);
    for n in 0..lanes {
        server.subscribe(&format!("/ws?topics=all,own.{n}"));
    }
    let publisher = server.publisher("/publish/all");
    let frame = frame("/raw/all", 128);
    let mut took_ns = Vec::new();
    for _ in 0..publications {
        let begun_ns = thread_cpu_ns();
        publish(&mut server, publisher, &frame);
        took_ns.push((thread_cpu_ns() - begun_ns) as f64);
        server.settle();
    }
    Summary::of(&took_ns)
}

/// One tick: what it sent, and the thread's CPU time that it took, ns.
fn tick(server: &mut NullServer) -> (Vec<Noted>, f64) {
    let begun_ns = thread_cpu_ns();
    server.tick();
    let took_ns = thread_cpu_ns() - begun_ns;
    let noted = server.ring().noted.as_mut().map(mem::take).unwrap_or_default();
    (noted, took_ns as f64)
}

/// In pieces as a ring's buffers have room for.
fn publish(server: &mut NullServer, publisher: Token, frame: &[u8]) {
    for piece in frame.chunks(RECEIVE_BYTES) {
        server.receive(publisher, piece.to_vec());
    }
}

fn frame(text: &str, payload_bytes: usize) -> Vec<u8> {
    text_frame(format!("{text:.<payload_bytes$}").as_bytes())
}

fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, Opcode::Text, true, payload, Some([1, 2, 3, 4]));
    frame
}

/// Marsaglia's xorshift: which ticks it picks is the same on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A publication that waits for longer is not waited for: the count says how long it was.
const TICKS_MAX: u64 = 256;
