//! Frames in pieces: the session against the plain decoder of the protocol's tests, and against
//! tungstenite.
//!
//! Knows: where tungstenite is known to differ. Must not know: how anybody decodes.
//!
//! Input: a byte of flags (1 masked, 2 deflate, 4 and 8 the longest message), a byte with the number
//! of piece sizes (0–3), the sizes less one, the frames.

use std::io::{self, Read, Write};

use tungstenite::{
    Message,
    protocol::{self, WebSocketConfig, frame::coding::CloseCode as TheirCode},
};
use uringcast_protocol::PeerError;

use crate::{
    heard::receive,
    plain::{self, Agreed, End, Said, Wrong},
    tape::Tape,
};

/// The same said, and the same end, by all three.
pub fn check(data: &[u8]) {
    let mut tape = Tape::new(data);
    let flags = tape.byte();
    let message_bytes_max = MESSAGE_BYTES_MAX[usize::from(flags >> 2 & 3)];
    let agreed = Agreed {
        masked: flags & 1 != 0,
        deflate: flags & 2 != 0,
        message_bytes_max,
        // What the session documents.
        deflated_bytes_max: message_bytes_max + message_bytes_max / 8 + 64,
    };
    let count = usize::from(tape.byte() & 3);
    let sizes: Vec<usize> = tape.take(count).iter().map(|&less| usize::from(less) + 1).collect();
    let input = tape.rest();

    let (said, end) = plain::decode(input, agreed);
    let (whole, outcome) = receive(agreed, input, &[usize::MAX]);
    assert_eq!(whole, said);
    match (end, outcome) {
        (End::Wrong(wrong), Err(error)) => {
            assert_eq!(error.close_code().value(), wrong.close_code, "{error:?} {wrong:?}");
            let not_minimal = error == PeerError::LengthNotMinimal;
            assert_eq!(not_minimal, wrong.length_not_minimal, "{error:?} {wrong:?}");
            let too_long = error == PeerError::ControlTooLong;
            assert_eq!(too_long, wrong.control_extended, "{error:?} {wrong:?}");
        }
        (End::Input | End::Closed, Ok(())) => {}
        other => panic!("the ends differ: {other:?}"),
    }
    for sizes in [&[1], &sizes[..]] {
        assert_eq!(receive(agreed, input, sizes), (whole.clone(), outcome), "pieces of {sizes:?}");
    }
    // tungstenite knows no deflate, and its bound holds for control frames as well.
    if !agreed.deflate && agreed.message_bytes_max >= 125 {
        compare_with_tungstenite(agreed, input, &said, end);
    }
}

fn compare_with_tungstenite(agreed: Agreed, input: &[u8], said: &[Said], end: End) {
    let (theirs, their_end) = tungstenite(agreed, input);
    match end {
        // It reads on behind a length not in its shortest form, which RFC 6455 section 5.2 forbids.
        End::Wrong(
            Wrong { length_not_minimal: true, .. } | Wrong { control_extended: true, .. },
        ) => {
            assert_eq!(theirs.get(..said.len()), Some(said));
        }
        // It judges a frame when it has all of it.
        End::Wrong(Wrong { frame_whole: false, .. }) => {
            assert_eq!(theirs, said);
            assert!(matches!(their_end, TheirEnd::Input | TheirEnd::Wrong), "{their_end:?}");
        }
        End::Wrong(_) => assert_eq!((&theirs[..], their_end), (said, TheirEnd::Wrong)),
        End::Input => assert_eq!((&theirs[..], their_end), (said, TheirEnd::Input)),
        End::Closed => match said {
            // It does not know 1014, registered after RFC 6455.
            [before @ .., Said::Close(Some(1014), _)] => {
                assert_eq!((&theirs[..], their_end), (before, TheirEnd::Wrong));
            }
            _ => assert_eq!((&theirs[..], their_end), (said, TheirEnd::Closed)),
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TheirEnd {
    Input,
    Closed,
    Wrong,
}

/// All that tungstenite says of `input`.
fn tungstenite(agreed: Agreed, input: &[u8]) -> (Vec<Said>, TheirEnd) {
    let role = if agreed.masked { protocol::Role::Server } else { protocol::Role::Client };
    let config = WebSocketConfig::default()
        .max_message_size(Some(agreed.message_bytes_max))
        .max_frame_size(Some(agreed.message_bytes_max));
    let mut socket = protocol::WebSocket::from_raw_socket(Line(input), role, Some(config));
    let mut said = Vec::new();
    loop {
        let message = match socket.read() {
            Ok(message) => message,
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return (said, TheirEnd::Input),
            Err(_) => return (said, TheirEnd::Wrong),
        };
        match message {
            Message::Text(text) => said.push(Said::Text(text.as_bytes().to_vec())),
            Message::Binary(bytes) => said.push(Said::Binary(bytes.to_vec())),
            Message::Ping(payload) => said.push(Said::Ping(payload.to_vec())),
            Message::Pong(payload) => said.push(Said::Pong(payload.to_vec())),
            // What it makes of a code that is not allowed.
            Message::Close(Some(close))
                if close.code == TheirCode::Protocol && close.reason == "Protocol violation" =>
            {
                return (said, TheirEnd::Wrong);
            }
            Message::Close(close) => {
                let (code, reason) = close.map_or((None, Vec::new()), |close| {
                    (Some(close.code.into()), close.reason.as_bytes().to_vec())
                });
                said.push(Said::Close(code, reason));
                return (said, TheirEnd::Closed);
            }
            Message::Frame(frame) => panic!("never read: {frame:?}"),
        }
    }
}

/// A connection that carries these bytes and takes all others.
struct Line<'a>(&'a [u8]);

impl Read for Line<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const MESSAGE_BYTES_MAX: [usize; 4] = [1_000, 125, 70_000, 7];
