//! Whole messages: received by a session, written as frames, wrapped in the JSON protocol.

use std::hint::black_box;

use uringcast_benches::suite::{Group, Suite};
use uringcast_protocol::{
    Opcode, command,
    reply::{self, Payload},
    session::{Role, Session},
    writer::write_frame,
};

pub(crate) fn run(suite: &Suite) {
    for bytes in [128, 1 << 10, 16 << 10] {
        receive(suite, bytes);
        write(suite, bytes);
    }
    commands(suite);
}

/// What a publisher's message costs from the receive buffer to where it is kept.
fn receive(suite: &Suite, bytes: usize) {
    let payload = vec![b'x'; bytes];
    let frame = |opcode| {
        let mut frame = Vec::new();
        write_frame(&mut frame, opcode, true, &payload, Some([0x37, 0xFA, 0x21, 0x3D]));
        frame
    };
    let (binary, text) = (frame(Opcode::Binary), frame(Opcode::Text));
    let mut copied = Vec::with_capacity(bytes);
    let mut sinks = [const { Vec::new() }; 3];
    let [whole_binary, whole_text, cut] = &mut sinks;
    let mut sessions = [const { Session::new(Role::Server, 1 << 20) }; 3];
    let [for_binary, for_text, for_cut] = &mut sessions;
    suite.run(
        Group::new(format!("receive a message of {bytes} B"))
            .bytes(bytes as u64)
            .case("memcpy", || {
                copied.clear();
                copied.extend_from_slice(black_box(&payload));
            })
            .case("binary", || take(for_binary, &[&binary], whole_binary))
            .case("text", || take(for_text, &[&text], whole_text))
            .case("text, cut in the middle", || {
                let (first, second) = text.split_at(text.len() / 2);
                take(for_cut, &[first, second], cut)
            }),
    );
}

/// The number of events.
fn take(session: &mut Session, pieces: &[&[u8]], sink: &mut Vec<u8>) -> usize {
    sink.clear();
    let mut events = 0;
    for &piece in pieces {
        let mut input = black_box(piece);
        while let Ok(Some(_)) = session.receive(&mut input, sink) {
            events += 1;
        }
    }
    events
}

/// What one publication costs per wire format.
fn write(suite: &Suite, bytes: usize) {
    let payload = vec![b'1'; bytes];
    let (mut copied, mut raw, mut json) = (Vec::new(), Vec::new(), Vec::new());
    suite.run(
        Group::new(format!("write a publication of {bytes} B"))
            .bytes(bytes as u64)
            .case("memcpy", || {
                copied.clear();
                copied.extend_from_slice(black_box(&payload));
            })
            .case("raw frame", || {
                raw.clear();
                write_frame(&mut raw, Opcode::Text, true, black_box(&payload), None);
            })
            .case("JSON message", || {
                json.clear();
                let payload = Payload::Json(black_box(&payload));
                reply::write_message(&mut json, TOPIC, 45, 1_723_161_253_937_085, false, payload);
            }),
    );
}

fn commands(suite: &Suite) {
    const SUBSCRIBE: &[u8] =
        br#"{"op":"subscribe","id":1,"topics":["md.BTCUSDT.trade","md.*.bookTicker"],"snapshot":true}"#;
    const PING: &[u8] = br#"{"op":"ping","id":4}"#;
    suite.run(
        Group::new("parse a command")
            .case("ping", || command::parse(black_box(PING)).is_ok())
            .case("subscribe to two", || command::parse(black_box(SUBSCRIBE)).is_ok()),
    );
}

const TOPIC: &str = "md.BTCUSDT.trade";
