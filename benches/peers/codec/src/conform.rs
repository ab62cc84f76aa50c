//! What each crate does with what RFC 6455 forbids.
//!
//! Knows: how each crate says no. Must not know: what is forbidden.

use std::sync::Arc;

use fastwebsockets::{FragmentCollector, OpCode};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_websockets::{Limits, ServerBuilder};
use tungstenite::protocol::WebSocketConfig;
use uringcast_protocol::{Event, Header, Opcode, Role, Session};

use crate::{
    offences::{self, MESSAGE_BYTES_MAX, Offence},
    stream::{Wire, ready},
    table::Table,
};

/// What came of some bytes.
enum Verdict {
    /// All taken.
    Accepted,
    /// Refused; with the code that the peer is closed with, if the crate names one or sends it.
    Refused(Option<u16>),
}

/// A line for each offence, a column for each crate.
pub(crate) fn table() -> Table {
    let head = [
        "",
        "RFC 6455",
        "due",
        "uringcast-protocol",
        "tungstenite",
        "fastwebsockets",
        "tokio-websockets",
    ];
    let mut table = Table::new(TITLE, head);
    for offence in offences::all() {
        let crates = [ours, tungstenite, fastwebsockets, tokio_websockets];
        let cells = crates.map(|judge| cell(&offence, judge));
        let about = [offence.name.to_owned(), offence.section.to_owned(), offence.code.to_string()];
        table.row(about.into_iter().chain(cells));
    }
    table
}

fn cell(offence: &Offence, judge: fn(&[u8]) -> Verdict) -> String {
    let shown = judge(&offence.wire[..offence.shown]);
    let (verdict, late) = match shown {
        Verdict::Refused(code) => (Verdict::Refused(code), ""),
        Verdict::Accepted => (judge(&offence.wire), ", late"),
    };
    match verdict {
        Verdict::Accepted => "accepted".to_owned(),
        Verdict::Refused(Some(code)) => format!("{code}{late}"),
        Verdict::Refused(None) => format!("no code{late}"),
    }
}

fn ours(wire: &[u8]) -> Verdict {
    let mut session = Session::new(Role::Server, MESSAGE_BYTES_MAX as u64);
    let (mut input, mut message) = (wire, Vec::new());
    loop {
        match session.receive(&mut input, &mut message) {
            Ok(None) => return Verdict::Accepted,
            Ok(Some(Event::Message(_))) => message.clear(),
            Ok(Some(_)) => {}
            Err(error) => return Verdict::Refused(Some(error.close_code().value())),
        }
    }
}

fn tungstenite(wire: &[u8]) -> Verdict {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let role = tungstenite::protocol::Role::Server;
    let mut socket = tungstenite::WebSocket::from_raw_socket(once(wire), role, Some(config));
    let refused = loop {
        match socket.read() {
            Ok(tungstenite::Message::Close(_)) => break false,
            Ok(_) => {}
            Err(tungstenite::Error::Io(_)) => break false,
            Err(_) => break true,
        }
    };
    // A close may be waiting to be sent; that there is none is no error here.
    let _ = socket.flush();
    verdict(refused, socket.get_ref())
}

fn fastwebsockets(wire: &[u8]) -> Verdict {
    let role = fastwebsockets::Role::Server;
    let mut socket = fastwebsockets::WebSocket::after_handshake(once(wire), role);
    // It refuses what is as long as this.
    socket.set_max_message_size(MESSAGE_BYTES_MAX + 1);
    let mut socket = FragmentCollector::new(socket);
    let refused = loop {
        match ready(socket.read_frame()) {
            None => break false,
            Some(Ok(frame)) if frame.opcode == OpCode::Close => break false,
            Some(Ok(_)) => {}
            Some(Err(_)) => break true,
        }
    };
    verdict(refused, &socket.into_inner())
}

fn tokio_websockets(wire: &[u8]) -> Verdict {
    let limits = Limits::default().max_payload_len(Some(MESSAGE_BYTES_MAX));
    let mut socket = ServerBuilder::new().limits(limits).serve(once(wire));
    let refused = loop {
        match ready(socket.next()) {
            None | Some(None) => break false,
            Some(Some(Ok(message))) if message.is_close() => break false,
            Some(Some(Ok(_))) => {}
            Some(Some(Err(_))) => break true,
        }
    };
    // As above.
    let _ = ready(socket.flush());
    verdict(refused, socket.get_ref())
}

fn once(wire: &[u8]) -> Wire {
    Wire::once(Arc::from(wire))
}

/// A close that answers an illegal one with another code is a refusal too.
fn verdict(refused: bool, wire: &Wire) -> Verdict {
    let code = sent_code(wire.output());
    if refused || code.is_some_and(|code| code == 1002 || code == 1007) {
        return Verdict::Refused(code);
    }
    Verdict::Accepted
}

/// The code of the close among the frames that were sent.
fn sent_code(mut sent: &[u8]) -> Option<u16> {
    while let Ok(Some((header, header_bytes))) = Header::decode(sent) {
        let payload = sent.get(header_bytes..)?;
        if header.opcode == Opcode::Close {
            return payload.first_chunk().map(|&code| u16::from_be_bytes(code));
        }
        sent = payload.get(usize::try_from(header.payload_bytes).ok()?..)?;
    }
    None
}

const TITLE: &str = "conformance: the code that answers an illegal input; `late`: only after more of it than the header, or \
    than the byte, that shows it; `no code`: refused, but nothing is sent and the error names no code";
