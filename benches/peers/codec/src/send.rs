//! Messages sent by a server, sixteen before a flush.
//!
//! Knows: how each crate is written to. Must not know: what is in the messages.

use std::{hint::black_box, sync::Arc};

use fastwebsockets::{Frame, Payload};
use futures_util::SinkExt as _;
use tokio_websockets::ServerBuilder;
use tungstenite::{Message, Utf8Bytes};
use uringcast_protocol::{Header, Opcode, limits::HEADER_BYTES_MAX, writer::write_frame};

use crate::{
    inputs::ascii,
    report::Report,
    stream::{Wire, ready},
    suite::{Group, Suite},
};

pub(crate) fn run(suite: &Suite, report: &mut Report) {
    for bytes in [16, 64, 125, 512, 4 << 10, 64 << 10, 1 << 20] {
        let name = format!("send text of {bytes} B");
        if suite.wants(&name) {
            report.measured(suite.measure(group(&name, &ascii(bytes))));
        }
    }
}

fn group<'a>(name: &str, text: &'a str) -> Group<'a> {
    let wire = || Wire::endless(Arc::from(&b""[..]));
    let mut ours = (wire(), Vec::new());
    let role = tungstenite::protocol::Role::Server;
    let mut tungstenite = tungstenite::WebSocket::from_raw_socket(wire(), role, None);
    let message = Message::Text(Utf8Bytes::from(text));
    let role = fastwebsockets::Role::Server;
    let mut fastwebsockets = fastwebsockets::WebSocket::after_handshake(wire(), role);
    let mut tokio_websockets = ServerBuilder::new().serve(wire());
    let their_message = tokio_websockets::Message::text(text.to_owned());
    Group::new(name)
        .items(MESSAGES)
        .bytes(MESSAGES * text.len() as u64)
        .case("uringcast-protocol", move || send(&mut ours.0, &mut ours.1, text.as_bytes()))
        .case("tungstenite", move || {
            for _ in 0..MESSAGES {
                tungstenite.write(black_box(&message).clone()).expect("the wire takes all");
            }
            tungstenite.flush().expect("the wire takes all");
        })
        .case("fastwebsockets", move || {
            let sent = ready(async {
                for _ in 0..MESSAGES {
                    let payload = Payload::Borrowed(black_box(text).as_bytes());
                    fastwebsockets.write_frame(Frame::text(payload)).await?;
                }
                fastwebsockets.flush().await
            });
            sent.expect("the wire never waits").expect("the wire takes all");
        })
        .case("tokio-websockets", move || {
            let sent = ready(async {
                for _ in 0..MESSAGES {
                    tokio_websockets.feed(black_box(&their_message).clone()).await?;
                }
                tokio_websockets.flush().await
            });
            sent.expect("the wire never waits").expect("the wire takes all");
        })
}

/// As the server does: small frames are copied together, large payloads go by reference.
fn send(wire: &mut Wire, out: &mut Vec<u8>, payload: &[u8]) {
    out.clear();
    for _ in 0..MESSAGES {
        let payload = black_box(payload);
        if payload.len() < BY_REFERENCE_BYTES {
            write_frame(out, Opcode::Text, true, payload, None);
        } else {
            let payload_bytes = payload.len() as u64;
            let opcode = Opcode::Text;
            let header = Header { fin: true, rsv1: false, opcode, mask: None, payload_bytes };
            let mut bytes = [0; HEADER_BYTES_MAX];
            let header_bytes = header.encode(&mut bytes);
            wire.give_all(&bytes[..header_bytes]);
            wire.give_all(payload);
        }
    }
    wire.give_all(out);
}

const MESSAGES: u64 = 16;
/// From here on the server does not copy a payload into the log.
const BY_REFERENCE_BYTES: usize = 1 << 10;
