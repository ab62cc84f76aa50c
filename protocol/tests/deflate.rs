//! Compressed messages through a session: RSV1 where it may stand and where not, at every cut.

mod raw_frame;

use proptest::prelude::*;
use uringcast_protocol::writer::{
    write_close, write_deflated, write_frame, write_message, write_ping,
};
use uringcast_protocol::{
    Event, Header, MessageKind, Opcode, PeerError, Role, Session, State,
    limits::{FRAGMENT_BYTES_MAX, HEADER_BYTES_MAX},
};

use crate::raw_frame::{KEY, raw};

/// "Hello" (RFC 7692 section 7.2.3.1); it is not UTF-8.
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Plain(MessageKind, Vec<u8>),
    Deflated(MessageKind, Vec<u8>),
    Control,
}

fn hear_in(mut session: Session, pieces: &[&[u8]]) -> (Result<(), PeerError>, Vec<Heard>, bool) {
    let (mut sink, mut heard) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut input = *piece;
        loop {
            heard.push(match session.receive(&mut input, &mut sink) {
                Err(error) => return (Err(error), heard, false),
                Ok(None) => break,
                Ok(Some(Event::Message(kind))) => Heard::Plain(kind, std::mem::take(&mut sink)),
                Ok(Some(Event::Deflated(kind))) => Heard::Deflated(kind, std::mem::take(&mut sink)),
                Ok(Some(_)) => Heard::Control,
            });
        }
    }
    (Ok(()), heard, session.is_idle())
}

/// Whole, cut in two at every byte, and byte by byte: one outcome.
fn hear(session: fn() -> Session, bytes: &[u8]) -> (Result<(), PeerError>, Vec<Heard>, bool) {
    let whole = hear_in(session(), &[bytes]);
    for cut in 0..=bytes.len() {
        let (front, back) = bytes.split_at(cut);
        assert_eq!(hear_in(session(), &[front, back]), whole, "cut at {cut}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(hear_in(session(), &single), whole, "byte by byte");
    whole
}

fn deflating() -> Session {
    Session::new(Role::Server, 1_000).with_deflate()
}

#[test]
fn compressed_and_plain_messages_at_every_cut() {
    let mask = Some(KEY);
    let mut bytes = Vec::new();
    write_deflated(&mut bytes, Opcode::Text, &HELLO, mask);
    write_message(&mut bytes, Opcode::Text, "plain ü".as_bytes(), mask);
    // In fragments, with a ping between them, and one of them empty.
    bytes.extend(raw(0x41, &HELLO[..3]));
    write_ping(&mut bytes, b"?", mask);
    write_frame(&mut bytes, Opcode::Continuation, false, &[], mask);
    write_frame(&mut bytes, Opcode::Continuation, true, &HELLO[3..], mask);
    write_message(&mut bytes, Opcode::Binary, &[1, 2], mask);
    write_deflated(&mut bytes, Opcode::Binary, &[0], mask);
    write_deflated(&mut bytes, Opcode::Binary, &[], mask);
    write_close(&mut bytes, None, "", mask);
    let (outcome, heard, _) = hear(deflating, &bytes);
    assert_eq!(outcome, Ok(()));
    use Heard::{Control, Deflated, Plain};
    use MessageKind::{Binary, Text};
    let expected = [
        Deflated(Text, HELLO.to_vec()),
        Plain(Text, "plain ü".into()),
        Control,
        Deflated(Text, HELLO.to_vec()),
        Plain(Binary, vec![1, 2]),
        Deflated(Binary, vec![0]),
        Deflated(Binary, vec![]),
        Control,
    ];
    assert_eq!(heard, expected);
}

#[test]
fn the_bit_stands_on_the_first_frame_of_a_message_and_nowhere_else() {
    let begun = |first: u8, then: &[u8]| [&raw(first, &HELLO[..2])[..], then].concat();
    for (bytes, offence) in [
        // Control frames, between messages and inside one.
        (raw(0xC8, b""), PeerError::ReservedBits),
        (raw(0xC9, b"x"), PeerError::ReservedBits),
        (raw(0xCA, b""), PeerError::ReservedBits),
        (begun(0x41, &raw(0xC9, b"")), PeerError::ReservedBits),
        // Continuations, of a compressed message, a plain one and nothing.
        (begun(0x41, &raw(0xC0, b"x")), PeerError::ReservedBits),
        (begun(0x02, &raw(0x40, b"x")), PeerError::ReservedBits),
        (raw(0xC0, b"x"), PeerError::ReservedBits),
        // The other two bits still mean nothing.
        (raw(0xE1, b"x"), PeerError::ReservedBits),
        (raw(0xD2, b"x"), PeerError::ReservedBits),
        (begun(0x41, &raw(0xC1, b"x")), PeerError::ContinuationExpected),
    ] {
        let (outcome, heard, _) = hear(deflating, &bytes);
        assert_eq!((outcome, heard.len()), (Err(offence), 0), "{bytes:02x?}");
    }
    let plain = || Session::new(Role::Server, 1_000);
    for first in [0xC1, 0xC2, 0x41, 0x42] {
        assert_eq!(hear(plain, &raw(first, &HELLO)).0, Err(PeerError::ReservedBits));
    }
}

/// An offence is found at its first byte.
#[test]
fn the_bit_is_not_waited_upon() {
    for first in [0xC0, 0xC8, 0xC9, 0xCA] {
        assert_eq!(hear_in(deflating(), &[&[first]]).0, Err(PeerError::ReservedBits));
    }
    assert_eq!(hear_in(deflating(), &[&[0xC1]]).0, Ok(()));
}

#[test]
fn text_after_a_compressed_message_is_checked_again() {
    let bytes = [raw(0xC1, &HELLO), raw(0x81, b"\xFF")].concat();
    let (outcome, heard, _) = hear(deflating, &bytes);
    assert_eq!((outcome, heard.len()), (Err(PeerError::InvalidUtf8), 1));
}

#[test]
fn a_compressed_message_may_be_an_eighth_longer_than_a_plain_one() {
    let receive = |rsv1, payload_bytes| {
        let mut head = [0; HEADER_BYTES_MAX];
        let opcode = Opcode::Binary;
        let header = Header { fin: true, rsv1, opcode, mask: Some(KEY), payload_bytes };
        let head_bytes = header.encode(&mut head);
        hear_in(deflating(), &[&head[..head_bytes]]).0
    };
    let too_big = Err(PeerError::MessageTooBig);
    assert_eq!((receive(false, 1_000), receive(false, 1_001)), (Ok(()), too_big));
    assert_eq!((receive(true, 1_189), receive(true, 1_190)), (Ok(()), too_big));
    // Over all frames together.
    let eleven = [raw(0x42, &[0; 100]), raw(0x00, &[0; 100]).repeat(10)].concat();
    let with = |last: usize| hear_in(deflating(), &[&eleven, &raw(0x80, &vec![0; last])]).0;
    assert_eq!((with(89), with(90)), (Ok(()), too_big));
    let no_limit = Session::new(Role::Server, u64::MAX).with_deflate();
    assert_eq!(hear_in(no_limit, &[&eleven]).0, Ok(()));
}

#[test]
fn after_an_offence_that_the_caller_saw_nothing_is_read() {
    let mut session = deflating();
    let bytes = [raw(0xC1, b"garbage"), raw(0x81, b"more")].concat();
    let (mut input, mut sink) = (&bytes[..], Vec::new());
    let event = session.receive(&mut input, &mut sink);
    assert_eq!(event, Ok(Some(Event::Deflated(MessageKind::Text))));
    session.offended();
    assert_eq!(session.receive(&mut input, &mut sink), Ok(None));
    assert!(input.is_empty() && !session.is_idle());
    assert_eq!(session.state(), State::CloseReceived);
}

#[test]
fn a_long_compressed_message_has_the_bit_in_its_first_frame() {
    let compressed = vec![7; FRAGMENT_BYTES_MAX + 1];
    let mut bytes = Vec::new();
    write_deflated(&mut bytes, Opcode::Text, &compressed, None);
    let (first, first_bytes) = Header::decode(&bytes).expect("legal").expect("whole");
    let second = &bytes[first_bytes + FRAGMENT_BYTES_MAX..];
    let (second, _) = Header::decode(second).expect("legal").expect("whole");
    assert_eq!((first.opcode, first.rsv1, first.fin), (Opcode::Text, true, false));
    assert_eq!((second.opcode, second.rsv1, second.fin), (Opcode::Continuation, false, true));
    let session = Session::new(Role::Client, 100_000).with_deflate();
    let (outcome, heard, idle) = hear_in(session, &[&bytes]);
    assert_eq!((outcome, idle), (Ok(()), true));
    assert_eq!(heard, [Heard::Deflated(MessageKind::Text, compressed)]);
}

proptest! {
    #[test]
    fn any_frames_are_judged_the_same_at_every_cut(
        frames in prop::collection::vec(
            (any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)), 1..6
        )
    ) {
        // Mostly what is legal: opcodes 0 to 2 with FIN and RSV1 as they come.
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|(first, payload)| raw(if *first < 220 { first & 0xC2 } else { *first }, payload))
            .collect();
        // The comparison is inside.
        let _ = hear(deflating, &bytes);
    }
}
