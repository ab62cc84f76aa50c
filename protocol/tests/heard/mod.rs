//! What a session makes of bytes, in the words of the plain decoder.
//!
//! Knows: the session's interface, and what must hold after each step. Must not know: how either decodes.

use uringcast_protocol::{CloseCode, Event, MessageKind, PeerError, Role, Session};

use crate::plain::{Agreed, Said};

/// All that a session says of `input`, cut to pieces of these sizes in turn; none: whole.
pub(crate) fn receive(
    agreed: Agreed,
    input: &[u8],
    sizes: &[usize],
) -> (Vec<Said>, Result<(), PeerError>) {
    let role = if agreed.masked { Role::Server } else { Role::Client };
    let limit = agreed.message_bytes_max as u64;
    let mut session = Session::new(role, limit);
    if agreed.deflate {
        session = session.with_deflate();
    }
    let (mut said, mut sink, mut rest) = (Vec::new(), Vec::new(), input);
    let sizes = if sizes.is_empty() { &[usize::MAX] } else { sizes };
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (mut piece, later) = rest.split_at(rest.len().min(*size));
        rest = later;
        loop {
            let outcome = session.receive(&mut piece, &mut sink);
            assert!(sink.len() <= agreed.deflated_bytes_max);
            let event = match outcome {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    assert!(!session.state().reads() && !session.is_idle());
                    return (said, Err(error));
                }
            };
            assert!(!matches!(said.last(), Some(Said::Close(..))), "{event:?} after a close");
            said.push(self::said(event, &mut sink));
        }
        assert!(piece.is_empty(), "nothing to say, so all is taken");
    }
    (said, Ok(()))
}

fn said(event: Event, sink: &mut Vec<u8>) -> Said {
    match event {
        Event::Message(MessageKind::Text) => Said::Text(std::mem::take(sink)),
        Event::Message(MessageKind::Binary) => Said::Binary(std::mem::take(sink)),
        Event::Deflated(kind) => {
            Said::Deflated { text: kind == MessageKind::Text, bytes: std::mem::take(sink) }
        }
        Event::Ping(payload) => Said::Ping(payload.to_vec()),
        Event::Pong(payload) => Said::Pong(payload.to_vec()),
        Event::Close(code, reason) => Said::Close(code.map(CloseCode::value), reason.to_vec()),
    }
}
