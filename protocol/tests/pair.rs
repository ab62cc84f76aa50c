//! Two sessions and a link between them: real conversations, cut at every byte.

mod raw_frame;

use proptest::prelude::*;
use uringcast_protocol::writer::{write_close, write_frame, write_message, write_ping, write_pong};
use uringcast_protocol::{
    CloseCode, Event, MessageKind, Opcode, PeerError, Role, Session, Sink, SinkFull, State,
};

use crate::raw_frame::{KEY, raw};

const LIMIT: u64 = 1 << 20;

/// What came out, messages with their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// One end: a session, its sink, and all it has heard.
struct End {
    session: Session,
    sink: Vec<u8>,
    heard: Vec<Heard>,
}

impl End {
    fn new(role: Role) -> Self {
        Self { session: Session::new(role, LIMIT), sink: Vec::new(), heard: Vec::new() }
    }

    fn hear(&mut self, mut input: &[u8]) -> Result<(), PeerError> {
        while let Some(event) = self.session.receive(&mut input, &mut self.sink)? {
            self.heard.push(match event {
                Event::Message(MessageKind::Text) => {
                    let text = std::mem::take(&mut self.sink);
                    Heard::Text(String::from_utf8(text).expect("checked"))
                }
                Event::Message(MessageKind::Binary) => {
                    Heard::Binary(std::mem::take(&mut self.sink))
                }
                Event::Deflated(_) => panic!("nothing was negotiated"),
                Event::Ping(payload) => Heard::Ping(payload.to_vec()),
                Event::Pong(payload) => Heard::Pong(payload.to_vec()),
                Event::Close(code, reason) => Heard::Close(
                    code.map(CloseCode::value),
                    String::from_utf8(reason.to_vec()).expect("checked"),
                ),
            });
        }
        assert!(input.is_empty(), "None means used up");
        Ok(())
    }
}

/// Hears `bytes` whole, cut in two at every byte, and byte by byte; the outcome must be one.
fn hear_at_every_cut(role: Role, bytes: &[u8]) -> (Result<(), PeerError>, Vec<Heard>) {
    let mut whole = End::new(role);
    let outcome = whole.hear(bytes);
    for cut in 0..=bytes.len() {
        let mut end = End::new(role);
        let cut_outcome = end.hear(&bytes[..cut]).and_then(|()| end.hear(&bytes[cut..]));
        assert_eq!((cut_outcome, &end.heard), (outcome, &whole.heard), "cut at {cut}");
        assert_eq!(end.session.state(), whole.session.state());
    }
    let mut end = End::new(role);
    let cut_outcome = bytes.iter().try_for_each(|&byte| end.hear(&[byte]));
    assert_eq!((cut_outcome, &end.heard), (outcome, &whole.heard), "byte by byte");
    (outcome, whole.heard)
}

/// The mask that the peer of this role uses.
fn mask_towards(role: Role) -> Option<[u8; 4]> {
    (role == Role::Server).then_some(KEY)
}

#[test]
fn a_conversation_with_everything_at_every_cut() {
    for role in [Role::Client, Role::Server] {
        let mask = mask_towards(role);
        let mut bytes = Vec::new();
        write_message(&mut bytes, Opcode::Text, "héllo €uro 😀".as_bytes(), mask);
        write_message(&mut bytes, Opcode::Binary, &[], mask);
        write_ping(&mut bytes, b"are you there", mask);
        let text = "ünï😀".as_bytes();
        write_frame(&mut bytes, Opcode::Text, false, &text[..1], mask);
        write_ping(&mut bytes, b"", mask);
        write_frame(&mut bytes, Opcode::Continuation, false, &text[1..6], mask);
        write_frame(&mut bytes, Opcode::Continuation, false, &[], mask);
        write_pong(&mut bytes, &[7; 125], mask);
        write_frame(&mut bytes, Opcode::Continuation, true, &text[6..], mask);
        write_message(&mut bytes, Opcode::Binary, &[3; 300], mask);
        write_close(&mut bytes, Some(CloseCode(4321)), "genug für heute", mask);
        bytes.extend_from_slice(b"and garbage that nobody reads");

        let (outcome, heard) = hear_at_every_cut(role, &bytes);
        assert_eq!(outcome, Ok(()));
        let expected = [
            Heard::Text("héllo €uro 😀".into()),
            Heard::Binary(vec![]),
            Heard::Ping(b"are you there".to_vec()),
            Heard::Ping(vec![]),
            Heard::Pong(vec![7; 125]),
            Heard::Text("ünï😀".into()),
            Heard::Binary(vec![3; 300]),
            Heard::Close(Some(4321), "genug für heute".into()),
        ];
        assert_eq!(heard, expected);
    }
}

#[test]
fn a_large_message_goes_in_fragments_and_comes_whole() {
    let payload: Vec<u8> = (0..200_000_u32).map(|at| (at * 7) as u8).collect();
    let mut bytes = Vec::new();
    write_message(&mut bytes, Opcode::Binary, &payload, Some(KEY));
    let mut end = End::new(Role::Server);
    for piece in bytes.chunks(1_447) {
        end.hear(piece).expect("legal");
    }
    assert_eq!(end.heard, [Heard::Binary(payload)]);
    assert!(end.session.is_idle());
}

/// Client and server talk over a link that carries so many bytes at a time.
#[test]
fn two_ends_open_talk_and_close() {
    for step in [1, 3, 1_000] {
        let (mut client, mut server) = (End::new(Role::Client), End::new(Role::Server));
        let mut up = Vec::new();
        write_message(&mut up, Opcode::Text, b"subscribe", Some(KEY));
        write_ping(&mut up, b"1", Some(KEY));
        write_close(&mut up, Some(CloseCode::NORMAL), "", Some(KEY));
        client.session.close_sent();
        assert_eq!(client.session.state(), State::CloseSent);
        for piece in up.chunks(step) {
            server.hear(piece).expect("legal");
        }
        assert_eq!(server.session.state(), State::CloseReceived);

        // The server answers what it heard, in order.
        let mut down = Vec::new();
        for heard in &server.heard {
            match heard {
                Heard::Text(text) => {
                    write_message(&mut down, Opcode::Text, text.as_bytes(), None);
                }
                Heard::Ping(payload) => write_pong(&mut down, payload, None),
                Heard::Close(code, _) => write_close(&mut down, code.map(CloseCode), "", None),
                other => panic!("not sent: {other:?}"),
            }
        }
        server.session.close_sent();
        assert_eq!(server.session.state(), State::Closed);
        for piece in down.chunks(step) {
            client.hear(piece).expect("legal");
        }
        // Messages still come after our own close, until the peer's.
        let expected = [
            Heard::Text("subscribe".into()),
            Heard::Pong(b"1".to_vec()),
            Heard::Close(Some(1000), String::new()),
        ];
        assert_eq!(client.heard, expected);
        assert_eq!(client.session.state(), State::Closed);
        // A second close must not be sent, and noting one changes nothing.
        assert!(!client.session.state().sends());
        client.session.close_sent();
        assert_eq!(client.session.state(), State::Closed);
    }
}

#[test]
fn each_offence_at_every_cut() {
    let begun = raw(0x01, b"begun");
    let cases: [(Vec<u8>, PeerError); 21] = [
        (vec![0x81, 0x01, b'x'], PeerError::Unmasked),
        (raw(0xC1, b"x"), PeerError::ReservedBits),
        (raw(0xA1, b"x"), PeerError::ReservedBits),
        (raw(0x91, b"x"), PeerError::ReservedBits),
        (raw(0x83, b"x"), PeerError::ReservedOpcode),
        (raw(0x8F, b"x"), PeerError::ReservedOpcode),
        (raw(0x09, b"x"), PeerError::ControlFragmented),
        (vec![0x89, 0xFE, 0, 126, 1, 2, 3, 4], PeerError::ControlTooLong),
        (vec![0x82, 0xFE, 0, 125, 1, 2, 3, 4], PeerError::LengthNotMinimal),
        (vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 255, 255], PeerError::LengthNotMinimal),
        (vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], PeerError::LengthTooLarge),
        (raw(0x80, b"x"), PeerError::ContinuationUnexpected),
        ([&begun[..], &raw(0x81, b"x")].concat(), PeerError::ContinuationExpected),
        ([&begun[..], &raw(0x02, b"x")].concat(), PeerError::ContinuationExpected),
        (raw(0x81, b"a\xC3"), PeerError::InvalidUtf8),
        ([&begun[..], &raw(0x80, b"\xED\xA0")].concat(), PeerError::InvalidUtf8),
        (raw(0x88, &[0x03]), PeerError::CloseTruncated),
        (raw(0x88, &1005_u16.to_be_bytes()), PeerError::InvalidCloseCode),
        (raw(0x88, b"\x03\xE8\xFF"), PeerError::CloseReasonUtf8),
        // 1 MiB and one byte, in the head alone; 127 bytes are there, so that no cut is the end.
        (
            [&[0x82, 0xFF, 0, 0, 0, 0, 0, 0x10, 0, 1][..], &[0; 127]].concat(),
            PeerError::MessageTooBig,
        ),
        (
            [&begun[..], &[0x80, 0xFF, 0, 0, 0, 0, 0, 0x0F, 0xFF, 0xFC], &KEY].concat(),
            PeerError::MessageTooBig,
        ),
    ];
    for (bytes, offence) in cases {
        let (outcome, heard) = hear_at_every_cut(Role::Server, &bytes);
        assert_eq!((outcome, heard.len()), (Err(offence), 0), "{bytes:02x?}");

        // Nothing more is read, and a close is still owed.
        let mut end = End::new(Role::Server);
        assert_eq!(end.hear(&bytes), Err(offence));
        assert_eq!(end.hear(&raw(0x89, b"still there?")), Ok(()));
        assert!(end.heard.is_empty());
        assert_eq!(end.session.state(), State::CloseReceived);
        end.session.close_sent();
        assert_eq!(end.session.state(), State::Closed);
    }
    let (outcome, _) = hear_at_every_cut(Role::Client, &raw(0x81, b"x"));
    assert_eq!(outcome, Err(PeerError::Masked));
}

/// Whole headers were once judged in another order than cut ones.
#[test]
fn of_two_offences_in_a_header_the_earlier_byte_counts_at_every_cut() {
    for (bytes, offence) in [
        (vec![0x80, 0x00], PeerError::ContinuationUnexpected),
        (vec![0xC1, 0x00], PeerError::ReservedBits),
        (vec![0xC9, 0x7E], PeerError::ReservedBits),
        (vec![0x82, 0x7E, 0x00, 0x01], PeerError::Unmasked),
        (vec![0x82, 0x7F, 0xFF], PeerError::Unmasked),
        (vec![0x80, 0xFF, 0xFF], PeerError::ContinuationUnexpected),
        (vec![0x89, 0x7F], PeerError::ControlTooLong),
    ] {
        let (outcome, _) = hear_at_every_cut(Role::Server, &bytes);
        assert_eq!(outcome, Err(offence), "{bytes:02x?}");
    }
}

/// The first byte that shows the offence is enough.
#[test]
fn an_offence_is_not_waited_upon() {
    let begun = raw(0x01, "é".as_bytes());
    let after_begun = |bytes: &[u8]| [&begun[..], bytes].concat();
    let cases = [
        (vec![0xC1], PeerError::ReservedBits),
        (vec![0x80], PeerError::ContinuationUnexpected),
        (after_begun(&[0x82]), PeerError::ContinuationExpected),
        (vec![0x81, 0x7E], PeerError::Unmasked),
        // U+110000 is refused at its second byte, in the frame after its first.
        ([&raw(0x01, &[0xF4])[..], &raw(0x00, &[0x90])].concat(), PeerError::InvalidUtf8),
        // The frame says four bytes; the first is wrong already.
        (vec![0x81, 0x84, 0, 0, 0, 0, 0xFF], PeerError::InvalidUtf8),
    ];
    for (bytes, offence) in cases {
        let mut end = End::new(Role::Server);
        let (last, before) = bytes.split_last().expect("not empty");
        assert_eq!(end.hear(before), Ok(()), "{bytes:02x?}");
        assert_eq!(end.hear(&[*last]), Err(offence), "{bytes:02x?}");
    }
}

#[test]
fn closes() {
    for (payload, heard) in [
        (&b""[..], Heard::Close(None, String::new())),
        (b"\x03\xE8", Heard::Close(Some(1000), String::new())),
        (b"\x0F\xA0bye", Heard::Close(Some(4000), "bye".into())),
    ] {
        let (outcome, all) = hear_at_every_cut(Role::Server, &raw(0x88, payload));
        assert_eq!((outcome, all), (Ok(()), vec![heard]));
    }
    for code in [0_u16, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65535] {
        let (outcome, _) = hear_at_every_cut(Role::Server, &raw(0x88, &code.to_be_bytes()));
        assert_eq!(outcome, Err(PeerError::InvalidCloseCode), "{code}");
    }
    // Inside an unfinished message as well.
    let bytes = [raw(0x01, b"unfinished"), raw(0x88, b"\x03\xE9")].concat();
    let (outcome, heard) = hear_at_every_cut(Role::Server, &bytes);
    assert_eq!((outcome, heard), (Ok(()), vec![Heard::Close(Some(1001), String::new())]));
}

#[test]
fn the_size_limit_counts_all_fragments_of_one_message() {
    let receive = |limit, frames: &[Vec<u8>]| {
        let bytes = frames.concat();
        let mut session = Session::new(Role::Server, limit);
        let (mut input, mut sink) = (&bytes[..], Vec::new());
        let mut messages = 0;
        while session.receive(&mut input, &mut sink)?.is_some() {
            messages += 1;
            sink.clear();
        }
        Ok(messages)
    };
    let (three, four) = (raw(0x02, b"abc"), raw(0x80, b"defg"));
    let both = [three, four];
    assert_eq!(receive(7, &both), Ok(1));
    assert_eq!(receive(7, &[&both[..], &both[..]].concat()), Ok(2));
    assert_eq!(receive(6, &both), Err(PeerError::MessageTooBig));
    assert_eq!(receive(0, &[raw(0x82, b"")]), Ok(1));
    assert_eq!(receive(0, &[raw(0x82, b"x")]), Err(PeerError::MessageTooBig));
    // A length that no limit allows for.
    let huge = vec![0x82, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0];
    assert_eq!(receive(u64::MAX, &[raw(0x02, b"x"), raw(0x80, b""), huge.clone()]), Ok(1));
    assert_eq!(receive(1 << 62, &[huge]), Err(PeerError::MessageTooBig));
}

/// A sink of four bytes.
struct Small(Vec<u8>);

impl Sink for Small {
    fn extend(&mut self, bytes: usize) -> Result<&mut [u8], SinkFull> {
        if self.0.len() + bytes > 4 {
            return Err(SinkFull);
        }
        Sink::extend(&mut self.0, bytes)
    }
}

#[test]
fn a_full_sink_is_not_the_peers_fault() {
    let mut session = Session::new(Role::Server, LIMIT);
    let mut sink = Small(Vec::new());
    let bytes = [raw(0x02, b"abcd"), raw(0x80, b"e")].concat();
    let outcome = session.receive(&mut &bytes[..], &mut sink);
    assert_eq!(outcome, Err(PeerError::SinkFull));
    assert_eq!(PeerError::SinkFull.close_code(), CloseCode::TRY_AGAIN_LATER);
    assert_eq!(sink.0, b"abcd");
}

#[test]
fn idle_is_between_messages_only() {
    let bytes = [raw(0x01, b"ab"), raw(0x89, b"p"), raw(0x80, b"cd"), raw(0x8A, b"xyz")].concat();
    let last = raw(0x8A, b"xyz").len();
    let mut end = End::new(Role::Server);
    assert!(end.session.is_idle());
    for (at, &byte) in bytes.iter().enumerate() {
        end.hear(&[byte]).expect("legal");
        let idle = [bytes.len() - last, bytes.len()].contains(&(at + 1));
        assert_eq!(end.session.is_idle(), idle, "after byte {at}");
    }
    end.session.close_sent();
    assert!(!end.session.is_idle());
}

/// A frame to be sent.
#[derive(Clone, Debug)]
enum Said {
    /// A message in so many fragments, a ping before each but the first.
    Message {
        text: bool,
        payload: String,
        fragments: usize,
    },
    Pong(Vec<u8>),
}

fn conversation() -> impl Strategy<Value = Vec<Said>> {
    let message = (any::<bool>(), "\\PC{0,200}", 1..5_usize)
        .prop_map(|(text, payload, fragments)| Said::Message { text, payload, fragments });
    let pong = prop::collection::vec(any::<u8>(), 0..=125).prop_map(Said::Pong);
    prop::collection::vec(prop_oneof![3 => message, 1 => pong], 0..6)
}

fn say(said: &[Said], mask: Option<[u8; 4]>) -> (Vec<u8>, Vec<Heard>) {
    let (mut bytes, mut heard) = (Vec::new(), Vec::new());
    for said in said {
        match said {
            Said::Pong(payload) => {
                write_pong(&mut bytes, payload, mask);
                heard.push(Heard::Pong(payload.clone()));
            }
            Said::Message { text, payload, fragments } => {
                let size = payload.len().div_ceil(*fragments).max(1);
                let pieces: Vec<&[u8]> = payload.as_bytes().chunks(size).collect();
                let pieces = if pieces.is_empty() { vec![&b""[..]] } else { pieces };
                for (index, piece) in pieces.iter().enumerate() {
                    let opcode = match (index, text) {
                        (0, true) => Opcode::Text,
                        (0, false) => Opcode::Binary,
                        _ => Opcode::Continuation,
                    };
                    if index > 0 {
                        write_ping(&mut bytes, &[index as u8], mask);
                        heard.push(Heard::Ping(vec![index as u8]));
                    }
                    write_frame(&mut bytes, opcode, index + 1 == pieces.len(), piece, mask);
                }
                heard.push(if *text {
                    Heard::Text(payload.clone())
                } else {
                    Heard::Binary(payload.clone().into_bytes())
                });
            }
        }
    }
    (bytes, heard)
}

proptest! {
    #[test]
    fn what_is_said_is_heard_however_it_is_cut(
        said in conversation(),
        key in any::<Option<[u8; 4]>>(),
        cuts in prop::collection::vec(1..50_usize, 1..8),
    ) {
        let (bytes, expected) = say(&said, key);
        let role = if key.is_some() { Role::Server } else { Role::Client };
        let mut end = End::new(role);
        let mut rest = &bytes[..];
        for size in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at((*size).min(rest.len()));
            prop_assert_eq!(end.hear(piece), Ok(()));
            rest = later;
        }
        prop_assert_eq!(end.heard, expected);
        prop_assert!(end.session.is_idle());
    }

    /// Whatever a peer sends, and however it is cut: one outcome, and no panic.
    #[test]
    fn garbage_is_judged_the_same_at_every_cut(
        said in conversation(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (mut bytes, _) = say(&said, Some(KEY));
        bytes.truncate(400);
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        // The comparison is inside; what the outcome is depends on the change.
        let (_outcome, _heard) = hear_at_every_cut(Role::Server, &bytes);
    }
}
