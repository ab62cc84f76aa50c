//! Messages received by a server: unmasked, put together, text checked.
//!
//! Knows: how each crate is read from. Must not know: what is in the messages.

use std::{hint::black_box, sync::Arc};

use fastwebsockets::{FragmentCollector, OpCode};
use futures_util::StreamExt as _;
use tokio_websockets::{ServerBuilder, WebSocketStream};
use tungstenite::{Message, WebSocket};
use uringcast_protocol::{Event, Role, Session, Sink, SinkFull, writer::write_pong};

use crate::{
    inputs::{self, Input},
    report::Report,
    stream::{Wire, ready},
    suite::{Group, Suite},
};

pub(crate) fn run(suite: &Suite, report: &mut Report) {
    for input in inputs::all().iter().filter(|input| suite.wants(&input.name)) {
        let mut ours = Ours::new(&input.wire);
        let mut tungstenite = tungstenite(Wire::endless(Arc::clone(&input.wire)));
        let mut fastwebsockets = fastwebsockets(Wire::endless(Arc::clone(&input.wire)));
        let mut tokio_websockets =
            ServerBuilder::new().serve(Wire::endless(Arc::clone(&input.wire)));
        let group = Group::new(&input.name).items(input.messages).bytes(input.payload_bytes);
        let group = group
            .case("uringcast-protocol", || checked(input, ours.take(input.messages)))
            .case("tungstenite", || {
                checked(input, take_tungstenite(&mut tungstenite, input.messages))
            })
            .case("fastwebsockets", || {
                let taken = ready(take_fastwebsockets(&mut fastwebsockets, input.messages));
                checked(input, taken.expect("the wire never waits"))
            })
            .case("tokio-websockets", || {
                let taken = ready(take_tokio_websockets(&mut tokio_websockets, input.messages));
                checked(input, taken.expect("the wire never waits"))
            });
        report.measured(suite.measure(group));
    }
}

/// Whoever takes less than all does less work.
fn checked(input: &Input, bytes: u64) -> u64 {
    assert_eq!(bytes, input.payload_bytes, "{}", input.name);
    bytes
}

/// As the server has it: one receive buffer, messages unmasked into memory that is there already.
struct Ours {
    wire: Wire,
    session: Session,
    received: Box<[u8]>,
    /// What of `received` is not read yet.
    start: usize,
    end: usize,
    message: Reused,
    pong: Vec<u8>,
}

impl Ours {
    fn new(input: &Arc<[u8]>) -> Self {
        Self {
            wire: Wire::endless(Arc::clone(input)),
            session: Session::new(Role::Server, MESSAGE_BYTES_MAX as u64),
            received: vec![0; RECEIVE_BYTES].into(),
            start: 0,
            end: 0,
            message: Reused { bytes: vec![0; MESSAGE_BYTES_MAX].into(), len: 0 },
            pong: Vec::new(),
        }
    }

    fn take(&mut self, messages: u64) -> u64 {
        let mut bytes = 0;
        let mut left = messages;
        while left > 0 {
            if self.start == self.end {
                self.start = 0;
                self.end = self.wire.take(&mut self.received).expect("the wire never waits");
            }
            let mut input = &self.received[self.start..self.end];
            while left > 0 {
                match self.session.receive(&mut input, &mut self.message) {
                    Ok(Some(Event::Message(_))) => {
                        bytes += black_box(self.message.take()).len() as u64;
                        left -= 1;
                    }
                    Ok(Some(Event::Ping(payload))) => {
                        self.pong.clear();
                        write_pong(&mut self.pong, &payload, None);
                        self.wire.give_all(&self.pong);
                    }
                    Ok(Some(Event::Pong(_) | Event::Close(..) | Event::Deflated(_))) => {}
                    Ok(None) => break,
                    Err(error) => panic!("legal input: {error}"),
                }
            }
            self.start = self.end - input.len();
        }
        bytes
    }
}

/// A message's memory, used again for the next.
struct Reused {
    bytes: Box<[u8]>,
    len: usize,
}

impl Reused {
    fn take(&mut self) -> &[u8] {
        let len = std::mem::take(&mut self.len);
        &self.bytes[..len]
    }
}

impl Sink for Reused {
    #[inline]
    fn extend(&mut self, bytes: usize) -> Result<&mut [u8], SinkFull> {
        let start = self.len;
        self.len += bytes;
        self.bytes.get_mut(start..start + bytes).ok_or(SinkFull)
    }
}

fn tungstenite(wire: Wire) -> WebSocket<Wire> {
    WebSocket::from_raw_socket(wire, tungstenite::protocol::Role::Server, None)
}

fn take_tungstenite(socket: &mut WebSocket<Wire>, messages: u64) -> u64 {
    let mut bytes = 0;
    let mut left = messages;
    while left > 0 {
        let message = socket.read().expect("legal input");
        if let Message::Text(_) | Message::Binary(_) = message {
            bytes += black_box(message).len() as u64;
            left -= 1;
        }
    }
    bytes
}

fn fastwebsockets(wire: Wire) -> FragmentCollector<Wire> {
    let socket = fastwebsockets::WebSocket::after_handshake(wire, fastwebsockets::Role::Server);
    FragmentCollector::new(socket)
}

async fn take_fastwebsockets(socket: &mut FragmentCollector<Wire>, messages: u64) -> u64 {
    let mut bytes = 0;
    let mut left = messages;
    while left > 0 {
        let frame = socket.read_frame().await.expect("legal input");
        if let OpCode::Text | OpCode::Binary = frame.opcode {
            bytes += black_box(frame).payload.len() as u64;
            left -= 1;
        }
    }
    bytes
}

async fn take_tokio_websockets(socket: &mut WebSocketStream<Wire>, messages: u64) -> u64 {
    let mut bytes = 0;
    let mut left = messages;
    while left > 0 {
        let message = socket.next().await.expect("the wire never ends").expect("legal input");
        if message.is_text() || message.is_binary() {
            bytes += black_box(message).as_payload().len() as u64;
            left -= 1;
        }
    }
    bytes
}

/// What is read stays in the first-level cache until it is unmasked. The server's default is 2 KiB.
const RECEIVE_BYTES: usize = 8 << 10;
const MESSAGE_BYTES_MAX: usize = 4 << 20;
