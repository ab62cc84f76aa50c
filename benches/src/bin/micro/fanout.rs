//! A whole shard on a ring that sends nowhere: from a publisher's bytes to the last subscriber's send,
//! without the kernel.
//!
//! Ten thousand subscribers sit in one lane, where a publication is appended once, or in a lane each,
//! where it is appended ten thousand times. Several publications at once go out together: as many
//! sends as the log has segments.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use uringcast::{
    clock,
    mail::Mail,
    settings::Settings,
    shard::{DATA_LISTENER, PUBLISH_LISTENER, Parts, Shard},
    shared::Shared,
};
use uringcast_benches::suite::{Group, Suite};
use uringcast_mesh::{Node, capacity_for, grid};
use uringcast_protocol::{
    Opcode,
    client_handshake::{Ask, write_request},
    writer::write_frame,
};
use uringcast_ring::{
    Completion, ListenerId, Slot, Token,
    pool::{Pool, PoolOptions},
};

use crate::null_ring::{NullRing, RECEIVE_BYTES};

pub(crate) fn run(suite: &Suite) {
    let name = format!("fan-out into a null ring, {SUBSCRIBERS} subscribers, per subscriber");
    if !suite.wants(&name) {
        return;
    }
    let mut one_raw = Server::start(|_| "/raw/bench".to_owned());
    let mut one_json = Server::start(|_| "/ws?topics=bench".to_owned());
    let mut many = Server::start(|n| format!("/ws?topics=bench,own.{n}"));
    let mut one_raw_burst = Server::start(|_| "/raw/bench".to_owned());
    let mut many_burst = Server::start(|n| format!("/ws?topics=bench,own.{n}"));
    let burst = |lanes: &str, server: &Server| {
        format!("{lanes}, {BURST} at once ({:.1} sends)", server.burst_sends)
    };
    let one_burst_name = burst("one lane, raw", &one_raw_burst);
    let many_burst_name = burst("a lane each, JSON", &many_burst);
    suite.run(
        Group::new(name)
            .items(SUBSCRIBERS)
            .case("one lane, raw, 1 publication", || one_raw.publish(1))
            .case(one_burst_name, || one_raw_burst.publish(BURST))
            .case("one lane, JSON, 1 publication", || one_json.publish(1))
            .case("a lane each, JSON, 1 publication", || many.publish(1))
            .case(many_burst_name, || many_burst.publish(BURST)),
    );
}

struct Server {
    shard: Shard<NullRing>,
    /// The control thread's end of the mesh, read so that it does not fill up.
    control: Node<Mail>,
    publisher: Token,
    frame: Vec<u8>,
    /// Sends per subscriber for [`BURST`] publications at once.
    burst_sends: f64,
}

impl Server {
    /// With all subscribers at the paths given, and one publisher.
    fn start(path: impl Fn(u64) -> String) -> Self {
        let mut nodes = grid(2, capacity_for::<Mail>(2));
        let control = nodes.pop().expect("two nodes");
        let node = nodes.pop().expect("two nodes");
        let parts = Parts {
            io: NullRing::default(),
            pool: Pool::new(PoolOptions { bytes_max: 1 << 30, ..PoolOptions::default() }),
            node,
            // Pings are not what is measured.
            settings: Arc::new(Settings {
                ping_interval: Duration::from_secs(86_400),
                ..Settings::default()
            }),
            shared: Arc::new(Shared::new(1, 7)),
            journal: None,
        };
        let mut frame = Vec::new();
        let payload = format!("{{\"p\":\"{:0>118}\"}}", 1);
        write_frame(&mut frame, Opcode::Text, true, payload.as_bytes(), Some([1, 2, 3, 4]));
        let publisher = Token { index: 0, generation: 0 };
        let shard = Shard::new(parts, clock::now());
        let mut server = Self { shard, control, publisher, frame, burst_sends: 0.0 };
        for n in 0..SUBSCRIBERS {
            server.connect(n as u32, DATA_LISTENER, &path(n));
        }
        server.publisher = server.connect(SUBSCRIBERS as u32, PUBLISH_LISTENER, "/publish/bench");
        // One to make the topic; then the figures can be checked.
        server.publish(1);
        let sent = server.publish(BURST);
        server.burst_sends = sent.sends as f64 / SUBSCRIBERS as f64;
        assert!((1.0..BURST as f64).contains(&server.burst_sends), "coalesced: {}", sent.sends);
        assert!(sent.bytes >= SUBSCRIBERS * BURST * payload.len() as u64, "all of it");
        server
    }

    fn connect(&mut self, slot: u32, listener: ListenerId, path: &str) -> Token {
        let peer = (Ipv4Addr::LOCALHOST, 40_000).into();
        let now = clock::now();
        self.shard.complete(Completion::Accepted { listener, slot: Slot(slot), peer }, now);
        if let Some(token) = self.shard.io_mut().polled.take() {
            self.shard.complete(Completion::Readable { token, hung_up: false }, now);
        }
        let token = self.shard.io_mut().received.take().expect("a receive is asked for");
        let mut data = Vec::new();
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        write_request(&mut data, &Ask { path, host: "localhost", key, ..Ask::default() });
        self.shard.complete(Completion::Received { token, data, armed: false }, now);
        self.settle();
        token
    }

    /// Publishes so many at once and lets the shard run until everyone has been sent them.
    fn publish(&mut self, count: u64) -> Sent {
        let (sends, bytes) = self.sent();
        let now = clock::now();
        let mut data = Vec::with_capacity(RECEIVE_BYTES * 2);
        for _ in 0..count {
            data.extend_from_slice(&self.frame);
        }
        let token = self.publisher;
        self.shard.complete(Completion::Received { token, data, armed: true }, now);
        self.settle();
        let (sends_after, bytes_after) = self.sent();
        Sent { sends: sends_after - sends, bytes: bytes_after - bytes }
    }

    /// As the reactor does, until the shard would sleep.
    fn settle(&mut self) {
        while self.shard.timeout() == Some(Duration::ZERO) {
            self.shard.tick(clock::now()).expect("a null ring does not fail");
        }
        self.shard.tick(clock::now()).expect("a null ring does not fail");
        self.control.receive(usize::MAX, |_, _| {});
    }

    fn sent(&mut self) -> (u64, u64) {
        let io = self.shard.io_mut();
        (io.sends, io.bytes)
    }
}

/// What left the shard.
struct Sent {
    sends: u64,
    bytes: u64,
}

const SUBSCRIBERS: u64 = 10_000;
/// Of 128 bytes each: they fit one receive.
const BURST: u64 = 8;
