//! Once it runs, a shard allocates nothing: receive, decode, order, fan out, send, pings and pongs.
//!
//! The whole shard on the null ring; that the real ring allocates nothing either is a test of its own
//! (`server/ring/tests/allocations.rs`). What is received is made before the count begins.

use std::time::Duration;

use allocation_counter::measure;
use uringcast_benches::null_server::NullServer;
use uringcast_protocol::{Opcode, writer::write_frame};
use uringcast_ring::Token;

#[test]
fn a_steady_tick_of_fan_out_allocates_nothing() {
    let mut server = NullServer::new(1_000);
    for n in 0..600 {
        match n % 3 {
            0 => server.subscribe("/raw/a"),
            1 => server.subscribe("/ws?topics=a,b,c"),
            _ => server.subscribe(&format!("/ws?topics=b,{}", ["a", "c", "*"][n % 9 / 3])),
        };
    }
    server.subscribe("/sse?topics=a,b");
    let publishers = ["a", "b", "c"].map(|topic| server.publisher(&format!("/publish/{topic}")));
    let rounds = |rounds: usize| -> Vec<Vec<(Token, Vec<u8>)>> {
        let round = |n: usize| {
            let each = publishers.iter().enumerate();
            let sizes = each.map(|(at, &publisher)| (publisher, SIZES[(n + at) % SIZES.len()]));
            let frame = |(publisher, bytes)| (publisher, text(&json(bytes)));
            sizes.map(frame).collect()
        };
        (0..rounds).map(round).collect()
    };
    assert_steady(&mut server, MILLISECOND, rounds(1_000), rounds(500));
}

#[test]
fn publications_by_line_allocate_nothing() {
    let mut server = NullServer::new(1_000);
    (0..300).for_each(|n| {
        server.subscribe(["/raw/a", "/ws?topics=a,b"][n % 2]);
    });
    let publisher = server.publisher("/publish");
    let lines = "{\"topic\":\"a\",\"data\":{\"p\":1}}\n{\"topic\":\"b\",\"data\":[1,2,3]}\n";
    let rounds = |rounds: usize| vec![vec![(publisher, text(lines))]; rounds];
    assert_steady(&mut server, MILLISECOND, rounds(1_000), rounds(500));
}

#[test]
fn pings_and_pongs_allocate_nothing() {
    let mut server = NullServer::new(1_000);
    let clients: Vec<Token> = (0..500).map(|_| server.client("/ws?topics=a")).collect();
    let publisher = server.publisher("/publish/a");
    let rounds = |rounds: usize| -> Vec<Vec<(Token, Vec<u8>)>> {
        let round = |n: usize| {
            let mut told = vec![(publisher, text(&json(20)))];
            // Answers to our pings come in time, and clients ping as well.
            for (at, &client) in clients.iter().enumerate() {
                if (n + at).is_multiple_of(50) {
                    told.push((client, frame(Opcode::Pong, b"")));
                }
                if (n + at).is_multiple_of(70) {
                    told.push((client, frame(Opcode::Ping, b"client's")));
                }
            }
            told
        };
        (0..rounds).map(round).collect()
    };
    // In all, three quarters of the interval between two pings of a client.
    assert_steady(&mut server, 12 * MILLISECOND, rounds(1_000), rounds(500));
}

/// Nothing is allocated in `rounds`, after some to warm up; each is so long after the one before.
fn assert_steady(
    server: &mut NullServer,
    apart: Duration,
    warm_up: Vec<Vec<(Token, Vec<u8>)>>,
    rounds: Vec<Vec<(Token, Vec<u8>)>>,
) {
    let sent = server.ring().sends;
    let warming = measure(|| run(server, apart, warm_up));
    assert!(warming.count_total > 0, "it counts");
    let before = server.ring().sends;
    assert!(before > sent);
    let steady = measure(|| run(server, apart, rounds));
    assert!(server.ring().sends > before + 500, "much was sent");
    assert_eq!(steady.count_total, 0, "{steady:?}");
}

/// Each round's bytes come in one tick.
fn run(server: &mut NullServer, apart: Duration, rounds: Vec<Vec<(Token, Vec<u8>)>>) {
    for round in rounds {
        server.pass(apart);
        for (whom, bytes) in round {
            server.receive(whom, bytes);
        }
        server.settle();
    }
}

/// A payload of so many bytes. Text that is not JSON, and bytes, are copied once more where they come in.
fn json(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

fn text(payload: &str) -> Vec<u8> {
    frame(Opcode::Text, payload.as_bytes())
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, opcode, true, payload, Some([1, 2, 3, 4]));
    frame
}

const MILLISECOND: Duration = Duration::from_millis(1);
/// Within one receive buffer; payloads of the protocol's three lengths but the largest.
const SIZES: [usize; 5] = [2, 100, 125, 126, 1_500];
