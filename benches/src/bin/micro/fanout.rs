//! A whole shard on a ring that sends nowhere: from a publisher's bytes to the last subscriber's send,
//! without the kernel.
//!
//! Ten thousand subscribers sit in one lane, where a publication is appended once, or in a lane each,
//! where it is appended ten thousand times. Several publications at once go out together: as many
//! sends as the log has segments.

use uringcast_benches::{
    null_ring::RECEIVE_BYTES,
    null_server::NullServer,
    suite::{Group, Suite},
};
use uringcast_protocol::{Opcode, writer::write_frame};
use uringcast_ring::Token;

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
    server: NullServer,
    publisher: Token,
    frame: Vec<u8>,
    /// Sends per subscriber for [`BURST`] publications at once.
    burst_sends: f64,
}

impl Server {
    /// With all subscribers at the paths given, and one publisher.
    fn start(path: impl Fn(u64) -> String) -> Self {
        let mut server = NullServer::new(SUBSCRIBERS as u32 + 1);
        let mut frame = Vec::new();
        let payload = format!("{{\"p\":\"{:0>118}\"}}", 1);
        write_frame(&mut frame, Opcode::Text, true, payload.as_bytes(), Some([1, 2, 3, 4]));
        for n in 0..SUBSCRIBERS {
            server.subscribe(&path(n));
        }
        let publisher = server.publisher("/publish/bench");
        let mut server = Self { server, publisher, frame, burst_sends: 0.0 };
        // One to make the topic; then the figures can be checked.
        server.publish(1);
        let sent = server.publish(BURST);
        server.burst_sends = sent.sends as f64 / SUBSCRIBERS as f64;
        assert!((1.0..BURST as f64).contains(&server.burst_sends), "coalesced: {}", sent.sends);
        assert!(sent.bytes >= SUBSCRIBERS * BURST * payload.len() as u64, "all of it");
        server
    }

    /// Publishes so many at once and lets the shard run until everyone has been sent them.
    fn publish(&mut self, count: u64) -> Sent {
        let (sends, bytes) = self.sent();
        let mut data = Vec::with_capacity(RECEIVE_BYTES * 2);
        for _ in 0..count {
            data.extend_from_slice(&self.frame);
        }
        self.server.receive(self.publisher, data);
        self.server.settle();
        let (sends_after, bytes_after) = self.sent();
        Sent { sends: sends_after - sends, bytes: bytes_after - bytes }
    }

    fn sent(&mut self) -> (u64, u64) {
        let io = self.server.ring();
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
